#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian packages: which are missing, which this project installed, and their removal.
#
# Usage: packages.sh missing NAME...      prints the names that are not installed
#        packages.sh before FILE          remembers what is installed before anything is added
#        packages.sh after FILE           appends to FILE the packages that are new since then
#        packages.sh add FILE NAME...     installs, remembering the same
#        packages.sh remove [--check] FILE
#                                         removes the packages in FILE if nothing else would go
set -eu
umask 022
# Nobody is asked, and no other service is restarted.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1

installed() {
	# shellcheck disable=SC2016  # dpkg-query's own placeholders
	dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' "$@" 2>/dev/null |
		sed -n 's/^installed //p' | sort -u
}

missing() {
	have=$(installed "$@" | sed 's/:.*//')
	for name in "$@"; do
		printf '%s\n' "$have" | grep -qxF "$name" || echo "$name"
	done
}

# A list that is already there is of a run that was stopped: what that run added counts too.
before() {
	mkdir -p "$(dirname "$1")"
	if [ ! -e "$1.before" ]; then
		installed >"$1.before.new"
		mv "$1.before.new" "$1.before"
	fi
}

after() {
	installed >"$1.after"
	{
		cat "$1" 2>/dev/null || true
		comm -13 "$1.before" "$1.after"
	} | sort -u >"$1.new"
	mv "$1.new" "$1"
	rm "$1.before" "$1.after"
}

# Package lists may stay as they are, without a network; that somebody else updates them is waited
# for, as a machine does in the minute after it has booted.
add() {
	record=$1
	shift
	before "$record"
	tries=0
	until said=$(apt-get update -qq 2>&1 </dev/null) || [ $tries -ge 60 ]; do
		case $said in
		*lock*) sleep 2 ;;
		*) break ;;
		esac
		tries=$((tries + 1))
	done
	status=0
	apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2 ||
		status=$?
	after "$record"
	return $status
}

# Is all of this root's alone? What others may have written is no record of ours.
own() {
	[ -z "$(find "$@" -maxdepth 0 \( ! -user 0 -o -perm /022 \))" ]
}

# Reads names from the file, so that what apt proposes can be held against it.
remove() {
	check=no
	if [ "$1" = --check ]; then
		check=yes
		shift
	fi
	if [ ! -s "$1" ]; then
		echo unchanged
		return
	fi
	own "$(dirname "$1")" "$1" || {
		echo "kept: $1 may have been written by others"
		return
	}
	# shellcheck disable=SC2046  # one word a package name
	names=$(installed $(cat "$1"))
	if [ -z "$names" ]; then
		echo unchanged
		return
	fi
	# shellcheck disable=SC2086
	# A plan is no act: nothing of it is logged or kept.
	plan=$(apt-get -s -qq -o Dir::Log::Planner=/dev/null -o Dir::Cache::pkgcache= \
		-o Dir::Cache::srcpkgcache= purge $names </dev/null |
		sed -n 's/^\(Inst\|Remv\|Purg\) \([^ ]*\).*/\2/p' | sed 's/:.*//' | sort -u)
	others=$(printf '%s\n' "$plan" | grep -vxF "$(printf '%s\n' "$names" | sed 's/:.*//')" || true)
	if [ -n "$others" ]; then
		echo "kept: removing the packages would also touch $(printf '%s' "$others" | tr '\n' ' ')"
		return
	fi
	if [ "$check" = no ]; then
		# shellcheck disable=SC2086
		apt-get -qq -y -o DPkg::Lock::Timeout=300 purge $names </dev/null >&2
	fi
	echo "removed: $(printf '%s' "$names" | tr '\n' ' ')"
}

verb=${1:?usage: packages.sh missing|before|after|add|remove ...}
shift
case $verb in
missing | before | after | add | remove) "$verb" "$@" ;;
*)
	echo "packages.sh: unknown verb: $verb" >&2
	exit 2
	;;
esac
