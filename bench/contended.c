/*
 * contended.c: threads that allocate 250,000 blocks of 8 bytes each at the same time, all in one
 * extent for each thread, as the benchmark of the Go package memoryArena does with 8 goroutines.
 *
 * With more threads than processors the time is still CPU time, so it shows what threads cost each
 * other (locks, shared cache lines), not that they take turns.
 */
#include "batch.h"

int main(int argc, char **argv)
{
	static const unsigned threads[] = { 1, 2, 8 };

	bench_start(argc, argv, "contended", batch_ways);
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
		batch_measure(&(struct batch_spec){
			.n = 250000, .min_bytes = 8, .max_bytes = 8, .threads = threads[i], .unit = "block",
		});
	return 0;
}
