/*
 * within.c: region_within(), and the half of a region that malloc() serves from in it.
 *
 * The region's own scope record is put on top of the thread's, as if a scope was entered, and taken off
 * again with its cursor: the region stays as it is until it is next entered, reset, or ends. Records that
 * are ready behind the top one move behind the new one meanwhile.
 *
 * A mark seals what is there: its buffers are put aside, and what comes after begins with empty ones. So
 * rewinding is ending a region like any other, and taking up what was put aside.
 */
#include <errno.h>

#include "check.h"
#include "object.h"
#include "scopes.h"
#include "stack.h"
#include "trace.h"

/* Puts a record between two others. */
static void link_record(struct scope *outer, struct scope *scope)
{
	scope->outer = outer;
	scope->inner = outer->inner;
	if (scope->inner != &scope_no_record)
		scope->inner->outer = scope;
	outer->inner = scope;
}

static void unlink_record(struct scope *scope)
{
	scope->outer->inner = scope->inner;
	if (scope->inner != &scope_no_record)
		scope->inner->outer = scope->outer;
	scope->inner = &scope_no_record;
}

static void put_aside(struct heap *heap, struct scope *scope)
{
	region_harvest(heap, &scope->region);
	if (scope->is_lasting)
		region_leave_hole(&scope->region, heap->cursor);
	scope->region.cursor = heap->cursor;
	scope->region.limit = heap->limit;
}

/* The limit is for both halves. */
static void share_limit(struct region_object *region)
{
	size_t held = region->held_bytes + region->sealed_held_bytes;

	if (region->limit_bytes != SIZE_MAX)
		region->policy.limit_bytes = region->limit_bytes > held ? region->limit_bytes - held : 0;
}

/* Looked up by name only where another thread has opened the region since. */
static struct counters *counters_in(struct region_object *region, struct thread *thread)
{
	if (region->counting != thread) {
		region->counters = stats_of(thread, region->name);
		region->counting = thread;
	}
	return region->counters;
}

static void push(struct thread *thread, struct region_object *region, uintptr_t frame)
{
	struct heap *heap = thread->heap;
	struct scope *scope = &region->within, *outer = scope_top(heap);

	/* Frees of the newest blocks may make it shorter. */
	object_note_peak(region);
	put_aside(heap, outer);
	share_limit(region);
	link_record(outer, scope);
	__atomic_store_n(&scope->thread, thread, __ATOMIC_RELAXED);
	scope->frame = frame < outer->frame ? frame : outer->frame;
	scope->called = scope; /* by region_within() */
	scope->must_close = true;
	scope->region.counters = counters_in(region, thread);
	stats_add(&scope->region.counters->stats.scopes_entered, 1);
	TRACE_2(enter, scope->region.name, scope);
	heap->upper_top = scope;
	heap->cursor = scope->region.cursor;
	heap->limit = scope->region.limit;
	heap_set_inline(heap, 0);
	if (check_is_on())
		check_opened(scope);
}

static struct region_object *object_of(struct scope *scope)
{
	return (struct region_object *)((char *)scope - offsetof(struct region_object, within));
}

static void show(struct region_object *region)
{
	OBJECT_SET(region->shown_bytes, region->within.region.bumped_bytes + region->sealed_bytes);
	OBJECT_SET(region->shown_held_bytes, region->within.region.held_bytes + region->sealed_held_bytes);
}

void within_suspend(struct thread *thread, struct scope *scope)
{
	object_note_peak(object_of(scope));
	put_aside(thread->heap, scope);
	show(object_of(scope));
	unlink_record(scope);
	__atomic_store_n(&scope->thread, NULL, __ATOMIC_RELAXED);
}

/* What was never used: it holds nothing, and bumps nowhere. */
static struct region empty_half(struct region_object *region)
{
	return (struct region){.policy = &region->policy, .name = region->name};
}

/* In the child of a fork, where the thread isn't there that it was open in. */
static bool is_lost(const struct thread *thread)
{
	return thread && OBJECT_GET(thread->heap->state) == HEAP_LOST;
}

/* What was being changed when the process was copied is left alone. */
static void forget_lost(struct region_object *region)
{
	region->within.thread = NULL;
	region->within.region = empty_half(region);
}

/* Where the region is current further out already, a child of it; NULL, and it may be reported: don't. */
static struct region_object *free_one(struct region_object *region, struct thread *thread)
{
	if (is_lost(__atomic_load_n(&region->within.thread, __ATOMIC_RELAXED)))
		forget_lost(region);
	while (region && region->within.thread == thread) {
		if (!region->inner)
			region->inner = region_create(&(struct region_options){
				.name = region->name, .fade = region->policy.fade, .parent = region,
				.buffer_size = (size_t)1 << region->policy.size_log2,
			});
		region = region->inner;
	}
	if (!region || !__atomic_load_n(&region->within.thread, __ATOMIC_RELAXED))
		return region;
	report_misuse("region_within(%p): region \"%s\" is open in another thread", (void *)region, region->name);
	errno = EINVAL;
	return NULL;
}

/* Opens the region; NULL: the call goes on without. */
static struct scope *enter(region_t *given, uintptr_t frame)
{
	struct region_object *region = object_own(given, "region_within");
	struct scope *top = scope_top(heap_self());

	if (!top)
		top = scopes_first_use();
	if (!region || !top)
		return NULL;
	struct thread *thread = top->thread;
	if (check_is_on())
		stack_load(thread);
	scope_close_abandoned(thread, frame, false);
	if (scope_top(thread->heap) == &region->within || !scope_is_own_stack(thread, frame))
		return NULL;
	region = free_one(region, thread);
	if (!region)
		return NULL;
	if (region->owner && region->within_generation != region->generation) {
		within_reset(region);
		region->within_generation = region->generation;
	}
	push(thread, region, thread->stack_bytes ? frame : UINTPTR_MAX);
	return &region->within;
}

void region_within(region_t *region, void (*fn)(void *), void *arg)
{
	SCOPE_UNWIND_THROUGH;
	struct scope *scope = enter(region, scope_here());

	fn(arg);
	if (scope)
		scope_leave_lasting(scope);
}

/* The end of its blocks. */

bool within_is_open(const struct region_object *region)
{
	const struct thread *thread = __atomic_load_n(&region->within.thread, __ATOMIC_RELAXED);

	return thread && !is_lost(thread);
}

/* By a thread past its end, which counts nothing and keeps no buffers ready. */
static void close_without_heap(struct region *half)
{
	bool reclaims = half->policy->fade == REGION_FADE_NONE;

	for (struct span *span = half->buffers, *next; span; span = next) {
		next = span->next;
		span_set_region(span, NULL);
		if (reclaims)
			buffer_note_reclaim(span, half->policy->name);
		buffer_end_scope(span, reclaims);
		if (span->had_keeps && buffer_retire(span))
			continue;
		buffer_clear(span);
		span_free(span, false);
	}
}

/* Makes the region the current one for the moment of closing it. */
static void close_in(struct thread *thread, struct region_object *region)
{
	struct heap *heap = thread->heap;
	struct region *half = &region->within.region, *top = &scope_top(heap)->region;
	char *cursor = heap->cursor, *limit = heap->limit;

	region_harvest(heap, top);
	heap->cursor = half->cursor;
	heap->limit = half->limit;
	half->counters = counters_in(region, thread);
	region_close(thread, half, true);
	heap->cursor = cursor;
	heap->limit = limit;
}

static void close_half(struct region_object *region)
{
	struct scope *top = scope_top(heap_self());

	if (!region->within.region.buffers)
		return;
	if (top)
		close_in(top->thread, region);
	else
		close_without_heap(&region->within.region);
}

void within_mark(struct region_object *region, struct mark *mark)
{
	struct region *half = &region->within.region;

	mark->within = *half;
	region->sealed_bytes += half->bumped_bytes;
	region->sealed_held_bytes += half->held_bytes;
	*half = empty_half(region);
}

void within_rewind(struct region_object *region, const struct mark *mark)
{
	close_half(region);
	region->within.region = mark->within;
	region->sealed_bytes -= mark->within.bumped_bytes;
	region->sealed_held_bytes -= mark->within.held_bytes;
}

void within_reset(struct region_object *region)
{
	if (is_lost(region->within.thread))
		forget_lost(region);
	for (const struct mark *mark = region->marks; mark; mark = mark->older)
		within_rewind(region, mark);
	close_half(region);
	region->within.region = empty_half(region);
	show(region);
}
