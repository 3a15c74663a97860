# shellcheck shell=bash disable=SC2034,SC2154
# node: buffers, JSON, compression, hashing, streams, workers, child processes.
needs=(node)

workload() {
	under node "$here/input/program.js"
}
