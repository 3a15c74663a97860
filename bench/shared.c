/*
 * shared.c: threads that allocate objects of 8 bytes from one arena, all at the same time, as the
 * benchmark of the Go package memoryArena does: 8 goroutines, 250,000 objects each. Then the first
 * of them resets the arena for all. Also with 16 threads (`contended`: each has 250,000 objects, so more
 * threads have more memory), and with 10 million objects that live at once, however many threads share
 * the work (`live`: so what differs between its rows is what threads cost each other).
 *
 * The ways share what they can share:
 *   shared   a shared region of libregion's: region_alloc() on it, which is a call
 *   local    the same through each thread's region_local(), which is inlined
 *   arena    one jemalloc arena, without the threads' caches: these would hold objects across a reset
 *   sync     std::pmr::synchronized_pool_resource, released
 *   locked   the hand-written bump of bump.h with a mutex around it
 *   atomic   one atomic addition to the cursor of one big buffer, which is memoryArena's own way; the
 *            buffer is as big as it has to be, and can't grow
 *   heap     malloc, and each thread frees its own objects
 *   apart    nothing is shared: each thread has a hand-written bump of its own, inlined. The floor, and
 *            what the caches make of so many objects
 *
 * Threads wait for each other twice in a pass, before and after the reset. That is a fraction of a
 * percent of what a pass of 250,000 objects takes, and the same for all ways.
 */
#include "bench.h"
#include "ways.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define OBJECT_BYTES 8

struct shared_job {
	size_t n;      /* objects of each thread */
	void **blocks; /* n for each thread, where they have to be freed */
};

struct shared_way {
	struct way way; /* alloc() may be called by any thread; extent() isn't used */
	void (*make)(size_t bytes); /* with room for so many, if it has to know */
	void (*join)(void);         /* by each thread, before each pass */
	void (*reset)(void);
	void (*drop)(void);
};

static void nothing(void)
{
}

/* ---- malloc ---------------------------------------------------------------------------------- */

static void heap_make(size_t bytes)
{
	(void)bytes;
}

static const struct shared_way shared_heap = {
	{ "heap", "malloc and free", way_is_always, NULL, malloc, free, false },
	heap_make, nothing, nothing, nothing,
};

/* ---- a shared region ------------------------------------------------------------------------- */

static region_t *shared_one;
static __thread region_t *my_part;

static void region_make(size_t bytes)
{
	shared_one = region_create(&(struct region_options){
		.name = "shared", .shared = 1, .keep_bytes = 2 * bytes,
	});
	if (!shared_one)
		bench_fail("libregion makes no shared region");
}

static void region_join(void)
{
	my_part = region_local(shared_one);
}

static void region_forget(void)
{
	region_reset(shared_one);
}

static void region_drop(void)
{
	region_destroy(shared_one);
}

WAY_INLINE void *shared_take(size_t size)
{
	return region_alloc(shared_one, size);
}

WAY_INLINE void *local_take(size_t size)
{
	return region_alloc(my_part, size);
}

static const struct shared_way shared_shared = {
	{ "shared", "a shared region, reset", way_has_region_objects, NULL, shared_take, NULL, true },
	region_make, nothing, region_forget, region_drop,
};
static const struct shared_way shared_local = {
	{ "local", "a shared region by way of region_local", way_has_region_objects, NULL, local_take, NULL,
	  true },
	region_make, region_join, region_forget, region_drop,
};

/* ---- one atomic cursor ----------------------------------------------------------------------- */

static struct {
	_Alignas(64) _Atomic size_t used;
	_Alignas(64) char *buffer;
	size_t bytes;
} atomic;

static void atomic_make(size_t bytes)
{
	atomic.bytes = bytes;
	atomic.buffer = bench_array(bytes, 1);
	atomic_store(&atomic.used, 0);
}

static void atomic_reset(void)
{
	atomic_store(&atomic.used, 0);
}

static void atomic_drop(void)
{
	bench_array_free(atomic.buffer, atomic.bytes, 1);
}

WAY_INLINE void *atomic_alloc(size_t size)
{
	size_t rounded = (size + BUMP_GRANULE - 1) & ~(BUMP_GRANULE - 1);
	size_t at = atomic_fetch_add_explicit(&atomic.used, rounded, memory_order_relaxed);

	return at + rounded <= atomic.bytes ? atomic.buffer + at : NULL;
}

static const struct shared_way shared_atomic = {
	{ "atomic", "one atomic cursor in one big buffer", way_is_always, NULL, atomic_alloc, NULL, true },
	atomic_make, nothing, atomic_reset, atomic_drop,
};

/* ---- a bump for each thread ------------------------------------------------------------------- */

/* Rewound by its thread, when the next pass begins. */
static void apart_join(void)
{
	bump_rewind(&ways_thread.bump);
}

static const struct shared_way shared_apart = {
	{ "apart", "an inlined bump for each thread", way_is_always, NULL, inlined_alloc, NULL, true },
	heap_make, apart_join, nothing, nothing,
};

/* ---- a bump with a lock ---------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	struct bump bump;
} locked = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void locked_reset(void)
{
	bump_rewind(&locked.bump);
}

static void locked_drop(void)
{
	bump_drop(&locked.bump);
}

WAY_INLINE void *locked_alloc(size_t size)
{
	pthread_mutex_lock(&locked.lock);
	void *block = bump_take(&locked.bump, size);
	pthread_mutex_unlock(&locked.lock);
	return block;
}

static const struct shared_way shared_locked = {
	{ "locked", "a bump allocator with a mutex", way_is_always, NULL, locked_alloc, NULL, true },
	heap_make, nothing, locked_reset, locked_drop,
};

/* ---- one jemalloc arena ---------------------------------------------------------------------- */

static int arena_flags;

static void arena_make(size_t bytes)
{
	(void)bytes;
	ways_make_arena();
	arena_flags = ways_thread.arena_flags;
}

WAY_INLINE void *shared_arena_alloc(size_t size)
{
	return ways_jemalloc.mallocx(size, arena_flags);
}

static const struct shared_way shared_arena = {
	{ "arena", "one jemalloc arena, reset", ways_have_jemalloc, NULL, shared_arena_alloc, NULL, true },
	arena_make, nothing, ways_reset_arena, nothing,
};

/* ---- std::pmr::synchronized_pool_resource ---------------------------------------------------- */

#ifdef BENCH_PMR
#define SHARED_PMR(X) X(sync)

/* In pmr.cc. */
void sync_make(size_t bytes);
void sync_release(void);
void sync_drop(void);
void *sync_take(size_t size);

static const struct shared_way shared_sync = {
	{ "sync", "std::pmr::synchronized_pool_resource, released", way_is_always, NULL, sync_take, NULL, true },
	sync_make, nothing, sync_release, sync_drop,
};
#else
#define SHARED_PMR(X)
#endif

/* ---- passes ---------------------------------------------------------------------------------- */

#define SHARED_WAYS(X) X(heap) X(shared) X(local) X(apart) X(atomic) X(locked) X(arena) SHARED_PMR(X)

WAY_INLINE void run_pass(const struct shared_way *shared, const struct shared_job *job, unsigned thread)
{
	const struct way *way = &shared->way;
	void **blocks = job->blocks + thread * job->n;

	shared->join();
	for (size_t i = 0; i < job->n; i++) {
		uint64_t *block = way->alloc(OBJECT_BYTES);
		*block = i;
		bench_see(block);
		if (way->release)
			blocks[i] = block;
	}
	if (way->release)
		for (size_t i = 0; i < job->n; i++)
			way->release(blocks[i]);
	bench_meet();
	if (thread == 0)
		shared->reset();
	bench_meet();
}

#define DEFINE_PASS(name) \
	static void pass_##name(void *job, unsigned thread) \
	{ \
		run_pass(&shared_##name, job, thread); \
	}
SHARED_WAYS(DEFINE_PASS)

#define PASS_ENTRY(name) { &shared_##name, pass_##name },
static const struct {
	const struct shared_way *shared;
	bench_pass *pass;
} passes[] = { SHARED_WAYS(PASS_ENTRY) };

#define SHARED_ADDRESS(name) &shared_##name.way,
static const struct way *const shared_ways[] = { SHARED_WAYS(SHARED_ADDRESS) NULL };

static void measure(const char *kind, size_t n, unsigned threads)
{
	size_t each = bench_capped(n);
	struct shared_job job = { each, bench_array(each * threads, sizeof(void *)) };

	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++) {
		const struct shared_way *shared = passes[i].shared;
		if (!bench_selected(&shared->way))
			continue;
		shared->make(each * threads * BUMP_GRANULE);
		bench_measure(&(struct bench_row){
			.way = &shared->way, .kind = kind, .n = each, .threads = threads,
			.units = (double)each, .unit = "block",
		}, passes[i].pass, &job);
		shared->drop();
	}
	bench_array_free(job.blocks, each * threads, sizeof(void *));
}

int main(int argc, char **argv)
{
	static const unsigned threads[] = { 1, 2, 8, 16 };

	bench_start(argc, argv, "shared", shared_ways);
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
		measure("contended", 250000, threads[i]);
	measure("live", 10000000, 1);
	measure("live", 10000000 / 16, 16);
	return 0;
}
