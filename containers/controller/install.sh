#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make a Debian or Ubuntu root file system a controller. Runs as root inside it, from a copy of the
# checkout.
#
# Usage: install.sh packages        SSH client, Python
#        install.sh dependencies    what requirements-bench.lock names, by its hashes
#        install.sh bench           the project itself
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
top=$(cd "$here/../.." && pwd -P)
venv=/opt/bench

packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2046  # one word a package
	apt-get install -qq -y --no-install-recommends \
		$(sed 's/#.*//' "$top/ansible/packages/controller.txt")
	apt-get clean
	rm -rf /var/lib/apt/lists/*
}

dependencies() {
	python3 -m venv $venv
	$venv/bin/pip install -q --no-cache-dir --disable-pip-version-check --no-deps \
		--require-hashes -r "$top/requirements-bench.lock"
}

bench() {
	$venv/bin/pip install -q --no-cache-dir --disable-pip-version-check \
		--no-deps --no-build-isolation "$top"
}

verb=${1:?usage: install.sh packages|dependencies|bench}
case $verb in
packages | dependencies | bench) "$verb" ;;
*)
	echo "install.sh: unknown verb: $verb" >&2
	exit 2
	;;
esac
