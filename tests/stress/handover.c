/*
 * handover.c: all threads allocate, reallocate and free mixed sizes, and pass every block through an
 * array that all of them take from: who frees a block is chance.
 */
#include "stress.h"

#include <stdlib.h>

#define OWN_BLOCKS 64

static void *renew(struct worker *worker, void *block)
{
	size_t size = block_random_size(worker, random_one_in(&worker->rng, 100) ? 20 : 11);
	if (block && random_one_in(&worker->rng, 3))
		return block_resize(worker, block, size);
	block_free(block);
	return random_one_in(&worker->rng, 8) ? NULL : block_make(worker, size);
}

static void work(struct worker *worker)
{
	void *own[OWN_BLOCKS] = {0};
	while (!atomic_load(&worker->stress->over)) {
		void **place = &own[random_below(&worker->rng, OWN_BLOCKS)];
		*place = renew(worker, *place);
		if (random_one_in(&worker->rng, 2))
			*place = exchange_swap(worker->shared, worker, *place);
	}
	for (unsigned i = 0; i < OWN_BLOCKS; i++)
		block_free(own[i]);
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("handover", 6, argc, argv);
	struct exchange *exchange = exchange_new(1024);
	stress_run(stress, work, exchange);
	exchange_empty(exchange);
	free(exchange);
	return stress_end(stress, NULL, 0);
}
