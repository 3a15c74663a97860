/*
 * pools.c: threads take regions from the same pools, fill them, and release them: their own ones, or
 * those that another thread has filled. Others trim meanwhile, read statistics, or wait until what lies
 * idle is too old.
 */
#include "pattern.h"
#include "stress.h"

#include <stdlib.h>
#include <unistd.h>

#define POOLS 2
#define PLACES 16
#define BLOCKS_MOST 40

/* Lies in its region, and says what else does. */
struct content {
	region_t *region;
	unsigned pool, count;
	struct {
		char *p;
		size_t size;
		uint64_t id;
	} blocks[BLOCKS_MOST];
};

static struct {
	region_pool_t *pools[POOLS];
	_Atomic(struct content *) places[PLACES]; /* from thread to thread */
	atomic_ullong acquired[POOLS], released[POOLS];
	atomic_ullong ended, ends_added;
} shared;

static void count_end(void *unused)
{
	(void)unused;
	atomic_fetch_add(&shared.ended, 1);
}

static struct content *fill(struct worker *worker, unsigned pool)
{
	uint64_t key = random_below(&worker->rng, 5);
	region_t *region = region_pool_acquire(shared.pools[pool], key);
	if (!region || region_len(region) != 0)
		stress_fail("the pool gives no empty region");
	atomic_fetch_add(&shared.acquired[pool], 1);
	struct content *content = region_calloc(region, 1, sizeof(*content));
	*content = (struct content){.region = region, .pool = pool, .count = BLOCKS_MOST};
	for (unsigned i = 0; i < BLOCKS_MOST; i++) {
		unsigned shift = random_one_in(&worker->rng, 50) ? 19 : (unsigned)key * 3;
		size_t size = 1 + random_scaled(&worker->rng, shift);
		content->blocks[i].p = region_alloc(region, size);
		content->blocks[i].size = size;
		content->blocks[i].id = random_next(&worker->rng);
		if (!content->blocks[i].p)
			stress_fail("NULL for %zu bytes", size);
		pattern_fill(content->blocks[i].p, 0, size, content->blocks[i].id);
		worker->blocks++;
		worker->bytes += size;
	}
	if (random_one_in(&worker->rng, 4)) {
		region_on_end(region, count_end, NULL);
		atomic_fetch_add(&shared.ends_added, 1);
	}
	return content;
}

static void release(struct content *content)
{
	if (!content)
		return;
	for (unsigned i = 0; i < content->count; i++)
		if (pattern_damage(content->blocks[i].p, 0, content->blocks[i].size, content->blocks[i].id) !=
		    PATTERN_INTACT)
			stress_fail("block %u at %p has changed", i, (void *)content->blocks[i].p);
	atomic_fetch_add(&shared.released[content->pool], 1);
	region_pool_release(shared.pools[content->pool], content->region);
}

static void look_after(struct worker *worker, unsigned pool)
{
	struct region_pool_stats stats;
	switch (random_below(&worker->rng, 4)) {
	case 0: region_pool_trim(shared.pools[pool]); break;
	case 1: shim_trim(0); break;
	case 2:
		region_pool_stats_read(shared.pools[pool], &stats);
		if (stats.released > stats.acquired || stats.created > stats.acquired)
			stress_fail("statistics don't add up");
		break;
	case 3:
		if (region_pool_expected(shared.pools[pool], random_below(&worker->rng, 6)) > (size_t)1 << 40)
			stress_fail("too much is expected");
		break;
	}
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		unsigned pool = (unsigned)random_below(&worker->rng, POOLS);
		struct content *content = fill(worker, pool);
		if (random_one_in(&worker->rng, 2))
			content = atomic_exchange(&shared.places[random_below(&worker->rng, PLACES)], content);
		release(content);
		if (random_one_in(&worker->rng, 50))
			look_after(worker, pool);
		if (random_one_in(&worker->rng, 500))
			usleep(30000);
	}
}

static unsigned long long end_pool(unsigned i)
{
	struct region_pool_stats stats;
	region_pool_stats_read(shared.pools[i], &stats);
	if (stats.acquired != shared.acquired[i] || stats.released != shared.released[i])
		stress_fail("pool %u has counted %llu and %llu of %llu", i, (unsigned long long)stats.acquired,
		            (unsigned long long)stats.released, (unsigned long long)shared.acquired[i]);
	region_pool_destroy(shared.pools[i]);
	return stats.acquired;
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("pools", 4, argc, argv);
	for (unsigned i = 0; i < POOLS; i++)
		shared.pools[i] = region_pool_create(&(struct region_pool_options){
			.name = "pool", .idle_ms = i ? 10 : 0, .idle_bytes = i ? 1 << 20 : 0});
	stress_run(stress, work, NULL);
	for (unsigned i = 0; i < PLACES; i++)
		release(atomic_exchange(&shared.places[i], NULL));
	unsigned long long count = 0;
	for (unsigned i = 0; i < POOLS; i++)
		count += end_pool(i);
	if (shared.ended != shared.ends_added)
		stress_fail("%llu callbacks of %llu were called", (unsigned long long)shared.ended,
		            (unsigned long long)shared.ends_added);
	return stress_end(stress, "regions taken", count);
}
