/*
 * scopes.c: every thread opens scopes, nested and with both policies, frees part of what it allocates,
 * and lets some blocks survive. Survivors go through an exchange, and are freed or reallocated by any
 * thread at some later time: while their scope is open still, or long after.
 */
#include "stress.h"

#include <stdlib.h>

#define BLOCKS_PER_SCOPE 120
#define NESTED_MOST 4

static atomic_ullong scope_count;

static void free_some_survivor(struct worker *worker)
{
	void *block = exchange_swap(worker->shared, worker, NULL);
	if (block && random_one_in(&worker->rng, 4))
		block = block_resize(worker, block, block_random_size(worker, 12));
	block_free(block);
}

/* Gives a block away; under `none` it has to be kept first. */
static void let_survive(struct worker *worker, void *block, bool reclaims)
{
	if (reclaims && region_keep(block) != block)
		stress_fail("region_keep() moves a block");
	block_free(exchange_swap(worker->shared, worker, block));
}

static void one_scope(struct worker *worker, unsigned depth);

/* Allocates and frees; what remains in `own` at the end is left to the scope. */
static void fill_scope(struct worker *worker, unsigned depth, bool reclaims)
{
	void *own[16] = {0};
	unsigned count = (unsigned)random_below(&worker->rng, BLOCKS_PER_SCOPE);
	for (unsigned i = 0; i < count; i++) {
		void **place = &own[random_below(&worker->rng, 16)];
		block_free(*place);
		*place = block_make(worker, block_random_size(worker, random_one_in(&worker->rng, 50) ? 17 : 9));
		if (random_one_in(&worker->rng, 8)) {
			let_survive(worker, *place, reclaims);
			*place = NULL;
		}
		if (random_one_in(&worker->rng, 4))
			free_some_survivor(worker);
		if (depth < NESTED_MOST && random_one_in(&worker->rng, 40))
			one_scope(worker, depth + 1);
	}
	for (unsigned i = 0; i < 16; i++)
		if (own[i]) {
			block_check(own[i]);
			if (!reclaims) /* nobody would know of it any more */
				block_free(own[i]);
		}
}

static void one_scope(struct worker *worker, unsigned depth)
{
	bool reclaims = random_one_in(&worker->rng, 2);
	struct region_scope scope;
	struct region_options options = {
		.name = reclaims ? "none" : "unfreed",
		.fade = reclaims ? REGION_FADE_NONE : REGION_FADE_UNFREED,
		.buffer_size = random_one_in(&worker->rng, 2) ? 65536 : 0,
	};
	region_enter_with(&scope, &options);
	fill_scope(worker, depth, reclaims);
	region_leave(&scope);
	atomic_fetch_add(&scope_count, 1);
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		one_scope(worker, 0);
		free_some_survivor(worker);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("scopes", 4, argc, argv);
	struct exchange *exchange = exchange_new(4000);
	stress_run(stress, work, exchange);
	exchange_empty(exchange);
	free(exchange);

	struct region_stats stats;
	region_stats_read(&stats);
	if (stats.scopes_entered + stats.scopes_off != scope_count)
		stress_fail("%llu scopes entered, but %llu counted, and %llu calls of some that were off",
		            (unsigned long long)scope_count, (unsigned long long)stats.scopes_entered,
		            (unsigned long long)stats.scopes_off);
	return stress_end(stress, "scopes", scope_count);
}
