/*
 * pareto.c: blocks whose sizes and lifetimes are spread as S. Ignatchenko and others found
 * realistic ("Testing memory allocators", IT Hare, 2018): small ones are likely, large ones rare;
 * some places turn over all the time, others hardly ever. All of a block is written when it is
 * made, and read before it goes.
 *
 * A step picks a place: the block there is freed, or, where there is none, one is made.
 */
#include "workloads.h"

#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 15, MIN_BYTES = 16, DOUBLINGS = 6 };

/* A place: each quarter of the places is chosen half as often as the quarter before it. */
static size_t pick(uint64_t *random, size_t places)
{
	size_t quarter = places / 4;
	unsigned which = (unsigned)__builtin_ctz(random_next(random) | 1U << 3);

	return which * quarter + random_below(random, quarter);
}

static void read_all(const char *p, size_t size)
{
	uint64_t sum = 0;

	for (size_t i = 0; i + sizeof(sum) <= size; i += sizeof(sum)) {
		uint64_t word;
		memcpy(&word, p + i, sizeof(word));
		sum += word;
	}
	bench_see(&sum);
}

static void fill(void **place, uint64_t *random)
{
	size_t size = random_pareto(random, MIN_BYTES, DOUBLINGS);
	char *p = malloc(size);

	if (p)
		memset(p, 1, size);
	*place = block_mark(p, size);
}

static void empty(void **place)
{
	read_all(*place, block_size(*place));
	free(*place);
	*place = NULL;
}

static void turn_over(void *arg, unsigned thread)
{
	size_t places = general_live(PLACES);
	void **blocks = bench_array(places, sizeof(*blocks));
	uint64_t random = random_seed(thread + 1);

	for (size_t i = *(size_t *)arg; i > 0; i--) {
		void **place = &blocks[pick(&random, places)];

		if (*place)
			empty(place);
		else
			fill(place, &random);
	}
	for (size_t i = 0; i < places; i++)
		block_free(blocks[i]);
	bench_array_free(blocks, places, sizeof(*blocks));
}

static void run(void)
{
	size_t steps = general_times(4000000);

	turn_over(&steps, 0);
}

static void run_mt(void)
{
	size_t steps = general_times(1000000);

	general_run_threads(general_threads(), turn_over, &steps);
}

const struct workload workload_pareto = {
	.name = "pareto", .about = "Pareto sizes up to 1 KiB, all written and read", .threads = 1, .run = run,
};
const struct workload workload_pareto_mt = {
	.name = "pareto-mt", .about = "the same in threads that have nothing to do with each other",
	.run = run_mt,
};
