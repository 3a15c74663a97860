/*
 * region.h: region scopes for C.
 *
 * A scope is the dynamic extent of one call. What that call allocates, on the thread that makes it,
 * comes from the thread's own arena and goes back wholesale when the call returns. Nothing is passed
 * around: callees, libraries and strdup() inside libc take part unchanged.
 *
 *     static void handle(void *request) { ... malloc, strdup, free as ever ... }
 *     region_do(handle, request);
 *
 * Words used here: a *region* is a set of buffers with one lifetime; a *scope* is the extent of a call
 * during which a region is the thread's current one; a block *fades* when it outlives the scope it was
 * allocated in. A faded block is an ordinary heap block from then on: any thread may free or realloc
 * it, once.
 *
 * What must hold for the caller:
 *   - Every function here may be called from any thread, at any time, except from a signal handler.
 *   - A scope belongs to the thread that entered it. A new thread starts outside every scope.
 *   - free() and realloc() go by the pointer, never by the current scope.
 *   - No function here ever makes an allocation fail that malloc() could have served.
 *
 * Regions as objects, where the program says which region a block comes from, are in region_objects.h,
 * which this header includes.
 *
 * The model is Go's memory regions proposal (golang/go #70257); region_copy_out is Go's arena.Clone
 * (#51317); region_on_exit follows APR's pool cleanups.
 */
#ifndef REGION_H
#define REGION_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define REGION_VERSION_MAJOR 0
#define REGION_VERSION_MINOR 1
#define REGION_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/*
 * With REGION_OPTIONAL defined before the include, every function is a weak reference: the program
 * links without libregion, and runs with or without it preloaded. Without it, region_do(fn, arg) is
 * fn(arg), enter and leave do nothing, and the questions answer "no scope"; region_copy_out,
 * region_on_exit, the statistics and regions as objects have no such form: test their address before
 * calling them (that of region_create_for stands for all of region_objects.h).
 */
#ifdef REGION_OPTIONAL
#define REGION_API extern __attribute__((weak))
#else
#define REGION_API extern __attribute__((visibility("default")))
#endif

/* What happens at the end of a scope to the blocks that were allocated in it and never freed. */
enum region_fade {
	REGION_FADE_DEFAULT = 0, /* the default of the process: REGION_FADE_REACHABLE */
	REGION_FADE_UNFREED,     /* they fade: they stay valid until somebody frees them */
	REGION_FADE_REACHABLE,   /* those reachable from outside fade, the rest is reclaimed, some time */
	REGION_FADE_NONE,        /* nothing fades but what region_keep() marked; the rest is reclaimed */
};

typedef struct region_object region_t; /* region_objects.h */

/*
 * How a scope or a region is set up. A member that is zero takes the process's default, which the
 * LIBREGION_* environment variables set. `{0}` is all defaults. LIBREGION_FADE overrides `fade`
 * everywhere.
 */
struct region_options {
	const char *name;      /* for reports and statistics; must stay valid until the process ends */
	enum region_fade fade; /* see above */
	size_t buffer_size;    /* bytes a buffer; rounded up to a power of two, 64 KiB to 16 MiB */
	size_t buffer_count;   /* buffers made ready when the first one is needed */
	size_t limit_bytes;    /* bytes of buffers it may hold before the general heap serves */
	/* Of regions as objects; scopes leave them unread. */
	unsigned growth;       /* a new buffer has so many percent of the last, 100 to 1000; default: of a
	                          size that keeps the newest a small part of all */
	int shared;            /* not 0: any thread may allocate from it at any time */
	size_t keep_bytes;     /* bytes of buffers that region_reset() keeps; default 16 MiB */
	region_t *parent;      /* it ends with this one */
};

/* Calls fn(arg) in a scope of its own, with the default options. */
REGION_API void region_do(void (*fn)(void *), void *arg);

/* Calls fn(arg) in a scope of its own, set up by *options (not used after the call returns). */
REGION_API void region_do_with(const struct region_options *options, void (*fn)(void *), void *arg);

/* Calls fn(arg) with the general heap. A region_do() inside it opens a scope again. */
REGION_API void region_ignore(void (*fn)(void *), void *arg);

/*
 * For code that can't be a callback: the extent between enter and leave. The caller provides the
 * handle, and owns it until region_leave(). A handle that lives on the stack also ends its scope when
 * its frame is left in any other way (longjmp, an exception), at the latest when the thread next
 * enters a scope or its buffer runs out. A handle elsewhere is left only by region_leave() or by the
 * end of an enclosing scope. Leaving twice, or on another thread, is reported and changes nothing.
 */
struct region_scope {
	void *record;    /* libregion's */
	uint64_t serial; /* libregion's */
};

REGION_API void region_enter(struct region_scope *scope);
REGION_API void region_enter_with(struct region_scope *scope, const struct region_options *options);
REGION_API void region_leave(struct region_scope *scope);

/*
 * Marks the block at p so that it outlives its scope, in place, whatever the fade policy. Returns p.
 * p may be NULL, or any block of malloc's: outside a scope there is nothing to do. The owner of the
 * pointer calls it, not a thread that might be freeing it.
 */
REGION_API void *region_keep(void *p);

/*
 * A copy of the block at p, all of its usable size, on the general heap: it outlives every scope.
 * NULL with errno ENOMEM when the system is out of memory; NULL for NULL.
 */
REGION_API void *region_copy_out(const void *p);

/*
 * Calls fn(arg) when the calling thread's innermost scope ends, however it ends, last in first out,
 * before its memory is reclaimed. 0, or -1 with errno EINVAL outside every scope, ENOMEM when the
 * system is out of memory. Not called when the process exits inside the scope.
 */
REGION_API int region_on_exit(void (*fn)(void *), void *arg);

/* How many scopes the calling thread is in; region_ignore() counts as none for its extent. */
REGION_API unsigned region_depth(void);

/* 1 if p points into a live block of the calling thread's innermost scope, else 0. Any p will do. */
REGION_API int region_owns(const void *p);

/*
 * The name of the open scope, of whichever thread, that the block at p was allocated in, or NULL: p is
 * on the general heap, has faded, or isn't libregion's. An open scope without a name is "scope".
 */
REGION_API const char *region_name_of(const void *p);

/*
 * Statistics, one line each: X(member, unit, help). A total is the sum over threads and scopes, except
 * peak_bytes and longest_pause_ns, which are the largest. Counted at the edges of scopes and buffers, never
 * on the hot path, so what an open scope has done shows when it ends. Under the policy `none` nobody looks
 * at what is reclaimed: blocks are then counted only if LIBREGION_STATS is set. Making a region as an
 * object counts as entering a scope, and so does each region_within() of it.
 */
#define REGION_STATS_MAP(X) \
	X(scopes_entered, "scopes", "scopes entered") \
	X(scopes_abandoned, "scopes", "scopes ended by longjmp, an exception or the thread's end") \
	X(blocks_allocated, "blocks", "blocks served from buffers") \
	X(bytes_allocated, "bytes", "bytes served from buffers") \
	X(blocks_freed, "blocks", "blocks freed inside their scope") \
	X(bytes_freed, "bytes", "bytes freed inside their scope") \
	X(blocks_faded, "blocks", "blocks that outlived their scope") \
	X(bytes_faded, "bytes", "bytes that outlived their scope") \
	X(blocks_reclaimed, "blocks", "unfreed blocks reclaimed wholesale at the end of their scope") \
	X(bytes_reclaimed, "bytes", "unfreed bytes reclaimed wholesale at the end of their scope") \
	X(heap_too_big, "blocks", "served by the general heap: larger than LIBREGION_MAX_BLOCK") \
	X(big_reclaimed, "blocks", "of them, reclaimed by a search") \
	X(heap_over_limit, "blocks", "served by the general heap: the scope's byte limit was reached") \
	X(heap_no_buffer, "blocks", "served by the general heap: no buffer could be had") \
	X(heap_hardened, "blocks", "served by the general heap: LIBREGION_HARDEN, and the policy is unfreed") \
	X(heap_other_stack, "blocks", "served by the general heap: the hole was used up on another stack") \
	X(late_frees, "blocks", "frees of blocks that a scope had already reclaimed") \
	X(searches, "searches", "searches that told reachable blocks from others") \
	X(searches_failed, "searches", "searches that couldn't be made; after three in a row what waits fades") \
	X(searched_bytes, "bytes", "bytes that searches have looked at") \
	X(pause_ns, "nanoseconds", "nanoseconds that searches have stopped all threads for") \
	X(longest_pause_ns, "nanoseconds", "nanoseconds of the longest of them") \
	X(peak_bytes, "bytes", "most bytes of buffers a scope held at once") \
	X(buffers_made, "buffers", "buffers taken from the heap range") \
	X(buffers_reused, "buffers", "buffers taken from the thread's cache") \
	X(buffers_partial, "buffers", "buffers with survivors taken up again for their holes") \
	X(heap_learned, "blocks", "served by the general heap: blocks of their call site outlive the scope") \
	X(scopes_off, "calls", "plain calls: the scope is switched off because most of it outlives it")

struct region_stats {
#define REGION_STATS_MEMBER(member, unit, help) uint64_t member;
	REGION_STATS_MAP(REGION_STATS_MEMBER)
#undef REGION_STATS_MEMBER
	uint64_t cached_bytes;   /* of empty buffers that threads keep ready, now */
	uint64_t waiting_blocks; /* that no search has told from reachable ones yet, now, of all scopes */
	uint64_t waiting_bytes;  /* of them */
	uint64_t mapped_bytes;   /* bytes of the heap range in use by spans, now */
	uint64_t resident_bytes; /* resident bytes of the process, now; 0 where the kernel doesn't tell */
};

/* The totals of the process so far. */
REGION_API void region_stats_read(struct region_stats *stats);

/* The totals of the calling thread so far (resident_bytes and mapped_bytes are the process's). */
REGION_API void region_stats_read_thread(struct region_stats *stats);

/* The totals of all scopes called `name` so far. 0, or -1 with errno ENOENT when none was entered. */
REGION_API int region_stats_read_scope(const char *name, struct region_stats *stats);

/* "0.1.0": of the library that runs, which may be newer than this header. */
REGION_API const char *region_version(void);

#ifdef REGION_OPTIONAL
#define region_do(fn, arg) (region_do ? region_do((fn), (arg)) : (fn)(arg))
#define region_do_with(options, fn, arg) \
	(region_do_with ? region_do_with((options), (fn), (arg)) : (fn)(arg))
#define region_ignore(fn, arg) (region_ignore ? region_ignore((fn), (arg)) : (fn)(arg))
#define region_enter(scope) (region_enter ? region_enter(scope) : (void)(scope))
#define region_enter_with(scope, options) \
	(region_enter_with ? region_enter_with((scope), (options)) : (void)(scope))
#define region_leave(scope) (region_leave ? region_leave(scope) : (void)(scope))
#define region_keep(p) (region_keep ? region_keep(p) : (p))
#define region_depth() (region_depth ? region_depth() : 0u)
#define region_owns(p) (region_owns ? region_owns(p) : 0)
#define region_name_of(p) (region_name_of ? region_name_of(p) : NULL)
#endif

/*
 * REGION_SCOPE("name") { ... }, in C (region.hpp has a class for C++): a block that is a scope, left by any
 * way out of it: the end, break, return, goto, and an exception where the code is compiled with
 * -fexceptions. `break` leaves the block. Needs the cleanup attribute of gcc and clang.
 */
#ifndef __cplusplus
#define REGION_SCOPE(name_) REGION_SCOPE_WITH(.name = (name_))
#define REGION_SCOPE_WITH(...) \
	REGION_SCOPE_(REGION_PASTE_(region_scope_, __LINE__), REGION_PASTE_(region_once_, __LINE__), \
	              __VA_ARGS__)
#define REGION_SCOPE_(scope_, once_, ...) \
	for (struct region_scope scope_ __attribute__((cleanup(region_scope_end_))) = \
	         region_scope_begin_(&scope_, &(const struct region_options){__VA_ARGS__}), \
	         *once_ = &scope_; \
	     once_; once_ = NULL)
#define REGION_PASTE_(a, b) REGION_PASTE_2_(a, b)
#define REGION_PASTE_2_(a, b) a##b

static inline struct region_scope region_scope_begin_(struct region_scope *scope,
                                                      const struct region_options *given)
{
	region_enter_with(scope, given);
	return *scope;
}

static inline void region_scope_end_(struct region_scope *scope)
{
	region_leave(scope);
}
#endif

/*
 * Tracked frees: REGION_AUTO(char *, text, 100); declares `char *const text` with 100 bytes of malloc(),
 * which are freed, with their size told (free_sized), when the block that it stands in is left, in whichever
 * way; NULL when memory is out. In Go's runtime.free the compiler does so. C only; C++ has destructors.
 */
#ifndef __cplusplus
#define REGION_AUTO(type, name, bytes) \
	const struct region_auto_ REGION_PASTE_(region_auto_, name) \
		__attribute__((cleanup(region_auto_end_))) = region_auto_begin_(bytes); \
	type const name = REGION_PASTE_(region_auto_, name).p

struct region_auto_ {
	void *p;
	size_t bytes;
};

extern void free_sized(void *p, size_t bytes) __attribute__((weak)); /* C23, and libregion's */

static inline struct region_auto_ region_auto_begin_(size_t bytes)
{
	return (struct region_auto_){malloc(bytes), bytes};
}

static inline void region_auto_end_(const struct region_auto_ *block)
{
	if (free_sized)
		free_sized(block->p, block->bytes);
	else
		free(block->p);
}
#endif

#ifdef __cplusplus
}
#endif

#include "region_objects.h"

#endif
