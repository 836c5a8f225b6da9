#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make a Debian or Ubuntu root file system a controller. Runs as root inside it, from a copy of the
# checkout.
#
# Usage: install.sh packages        SSH client, Python
#        install.sh dependencies    what pyproject.toml asks for, of the versions in requirements.lock
#        install.sh bench           the project itself
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
top=$(cd "$here/../.." && pwd -P)
venv=/opt/bench

packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2046  # one word a package
	apt-get install -qq -y --no-install-recommends ca-certificates \
		$(sed 's/#.*//' "$top/ansible/packages/controller.txt")
	apt-get clean
	rm -rf /var/lib/apt/lists/*
}

# requirements.lock holds what the linters and tests need besides, so that it serves as constraints.
constraints() {
	sed -n 's/^\([^ ]*==[^\\]*\).*/\1/p' "$top/requirements.lock" >"$top/constraints.txt"
}

dependencies() {
	python3 -m venv $venv
	constraints
	# shellcheck disable=SC2016  # Python's own
	$venv/bin/python -c 'import sys, tomllib
with open(sys.argv[1], "rb") as file:
    found = tomllib.load(file)
print(*found["project"]["dependencies"], *found["build-system"]["requires"], sep="\n")' \
		"$top/pyproject.toml" >"$top/requirements.txt"
	$venv/bin/pip install -q --no-cache-dir --disable-pip-version-check \
		-c "$top/constraints.txt" -r "$top/requirements.txt"
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
