#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Say in one line what provisioning has to know of a host, changing nothing:
#   hopbench-probe KERNEL:FILESYSTEM UID PYTHON SYSTEMD
# Hosts with equal first words run on one kernel and one root file system.
# Usage: probe.sh [NIC]    fails when NIC does not exist
set -eu

nic=${1-}
if [ -n "$nic" ] && [ ! -e "/sys/class/net/$nic" ]; then
	found=$(cd /sys/class/net && echo *)
	echo "data_nic $nic does not exist on this host, which has: $found" >&2
	exit 3
fi
python=-
systemd=-
if [ -x /usr/bin/python3 ]; then python=python; fi
if [ -d /run/systemd/system ]; then systemd=systemd; fi
echo "hopbench-probe $(cat /proc/sys/kernel/random/boot_id):$(stat -c %d:%i /)" \
	"$(id -u) $python $systemd"
