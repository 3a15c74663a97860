/*
 * alloc.c: allocation as scopes see it: the slow halves of malloc and realloc, and what region.h says of
 * single blocks.
 *
 * realloc goes by the pointer: a block of an open region of this thread stays in that region, also
 * when another one is current; anything else is, or becomes, a block of the general heap.
 */
#include <errno.h>
#include <string.h>

#include "advise.h"
#include "check.h"
#include "learn.h"
#include "scopes.h"
#include "slot.h"

/* Is this a coroutine or a signal's own stack, where what is allocated need not end with the scope? */
static bool is_elsewhere(struct scope *scope, uintptr_t sp)
{
	if (scope->thread->is_in_check)
		return true;
	if (scope->frame == UINTPTR_MAX || scope_is_own_stack(scope->thread, sp))
		return false;
	stats_add(&scope->region.counters->stats.heap_other_stack, 1);
	return true;
}

/* From the general heap, where allocations may be sampled. */
static void *alloc_general(struct thread *thread, size_t size, size_t align)
{
	void *p = NULL;

	if (__builtin_expect(advise.is_on, 0) && thread)
		p = advise_alloc(thread, size, align);
	if (p)
		return p;
	return align <= GRANULE_BYTES ? heap_alloc(size) : heap_alloc_aligned(align, size);
}

static __attribute__((noinline)) void *
serve(struct scope *scope, uintptr_t sp, size_t size, size_t align)
{
	stats_tick();
	if (scope && scope->frame <= sp) {
		scope_close_abandoned(scope->thread, sp, false);
		scope = scope_top(scope->thread->heap);
	}
	if (scope_is_open(scope) && !is_elsewhere(scope, sp))
		return region_serve(scope->thread, size, align);
	return alloc_general(scope ? scope->thread : NULL, size, align);
}

static __attribute__((noinline)) void *
alloc_slow(struct scope *scope, uintptr_t sp, size_t size, size_t align)
{
	void *p = serve(scope, sp, size, align);

	if (check_is_on())
		check_note(p);
	return p;
}

/* In a scope, for what comes here because it is long. Not served where there is anything else to do first. */
static inline void *bump_long(const struct scope *scope, uintptr_t sp, size_t size)
{
	const struct thread *thread = scope->thread;

	if (sp - thread->stack_lo >= thread->stack_bytes || scope->frame <= sp ||
	    size - 1 >= scope->region.policy->max_block_bytes)
		return NULL;
	return heap_bump(thread->heap, (size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1), GRANULE_BYTES);
}

void *scopes_alloc(size_t size, size_t align)
{
	struct heap *heap = heap_self();
	struct scope *scope = scope_top(heap);
	uintptr_t sp = scope_here();
	/* If a scope is open; under a check nothing is bumped here. */
	bool may_bump = heap->bump_granules > 0 && align <= GRANULE_BYTES;
	void *p = may_bump ? bump_long(scope, sp, size) : NULL;

	return p ? p : alloc_slow(scope, sp, size, align);
}

void *scopes_alloc_outside(struct heap *heap, unsigned class)
{
	stats_tick();
	return slab_alloc(heap, heap->serving[class]);
}

void scopes_before_longjmp(uintptr_t sp)
{
	struct scope *scope = scope_top(heap_self());

	if (scope)
		advise_before_longjmp(scope->thread, sp);
	/* A handler may be jumping while a site is being entered or left, and no scope is open. */
	if (!scope || (scope == &scope->thread->base && !scope->thread->has_slots))
		return;
	/* A target on another stack leaves no frame of this one; a jump from another stack may. */
	if (scope_is_own_stack(scope->thread, sp))
		slot_before_longjmp(scope->thread, sp);
	scope_close_abandoned(scope->thread, sp, true);
	if (reach_is_due())
		reach_search(scope->thread, scope->region.counters);
}

static void suspend(struct heap *heap, struct scope *scope)
{
	region_harvest(heap, &scope->region);
	scope->region.cursor = heap->cursor;
	scope->region.limit = heap->limit;
}

static void resume(struct heap *heap, struct scope *scope)
{
	heap->upper_top = scope;
	heap->cursor = scope->region.cursor;
	heap->limit = scope->region.limit;
}

/* A block in the region of an open scope, which need not be the top one. */
static void *alloc_in(struct thread *thread, struct scope *scope, size_t size, uintptr_t caller)
{
	struct heap *heap = thread->heap;
	struct scope *top = scope_top(heap);

	if (scope == top && scope->learn)
		return scopes_alloc_watched(size, caller);
	if (scope == top)
		return region_serve(thread, size, GRANULE_BYTES);
	suspend(heap, top);
	resume(heap, scope);
	void *p = region_serve(thread, size, GRANULE_BYTES);
	suspend(heap, scope);
	resume(heap, top);
	return p;
}

/* The scope in whose open region of this thread p is a live block, and its head; NULL: none. */
static struct scope *scope_of(struct thread *thread, const void *p, unsigned char **head)
{
	struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	struct scope *scope = (struct scope *)span_region(span);

	if (span_kind(span) != SPAN_BUFFER || !scope || waiting_has(span, p))
		return NULL;
	*head = buffer_find(span, p);
	if (!*head || scope->thread != thread || (granule_load(*head) & GRANULE_FADED))
		return NULL;
	return scope;
}

/* Copies what both blocks hold, and frees the old one. */
static void *replace(void *to, void *p, size_t old_bytes, size_t size)
{
	/* A block that can't be made smaller is large enough. */
	if (!to)
		return size <= old_bytes ? p : NULL;
	memcpy(to, p, old_bytes < size ? old_bytes : size);
	if (!heap_free_inline(heap_self(), p))
		heap_free(p, "realloc");
	return to;
}

/* Grows the newest block of the current region, or shrinks any, where it is. */
static bool resize_in_place(struct heap *heap, unsigned char *head, char *p, size_t old_bytes, size_t bytes)
{
	if (p + old_bytes == heap->cursor && bytes <= (size_t)(heap->limit - p)) {
		heap->cursor = p + bytes;
		granule_resize(head, bytes >> GRANULE_SHIFT);
		return true;
	}
	/* What is cut off is a hole. */
	if (bytes < old_bytes)
		granule_resize(head, bytes >> GRANULE_SHIFT);
	return bytes <= old_bytes;
}

static void *realloc_in_region(struct thread *thread, struct scope *scope, unsigned char *head, char *p,
                               size_t size, uintptr_t caller)
{
	size_t old_bytes = granule_size(head) << GRANULE_SHIFT;
	size_t bytes = (size + !size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);

	if (bytes < size)
		return NULL;
	if (bytes >> GRANULE_SHIFT <= GRANULE_MAX &&
	    resize_in_place(thread->heap, head, p, old_bytes, bytes))
		return p;
	return replace(alloc_in(thread, scope, size, caller), p, old_bytes, size);
}

static void *realloc_on_heap(void *p, size_t old_bytes, size_t size)
{
	struct span *span = span_of(p);

	/* A sample's block may be small for all that it has a span. */
	if (span_kind(span) == SPAN_BIG && old_bytes > CLASS_MAX_BYTES && size > CLASS_MAX_BYTES) {
		void *resized = big_resize(span, size);
		struct scope *scope = scope_top(heap_self());
		/* Where its pages have moved, the scope that knew it knows it there. */
		if (resized && resized != p && scope_is_open(scope))
			big_list_move(&scope->bigs, p, resized);
		if (resized)
			return resized;
	} else if (harden_is_on() ? harden_refit(span, p, old_bytes, size)
	                          : size <= old_bytes && size >= old_bytes / 2) {
		return p;
	}
	return replace(alloc_general(scope_thread(heap_self()), size, GRANULE_BYTES), p, old_bytes, size);
}

void *scopes_realloc(void *p, size_t size, uintptr_t caller)
{
	struct thread *thread = scope_thread(heap_self());
	size_t old_bytes = heap_block_bytes(p, "realloc");
	unsigned char *head;

	if (old_bytes == 0 && !null_has(p))
		return NULL;
	struct scope *scope = thread ? scope_of(thread, p, &head) : NULL;
	void *q = scope ? realloc_in_region(thread, scope, head, p, size, caller)
	                : realloc_on_heap(p, old_bytes, size);
	if (check_is_on() && q != p)
		check_note(q);
	return q;
}

size_t scopes_usable_size(const void *p, const char *call)
{
	return p ? heap_block_bytes(p, call) : 0;
}

/* region.h, of single blocks. */

static void note_kept(struct region *region, size_t bytes)
{
	struct region_stats *stats = &region->counters->stats;

	region->kept_bytes += bytes;
	stats_add(&stats->blocks_allocated, 1);
	stats_add(&stats->blocks_faded, 1);
	stats_add(&stats->bytes_faded, bytes);
}

void *region_keep(void *p)
{
	struct thread *thread = scope_thread(heap_self());
	struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	unsigned char *head;

	if (span_kind(span) == SPAN_BIG && p == span->start)
		big_list_forget(span);
	if (span_kind(span) != SPAN_BUFFER && span_kind(span) != SPAN_WAITING)
		return p;
	head = range_map_of(p);
	if (!granule_is_live(granule_load(head)) || (uintptr_t)p % GRANULE_BYTES != 0) {
		report("region_keep(%p): not the start of a live block; ignored", p);
		return p;
	}
	struct scope *scope = thread ? scope_of(thread, p, &head) : NULL;
	span->had_keeps = true;
	if (!(granule_mark(head, GRANULE_FADED) & GRANULE_FADED) && scope)
		note_kept(&scope->region, granule_size(head) << GRANULE_SHIFT);
	return p;
}

void *region_copy_out(const void *p)
{
	size_t bytes = scopes_usable_size(p, "region_copy_out");
	bool is_block = bytes > 0 || null_has(p);
	void *copy = is_block ? heap_alloc(bytes) : NULL;

	if (is_block && !copy)
		errno = ENOMEM;
	if (check_is_on())
		check_note(copy);
	return copy ? memcpy(copy, p, bytes) : NULL;
}

int region_owns(const void *p)
{
	struct scope *scope = scope_top(heap_self());
	unsigned char *head;

	return scope_is_open(scope) && scope_of(scope->thread, p, &head) == scope;
}

const char *region_name_of(const void *p)
{
	struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	struct region *region = span_region(span);

	if (span_kind(span) == SPAN_BARE)
		return span->reclaimer;
	if (span_kind(span) != SPAN_BUFFER || !region || waiting_has(span, p))
		return NULL;
	const unsigned char *head = buffer_find(span, p);
	return head && !(granule_load(head) & GRANULE_FADED) ? region->policy->name : NULL;
}

