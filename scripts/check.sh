# check.sh: what the check-* scripts have in common. Sourced by bash, not run.
#
# Sets `source`, the root of the source tree, and `build`, the build directory, from the options
# --source=DIR and --build=DIR; other arguments are left in `arguments`. A script calls breach for each
# thing that is wrong and ends with finish.
# shellcheck shell=bash disable=SC2034

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=${scripts%/*}
build=
breaches=0
arguments=()
for argument in "$@"; do
	case $argument in
	--source=*) source=${argument#*=} ;;
	--build=*) build=${argument#*=} ;;
	*) arguments+=("$argument") ;;
	esac
done
: "${build:=$source/build}"

breach() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	breaches=$((breaches + 1))
}

# Ends the script: with 1 when anything was wrong, else with a line that says what holds.
finish() {
	[ "$breaches" -eq 0 ] || exit 1
	printf '%s: %s\n' "${0##*/}" "$*"
	exit 0
}

# A file of the source tree by its path in the tree.
in_tree() {
	printf '%s\n' "${1#"$source"/}"
}

# The files of C and C++ in folders of the source tree.
sources_in() {
	find -H "${@/#/$source/}" -type f \( -name '*.[chS]' -o -name '*.cc' -o -name '*.hpp' \) | LC_ALL=C sort
}

# A file without comments and without the contents of literals, line for line.
code_of() {
	awk -f "$scripts/code.awk" "$1"
}
