/*
 * memory.c: memory comes back. After everything was freed, from whichever thread, malloc_trim() leaves
 * about what there was before; scopes that leave a survivor each use the holes around the others; and a
 * scope in which a multiple of its live bytes is allocated and freed stays near its live bytes.
 *
 * Bytes in use are the library's own figure; outside of sanitizers, which have memory of their own, the
 * resident bytes of the process must agree.
 */
#include "stress.h"

#include <stdlib.h>

#define MIB ((size_t)1 << 20)
#define HEAP_BLOCKS 60000 /* about 60 MiB */
#define SCOPES 2000
#define BLOCKS_PER_SCOPE 1000 /* of which one survives */
#define CHURN_LIVE 4000       /* blocks of up to 512 bytes: about 1 MiB */
#define SLACK_BYTES (8 * MIB)

struct usage {
	size_t mapped;
	size_t resident;
};

static struct usage usage_now(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return (struct usage){(size_t)stats.mapped_bytes, (size_t)stats.resident_bytes};
}

static void check_returned(const char *what, struct usage before, size_t slack)
{
	struct usage now = usage_now();
	if (now.mapped > before.mapped + slack)
		stress_fail("%s: %zu bytes in use, and %zu before", what, now.mapped, before.mapped);
	if (!STRESS_UNDER_SANITIZER && now.resident > before.resident + slack)
		stress_fail("%s: %zu bytes resident, and %zu before", what, now.resident, before.resident);
}

/* --- blocks that another thread frees --- */

struct batch {
	void **blocks;
	size_t count;
};

static void *free_batch(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->count; i++)
		block_free(batch->blocks[i]);
	return NULL;
}

/* Half of them here, half on another thread that ends afterwards. */
static void free_on_two_threads(void **blocks, size_t count)
{
	struct batch remote = {blocks, count / 2};
	struct batch own = {blocks + remote.count, count - remote.count};
	pthread_t thread;
	if (pthread_create(&thread, NULL, free_batch, &remote) != 0)
		stress_fail("no more threads to be had");
	free_batch(&own);
	pthread_join(thread, NULL);
	/* what was freed remotely is taken back when this thread next has to do with the heap */
	shim_free(shim_malloc(1));
	shim_trim(0);
}

static void shuffle(struct worker *worker, void **blocks, size_t count)
{
	for (size_t i = count; i > 1; i--) {
		size_t other = random_below(&worker->rng, i);
		void *block = blocks[i - 1];
		blocks[i - 1] = blocks[other];
		blocks[other] = block;
	}
}

static void heap_comes_back(struct worker *worker, void **blocks)
{
	struct usage before = usage_now();
	for (size_t i = 0; i < HEAP_BLOCKS; i++)
		blocks[i] = block_make(worker, block_random_size(worker, random_one_in(&worker->rng, 500) ? 20 : 10));
	shuffle(worker, blocks, HEAP_BLOCKS);
	free_on_two_threads(blocks, HEAP_BLOCKS);
	check_returned("the general heap after all was freed", before, SLACK_BYTES);
}

/* --- survivors --- */

static void *scope_with_survivor(struct worker *worker)
{
	struct region_scope scope;
	struct region_options options = {.name = "survivor", .fade = REGION_FADE_UNFREED};
	size_t survivor = random_below(&worker->rng, BLOCKS_PER_SCOPE);
	void *kept = NULL;
	region_enter_with(&scope, &options);
	for (size_t i = 0; i < BLOCKS_PER_SCOPE; i++) {
		void *block = block_make(worker, block_random_size(worker, 7));
		if (i == survivor)
			kept = block;
		else
			block_free(block);
	}
	region_leave(&scope);
	return kept;
}

static void survivors_share_buffers(struct worker *worker, void **blocks)
{
	struct usage before = usage_now();
	for (size_t i = 0; i < SCOPES; i++)
		blocks[i] = scope_with_survivor(worker);
	check_returned("one survivor of each of many scopes", before, 2 * SLACK_BYTES);
	shuffle(worker, blocks, SCOPES);
	free_on_two_threads(blocks, SCOPES);
	check_returned("after the last survivor was freed", before, SLACK_BYTES);
}

/* Many survivors at once, so that there is something to come back. */
static void survivors_come_back(struct worker *worker, void **blocks)
{
	struct usage before = usage_now();
	struct region_scope scope;
	region_enter_with(&scope, &(struct region_options){.fade = REGION_FADE_UNFREED});
	for (size_t i = 0; i < HEAP_BLOCKS; i++)
		blocks[i] = block_make(worker, block_random_size(worker, 10));
	region_leave(&scope);
	shuffle(worker, blocks, HEAP_BLOCKS);
	free_on_two_threads(blocks, HEAP_BLOCKS);
	check_returned("a scope's survivors after all were freed", before, SLACK_BYTES);
}

/* --- churn --- */

static void churn_stays_small(struct worker *worker, void **blocks)
{
	struct region_scope scope;
	struct region_stats stats;
	region_enter_with(&scope, &(struct region_options){.name = "churn", .fade = REGION_FADE_UNFREED});
	for (size_t i = 0; i < CHURN_LIVE; i++)
		blocks[i] = block_make(worker, 8 + random_below(&worker->rng, 504));
	for (size_t i = 0; i < 100 * CHURN_LIVE && !atomic_load(&worker->stress->over); i++) {
		void **place = &blocks[random_below(&worker->rng, CHURN_LIVE)];
		block_free(*place);
		*place = block_make(worker, 8 + random_below(&worker->rng, 504));
	}
	for (size_t i = 0; i < CHURN_LIVE; i++)
		block_free(blocks[i]);
	region_leave(&scope);
	if (region_stats_read_scope("churn", &stats) != 0)
		stress_fail("no statistics of the scope \"churn\"");
	if (stats.peak_bytes > 4 * MIB)
		stress_fail("about 1 MiB live in a scope took %llu bytes of buffers",
		            (unsigned long long)stats.peak_bytes);
}

static void work(struct worker *worker)
{
	void **blocks = calloc(HEAP_BLOCKS, sizeof *blocks);
	if (!blocks)
		abort();
	do {
		heap_comes_back(worker, blocks);
		survivors_share_buffers(worker, blocks);
		survivors_come_back(worker, blocks);
		churn_stays_small(worker, blocks);
	} while (!atomic_load(&worker->stress->over));
	free(blocks);
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("memory", 1, argc, argv);
	stress->threads = 1; /* figures are of the whole process */
	stress_run(stress, work, NULL);
	return stress_end(stress, NULL, 0);
}
