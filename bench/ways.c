/*
 * ways.c: the slow halves of ways.h: finding interfaces that may be preloaded, making and dropping what
 * a thread keeps between extents.
 */
#include "ways.h"
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>

__thread struct ways_thread ways_thread;
struct ways_jemalloc ways_jemalloc;
struct ways_mimalloc ways_mimalloc;

/* Stores the address of the function called `name` where *function is; whether there is one. */
static bool find(void *function, const char *name)
{
	*(void **)function = dlsym(RTLD_DEFAULT, name);
	return *(void **)function != NULL;
}

/* Buffers of 64 KiB, as those of the hand-written bump, and kept as it keeps them. */
void ways_make_region(void)
{
	ways_thread.region = region_create(&(struct region_options){
		.name = "bench", .buffer_size = BUMP_BUFFER, .keep_bytes = (size_t)1 << 40,
	});
	if (!ways_thread.region)
		bench_fail("libregion makes no region");
}

static void drop_region(void)
{
	if (ways_thread.region)
		region_destroy(ways_thread.region);
	ways_thread.region = NULL;
}

bool ways_have_jemalloc(void)
{
	return find(&ways_jemalloc.mallocx, "mallocx") && find(&ways_jemalloc.dallocx, "dallocx") &&
	       find(&ways_jemalloc.mallctl, "mallctl") &&
	       find(&ways_jemalloc.mallctlnametomib, "mallctlnametomib") &&
	       find(&ways_jemalloc.mallctlbymib, "mallctlbymib");
}

void ways_make_arena(void)
{
	unsigned arena;
	size_t size = sizeof(arena), parts = 3;

	if (ways_jemalloc.mallctl("arenas.create", &arena, &size, NULL, 0) ||
	    ways_jemalloc.mallctlnametomib("arena.0.reset", ways_thread.arena_reset, &parts))
		bench_fail("jemalloc makes no arena");
	ways_thread.arena_reset[1] = arena;
	/* MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE: a cache would hold blocks across a reset. */
	ways_thread.arena_flags = (int)((arena + 1) << 20 | 1 << 8);
}

void ways_reset_arena(void)
{
	ways_jemalloc.mallctlbymib(ways_thread.arena_reset, 3, NULL, NULL, NULL, 0);
}

static void drop_arena(void)
{
	char name[40];

	if (!ways_thread.arena_flags)
		return;
	snprintf(name, sizeof(name), "arena.%zu.destroy", ways_thread.arena_reset[1]);
	ways_jemalloc.mallctl(name, NULL, NULL, NULL, 0);
	ways_thread.arena_flags = 0;
}

bool ways_have_mimalloc(void)
{
	return find(&ways_mimalloc.heap_new, "mi_heap_new") &&
	       find(&ways_mimalloc.heap_destroy, "mi_heap_destroy") &&
	       find(&ways_mimalloc.heap_malloc, "mi_heap_malloc");
}

#ifdef BENCH_APR
#include <apr_general.h>
#include <pthread.h>

static void initialize_apr(void)
{
	if (apr_initialize())
		bench_fail("APR doesn't start");
}

void ways_make_pool_parent(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	apr_allocator_t *allocator; /* of the thread's own, so that pools take no lock */

	pthread_once(&once, initialize_apr);
	if (apr_allocator_create(&allocator) ||
	    apr_pool_create_ex(&ways_thread.pool_parent, NULL, NULL, allocator))
		bench_fail("APR makes no pool");
	apr_allocator_owner_set(allocator, ways_thread.pool_parent);
}

static void drop_pool_parent(void)
{
	if (ways_thread.pool_parent)
		apr_pool_destroy(ways_thread.pool_parent);
	ways_thread.pool_parent = NULL;
}
#else
static void drop_pool_parent(void)
{
}
#endif

#ifdef BENCH_TALLOC
static void drop_talloc_pool(void)
{
	talloc_free(ways_thread.talloc_pool);
	ways_thread.talloc_pool = NULL;
}
#else
static void drop_talloc_pool(void)
{
}
#endif

#ifndef BENCH_PMR
static void pmr_drop(void)
{
}
#endif

void ways_end_thread(void)
{
	drop_region();
	bump_end_thread();
	bump_drop(&ways_thread.bump);
	drop_arena();
	drop_pool_parent();
	drop_talloc_pool();
	pmr_drop();
}
