/*
 * idle.c: what a program keeps that has freed its memory and then sleeps. 275 MB of blocks of 16 to
 * 1024 bytes are made and written; then all are freed ("idle"), or all but one in twenty
 * ("idle-kept"), in random order, as they would be after a load spike; and the program sleeps for
 * four seconds. Nothing tells the allocator.
 */
#include "workloads.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 530000, MIN_BYTES = 16, MAX_BYTES = 1024, IDLE_SECONDS = 4 };

static void **make_all(size_t count)
{
	void **blocks = bench_array(count, sizeof(*blocks));
	uint64_t random = random_seed(1);

	for (size_t i = 0; i < count; i++) {
		size_t size = random_between(&random, MIN_BYTES, MAX_BYTES);
		void *p = malloc(size);
		if (p)
			memset(p, 1, size);
		blocks[i] = block_mark(p, size);
	}
	return blocks;
}

static void shuffle(void **blocks, size_t count)
{
	uint64_t random = random_seed(2);

	for (size_t i = count - 1; i > 0; i--) {
		size_t other = random_below(&random, i + 1);
		void *p = blocks[i];
		blocks[i] = blocks[other];
		blocks[other] = p;
	}
}

/* The array of pointers is not part of what is asked. */
static void run_keeping(bool some)
{
	size_t count = general_live(BLOCKS), kept = some ? count / 20 : 0;
	void **blocks = make_all(count);

	shuffle(blocks, count);
	for (size_t i = kept; i < count; i++)
		block_free(blocks[i]);
	bench_array_free(blocks, count, sizeof(*blocks));
	general_sleep(IDLE_SECONDS);
}

static void run_idle(void)
{
	run_keeping(false);
}

static void run_idle_kept(void)
{
	run_keeping(true);
}

const struct workload workload_idle = {
	.name = "idle", .about = "275 MB freed, then 4 s asleep", .threads = 1, .is_idle = true, .run = run_idle,
};
const struct workload workload_idle_kept = {
	.name = "idle-kept", .about = "the same, with one block in twenty kept", .threads = 1, .is_idle = true,
	.run = run_idle_kept,
};
