/*
 * churn.c: threads by the thousand, a few at a time, each with some blocks. Most are freed by their
 * thread, some by the main thread after it has ended, some by a thread that comes later. An
 * allocator that doesn't take the memory of ended threads over shows it in what is resident.
 */
#include "workloads.h"

#include <stdlib.h>

enum { OWN = 100, LEFT = 8, MIN_BYTES = 16, DOUBLINGS = 8 };

struct generation {
	void *left[GENERAL_MAX_THREADS][LEFT]; /* by the threads of the generation before */
	size_t number;
};

static void live(void *arg, unsigned thread)
{
	struct generation *generation = arg;
	void **left = generation->left[thread];
	uint64_t random = random_seed(generation->number * GENERAL_MAX_THREADS + thread + 1);
	void *own[OWN];

	for (size_t i = 0; i < OWN; i++)
		own[i] = block_make(random_pareto(&random, MIN_BYTES, DOUBLINGS));
	for (size_t i = 0; i < LEFT; i++) {
		block_free(left[i]);
		left[i] = block_make(random_pareto(&random, MIN_BYTES, DOUBLINGS));
	}
	for (size_t i = 0; i < OWN; i++)
		block_free(own[i]);
}

static void free_left(struct generation *generation, size_t from)
{
	for (size_t thread = 0; thread < GENERAL_MAX_THREADS; thread++)
		for (size_t i = from; i < LEFT; i++) {
			block_free(generation->left[thread][i]);
			generation->left[thread][i] = NULL;
		}
}

static void run(void)
{
	static struct generation generation;
	size_t generations = general_times(1000);

	for (generation.number = 0; generation.number < generations; generation.number++) {
		general_run_threads(general_threads(), live, &generation);
		free_left(&generation, LEFT / 2);
	}
	free_left(&generation, 0);
}

const struct workload workload_churn = {
	.name = "churn", .about = "threads by the thousand, with blocks that outlive them", .run = run,
};
