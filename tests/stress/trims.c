/*
 * trims.c: slabs give pages back while other threads free the blocks that lie on them. Blocks are as long as
 * a page or a part of it, pass through an array that all threads take from, and every thread trims now and
 * then: at any time some of a slab's blocks are free, some in use, and some on their way home.
 */
#include "stress.h"

#include <stdlib.h>

#define SIZE_MIN 512
#define SIZE_RANGE 7500
#define ROUNDS_PER_TRIM 50

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		bool makes = random_one_in(&worker->rng, 2);
		void *block = makes ? block_make(worker, SIZE_MIN + random_below(&worker->rng, SIZE_RANGE)) : NULL;

		block_free(exchange_swap(worker->shared, worker, block));
		if (random_one_in(&worker->rng, ROUNDS_PER_TRIM))
			shim_trim(0);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("trims", 6, argc, argv);
	struct exchange *exchange = exchange_new(4096);
	stress_run(stress, work, exchange);
	exchange_empty(exchange);
	free(exchange);
	return stress_end(stress, NULL, 0);
}
