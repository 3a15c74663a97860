/*
 * waiting.c: the list of waiting buffers, and what becomes of them after a search (search.c).
 */
#include "waiting.h"

#include <string.h>

#include "big.h"
#include "buffer.h"
#include "os.h"

static struct waiting {
	struct lock lock;   /* guards the list */
	struct span *first;
	size_t bytes;       /* of buffers that came since it was last taken */
	size_t blocks;      /* that wait, in the list or not; atomic, as the next */
	size_t granules;
	size_t gone_blocks; /* of buffers that were given back when their last block was freed */
	size_t gone_granules;
	struct big_list bigs;       /* that wait */
	struct big_list taken_bigs; /* that a search is about; for whoever makes it */
} waiting;

struct lock *waiting_lock(void)
{
	return &waiting.lock;
}

void waiting_note(struct span *span, const char *name, struct granule_live live, char *hi)
{
	span->wait_name = name;
	span->wait_blocks += (uint32_t)live.blocks;
	span->wait_granules += (uint32_t)live.granules;
	__atomic_add_fetch(&waiting.blocks, live.blocks, __ATOMIC_RELAXED);
	__atomic_add_fetch(&waiting.granules, live.granules, __ATOMIC_RELAXED);
	span->had_keeps = true;
	__atomic_store_n(&span->wait_hi, hi, __ATOMIC_RELAXED);
}

static void list_add(struct span *span)
{
	span->prev = NULL;
	span->next = waiting.first;
	if (waiting.first)
		waiting.first->prev = span;
	waiting.first = span;
	span->is_full = true;
}

static void list_remove(struct span *span)
{
	*(span->prev ? &span->prev->next : &waiting.first) = span->next;
	if (span->next)
		span->next->prev = span->prev;
	span->is_full = false;
}

/*
 * Frees count down from what was noted. It is a hint, as with retired buffers: blocks that were freed
 * before, or inside a scope, don't count, so the buffer may be empty earlier than its count says.
 */
static void start_count(struct span *span)
{
	__atomic_store_n(&span->live, span->wait_blocks, __ATOMIC_RELAXED);
	span_set_kind(span, SPAN_WAITING);
}

void waiting_add(struct span *span)
{
	size_t used_bytes = (size_t)(span->used_end - span->start);

	span->wait_count = 0;
	lock_acquire(&waiting.lock);
	span_set_region(span, NULL);
	start_count(span);
	list_add(span);
	__atomic_store_n(&waiting.bytes, waiting.bytes + used_bytes, __ATOMIC_RELAXED);
	lock_release(&waiting.lock);
}

/* The buffer is no waiting one any more: SPAN_BUFFER, and the caller's. */
static void leave(struct span *span)
{
	span->wait_blocks = span->wait_granules = 0;
	__atomic_store_n(&span->wait_hi, NULL, __ATOMIC_RELAXED);
	span_set_kind(span, SPAN_BUFFER);
}

/* Takes a buffer that nothing lives in out of the list, unless a search has it. */
static bool take_empty(struct span *span)
{
	if (span_kind(span) != SPAN_WAITING || !span->is_full)
		return false;
	const unsigned char *end = range_map_of(span->used_end);
	if (granule_next_live(buffer_map(span), end) < end)
		return false;
	list_remove(span);
	waiting.gone_blocks += span->wait_blocks;
	waiting.gone_granules += span->wait_granules;
	__atomic_sub_fetch(&waiting.blocks, span->wait_blocks, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&waiting.granules, span->wait_granules, __ATOMIC_RELAXED);
	leave(span);
	return true;
}

void waiting_freed(struct span *span)
{
	if ((int32_t)__atomic_sub_fetch(&span->live, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	lock_acquire(&waiting.lock);
	bool is_mine = take_empty(span);
	lock_release(&waiting.lock);
	if (is_mine) {
		buffer_clear(span);
		buffer_give_back(span);
	}
}

struct granule_live waiting_gone(void)
{
	lock_acquire(&waiting.lock);
	struct granule_live gone = {.blocks = waiting.gone_blocks, .granules = waiting.gone_granules};
	lock_release(&waiting.lock);
	return gone;
}

struct granule_live waiting_now(void)
{
	return (struct granule_live){
		.blocks = __atomic_load_n(&waiting.blocks, __ATOMIC_RELAXED),
		.granules = __atomic_load_n(&waiting.granules, __ATOMIC_RELAXED),
	};
}

size_t waiting_bytes(void)
{
	return __atomic_load_n(&waiting.bytes, __ATOMIC_RELAXED);
}

struct span *waiting_take(void)
{
	lock_acquire(&waiting.lock);
	struct span *list = waiting.first;
	for (struct span *span = list; span; span = span->next)
		span->is_full = false;
	waiting.first = NULL;
	struct big_list bigs = waiting.bigs;
	waiting.bigs = waiting.taken_bigs;
	waiting.taken_bigs = bigs;
	__atomic_store_n(&waiting.bytes, 0, __ATOMIC_RELAXED);
	lock_release(&waiting.lock);
	return list;
}

void waiting_put_back(struct span *list)
{
	struct big_list *bigs = &waiting.taken_bigs;

	lock_acquire(&waiting.lock);
	for (struct span *span = list, *next; span; span = next) {
		next = span->next;
		list_add(span);
	}
	for (size_t i = 0; i < bigs->count; i++)
		big_list_add(&waiting.bigs, &bigs->refs[i]);
	bigs->count = 0;
	lock_release(&waiting.lock);
}

/*
 * What was reclaimed is cleared: who gets the memory next need not write to all of it, and the pointers in
 * it, old ones to old neighbours, would keep one another's blocks for ever.
 */
static void clear_memory(char *from, const char *end)
{
	memset(from, 0, (size_t)(end - from));
}

/* Nothing lives in it that has been found: what there is, is reclaimed. */
static void reclaim_all(struct span *span, struct granule_live live, struct settled *settled)
{
	settled->reclaimed_blocks = live.blocks;
	settled->reclaimed_granules = live.granules;
	if (live.blocks > 0)
		buffer_note_reclaim(span, span->wait_name);
	leave(span);
	clear_memory(span->start, span->used_end);
	buffer_clear(span);
	settled->span = SETTLED_EMPTY;
}

/* What was looked through. */
struct outcome {
	size_t reclaimed_blocks, reclaimed_granules;
	size_t waiting_blocks, waiting_granules;
};

/* Does what has been found so often, by what is certain or by doubtful words, fade? */
static bool fades(unsigned searches, const unsigned char *head)
{
	return searches >= (mark_is_doubtful(head) ? WAITING_DOUBTS : WAITING_SEARCHES);
}

static struct outcome look_through(struct span *span, bool is_known)
{
	unsigned char *at = buffer_map(span), *end = range_map_of(span->used_end), *live;
	unsigned searches = span->wait_count + 1u;
	struct outcome outcome = {0};

	while ((live = granule_next_live(at, end)) < end) {
		size_t size = granule_size(live);

		granule_zero(at, live);
		at = live + size;
		if (granule_load(live) & GRANULE_FADED)
			continue;
		if (is_known && !mark_is_reached(live)) {
			outcome.reclaimed_blocks++;
			outcome.reclaimed_granules += size;
			clear_memory(range_of_map(live), range_of_map(at));
			granule_clear(live);
		} else if (!is_known || fades(searches, live)) {
			granule_mark(live, GRANULE_FADED);
		} else {
			outcome.waiting_blocks++;
			outcome.waiting_granules += size;
		}
	}
	granule_zero(at, end);
	return outcome;
}

/* Blocks that have faded, or were freed since they wait, have outlived their scope. */
static void settle_found(struct span *span, bool is_known, struct settled *settled)
{
	struct outcome outcome = look_through(span, is_known);

	if (outcome.reclaimed_blocks > 0)
		buffer_note_reclaim(span, span->wait_name);
	settled->reclaimed_blocks = outcome.reclaimed_blocks;
	settled->reclaimed_granules = outcome.reclaimed_granules;
	settled->faded_blocks = span->wait_blocks - outcome.reclaimed_blocks - outcome.waiting_blocks;
	settled->faded_granules = span->wait_granules - outcome.reclaimed_granules - outcome.waiting_granules;
	span->wait_blocks = (uint32_t)outcome.waiting_blocks;
	span->wait_granules = (uint32_t)outcome.waiting_granules;
}

static void wait_on(struct span *span)
{
	span->wait_count++;
	lock_acquire(&waiting.lock);
	start_count(span);
	list_add(span);
	lock_release(&waiting.lock);
}

static struct settled settle(struct span *span, bool is_known)
{
	struct granule_live live = granule_add_live(buffer_map(span), range_map_of(span->used_end));
	struct settled settled = {0};

	if (is_known && !live.any_faded && !mark_has_reached(span)) {
		settled.faded_blocks = span->wait_blocks - live.blocks;
		settled.faded_granules = span->wait_granules - live.granules;
		reclaim_all(span, live, &settled);
		return settled;
	}
	settle_found(span, is_known, &settled);
	if (span->wait_blocks > 0) {
		wait_on(span);
		settled.span = SETTLED_WAITS;
		return settled;
	}
	leave(span);
	settled.span = buffer_retire(span) ? SETTLED_RETIRED : SETTLED_EMPTY;
	if (settled.span == SETTLED_EMPTY)
		buffer_clear(span);
	return settled;
}

struct settled waiting_settle(struct span *span, bool is_known)
{
	struct settled settled = settle(span, is_known);

	__atomic_sub_fetch(&waiting.blocks, settled.reclaimed_blocks + settled.faded_blocks, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&waiting.granules, settled.reclaimed_granules + settled.faded_granules,
	                   __ATOMIC_RELAXED);
	return settled;
}

/* Big blocks. */

void waiting_add_bigs(struct big_list *list, const char *name)
{
	size_t bytes = 0;

	big_list_compact(list);
	if (list->count == 0)
		return;
	lock_acquire(&waiting.lock);
	for (size_t i = 0; i < list->count; i++) {
		list->refs[i].scope_name = name;
		if (big_list_add(&waiting.bigs, &list->refs[i]))
			bytes += span_bytes(span_of(list->refs[i].start));
	}
	__atomic_store_n(&waiting.bytes, waiting.bytes + bytes, __ATOMIC_RELAXED);
	lock_release(&waiting.lock);
}

bool waiting_has_bigs(void)
{
	return waiting.taken_bigs.count > 0;
}

const struct big_list *waiting_bigs(void)
{
	return &waiting.taken_bigs;
}

size_t waiting_settle_bigs(bool is_known)
{
	struct big_list *list = &waiting.taken_bigs;
	size_t reclaimed = 0;

	for (size_t i = 0; i < list->count; i++) {
		struct big_ref ref = list->refs[i];
		struct span *span = big_list_find(&ref);

		if (!span || !is_known)
			continue;
		if (!mark_is_reached(range_map_of(ref.start))) {
			buffer_note_reclaim_big(span, ref.scope_name);
			/* Without a heap it isn't kept as a spare, of which a late free would look like a double one. */
			big_free(&heap_dead, span, ref.start, "search");
			reclaimed++;
		} else if (!fades(++ref.searches, range_map_of(ref.start))) {
			lock_acquire(&waiting.lock);
			big_list_add(&waiting.bigs, &ref);
			lock_release(&waiting.lock);
		}
	}
	list->count = 0;
	return reclaimed;
}
