/*
 * fade.c: what becomes of a scope's blocks and of its memory at its end: fading, reclaiming, keeping,
 * copying out; and the limits on what a scope may hold.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

#define MB ((size_t)1 << 20)

static const struct region_options unfreed = {.name = "unfreed", .fade = REGION_FADE_UNFREED};
static const struct region_options none = {.name = "none", .fade = REGION_FADE_NONE};

static struct region_stats stats_now(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return stats;
}

static void stays_flat(size_t before, size_t allowed, const char *rule)
{
	size_t now = probe_resident();
	CHECK(now < before + allowed, "%s: %zu KB more", rule, (now - before) >> 10);
}

static void run_in_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, body, argument) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

/* --- fading --- */

enum { COUNT = 3000 };
static void *blocks[COUNT];

static size_t size_of(unsigned i)
{
	return i % 50 == 0 ? 5000 + i : 10 + i % 300;
}

static void allocate_all(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = probe_block(size_of(i), i);
}

static void free_two_of_three(void)
{
	for (unsigned i = 0; i < COUNT; i++)
		if (i % 3)
			probe_unblock(blocks[i], size_of(i), i);
}

static void *free_one_of_three(void *unused)
{
	for (unsigned i = 0; i < COUNT; i += 3)
		probe_unblock(blocks[i], size_of(i), i);
	return unused;
}

static void allocate_all_free_most(void *unused)
{
	allocate_all(unused);
	free_two_of_three();
}

static void unfreed_blocks_stay_valid(void)
{
	region_do_with(&unfreed, allocate_all_free_most, NULL);
	probe_heap_is_sound();
	for (unsigned i = 0; i < COUNT; i += 3) {
		CHECK(!region_name_of(blocks[i]), "a faded block is in no scope");
		CHECK(malloc_usable_size(blocks[i]) >= size_of(i), "it keeps its usable size");
	}
	free_one_of_three(NULL);
}

static void faded_blocks_may_be_freed_by_another_thread(void)
{
	region_do_with(&unfreed, allocate_all_free_most, NULL);
	run_in_thread(free_one_of_three, NULL);
	probe_heap_is_sound();
}

static void *scope_in_a_thread(void *unused)
{
	region_do_with(&unfreed, allocate_all_free_most, NULL);
	return unused;
}

static void faded_blocks_outlive_their_thread(void)
{
	for (int i = 0; i < 20; i++) {
		run_in_thread(scope_in_a_thread, NULL);
		free_one_of_three(NULL);
	}
	probe_heap_is_sound();
}

static void faded_blocks_may_be_reallocated(void)
{
	region_do_with(&unfreed, allocate_all_free_most, NULL);
	for (unsigned i = 0; i < COUNT; i += 3) {
		blocks[i] = realloc(blocks[i], size_of(i) * 3);
		probe_verify(blocks[i], size_of(i), i, "realloc keeps a faded block's contents");
		free(blocks[i]);
	}
}

/* 40 MB survive, all of it; `mapped_bytes` counts what spans hold. */
enum { MANY = 40000 };
static void *many[MANY];

static void leave_many(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < MANY; i++)
		many[i] = probe_block(1000, i);
}

static void *free_many(void *unused)
{
	for (unsigned i = 0; i < MANY; i++)
		probe_unblock(many[i], 1000, i);
	return unused;
}

static void memory_came_back(size_t before, size_t during)
{
	size_t after = stats_now().mapped_bytes;
	CHECK(during >= before + MANY * 1000, "survivors hold their memory");
	CHECK(after <= before + 4 * MB, "the last free of a survivor gives memory back: %zu KB are kept",
	      (after - before) >> 10);
}

static void last_free_of_a_survivor_gives_memory_back(void)
{
	size_t before = stats_now().mapped_bytes, during;
	region_do_with(&unfreed, leave_many, NULL);
	during = stats_now().mapped_bytes;
	free_many(NULL);
	memory_came_back(before, during);
}

static void last_free_by_another_thread_gives_memory_back(void)
{
	size_t before = stats_now().mapped_bytes, during;
	region_do_with(&unfreed, leave_many, NULL);
	during = stats_now().mapped_bytes;
	run_in_thread(free_many, NULL);
	memory_came_back(before, during);
}

static void leave_one_in_a_hundred(void *unused)
{
	leave_many(unused);
	for (unsigned i = 0; i < MANY; i++)
		if (i % 100)
			probe_unblock(many[i], 1000, i);
}

static void *leave_one_in_a_hundred_there(void *unused)
{
	region_do_with(&unfreed, leave_one_in_a_hundred, unused);
	return unused;
}

/* Each thread leaves survivors all over 40 MB: the next one takes these buffers up for their holes. */
static void buffers_with_survivors_serve_other_threads(void)
{
	size_t before = 0;
	for (int i = 0; i < 10; i++) {
		run_in_thread(leave_one_in_a_hundred_there, NULL);
		if (i == 0)
			before = stats_now().mapped_bytes;
	}
	CHECK(stats_now().mapped_bytes <= before + 20 * MB, "10 threads hold no 10 times 40 MB: %zu MB",
	      stats_now().mapped_bytes / MB);
}

static void *survivor, *batch[100];

static void leave_one_in_2_mb(void *unused)
{
	(void)unused;
	for (int i = 0; i < 2000; i++)
		free(memset(malloc(1000), 1, 1000));
	survivor = probe_block(64, 1);
	for (int i = 0; i < 50; i++)
		batch[i] = probe_block(30000, 1);
	for (int i = 0; i < 50; i++)
		free(batch[i]);
}

/* 20,000 scopes of 100 KB each leave one block of 64 bytes each: 2 GB if a survivor held a buffer. */
static void leave_one_in_100_kb(void *which)
{
	for (int i = 0; i < 100; i++)
		batch[i] = malloc(1000);
	survivor = probe_block(64, (unsigned)(uintptr_t)which);
	for (int i = 0; i < 100; i++)
		free(batch[i]);
}

static void survivors_do_not_hold_their_buffers(void)
{
	long count = probe_count(20000);
	void **all = calloc((size_t)count, sizeof(*all));
	size_t before = probe_resident();
	for (long i = 0; i < count; i++) {
		region_do_with(&unfreed, leave_one_in_100_kb, (void *)i);
		all[i] = survivor;
	}
	stays_flat(before, (size_t)count * 64 * 4 + 16 * MB, "survivors cost no more than themselves");
	for (long i = 0; i < count; i++)
		probe_unblock(all[i], 64, (unsigned)i);
	CHECK(stats_now().buffers_partial > 0, "buffers with survivors are taken up again");
}

/* Survivors that die one by one later, as in a cache: memory follows what lives. */
static void survivors_that_die_later_leave_nothing(void)
{
	enum { LIVE = 500 };
	static void *ring[LIVE];
	size_t before = 0;
	for (unsigned i = 0; i < 10000; i++) {
		if (i >= LIVE)
			probe_unblock(ring[i % LIVE], 64, i - LIVE);
		region_do_with(&unfreed, leave_one_in_100_kb, (void *)(uintptr_t)i);
		ring[i % LIVE] = survivor;
		if (i == 2 * LIVE)
			before = probe_resident();
	}
	stays_flat(before, 16 * MB, "memory follows the survivors that live");
}

static void a_buffer_with_a_survivor_serves_later_scopes(void)
{
	size_t before;
	for (int i = 0; i < 20; i++)
		region_do_with(&unfreed, leave_one_in_2_mb, NULL);
	before = stats_now().mapped_bytes;
	for (int i = 0; i < 500; i++)
		region_do_with(&unfreed, leave_one_in_2_mb, NULL);
	CHECK(stats_now().mapped_bytes <= before + 8 * MB, "500 survivors hold no 500 buffers: %zu KB",
	      (stats_now().mapped_bytes - before) >> 10);
}

/* --- reclaiming --- */

static void none_reclaims_everything(void)
{
	struct region_stats before, after;
	size_t resident;
	for (int i = 0; i < 10; i++)
		region_do_with(&none, allocate_all, NULL);
	resident = probe_resident();
	before = stats_now();
	for (int i = 0; i < 500; i++)
		region_do_with(&none, allocate_all, NULL);
	after = stats_now();
	stays_flat(resident, 4 * MB, "600 MB are reclaimed wholesale");
	CHECK(after.mapped_bytes <= before.mapped_bytes + 2 * MB, "spans stay as few");
	CHECK(after.blocks_reclaimed - before.blocks_reclaimed == 500 * (uint64_t)COUNT,
	      "each block is counted as reclaimed: %zu",
	      (size_t)(after.blocks_reclaimed - before.blocks_reclaimed));
}

static void keep_some(void *unused)
{
	allocate_all(unused);
	for (unsigned i = 0; i < COUNT; i += 3)
		CHECK(region_keep(blocks[i]) == blocks[i], "region_keep returns its argument");
}

static void kept_blocks_outlive_none(void)
{
	for (int round = 0; round < 20; round++) {
		region_do_with(&none, keep_some, NULL);
		probe_heap_is_sound();
		CHECK(!region_name_of(blocks[0]), "a kept block is on the general heap afterwards");
		free_one_of_three(NULL);
	}
}

static void keep_and_free(void *unused)
{
	allocate_all(unused);
	for (unsigned i = 0; i < COUNT; i++)
		free(region_keep(blocks[i]));
	blocks[0] = region_keep(probe_block(100, 1));
	blocks[0] = realloc(blocks[0], 10000);
}

static void kept_blocks_may_be_freed_and_reallocated_inside(void)
{
	region_do_with(&none, keep_and_free, NULL);
	probe_heap_is_sound();
	CHECK(malloc_usable_size(blocks[0]) >= 10000, "a kept block that grew is kept");
	probe_verify(blocks[0], 100, 1, "a kept block that grew is kept");
	free(blocks[0]);
}

static void keep_is_harmless_outside_scopes(void)
{
	void *p = probe_block(100, 1), *big = malloc(5 * MB);
	CHECK(!region_keep(NULL), "region_keep(NULL) is NULL");
	CHECK(region_keep(p) == p && region_keep(big) == big, "region_keep of a heap block is nothing");
	probe_unblock(p, 100, 1);
	free(big);
}

static void *copies[COUNT];

static void copy_out_all(void *unused)
{
	allocate_all(unused);
	for (unsigned i = 0; i < COUNT; i++) {
		copies[i] = region_copy_out(blocks[i]);
		CHECK(copies[i] && copies[i] != blocks[i], "region_copy_out copies");
		CHECK(!region_name_of(copies[i]) && !region_owns(copies[i]), "to the general heap");
		CHECK(malloc_usable_size(copies[i]) >= malloc_usable_size(blocks[i]), "all of it");
	}
	CHECK(!region_copy_out(NULL), "region_copy_out(NULL) is NULL");
}

static void copies_outlive_their_scope(void)
{
	region_do_with(&none, copy_out_all, NULL);
	probe_heap_is_sound();
	for (unsigned i = 0; i < COUNT; i++)
		probe_unblock(copies[i], size_of(i), i);
}

/* --- the operator's word --- */

static void fade_option_makes_none_safe(void)
{
	region_do_with(&none, allocate_all_free_most, NULL);
	probe_heap_is_sound();
	free_one_of_three(NULL);
	CHECK(stats_now().blocks_reclaimed == 0, "nothing is reclaimed");
}

static void fade_option_makes_unfreed_reclaim(void)
{
	region_do_with(&unfreed, allocate_all, NULL);
	CHECK(stats_now().blocks_faded == 0, "nothing fades");
	CHECK(stats_now().blocks_reclaimed > 0, "all is reclaimed");
}

/* --- limits --- */

static void hold_8_mb(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < 8000; i++)
		CHECK(malloc(1000), "malloc serves beyond the limit");
	for (unsigned i = 0; i < 100; i++)
		copies[i] = probe_block(500, i);
	for (unsigned i = 0; i < 100; i++)
		probe_unblock(copies[i], 500, i);
}

static void general_heap_serves_beyond(const struct region_options *options, size_t limit)
{
	struct region_stats stats;
	region_do_with(options, hold_8_mb, NULL);
	stats = stats_now();
	CHECK(stats.heap_over_limit > 0, "what the limit refuses is counted");
	CHECK(stats.peak_bytes <= limit, "no scope held more: %zu", (size_t)stats.peak_bytes);
	CHECK(stats.blocks_allocated + stats.heap_over_limit == 8100, "each block is counted once: %zu + %zu",
	      (size_t)stats.blocks_allocated, (size_t)stats.heap_over_limit);
}

static void limit_option_hands_over_to_the_general_heap(void)
{
	general_heap_serves_beyond(&unfreed, MB);
}

static void limit_of_a_scope_hands_over_to_the_general_heap(void)
{
	struct region_options options = {.fade = REGION_FADE_NONE, .limit_bytes = 2 * MB};
	general_heap_serves_beyond(&options, 2 * MB);
}

static void allocate_sizes(void *unused)
{
	(void)unused;
	for (size_t size = 100; size <= 6400; size *= 2) {
		void *p = probe_block(size, 1);
		CHECK(region_owns(p) == (size <= 1000), "a block of %zu is %s", size,
		      region_owns(p) ? "in the region" : "on the heap");
		probe_unblock(p, size, 1);
	}
}

static void max_block_option_sends_bigger_ones_to_the_heap(void)
{
	region_do_with(&unfreed, allocate_sizes, NULL);
	CHECK(stats_now().heap_too_big == 3, "3 blocks are counted as too big: %zu",
	      (size_t)stats_now().heap_too_big);
}

static void allocate_big(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < 10; i++)
		blocks[i] = probe_block(i * MB + MB, i);
}

static void blocks_too_big_for_a_region_go_to_the_general_heap(void)
{
	region_do_with(&unfreed, allocate_big, NULL);
	for (unsigned i = 0; i < 10; i++)
		probe_unblock(blocks[i], i * MB + MB, i);
	CHECK(stats_now().heap_too_big == 10, "they are counted as too big: %zu",
	      (size_t)stats_now().heap_too_big);
}

static void allocate_large(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < 100; i++)
		probe_block(50000 + i * 1000, i);
}

/* Under `none` nobody is going to free them, so they mustn't leak. */
static void none_reclaims_large_blocks_too(void)
{
	size_t before = 0;
	for (int i = 0; i < 50; i++) {
		region_do_with(&none, allocate_large, NULL);
		if (i == 5)
			before = probe_resident();
	}
	stays_flat(before, 16 * MB, "500 MB in large blocks are reclaimed");
}

static void every_buffer_size_works(void)
{
	for (size_t size = 1; size <= 64 * MB; size *= 4) {
		struct region_options options = {.buffer_size = size, .buffer_count = 3};
		for (int round = 0; round < 3; round++) {
			region_do_with(&options, allocate_all_free_most, NULL);
			free_one_of_three(NULL);
		}
	}
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}
/* Under `none` blocks are counted only where somebody asked for statistics. */
#define COUNTED "LIBREGION_STATS=/dev/null"
#define WITH(name_, environment_) {.name = #name_, .run = name_, .environment = environment_}

const struct probe_case probe_cases[] = {
	CASE(unfreed_blocks_stay_valid),
	CASE(faded_blocks_may_be_freed_by_another_thread),
	CASE(faded_blocks_outlive_their_thread),
	CASE(faded_blocks_may_be_reallocated),
	CASE(last_free_of_a_survivor_gives_memory_back),
	CASE(last_free_by_another_thread_gives_memory_back),
	CASE(buffers_with_survivors_serve_other_threads),
	CASE(survivors_do_not_hold_their_buffers),
	CASE(survivors_that_die_later_leave_nothing),
	CASE(a_buffer_with_a_survivor_serves_later_scopes),
	WITH(none_reclaims_everything, COUNTED),
	CASE(kept_blocks_outlive_none),
	CASE(kept_blocks_may_be_freed_and_reallocated_inside),
	CASE(keep_is_harmless_outside_scopes),
	CASE(copies_outlive_their_scope),
	WITH(fade_option_makes_none_safe, "LIBREGION_FADE=unfreed"),
	WITH(fade_option_makes_unfreed_reclaim, "LIBREGION_FADE=none " COUNTED),
	WITH(limit_option_hands_over_to_the_general_heap, "LIBREGION_LIMIT=1M"),
	WITH(limit_of_a_scope_hands_over_to_the_general_heap, COUNTED),
	WITH(max_block_option_sends_bigger_ones_to_the_heap, "LIBREGION_MAX_BLOCK=1000"),
	CASE(blocks_too_big_for_a_region_go_to_the_general_heap),
	CASE(none_reclaims_large_blocks_too),
	CASE(every_buffer_size_works),
	{0},
};
