# shellcheck shell=bash disable=SC2034,SC2154
# g++: templates, containers, regular expressions and exceptions; then what it built runs.
needs=(g++ ld)

workload() {
	cp "$here/input/program.cc" .
	under g++ -std=c++17 -O1 -g -c program.cc -o program.o
	under g++ -pthread program.o -o program
	sha256sum program.o program
	under ./program
}
