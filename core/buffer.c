/*
 * buffer.c: the cache of empty buffers, holes, retired buffers, and the less common frees.
 */
#include "buffer.h"

#include <string.h>

#include "gone.h"
#include "os.h"
#include "report.h"
#include "waiting.h"

/* A hole smaller than this is left to the blocks around it: going through it costs more than it holds. */
#define HOLE_MIN_BYTES (GRANULE_ROOM_LEAST << GRANULE_SHIFT)

/* So much of a hole is made ready at once: who needs little should not pay for a look at all of it. */
#define HOLE_STEP_BYTES ((size_t)16 << 10)

/* Where a buffer is looked at for freed blocks: so many places, a vector of the map each. */
#define SAMPLE_COUNT 8

static struct buffers {
	struct lock lock;      /* guards the list of retired buffers */
	struct span *retired;  /* with room for new blocks first, dense ones last */
	struct span *retired_last;
	size_t cache_bytes;
	bool has_reclaimed;    /* some scope has reclaimed unfreed blocks */
	bool has_reported_late_free;
	uint64_t late_frees;
	buffer_late_hook *late_hook;
} buffers = {.cache_bytes = (size_t)8 << 20};

__attribute__((cold)) void buffer_set_cache_bytes(size_t bytes)
{
	buffers.cache_bytes = bytes;
}

struct lock *buffer_lock(void)
{
	return &buffers.lock;
}

__attribute__((cold)) unsigned buffer_size_log2(size_t bytes)
{
	unsigned log2 = bytes > 1 ? class_log2_floor(bytes - 1) + 1 : 0;

	return log2 < BUFFER_MIN_LOG2 ? BUFFER_MIN_LOG2 : log2 > BUFFER_MAX_LOG2 ? BUFFER_MAX_LOG2 : log2;
}

static unsigned size_log2_of(const struct span *span)
{
	return SLICE_SHIFT + class_log2_floor(span->slices);
}

/* Empty buffers. */

struct span *buffer_make(struct heap *heap, unsigned size_log2, size_t count)
{
	struct span *span = NULL;

	/* Only as many as there is room for in the cache. */
	size_t room = (buffers.cache_bytes - heap->spare_bytes) >> size_log2;
	count = heap->spare_bytes >= buffers.cache_bytes || room == 0 ? 1 : count <= room ? count : room;
	for (size_t i = 0; i < count; i++) {
		if (span)
			buffer_put(heap, span);
		span = span_alloc((size_t)1 << (size_log2 - SLICE_SHIFT), 1, SPAN_BUFFER);
		if (!span)
			return buffer_take_spare(heap, size_log2);
		span->has_map = true;
		span->used_end = span->start;
	}
	return span;
}

bool buffer_has_spare(const struct heap *heap, const struct span *span)
{
	return heap->spare[size_log2_of(span) - BUFFER_MIN_LOG2] != NULL;
}

void buffer_give_back(struct span *span)
{
	if (span->reclaimer)
		gone_note(span, span->reclaimer);
	span_free(span, false);
}

void buffer_put(struct heap *heap, struct span *span)
{
	assert(!span->region && !span->had_keeps && span->used_end == span->start);
	if (heap->spare_bytes + span_bytes(span) > buffers.cache_bytes) {
		buffer_give_back(span);
		return;
	}
	struct span **list = &heap->spare[size_log2_of(span) - BUFFER_MIN_LOG2];
	span->next = *list;
	*list = span;
	heap->spare_bytes += span_bytes(span);
}

void buffer_drop_spares(struct heap *heap)
{
	for (unsigned i = 0; i < BUFFER_SIZES; i++)
		for (struct span *span = heap->spare[i], *next; span; span = next) {
			next = span->next;
			buffer_give_back(span);
		}
	memset(heap->spare, 0, sizeof(heap->spare));
	heap->spare_bytes = 0;
}

void buffer_clear(struct span *span)
{
	granule_zero(range_map_of(span->start), range_map_of(span->used_end));
	span->used_end = span->start;
	span->had_keeps = false;
	span->wait_blocks = span->wait_granules = 0;
	__atomic_store_n(&span->wait_hi, NULL, __ATOMIC_RELAXED);
}

/* Holes. */

/* Where the hole that begins at `at` ends, as far as it is looked at: behind what is used, all is hole. */
static unsigned char *hole_end(const struct span *span, unsigned char *at, size_t wanted)
{
	unsigned char *end = buffer_map_end(span), *used = range_map_of(span->used_end);
	size_t step = HOLE_STEP_BYTES >> GRANULE_SHIFT;

	if (at >= used)
		return end;
	step = step > wanted ? step : wanted;
	unsigned char *stop = (size_t)(used - at) > step ? at + step : used;
	unsigned char *live = granule_next_live(at, stop);
	return live == used ? end : live;
}

/* Makes [at, end) of the map zero, and counts the blocks that were freed there. */
static size_t clean_hole(const struct span *span, unsigned char *at, unsigned char *end)
{
	unsigned char *used = range_map_of(span->used_end);

	end = used < end ? used : end;
	if (at >= end)
		return 0;
	size_t blocks = granule_count(at, end).blocks;
	granule_zero(at, end);
	return blocks;
}

bool buffer_next_hole(struct span *span, char *from, size_t bytes, struct hole *hole)
{
	unsigned char *at = range_map_of(from), *end = buffer_map_end(span);
	size_t wanted = (bytes > HOLE_MIN_BYTES ? bytes : HOLE_MIN_BYTES) >> GRANULE_SHIFT;

	at = granule_next_room(at, range_map_of(span->used_end), wanted);
	if (at >= end || (size_t)(end - at) < wanted)
		return false;
	unsigned char *stop = hole_end(span, at, wanted);
	*hole = (struct hole){.lo = range_of_map(at), .hi = range_of_map(stop)};
	hole->freed_blocks = clean_hole(span, at, stop);
	return true;
}

bool buffer_may_have_holes(const struct span *span)
{
	const unsigned char *map = range_map_of(span->start);
	size_t used = (size_t)(span->used_end - span->start) >> GRANULE_SHIFT;

	for (size_t i = 0; i < SAMPLE_COUNT; i++)
		if (granule_any_freed(map + i * (used / SAMPLE_COUNT), used / SAMPLE_COUNT))
			return true;
	return span->had_keeps;
}

/* What a buffer holds. */
struct survey {
	size_t live;       /* live blocks */
	size_t room_bytes; /* in holes that buffer_next_hole would find */
};

static struct survey survey_of(const struct span *span)
{
	struct granule_room room = granule_survey(buffer_map(span), range_map_of(span->used_end));
	size_t behind = (size_t)(buffer_map_end(span) - room.last);

	room.granules += behind >= GRANULE_ROOM_LEAST ? behind : 0;
	return (struct survey){.live = room.live, .room_bytes = room.granules << GRANULE_SHIFT};
}

/* Is there enough room in holes to be worth going through them? */
static bool has_room(const struct span *span, struct survey survey)
{
	return survey.room_bytes >= span_bytes(span) / 4;
}

/* What earlier scopes have left, and nobody has freed since, needs nothing. */
static unsigned char *skip_settled(struct buffer_ending *ending, unsigned char *at, const unsigned char *end)
{
	unsigned char *to = granule_skip_settled(at, end);

	ending->has_survivors = ending->has_survivors || granule_any_faded(at, to);
	return to;
}

struct buffer_ending buffer_end_scope(struct span *span, bool reclaims)
{
	unsigned char *at = range_map_of(span->fresh_lo), *end = range_map_of(span->fresh_hi), *live;
	struct buffer_ending ending = {0};

	while ((live = granule_next_live(at = skip_settled(&ending, at, end), end)) < end) {
		size_t size = granule_size(live);
		bool is_faded = granule_load(live) & GRANULE_FADED;

		granule_zero(at, live);
		ending.blocks += !is_faded;
		ending.bytes += is_faded ? 0 : size << GRANULE_SHIFT;
		at = live + size;
		if (reclaims && !is_faded) {
			granule_clear(live);
			continue;
		}
		/* A block that is freed just now counts as survivor; a hole it is all the same, later. */
		if (!is_faded)
			granule_mark(live, GRANULE_FADED);
		ending.has_survivors = true;
	}
	granule_zero(at, end);
	if (ending.has_survivors)
		span->had_keeps = true;
	return ending;
}

struct buffer_fresh buffer_count_fresh(const struct span *span)
{
	const unsigned char *at = range_map_of(span->fresh_lo), *end = range_map_of(span->fresh_hi);
	struct buffer_fresh fresh = {0};

	for (; (at = granule_next_live(at, end)) < end; at += granule_size(at))
		if (!(granule_load(at) & GRANULE_FADED)) {
			fresh.blocks++;
			fresh.bytes += granule_size(at) << GRANULE_SHIFT;
		}
	return fresh;
}

unsigned char *buffer_find(const struct span *span, const void *p)
{
	const unsigned char *head = granule_find_head(range_map_of(p), buffer_map(span));

	return head && granule_is_live(granule_load(head)) ? (unsigned char *)head : NULL;
}

/* Retired buffers: the list, under the lock. */

/* Atomic, for who only asks whether there is any. */
static void set_link(struct span **link, struct span *span)
{
	__atomic_store_n(link, span, __ATOMIC_RELAXED);
}

static void list_add(struct span *span)
{
	span->next = span->is_full ? NULL : buffers.retired;
	span->prev = span->is_full ? buffers.retired_last : NULL;
	set_link(span->prev ? &span->prev->next : &buffers.retired, span);
	*(span->next ? &span->next->prev : &buffers.retired_last) = span;
}

static void list_remove(struct span *span)
{
	set_link(span->prev ? &span->prev->next : &buffers.retired, span->next);
	*(span->next ? &span->next->prev : &buffers.retired_last) = span->prev;
}

/*
 * Puts a buffer that is in no list where it belongs; false: it is empty, and nobody's. SPAN_RETIRED means
 * that it is in the list: a free that comes late looks at that, under the lock, and at nothing else.
 *
 * A free marks the block and then looks at the kind; here the kind is set and then the blocks are
 * looked at. So either the free counts down, or the block isn't counted, or both, which is mended when
 * `live` has become too low; but not neither, except for a free whose inlined half was under way while
 * the block faded: then `live` stays too high.
 */
static bool settle(struct span *span)
{
	struct survey survey;
	uint32_t left;

	do {
		__atomic_store_n(&span->live, 0, __ATOMIC_RELAXED);
		span_set_kind(span, SPAN_RETIRED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		survey = survey_of(span);
		if (survey.live == 0) {
			span_set_kind(span, SPAN_BUFFER);
			return false;
		}
		__atomic_store_n(&span->live_wake, (uint32_t)survey.live / 4, __ATOMIC_RELAXED);
		/* Frees that came meanwhile have counted down already. */
		left = __atomic_add_fetch(&span->live, (uint32_t)survey.live, __ATOMIC_ACQ_REL);
	} while ((int32_t)left <= 0);
	span->is_full = !has_room(span, survey);
	list_add(span);
	return true;
}

static void release(struct span *span)
{
	buffer_clear(span);
	buffer_give_back(span);
}

bool buffer_retire(struct span *span)
{
	lock_acquire(&buffers.lock);
	span_set_region(span, NULL);
	bool is_retired = settle(span);
	lock_release(&buffers.lock);
	return is_retired;
}

struct span *buffer_adopt(void)
{
	/* Unlocked, as a hint: most programs never have one. */
	if (!__atomic_load_n(&buffers.retired, __ATOMIC_RELAXED))
		return NULL;
	lock_acquire(&buffers.lock);
	struct span *span = buffers.retired;
	if (span && !span->is_full) {
		list_remove(span);
		span->resume = buffer_begin(span);
		span_set_kind(span, SPAN_BUFFER);
	} else {
		span = NULL;
	}
	lock_release(&buffers.lock);
	return span;
}

/* Looks again at a retired buffer that has lost blocks. */
static void reconsider(struct span *span)
{
	bool is_empty = false;

	lock_acquire(&buffers.lock);
	if (span_kind(span) == SPAN_RETIRED) {
		list_remove(span);
		is_empty = !settle(span);
	}
	lock_release(&buffers.lock);
	if (is_empty)
		release(span);
}

static void purge_pages(char *lo, char *hi)
{
	lo = (char *)(((uintptr_t)lo + OS_PAGE - 1) & ~(OS_PAGE - 1));
	hi = (char *)((uintptr_t)hi & ~(OS_PAGE - 1));
	if (lo < hi)
		os_purge(lo, (size_t)(hi - lo));
}

/* Gives back the pages of a retired buffer that no live block touches. */
static void purge_holes(const struct span *span)
{
	const unsigned char *at = buffer_map(span), *end = range_map_of(span->used_end), *live;

	while (at < end) {
		live = granule_next_live(at, end);
		purge_pages(range_of_map(at), range_of_map(live));
		at = live < end ? live + granule_size(live) : end;
	}
}

void buffer_sweep_retired(void)
{
	struct span *empty = NULL;

	lock_acquire(&buffers.lock);
	for (struct span *span = buffers.retired, *next; span; span = next) {
		next = span->next;
		if (survey_of(span).live > 0) {
			purge_holes(span);
			continue;
		}
		list_remove(span);
		span_set_kind(span, SPAN_BUFFER);
		span->next = empty;
		empty = span;
	}
	lock_release(&buffers.lock);
	for (struct span *next; empty; empty = next) {
		next = empty->next;
		release(empty);
	}
}

/* Frees that the inlined path leaves. */

static void set_has_reclaimed(void)
{
	if (!__atomic_load_n(&buffers.has_reclaimed, __ATOMIC_RELAXED))
		__atomic_store_n(&buffers.has_reclaimed, true, __ATOMIC_RELAXED);
}

void buffer_note_reclaim(struct span *span, const char *scope_name)
{
	span->reclaimer = scope_name;
	set_has_reclaimed();
}

void buffer_note_reclaim_big(const struct span *span, const char *scope_name)
{
	gone_note(span, scope_name);
	set_has_reclaimed();
}

void buffer_set_late_hook(buffer_late_hook *hook)
{
	buffers.late_hook = hook;
}

uint64_t buffer_late_frees(void)
{
	return __atomic_load_n(&buffers.late_frees, __ATOMIC_RELAXED);
}

static void late_free(void *p, const char *call, const char *scope_name)
{
	__atomic_add_fetch(&buffers.late_frees, 1, __ATOMIC_RELAXED);
	if (!__atomic_exchange_n(&buffers.has_reported_late_free, true, __ATOMIC_RELAXED))
		report("%s(%p): the block was reclaimed at the end of scope \"%s\"; ignored, and not reported again",
		       call, p, scope_name);
}

void buffer_free_gone(void *p, const char *call)
{
	const char *name = gone_name_of(p);

	if (__atomic_load_n(&buffers.has_reclaimed, __ATOMIC_RELAXED) && (uintptr_t)p % GRANULE_BYTES == 0)
		late_free(p, call, name ? name : "?");
	else
		report_misuse("%s(%p): lies in memory of the heap range that is not in use", call, p);
}

/* p isn't the start of a live block: says what it is. */
static void free_of_no_block(struct span *span, void *p, const char *call)
{
	const unsigned char *byte = range_map_of(p);
	const unsigned char *head = granule_find_head(byte, buffer_map(span));
	bool is_start = head == byte && (uintptr_t)p % GRANULE_BYTES == 0;
	/* In this buffer, or in what was here before. */
	const char *name = span->reclaimer ? span->reclaimer : gone_name_of(p);

	if (buffers.late_hook && buffers.late_hook(p, call))
		__atomic_add_fetch(&buffers.late_frees, 1, __ATOMIC_RELAXED);
	else if (is_start)
		report_misuse("%s(%p): double free of a block of %zu bytes in a buffer", call, p,
		              granule_size(head) << GRANULE_SHIFT);
	else if (name && (uintptr_t)p % GRANULE_BYTES == 0)
		late_free(p, call, name);
	else if (head)
		report_misuse("%s(%p): not the start of a block: it lies %zu bytes into one of %zu", call,
		              p, (size_t)((char *)p - (char *)range_of_map(head)),
		              granule_size(head) << GRANULE_SHIFT);
	else
		report_misuse("%s(%p): lies in a buffer, but in no block of it", call, p);
}

/* Frees the newest block of the thread's region by moving the cursor back. */
static bool free_newest(struct heap *heap, unsigned char *head, char *p)
{
	size_t bytes = granule_size(head) << GRANULE_SHIFT;

	if (p + bytes != heap->cursor || (granule_load(head) & GRANULE_FADED))
		return false;
	heap_pop_newest(heap, p, bytes);
	granule_clear(head);
	return true;
}

void buffer_free(struct heap *heap, struct span *span, void *p, const char *call)
{
	unsigned char *head = range_map_of(p);
	unsigned byte = granule_load(head);

	if (!granule_is_live(byte) || (uintptr_t)p % GRANULE_BYTES) {
		free_of_no_block(span, p, call);
		return;
	}
	if (free_newest(heap, head, p))
		return;
	/* A block that has faded is changed by nobody else; in one that hasn't, its owner may set that bit. */
	if (byte & GRANULE_FADED) {
		__atomic_store_n(head, (unsigned char)(byte | GRANULE_FREED), __ATOMIC_RELEASE);
	} else if (granule_mark(head, GRANULE_FREED) & GRANULE_FREED) {
		free_of_no_block(span, p, call);
		return;
	}
	enum span_kind kind = span_kind(span);
	if (kind == SPAN_WAITING)
		waiting_freed(span);
	if (kind != SPAN_RETIRED)
		return;
	uint32_t left = __atomic_sub_fetch(&span->live, 1, __ATOMIC_ACQ_REL);
	if ((int32_t)left <= (int32_t)__atomic_load_n(&span->live_wake, __ATOMIC_RELAXED))
		reconsider(span);
}
