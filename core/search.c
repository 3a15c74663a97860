/*
 * search.c: one search for pointers into waiting buffers: what stands still, what is looked at.
 *
 * The pool's lock is held, so that every span is described; everything else that a stopped thread may be
 * in the middle of is looked at as it is. That is enough, because no step of an allocation, a free or a
 * realloc makes a block that the program uses look free, not for an instant.
 *
 * What lies below a thread's stack pointer, in the same mapping, is looked at last, as doubtful: nearly
 * always it is what calls have left there that have returned, and would keep garbage for ever. But it may
 * hold frames in use (of a coroutine, a signal handler on another stack) or data, and nothing tells.
 *
 * Two things bound what a search costs: pages that the process has never written aren't read, and what
 * else takes time counts as bytes looked at, so that it makes searches seldom.
 */
#include <string.h>

#include "big.h"
#include "buffer.h"
#include "look.h"
#include "os.h"
#include "track.h"
#include "waiting.h"

/* What asking about a mapping costs, in bytes that could have been looked at meanwhile. */
#define MAPPING_BYTES ((size_t)16 << 10)

/* And what it costs to come to a block that lies by itself. */
#define STRAY_BYTES 256u

/* And to ask about a page. */
#define PAGE_BYTES 64u

#define RED_ZONE_BYTES 128u

/* More than any call of ours takes below look_at_all(). */
#define LEFT_OVER_BYTES 1024u

#define STOP_TRIES 20

struct extent {
	uintptr_t lo, hi;
};

/* What belongs to libregion: whole pages. And what isn't looked at of pages that don't. */
enum { OWN_LANES, OWN_TABLES = LANE_COUNT, OWN_TRACKS, OWN_COUNT };
enum { CUT_FRAMES, CUT_DOUBTFUL, CUT_COUNT };

static struct state {
	struct extent own[OWN_COUNT];
	struct extent cuts[CUT_COUNT];
	uintptr_t own_sp;
	const struct look_mapping *mapping; /* that is being looked at; NULL: memory of the heap range is */
	size_t mappings, strays;
	bool has_failed;
	bool is_doubtful; /* it is the turn of what lies below stack pointers */
	bool is_certain;  /* what is doubtful isn't asked for */
	bool may_track;
	bool is_tracked;  /* pages that are known to hold nothing aren't read */
	size_t heap_bytes; /* of slabs, big blocks and bare buffers */
} state;

/* What isn't ours. */

/* Words at `at`, which can be read from lo to hi, but for what is cut out from the i-th cut on. */
static void words_outside(uintptr_t lo, uintptr_t hi, uintptr_t at, unsigned i)
{
	if (lo >= hi)
		return;
	if (i == CUT_COUNT) {
		mark_words(lo, hi, NULL, at);
		return;
	}
	struct extent cut = state.cuts[i];
	uintptr_t end = at + (hi - lo);
	if (cut.hi <= at || cut.lo >= end || cut.lo >= cut.hi) {
		words_outside(lo, hi, at, i + 1);
		return;
	}
	if (cut.lo > at)
		words_outside(lo, lo + (cut.lo - at), at, i + 1);
	if (cut.hi < end)
		words_outside(lo + (cut.hi - at), hi, cut.hi, i + 1);
}

static void pages(uintptr_t lo, uintptr_t hi, uintptr_t at, void *unused)
{
	(void)unused;
	state.cuts[CUT_FRAMES].lo = (uintptr_t)__builtin_frame_address(0);
	words_outside(lo, hi, at, 0);
}

/* The highest stack pointer in a mapping, with the red zone below it; its beginning if there is none. */
static uintptr_t highest_stack(const struct look_mapping *mapping)
{
	size_t count;
	const struct world_thread *threads = world_threads(&count);
	uintptr_t highest = mapping->lo;

	if (state.own_sp > highest && state.own_sp < mapping->hi)
		highest = state.own_sp;
	for (size_t i = 0; i < count; i++) {
		uintptr_t sp = threads[i].sp - RED_ZONE_BYTES;
		if (sp > highest && sp < mapping->hi)
			highest = sp;
	}
	return highest;
}

/* Where what nobody reads anyway ends, that begins at p; p, if it is memory that blocks lie in. */
static uintptr_t end_of_ours(uintptr_t p)
{
	const struct span *span = span_of((void *)p);
	enum span_kind kind = span_kind(span);
	bool is_guard = kind == SPAN_BIG && p >= (uintptr_t)big_end(span);

	return is_guard || kind == SPAN_NULL || kind == SPAN_SPARE ? (uintptr_t)span_end(span) : p;
}

/* Memory of ours that blocks lie in, and that the program has protected: not what we have. */
static bool find_holes(const struct look_mapping *mapping, void *unused)
{
	uintptr_t lo = (uintptr_t)range.base, hi = lo + (range.granules << GRANULE_SHIFT);

	(void)unused;
	state.may_track &= mapping->kind != LOOK_RING;
	lo = mapping->lo > lo ? mapping->lo : lo;
	hi = mapping->hi < hi ? mapping->hi : hi;
	if (mapping->is_readable)
		return true;
	for (uintptr_t end; lo < hi && (end = end_of_ours(lo)) > lo; lo = end)
		continue;
	if (lo < hi)
		mark_add_hole(lo, hi);
	return true;
}

/* Pages of the mapping, but for libregion's own: those are long, and looked at by what they are used for. */
static void look_between(const struct look_mapping *mapping, uintptr_t lo, uintptr_t hi, unsigned own)
{
	if (lo >= hi || state.has_failed)
		return;
	if (own == OWN_COUNT) {
		state.mappings += !state.is_doubtful;
		state.has_failed = !look_pages(mapping, lo, hi, pages, NULL);
		return;
	}
	struct extent extent = state.own[own];
	if (extent.hi <= lo || extent.lo >= hi) {
		look_between(mapping, lo, hi, own + 1);
		return;
	}
	if (extent.lo > lo)
		look_between(mapping, lo, extent.lo, own + 1);
	if (extent.hi < hi)
		look_between(mapping, extent.hi, hi, own + 1);
}

static bool look_at(const struct look_mapping *mapping, void *unused)
{
	uintptr_t border = highest_stack(mapping), page = border & ~(OS_PAGE - 1);

	(void)unused;
	state.mapping = mapping;
	/* A page with the border in it is looked at twice, one half each time. */
	if (state.is_doubtful) {
		state.cuts[CUT_DOUBTFUL] = (struct extent){border, mapping->hi};
		look_between(mapping, mapping->lo, page + (page < border ? OS_PAGE : 0), 0);
	} else {
		state.cuts[CUT_DOUBTFUL] = (struct extent){mapping->lo, border};
		look_between(mapping, page, mapping->hi, 0);
	}
	return !state.has_failed;
}

/* What is ours. */

/* The live blocks between two places of the map, of one kind: GRANULE_FADED, or any. */
static void live_blocks(const unsigned char *at, const unsigned char *end, bool only_faded)
{
	while ((at = granule_next_live(at, end)) < end) {
		const unsigned char *from = at;
		uintptr_t lo, hi;

		/* Neighbours are looked at together. */
		while (at < end && granule_is_live(granule_load(at)) &&
		       (!only_faded || (granule_load(at) & GRANULE_FADED)))
			at += granule_size(at);
		lo = (uintptr_t)range_of_map(from);
		hi = (uintptr_t)range_of_map(at < end ? at : end);
		state.strays++;
		if (lo < hi)
			mark_words(lo, hi, NULL, lo);
		else
			at += granule_size(at);
	}
}

/* Words of the general heap, whole pages. */
static void heap_words(uintptr_t lo, uintptr_t hi, const struct span *slab, uintptr_t at)
{
	if (!state.is_tracked) {
		mark_words(lo, hi, slab, at);
		return;
	}
	for (uintptr_t step; lo < hi; at += step - lo, lo = step) {
		step = hi - lo > OS_PAGE ? lo + OS_PAGE : hi;
		track_note(at, mark_words(lo, step, slab, at));
	}
}

static void big_pages(uintptr_t lo, uintptr_t hi, uintptr_t at, void *unused)
{
	(void)unused;
	heap_words(lo, hi, NULL, at);
}

/* All of a big block, or what must be read of it: how long it is may be about to change. */
static void big_words(const struct span *span, uintptr_t lo, uintptr_t hi)
{
	const struct look_mapping mapping = {.lo = lo, .hi = hi, .is_readable = !mark_has_hole(span)};

	if (!mark_needs_care(span))
		heap_words(lo, hi, NULL, lo);
	else if (!look_pages(&mapping, lo, hi, big_pages, NULL))
		state.has_failed = true;
}

static void look_at_big(const struct span *span)
{
	uintptr_t lo = (uintptr_t)span->start, hi = (uintptr_t)big_end(span), end;

	if (!state.is_tracked) {
		big_words(span, lo, hi);
		return;
	}
	for (; (lo = track_next(lo, hi)) < hi; lo = end) {
		end = track_end_of(lo, hi);
		big_words(span, lo, end);
	}
}

/* Where a slab's blocks end that have been on its list. */
static uintptr_t slab_hi(const struct span *slab)
{
	size_t blocks = __atomic_load_n(&slab->extended, __ATOMIC_RELAXED);

	return (uintptr_t)slab->start + blocks * slab->block_bytes;
}

static void look_at_slab(const struct span *slab)
{
	uintptr_t lo = (uintptr_t)slab->start, hi = slab_hi(slab), end;

	if (slab->block_bytes == 0)
		return;
	if (!state.is_tracked) {
		heap_words(lo, hi, slab, lo);
		return;
	}
	for (; (lo = track_next(lo, hi)) < hi; lo = end) {
		end = track_end_of(lo, hi);
		heap_words(lo, end, slab, lo);
	}
}

static void look_at_span(const struct span *span, void *unused)
{
	const unsigned char *end;

	(void)unused;
	switch (span_kind(span)) {
	case SPAN_SLAB:
		look_at_slab(span);
		break;
	case SPAN_BIG:
		if (!mark_has(span))
			look_at_big(span);
		break;
	case SPAN_BARE:
		look_at_big(span);
		break;
	case SPAN_BUFFER:
		/* How far the open region has used it is known when it leaves the hole. */
		end = span_region(span) ? buffer_map_end(span) : range_map_of(span->used_end);
		live_blocks(buffer_map(span), end, false);
		break;
	case SPAN_RETIRED:
	case SPAN_WAITING:
	case SPAN_QUARANTINED:
		end = range_map_of(span->used_end);
		if (!mark_has(span))
			live_blocks(buffer_map(span), end, false);
		else if (granule_any_faded(buffer_map(span), end))
			live_blocks(buffer_map(span), end, true);
		break;
	case SPAN_NONE:
	case SPAN_SPARE:
	case SPAN_NULL:
	case SPAN_FREE_CLEAN:
	case SPAN_FREE_DIRTY:
		break;
	}
}

/* Big blocks that were freed since they wait are somebody else's, or nobody's. */
static void for_bigs(void (*fn)(struct span *span))
{
	const struct big_list *list = waiting_bigs();

	for (size_t i = 0; i < list->count; i++) {
		struct span *span = big_list_find(&list->refs[i]);
		if (span)
			fn(span);
	}
}

/* Write tracking. */

/* What may be in question one day, and what may be known. */
static void prepare_span(const struct span *span, void *unused)
{
	(void)unused;
	switch (span_kind(span)) {
	case SPAN_SLAB:
		if (span->block_bytes > 0)
			track_want((uintptr_t)span->start, slab_hi(span));
		break;
	case SPAN_BIG:
		if (mark_has(span))
			break;
		if (__atomic_load_n(&span->serial, __ATOMIC_RELAXED) != 0)
			mark_add_interest(span);
		track_want((uintptr_t)span->start, (uintptr_t)big_end(span));
		break;
	case SPAN_BARE:
		track_want((uintptr_t)span->start, (uintptr_t)span_end(span));
		break;
	case SPAN_BUFFER:
	case SPAN_WAITING:
	case SPAN_QUARANTINED:
		if (!mark_has(span))
			mark_add_interest(span);
		break;
	case SPAN_NONE:
	case SPAN_RETIRED:
	case SPAN_SPARE:
	case SPAN_NULL:
	case SPAN_FREE_CLEAN:
	case SPAN_FREE_DIRTY:
		break;
	}
}

static void add_bytes(const struct span *span, void *unused)
{
	enum span_kind kind = span_kind(span);

	(void)unused;
	if (kind == SPAN_SLAB || kind == SPAN_BIG || kind == SPAN_BARE)
		state.heap_bytes += span_bytes(span);
}

static void begin_tracking(void)
{
	state.heap_bytes = 0;
	if (!state.may_track) {
		if (!state.is_certain)
			track_stop();
		return;
	}
	span_for_each_locked(add_bytes, NULL);
	if (!track_begin(look_pagemap(), state.heap_bytes))
		return;
	span_for_each_locked(prepare_span, NULL);
	state.is_tracked = track_protect(look_pagemap());
}

/* The search. */

static void follow_big(struct span *span)
{
	mark_again(range_map_of(span->start));
}

/* Once more from everything that was reached. */
static void follow_again(struct span *list)
{
	for (struct span *span = list; span; span = span->next) {
		const unsigned char *at = buffer_map(span), *end = buffer_map_end(span);

		for (; (at = granule_next_live(at, end)) < end; at += granule_size(at))
			mark_again(at);
	}
	for_bigs(follow_big);
}

/* Until there is nothing left that was reached and not followed. */
static void follow_all(struct span *list)
{
	for (;;) {
		const struct span *span = mark_next_queued();
		if (span)
			look_at_big(span);
		else if (mark_overflown())
			follow_again(list);
		else
			return;
	}
}

/*
 * What a stopped thread's handler has saved, wherever that is: an alternate stack may be a block in question,
 * to which nothing else points than the kernel, and the handler's frame.
 */
static void look_at_threads(void)
{
	size_t count;
	const struct world_thread *threads = world_threads(&count);
	uintptr_t own_stack = world_own_alternate_stack();

	mark_words((uintptr_t)&own_stack, (uintptr_t)(&own_stack + 1), NULL, (uintptr_t)&own_stack);
	for (size_t i = 0; i < count; i++) {
		const struct world_thread *thread = &threads[i];
		uintptr_t at = (uintptr_t)thread->registers;
		if (!world_is_stopped(thread))
			continue;
		mark_words(at, at + sizeof(thread->registers), NULL, at);
		mark_words(thread->saved_lo, thread->saved_hi, NULL, thread->saved_lo);
	}
}

static void set_cuts(void)
{
	memset(state.cuts, 0, sizeof(state.cuts));
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		const struct lane *lane = &range.lanes[i];
		state.own[OWN_LANES + i].lo = (uintptr_t)lane->base;
		state.own[OWN_LANES + i].hi = (uintptr_t)lane->base + lane->reserved_bytes;
	}
	mark_tables(&state.own[OWN_TABLES].lo, &state.own[OWN_TABLES].hi);
	track_table(&state.own[OWN_TRACKS].lo, &state.own[OWN_TRACKS].hi);
	state.cuts[CUT_FRAMES].hi = state.own_sp;
}

/* What our own calls have left below, among it what they were given: pointers to what is in question. */
static __attribute__((noinline)) void clear_left_over(void)
{
	volatile char room[LEFT_OVER_BYTES];

	for (size_t i = 0; i < sizeof(room); i++)
		room[i] = 0;
}

static bool look_at_all(struct span *list)
{
	if (!look_mappings(find_holes, NULL))
		return false;
	begin_tracking();
	if (!look_mappings(look_at, NULL))
		return false;
	state.mapping = NULL;
	look_at_threads();
	span_for_each_locked(look_at_span, NULL);
	follow_all(list);
	if (state.is_certain)
		return !state.has_failed && !mark_has_failed();
	clear_left_over();
	mark_doubt();
	state.is_doubtful = true;
	if (!look_mappings(look_at, NULL))
		return false;
	follow_all(list);
	return !state.has_failed && !mark_has_failed();
}

static bool look_everywhere(struct span *list)
{
	state.has_failed = state.is_doubtful = state.is_tracked = false;
	set_cuts();
	look_open();
	bool is_done = look_at_all(list);
	is_done = look_close() && is_done;
	if (state.is_tracked)
		track_end(is_done);
	return is_done;
}

/*
 * Takes the pool's lock, if the world has stopped. Not before: a thread that waits for it with all signals
 * blocked, as libc has them where a thread ends, would never stop. If a stopped thread has it, once more.
 */
static enum world_result stop(int signal, size_t align)
{
	for (int i = 0; i < STOP_TRIES; i++) {
		if (!world_prepare())
			return WORLD_NO_MEMORY;
		enum world_result result = world_stop(signal);
		if (result == WORLD_NO_ROOM)
			continue;
		if (result != WORLD_STOPPED)
			return result;
		if (lock_try(span_pool_lock())) {
			if (mark_begin(align))
				return WORLD_STOPPED;
			lock_release(span_pool_lock());
			world_go_on();
			return WORLD_NO_MEMORY;
		}
		world_go_on();
		/* Whoever has it gets time to give it up. */
		lock_acquire(span_pool_lock());
		lock_release(span_pool_lock());
	}
	return WORLD_LATE;
}

static struct search search(struct span *list, int signal, size_t align)
{
	struct search result = {.stop = stop(signal, align)};

	result.culprit = world_culprit();
	if (result.stop != WORLD_STOPPED)
		return result;
	for (struct span *span = list; span; span = span->next)
		mark_add(span);
	for_bigs(mark_add);
	result.is_done = look_everywhere(list);
	/* Once others run, a big block may be freed or change its length. */
	for (struct span *span = list; span; span = span->next)
		mark_remove(span);
	for_bigs(mark_remove);
	if (state.is_tracked)
		mark_forget_interest();
	lock_release(span_pool_lock());
	world_go_on();
	result.bytes = mark_bytes() + state.mappings * MAPPING_BYTES + state.strays * STRAY_BYTES +
	               look_pages_asked() * PAGE_BYTES + (state.is_tracked ? track_bytes() : 0);
	return result;
}

struct search waiting_search(struct span *list, uintptr_t sp, int signal, size_t align)
{
	struct search result = {.stop = WORLD_NO_MEMORY};
	uint64_t begin_ns = os_clock_ns(), mask;

	state.own_sp = sp;
	state.mappings = state.strays = 0;
	/* Words at any place may lie across two pages. */
	state.may_track = !state.is_certain && align == sizeof(void *);
	if (!look_start() || !mark_start())
		return result;
	/* A handler of the program's that ran here might wait for a thread that stands still. */
	mask = os_block_signals(0);
	result = search(list, signal, align);
	os_unblock_signals(mask);
	result.pause_ns = os_clock_ns() - begin_ns;
	return result;
}

struct search waiting_explain(struct span *list, uintptr_t sp, int signal, size_t align, mark_hook *hook)
{
	struct search result = {.stop = WORLD_NO_MEMORY};

	if (!mark_start())
		return result;
	mark_set_hook(hook);
	state.is_certain = true;
	result = waiting_search(list, sp, signal, align);
	state.is_certain = false;
	mark_set_hook(NULL);
	return result;
}

const struct look_mapping *waiting_mapping(void)
{
	return state.mapping;
}
