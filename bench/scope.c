/*
 * scope.c: N blocks of 16 to 512 bytes in a scope, by one thread and by two.
 *
 * N is 10^2 (fits the first cache), 10^4 (2.6 MB) and 10^6 (264 MB). This is the work that
 * regions are made for, and the one where allocators that give the memory back wholesale can be
 * compared: see batch.h for what becomes of the blocks.
 */
#include "batch.h"

int main(int argc, char **argv)
{
	static const size_t counts[] = { 100, 10000, 1000000 };

	bench_start(argc, argv, "scope", batch_ways);
	for (unsigned threads = 1; threads <= 2; threads++)
		for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
			batch_measure(&(struct batch_spec){
				.n = counts[i], .min_bytes = 16, .max_bytes = 512,
				.threads = threads, .unit = "block",
			});
	return 0;
}
