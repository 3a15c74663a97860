/*
 * falloff.c: sizes from 16 to 8000 bytes that get less likely in a straight line, and blocks that
 * are freed by other threads: what M. Jansson says his benchmark of rpmalloc does ("rptest").
 *
 * Each thread has some thousand places. A round frees and replaces a share of them, chosen by
 * stepping through them with a stride; every few rounds a thread takes a handful of its blocks out
 * and leaves them for the next thread, which frees them.
 */
#include "workloads.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { PLACES = 3000, MIN_BYTES = 16, MAX_BYTES = 8000 };
enum { ROUND = 300, STRIDE = 7, PASSED = 200, PASS_EVERY = 4 };

/* Blocks on their way to another thread, linked through their second words. */
struct parcel {
	size_t size;
	struct parcel *next;
};

struct ring {
	_Atomic(struct parcel *) parcels[GENERAL_MAX_THREADS];
	unsigned threads;
	size_t rounds;
};

static void *make(uint64_t *random)
{
	size_t a = random_between(random, MIN_BYTES, MAX_BYTES), b = random_between(random, MIN_BYTES, MAX_BYTES);

	return block_make(a < b ? a : b);
}

static void free_parcels(struct parcel *parcel)
{
	while (parcel) {
		struct parcel *next = parcel->next;
		free(parcel);
		parcel = next;
	}
}

static void pass_on(struct ring *ring, unsigned thread, void **blocks, uint64_t *random)
{
	struct parcel *list = NULL;

	for (size_t i = 0; i < PASSED; i++) {
		void **place = &blocks[random_below(random, PLACES)];
		struct parcel *parcel = *place;

		if (!parcel)
			continue;
		block_size(parcel);
		*parcel = (struct parcel){ .next = list };
		list = parcel;
		*place = NULL;
	}
	free_parcels(atomic_exchange(&ring->parcels[(thread + 1) % ring->threads], list));
}

static void replace_some(void **blocks, size_t start, uint64_t *random)
{
	for (size_t i = 0; i < ROUND; i++) {
		void **place = &blocks[(start + i * STRIDE) % PLACES];

		block_free(*place);
		*place = make(random);
	}
}

static void work(void *arg, unsigned thread)
{
	struct ring *ring = arg;
	uint64_t random = random_seed(thread + 1);
	void **blocks = bench_array(PLACES, sizeof(*blocks));

	for (size_t round = 0; round < ring->rounds; round++) {
		replace_some(blocks, random_below(&random, PLACES), &random);
		if (round % PASS_EVERY == 0) {
			pass_on(ring, thread, blocks, &random);
			free_parcels(atomic_exchange(&ring->parcels[thread], NULL));
		}
	}
	for (size_t i = 0; i < PLACES; i++)
		block_free(blocks[i]);
	bench_array_free(blocks, PLACES, sizeof(*blocks));
}

static void run(void)
{
	static struct ring ring;

	ring.threads = general_threads();
	ring.rounds = general_times(2000);
	general_run_threads(ring.threads, work, &ring);
	for (unsigned i = 0; i < ring.threads; i++)
		free_parcels(atomic_exchange(&ring.parcels[i], NULL));
}

const struct workload workload_falloff = {
	.name = "falloff", .about = "sizes of 16 to 8000 bytes, some freed by the next thread", .run = run,
};
