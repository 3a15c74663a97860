/*
 * remote_frees.c: half of the threads only allocate, the other half only free what those made: every
 * free is a remote one, and no thread ever gets its own memory back by itself. Of the freeing threads,
 * every other one has made a block of its own before, and so has a heap from which frees go in batches.
 */
#include "stress.h"

#include <sched.h>
#include <stdlib.h>

#define RING_BLOCKS 1024

/* One producer, one consumer. */
struct ring {
	void *blocks[RING_BLOCKS];
	atomic_size_t put; /* written by the producer */
	atomic_size_t got; /* written by the consumer */
};

static void produce(struct worker *worker, struct ring *ring)
{
	while (!atomic_load(&worker->stress->over)) {
		size_t put = atomic_load(&ring->put);
		if (put - atomic_load(&ring->got) == RING_BLOCKS) {
			sched_yield();
			continue;
		}
		size_t size = block_random_size(worker, random_one_in(&worker->rng, 64) ? 18 : 10);
		ring->blocks[put % RING_BLOCKS] = block_make(worker, size);
		atomic_store(&ring->put, put + 1);
	}
}

static void consume(struct worker *worker, struct ring *ring)
{
	void *own = worker->id % 4 == 1 ? block_make(worker, 100) : NULL;
	while (!atomic_load(&worker->stress->over)) {
		size_t got = atomic_load(&ring->got);
		if (got == atomic_load(&ring->put)) {
			sched_yield();
			continue;
		}
		block_free(ring->blocks[got % RING_BLOCKS]);
		atomic_store(&ring->got, got + 1);
	}
	block_free(own);
}

static void work(struct worker *worker)
{
	struct ring *ring = (struct ring *)worker->shared + worker->id / 2;
	if (worker->id % 2)
		consume(worker, ring);
	else
		produce(worker, ring);
}

static unsigned long long free_the_rest(struct ring *ring)
{
	unsigned long long freed = ring->got;
	for (; ring->got != ring->put; ring->got++)
		block_free(ring->blocks[ring->got % RING_BLOCKS]);
	return freed;
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("remote_frees", 4, argc, argv);
	stress->threads = (stress->threads + 1) / 2 * 2;
	struct ring *rings = calloc(stress->threads / 2, sizeof *rings);
	if (!rings)
		abort();
	stress_run(stress, work, rings);
	unsigned long long freed = 0;
	for (unsigned i = 0; i < stress->threads / 2; i++)
		freed += free_the_rest(&rings[i]);
	free(rings);
	if (freed == 0)
		stress_fail("not one block went from thread to thread");
	return stress_end(stress, "freed by another thread", freed);
}
