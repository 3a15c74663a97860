/*
 * escape.c: see escape.h.
 *
 * The search is that of `reachable` (core/search.c), with the ending scope's buffers as what waits. It calls
 * on_reached for each block that it reaches, with the place of the word that it was reached by, while the
 * world stands still: then everything is noted that changes when threads go on. Names are looked up later.
 *
 * A word that was left over looks like a pointer. Most of them are kept from being found: addresses aren't
 * used again for a while, so what is left over from earlier scopes points to nothing; and of the calling
 * thread's stack only the frames are looked at that the scope was called from. If the scope is a block of a
 * function (region_enter, REGION_SCOPE, region::scope), that one's frame is left out, too: most of its
 * variables are dead by then, and which can't be told.
 */
#include "escape.h"

#include <pthread.h>

#include "check.h"
#include "finding.h"
#include "place.h"
#include "scopes.h"
#include "stack.h"

/* Kinds of escapes at one end of a scope; what comes after them isn't told apart. */
#define HIT_COUNT 256

#define RED_ZONE_BYTES 128u

/* How far below a place the return address is looked for that tells whose frame it is in. */
#define FRAME_BYTES ((uintptr_t)64 << 10)

struct hit {
	const void *block; /* the first of its kind */
	size_t bytes, blocks, total_bytes;
	uint32_t allocated;
	struct holder holder;
};

/* Guarded by the lock of searches. */
static struct escapes {
	struct hit *hits; /* HIT_COUNT */
	size_t count;
	const struct thread *thread;
	int tid;
	uintptr_t sp, returned;
	bool has_reported; /* that a search couldn't be made */
} escapes;

/* While the world stands still. */

static void *start_in_slab(const struct span *slab, uintptr_t at)
{
	uintptr_t start = (uintptr_t)slab->start;

	return (void *)(at - (at - start) % slab->block_bytes);
}

/* A block of ours holds the pointer. */
static void note_block(struct holder *holder, uintptr_t at)
{
	const struct span *span = span_of((const void *)at);
	const struct region *region = span_region(span);
	enum span_kind kind = span_kind(span);
	const unsigned char *head;

	*holder = (struct holder){.kind = HOLDER_BLOCK, .at = at, .bytes = span_bytes(span)};
	holder->start = (uintptr_t)span->start;
	if (kind == SPAN_SLAB) {
		holder->start = (uintptr_t)start_in_slab(span, at);
		holder->bytes = span->block_bytes;
	} else if (kind == SPAN_BIG) {
		holder->bytes = span->bytes;
	} else if (kind == SPAN_BARE) {
		holder->kind = HOLDER_SCOPE;
		holder->scope = span->reclaimer;
	} else if ((head = buffer_find(span, (const void *)at))) {
		bool is_faded = granule_load(head) & GRANULE_FADED;
		holder->start = (uintptr_t)range_of_map(head);
		holder->bytes = granule_size(head) << GRANULE_SHIFT;
		if (!is_faded && mark_has(span))
			holder->kind = HOLDER_SAME;
		else if (!is_faded && kind == SPAN_BUFFER && region && !waiting_has(span, (const void *)at))
			holder->kind = HOLDER_SCOPE;
		holder->scope = holder->kind == HOLDER_SCOPE ? region->policy->name : NULL;
	}
	uint32_t *note = range_note_of((const void *)holder->start);
	holder->allocated = note ? stack_of_note(*note) : 0;
}

/*
 * The function whose frame a place is in, by what lies below: the closest return address there is the one
 * that the function's own callee was given. None up to the stack pointer: it is the innermost one.
 */
static uintptr_t function_at(uintptr_t at, uintptr_t sp, uintptr_t innermost)
{
	uintptr_t least = at - sp > FRAME_BYTES ? at - FRAME_BYTES : sp;

	for (uintptr_t word = at & ~(uintptr_t)7; word >= least && word > 8; word -= 8)
		if (place_is_return_address(*(const uintptr_t *)word))
			return *(const uintptr_t *)word;
	return least == sp ? innermost : 0;
}

static bool is_within(const struct look_mapping *mapping, uintptr_t p)
{
	return p >= mapping->lo && p < mapping->hi;
}

/* Among the registers of a stopped thread, as its handler's frame or the table of threads has them? */
static bool note_register(struct holder *holder)
{
	size_t count;
	const struct world_thread *threads = world_threads(&count);

	for (size_t i = 0; i < count; i++) {
		const struct world_thread *thread = &threads[i];
		bool is_saved = holder->at >= thread->saved_lo && holder->at < thread->saved_hi;
		if (!world_is_stopped(thread) || (!is_saved && holder->at - (uintptr_t)thread >= sizeof(*thread)))
			continue;
		holder->kind = HOLDER_REGISTER;
		holder->thread = thread->tid;
		holder->code = thread->code;
		return true;
	}
	return false;
}

/* On a stack: of all threads in the mapping, that of the one whose stack pointer is closest below. */
static bool note_stack(struct holder *holder, const struct look_mapping *mapping)
{
	size_t count;
	const struct world_thread *threads = world_threads(&count), *closest = NULL;
	uintptr_t own_lo = escapes.thread->stack_lo, at = holder->at;

	if (at >= escapes.sp && at - own_lo < escapes.thread->stack_bytes) {
		holder->kind = HOLDER_STACK;
		holder->thread = escapes.tid;
		return true;
	}
	for (size_t i = 0; i < count; i++)
		if (is_within(mapping, threads[i].sp) && threads[i].sp - RED_ZONE_BYTES <= at &&
		    (!closest || threads[i].sp > closest->sp))
			closest = &threads[i];
	if (!closest)
		return false;
	holder->kind = HOLDER_STACK;
	holder->thread = closest->tid;
	holder->code = function_at(at, closest->sp, closest->code);
	return true;
}

static bool note_tls(struct holder *holder)
{
	uintptr_t own_control = (uintptr_t)pthread_self();
	uintptr_t own = place_own_tls(holder->at, own_control, own_control);
	size_t count;
	const struct world_thread *threads = world_threads(&count);

	holder->thread = escapes.tid;
	for (size_t i = 0; i < count && !own; i++) {
		own = place_own_tls(holder->at, threads[i].control, own_control);
		holder->thread = threads[i].tid;
	}
	if (!own)
		return false;
	holder->kind = HOLDER_TLS;
	holder->at = own;
	return true;
}

static void note_holder(struct holder *holder, uintptr_t at)
{
	const struct look_mapping *mapping = waiting_mapping();

	if (range_has((const void *)at)) {
		note_block(holder, at);
		return;
	}
	*holder = (struct holder){.kind = HOLDER_MEMORY, .at = at, .start = at};
	if (at == escapes.returned)
		holder->kind = HOLDER_RETURNED;
	if (at == escapes.returned || note_register(holder) || !mapping || note_tls(holder) ||
	    note_stack(holder, mapping))
		return;
	holder->thread = 0;
	holder->start = mapping->lo;
}

static bool is_same_kind(const struct hit *hit, uint32_t allocated, const struct holder *holder)
{
	return hit->allocated == allocated && hit->holder.kind == holder->kind &&
	       (holder->kind != HOLDER_MEMORY || hit->holder.start == holder->start);
}

static void on_reached(const unsigned char *head, uintptr_t at)
{
	void *block = range_of_map(head);
	size_t bytes = granule_size(head) << GRANULE_SHIFT;
	uint32_t *note = range_note_of(block), allocated = note ? *note : 0;
	struct hit *hit = escapes.hits, *end = hit + escapes.count;
	struct holder holder;

	note_holder(&holder, at);
	while (hit < end && !is_same_kind(hit, allocated, &holder))
		hit++;
	if (hit == end && escapes.count == HIT_COUNT)
		return;
	if (hit == end) {
		escapes.count++;
		*hit = (struct hit){.block = block, .bytes = bytes, .allocated = allocated, .holder = holder};
	}
	hit->blocks++;
	hit->total_bytes += bytes;
}

/* Around the search: the region's buffers wait, and no search but this one has them. */

static void set_waiting(struct span *list)
{
	for (struct span *span = list; span; span = span->next) {
		span->is_full = false;
		__atomic_store_n(&span->live, INT32_MAX, __ATOMIC_RELAXED);
		span_set_kind(span, SPAN_WAITING);
	}
}

static void set_own(struct span *list)
{
	for (struct span *span = list; span; span = span->next)
		span_set_kind(span, SPAN_BUFFER);
}

static void let_fade(const struct span *list)
{
	for (const struct span *span = list; span; span = span->next) {
		unsigned char *at = range_map_of(span->fresh_lo), *end = range_map_of(span->fresh_hi);
		for (; (at = granule_next_live(at, end)) < end; at += granule_size(at))
			if (mark_is_reached(at))
				granule_mark(at, GRANULE_FADED);
	}
}

/* What needs no world that stands still. */
static void complete(struct thread *thread, struct holder *holder)
{
	struct stack_frame frame;
	struct place place;

	if (holder->kind == HOLDER_MEMORY && place_of(holder->at, PLACE_DATA, &place))
		holder->kind = HOLDER_GLOBAL;
	if (holder->kind == HOLDER_STACK && holder->thread == escapes.tid) {
		if (stack_frame_of(thread, holder->at, &frame))
			holder->code = frame.code;
		else
			holder->code = function_at(holder->at, escapes.sp, 0);
	}
}

static void report_all(struct thread *thread, const char *scope, uint32_t ended)
{
	for (size_t i = 0; i < escapes.count; i++) {
		struct hit *hit = &escapes.hits[i];

		complete(thread, &hit->holder);
		finding_report(&(struct finding){
			.kind = FINDING_ESCAPE, .scope = scope, .block = hit->block, .bytes = hit->bytes,
			.blocks = hit->blocks, .total_bytes = hit->total_bytes,
			.allocated = hit->allocated, .ended = ended, .holder = &hit->holder,
		});
	}
}

static void report_failure(void)
{
	if (!escapes.has_reported)
		report("check: memory couldn't be searched at the end of a scope (threads, or /proc); what it left "
		       "fades");
	escapes.has_reported = true;
}

bool escape_find(struct thread *thread, struct region *region, const struct escape_place *place)
{
	lock_acquire(reach_lock());
	if (!escapes.hits)
		escapes.hits = range_meta_alloc(HIT_COUNT * sizeof(*escapes.hits));
	escapes.count = 0;
	escapes.thread = thread;
	escapes.tid = os_thread_id();
	escapes.sp = place->sp;
	escapes.returned = place->returned;
	place_note_modules();
	set_waiting(region->buffers);
	struct search result = {0};
	if (escapes.hits)
		result = waiting_explain(region->buffers, place->sp, (int)options.stop_signal,
		                         8u >> options.pointer_align, on_reached);
	set_own(region->buffers);
	if (result.is_done)
		let_fade(region->buffers);
	else
		report_failure();
	if (result.is_done)
		report_all(thread, region->policy->name, place->ended);
	lock_release(reach_lock());
	return result.is_done;
}
