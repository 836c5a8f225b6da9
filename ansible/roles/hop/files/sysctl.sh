#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Let the data NIC of a hop forward packets, and put the earlier settings back.
#
# forwarding=1: packets that arrive on this NIC are routed on; other NICs stay as they are.
# send_redirects=0: a hop sends packets out of the NIC they came in by, which the kernel would
# answer with ICMP redirects. It sends them when either the NIC's own setting or `all` is 1
# (IN_DEV_ORCONF in include/linux/inetdevice.h), so both are 0; other NICs go by their own.
#
# The settings belong to a network namespace while the records are on a file system that several
# hosts may share, so a record is named after the host and its namespace. A record of an earlier
# boot says nothing: the kernel starts anew.
#
# Usage: sysctl.sh set|restore [--check] HOST NIC    prints `hopbench-sysctl changed|unchanged`
set -eu

verb=${1:?usage: sysctl.sh set|restore [--check] HOST NIC}
shift
check=no
if [ "$1" = --check ]; then
	check=yes
	shift
fi
host=$1
nic=$2

state=/opt/hopbench/state/sysctl
record=$state/$host.$(readlink /proc/self/ns/net | tr -cd 0-9)
boot=$(cat /proc/sys/kernel/random/boot_id)
conf=/proc/sys/net/ipv4/conf

# path and value of every setting made here
settings() {
	echo "$conf/$nic/forwarding 1"
	echo "$conf/$nic/send_redirects 0"
	echo "$conf/all/send_redirects 0"
}

# The value remembered in this boot for the path $1, if any.
remembered() {
	[ -e "$record" ] || return 0
	awk -v boot="$boot" -v path="$1" \
		'NR == 1 && $2 != boot { exit } $1 == path { print $2 }' "$record"
}

set_all() {
	changed=unchanged
	lines="boot $boot"
	while read -r path value; do
		now=$(cat "$path")
		earlier=$now
		if [ "$now" = "$value" ]; then
			# Set by an earlier deploy: what was there before that is what counts.
			earlier=$(remembered "$path")
			earlier=${earlier:-$now}
		else
			changed=changed
		fi
		lines="$lines
$path $earlier"
	done <<-END
		$(settings)
	END
	if [ $changed = changed ] && [ $check = no ]; then
		mkdir -p "$state"
		printf '%s\n' "$lines" >"$record.new"
		mv "$record.new" "$record"
		settings | while read -r path value; do
			echo "$value" >"$path"
		done
	fi
	echo "hopbench-sysctl $changed"
}

# A setting that somebody changed since is left alone.
restore_all() {
	changed=unchanged
	while read -r path value; do
		earlier=$(remembered "$path")
		if [ -n "$earlier" ] && [ "$earlier" != "$value" ] && [ -e "$path" ] &&
			[ "$(cat "$path")" = "$value" ]; then
			changed=changed
			[ $check = yes ] || echo "$earlier" >"$path"
		fi
	done <<-END
		$(settings)
	END
	[ $check = yes ] || rm -f "$record"
	echo "hopbench-sysctl $changed"
}

case $verb in
set) set_all ;;
restore) restore_all ;;
*)
	echo "sysctl.sh: unknown verb: $verb" >&2
	exit 2
	;;
esac
