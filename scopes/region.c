/*
 * region.c: the buffers of a region: where its next block comes from, and where everything goes at
 * the end.
 *
 * When the current hole is used up the next one is looked for, cheapest first:
 *
 *   1. further on in the same buffer;
 *   2. in the region's other buffers, if it holds a MiB and has bumped through half as much since it last
 *      looked there: so looking costs a bounded share, and a scope with churn stays near its live size;
 *   3. in the buffer with survivors that the thread kept from an earlier scope;
 *   4. an empty buffer from the thread's cache;
 *   5. a retired buffer with room, from whichever thread;
 *   6. a new buffer.
 *
 * Bytes are counted when a hole is left, blocks when the map is cleared or scanned anyway. With the
 * policy `none` that is only done where statistics were asked for (LIBREGION_STATS).
 */
#include <string.h>

#include "check.h"
#include "scope.h"
#include "scope_fast.h"
#include "scopes.h"
#include "trace.h"

/* Under `none`, a block above LIBREGION_MAX_BLOCK has a buffer of its own, so that it is reclaimed too. */
#define OWN_BUFFER_MAX_BYTES ((size_t)8 << 20)

#define SWEEP_MIN_BYTES ((size_t)1 << 20)

/* A hole of a buffer with survivors that is made ready for a scope. */
#define PREPARED_BYTES ((size_t)16 << 10)

void region_leave_hole(struct region *region, char *cursor)
{
	struct span *span = region->buffers;

	if (!span)
		return;
	if (cursor > span->used_end)
		span->used_end = cursor;
	if (cursor > span->fresh_hi)
		span->fresh_hi = cursor;
	/* Modulo 2^64: a cursor that went back into the hole before takes off what was added there. */
	region->bumped_bytes += (size_t)(cursor - region->extent);
	region->unswept_bytes += (size_t)(cursor - region->extent);
	region->extent = cursor;
}

static void leave_hole(struct heap *heap, struct region *region)
{
	region_leave_hole(region, heap->cursor);
}

static bool enter_hole(struct heap *heap, struct region *region, char *from, size_t bytes)
{
	struct span *span = region->buffers;
	struct hole hole = {0};

	if (!buffer_next_hole(span, from, bytes, &hole))
		return false;
	if (!span->fresh_lo || hole.lo < span->fresh_lo)
		span->fresh_lo = hole.lo;
	region->extent = heap->cursor = hole.lo;
	heap->limit = hole.hi;
	stats_add(&region->counters->stats.blocks_allocated, hole.freed_blocks);
	stats_add(&region->counters->stats.blocks_freed, hole.freed_blocks);
	return true;
}

/* Makes a buffer the region's first. */
static void push_buffer(struct region *region, struct span *span)
{
	span_set_region(span, region);
	span->fresh_lo = span->fresh_hi = NULL;
	span->next = region->buffers;
	region->buffers = span;
	region->held_bytes += span_bytes(span);
}

/* Brings a buffer that the region holds to the front. */
static void bring_to_front(struct region *region, struct span *span)
{
	struct span **link = &region->buffers;

	while (*link != span)
		link = &(*link)->next;
	*link = span->next;
	span->next = region->buffers;
	region->buffers = span;
}

/* Would a buffer of that size be one too many? */
static bool is_over_limit(const struct region *region, unsigned size_log2)
{
	return region->held_bytes + ((size_t)1 << size_log2) > region->policy->limit_bytes;
}

/*
 * The more of a buffer is free, the longer its holes, and the fewer looks for the next one: so a small
 * region doesn't look before it has grown to SWEEP_MIN_BYTES, or may not grow.
 */
static bool should_sweep(const struct region *region)
{
	bool is_small = region->held_bytes < SWEEP_MIN_BYTES && !is_over_limit(region, region->policy->size_log2);

	return !is_small && region->unswept_bytes >= region->held_bytes / 2;
}

/* Looks through the region's own buffers for holes, going on where it was last time. */
static bool sweep(struct heap *heap, struct region *region, size_t bytes)
{
	if (!region->sweep && should_sweep(region)) {
		region->sweep = region->buffers;
		region->unswept_bytes = 0;
	}
	while (region->sweep) {
		struct span *span = region->sweep;

		region->sweep = span->next;
		if (!buffer_may_have_holes(span))
			continue;
		bring_to_front(region, span);
		if (enter_hole(heap, region, span->wait_hi ? span->wait_hi : buffer_begin(span), bytes))
			return true;
	}
	return false;
}

/* An empty buffer: it is one hole. */
static void enter_empty(struct heap *heap, struct region *region, struct span *span)
{
	push_buffer(region, span);
	region->extent = heap->cursor = span->fresh_lo = span->fresh_hi = buffer_begin(span);
	heap->limit = span_end(span);
}

/* Goes on in a buffer with survivors. */
static bool enter_partial(struct heap *heap, struct region *region, struct span *span, size_t bytes)
{
	push_buffer(region, span);
	stats_add(&region->counters->stats.buffers_partial, 1);
	return enter_hole(heap, region, span->resume, bytes);
}

static void put_empty(struct thread *thread, struct span *span)
{
	buffer_clear(span);
	buffer_put(thread->heap, span);
}

/* A buffer with survivors that no thread goes on in. */
static void settle(struct thread *thread, struct span *span)
{
	if (span->wait_hi)
		waiting_add(span);
	else if (!buffer_retire(span))
		put_empty(thread, span);
}

/* Has the region's limit room for all of this buffer? */
static bool may_hold(const struct region *region, const struct span *span)
{
	return region->held_bytes + span_bytes(span) <= region->policy->limit_bytes;
}

static bool take_partial(struct thread *thread, struct region *region, size_t bytes)
{
	struct span **place = check_covers(region) ? &thread->checked : &thread->partial, *span = *place;

	if (!span || !may_hold(region, span))
		return false;
	*place = NULL;
	return enter_partial(thread->heap, region, span, bytes);
}

static bool adopt_partial(struct thread *thread, struct region *region, size_t bytes)
{
	struct span *span = buffer_adopt();

	if (!span)
		return false;
	if (may_hold(region, span))
		return enter_partial(thread->heap, region, span, bytes);
	settle(thread, span);
	return false;
}

/* Nothing is to be bumped from now. */
static void no_hole(struct heap *heap, struct region *region)
{
	heap->cursor = heap->limit = region->extent = NULL;
}

/* Finds a hole of at least `bytes`; else says which counter tells why there is none. */
static uint64_t *refill(struct thread *thread, struct region *region, size_t bytes)
{
	struct heap *heap = thread->heap;
	struct region_stats *stats = &region->counters->stats;
	const struct policy *policy = region->policy;
	struct span *span;

	leave_hole(heap, region);
	if (heap->limit && enter_hole(heap, region, heap->limit, bytes))
		return NULL;
	if (sweep(heap, region, bytes))
		return NULL;
	/* Whatever the look-around has left in front, nothing is to be bumped from now. */
	no_hole(heap, region);
	if (is_over_limit(region, policy->size_log2))
		return &stats->heap_over_limit;
	bool is_checked = check_covers(region);
	if (take_partial(thread, region, bytes))
		return NULL;
	span = buffer_take_spare(heap, policy->size_log2);
	if (span) {
		stats_add(&stats->buffers_reused, 1);
		enter_empty(heap, region, span);
		return NULL;
	}
	if (!is_checked && adopt_partial(thread, region, bytes))
		return NULL;
	no_hole(heap, region);
	span = buffer_make(heap, policy->size_log2, policy->buffer_count);
	if (!span && is_checked)
		span = check_make_buffer(heap, policy);
	if (!span) {
		/* Before memory is said to be out, whatever was freed is looked for. */
		region->unswept_bytes = region->held_bytes;
		return sweep(heap, region, bytes) ? NULL : &stats->heap_no_buffer;
	}
	stats_add(&stats->buffers_made, 1);
	enter_empty(heap, region, span);
	return NULL;
}

/* A block in a buffer of its own, behind the one with the cursor. */
static void *alloc_own_buffer(struct thread *thread, struct region *region, size_t bytes)
{
	unsigned size_log2 = buffer_size_log2(bytes + GRANULE_BYTES);
	struct span *span = NULL, *first = region->buffers;
	char *p;

	if (!is_over_limit(region, size_log2)) {
		span = buffer_take_spare(thread->heap, size_log2);
		stats_add(&region->counters->stats.buffers_reused, span != NULL);
	}
	if (!span && !is_over_limit(region, size_log2)) {
		span = buffer_make(thread->heap, size_log2, 1);
		stats_add(&region->counters->stats.buffers_made, span != NULL);
	}
	if (!span)
		return NULL;
	push_buffer(region, span);
	if (first)
		bring_to_front(region, first);
	region->bumped_bytes += bytes;
	region->unswept_bytes += bytes;
	p = span->fresh_lo = buffer_begin(span);
	span->used_end = span->fresh_hi = p + bytes;
	granule_set(range_map_of(p), bytes >> GRANULE_SHIFT);
	if (region->buffers == span)
		region->extent = thread->heap->cursor = thread->heap->limit = span->used_end;
	return p;
}

/* A block too long to share a buffer, in a scope that reclaims it: from a hole, or a buffer of its own. */
static void *alloc_long(struct thread *thread, struct region *region, size_t bytes)
{
	struct heap *heap = thread->heap;
	void *p = heap_bump(heap, bytes, GRANULE_BYTES);

	if (p)
		return p;
	if (should_sweep(region)) {
		leave_hole(heap, region);
		if (sweep(heap, region, bytes))
			return heap_bump(heap, bytes, GRANULE_BYTES);
		no_hole(heap, region);
	}
	return alloc_own_buffer(thread, region, bytes);
}

static void *from_heap(uint64_t *reason, size_t size, size_t align)
{
	void *p = align > GRANULE_BYTES ? heap_alloc_aligned(align, size) : heap_alloc(size);

	if (p)
		stats_add(reason, 1);
	return p;
}

/* A block that is the general heap's; under `reachable` a scope knows its big ones. */
static void *big_from_heap(struct scope *scope, size_t size, size_t align)
{
	void *p = from_heap(&scope->region.counters->stats.heap_too_big, size, align);

	if (p && scope->region.policy->fade == REGION_FADE_REACHABLE)
		big_list_note(&scope->bigs, p);
	return p;
}

void *region_serve(struct thread *thread, size_t size, size_t align)
{
	struct scope *scope = scope_top(thread->heap);
	struct region *region = &scope->region;
	size_t bytes = (size + !size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
	size_t most = region->policy->max_block_bytes;
	void *p = NULL;

	/* What the inlined path leaves because it is long or aligned: bumped all the same. */
	if (bytes >= size && bytes <= most && align <= most && (p = heap_bump(thread->heap, bytes, align)))
		return p;
	scope->must_close = true;
	if (region_is_sheltered(region))
		return from_heap(&region->counters->stats.heap_hardened, size, align);
	if (bytes < size || align > most)
		return big_from_heap(scope, size, align);
	if (bytes > most) {
		bool may_own = region->policy->fade == REGION_FADE_NONE && bytes <= OWN_BUFFER_MAX_BYTES &&
		               align == GRANULE_BYTES;
		p = may_own ? alloc_long(thread, region, bytes) : NULL;
		return p ? p : big_from_heap(scope, size, align);
	}
	uint64_t *reason = refill(thread, region, bytes + align - GRANULE_BYTES);
	TRACE_4(refill, region->name, bytes, thread->heap->cursor, thread->heap->limit);
	if (!reason)
		return heap_bump(thread->heap, bytes, align);
	/* So that what is freed meanwhile is found in the end. */
	region->unswept_bytes += bytes;
	return from_heap(reason, size, align);
}

/* The end. */

/*
 * Is a buffer with survivors to be kept for the next scope? While scopes leave survivors, yes; after the last
 * one that has, if there is no empty one.
 */
static bool keeps_partial(const struct thread *thread, const struct span *span)
{
	return thread->has_faded || !buffer_has_spare(thread->heap, span);
}

/*
 * A buffer with survivors. Where this scope has stopped half-way through, the next one may go on, and nobody
 * asks what is left in the buffer until its end is reached: so one survivor a scope doesn't cost a look at
 * a whole buffer a scope. A thread keeps one such buffer.
 */
static void put_survivors(struct thread *thread, struct span *span, char *resume)
{
	if (!resume || thread->partial || !keeps_partial(thread, span)) {
		settle(thread, span);
		return;
	}
	span->resume = resume;
	thread->partial = span;
}

/* `reachable`: what lives isn't reclaimed yet, and doesn't fade yet. The bytes of it. */
static size_t close_waiting(struct thread *thread, struct region *region, struct span *span, char *resume)
{
	struct region_stats *stats = &region->counters->stats;
	struct granule_live live = granule_add_live(range_map_of(span->fresh_lo), range_map_of(span->fresh_hi));

	stats_add(&stats->blocks_allocated, live.blocks + live.freed_blocks);
	stats_add(&stats->blocks_freed, live.freed_blocks);
	/* What the next scope does has to lie behind what waits. */
	if (resume && resume < span->fresh_hi)
		resume = NULL;
	if (live.blocks > 0) {
		/* A free granule between what waits and what comes: no waiting block ends at the cursor. */
		resume = resume ? resume + GRANULE_BYTES : NULL;
		waiting_note(span, region->policy->name, live, resume ? resume : span_end(span));
	}
	thread->has_faded |= live.blocks > 0 || live.any_faded;
	if (span->had_keeps)
		put_survivors(thread, span, resume);
	else
		put_empty(thread, span);
	return live.granules << GRANULE_SHIFT;
}

/* `none`, and nothing was kept here: whatever is left is reclaimed unseen. Its live bytes, if known. */
static size_t close_reclaimed(struct thread *thread, struct region *region, struct span *span)
{
	struct region_stats *stats = &region->counters->stats;
	size_t bytes = 0;

	buffer_note_reclaim(span, region->policy->name);
	if (options.stats[0]) {
		struct granule_counts counts = granule_count(buffer_map(span), range_map_of(span->used_end));
		struct buffer_ending ending = buffer_end_scope(span, true);
		stats_add(&stats->blocks_allocated, counts.blocks);
		stats_add(&stats->blocks_freed, counts.blocks - ending.blocks);
		stats_add(&stats->blocks_reclaimed, ending.blocks);
		bytes = ending.bytes;
	}
	put_empty(thread, span);
	return bytes;
}

/* A buffer that is looked through. The bytes that faded or were reclaimed. */
static size_t close_surveyed(struct thread *thread, struct region *region, struct span *span, char *resume,
                             bool reclaims)
{
	struct region_stats *stats = &region->counters->stats;
	struct granule_counts counts = granule_count(range_map_of(span->fresh_lo), range_map_of(span->fresh_hi));
	struct buffer_ending ending = {0};

	if (counts.any_live) {
		if (reclaims)
			buffer_note_reclaim(span, region->policy->name);
		ending = buffer_end_scope(span, reclaims);
		thread->has_faded |= ending.has_survivors;
		stats_add(reclaims ? &stats->blocks_reclaimed : &stats->blocks_faded, ending.blocks);
		if (!reclaims && ending.blocks > 0)
			TRACE_3(fade, region->name, ending.blocks, ending.bytes);
	} else {
		granule_zero(range_map_of(span->fresh_lo), range_map_of(span->fresh_hi));
		/* So the next scope may begin where this one has. */
		resume = resume ? span->fresh_lo : NULL;
	}
	stats_add(&stats->blocks_allocated, counts.blocks);
	/* A block that another thread frees while we look may be in one count and not in the other. */
	stats_add(&stats->blocks_freed, counts.blocks > ending.blocks ? counts.blocks - ending.blocks : 0);
	if (span->had_keeps)
		put_survivors(thread, span, resume);
	else
		put_empty(thread, span);
	return ending.bytes;
}

/* The big blocks that live: they wait, or are the general heap's for good. */
static void close_bigs(struct region *region, bool waits)
{
	struct scope *scope = (struct scope *)region;

	if (scope->bigs.count > 0 && waits)
		waiting_add_bigs(&scope->bigs, region->policy->name);
	scope->bigs.count = 0;
}

void region_close(struct thread *thread, struct region *region, bool may_reclaim)
{
	struct heap *heap = thread->heap;
	struct region_stats *stats = &region->counters->stats;
	bool reclaims = may_reclaim && region->policy->fade == REGION_FADE_NONE;
	bool waits = may_reclaim && region->policy->fade == REGION_FADE_REACHABLE && reach_is_on();
	bool is_unseen = reclaims && !options.stats[0];
	size_t lost_bytes = 0;

	thread->has_faded = false;
	region_harvest(heap, region);
	leave_hole(heap, region);
	if (check_covers(region)) {
		check_close(thread, region, reclaims);
		return;
	}
	char *resume = heap->cursor < heap->limit ? heap->cursor : NULL;
	for (struct span *span = region->buffers, *next; span; span = next) {
		next = span->next;
		span_set_region(span, NULL);
		if (waits)
			lost_bytes += close_waiting(thread, region, span, resume);
		else if (reclaims && !span->had_keeps)
			lost_bytes += close_reclaimed(thread, region, span);
		else
			lost_bytes += close_surveyed(thread, region, span, resume, reclaims);
		/* Only the first buffer has the cursor. */
		resume = NULL;
	}
	if (is_unseen)
		lost_bytes = region->bumped_bytes - region->kept_bytes;
	stats_max(&stats->peak_bytes, region->held_bytes);
	stats_add(&stats->buffers_reused, region->was_prepared);
	stats_add(&stats->bytes_allocated, region->bumped_bytes);
	stats_add(&stats->bytes_freed, region->bumped_bytes - region->kept_bytes - lost_bytes);
	if (!waits)
		stats_add(reclaims ? &stats->bytes_reclaimed : &stats->bytes_faded, lost_bytes);
	region->buffers = NULL;
	close_bigs(region, waits);
	if (thread->partial && !keeps_partial(thread, thread->partial))
		region_settle_partial(thread);
}

bool region_close_quick(struct thread *thread, struct region *region)
{
	return region_close_by(thread, region, granule_count, granule_zero, true);
}

void region_settle_partial(struct thread *thread)
{
	struct span *span = thread->partial;

	thread->partial = NULL;
	settle(thread, span);
}

/* Makes a hole of a buffer ready. */
static void prepare_hole(struct region *region, struct span *span, struct hole hole)
{
	region->was_prepared = true;
	push_buffer(region, span);
	region->extent = span->fresh_lo = span->fresh_hi = hole.lo;
	region->limit = hole.hi;
}

/*
 * A first scope often leaves something behind that those after it don't: what is initialised once, the
 * buffer of a stream. These don't come by an empty buffer until there is another one, but by a hole, and
 * need as little for their end.
 */
static void prepare_partial(struct thread *thread, struct region *region)
{
	struct span *span = thread->partial;
	struct hole hole;

	if (thread->has_faded || span->wait_hi || region->policy->fade != REGION_FADE_UNFREED ||
	    !buffer_next_hole(span, span->resume, PREPARED_BYTES, &hole))
		return;
	thread->partial = NULL;
	prepare_hole(region, span, hole);
}

void region_prepare(struct thread *thread, struct region *region, const struct policy *policy)
{
	struct heap *heap = thread->heap;
	struct span *span;

	if (region->policy != policy || region->counters->name != policy->name)
		region->counters = stats_of(thread, policy->name);
	*region = (struct region){.policy = policy, .counters = region->counters, .name = policy->name};
	if (region_is_sheltered(region) || policy->limit_bytes != SIZE_MAX || check_covers(region))
		return;
	/* While blocks keep fading, survivors' holes come first, and are found when they are needed. */
	if (thread->partial)
		prepare_partial(thread, region);
	else if ((span = buffer_take_spare(heap, policy->size_log2)))
		prepare_hole(region, span, (struct hole){.lo = buffer_begin(span), .hi = span_end(span)});
}

void region_unprepare(struct thread *thread, struct region *region)
{
	struct span *span = region->buffers;

	if (!span)
		return;
	region->buffers = NULL;
	span_set_region(span, NULL);
	if (span->had_keeps)
		put_survivors(thread, span, region->extent);
	else
		buffer_put(thread->heap, span);
}
