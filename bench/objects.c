/*
 * objects.c: batches of objects of 40 bytes, forgotten together: the benchmark of the Go packages nuke
 * and go-arena. A batch has 10^2 to 10^6 objects; then the arena is reset, and its memory serves the
 * next batch.
 */
#include "batch.h"

int main(int argc, char **argv)
{
	bench_start(argc, argv, "objects", batch_ways);
	for (size_t n = 100; n <= 1000000; n *= 10)
		batch_measure(&(struct batch_spec){
			.n = n, .min_bytes = 40, .max_bytes = 40, .threads = 1, .unit = "block",
		});
	return 0;
}
