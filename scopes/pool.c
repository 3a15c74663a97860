/*
 * pool.c: regions that are used again, sized by what their key has needed lately.
 *
 * For each key a histogram of peaks is kept, four buckets a doubling. Each release adds to one of them,
 * and all are halved after SAMPLES_MOST releases; so the percentile follows what happens, and one outlier
 * weighs what one release weighs. (go-arena sizes by an average, which a single large one spoils.)
 *
 * Regions lie in a pool newest first. Who uses the pool takes out what has lain too long at the old end.
 * Under memory pressure and on malloc_trim() all pools are emptied: a region in a pool is a cache, and no
 * more.
 *
 * The lock guards all pools. Neither memory is allocated nor a region reset or ended while it is held.
 */
#include "pool.h"

#include <errno.h>
#include <string.h>

#define BUCKETS_A_DOUBLING 4u
#define LEAST_LOG2 12u
#define BUCKET_COUNT 96u
#define SAMPLES_MOST 128u

/* A program that takes a key a user gets one histogram for all that come later. */
#define KEYS_MOST 4096u
#define KEY_LISTS 64u

/* So many regions are looked through for one that had the same key. */
#define LOOKS 8

struct sizes {
	struct sizes *next;
	uint64_t key;
	uint32_t samples;
	uint16_t counts[BUCKET_COUNT];
};

struct region_pool {
	struct region_pool *next, **link; /* of all pools */
	struct region_options given;
	unsigned percentile;
	uint32_t idle_ms;
	size_t idle_bytes_most;
	struct region_object *idle; /* newest first */
	size_t out;                 /* regions that haven't been released */
	uint64_t looked_ms;         /* when it was last looked for what has lain too long */
	struct region_pool_stats stats;
	size_t key_count;
	struct sizes others, *keys[KEY_LISTS];
};

static struct pools {
	struct lock lock;
	struct region_pool *all;
} pools;

struct lock *pool_lock(void)
{
	return &pools.lock;
}

/* Histograms. */

static unsigned bucket_of(size_t bytes)
{
	size_t last = bytes ? bytes - 1 : 0;

	if (last >> LEAST_LOG2 == 0)
		return 0;
	unsigned log2 = class_log2_floor(last);
	unsigned bucket = 1 + (log2 - LEAST_LOG2) * BUCKETS_A_DOUBLING + (unsigned)(last >> (log2 - 2) & 3);
	return bucket < BUCKET_COUNT ? bucket : BUCKET_COUNT - 1;
}

/* The most that falls into a bucket. */
static size_t bucket_bytes(unsigned bucket)
{
	if (bucket == 0)
		return (size_t)1 << LEAST_LOG2;
	bucket--;
	return (size_t)(bucket % BUCKETS_A_DOUBLING + 5) << (bucket / BUCKETS_A_DOUBLING + LEAST_LOG2 - 2);
}

static void add_sample(struct sizes *sizes, size_t bytes)
{
	sizes->counts[bucket_of(bytes)] += 16;
	sizes->samples += 16;
	if (sizes->samples < 16 * SAMPLES_MOST)
		return;
	sizes->samples = 0;
	for (unsigned i = 0; i < BUCKET_COUNT; i++)
		sizes->samples += sizes->counts[i] /= 2;
}

static size_t percentile_of(const struct sizes *sizes, unsigned percentile)
{
	uint64_t wanted = ((uint64_t)sizes->samples * percentile + 99) / 100, seen = 0;

	for (unsigned i = 0; sizes->samples > 0 && i < BUCKET_COUNT; i++) {
		seen += sizes->counts[i];
		if (seen >= wanted)
			return bucket_bytes(i);
	}
	return 0;
}

static struct sizes **list_of(struct region_pool *pool, uint64_t key)
{
	return &pool->keys[key * 0x9e3779b97f4a7c15u >> 58];
}

static struct sizes *find_sizes(struct region_pool *pool, uint64_t key)
{
	struct sizes *sizes = *list_of(pool, key);

	while (sizes && sizes->key != key)
		sizes = sizes->next;
	return sizes || pool->key_count < KEYS_MOST ? sizes : &pool->others;
}

static size_t expected_bytes(struct region_pool *pool, uint64_t key)
{
	const struct sizes *sizes = find_sizes(pool, key);

	return sizes ? percentile_of(sizes, pool->percentile) : 0;
}

/* Makes sure that the key has a histogram, as far as there is memory. */
static void make_sizes(struct region_pool *pool, uint64_t key)
{
	lock_acquire(&pools.lock);
	bool is_known = find_sizes(pool, key) != NULL;
	lock_release(&pools.lock);
	struct sizes *sizes = is_known ? NULL : heap_alloc(sizeof(*sizes));
	if (!sizes)
		return;
	memset(sizes, 0, sizeof(*sizes));
	lock_acquire(&pools.lock);
	is_known = find_sizes(pool, key) != NULL;
	if (!is_known) {
		sizes->key = key;
		sizes->next = *list_of(pool, key);
		*list_of(pool, key) = sizes;
		pool->key_count++;
	}
	lock_release(&pools.lock);
	if (is_known)
		heap_free(sizes, "region_pool_release");
}

/* Regions that lie in the pool. */

static void take_out(struct region_pool *pool, struct region_object **link)
{
	struct region_object *region = *link;

	*link = region->next;
	pool->stats.idle--;
	pool->stats.idle_bytes -= region->held_bytes;
}

/* The newest that had the same key, or else the newest. */
static struct region_object *take_idle(struct region_pool *pool, uint64_t key)
{
	struct region_object **link = &pool->idle, *region;

	for (int i = 0; *link && (*link)->key != key && i < LOOKS; i++)
		link = &(*link)->next;
	if (!*link || (*link)->key != key)
		link = &pool->idle;
	region = *link;
	if (region)
		take_out(pool, link);
	return region;
}

/* Takes those out that have lain since before `since_ms`, or that are too many; a list of them. */
static struct region_object *take_old(struct region_pool *pool, uint64_t since_ms, size_t bytes_most)
{
	struct region_object **link = &pool->idle, *old;
	size_t bytes = 0;

	while (*link && (*link)->idle_since_ms >= since_ms && bytes + (*link)->held_bytes <= bytes_most) {
		bytes += (*link)->held_bytes;
		link = &(*link)->next;
	}
	old = *link;
	for (struct region_object *region = old; region; region = region->next)
		pool->stats.trimmed++;
	while (*link)
		take_out(pool, link);
	return old;
}

/* The links of what was taken out are still there. */
static size_t end_all(struct region_object *list)
{
	size_t bytes = 0;

	for (struct region_object *region = list, *next; region; region = next) {
		next = region->next;
		bytes += region->held_bytes;
		region->pool = NULL;
		region->state = OBJECT_LIVE;
		object_destroy(region);
	}
	return bytes;
}

/* What has lain too long, looked for a few times in that period; and what is too much. */
static struct region_object *take_surplus(struct region_pool *pool)
{
	uint64_t now_ms = os_clock_ms();
	bool is_due = now_ms - pool->looked_ms >= pool->idle_ms / 4;

	if (!is_due && pool->stats.idle_bytes <= pool->idle_bytes_most)
		return NULL;
	pool->looked_ms = now_ms;
	return take_old(pool, now_ms > pool->idle_ms ? now_ms - pool->idle_ms : 0, pool->idle_bytes_most);
}

/* The interface. */

region_pool_t *region_pool_create(const struct region_pool_options *given)
{
	struct region_pool *pool;

	if (given && (given->region.shared || given->region.parent || given->percentile > 100)) {
		errno = EINVAL;
		return NULL;
	}
	pool = scopes_start() ? heap_alloc(sizeof(*pool)) : NULL;
	if (!pool) {
		errno = ENOMEM;
		return NULL;
	}
	*pool = (struct region_pool){.percentile = 90, .idle_ms = 10000, .idle_bytes_most = (size_t)64 << 20};
	if (given) {
		pool->given = given->region;
		pool->given.name = pool->given.name ? pool->given.name : given->name;
		pool->percentile = given->percentile ? given->percentile : pool->percentile;
		pool->idle_ms = given->idle_ms ? given->idle_ms : pool->idle_ms;
		pool->idle_bytes_most = given->idle_bytes ? given->idle_bytes : pool->idle_bytes_most;
	}
	lock_acquire(&pools.lock);
	pool->next = pools.all;
	if (pool->next)
		pool->next->link = &pool->next;
	pool->link = &pools.all;
	pools.all = pool;
	lock_release(&pools.lock);
	return pool;
}

region_t *region_pool_acquire(region_pool_t *pool, uint64_t key)
{
	lock_acquire(&pools.lock);
	struct region_object *region = take_idle(pool, key), *surplus = take_surplus(pool);
	size_t expected = expected_bytes(pool, key);
	lock_release(&pools.lock);

	end_all(surplus);
	bool is_new = !region;
	if (is_new)
		region = object_make(&pool->given, REGION_CURSOR_VERSION);
	if (!region)
		return NULL;
	region->pool = pool;
	region->key = key;
	object_revive(region, expected);
	lock_acquire(&pools.lock);
	pool->stats.acquired++;
	pool->stats.created += is_new;
	pool->out++;
	lock_release(&pools.lock);
	return region;
}

static bool is_misused(const struct region_pool *pool, const struct region_object *region)
{
	if (region->pool == pool)
		return false;
	report_misuse("region_pool_release(%p): region \"%s\" isn't of this pool", (const void *)region,
	              region->name);
	errno = EINVAL;
	return true;
}

void region_pool_release(region_pool_t *pool, region_t *given)
{
	struct region_object *region = object_whole(given, "region_pool_release"), *surplus;

	if (!region || is_misused(pool, region) || !object_may_be_reset(region, "region_pool_release"))
		return;
	size_t peak = object_peak(region);
	make_sizes(pool, region->key);
	lock_acquire(&pools.lock);
	struct sizes *sizes = find_sizes(pool, region->key);
	if (sizes)
		add_sample(sizes, peak);
	size_t expected = expected_bytes(pool, region->key);
	lock_release(&pools.lock);

	/* At least the buffer that it begins with. */
	size_t least_bytes = (size_t)1 << region->policy.size_log2;
	size_t keep_bytes = expected * 2 > least_bytes ? expected * 2 : least_bytes;
	bool is_capped = pool->given.keep_bytes && keep_bytes > pool->given.keep_bytes;
	object_reset(region, is_capped ? pool->given.keep_bytes : keep_bytes);
	object_lay_aside(region);
	lock_acquire(&pools.lock);
	region->idle_since_ms = os_clock_ms();
	region->next = pool->idle;
	pool->idle = region;
	pool->stats.idle++;
	pool->stats.idle_bytes += region->held_bytes;
	pool->stats.released++;
	pool->out--;
	surplus = take_surplus(pool);
	lock_release(&pools.lock);
	end_all(surplus);
}

size_t region_pool_expected(region_pool_t *pool, uint64_t key)
{
	lock_acquire(&pools.lock);
	size_t bytes = expected_bytes(pool, key);
	lock_release(&pools.lock);
	return bytes;
}

size_t region_pool_trim(region_pool_t *pool)
{
	lock_acquire(&pools.lock);
	struct region_object *old = take_old(pool, UINT64_MAX, 0);
	lock_release(&pools.lock);
	return end_all(old);
}

void region_pool_stats_read(region_pool_t *pool, struct region_pool_stats *stats)
{
	lock_acquire(&pools.lock);
	*stats = pool->stats;
	lock_release(&pools.lock);
}

static void free_sizes(struct region_pool *pool)
{
	for (unsigned i = 0; i < KEY_LISTS; i++)
		for (struct sizes *sizes = pool->keys[i], *next; sizes; sizes = next) {
			next = sizes->next;
			heap_free(sizes, "region_pool_destroy");
		}
}

void region_pool_destroy(region_pool_t *pool)
{
	if (!pool)
		return;
	lock_acquire(&pools.lock);
	size_t out = pool->out;
	if (out == 0) {
		*pool->link = pool->next;
		if (pool->next)
			pool->next->link = pool->link;
	}
	lock_release(&pools.lock);
	if (out > 0) {
		report_misuse("region_pool_destroy(%p): %zu regions haven't been released", (void *)pool, out);
		errno = EINVAL;
		return;
	}
	region_pool_trim(pool);
	free_sizes(pool);
	heap_free(pool, "region_pool_destroy");
}

/* All pools. */

void pools_trim(void)
{
	struct region_object *old = NULL;

	/* Asked without the lock, as a hint: most programs have no pool. */
	if (!__atomic_load_n(&pools.all, __ATOMIC_RELAXED))
		return;
	do {
		lock_acquire(&pools.lock);
		old = NULL;
		for (struct region_pool *pool = pools.all; pool && !old; pool = pool->next)
			old = take_old(pool, UINT64_MAX, 0);
		lock_release(&pools.lock);
		end_all(old);
	} while (old);
}
