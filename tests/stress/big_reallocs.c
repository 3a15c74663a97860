/*
 * big_reallocs.c: all threads at once grow and shrink blocks of up to some MiB, step by step and in
 * jumps, among small ones that get in the way; contents must come along, copied or remapped.
 */
#include "stress.h"

#include <stdlib.h>

#define BIG_SHIFT 23
#define OWN_BLOCKS 4

static size_t next_size(struct worker *worker, size_t size)
{
	switch (random_below(&worker->rng, 4)) {
	case 0: return block_random_size(worker, BIG_SHIFT);
	case 1: return size + size / 2 < (size_t)1 << BIG_SHIFT ? size + size / 2 : 4096;
	case 2: return size / 2 + BLOCK_MIN_BYTES;
	default: return size + random_below(&worker->rng, 8192);
	}
}

static void work(struct worker *worker)
{
	void *own[OWN_BLOCKS];
	for (unsigned i = 0; i < OWN_BLOCKS; i++)
		own[i] = block_make(worker, 100000);
	while (!atomic_load(&worker->stress->over)) {
		void **place = &own[random_below(&worker->rng, OWN_BLOCKS)];
		*place = block_resize(worker, *place, next_size(worker, block_check(*place)));
		*place = exchange_swap(worker->shared, worker, *place);
		if (!*place)
			*place = block_make(worker, block_random_size(worker, 12));
	}
	for (unsigned i = 0; i < OWN_BLOCKS; i++)
		block_free(own[i]);
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("big_reallocs", 4, argc, argv);
	struct exchange *exchange = exchange_new(8);
	stress_run(stress, work, exchange);
	exchange_empty(exchange);
	free(exchange);
	return stress_end(stress, NULL, 0);
}
