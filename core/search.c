/*
 * search.c: one search for pointers into waiting buffers: what stands still, what is looked at.
 *
 * The pool's lock is held, so that every span is described; everything else that a stopped thread may be
 * in the middle of is looked at as it is. That is enough, because no step of an allocation, a free or a
 * realloc makes a block that the program uses look free, not for an instant.
 *
 * Two things bound what a search costs: pages that the process has never written aren't read, and what
 * else takes time counts as bytes looked at, so that it makes searches seldom.
 */
#include <string.h>

#include "buffer.h"
#include "look.h"
#include "os.h"
#include "waiting.h"

/* What asking about a mapping costs, in bytes that could have been looked at meanwhile. */
#define MAPPING_BYTES ((size_t)16 << 10)

/* And what it costs to come to a block that lies by itself. */
#define STRAY_BYTES 256u

/* Of a longer one, only the pages are looked at that were written. */
#define DENSE_MAX_BYTES ((size_t)1 << 20)

#define RED_ZONE_BYTES 128u

/* What is longer isn't a stack's guard, but something reserved that happens to lie there. */
#define GUARD_MAX_BYTES ((size_t)64 << 10)

#define STOP_TRIES 20

struct extent {
	uintptr_t lo, hi;
};

enum { CUT_RANGE, CUT_TABLES, CUT_STACK, CUT_COUNT };

static struct state {
	struct extent cuts[CUT_COUNT]; /* of what isn't looked at */
	uintptr_t own_sp;
	size_t mappings, strays;
	bool has_failed;
} state;

/* What isn't ours. */

/* Words from lo to hi, but for what is cut out from the i-th cut on. */
static void words_outside(uintptr_t lo, uintptr_t hi, unsigned i)
{
	if (lo >= hi)
		return;
	if (i == CUT_COUNT) {
		mark_words(lo, hi, NULL, lo);
		return;
	}
	struct extent cut = state.cuts[i];
	if (cut.hi <= lo || cut.lo >= hi || cut.lo >= cut.hi) {
		words_outside(lo, hi, i + 1);
		return;
	}
	words_outside(lo, cut.lo, i + 1);
	words_outside(cut.hi, hi, i + 1);
}

static void written_pages(uintptr_t lo, uintptr_t hi, void *unused)
{
	(void)unused;
	words_outside(lo, hi, 0);
}

static void copied_pages(uintptr_t lo, uintptr_t hi, uintptr_t at, void *unused)
{
	(void)unused;
	mark_words(lo, hi, NULL, at);
}

static bool is_in(const struct look_mapping *mapping, uintptr_t p)
{
	return p >= mapping->lo && p < mapping->hi;
}

/*
 * The part of a thread's stack that isn't in use. It is only known if one thread runs in the mapping, on
 * the stack that it was born with: the mapping begins above guard pages, and holds its control block.
 */
static struct extent unused_stack(const struct look_mapping *mapping)
{
	size_t count, inside = 0;
	const struct world_thread *threads = world_threads(&count);
	bool is_initial = strcmp(mapping->name, "[stack]") == 0;
	uintptr_t control = 0, top = 0;

	if (!is_initial && (mapping->guard_bytes == 0 || mapping->guard_bytes > GUARD_MAX_BYTES))
		return (struct extent){0, 0};
	if (is_in(mapping, state.own_sp)) {
		inside++;
		top = state.own_sp;
		control = os_control_block();
	}
	for (size_t i = 0; i < count; i++)
		if (is_in(mapping, threads[i].sp)) {
			bool is_below = is_in(mapping, threads[i].frame) && threads[i].frame < threads[i].sp;
			inside++;
			top = is_below ? threads[i].frame : threads[i].sp - RED_ZONE_BYTES;
			control = threads[i].control;
		}
	if (inside != 1 || !(is_initial || is_in(mapping, control)))
		return (struct extent){0, 0};
	return (struct extent){mapping->lo, top};
}

static bool look_at(const struct look_mapping *mapping, void *unused)
{
	bool is_code = mapping->is_executable && !mapping->is_writable;
	/* [vdso] and its like are the kernel's. */
	bool is_kernels = mapping->name[0] == '[' && mapping->name[1] == 'v';
	const struct extent *range_cut = &state.cuts[CUT_RANGE];

	(void)unused;
	if (!mapping->is_readable || is_code || is_kernels ||
	    (mapping->lo >= range_cut->lo && mapping->hi <= range_cut->hi))
		return true;
	state.mappings++;
	if (mapping->is_shared) {
		if (mapping->is_writable && !look_shared(mapping->lo, mapping->hi, copied_pages, NULL))
			state.has_failed = true;
	} else {
		state.cuts[CUT_STACK] = unused_stack(mapping);
		state.has_failed |= !look_private(mapping->lo, mapping->hi, written_pages, NULL);
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

static void look_at_big(const struct span *span)
{
	uintptr_t lo = (uintptr_t)span->start, hi = (uintptr_t)span_end(span);

	/* Not span->bytes: it may be about to change. */
	if (span_bytes(span) <= DENSE_MAX_BYTES)
		mark_words(lo, hi, NULL, lo);
	else if (!look_private(lo, hi, written_pages, NULL))
		state.has_failed = true;
}

static void look_at_slab(const struct span *slab)
{
	size_t bytes = (size_t)__atomic_load_n(&slab->extended, __ATOMIC_RELAXED) * slab->block_bytes;
	uintptr_t lo = (uintptr_t)slab->start;

	if (slab->block_bytes > 0)
		mark_words(lo, lo + bytes, slab, lo);
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
		end = range_map_of(span->used_end);
		if (!mark_has(span))
			live_blocks(buffer_map(span), end, false);
		else if (granule_any_faded(buffer_map(span), end))
			live_blocks(buffer_map(span), end, true);
		break;
	case SPAN_NONE:
	case SPAN_SPARE:
	case SPAN_FREE_CLEAN:
	case SPAN_FREE_DIRTY:
		break;
	}
}

/* The search. */

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

static void set_cuts(void)
{
	const struct lane *last = &range.lanes[LANE_COUNT - 1];

	state.cuts[CUT_RANGE].lo = (uintptr_t)range.base;
	state.cuts[CUT_RANGE].hi = (uintptr_t)last->base + last->reserved_bytes;
	mark_tables(&state.cuts[CUT_TABLES].lo, &state.cuts[CUT_TABLES].hi);
	state.cuts[CUT_STACK] = (struct extent){0, 0};
}

static void look_at_all(struct span *list)
{
	set_cuts();
	/* Spans are cut out of what isn't ours, and not out of themselves. */
	state.has_failed = !look_open();
	if (state.has_failed)
		return;
	if (!look_mappings(look_at, NULL))
		state.has_failed = true;
	memset(state.cuts, 0, sizeof(state.cuts));
	span_for_each_locked(look_at_span, NULL);
	while (mark_overflown())
		follow_again(list);
	look_close();
}

/*
 * Takes the pool's lock, if the world has stopped. Not before: a thread that waits for it with all signals
 * blocked, as libc has them where a thread ends, would never stop. If a stopped thread has it, once more.
 */
static enum world_result stop(int signal, size_t align)
{
	for (int i = 0; i < STOP_TRIES; i++) {
		if (!world_prepare())
			return WORLD_NO_LIST;
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
			return WORLD_NO_LIST;
		}
		world_go_on();
		/* Whoever has it gets time to give it up. */
		lock_acquire(span_pool_lock());
		lock_release(span_pool_lock());
	}
	return WORLD_LATE;
}

struct search waiting_search(struct span *list, uintptr_t sp, int signal, size_t align)
{
	struct search result = {.stop = WORLD_NO_LIST};
	uint64_t begin_ns = os_clock_ns();

	state.own_sp = sp;
	state.mappings = state.strays = 0;
	if (!look_start() || !mark_start())
		return result;
	result.stop = stop(signal, align);
	result.culprit = world_culprit();
	if (result.stop != WORLD_STOPPED)
		return result;
	for (struct span *span = list; span; span = span->next)
		mark_add(span);
	for_bigs(mark_add);
	look_at_all(list);
	/* Once others run, a big block may be freed or change its length. */
	for (struct span *span = list; span; span = span->next)
		mark_remove(span);
	for_bigs(mark_remove);
	lock_release(span_pool_lock());
	world_go_on();
	result.pause_ns = os_clock_ns() - begin_ns;
	result.bytes = mark_bytes() + state.mappings * MAPPING_BYTES + state.strays * STRAY_BYTES;
	result.is_done = !state.has_failed;
	return result;
}
