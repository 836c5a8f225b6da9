#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Let the NICs of a hop forward packets, and put the earlier settings back. Nothing else is touched:
# neither other NICs nor what holds for all of them.
#
# forwarding=1: packets that arrive on this NIC are routed on; bpf_fib_lookup asks for it, too.
#
# IPv4
# send_redirects=0: a hop sends packets out of the NIC they came in by, which the kernel would
# answer with ICMP redirects. It does so as long as the NIC's own setting or `all` is 1
# (IN_DEV_ORCONF in include/linux/inetdevice.h), and `all` is 1 by default. It stays what it is,
# because it also counts for NICs that are none of ours; the doctor says what it costs nft.
# accept_local=1: XDP hands the first packets of a flow to the stack when it does not know the next
# hop's MAC address yet. Their source is an address of this host, a martian to the stack.
# rp_filter=2 with two NICs, where it is 1: those packets come in by one NIC with the other's address,
# which a strict filter drops. The loose one wants any way back to the source. The higher of the
# NIC's setting and `all` counts. Where nothing is filtered, nothing is to be: it costs nft lookups.
#
# IPv6
# accept_ra=2, where it is 1: a NIC that forwards would take no more router advertisements.
# force_forwarding=1, from Linux 6.17 on: the stack forwards what arrives on this NIC. Before that
# only conf.all.forwarding has it forward, which is left alone: it is every NIC's at once.
#
# The settings belong to a network namespace while the records are on a file system that several
# hosts may share, so a record is named after the host and its namespace. A record of an earlier
# boot says nothing: the kernel starts anew. It has a line for each setting: path, the value
# before, the value made.
#
# Usage: sysctl.sh set [--check] HOST 4|6 NIC...
#        sysctl.sh restore [--check] HOST    prints `hopbench-sysctl changed|unchanged`
set -eu
umask 022

verb=${1:?usage: sysctl.sh set|restore [--check] HOST [4|6 NIC...]}
shift
check=no
if [ "$1" = --check ]; then
	check=yes
	shift
fi
host=$1
shift

state=/opt/hopbench/state/sysctl
record=$state/$host.$(readlink /proc/self/ns/net | tr -cd 0-9)
boot=$(cat /proc/sys/kernel/random/boot_id)
net=/proc/sys/net

# Did the strict filter apply before we changed the rp_filter at path $1?
strict() {
	before=$(remembered "$1")
	[ -n "$before" ] || before=$(cat "$1")
	all=$(cat "$net/ipv4/conf/all/rp_filter")
	[ "$before" -lt 2 ] && [ "$all" -lt 2 ] && [ $((before + all)) -gt 0 ]
}

# path and value of every setting to be made, in that order. $1: 4 or 6, then the NICs.
settings() {
	family=$1
	shift
	for nic; do
		conf=$net/ipv$family/conf/$nic
		if [ "$family" = 6 ]; then
			[ "$(cat "$conf/accept_ra")" = 0 ] || echo "$conf/accept_ra 2"
			echo "$conf/forwarding 1"
			[ ! -e "$conf/force_forwarding" ] || echo "$conf/force_forwarding 1"
		else
			echo "$conf/forwarding 1"
			echo "$conf/send_redirects 0"
			echo "$conf/accept_local 1"
			if [ $# -gt 1 ] && strict "$conf/rp_filter"; then
				echo "$conf/rp_filter 2"
			fi
		fi
	done
}

# What this boot's record says, a line a setting. What others may have written is no record of ours.
recorded() {
	[ ! -e "$record" ] ||
		[ -n "$(find "$(dirname "$state")" "$state" "$record" -maxdepth 0 \
			\( ! -user 0 -o -perm /022 \))" ] || awk -v boot="$boot" \
		'NR == 1 && $2 != boot { exit } NR > 1 { print }' "$record"
}

# The value remembered for the path $1, if any.
remembered() {
	recorded | while read -r path earlier value; do
		[ "$path" != "$1" ] || echo "$earlier"
	done
}

# Write the value $2 to the path $1.
#
# Whoever writes 1 to IPv6 forwarding of one NIC has the kernel forget the default routes that
# routers advertised on any of them, also on the one that SSH goes by (rt6_purge_dflt_routers in
# net/ipv6/route.c). It spares NICs whose accept_ra is 2; for one that does not forward, 2 means the
# same as 1, so being stopped half-way does no harm.
write() {
	target=$1
	number=$2
	set --
	case $target:$number in
	"$net"/ipv6/conf/*/forwarding:1)
		for file in "$net"/ipv6/conf/*/accept_ra; do
			if [ "$(cat "$file")" = 1 ]; then
				set -- "$@" "$file"
				echo 2 >"$file"
			fi
		done
		;;
	esac
	echo "$number" >"$target"
	for file; do
		echo 1 >"$file"
	done
}

set_all() {
	changed=unchanged
	lines="boot $boot"
	wanted=$(settings "$@")
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
$path $earlier $value"
	done <<-END
		$wanted
	END
	if [ $changed = changed ] && [ $check = no ]; then
		# What an earlier deploy set on a NIC that is no longer the hop's is still to be put back.
		others=$(recorded | while read -r path earlier value; do
			case $wanted in
			*"$path "*) ;;
			*) echo "$path $earlier $value" ;;
			esac
		done)
		mkdir -p "$state"
		printf '%s\n' "$lines" ${others:+"$others"} >"$record.new"
		mv "$record.new" "$record"
		echo "$wanted" | while read -r path value; do
			[ "$(cat "$path")" = "$value" ] || write "$path" "$value"
		done
	fi
	echo "hopbench-sysctl $changed"
}

# A setting that somebody changed since is left alone.
restore_all() {
	changed=unchanged
	while read -r path earlier value; do
		if [ -e "$path" ] && [ "$earlier" != "$value" ] && [ "$(cat "$path")" = "$value" ]; then
			changed=changed
			[ $check = yes ] || write "$path" "$earlier"
		fi
	done <<-END
		$(recorded)
	END
	[ $check = yes ] || rm -f "$record"
	echo "hopbench-sysctl $changed"
}

case $verb in
set) set_all "$@" ;;
restore) restore_all ;;
*)
	echo "sysctl.sh: unknown verb: $verb" >&2
	exit 2
	;;
esac
