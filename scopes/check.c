/*
 * check.c: see check.h: start, allocation, threads, and the end of a scope that is checked.
 *
 * The buffers of checked scopes are apart from all others. A thread goes on in the last one behind what its
 * last scope has used (thread->checked; span->wait_hi is where), so that a small scope uses up few
 * addresses: a page under guard, else what it needs and a granule. Full ones go to quarantine.
 */
#include "check.h"

#include <stdlib.h>

#include "escape.h"
#include "finding.h"
#include "guard.h"
#include "scopes.h"
#include "stack.h"

/* Without fences what is reclaimed keeps its memory, so less of it waits. */
#define UNFENCED_BYTES ((size_t)64 << 20)

static struct checking {
	bool has_said_no_fence;
} checking;

static bool late_free(void *p, const char *call);

__attribute__((cold)) void check_prepare(void)
{
	if (check_is_on())
		range_want_notes();
}

__attribute__((cold)) void check_start(void)
{
	if (!check_is_on())
		return;
	if (!stack_start() || !finding_start()) {
		report("check: no memory for its tables; LIBREGION_CHECK has no effect");
		options.check = CHECK_OFF;
		return;
	}
	quarantine_set_bytes(options.check == CHECK_GUARD ? options.check_bytes : UNFENCED_BYTES);
	buffer_set_late_hook(late_free);
}

/* Allocation. */

void check_note(void *p)
{
	struct thread *thread = scope_thread(heap_self());
	uint32_t *note = p && range_has(p) ? range_note_of(p) : NULL;

	if (note)
		__atomic_store_n(note, thread ? stack_here(thread) : 0, __ATOMIC_RELAXED);
}

/* Opening and closing. */

void check_opened(struct scope *scope)
{
	heap_set_slow(scope->thread->heap);
	scope->must_close = true;
}

void check_closed(struct thread *thread, struct scope *scope)
{
	heap_set_slow(thread->heap);
	/* The next one is to come by here as well. */
	scope->ready = NULL;
	scope->ready_for = NULL;
}

/* Where the program's part of the stack begins, once a scope has been left. */
static struct escape_place place_left(struct thread *thread)
{
	struct escape_place place = {.sp = thread->left_frame};
	uintptr_t departure = thread->departure;
	struct stack_frame frame;

	thread->departure = 0;
	/* A site's function has returned: below its frame is what slot_exit has put there. */
	if (departure && departure < place.sp && place.sp - departure <= 64) {
		place.sp = place.returned = departure;
		return place;
	}
	if (place.sp == UINTPTR_MAX)
		place.sp = scope_here();
	/* A block of a function: which of its variables are dead can't be told. */
	if (!thread->left_call && stack_frame_of(thread, place.sp, &frame))
		place.sp = frame.end;
	return place;
}

/* What has come of a buffer's blocks. */
struct ended {
	size_t reclaimed_blocks, reclaimed_bytes, faded_blocks, faded_bytes;
};

static void end_block(unsigned char *head, const struct stack_ending *ending, struct ended *ended)
{
	size_t bytes = granule_size(head) << GRANULE_SHIFT;
	uint32_t *note = range_note_of(range_of_map(head));
	struct stack_ending own = *ending;

	if (granule_load(head) & GRANULE_FADED)
		return;
	if (!ending->scope) {
		granule_mark(head, GRANULE_FADED);
		ended->faded_blocks++;
		ended->faded_bytes += bytes;
		return;
	}
	own.allocated = *note;
	*note = stack_note_ending(&own);
	/* A thread that frees it just now is late. */
	granule_mark(head, GRANULE_FREED);
	ended->reclaimed_blocks++;
	ended->reclaimed_bytes += bytes;
}

/* Without a name of a scope in the ending, blocks fade. */
static void end_blocks(struct span *span, const struct stack_ending *ending, struct ended *ended)
{
	unsigned char *at = range_map_of(span->fresh_lo), *end = range_map_of(span->fresh_hi);

	while (span->fresh_lo && (at = granule_next_live(at, end)) < end) {
		size_t granules = granule_size(at);
		end_block(at, ending, ended);
		at += granules;
	}
}

static char *page_up(char *p)
{
	return (char *)(((uintptr_t)p + OS_PAGE - 1) & ~(uintptr_t)(OS_PAGE - 1));
}

static void to_quarantine(struct span *span)
{
	if (quarantine_put(span) && options.check == CHECK_GUARD)
		report("check: %zu bytes of addresses are used up (LIBREGION_CHECK_BYTES): from now on the oldest "
		       "are used again, and touches of what lay there aren't seen",
		       (size_t)options.check_bytes);
}

static void fence(struct span *span, char *hi)
{
	char *lo = span->wait_hi ? span->wait_hi : span->start;

	if (!quarantine_fence(span, lo, hi) && !checking.has_said_no_fence) {
		checking.has_said_no_fence = true;
		report("check: the kernel refuses to protect more memory (vm.max_map_count?): some touches aren't "
		       "seen");
	}
}

/* A buffer that its scope has done with. */
static void put(struct thread *thread, struct span *span)
{
	bool is_guarded = options.check == CHECK_GUARD;

	if (span->fresh_lo) {
		char *hi = is_guarded ? page_up(span->fresh_hi) : span->fresh_hi + GRANULE_BYTES;
		hi = hi < span_end(span) ? hi : span_end(span);
		if (is_guarded)
			fence(span, hi);
		__atomic_store_n(&span->wait_hi, hi, __ATOMIC_RELAXED);
		span->had_keeps = true;
	}
	if (!span->wait_hi) {
		buffer_clear(span);
		buffer_put(thread->heap, span);
	} else if (thread->checked || span_end(span) - span->wait_hi < (ptrdiff_t)OS_PAGE) {
		to_quarantine(span);
	} else {
		span->resume = span->wait_hi;
		thread->checked = span;
	}
}

/* What the scope has left alive, counted. */
static size_t count_left(struct region *region)
{
	struct region_stats *stats = &region->counters->stats;
	size_t blocks = 0;

	for (struct span *span = region->buffers; span; span = span->next) {
		span_set_region(span, NULL);
		if (!span->fresh_lo)
			continue;
		const unsigned char *from = range_map_of(span->fresh_lo), *end = range_map_of(span->fresh_hi);
		struct granule_live live = granule_add_live(from, end);
		stats_add(&stats->blocks_allocated, live.blocks + live.freed_blocks);
		stats_add(&stats->blocks_freed, live.freed_blocks);
		blocks += live.blocks;
	}
	return blocks;
}

static void count_ended(struct region *region, const struct ended *ended)
{
	struct region_stats *stats = &region->counters->stats;
	size_t lost_bytes = ended->reclaimed_bytes + ended->faded_bytes + region->kept_bytes;

	stats_add(&stats->blocks_reclaimed, ended->reclaimed_blocks);
	stats_add(&stats->bytes_reclaimed, ended->reclaimed_bytes);
	stats_add(&stats->blocks_faded, ended->faded_blocks);
	stats_add(&stats->bytes_faded, ended->faded_bytes);
	stats_add(&stats->bytes_allocated, region->bumped_bytes);
	stats_add(&stats->bytes_freed, region->bumped_bytes > lost_bytes ? region->bumped_bytes - lost_bytes : 0);
	stats_max(&stats->peak_bytes, region->held_bytes);
}

void check_close(struct thread *thread, struct region *region, bool reclaims)
{
	struct stack_ending ending = {.scope = region->policy->name};
	size_t blocks = count_left(region);
	struct escape_place place = place_left(thread);
	struct ended ended = {0};

	if (blocks > 0 && reclaims)
		ending.ended = place.ended = stack_here(thread);
	if (blocks > 0 && reclaims && options.check == CHECK_ESCAPES)
		reclaims = escape_find(thread, region, &place);
	if (!reclaims)
		ending.scope = NULL;
	for (struct span *span = region->buffers, *next; span; span = next) {
		next = span->next;
		end_blocks(span, &ending, &ended);
		put(thread, span);
	}
	count_ended(region, &ended);
	region->buffers = NULL;
	if (options.check == CHECK_GUARD && ended.reclaimed_blocks > 0)
		guard_is_up(thread);
}

/* Frees that come late. */

static bool late_free(void *p, const char *call)
{
	struct thread *thread = scope_thread(heap_self());
	uint32_t *note = range_note_of(p);
	uintptr_t frames[STACK_FRAMES];
	struct stack_ending ending;

	if (!note || (uintptr_t)p % GRANULE_BYTES != 0 || !stack_is_ending(*note, &ending))
		return false;
	finding_report(&(struct finding){
		.kind = FINDING_LATE_FREE, .scope = ending.scope, .block = p, .address = p, .call = call,
		.bytes = granule_size(range_map_of(p)) << GRANULE_SHIFT,
		.allocated = ending.allocated, .ended = ending.ended,
		.frames = frames, .frame_count = thread ? stack_take(thread, frames, STACK_FRAMES) : 0,
	});
	return true;
}

/* Life. */

__attribute__((cold)) void check_thread_begins(struct thread *thread)
{
	if (check_is_on())
		heap_set_slow(thread->heap);
}

__attribute__((cold)) void check_trim(struct thread *thread)
{
	struct span *span = thread->checked;

	thread->checked = NULL;
	if (span)
		to_quarantine(span);
}

__attribute__((cold)) void check_thread_ends(struct thread *thread)
{
	guard_thread_ends(thread);
}

struct span *check_make_buffer(struct heap *heap, const struct policy *policy)
{
	struct span *span = NULL;

	while (!span && quarantine_let_go())
		span = buffer_make(heap, policy->size_log2, policy->buffer_count);
	return span;
}

void check_gives_way(void)
{
	while (check_is_on() && quarantine_let_go())
		continue;
}

void check_after_fork_in_child(void)
{
	if (check_is_on())
		finding_after_fork_in_child();
}

__attribute__((cold)) void check_finish(void)
{
	/* exit() may be called again from here, and goes on with what is left to be done. */
	if (check_is_on() && finding_sum_up() && options.check_exit > 0)
		exit((int)options.check_exit);
}
