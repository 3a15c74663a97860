/*
 * short_lives.c: threads come and go, leaving blocks behind that others free, before and after the
 * thread that made them has ended; with frees in destructors of thread-specific data, which may come
 * after the allocator has let go of the thread, and threads that end inside a scope.
 */
#include "stress.h"

#include <stdlib.h>

#define BLOCKS_PER_LIFE 200

static struct {
	pthread_key_t key; /* its destructor frees a block */
	atomic_ullong lives;
} state;

static void free_late(void *block)
{
	block_free(block);
	shim_free(shim_malloc(100));
}

static void leave_blocks(struct worker *worker)
{
	for (unsigned i = 0; i < BLOCKS_PER_LIFE; i++) {
		void *block = block_make(worker, block_random_size(worker, 12));
		block_free(exchange_swap(worker->shared, worker, block));
	}
}

/* The scope is left by the end of the thread; its blocks fade. */
static void *live(void *arg)
{
	struct worker *worker = arg;
	pthread_setspecific(state.key, block_make(worker, block_random_size(worker, 12)));
	if (random_one_in(&worker->rng, 2)) {
		leave_blocks(worker);
		return NULL;
	}
	struct region_scope scope;
	struct region_options options = {.name = "life", .fade = REGION_FADE_UNFREED};
	region_enter_with(&scope, &options);
	leave_blocks(worker);
	pthread_exit(NULL);
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, live, worker) != 0)
			stress_fail("no more threads to be had");
		pthread_join(thread, NULL);
		block_free(exchange_swap(worker->shared, worker, NULL));
		atomic_fetch_add(&state.lives, 1);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("short_lives", 4, argc, argv);
	struct exchange *exchange = exchange_new(2000);
	if (pthread_key_create(&state.key, free_late) != 0)
		abort();
	stress_run(stress, work, exchange);
	exchange_empty(exchange);
	free(exchange);
	return stress_end(stress, "threads came and went", state.lives);
}
