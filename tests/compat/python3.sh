# shellcheck shell=bash disable=SC2034,SC2154
# python3: with its own allocator for small objects, and with malloc for every object.
needs=(python3)

workload() {
	export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
	under python3 -I "$here/input/program.py"
	PYTHONMALLOC=malloc under python3 "$here/input/program.py"
}
