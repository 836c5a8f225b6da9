#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make a Debian or Ubuntu root file system a node. Runs as root inside it, from a copy of the
# checkout.
#
# Usage: install.sh packages    what the roles install, sshd, headers to compile BPF programs with
#        install.sh agent       what `bench deploy` installs, which then finds nothing to change
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
top=$(cd "$here/../.." && pwd -P)

packages() {
	names=$(cd "$top/ansible/packages" && sed 's/#.*//' common.txt client.txt hop.txt server.txt \
		sshd.txt)
	case $(sed -n 's/^ID=//p' /etc/os-release) in
	ubuntu) headers=linux-headers-generic ;;
	*) headers=linux-headers-$(dpkg --print-architecture) ;;
	esac
	# No package may start its service.
	policy=/usr/sbin/policy-rc.d
	made=no
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		made=yes
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086  # one word a package
	apt-get install -qq -y --no-install-recommends $names
	unpack_headers "$headers"
	apt-get clean
	rm -rf /var/lib/apt/lists/*
	[ $made = no ] || rm $policy
	# Every container makes a key of its own.
	rm -f /etc/ssh/ssh_host_*
}

# To be installed, headers want a compiler, and in Debian 13 a kernel: BCC needs the files alone.
unpack_headers() {
	work=$(mktemp -d)
	found=$(apt-get -s -qq install --no-install-recommends "$1" |
		sed -n 's/^Inst \(linux-headers-[^ ]*\).*/\1/p')
	# shellcheck disable=SC2086
	(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root $found)
	for file in "$work"/*.deb; do
		dpkg-deb -x "$file" "$work"
	done
	mkdir -p /usr/src
	mv "$work"/usr/src/* /usr/src/
	rm -r "$work"
}

agent() {
	/usr/bin/python3 -B "$here/bake.py" "$top"
	roles=$top/ansible/roles
	install -m 644 "$roles/client/files/siegerc" /opt/hopbench/client/siegerc
	install -m 644 "$roles/server/files/nginx.conf.template" /opt/hopbench/server/
	(cd /opt/hopbench && /usr/bin/python3 -B -m hop payloads /opt/hopbench/payloads)
	mkdir -p /usr/local/lib/hopbench
	install -m 755 "$here/entrypoint.sh" /usr/local/lib/hopbench/
	install -m 644 "$here/wire.py" "$here/sshd_config" /usr/local/lib/hopbench/
}

verb=${1:?usage: install.sh packages|agent}
case $verb in
packages | agent) "$verb" ;;
*)
	echo "install.sh: unknown verb: $verb" >&2
	exit 2
	;;
esac
