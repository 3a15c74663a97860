/*
 * loops.c: the two loops of glibc's own benchmarks, from their descriptions.
 *
 * "loops" (bench-malloc-simple): for each of some sizes, N blocks are made and then freed, the
 * first half in the order of their making, the second half in the opposite one; N is 25, 100, 400,
 * 1600. "loops-mt" (bench-malloc-thread): each thread has 1024 places; a step frees the block in
 * one and makes another, of a size between 4 and 32768 bytes whose likelihood falls with the square
 * of the size.
 */
#include "workloads.h"

#include <stdlib.h>

enum { PLACES = 1024, MIN_BYTES = 8, MAX_BYTES = 32768, RANDOM_SIZES = 8192 };

static void make_and_free(void **blocks, size_t count, size_t size)
{
	for (size_t i = 0; i < count; i++)
		blocks[i] = block_make(size);
	for (size_t i = 0; i < count / 2; i++)
		block_free(blocks[i]);
	for (size_t i = count; i > count / 2; i--)
		block_free(blocks[i - 1]);
}

static void run(void)
{
	static const size_t sizes[] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
	static const size_t counts[] = {25, 100, 400, 1600};
	void *blocks[1600];

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
		for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++)
			for (size_t i = general_times(80000 / counts[c]); i > 0; i--)
				make_and_free(blocks, counts[c], sizes[s]);
}

/* By inversion: where the density falls as 1/x², 1/x is uniform. */
static void make_sizes(uint16_t *sizes, uint64_t seed)
{
	uint64_t random = random_seed(seed);

	for (size_t i = 0; i < RANDOM_SIZES; i++) {
		double share = random_next(&random) / 4294967296.0;
		double inverse = 1.0 / MIN_BYTES - share * (1.0 / MIN_BYTES - 1.0 / MAX_BYTES);
		sizes[i] = (uint16_t)(1.0 / inverse);
	}
}

static void replace(void *steps, unsigned thread)
{
	uint64_t random = random_seed(thread + 1);
	void *blocks[PLACES] = {0};
	uint16_t *sizes = bench_array(RANDOM_SIZES, sizeof(*sizes));

	make_sizes(sizes, thread + 100);
	for (size_t i = 0; i < *(size_t *)steps; i++) {
		void **place = &blocks[random_below(&random, PLACES)];

		block_free(*place);
		*place = block_make(sizes[i % RANDOM_SIZES]);
	}
	for (size_t i = 0; i < PLACES; i++)
		block_free(blocks[i]);
	bench_array_free(sizes, RANDOM_SIZES, sizeof(*sizes));
}

static void run_mt(void)
{
	size_t steps = general_times(2000000);

	general_run_threads(general_threads(), replace, &steps);
}

const struct workload workload_loops = {
	.name = "loops", .about = "N blocks of a size made, then freed", .threads = 1, .run = run,
};
const struct workload workload_loops_mt = {
	.name = "loops-mt", .about = "1024 blocks a thread, replaced at random", .run = run_mt,
};
