/*
 * large.c: blocks beyond the sizes that allocators cache.
 *
 * "large": 20 places with blocks of 5 to 25 MiB, replaced at random, a word written in each page;
 * what counts is whether fresh pages are asked of the kernel each time (mimalloc-bench,
 * "malloc-large"). "growth": a buffer that grows to 512 MiB (to 128 when --quick) by a quarter at a
 * time through realloc, filled as it grows; what counts is whether its pages are copied. "zeroed":
 * arrays from calloc, small ones turned over and big ones of which few pages are used; what counts
 * is whether memory is cleared that is clear.
 */
#include "workloads.h"

#include <stdlib.h>
#include <string.h>

enum { PLACES = 20, PAGE = 4096, ARRAYS = 256, BIG_ARRAYS = 8 };

#define MIB ((size_t)1 << 20)

static void *make_large(uint64_t *random)
{
	size_t size = random_between(random, 5 * MIB, 25 * MIB);
	char *p = block_make(size);

	for (size_t i = PAGE; i < size - 1; i += PAGE)
		p[i] = 1;
	return p;
}

static void run_large(void)
{
	uint64_t random = random_seed(1);
	void *blocks[PLACES] = {0};

	for (size_t i = general_times(100); i > 0; i--) {
		void **place = &blocks[random_below(&random, PLACES)];

		block_free(*place);
		*place = make_large(&random);
	}
	for (size_t i = 0; i < PLACES; i++)
		block_free(blocks[i]);
}

static void run_growth(void)
{
	size_t most = general_times(128 * MIB), filled = 0;
	char *p = NULL;

	for (size_t size = 4096; filled < most; size += size / 4) {
		size = size < most ? size : most;
		p = realloc(p, size);
		if (!p)
			bench_fail("out of memory");
		memset(p + filled, (int)(size % 100), size - filled);
		if (filled && p[0] != 4096 % 100)
			bench_fail("a block was damaged while it grew");
		filled = size;
	}
	free(p);
}

static void check_zero(const unsigned char *p, size_t size, size_t step)
{
	for (size_t i = 0; i < size; i += step)
		if (p[i])
			bench_fail("calloc gave memory that isn't clear");
}

static void *make_array(size_t count, size_t step)
{
	unsigned char *p = calloc(count, sizeof(size_t));

	if (!p)
		bench_fail("out of memory");
	check_zero(p, count * sizeof(size_t), step);
	memset(p, 0xff, step * 2 < count ? step * 2 : count);
	return p;
}

static void run_zeroed(void)
{
	uint64_t random = random_seed(1);
	void *arrays[ARRAYS] = {0}, *big[BIG_ARRAYS] = {0};

	for (size_t i = general_times(1000000); i > 0; i--) {
		void **place = &arrays[random_below(&random, ARRAYS)];

		free(*place);
		*place = make_array(random_pareto(&random, 4, 7), 64);
		if (i % 2000 == 0) {
			place = &big[random_below(&random, BIG_ARRAYS)];
			free(*place);
			*place = make_array(random_between(&random, MIB / 128, MIB / 2), MIB / 4);
		}
	}
	for (size_t i = 0; i < ARRAYS; i++)
		free(arrays[i]);
	for (size_t i = 0; i < BIG_ARRAYS; i++)
		free(big[i]);
}

const struct workload workload_large = {
	.name = "large", .about = "blocks of 5 to 25 MiB", .threads = 1, .run = run_large,
};
const struct workload workload_growth = {
	.name = "growth", .about = "a buffer that realloc grows", .threads = 1, .run = run_growth,
};
const struct workload workload_zeroed = {
	.name = "zeroed", .about = "arrays from calloc, small and big", .threads = 1, .run = run_zeroed,
};
