# shellcheck shell=bash disable=SC2034,SC2154
# libstdc++: a program that uses a good deal of it. The compiler runs without the library.
needs=(g++)

workload() {
	g++ -std=c++17 -O1 -pthread "$here/input/program.cc" -o program
	under ./program
	rm program
}
