# SPDX-License-Identifier: MIT
# What tools/check and tools/demo share; they set $work, a temporary directory.
# shellcheck shell=bash disable=SC2034,SC2154

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

build_packages="build-essential autoconf automake pkg-config libsystemd-dev libconfuse-dev
	libidn2-dev libunistring-dev libjansson-dev uthash-dev systemd python3"

# A Postfix without a configuration does not start, which is what is wanted; but its commands, which
# tests run, need a file.
configure_postfix() {
	[ "$(id -u)" -eq 0 ] && [ -d /etc/postfix ] && [ ! -e /etc/postfix/main.cf ] || return 0
	printf '# Made for the tests of fflushd.\ncompatibility_level = 3.6\n' >/etc/postfix/main.cf
}

apt_install() { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; }

# without_starting COMMAND...: nothing that is installed for tests is to listen on this host.
without_starting() {
	local policy=/usr/sbin/policy-rc.d status=0
	[ ! -e $policy ] || { "$@"; return; }
	printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
	"$@" || status=$?
	rm -f $policy
	return $status
}

# install_missing PACKAGE...: those that are not there, as root, without a question.
install_missing() {
	local missing=() package
	for package; do
		case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
		*" installed") ;;
		*) missing+=("$package") ;;
		esac
	done
	configure_postfix
	[ ${#missing[@]} -eq 0 ] && return
	if [ "$(id -u)" -ne 0 ]; then
		echo "These packages are missing, and installing them needs root: ${missing[*]}" >&2
		exit 1
	fi
	echo "Installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# Postfix asks nothing then, and is left without a configuration to start with.
	debconf-set-selections <<<"postfix postfix/main_mailer_type select No configuration" 2>/dev/null || true
	without_starting apt_install "${missing[@]}" >"$work/apt.log" 2>&1 || {
		tail -n 30 "$work/apt.log" >&2
		exit 1
	}
	configure_postfix
}

# copy_tree DIRECTORY: the sources alone, so that a build in the tree itself is not in the way.
copy_tree() {
	mkdir -p "$1"
	if git -C "$top" rev-parse --git-dir >/dev/null 2>&1; then
		(cd "$top" && git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - 2>/dev/null) | tar -x -C "$1"
	else
		tar -c -C "$top" --exclude='./build*' . | tar -x -C "$1"
	fi
}
