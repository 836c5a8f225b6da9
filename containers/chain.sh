#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A chain whose hosts are containers on one private network of podman's or docker's.
#
# Usage: containers/chain.sh build                   the images hopbench-node and hopbench-controller
#        containers/chain.sh up [--hops N] [--wire xdp|bridge]
#        containers/chain.sh status
#        containers/chain.sh bench ARGUMENT…         the command, in a container beside the chain
#        containers/chain.sh down
#
# Set by environment variables:
#   ENGINE          podman or docker; by default the first that is there
#   NAME            of the network, and what containers' names begin with: hopbench
#   PREFIX          the first three numbers of its addresses: 198.19.0
#   FOLDER          for inventory, key and known_hosts: .containers of the checkout
#   BASE            the image to build on: docker.io/library/debian:12
#   BUILD_OPTIONS, RUN_OPTIONS    more options for the engine's build and run
set -eu

usage() {
	sed -n 's/^# \{0,1\}//; /^Usage/,/down$/p' "$0" >&2
	exit 2
}

say() {
	echo "$1" >&2
}

fail() {
	say "chain.sh: $1"
	exit 1
}

top=$(cd "$(dirname "$0")/.." && pwd -P)
name=${NAME:-hopbench}
prefix=${PREFIX:-198.19.0}
folder=${FOLDER:-$top/.containers}
node=hopbench-node
controller=hopbench-controller

find_engine() {
	if [ -z "${ENGINE-}" ] && [ -e "$folder/engine" ]; then
		ENGINE=$(cat "$folder/engine")
	fi
	for engine in ${ENGINE:-podman docker}; do
		if command -v "$engine" >/dev/null; then return; fi
	done
	fail "${ENGINE:-neither podman nor docker} is ${ENGINE:+not }installed"
}

# XDP, and the tracepoint that times connections, need the machine's own root.
require_root() {
	case $("$engine" info --format '{{json .}}') in
	*'"rootless":true'* | *'name=rootless'*)
		fail "$engine runs without root here, and BPF needs it: run as root"
		;;
	esac
}

build_one() {
	# shellcheck disable=SC2086  # several options
	"$engine" build ${BUILD_OPTIONS-} ${BASE:+--build-arg "BASE=$BASE"} \
		-f "$top/containers/$1/Containerfile" -t "hopbench-$1" "$top" >&2 ||
		fail "the image hopbench-$1 cannot be built"
}

has_image() {
	"$engine" image inspect "$1" >/dev/null 2>&1
}

# Client, hop1 … hopN, server, in the order of the chain.
hosts() {
	echo client
	i=1
	while [ $i -le "$hops" ]; do
		echo "hop$i"
		i=$((i + 1))
	done
	echo server
}

# Engines give out the lowest that is free, .1 to the machine: these stay clear of them.
address() {
	case $1 in
	client) echo "$prefix.101" ;;
	hop*) echo "$prefix.$((101 + ${1#hop}))" ;;
	server) echo "$prefix.$((102 + hops))" ;;
	esac
}

# What a node may do besides what every container may, and why: docs/containers.md.
privileges="--cap-add NET_ADMIN --cap-add SYS_ADMIN
	--security-opt apparmor=unconfined --security-opt label=disable"

start_node() {
	# A redirect would tell the client to leave out the hop that is measured. TTL: one less a hop.
	set -- "$1" \
		--sysctl net.ipv4.conf.all.send_redirects=0 \
		--sysctl net.ipv4.conf.all.accept_redirects=0 \
		--sysctl net.ipv4.ip_default_ttl=255
	# The client's ports and those of the hops' own connections are apart, as in the lab.
	if [ "$1" = client ]; then
		set -- "$@" --sysctl "net.ipv4.ip_local_port_range=2048 32767"
	fi
	host=$1
	shift
	# shellcheck disable=SC2086
	"$engine" run -d --name "$name-$host" --hostname "$host" --label "hopbench.chain=$name" \
		--network "$name" --ip "$(address "$host")" $privileges "$@" \
		-e "HOPBENCH_AUTHORIZED_KEYS=$(cat "$folder/id_ed25519.pub")" \
		${RUN_OPTIONS-} $node sshd >/dev/null || fail "$host does not start"
}

# The key that a node made for itself, asked for by the engine and not over the network.
host_key() {
	tries=0
	until "$engine" exec "$name-$1" \
		sh -c 'test -d /run/sshd && cat /etc/ssh/ssh_host_ed25519_key.pub' 2>/dev/null; do
		tries=$((tries + 1))
		running=$("$engine" inspect -f '{{.State.Running}}' "$name-$1")
		if [ "$running" != true ] || [ $tries -gt 60 ]; then
			fail "$1 ended: $("$engine" logs "$name-$1" 2>&1 | tail -n 1)"
		fi
		sleep 0.5
	done
}

# The other ends of the containers' NICs are in the machine's network namespace, or in that of the
# virtual machine that the engine runs in. So is this container, for as long as it attaches XDP.
join_ports() {
	set -- "$1"
	for host in $(hosts); do
		# shellcheck disable=SC2016  # for the shell inside
		pair=$("$engine" exec "$name-$host" sh -c \
			'echo "$(cat /sys/class/net/eth0/iflink)=$(cat /sys/class/net/eth0/address)"')
		set -- "$@" "$pair"
	done
	# shellcheck disable=SC2086
	"$engine" run --rm --network host --label "hopbench.chain=$name" $privileges \
		${RUN_OPTIONS-} $node wire "$@" || fail "the network cannot be made a wire"
}

write_inventory() {
	{
		echo "# The chain that containers/chain.sh made: every host is a container of this machine."
		echo "[client]"
		echo "client data_ip=$(address client)"
		echo
		echo "[hops]"
		for host in $(hosts); do
			case $host in hop*) echo "$host data_ip=$(address "$host")" ;; esac
		done
		echo
		echo "[server]"
		echo "server data_ip=$(address server)"
		echo
		echo "[all:vars]"
		echo "data_nic=eth0"
		echo 'ansible_host={{ data_ip }}'
		echo "ansible_user=root"
		echo "ansible_python_interpreter=/usr/bin/python3"
		echo 'ansible_ssh_private_key_file={{ inventory_dir }}/id_ed25519'
		echo "ansible_ssh_common_args=-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes" \
			"-o GlobalKnownHostsFile=/dev/null" \
			"-o 'UserKnownHostsFile=\"{{ inventory_dir }}/known_hosts\"'"
	} >"$folder/containers.ini"
}

up() {
	hops=3 function=hopbench_wire
	while [ $# -gt 0 ]; do
		case $1:${2-} in
		--hops:[1-9] | --hops:[1-9][0-9]) hops=$2 ;;
		--wire:xdp) function=hopbench_wire ;;
		--wire:bridge) function=hopbench_pass ;;
		*) usage ;;
		esac
		shift 2
	done
	require_root
	if [ -e "$folder/engine" ] || [ -n "$(labelled)" ]; then
		fail "a chain $name is up, or what is left of it: containers/chain.sh down"
	fi
	has_image $node || build_one node
	mkdir -p "$folder"
	chmod 700 "$folder"
	echo "$engine" >"$folder/engine"
	trap 'say "chain.sh: taking down what is there of it"; down' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	ssh-keygen -q -t ed25519 -N "" -C hopbench -f "$folder/id_ed25519" </dev/null
	"$engine" network create --label "hopbench.chain=$name" --subnet "$prefix.0/24" "$name" \
		>/dev/null ||
		fail "the network $name cannot be made"
	for host in $(hosts); do
		start_node "$host"
	done
	for host in $(hosts); do
		key=$(host_key "$host") || exit 1
		echo "$(address "$host") $key" >>"$folder/known_hosts"
	done
	join_ports "$function"
	write_inventory
	trap - EXIT INT TERM HUP
	say "the chain is up; its inventory is $folder/containers.ini"
}

status() {
	"$engine" ps -a --filter "label=hopbench.chain=$name" --format '{{.Names}}: {{.Status}}'
}

in_controller() {
	[ -e "$folder/containers.ini" ] || fail "no chain is up: containers/chain.sh up"
	has_image $controller || build_one controller
	mkdir -p "$top/results"
	# shellcheck disable=SC2086
	"$engine" run --rm --network "$name" --label "hopbench.chain=$name" \
		-v "$folder:/chain" -v "$top/results:/chain/results" --security-opt label=disable \
		${RUN_OPTIONS-} $controller "$@"
}

# What there is of the chain: containers, then networks.
labelled() {
	"$engine" ps -aq --filter "label=hopbench.chain=$name"
	"$engine" network ls -q --filter "label=hopbench.chain=$name"
}

down() {
	for container in $("$engine" ps -aq --filter "label=hopbench.chain=$name"); do
		"$engine" rm -f "$container" >/dev/null
	done
	for network in $("$engine" network ls -q --filter "label=hopbench.chain=$name"); do
		"$engine" network rm "$network" >/dev/null
	done
	[ ! -e "$folder/engine" ] || rm -rf "$folder"
}

verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
build)
	find_engine
	build_one node
	build_one controller
	;;
up)
	find_engine
	up "$@"
	;;
status | down)
	[ $# -eq 0 ] || usage
	find_engine
	$verb
	;;
bench)
	find_engine
	in_controller "$@"
	;;
*) usage ;;
esac
