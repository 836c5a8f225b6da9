#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A libvirtd of the project's own, in a network namespace: for a machine that has none running, or
# is not to get any bridge, address or firewall rule.
#
# Bridges, DHCP and the addresses of VMs live and die in the namespace; configuration, images and
# logs in one folder; every process in a PID namespace that ends with its first. The Vagrantfile
# takes this libvirtd while it runs: `vagrant up` and `bench` work from any shell.
#
# Usage: tools/vm-host.sh up       start it; nothing to do when it runs
#        tools/vm-host.sh down     end every VM and process in it, and remove everything
#        tools/vm-host.sh status   say whether it runs (exit status 0) or not (3)
#        tools/vm-host.sh lacking  say in a line what this machine lacks for VMs; nothing: it may
#
# VM_HOST=hopbench-vms-NAME: one more beside it, with a namespace and a folder of that name.
set -eu

namespace=${VM_HOST:-hopbench-vms}
folder=/var/lib/$namespace
pid_file=$folder/pid
socket=$folder/run/libvirt-sock

say() {
	echo "vm-host: $1" >&2
}

fail() {
	say "$1"
	exit 1
}

# A process's command line, or nothing once it has ended. A redirection that fails is the shell's own
# error, which `2>/dev/null` behind it does not silence; hence the braces.
words() {
	{ tr '\0\n' '  ' <"/proc/$1/cmdline"; } 2>/dev/null || :
}

# The process that holds the PID namespace, if it is still that one: an id may come back.
holder() {
	[ -e "$pid_file" ] || return 0
	pid=$(cat "$pid_file")
	if words "$pid" | grep -q "unshare.*libvirtd"; then
		echo "$pid"
	fi
}

check_name() {
	case $namespace in
	*[!a-z0-9-]*) ;;
	hopbench-vms | hopbench-vms-?*) return ;;
	esac
	fail "VM_HOST is '$namespace', not hopbench-vms or hopbench-vms-NAME of a-z, 0-9 and -"
}

check() {
	[ "$(id -u)" = 0 ] || fail "this needs root, for a network namespace: run it with sudo"
	for tool in libvirtd qemu-system-x86_64 dnsmasq virsh socat unshare; do
		command -v "$tool" >/dev/null || fail "$tool is not installed: run make setup-vm"
	done
}

# What no package brings.
lacking() {
	if [ "$(uname -s) $(uname -m)" != "Linux x86_64" ]; then
		echo "VMs are made for Linux on x86_64, and here is $(uname -s) on $(uname -m)"
	elif [ "$(id -u)" != 0 ]; then
		echo "VMs in a network namespace need root"
	elif ! command -v apt-get >/dev/null; then
		echo "what VMs need comes from Debian's or Ubuntu's packages, by apt"
	elif [ ! -c /dev/net/tun ]; then
		echo "there is no /dev/net/tun for the VMs' NICs"
	elif ! unshare --net true 2>/dev/null; then
		echo "network namespaces cannot be made here"
	elif [ "$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -lt 7000 ]; then
		echo "four VMs take 7 GB of memory in software emulation, and less is left"
	elif [ "$(df --output=avail -m /var/lib | tail -n 1)" -lt 6000 ]; then
		echo "a box and its VMs take 6 GB of disk, and less is left in /var/lib"
	fi
}

configure() {
	mkdir -p "$folder/etc/qemu" "$folder/lib/images" "$folder/run" "$folder/cache" "$folder/log"
	chmod 711 "$folder"
	# Only root gets here. libvirtd asks no polkit, and needs no systemd, dbus or virtlogd.
	cat >"$folder/etc/libvirtd.conf" <<-END
		unix_sock_rw_perms = "0700"
		auth_unix_ro = "none"
		auth_unix_rw = "none"
	END
	cat >"$folder/etc/qemu.conf" <<-END
		user = "root"
		group = "root"
		dynamic_ownership = 0
		remember_owner = 0
		security_driver = "none"
		cgroup_controllers = []
		namespaces = []
		stdio_handler = "file"
	END
}

up() {
	check
	if [ -n "$(holder)" ]; then
		return
	fi
	down
	configure
	ip netns add "$namespace"
	ip -n "$namespace" link set lo up
	# shellcheck disable=SC2016  # the inner shell's
	setsid ip netns exec "$namespace" unshare --mount --pid --fork --mount-proc --kill-child \
		--propagation private sh -c '
			mount -t tmpfs -o mode=755 tmpfs /run
			mkdir /run/libvirt
			mount --bind "$1/run" /run/libvirt
			mount --bind "$1/etc" /etc/libvirt
			mount --bind "$1/lib" /var/lib/libvirt
			mount --bind "$1/cache" /var/cache/libvirt
			mount --bind "$1/log" /var/log/libvirt
			# The first process stays a shell: it takes the exit status of every orphan.
			/usr/sbin/libvirtd &
			wait $!' libvirtd "$folder" >"$folder/log/output" 2>&1 </dev/null &
	echo $! >"$pid_file"
	tries=0
	until virsh -q -c "qemu:///system?socket=$socket" version >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ $tries -gt 100 ] || [ -z "$(holder)" ]; then
			reason=$(tail -n 1 "$folder/log/output" 2>/dev/null)
			down
			fail "libvirtd does not start${reason:+: $reason}"
		fi
		sleep 0.1
	done
}

down() {
	pid=$(holder)
	if [ -n "$pid" ]; then
		# With the first process of the namespace all others go.
		kill -KILL "$(ps -o pid= --ppid "$pid" | tr -d ' ')" 2>/dev/null || kill -KILL "$pid"
		while [ -n "$(holder)" ]; do sleep 0.1; done
	fi
	# What came in from outside: SSH's way to a VM, which an ssh that shares its connection keeps open.
	# Without a name the namespace would live on with it.
	for signal in TERM KILL; do
		tries=0
		while [ $tries -lt 20 ] && ip netns pids "$namespace" 2>/dev/null | grep -q .; do
			for pid in $(ip netns pids "$namespace"); do
				kill -$signal "$pid" 2>/dev/null || true
			done
			tries=$((tries + 1))
			sleep 0.1
		done
	done
	ip netns del "$namespace" 2>/dev/null || true
	rm -rf "$folder"
}

check_name
case ${1-} in
up) up ;;
down)
	[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
	down
	;;
status)
	if [ -n "$(holder)" ]; then
		echo "up: network namespace $namespace, socket $socket"
	else
		echo down
		exit 3
	fi
	;;
lacking) lacking ;;
*)
	echo "usage: tools/vm-host.sh up|down|status|lacking" >&2
	exit 2
	;;
esac
