/*
 * pools.c: pools: regions that are used again, sized from what their key has needed lately, and given
 * back when they lie unused or memory runs out.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

enum { KIB = 1024 };

static region_pool_t *pool_of(struct region_pool_options options)
{
	region_pool_t *pool = region_pool_create(&options);
	CHECK(pool, "a pool is made");
	return pool;
}

static region_pool_t *a_pool(void)
{
	region_pool_t *pool = region_pool_create(NULL);
	CHECK(pool, "a pool is made");
	return pool;
}

static region_t *acquired(region_pool_t *pool, uint64_t key)
{
	region_t *region = region_pool_acquire(pool, key);
	CHECK(region, "the pool serves");
	CHECK(region_len(region) == 0 && region_peak(region) == 0, "an empty region: %zu, %zu",
	      region_len(region), region_peak(region));
	return region;
}

/* A use of so many bytes. */
static void use(region_pool_t *pool, uint64_t key, size_t bytes)
{
	region_t *region = acquired(pool, key);
	for (size_t used = 0; used < bytes; used += KIB)
		block_of(region, KIB, 1);
	region_pool_release(pool, region);
}

static struct region_pool_stats stats_of(region_pool_t *pool)
{
	struct region_pool_stats stats;
	region_pool_stats_read(pool, &stats);
	return stats;
}

static void regions_are_used_again(void)
{
	region_pool_t *pool = a_pool();
	for (int i = 0; i < 1000; i++)
		use(pool, 1, 10 * KIB);
	struct region_pool_stats stats = stats_of(pool);
	CHECK(stats.acquired == 1000 && stats.released == 1000, "calls are counted: %lu, %lu",
	      (long)stats.acquired, (long)stats.released);
	CHECK(stats.created <= 2, "one region is enough: %lu", (long)stats.created);
	CHECK(stats.idle >= 1 && stats.idle_bytes > 0, "it lies in the pool: %zu, %zu", stats.idle,
	      stats.idle_bytes);
	region_pool_destroy(pool);
	probe_heap_is_sound();
}

static void regions_in_use_are_apart(void)
{
	enum { COUNT = 100 };
	region_pool_t *pool = a_pool();
	region_t *regions[COUNT];
	void *blocks[COUNT];
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			regions[i] = acquired(pool, i % 3);
			blocks[i] = block_of(regions[i], 5000, i);
		}
		for (unsigned i = 0; i < COUNT; i++) {
			verify(blocks[i], 5000, i);
			region_pool_release(pool, regions[i]);
		}
	}
	region_pool_destroy(pool);
}

static void expected_follows_what_a_key_needs(void)
{
	region_pool_t *pool = a_pool();
	CHECK(region_pool_expected(pool, 1) == 0, "nothing is known of a new key");
	for (int i = 0; i < 200; i++) {
		use(pool, 1, 3 * MIB);
		use(pool, 2, 100 * KIB);
	}
	size_t one = region_pool_expected(pool, 1), two = region_pool_expected(pool, 2);
	CHECK(one >= 3 * MIB && one <= 8 * MIB, "a key of 3 MiB: %zu", one);
	CHECK(two >= 100 * KIB && two <= 512 * KIB, "a key of 100 KiB: %zu", two);
	CHECK(region_pool_expected(pool, 3) == 0, "keys don't know of each other");
	region_pool_destroy(pool);
}

static void first_buffer_is_as_large_as_expected(void)
{
	region_pool_t *pool = pool_of((struct region_pool_options){.idle_bytes = 1});
	for (int i = 0; i < 200; i++)
		use(pool, 1, 2 * MIB);
	region_t *region = acquired(pool, 1);
	block_of(region, 16, 1);
	CHECK(region_cap(region) >= 2 * MIB && region_cap(region) <= 8 * MIB, "its buffers hold %zu",
	      region_cap(region));
	region_pool_release(pool, region);
	region_pool_destroy(pool);
}

static void fill_by_malloc(void *unused)
{
	(void)unused;
	for (int i = 0; i < 2000; i++)
		probe_block(KIB, 1);
}

static void blocks_of_malloc_count_for_a_key(void)
{
	region_pool_t *pool = a_pool();
	for (int i = 0; i < 100; i++) {
		region_t *region = acquired(pool, 1);
		region_within(region, fill_by_malloc, NULL);
		region_pool_release(pool, region);
	}
	size_t expected = region_pool_expected(pool, 1);
	CHECK(expected >= 2000 * KIB && expected <= 8 * MIB, "a key of 2000 KiB by malloc: %zu", expected);
	region_pool_destroy(pool);
}

static void one_outlier_changes_nothing(void)
{
	region_pool_t *pool = a_pool();
	for (int i = 0; i < 200; i++)
		use(pool, 1, 100 * KIB);
	size_t before = region_pool_expected(pool, 1);
	use(pool, 1, 64 * MIB);
	size_t after = region_pool_expected(pool, 1);
	CHECK(after <= 2 * before, "one of 64 MiB among 200: %zu, then %zu", before, after);
	region_pool_destroy(pool);
}

static void the_past_counts_less_and_less(void)
{
	region_pool_t *pool = a_pool();
	for (int i = 0; i < 200; i++)
		use(pool, 1, 8 * MIB);
	for (int i = 0; i < 2000; i++)
		use(pool, 1, 64 * KIB);
	size_t expected = region_pool_expected(pool, 1);
	CHECK(expected <= MIB, "2000 small ones outweigh 200 large ones: %zu", expected);
	for (int i = 0; i < 2000; i++)
		use(pool, 1, MIB);
	expected = region_pool_expected(pool, 1);
	CHECK(expected >= MIB, "and grow again: %zu", expected);
	region_pool_destroy(pool);
}

static void percentile_is_the_program_s(void)
{
	region_pool_t *half = pool_of((struct region_pool_options){.percentile = 50});
	region_pool_t *most = pool_of((struct region_pool_options){.percentile = 99});
	for (int i = 0; i < 1000; i++) {
		use(half, 1, i % 4 ? 64 * KIB : 4 * MIB);
		use(most, 1, i % 4 ? 64 * KIB : 4 * MIB);
	}
	size_t low = region_pool_expected(half, 1), high = region_pool_expected(most, 1);
	CHECK(low <= MIB, "half need 64 KiB: %zu", low);
	CHECK(high >= 4 * MIB, "99 of 100 need 4 MiB at most: %zu", high);
	region_pool_destroy(half);
	region_pool_destroy(most);
}

static void idle_regions_are_given_back_with_the_next_use(void)
{
	region_pool_t *pool = pool_of((struct region_pool_options){.idle_ms = 50});
	region_t *regions[20];
	for (int i = 0; i < 20; i++) {
		regions[i] = acquired(pool, 1);
		for (int j = 0; j < 1000; j++)
			block_of(regions[i], KIB, 1);
	}
	for (int i = 0; i < 20; i++)
		region_pool_release(pool, regions[i]);
	size_t idle = stats_of(pool).idle;
	CHECK(idle > 10, "they lie in the pool: %zu", idle);
	usleep(200000);
	use(pool, 2, KIB);
	use(pool, 2, KIB);
	CHECK(stats_of(pool).idle <= 3, "they are given back: %zu", stats_of(pool).idle);
	CHECK(stats_of(pool).trimmed >= 15, "that is counted: %lu", (long)stats_of(pool).trimmed);
	region_pool_destroy(pool);
}

static void no_more_lies_idle_than_asked_for(void)
{
	region_pool_t *pool = pool_of((struct region_pool_options){.idle_bytes = 4 * MIB});
	region_t *regions[50];
	for (int i = 0; i < 50; i++) {
		regions[i] = acquired(pool, (uint64_t)i);
		for (int j = 0; j < 1000; j++)
			block_of(regions[i], KIB, 1);
	}
	for (int i = 0; i < 50; i++)
		region_pool_release(pool, regions[i]);
	CHECK(stats_of(pool).idle_bytes <= 4 * MIB, "%zu bytes lie idle", stats_of(pool).idle_bytes);
	region_pool_destroy(pool);
}

static void trim_gives_all_back(void)
{
	region_pool_t *pool = a_pool();
	for (int by_malloc_trim = 0; by_malloc_trim < 2; by_malloc_trim++) {
		region_t *regions[20];
		for (int i = 0; i < 20; i++) {
			regions[i] = acquired(pool, 1);
			for (int j = 0; j < 1000; j++)
				block_of(regions[i], KIB, 1);
		}
		size_t full = probe_resident();
		for (int i = 0; i < 20; i++)
			region_pool_release(pool, regions[i]);
		size_t idle = stats_of(pool).idle_bytes;
		if (by_malloc_trim)
			malloc_trim(0);
		else
			CHECK(region_pool_trim(pool) >= idle && idle > 0, "it says how much: %zu", idle);
		CHECK(stats_of(pool).idle == 0 && stats_of(pool).idle_bytes == 0, "nothing lies there: %zu",
		      stats_of(pool).idle);
		malloc_trim(0);
		CHECK(probe_resident() + 15 * MIB < full, "it went back: %zu of %zu", probe_resident(), full);
		use(pool, 1, MIB);
	}
	region_pool_destroy(pool);
}

static void idle_regions_make_room_when_memory_runs_out(void)
{
	region_pool_t *pool = pool_of((struct region_pool_options){.idle_bytes = 256 * MIB});
	region_t *region = acquired(pool, 1);
	while (region_len(region) < 90 * MIB)
		block_of(region, 100 * KIB, 1);
	region_pool_release(pool, region);
	void *big = malloc(60 * MIB), *bigger = malloc(20 * MIB);
	CHECK(big && bigger, "what lies in the pool makes room: %zu bytes lie there",
	      stats_of(pool).idle_bytes);
	free(big);
	free(bigger);
	region_pool_destroy(pool);
}

static int called;

static void count_call(void *unused)
{
	(void)unused;
	called++;
}

static void release_ends_what_is_in_it(void)
{
	region_pool_t *pool = a_pool();
	region_t *region = acquired(pool, 1);
	CHECK(region_on_end(region, count_call, NULL) == 0, "a callback is taken");
	region_of((struct region_options){.parent = region});
	region_pool_release(pool, region);
	CHECK(called == 1, "callbacks are called: %d", called);
	use(pool, 1, KIB);
	CHECK(called == 1, "once: %d", called);
	region_pool_destroy(pool);
}

static region_pool_t *common;

static void *use_it(void *number)
{
	unsigned seed = *(unsigned *)number;
	for (int i = 0; i < 3000; i++) {
		region_t *region = acquired(common, seed % 3);
		void *p = block_of(region, 100 + seed % 5000, seed), *q = block_of(region, 300, seed + 1);
		verify(p, 100 + seed % 5000, seed);
		verify(q, 300, seed + 1);
		region_pool_release(common, region);
		seed += 17;
	}
	return NULL;
}

static void threads_share_a_pool(void)
{
	pthread_t threads[6];
	unsigned numbers[6];
	common = a_pool();
	for (unsigned i = 0; i < 6; i++) {
		numbers[i] = i * 100;
		CHECK(pthread_create(&threads[i], NULL, use_it, &numbers[i]) == 0, "a thread starts");
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	struct region_pool_stats stats = stats_of(common);
	CHECK(stats.acquired == 18000 && stats.released == 18000, "calls are counted: %lu, %lu",
	      (long)stats.acquired, (long)stats.released);
	CHECK(stats.created <= 40, "a few regions are enough: %lu", (long)stats.created);
	region_pool_destroy(common);
}

static void *release_it(void *region)
{
	region_pool_release(common, region);
	return NULL;
}

static void a_region_may_be_released_by_another_thread(void)
{
	common = a_pool();
	for (int i = 0; i < 100; i++) {
		region_t *region = acquired(common, 1);
		block_of(region, 5000, 1);
		in_thread(release_it, region);
	}
	CHECK(stats_of(common).created <= 2, "it is used again: %lu", (long)stats_of(common).created);
	region_pool_destroy(common);
}

static void a_forked_child_goes_on_with_the_pool(void)
{
	region_pool_t *pool = a_pool();
	use(pool, 1, MIB);
	region_t *region = acquired(pool, 2);
	void *p = block_of(region, 1000, 1);
	pid_t child = fork();
	verify(p, 1000, 1);
	region_pool_release(pool, region);
	use(pool, 1, MIB);
	region_pool_destroy(pool);
	probe_heap_is_sound();
	if (child == 0)
		_exit(0);
	CHECK(probe_wait_child(child, 10) == 0, "the child does well");
}

static void options_of_its_regions_are_the_program_s(void)
{
	region_pool_t *pool = pool_of((struct region_pool_options){
		.name = "pool", .region = {.limit_bytes = 1 << 20, .buffer_size = 65536, .growth = 100}});
	region_t *region = acquired(pool, 1);
	for (int i = 0; i < 5000; i++)
		block_of(region, KIB, 1);
	CHECK(region_cap(region) <= MIB, "the limit holds: %zu", region_cap(region));
	region_pool_release(pool, region);
	region_pool_destroy(pool);
}

const struct probe_case probe_cases[] = {
	CASE(regions_are_used_again),
	CASE(regions_in_use_are_apart),
	CASE(expected_follows_what_a_key_needs),
	CASE(first_buffer_is_as_large_as_expected),
	CASE(blocks_of_malloc_count_for_a_key),
	CASE(one_outlier_changes_nothing),
	CASE(the_past_counts_less_and_less),
	CASE(percentile_is_the_program_s),
	CASE(idle_regions_are_given_back_with_the_next_use),
	CASE(no_more_lies_idle_than_asked_for),
	CASE(trim_gives_all_back),
	{.name = "idle_regions_make_room_when_memory_runs_out", .environment = "LIBREGION_HEAP_RANGE=128M",
	 .run = idle_regions_make_room_when_memory_runs_out},
	CASE(release_ends_what_is_in_it),
	CASE(threads_share_a_pool),
	CASE(a_region_may_be_released_by_another_thread),
	CASE(a_forked_child_goes_on_with_the_pool),
	CASE(options_of_its_regions_are_the_program_s),
	{0},
};
