#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Start a node, or do one thing with its tools.
#
# Usage: entrypoint.sh sshd                        be a host of a chain
#        entrypoint.sh wire FUNCTION IFINDEX=MAC…  join the ports of a chain's hosts
#        entrypoint.sh COMMAND…                    anything else
#
# Who may log in to sshd: the public keys in $HOPBENCH_AUTHORIZED_KEYS, or in the file
# /run/secrets/authorized_keys.
set -eu

lib=/usr/local/lib/hopbench
secret=/run/secrets/authorized_keys
nic=eth0

fail() {
	echo "hopbench: $1" >&2
	exit 1
}

# BCC looks for headers of the running kernel, which is the machine's. hopbench's programs include
# only what is alike in all kernels, so the image's own do. Where the machine's are mounted, they stay.
link_headers() {
	modules=/lib/modules/$(uname -r)
	[ ! -e "$modules/build/include/generated/autoconf.h" ] || return 0
	build='' source=''
	for tree in /usr/src/*; do
		[ ! -e "$tree/include/generated/autoconf.h" ] || build=$tree
		[ ! -e "$tree/include/linux/kconfig.h" ] || source=$tree
	done
	[ -n "$build" ] && [ -n "$source" ] || fail "there are no kernel headers in /usr/src"
	if ! { mkdir -p "$modules" && ln -sfn "$build" "$modules/build" &&
		ln -sfn "$source" "$modules/source"; }; then
		fail "/lib/modules is mounted and has no headers of kernel $(uname -r)"
	fi
}

# Engines mount /proc/sys read-only. Deploy sets the forwarding of this container's NIC: net alone,
# which holds what belongs to this network namespace, becomes writable.
open_sysctls() {
	[ ! -w /proc/sys/net/ipv4/ip_forward ] || return 0
	mkdir -p /run/proc
	mount -t proc proc /run/proc || fail "mount is not allowed: run with CAP_SYS_ADMIN, unconfined"
	mount --bind /run/proc/sys/net /proc/sys/net
	umount /run/proc
	rmdir /run/proc
}

# A veth leaves checksums and segmentation to the receiver; once XDP has rewritten such a packet it
# is broken. GRO makes the veth run NAPI, without which nothing can be redirected to it.
set_offloads() {
	ethtool -K "$nic" tx off gro on >/dev/null || fail "$nic cannot be set: run with CAP_NET_ADMIN"
}

authorize() {
	umask 077
	if [ -n "${HOPBENCH_AUTHORIZED_KEYS-}" ]; then
		printf '%s\n' "$HOPBENCH_AUTHORIZED_KEYS" >/etc/ssh/authorized_keys
	elif [ -e $secret ]; then
		cat $secret >/etc/ssh/authorized_keys
	else
		fail "nobody may log in: mount public keys at $secret or set HOPBENCH_AUTHORIZED_KEYS"
	fi
	umask 022
	[ -e /etc/ssh/ssh_host_ed25519_key ] ||
		ssh-keygen -q -t ed25519 -N "" -C hopbench -f /etc/ssh/ssh_host_ed25519_key
}

case ${1-sshd} in
sshd)
	open_sysctls
	link_headers
	set_offloads
	authorize
	mkdir -p /run/sshd
	exec /usr/sbin/sshd -D -e -f $lib/sshd_config
	;;
wire)
	shift
	link_headers
	exec /usr/bin/python3 -B $lib/wire.py "$@"
	;;
*) exec "$@" ;;
esac
