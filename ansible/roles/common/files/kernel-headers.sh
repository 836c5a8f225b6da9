#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make kernel headers available below /lib/modules/RELEASE, where BCC's compiler looks for them: in
# `build`, and where a distribution splits them, as Debian does, the larger part in `source`.
#
# The headers of the running kernel come first. Only when no package has them, and only with --link,
# another kernel's headers are linked there: enough for programs that use UAPI headers.
#
# No kernel is ever installed: Debian 13's headers depend on the kernel they belong to, and that
# would be the one to boot next. Packages that ask for it, and another kernel's, are unpacked beside
# FILE instead, into the folder kernel-headers, and linked to.
#
# Usage: kernel-headers.sh [--check] [--link] [--record FILE]    prints `unchanged` or what it did
#        kernel-headers.sh [--check] --unlink --record FILE      removes exactly what it made
# Exit status: 0 done, 1 no headers (one line on standard error says why and what to do).
set -eu
umask 022

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
# Where packages are unpacked that are not installed.
store=
if [ -n "$record" ]; then store=$(dirname "$record")/kernel-headers; fi
# Nobody is asked, and no other service is restarted.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
# What is only asked is neither logged nor kept.
ask="-o Dir::Log::Planner=/dev/null -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="

fail() {
	echo "$1" >&2
	exit 1
}

# Nothing of standard input: it may be the rest of somebody's script.
apt_install() {
	apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$1" </dev/null >&2
}

# The packages that installing $1 would add, by name.
plan() {
	# shellcheck disable=SC2086  # one word an option
	apt-get $ask -s -qq install --no-install-recommends "$1" </dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p'
}

brings_kernel() {
	plan "$1" | grep -q '^linux-image'
}

is_known() {
	# shellcheck disable=SC2086  # one word an option
	[ -n "$(apt-cache $ask show --no-all-versions "$1" 2>/dev/null)" ]
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

# Unpack the headers that installing $1 would add into $store.
unpack() {
	[ -n "$store" ] || fail "--link needs --record FILE"
	names=$(plan "$1" | grep '^linux-headers-') || fail "$1 brings no headers: see apt-get -s install $1"
	mkdir -p "$(dirname "$record")"
	grep -qsxF "tree $store" "$record" || echo "tree $store" >>"$record"
	rm -rf "$store"
	mkdir -p "$store/packages"
	# shellcheck disable=SC2086  # one word a package
	(cd "$store/packages" && apt-get -qq -o APT::Sandbox::User=root download $names </dev/null >&2)
	for file in "$store"/packages/*.deb; do dpkg-deb -x "$file" "$store"; done
	rm -r "$store/packages"
}

# The folders `build` and `source` of what was unpacked; only one where it is not split.
unpacked_trees() {
	for tree in "$store"/usr/src/*; do
		if [ -e "$tree/include/generated/autoconf.h" ]; then
			echo "$tree"
			if [ -e "$tree/include/linux/kconfig.h" ]; then return; fi
		fi
	done
	for tree in "$store"/usr/src/*; do
		if [ -e "$tree/include/linux/kconfig.h" ]; then echo "$tree"; fi
	done
}

# Link to the folders $1 and, where headers are split, $2. What is made is remembered before it
# exists, a line a thing in the order it has to be removed: a stop in between leaves nothing over.
link_to() {
	[ -n "$record" ] || fail "--link needs --record FILE"
	# A link of this script's own may lead nowhere once the other kernel's headers were upgraded.
	for part in build source; do
		case $(readlink "$modules/$part") in
		"" | /lib/modules/*/"$part" | "$store"/*) ;;
		*) fail "$modules/$part is a link that leads to no headers, and not of this project: remove it" ;;
		esac
		if [ -e "$modules/$part" ] && [ ! -L "$modules/$part" ]; then
			fail "$modules/$part exists and holds no headers: remove it"
		fi
	done
	dir=
	if [ ! -d "$modules" ] || grep -qsxF "dir $modules" "$record"; then
		dir="dir $modules"
	fi
	mkdir -p "$(dirname "$record")"
	{
		echo "link $modules/build $1"
		if [ -n "${2-}" ]; then echo "link $modules/source $2"; fi
		if [ -e "$store" ]; then echo "tree $store"; fi
		if [ -n "$dir" ]; then echo "$dir"; fi
	} >"$record"
	mkdir -p "$modules"
	ln -sfn "$1" "$modules/build"
	if [ -n "${2-}" ]; then ln -sfn "$2" "$modules/source"; fi
	is_whole "$modules" || fail "the headers that $build leads to are not whole"
}

# Is all of this root's alone? What others may have written is no record of ours.
own() {
	[ -z "$(find "$@" -maxdepth 0 \( ! -user 0 -o -perm /022 \))" ]
}

remove_link() {
	[ -n "$record" ] || fail "--unlink needs --record FILE"
	if [ ! -e "$record" ]; then
		echo unchanged
		return
	fi
	own "$(dirname "$record")" "$record" || fail "$record may have been written by others: remove it"
	removed=
	while read -r kind path target; do
		case $kind in
		link)
			if [ "$(readlink "$path")" = "$target" ]; then
				[ "$check" = yes ] || rm "$path"
				removed=${removed:+$removed, }$path
			fi
			;;
		tree)
			# The only one that this script makes.
			[ "$check" = yes ] || [ "$path" != "$store" ] || rm -rf "$path"
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
	if brings_kernel "$package"; then
		if [ "$check" = no ]; then
			unpack "$package"
			# shellcheck disable=SC2046  # one word a folder
			link_to $(unpacked_trees)
		fi
		echo "${would}linked $modules to $package, which is unpacked and not installed: it wants a kernel"
		exit
	fi
	[ "$check" = yes ] || apt_install "$package"
	echo "${would}installed $package"
	exit
fi

[ "$link" = yes ] || fail "no headers package for kernel $release: install headers at $build, boot a\
 kernel that has a package, or allow a link to another kernel's with hopbench_headers_link=true"

other=$(newest_tree)
if [ -n "$other" ]; then
	if [ "$check" = no ]; then
		parts=/lib/modules/$other/build
		if [ -e "/lib/modules/$other/source" ]; then parts="$parts /lib/modules/$other/source"; fi
		# shellcheck disable=SC2086  # one word a folder
		link_to $parts
	fi
else
	case $(sed -n 's/^ID=//p' /etc/os-release) in
	ubuntu) package=linux-headers-generic ;;
	*) package=linux-headers-$(dpkg --print-architecture) ;;
	esac
	is_known "$package" || fail "no kernel headers below /lib/modules, and no package $package"
	if [ "$check" = yes ]; then
		echo "${would}unpacked $package and linked it at $build"
		exit
	fi
	unpack "$package"
	# shellcheck disable=SC2046  # one word a folder
	link_to $(unpacked_trees)
	other=$(basename "$(readlink "$build")")
	other=${other#linux-headers-}
fi
echo "${would}linked $modules to the headers of $other, because no package has those of kernel $release"
