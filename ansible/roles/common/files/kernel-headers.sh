#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make kernel headers available below /lib/modules/RELEASE, where BCC's compiler looks for them: in
# `build`, and where a distribution splits them, as Debian does, the larger part in `source`.
#
# The headers of the running kernel come first. Only when no package has them, and only with --link,
# another installed kernel's headers are linked there: enough for programs that use UAPI headers.
#
# Usage: kernel-headers.sh [--check] [--link] [--record FILE]    prints `unchanged` or what it did
#        kernel-headers.sh [--check] --unlink --record FILE      removes exactly the link it made
# Exit status: 0 done, 1 no headers (one line on standard error says why and what to do).
set -eu

check=no link=no unlink=no record=
while [ $# -gt 0 ]; do
	case $1 in
	--check) check=yes ;;
	--link) link=yes ;;
	--unlink) unlink=yes ;;
	--record)
		record=${2:?--record needs a file}
		shift
		;;
	*)
		echo "kernel-headers.sh: unknown argument: $1" >&2
		exit 2
		;;
	esac
	shift
done

would=
if [ "$check" = yes ]; then would="would have "; fi
release=$(uname -r)
modules=/lib/modules/$release
build=$modules/build

fail() {
	echo "$1" >&2
	exit 1
}

apt_install() {
	# Nothing of standard input: it may be the rest of somebody's script.
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=300 "$1" </dev/null >&2
}

is_known() {
	[ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]
}

# Does a folder of /lib/modules lead to headers that are whole?
is_whole() {
	part=$1/build
	if [ -e "$1/source" ]; then part=$1/source; fi
	[ -e "$1/build/include/generated/autoconf.h" ] && [ -e "$part/include/linux/kconfig.h" ]
}

# The newest kernel release that has a complete headers tree.
newest_tree() {
	for tree in /lib/modules/*; do
		if is_whole "$tree"; then basename "$tree"; fi
	done | sort -V | tail -n 1
}

# One line a thing made, in the order it has to be removed. $1: where the links lead, $2: which.
remember() {
	[ -n "$record" ] || return 0
	dir=
	if [ ! -d "$modules" ] || grep -qsxF "dir $modules" "$record"; then
		dir="dir $modules"
	fi
	mkdir -p "$(dirname "$record")"
	for part in $2; do
		printf '%s\n' "link $modules/$part $1/$part"
	done >"$record"
	if [ -n "$dir" ]; then echo "$dir" >>"$record"; fi
}

remove_link() {
	[ -n "$record" ] || fail "--unlink needs --record FILE"
	if [ ! -e "$record" ]; then
		echo unchanged
		return
	fi
	removed=
	while read -r kind path target; do
		case $kind in
		link)
			if [ "$(readlink "$path")" = "$target" ]; then
				[ "$check" = yes ] || rm "$path"
				removed=${removed:+$removed, }$path
			fi
			;;
		dir)
			# Another package may have come to use it: then it stays.
			[ "$check" = yes ] || rmdir "$path" 2>/dev/null || true
			;;
		esac
	done <"$record"
	[ "$check" = yes ] || rm "$record"
	echo "${removed:+${would}removed the links $removed}" | sed 's/^$/unchanged/'
}

if [ "$unlink" = yes ]; then
	remove_link
	exit
fi

if is_whole "$modules"; then
	echo unchanged
	exit
fi

command -v apt-get >/dev/null || fail "no headers at $build: install those of kernel $release"

package=linux-headers-$release
if ! is_known "$package" && [ "$check" = no ]; then
	# The package lists may be older than the kernel; without a network they stay as they are.
	apt-get update -qq </dev/null >&2 || true
fi
if is_known "$package"; then
	[ "$check" = yes ] || apt_install "$package"
	echo "${would}installed $package"
	exit
fi

[ "$link" = yes ] || fail "no headers package for kernel $release: install headers at $build, or allow\
 a link to another kernel's with hopbench_headers_link=true"

# A link of this script's own may lead nowhere once the other kernel's headers were upgraded.
for part in build source; do
	case $(readlink "$modules/$part") in
	"" | /lib/modules/*/"$part") ;;
	*) fail "$modules/$part is a link that leads to no headers, and not of this project: remove it" ;;
	esac
	if [ -e "$modules/$part" ] && [ ! -L "$modules/$part" ]; then
		fail "$modules/$part exists and holds no headers: remove it"
	fi
done

if [ -z "$(newest_tree)" ]; then
	case $(sed -n 's/^ID=//p' /etc/os-release) in
	ubuntu) package=linux-headers-generic ;;
	*) package=linux-headers-$(dpkg --print-architecture) ;;
	esac
	if [ "$check" = yes ]; then
		echo "${would}installed $package and linked it at $build"
		exit
	fi
	apt_install "$package"
fi
other=$(newest_tree)
[ -n "$other" ] || fail "no kernel headers found below /lib/modules: install a linux-headers package"

if [ "$check" = no ]; then
	# Remembered before it exists: a stop in between leaves nothing unaccounted for.
	parts=build
	if [ -e "/lib/modules/$other/source" ]; then parts="build source"; fi
	remember "/lib/modules/$other" "$parts"
	mkdir -p "$modules"
	for part in $parts; do
		ln -sfn "/lib/modules/$other/$part" "$modules/$part"
	done
fi
echo "${would}linked $modules to the headers of $other, because no package has those of kernel $release"
