/*
 * pool.c: pools of regions: what lies ready is used again, sized by what its key has needed, and given back.
 */
#include <errno.h>
#include <stdlib.h>

#include "scopes/pool.h"
#include "unit.h"

#define KIB ((size_t)1 << 10)

static region_pool_t *make(size_t idle_bytes, unsigned idle_ms)
{
	region_pool_t *pool = region_pool_create(&(struct region_pool_options){
		.name = "pooled", .region.buffer_size = 64 << 10, .idle_bytes = idle_bytes, .idle_ms = idle_ms,
	});

	require(pool != NULL, "no pool");
	return pool;
}

static struct region_pool_stats stats_of_pool(region_pool_t *pool)
{
	struct region_pool_stats stats;

	region_pool_stats_read(pool, &stats);
	return stats;
}

static void use(region_pool_t *pool, uint64_t key, size_t bytes)
{
	region_t *region = region_pool_acquire(pool, key);

	require(region && region_len(region) == 0, "%zu", region_len(region));
	for (size_t i = 0; i < bytes / KIB; i++)
		memset(region_alloc(region, KIB), 1, KIB);
	region_pool_release(pool, region);
}

Test(pool, a_region_is_used_again)
{
	scopes_begin();
	region_pool_t *pool = make(0, 0);
	region_t *first = region_pool_acquire(pool, 1);
	region_pool_release(pool, first);
	for (int i = 0; i < 100; i++) {
		region_t *region = region_pool_acquire(pool, 1);
		require(region == first, "%d", i);
		region_alloc(region, 1000);
		region_pool_release(pool, region);
	}
	struct region_pool_stats stats = stats_of_pool(pool);
	require(stats.acquired == 101 && stats.released == 101 && stats.created == 1 && stats.idle == 1, "%zu",
	        (size_t)stats.created);
	region_pool_destroy(pool);
	require(first->at.id == 0, "not ended");
}

Test(pool, sizes_follow_the_percentile_of_each_key_and_not_its_outliers)
{
	scopes_begin();
	region_pool_t *pool = make(0, 0);
	require(region_pool_expected(pool, 1) == 0, "%zu", region_pool_expected(pool, 1));
	for (int i = 0; i < 100; i++) {
		use(pool, 1, 500 * KIB);
		use(pool, 2, 10 * KIB);
		if (i % 20 == 0)
			use(pool, 1, 20 * MIB);
	}
	size_t large = region_pool_expected(pool, 1), small = region_pool_expected(pool, 2);
	require(large >= 500 * KIB && large <= 640 * KIB, "%zu", large);
	require(small >= 10 * KIB && small <= 13 * KIB, "%zu", small);
	/* All of it fits into the first buffer. */
	region_t *region = region_pool_acquire(pool, 1);
	struct span *first = region->newest;
	for (int i = 0; i < 500; i++)
		region_alloc(region, KIB);
	require(region->newest == first, "another buffer");
	region_pool_release(pool, region);
	/* What was is forgotten in time. */
	for (int i = 0; i < 500; i++)
		use(pool, 1, 30 * KIB);
	large = region_pool_expected(pool, 1);
	require(large <= 40 * KIB, "%zu", large);
	region_pool_destroy(pool);
}

Test(pool, an_outlier_gives_its_buffers_back)
{
	scopes_begin();
	region_pool_t *pool = make(0, 0);
	for (int i = 0; i < 20; i++)
		use(pool, 1, 100 * KIB);
	use(pool, 1, 30 * MIB);
	require(stats_of_pool(pool).idle_bytes <= 256 * KIB, "%zu", stats_of_pool(pool).idle_bytes);
	region_pool_destroy(pool);
}

Test(pool, idle_regions_end_when_there_are_too_many_or_they_lie_too_long)
{
	region_t *regions[64];

	scopes_begin();
	region_pool_t *pool = make(MIB, 40);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 64; i++) {
			regions[i] = region_pool_acquire(pool, 1);
			memset(region_alloc(regions[i], 60 * KIB), 1, 60 * KIB);
		}
		for (int i = 0; i < 64; i++)
			region_pool_release(pool, regions[i]);
		require(stats_of_pool(pool).idle_bytes <= MIB, "%zu", stats_of_pool(pool).idle_bytes);
		require(stats_of_pool(pool).trimmed >= 40, "%zu", (size_t)stats_of_pool(pool).trimmed);
	}
	usleep(100000);
	use(pool, 1, KIB);
	require(stats_of_pool(pool).idle == 1, "%zu", stats_of_pool(pool).idle);
	region_pool_destroy(pool);
}

Test(pool, a_trim_empties_all_pools)
{
	scopes_begin();
	region_pool_t *pool = make(0, 0), *other = make(0, 0);
	use(pool, 1, 100 * KIB);
	use(other, 1, 100 * KIB);
	shim_trim(0);
	require(stats_of_pool(pool).idle == 0 && stats_of_pool(other).idle_bytes == 0, "by shim_trim");
	use(pool, 1, 100 * KIB);
	require(region_pool_trim(pool) > 0 && stats_of_pool(pool).idle == 0, "by region_pool_trim");
	region_pool_destroy(pool);
	region_pool_destroy(other);
}

Test(pool, many_keys_are_bounded)
{
	scopes_begin();
	region_pool_t *pool = make(0, 0);
	for (uint64_t key = 0; key < 6000; key++)
		use(pool, key * 977, 3 * KIB);
	require(region_pool_expected(pool, 977) == 4 * KIB, "%zu", region_pool_expected(pool, 977));
	require(region_pool_expected(pool, 1) == 4 * KIB, "%zu", region_pool_expected(pool, 1));
	region_pool_destroy(pool);
}

static void release_twice(region_pool_t *pool, region_t *region)
{
	region_pool_release(pool, region);
	region_pool_release(pool, region);
}

Test(pool, misuse_is_one_line_each)
{
	static struct capture capture;

	scopes_begin();
	region_pool_t *pool = make(0, 0), *other = make(0, 0);
	for (int row = 0; row < 6; row++) {
		region_t *region = region_pool_acquire(pool, 1);
		capture_begin(&capture);
		switch (row) {
		case 0: release_twice(pool, region); break;
		case 1: region_pool_release(other, region); break;
		case 2: region_destroy(region); break;
		case 3: region_release(region); break;
		case 4: region_pool_destroy(pool); break;
		case 5: region_pool_release(pool, region); region_alloc(region, 10); break;
		}
		static const char *const says[] = {
			"has been released", "isn't of this pool", "belongs to a pool", "belongs to a pool",
			"1 regions haven't been released", "has been released",
		};
		const char *line = capture_end(&capture);
		require(count_lines(line) == 1 && strstr(line, says[row]), "row %d: %s", row, line);
		if (row != 0 && row != 5)
			region_pool_release(pool, region);
	}
	require(stats_of_pool(pool).idle == 1, "%zu", stats_of_pool(pool).idle);
	region_pool_destroy(pool);
	region_pool_destroy(other);
	errno = 0;
	pool = region_pool_create(&(struct region_pool_options){.region.shared = 1});
	require(!pool && errno == EINVAL, "%d", errno);
}
