# shellcheck shell=bash disable=SC2034,SC2154
# bash: arrays, strings that grow, subshells, pipes and traps.
needs=(bash)

workload() {
	generate 2000 >words
	under bash -u "$here/input/script.bash" words
}
