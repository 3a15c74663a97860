/*
 * churn.c: freeing inside a scope is real. What was freed is used again before the scope ends, so that a
 * long scope stays near its live bytes, whoever frees, and even when memory or the scope's limit has run
 * out.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_FORM;

#define MB ((size_t)1 << 20)

static const struct region_options unfreed = {.name = "unfreed", .fade = REGION_FADE_UNFREED};

static const struct region_options none = {.name = "none", .fade = REGION_FADE_NONE};

static void stays_flat(size_t before, size_t allowed, const char *rule)
{
	size_t now = probe_resident();
	CHECK(now < before + allowed, "%s: %zu KB more", rule, (now - before) >> 10);
}

/* A ring of live blocks; each round frees the oldest and allocates anew. */
static void churn(size_t total, size_t live, size_t (*size_of)(unsigned *))
{
	enum { SLOTS = 1 << 16 };
	static struct { void *p; size_t size; } ring[SLOTS];
	unsigned state = 31;
	size_t in, out = 0, held = 0, passed = 0;
	for (in = 0; passed < total; in++) {
		size_t size = size_of(&state);
		while (held + size > live || in - out == SLOTS) {
			probe_verify(ring[out % SLOTS].p, 8, (unsigned)out, "a live block is whole");
			held -= ring[out % SLOTS].size;
			free(ring[out++ % SLOTS].p);
		}
		ring[in % SLOTS].p = malloc(size);
		ring[in % SLOTS].size = size;
		CHECK(ring[in % SLOTS].p, "malloc serves");
		memset(ring[in % SLOTS].p, 0, size);
		probe_fill(ring[in % SLOTS].p, 8, (unsigned)in);
		held += size;
		passed += size;
	}
	for (; out < in; out++)
		free(ring[out % SLOTS].p);
}

static size_t always_200(unsigned *state)
{
	(void)state;
	return 200;
}

static size_t small_and_mixed(unsigned *state)
{
	return 16 + probe_random(state) % 500;
}

static size_t up_to_20000(unsigned *state)
{
	return 16 + probe_random(state) % (probe_random(state) % 16 ? 1000 : 20000);
}

typedef size_t size_chooser(unsigned *state);
static size_chooser *chosen;

static void churn_here(void *unused)
{
	size_t before;
	(void)unused;
	churn(16 * MB, MB, chosen);
	before = probe_resident();
	churn((size_t)probe_count(1000) * MB, MB, chosen);
	stays_flat(before, 4 * MB, "a gigabyte passes through a scope with one megabyte live");
}

static void churn_stays_small(size_chooser *sizes)
{
	size_t before = probe_resident();
	chosen = sizes;
	region_do_with(&unfreed, churn_here, NULL);
	stays_flat(before, 12 * MB, "the whole scope stays small");
}

static void churn_of_one_size_stays_small(void) { churn_stays_small(always_200); }
static void churn_of_mixed_sizes_stays_small(void) { churn_stays_small(small_and_mixed); }
static void churn_of_wide_sizes_stays_small(void) { churn_stays_small(up_to_20000); }

/* Another thread frees what the scope allocates. */
static pthread_barrier_t barrier;
static void *batch[1000];
enum { ROUNDS = 300 };

static void *free_batches(void *unused)
{
	for (int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		for (int i = 0; i < 1000; i++)
			probe_unblock(batch[i], 500, (unsigned)i);
		pthread_barrier_wait(&barrier);
	}
	return unused;
}

static void allocate_batches(void *unused)
{
	size_t before = 0;
	(void)unused;
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 1000; i++)
			batch[i] = probe_block(500, (unsigned)i);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
		if (round == 10)
			before = probe_resident();
	}
	stays_flat(before, 8 * MB, "150 MB pass through a scope and another thread's frees");
}

static void frees_by_another_thread_are_used_again_in_the_scope(void)
{
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	CHECK(pthread_create(&thread, NULL, free_batches, NULL) == 0, "a thread starts");
	region_do_with(&unfreed, allocate_batches, NULL);
	pthread_join(thread, NULL);
}

static void grow_a_string(void *unused)
{
	size_t before = probe_resident();
	(void)unused;
	for (int round = 0; round < 2000; round++) {
		char *text = NULL;
		for (size_t size = 36; size < 36 * 100; size += 36) {
			text = realloc(text, size);
			memset(text + size - 36, 'x', 36);
		}
		free(text);
	}
	stays_flat(before, 2 * MB, "growing strings use their memory again");
}

static void growing_strings_stay_small(void)
{
	region_do_with(&unfreed, grow_a_string, NULL);
}

/* A list through the blocks themselves, until there is no more memory; how many there were. */
static size_t exhaust(void)
{
	void **all = NULL, **block;
	size_t count = 0;
	errno = 0;
	for (; (block = malloc(48)); count++) {
		*block = all;
		all = block;
	}
	CHECK(errno == ENOMEM, "out of memory is ENOMEM, not %d", errno);
	while (all) {
		block = *all;
		free(all);
		all = block;
	}
	return count;
}

static void exhaust_again_and_again(void *unused)
{
	size_t first = exhaust(), again;
	(void)unused;
	for (int round = 0; round < 3; round++) {
		again = exhaust();
		CHECK(again >= first - first / 10, "%zu blocks at first, %zu after frees", first, again);
	}
}

static void exhausted_scope_uses_freed_memory_again(void)
{
	region_do_with(&unfreed, exhaust_again_and_again, NULL);
	probe_heap_is_sound();
}

/* Under the policy `none` a block too long to share a buffer has one of its own. */
static void churn_long_blocks(void *unused)
{
	void *small = probe_block(16, 1);
	size_t before = probe_resident();
	(void)unused;
	for (unsigned i = 0; i < 3000; i++)
		probe_unblock(probe_block(100000 + i, i), 100000 + i, i);
	stays_flat(before, 4 * MB, "300 MB of long blocks pass through a scope");
	probe_unblock(small, 16, 1);
}

static void churn_of_long_blocks_stays_small(void)
{
	struct region_stats stats;
	for (int i = 0; i < 3; i++)
		region_do_with(&none, churn_long_blocks, NULL);
	region_stats_read(&stats);
	CHECK(stats.mapped_bytes < 12 * MB, "%zu KB are held", (size_t)stats.mapped_bytes >> 10);
	CHECK(stats.heap_too_big == 0, "the scopes' buffers served the long blocks");
}

static uint64_t blocks_over_the_limit(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return stats.heap_over_limit;
}

static void exceed_the_limit_once(void *unused)
{
	static void *blocks[400];
	uint64_t before;
	(void)unused;
	for (unsigned i = 0; i < 400; i++)
		blocks[i] = probe_block(8000, i);
	for (unsigned i = 0; i < 400; i++)
		probe_unblock(blocks[i], 8000, i);
	before = blocks_over_the_limit();
	CHECK(before > 100, "3 MB don't fit in a limit of 1 MB: %u blocks", (unsigned)before);
	for (unsigned i = 0; i < 200000; i++)
		free(probe_opaque(malloc(100)));
	CHECK(blocks_over_the_limit() - before < 50000, "freed buffers serve again: %u of 200000 blocks",
	      (unsigned)(blocks_over_the_limit() - before));
}

static void scope_once_over_its_limit_is_served_from_buffers_again(void)
{
	struct region_options limited = unfreed;
	limited.limit_bytes = MB;
	region_do_with(&limited, exceed_the_limit_once, NULL);
}

static void fill_half_of_the_range(void *unused)
{
	static void *blocks[250];
	(void)unused;
	for (unsigned i = 0; i < 250; i++)
		blocks[i] = probe_block(30000, i);
	for (unsigned i = 0; i < 250; i++)
		probe_unblock(blocks[i], 30000, i);
}

static void empty_buffers_kept_ready_are_let_go_for_the_heap(void)
{
	static void *blocks[400];
	struct region_stats stats;
	unsigned count = 0;
	region_do_with(&unfreed, fill_half_of_the_range, NULL);
	region_stats_read(&stats);
	CHECK(stats.cached_bytes > 4 * MB, "buffers are kept: %zu KB", (size_t)stats.cached_bytes >> 10);
	while (count < 400 && (blocks[count] = malloc(60000)))
		probe_fill(blocks[count], 60000, count), count++;
	CHECK(count > 200, "blocks of 60000 bytes in a range of 16 MB: %u", count);
	for (unsigned i = 0; i < count; i++)
		probe_unblock(blocks[i], 60000, i);
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(churn_of_one_size_stays_small),
	CASE(churn_of_mixed_sizes_stays_small),
	CASE(churn_of_wide_sizes_stays_small),
	CASE(frees_by_another_thread_are_used_again_in_the_scope),
	CASE(growing_strings_stay_small),
	{.name = "exhausted_scope_uses_freed_memory_again",
	 .run = exhausted_scope_uses_freed_memory_again,
	 .environment = "LIBREGION_HEAP_RANGE=64M"},
	CASE(churn_of_long_blocks_stays_small),
	CASE(scope_once_over_its_limit_is_served_from_buffers_again),
	{.name = "empty_buffers_kept_ready_are_let_go_for_the_heap",
	 .run = empty_buffers_kept_ready_are_let_go_for_the_heap,
	 .environment = "LIBREGION_HEAP_RANGE=16M"},
	{0},
};
