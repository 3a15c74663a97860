# shellcheck shell=bash disable=SC2034,SC2154
# perl: hashes, regular expressions, closures, interpreters in threads, fork.
needs=(perl)

workload() {
	export PERL_HASH_SEED=0
	generate 5000 >words
	under perl -w "$here/input/program.pl" words
}
