/*
 * ways.h: the ways to get memory that the benchmarks compare.
 *
 * A way has an *extent*: a call during which blocks are allocated, and at whose end they may go
 * wholesale. For libregion that is a scope; for others it is an arena, a heap or a pool made or
 * emptied around the call, or nothing at all. One binary holds all ways. Which of them are
 * available is decided when it runs, by what is preloaded: region_do() is a weak reference,
 * jemalloc's and mimalloc's own interfaces are looked up by name.
 *
 * Each way is a constant, and the code that uses one is always inlined with that constant,
 * through the lists of names below: no call through a pointer is left in a loop that is timed,
 * other than those that a program written for that interface would make through its PLT.
 */
#ifndef WAYS_H
#define WAYS_H

#include "bump.h"

#define REGION_OPTIONAL
#include "region.h"

#include <obstack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#ifdef BENCH_APR
#include <apr_pools.h>
#endif
#ifdef BENCH_TALLOC
#include <talloc.h>
#endif

#define WAY_INLINE static inline __attribute__((always_inline))

struct way {
	const char *name;
	const char *help;
	bool (*available)(void);
	void (*extent)(void (*fn)(void *), void *arg); /* calls fn(arg) */
	void *(*alloc)(size_t size);
	void (*release)(void *block); /* NULL: blocks can't be freed one by one */
	bool wholesale;               /* the end of the extent takes what wasn't freed */
};

/* X(name) for the ways that go through malloc and free, then for all. */
#define WAYS_OF_MALLOC(X) X(heap) X(do) X(unfreed) X(none)
#define WAYS(X) \
	WAYS_OF_MALLOC(X) X(region) X(bump) X(inlined) X(ahead) X(obstack) X(arena) X(miheap) \
	WAYS_APR(X) WAYS_TALLOC(X) WAYS_PMR(X)

#define WAY_ADDRESS(way) &way_##way,

/* Defines fn_way(), the bench_pass that calls fn(job) in one extent of the way. */
#define WAY_PASS(way, fn) \
	static void fn##_##way(void *job, unsigned thread) \
	{ \
		(void)thread; \
		way_##way.extent(fn, job); \
	}

/* ---- malloc and free, outside and inside of scopes ------------------------------------------- */

WAY_INLINE bool way_is_always(void)
{
	return true;
}

WAY_INLINE bool way_has_regions(void)
{
	return region_do_with != NULL;
}

WAY_INLINE void heap_extent(void (*fn)(void *), void *arg)
{
	fn(arg);
}

WAY_INLINE void do_extent(void (*fn)(void *), void *arg)
{
	region_do(fn, arg);
}

/*
 * No names: each function that is called is a scope of its own, and what libregion learns of one (that its
 * blocks fade, say) changes nothing for the others.
 */
WAY_INLINE void reachable_extent(void (*fn)(void *), void *arg)
{
	static const struct region_options options = { .fade = REGION_FADE_REACHABLE };

	region_do_with(&options, fn, arg);
}

WAY_INLINE void unfreed_extent(void (*fn)(void *), void *arg)
{
	static const struct region_options options = { .fade = REGION_FADE_UNFREED };

	region_do_with(&options, fn, arg);
}

WAY_INLINE void none_extent(void (*fn)(void *), void *arg)
{
	static const struct region_options options = { .fade = REGION_FADE_NONE };

	region_do_with(&options, fn, arg);
}

static const struct way way_heap = {
	"heap", "malloc and free", way_is_always, heap_extent, malloc, free, false,
};
static const struct way way_do = {
	"do", "malloc and free in region_do, default options",
	way_has_regions, do_extent, malloc, free, false,
};
static const struct way way_reachable = {
	"reachable", "malloc and free in a scope, policy reachable",
	way_has_regions, reachable_extent, malloc, free, false,
};

static const struct way way_unfreed = {
	"unfreed", "malloc and free in a scope, policy unfreed",
	way_has_regions, unfreed_extent, malloc, free, false,
};
static const struct way way_none = {
	"none", "malloc and free in a scope, policy none",
	way_has_regions, none_extent, malloc, free, true,
};

/* ---- per-thread state of the other ways ------------------------------------------------------ */

struct ways_thread {
	region_t *region;
	struct bump bump;
	struct obstack obstack;
	int arena_flags; /* for mallocx(); 0 until the thread's arena exists */
	size_t arena_reset[3];
	void *miheap;
#ifdef BENCH_APR
	apr_pool_t *pool_parent; /* keeps the memory of pools between extents */
	apr_pool_t *pool;
#endif
	void *talloc;      /* the context of this extent */
	void *talloc_pool; /* kept between extents */
};
extern __thread struct ways_thread ways_thread;

/* Gives back what the calling thread keeps between extents. */
void ways_end_thread(void);

/* ---- a region as an object, reset: the bump is inlined from region_objects.h ------------------ */

WAY_INLINE bool way_has_region_objects(void)
{
	return region_create_for != NULL;
}

void ways_make_region(void);

WAY_INLINE void region_extent(void (*fn)(void *), void *arg)
{
	if (!ways_thread.region)
		ways_make_region();
	fn(arg);
	region_reset(ways_thread.region);
}

WAY_INLINE void *region_take(size_t size)
{
	return region_alloc(ways_thread.region, size);
}

static const struct way way_region = {
	"region", "region_alloc from a region, reset",
	way_has_region_objects, region_extent, region_take, NULL, true,
};

/* ---- the hand-written bump ------------------------------------------------------------------- */

WAY_INLINE void bump_extent(void (*fn)(void *), void *arg)
{
	fn(arg);
	bump_reset();
}

WAY_INLINE void inlined_extent(void (*fn)(void *), void *arg)
{
	fn(arg);
	bump_rewind(&ways_thread.bump);
}

WAY_INLINE void *inlined_alloc(size_t size)
{
	return bump_take(&ways_thread.bump, size);
}

static const struct way way_bump = {
	"bump", "a bump allocator in libbump.so; its free counts",
	way_is_always, bump_extent, bump_alloc, bump_free, true,
};
static const struct way way_inlined = {
	"inlined", "the same bump, inlined",
	way_is_always, inlined_extent, inlined_alloc, NULL, true,
};

/*
 * The inlined bump as far as memory lets it go: it asks for the next block's line beforehand. Where it
 * takes longer with more threads, they share the way to memory, not anything of an allocator's.
 */
WAY_INLINE void *ahead_alloc(size_t size)
{
	char *block = inlined_alloc(size);

	__builtin_prefetch(ways_thread.bump.cursor, 1, 3);
	return block;
}

static const struct way way_ahead = {
	"ahead", "the same, asking for the next line beforehand",
	way_is_always, inlined_extent, ahead_alloc, NULL, true,
};

/* ---- obstack: chunks of 4 KiB from the malloc that is measured ------------------------------- */

#define obstack_chunk_alloc malloc
#define obstack_chunk_free free

WAY_INLINE void obstack_extent(void (*fn)(void *), void *arg)
{
	obstack_init(&ways_thread.obstack);
	fn(arg);
	obstack_free(&ways_thread.obstack, NULL);
}

WAY_INLINE void *obstack_take(size_t size)
{
	return obstack_alloc(&ways_thread.obstack, size);
}

static const struct way way_obstack = {
	"obstack", "glibc's obstack over malloc",
	way_is_always, obstack_extent, obstack_take, NULL, true,
};

/* ---- jemalloc: an arena for each thread, reset wholesale ------------------------------------- */

/* Looked up once, in ways.c: jemalloc's interface, or NULLs. */
extern struct ways_jemalloc {
	void *(*mallocx)(size_t size, int flags);
	void (*dallocx)(void *block, int flags);
	int (*mallctl)(const char *name, void *old, size_t *old_size, void *new, size_t new_size);
	int (*mallctlnametomib)(const char *name, size_t *mib, size_t *mib_size);
	int (*mallctlbymib)(const size_t *mib, size_t mib_size, void *old, size_t *old_size, void *new,
	                    size_t new_size);
} ways_jemalloc;

bool ways_have_jemalloc(void);
void ways_make_arena(void);
void ways_reset_arena(void);

WAY_INLINE void arena_extent(void (*fn)(void *), void *arg)
{
	if (!ways_thread.arena_flags)
		ways_make_arena();
	fn(arg);
	ways_reset_arena();
}

WAY_INLINE void *arena_alloc(size_t size)
{
	return ways_jemalloc.mallocx(size, ways_thread.arena_flags);
}

static const struct way way_arena = {
	"arena", "a jemalloc arena, reset", ways_have_jemalloc, arena_extent, arena_alloc, NULL, true,
};

/* ---- mimalloc: a heap for each extent, destroyed --------------------------------------------- */

extern struct ways_mimalloc {
	void *(*heap_new)(void);
	void (*heap_destroy)(void *heap);
	void *(*heap_malloc)(void *heap, size_t size);
} ways_mimalloc;

bool ways_have_mimalloc(void);

WAY_INLINE void miheap_extent(void (*fn)(void *), void *arg)
{
	ways_thread.miheap = ways_mimalloc.heap_new();
	fn(arg);
	ways_mimalloc.heap_destroy(ways_thread.miheap);
}

WAY_INLINE void *miheap_alloc(size_t size)
{
	return ways_mimalloc.heap_malloc(ways_thread.miheap, size);
}

static const struct way way_miheap = {
	"miheap", "mi_heap_new, mi_heap_destroy",
	ways_have_mimalloc, miheap_extent, miheap_alloc, NULL, true,
};

/* ---- APR: a pool for each extent, below one for the thread that keeps the memory ------------- */

#ifdef BENCH_APR
#define WAYS_APR(X) X(apr)

void ways_make_pool_parent(void);

WAY_INLINE void apr_extent(void (*fn)(void *), void *arg)
{
	if (!ways_thread.pool_parent)
		ways_make_pool_parent();
	apr_pool_create(&ways_thread.pool, ways_thread.pool_parent);
	fn(arg);
	apr_pool_destroy(ways_thread.pool);
}

WAY_INLINE void *apr_take(size_t size)
{
	return apr_palloc(ways_thread.pool, size);
}

static const struct way way_apr = {
	"apr", "an APR pool, made and destroyed",
	way_is_always, apr_extent, apr_take, NULL, true,
};
#else
#define WAYS_APR(X)
#endif

/* ---- talloc: a context for each extent; or a talloc_pool for the thread, emptied ------------- */

#ifdef BENCH_TALLOC
#define WAYS_TALLOC(X) X(talloc) X(tpool)

#define TALLOC_POOL_BYTES ((size_t)1 << 20) /* what doesn't fit comes from malloc */

WAY_INLINE void talloc_extent(void (*fn)(void *), void *arg)
{
	ways_thread.talloc = talloc_new(NULL);
	fn(arg);
	talloc_free(ways_thread.talloc);
}

WAY_INLINE void tpool_extent(void (*fn)(void *), void *arg)
{
	if (!ways_thread.talloc_pool)
		ways_thread.talloc_pool = talloc_pool(NULL, TALLOC_POOL_BYTES);
	ways_thread.talloc = ways_thread.talloc_pool;
	fn(arg);
	talloc_free_children(ways_thread.talloc_pool);
}

WAY_INLINE void *talloc_take(size_t size)
{
	return talloc_size(ways_thread.talloc, size);
}

static const struct way way_talloc = {
	"talloc", "a talloc context, made and freed",
	way_is_always, talloc_extent, talloc_take, NULL, true,
};
static const struct way way_tpool = {
	"tpool", "a talloc pool of 1 MiB, emptied",
	way_is_always, tpool_extent, talloc_take, NULL, true,
};
#else
#define WAYS_TALLOC(X)
#endif

/* ---- std::pmr::monotonic_buffer_resource with a first buffer of 64 KiB, released ------------- */

#ifdef BENCH_PMR
#define WAYS_PMR(X) X(pmr)

/* In pmr.cc: a virtual call, as std::pmr's containers make it. */
void pmr_begin(void);
void pmr_release(void);
void pmr_drop(void);
void *pmr_take(size_t size);

WAY_INLINE void pmr_extent(void (*fn)(void *), void *arg)
{
	pmr_begin();
	fn(arg);
	pmr_release();
}

static const struct way way_pmr = {
	"pmr", "std::pmr::monotonic_buffer_resource over malloc, released",
	way_is_always, pmr_extent, pmr_take, NULL, true,
};
#else
#define WAYS_PMR(X)
#endif

#endif
