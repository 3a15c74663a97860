/*
 * migrate.c: objects that migrate between threads of unequal load, some of them long-lived, with
 * new threads in each phase: what the mimalloc authors describe as the allocation pattern of
 * servers (mimalloc-bench, "mstress").
 *
 * In each phase every thread makes items (arrays of words, one in a few hundred a large one), keeps
 * some, frees most, and swaps some with a place that all threads share. At the end of the phase a
 * thread frees half of what it has kept and leaves the rest in the shared places for those that
 * come; then it ends.
 */
#include "workloads.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { PHASES = 10, PLACES = 1000, KEPT = 2000, SMALL_WORDS = 1, DOUBLINGS = 7, LARGE_FACTOR = 100 };

struct world {
	_Atomic(void *) places[PLACES];
	size_t items; /* that a thread of full load makes in a phase */
	unsigned phase;
	unsigned threads;
};

static void *make_item(uint64_t *random)
{
	size_t words = random_pareto(random, SMALL_WORDS, DOUBLINGS);

	if (random_below(random, 300) == 0)
		words *= LARGE_FACTOR;
	return block_make(words * sizeof(size_t));
}

/* Puts an item into a shared place; what was there is the caller's. */
static void *swap(struct world *world, uint64_t *random, void *item)
{
	return atomic_exchange(&world->places[random_below(random, PLACES)], item);
}

static void work(struct world *world, uint64_t *random, void **kept, size_t items)
{
	for (size_t i = 0; i < items; i++) {
		void **place = &kept[random_below(random, KEPT)];
		size_t what = random_below(random, 16);

		if (what == 0) {
			*place = swap(world, random, *place);
		} else if (what < 6) {
			block_free(*place);
			*place = make_item(random);
		} else {
			block_free(make_item(random));
		}
	}
}

static void live_a_phase(void *arg, unsigned thread)
{
	struct world *world = arg;
	uint64_t random = random_seed(world->phase * GENERAL_MAX_THREADS + thread + 1);
	void **kept = calloc(KEPT, sizeof(*kept));

	if (!kept)
		bench_fail("out of memory");
	work(world, &random, kept, world->items * (thread + 1) / world->threads);
	for (size_t i = 0; i < KEPT; i++)
		block_free(i % 2 ? kept[i] : swap(world, &random, kept[i]));
	free(kept);
}

static void run(void)
{
	static struct world world;

	world.threads = general_threads();
	world.items = general_times(100000);
	for (world.phase = 0; world.phase < PHASES; world.phase++)
		general_run_threads(world.threads, live_a_phase, &world);
	for (size_t i = 0; i < PLACES; i++)
		block_free(atomic_exchange(&world.places[i], NULL));
}

const struct workload workload_migrate = {
	.name = "migrate", .about = "objects that change threads, new threads in each phase", .run = run,
};
