/*
 * scope_fast.h: entering and leaving a scope in the common case, to be inlined. Private to scopes/.
 *
 * scope.c has what else there is to it. What is here calls nothing and touches no vector register, so that
 * it can run where a function of an unmodified program is entered and left.
 */
#ifndef LIBREGION_SCOPE_FAST_H
#define LIBREGION_SCOPE_FAST_H

#include "scope.h"
#include "trace.h"

/*
 * Makes a scope behind the top one the top, with its region as the current one. What the outer one has to
 * count has been counted, and its frame isn't below.
 */
static inline __attribute__((always_inline)) void scope_push(struct heap *heap, struct scope *outer,
                                                             struct scope *scope, uintptr_t frame)
{
	outer->region.cursor = heap->cursor;
	outer->region.limit = heap->limit;
	scope->frame = frame;
	heap->upper_top = scope;
	heap->cursor = scope->region.extent;
	heap->limit = scope->region.limit;
	heap_set_inline(heap, 0);
}

/* A scope can't outlive the one around it. */
static inline uintptr_t scope_frame_in(const struct scope *outer, uintptr_t frame)
{
	return frame < outer->frame ? frame : outer->frame;
}

static inline void scope_count_entry(const struct scope *scope)
{
	stats_add(&scope->region.counters->stats.scopes_entered, 1);
	TRACE_2(enter, scope->region.name, scope);
}

static inline void scope_trace_exit(const struct scope *scope)
{
	TRACE_2(exit, scope->region.name, scope);
}

static inline bool scope_is_same(const struct region_options *a, const struct region_options *b)
{
	return a->name == b->name && a->fade == b->fade && a->buffer_size == b->buffer_size &&
	       a->buffer_count == b->buffer_count && a->limit_bytes == b->limit_bytes;
}

/* Is the record ready for these options? */
static inline bool scope_is_ready(const struct scope *scope, const struct region_options *given)
{
	if (!given)
		return scope->ready == &policies.by_default;
	return scope->ready == &scope->own_policy && scope_is_same(&scope->given, given);
}

/* The same, and calls that tell nothing but their function aren't told apart (learn.h)? */
static inline bool scope_is_quick(const struct scope *scope, const struct region_options *given)
{
	if (!given)
		return scope->ready == __atomic_load_n(&policies.quick, __ATOMIC_RELAXED);
	return scope_is_ready(scope, given);
}

/* Makes the scope around a closed one current again. */
static inline __attribute__((always_inline)) void scope_pop(struct heap *heap,
                                                            const struct scope *scope)
{
	struct scope *outer = scope->outer;

	heap->upper_top = outer;
	heap->cursor = outer->region.cursor;
	heap->limit = outer->region.limit;
	heap_set_inline(heap, outer->inline_granules);
}

/*
 * Opens a scope whose frame is `frame`, called with stack pointer `sp`, if a record is ready for it and no
 * frame has been abandoned. NULL: it is not as simple as that, and nothing has happened.
 */
static inline __attribute__((always_inline)) struct scope *
scope_enter_fast(struct heap *heap, uintptr_t sp, uintptr_t frame,
                 const struct region_options *given)
{
	struct scope *outer = scope_top(heap);

	if (__builtin_expect(!outer || sp - outer->thread->stack_lo >= outer->thread->stack_bytes ||
	                         outer->frame <= sp || !scope_is_quick(outer->inner, given),
	                     0))
		return NULL;
	struct scope *scope = outer->inner;
	region_harvest(heap, &outer->region);
	scope_push(heap, outer, scope, scope_frame_in(outer, frame));
	scope_count_entry(scope);
	return scope;
}

typedef struct granule_counts granule_counter(const unsigned char *from, const unsigned char *end);
typedef void granule_eraser(unsigned char *from, const unsigned char *end);

/*
 * region_close_quick(), by whichever means to look at the map and to clear it: ends a region whose blocks
 * all lie in the hole that it was prepared with, if none survives. False: nothing has happened. Regions of
 * the policy `none` are for those who `may_reclaim`.
 */
static inline __attribute__((always_inline)) bool
region_close_by(struct thread *thread, struct region *region, granule_counter *count, granule_eraser *erase,
                bool may_reclaim)
{
	struct region_stats *stats = &region->counters->stats;
	unsigned char *map = range_map_of(region->extent), *end = range_map_of(thread->heap->cursor);
	size_t bytes = (size_t)(thread->heap->cursor - region->extent);

	if (region->policy->fade == REGION_FADE_NONE) {
		if (!may_reclaim || options.stats[0] || region->buffers->had_keeps)
			return false;
		buffer_note_reclaim(region->buffers, region->policy->name);
		stats_add(&stats->bytes_reclaimed, bytes);
	} else {
		struct granule_counts counts = count(map, end);
		if (counts.any_live)
			return false;
		stats_add(&stats->blocks_allocated, counts.blocks);
		stats_add(&stats->blocks_freed, counts.blocks);
		stats_add(&stats->bytes_freed, bytes);
	}
	region_harvest(thread->heap, region);
	thread->has_faded = false;
	stats_add(&stats->bytes_allocated, bytes);
	stats_add(&stats->buffers_reused, 1);
	stats_max(&stats->peak_bytes, region->held_bytes);
	erase(map, end);
	return true;
}

/* Is it the top scope, and has it left nothing behind? It has counted what it has to. */
static inline __attribute__((always_inline)) bool scope_is_empty_top(const struct scope *scope)
{
	const struct heap *heap = scope->thread->heap;

	return scope_top(heap) == scope && heap->cursor == scope->region.extent && !scope->must_close;
}

/* Ends the scope if it is like that. */
static inline __attribute__((always_inline)) bool scope_leave_fast(struct scope *scope)
{
	if (__builtin_expect(!scope_is_empty_top(scope), 0))
		return false;
	scope_pop(scope->thread->heap, scope);
	scope_trace_exit(scope);
	return true;
}

#endif
