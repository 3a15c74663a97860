/*
 * enter.c: what it costs to enter and leave, with 0, 1, 10 and 100 blocks of 16 to 512 bytes in
 * between.
 *
 * The time is that of the whole extent. The row heap,freed,1 is one malloc and free, the unit
 * that an empty scope is compared with.
 */
#include "batch.h"

int main(int argc, char **argv)
{
	static const size_t counts[] = { 0, 1, 10, 100 };

	bench_start(argc, argv, "enter", batch_ways);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		batch_measure(&(struct batch_spec){
			.n = counts[i], .min_bytes = 16, .max_bytes = 512, .threads = 1, .unit = "extent",
		});
	return 0;
}
