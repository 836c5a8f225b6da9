#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make this machine ready: Debian packages, kernel headers, and the project in .venv.
#
# Does only what is missing; when nothing is, it takes a second and needs no network.
# Usage: tools/setup.sh            set up
#        tools/setup.sh --tests    and what the tests need besides
#        tools/setup.sh --vms      install what virtual machines need, and nothing else
#        tools/setup.sh --containers    install what containers need, and nothing else
#        tools/setup.sh --undo     remove the link to another kernel's headers, if it made one
set -eu
umask 022

cd "$(dirname "$0")/.."
here=$(pwd -P)
roles=ansible/roles/common/files
# Outside /opt/hopbench, which belongs to deploy and goes with undeploy.
headers_record=/var/lib/hopbench/headers-link
policy=/usr/sbin/policy-rc.d
made_policy=no
step="looking at this machine"
explained=no

say() {
	echo "setup: $1" >&2
}

fail() {
	say "$1"
	explained=yes
	exit 1
}

finish() {
	status=$?
	if [ $made_policy = yes ]; then
		rm -f "$policy"
	fi
	if [ $status -ne 0 ] && [ $explained = no ]; then
		say "failed while $step"
	fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

check_machine() {
	[ "$(uname -s)" = Linux ] || fail "this needs Linux, and here is $(uname -s)"
	[ "$(id -u)" = 0 ] || fail "this needs root, for network namespaces and BPF: run it with sudo"
	if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		fail "this needs Debian or Ubuntu, for their packages by apt"
	fi
	# Python may be among the packages that are missing: then BPF is tried later.
	if [ -x /usr/bin/python3 ]; then
		check_bpf
	fi
}

# Make a one-element BPF map, as bpf(2) has it: BPF_MAP_CREATE, type array.
check_bpf() {
	/usr/bin/python3 - <<-'END' || fail "this kernel or container allows no BPF: bpf(2) fails"
		import ctypes, os, platform, struct, sys
		number = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
		attributes = ctypes.create_string_buffer(struct.pack("<IIIII", 2, 4, 4, 1, 0), 72)
		libc = ctypes.CDLL(None, use_errno=True)
		call = number.get(platform.machine())
		fd = libc.syscall(call, 0, attributes, 72) if call else -1
		sys.exit(fd < 0)
	END
}

# Services of what is installed here neither start now nor at the next boot.
install_packages() {
	if [ ! -e "$policy" ]; then
		made_policy=yes
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq </dev/null
	# shellcheck disable=SC2086  # one word a package
	apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 $1 </dev/null >&2
	if command -v systemctl >/dev/null; then
		case " $1 " in *" nginx "*) systemctl -q disable nginx.service || true ;; esac
		case " $1 " in *" openssh-server "*)
			systemctl -q disable ssh.service ssh.socket 2>/dev/null || true
			;;
		esac
		case " $1 " in *" libvirt-daemon-system "*)
			systemctl -q disable libvirtd.service libvirtd.socket libvirtd-ro.socket \
				libvirtd-admin.socket libvirt-guests.service 2>/dev/null || true
			;;
		esac
	fi
	if [ $made_policy = yes ]; then
		rm -f "$policy"
		made_policy=no
	fi
}

# The oldest compiler that the BPF sources are kept to, and the newest there is.
clang_packages() {
	known=$(apt-cache --names-only search '^clang-[0-9]+$' | sed 's/ .*//' | sort -V)
	if [ -z "$known" ]; then
		apt-get update -qq </dev/null
		known=$(apt-cache --names-only search '^clang-[0-9]+$' | sed 's/ .*//' | sort -V)
	fi
	echo "$known" | grep -x clang-14 || true
	echo "$known" | tail -n 1
}

# Usage: setup_packages FILE…
setup_packages() {
	step="looking for packages"
	compilers=
	if [ "$tests" = yes ]; then
		compilers=$(clang_packages)
	fi
	# shellcheck disable=SC2046,SC2086  # one word a package
	missing=$(sh $roles/packages.sh missing \
		$(sed 's/#.*//' "$@") $compilers | tr '\n' ' ')
	missing=${missing% }
	if [ -n "$missing" ]; then
		step="installing packages: $missing"
		say "$step"
		install_packages "$missing"
	fi
}

setup_headers() {
	step="providing kernel headers"
	done_=$(sh $roles/kernel-headers.sh --link --record $headers_record)
	if [ "$done_" != unchanged ]; then
		say "kernel headers: $done_"
	fi
}

find_python() {
	for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
		if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then
			command -v "$python"
			return
		fi
	done
}

setup_venv() {
	step="making .venv"
	# What .venv depends on: it holds absolute paths, so a moved checkout needs a new one.
	base="$here $(sha256sum <requirements.lock)"
	stamp="$base $(sha256sum <pyproject.toml)"
	found=$(cat .venv/setup-stamp 2>/dev/null || true)
	if [ "$found" = "$stamp" ] && [ -x .venv/bin/bench ] && .venv/bin/python -c ''; then
		return
	fi
	python=$(find_python)
	[ -n "$python" ] || fail "this needs Python 3.11 or later, with venv: install python3-venv"
	# Without a stamp, whatever stops this from here on, the next setup does it again.
	rm -f .venv/setup-stamp
	case $found in
	"$here "*) ;;
	*)
		say "making .venv with $python"
		"$python" -m venv --clear .venv
		;;
	esac
	case $found in
	"$base "*) ;;
	*)
		step="installing requirements.lock into .venv"
		say "$step"
		.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
			--require-hashes -r requirements.lock
		;;
	esac
	step="installing the project into .venv"
	.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	echo "$stamp" >.venv/setup-stamp
	say "ready: .venv/bin/bench"
}

if [ "${1-}" = --undo ]; then
	step="removing the link to kernel headers"
	say "kernel headers: $(sh $roles/kernel-headers.sh --unlink --record $headers_record)"
	exit
fi

tests=no
case ${1-} in
--vms | --containers)
	check_machine
	setup_packages "tools/${1#--}-packages.txt" tools/bootstrap-packages.txt
	exit
	;;
esac
if [ "${1-}" = --tests ]; then
	tests=yes
	set -- tools/test-packages.txt tools/bootstrap-packages.txt tools/login-packages.txt
else
	set --
fi

check_machine
setup_packages ansible/packages/*.txt "$@"
check_bpf
setup_headers
setup_venv
