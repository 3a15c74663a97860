# setup.sh: what scripts/test and scripts/demo do before they start: install what is missing, build.
#
# Sourced by bash, not run. Needs `top`, the root of the source tree, and `build`, the build directory.
#
# A thing that is needed is named by how its presence shows (a command, a library, a pkg-config
# module, a header) and by the Debian package that brings it, so that a machine that has it from elsewhere is
# left alone and nothing is asked of apt-get then. Daemons that packages bring (redis, nginx) are not
# started: RUNLEVEL=1 tells their install scripts that this is no time for services.
# shellcheck shell=bash disable=SC2034,SC2154

# Servers live in sbin, which is not on the PATH of every user.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

setup_say() {
	printf '== %s\n' "$*"
}

setup_die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# What a build needs: without it nothing works.
setup_needs_build='
command cc gcc
command c++ g++
command ld binutils
command meson meson
command ninja ninja-build
command pkg-config pkg-config
command python3 python3
module criterion libcriterion-dev
module libdw libdw-dev
header Zydis/Zydis.h libzydis-dev'

# What the comparisons of scripts/demo need.
setup_needs_demo='
library libjemalloc.so.2 libjemalloc2
command xmllint libxml2-utils'

# Pools that benchmarks compare with; without them the benchmarks have fewer columns.
setup_needs_bench='
module apr-1 libapr1-dev
module talloc libtalloc-dev'

# Programs that the compat suite runs, and what other suites make use of. A test that misses its
# program is skipped.
setup_needs_tests="$setup_needs_demo$setup_needs_bench"'
command redis-server redis-server
command redis-benchmark redis-tools
command sqlite3 sqlite3
command perl perl
command git git
command gdb gdb
command google-pprof google-perftools
command xsltproc xsltproc
command nginx nginx
command node nodejs
command jq jq
library libunwind.so.8 libunwind8
command openssl openssl
command xz xz-utils
command gzip gzip
command tar tar
command gdb gdb
command eu-stack elfutils'

setup_has() {
	case $1 in
	command) command -v "$2" >/dev/null ;;
	library) /sbin/ldconfig -p 2>/dev/null | grep -qF "$2 " ;;
	module) pkg-config --exists "$2" 2>/dev/null ;;
	header) [ -e "/usr/include/$2" ] || [ -e "/usr/local/include/$2" ] ;;
	esac
}

# The packages for what is missing of a list of needs, one a line.
setup_missing_packages() {
	local kind name package
	while read -r kind name package; do
		[ -z "$kind" ] || setup_has "$kind" "$name" || printf '%s\n' "$package"
	done <<<"$1" | sort -u
}

setup_apt_get() {
	local as_root=()
	[ "$(id -u)" -eq 0 ] || as_root=(sudo)
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# Installs packages: all at once or, where one of them can't be had, each that can.
setup_install() {
	local package
	if ! command -v apt-get >/dev/null; then
		setup_say "there is no apt-get to install with: $*"
		return 1
	elif [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
		setup_say "not root, and there is no sudo, to install: $*"
		return 1
	fi
	setup_say "installing: $*"
	setup_apt_get update || setup_say 'apt-get update failed; trying with the lists that are there'
	setup_apt_get install --no-install-recommends "$@" && return
	[ $# -gt 1 ] || return
	for package in "$@"; do
		setup_apt_get install --no-install-recommends "$package"
	done
}

# setup_packages required|optional NEEDS
setup_packages() {
	local missing
	mapfile -t missing < <(setup_missing_packages "$2")
	[ ${#missing[@]} -gt 0 ] || return 0
	setup_install "${missing[@]}"
	mapfile -t missing < <(setup_missing_packages "$2")
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$1" = required ]; then
		setup_die "can't go on without: ${missing[*]} (Debian's names); install them and try again"
	fi
	setup_say "could not be had: ${missing[*]}; what needs them is left out"
}

# Configures the build directory unless it is configured, and builds.
setup_build() {
	if [ ! -f "$build/build.ninja" ]; then
		setup_say "configuring $build"
		meson setup "$build" "$top" --buildtype=release || setup_die 'meson setup failed'
	fi
	setup_say "building in $build"
	meson compile -C "$build" || setup_die 'the build failed'
}
