/*
 * last_frees.c: the last survivors of a buffer are freed by several threads at the same moment. One of
 * them has to give the buffer back, and only one: memory given back twice is handed out twice, which the
 * blocks that every thread makes next would show.
 */
#include "stress.h"

#include <stdlib.h>

#define GROUPS 8              /* of survivors that lie close together: one for each thread */
#define FILLERS_PER_GROUP 100 /* of about 1 KiB: more than a buffer of 64 KiB */
#define PROBES 24
#define SPINS_MOST 10000 /* a thread that isn't running is not waited for */

static struct {
	pthread_barrier_t barrier;
	void *survivors[GROUPS][STRESS_THREADS_MOST]; /* written by worker 0 between two barriers */
	atomic_uint arrived[GROUPS];                  /* the same, then counted up */
	bool over;                                    /* the same */
	unsigned long long rounds;
} state;

static void make_survivors(struct worker *worker)
{
	struct region_scope scope;
	struct region_options options = {.fade = REGION_FADE_UNFREED, .buffer_size = 65536};
	region_enter_with(&scope, &options);
	for (unsigned group = 0; group < GROUPS; group++) {
		for (unsigned i = 0; i < worker->stress->threads; i++)
			state.survivors[group][i] = block_make(worker, 100);
		void *fillers[FILLERS_PER_GROUP];
		for (unsigned i = 0; i < FILLERS_PER_GROUP; i++)
			fillers[i] = block_make(worker, 1000);
		for (unsigned i = 0; i < FILLERS_PER_GROUP; i++)
			block_free(fillers[i]);
		atomic_store(&state.arrived[group], 0);
	}
	region_leave(&scope);
	state.over = atomic_load(&worker->stress->over);
	state.rounds++;
}

static void free_together(struct worker *worker, unsigned group)
{
	void *block = state.survivors[group][worker->id];
	block_check(block);
	atomic_fetch_add(&state.arrived[group], 1);
	for (unsigned i = 0; i < SPINS_MOST; i++)
		if (atomic_load(&state.arrived[group]) == worker->stress->threads)
			break;
	shim_free(block);
}

/* Blocks of slabs, and some with a span of their own: what a buffer given back may become. */
static void probe(struct worker *worker)
{
	void *own[PROBES];
	for (unsigned i = 0; i < PROBES; i++)
		own[i] = block_make(worker, i % 8 ? block_random_size(worker, 12) : 60000);
	for (unsigned i = 0; i < PROBES; i++)
		block_free(own[i]);
}

static void work(struct worker *worker)
{
	for (;;) {
		if (worker->id == 0)
			make_survivors(worker);
		pthread_barrier_wait(&state.barrier);
		for (unsigned group = 0; group < GROUPS; group++)
			free_together(worker, group);
		probe(worker);
		if (state.over)
			return;
		pthread_barrier_wait(&state.barrier);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("last_frees", 2, argc, argv);
	pthread_barrier_init(&state.barrier, NULL, stress->threads);
	stress_run(stress, work, NULL);
	return stress_end(stress, "rounds", state.rounds);
}
