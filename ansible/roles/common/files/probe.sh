#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Say in one line what provisioning has to know of a host, changing nothing:
#   hopbench-probe KERNEL:FILESYSTEM UID PYTHON
# Hosts with equal first words run on one kernel and one root file system.
# Usage: probe.sh [DATA_NIC [EGRESS_NIC]]    fails when one that is named does not exist
set -eu

# $1: the variable of the inventory, $2: its value, or nothing.
require_nic() {
	if [ -n "$2" ] && [ ! -e "/sys/class/net/$2" ]; then
		found=$(cd /sys/class/net && echo *)
		echo "$1 $2 does not exist on this host, which has: $found" >&2
		exit 3
	fi
}

require_nic data_nic "${1-}"
require_nic egress_nic "${2-}"
python=-
if [ -x /usr/bin/python3 ]; then python=python; fi
echo "hopbench-probe $(cat /proc/sys/kernel/random/boot_id):$(stat -c %d:%i /)" \
	"$(id -u) $python"
