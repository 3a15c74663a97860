/*
 * big.c: see big.h.
 */
#include "big.h"

#include <stdint.h>
#include <string.h>

#include "harden.h"
#include "os.h"
#include "report.h"

/* Moving pages leaves a seam in the kernel's mappings; for less than this, copying is as cheap. */
#define MOVE_MIN_BYTES ((size_t)1 << 20)

/* To be cleared, less than this is written to, and more is given back to the kernel, which has zeroes. */
#define RENEW_MIN_BYTES ((size_t)256 << 10)

/* The habit of filling; see below. */
#define HABIT_MIN_BYTES ((size_t)1 << 20)
#define HABIT_MAX_BYTES ((size_t)32 << 20)
#define HABIT_BLOCKS 3
#define HABIT_TEST_SHARE 16

/* Frees between two looks whether the pool should give memory back: no other free goes to the pool. */
#define FREES_IN_A_TICK 64

/* The slices of the spans in a bin. */
static size_t bin_slices(unsigned bin)
{
	return bin < 8 ? (size_t)bin + 1 : ((size_t)bin % 4 + 5) << (bin / 4 - 1);
}

/* What a span gets that is to hold so much: where it may become a spare, as much as its bin says. */
static size_t slices_for(size_t bytes)
{
	size_t slices = big_slices(bytes);

	return slices <= BIG_SPARE_MAX_BYTES >> SLICE_SHIFT ? bin_slices(big_bin(slices)) : slices;
}

/* Notes the block's size, and which bin its span belongs into: one that was resized may be between two. */
static void set_bytes(struct span *span, size_t bytes)
{
	span->bytes = big_page_round(bytes);
	if (span_bytes(span) <= BIG_SPARE_MAX_BYTES) {
		unsigned bin = big_bin(span->slices);
		span->class = (uint8_t)(bin - (bin_slices(bin) > span->slices));
	}
}

struct span *big_alloc_slab(struct heap *heap, size_t slices)
{
	struct span *span = big_pop_spare(heap, big_bin(slices));

	if (!span)
		return big_alloc_span(heap, slices, 1, SPAN_SLAB);
	assert(span->slices == slices);
	span_recycle(span, SPAN_SLAB);
	return span;
}

struct span *big_alloc_span(struct heap *heap, size_t slices, size_t align_slices, enum span_kind kind)
{
	if (heap->big_spare_bytes > 0) {
		struct span *span = span_alloc_dirty(slices, align_slices, kind);
		if (span)
			return span;
		big_drop_spares(heap);
	}
	return span_alloc(slices, align_slices, kind);
}

/*
 * The habit of filling: a thread whose last long blocks of fresh memory are full will fill the next one,
 * too, and has its pages made resident by one system call in place of a fault for each; as many as the last
 * block has. A share at the end is left to be touched, or not, so that it shows whether the habit goes on.
 * Of yet longer blocks the pages are better made by the threads that use them: they get them near their
 * processors.
 */

static bool may_be_habit(size_t bytes)
{
	return bytes >= HABIT_MIN_BYTES && bytes <= HABIT_MAX_BYTES;
}

static __attribute__((cold, noinline)) void follow_habit(struct heap *heap, const struct span *span)
{
	size_t most = span->bytes < heap->fresh_big_bytes ? span->bytes : heap->fresh_big_bytes;
	bool is_filled = heap->fresh_big && os_is_resident(heap->fresh_big, heap->fresh_big_bytes);

	heap->filled_bigs = is_filled ? heap->filled_bigs + 1 : 0;
	/* Where a page that nobody has touched is said to be there, nothing of it is true. */
	if (heap->filled_bigs >= HABIT_BLOCKS && !os_is_resident(span->start, OS_PAGE))
		os_populate(span->start, big_page_round(most - most / HABIT_TEST_SHARE));
	heap->fresh_big = span->start;
	heap->fresh_big_bytes = span->bytes;
}

void *big_alloc(struct heap *heap, size_t bytes, size_t align)
{
	size_t align_slices = align > SLICE_BYTES ? align >> SLICE_SHIFT : 1;

	if (bytes > PTRDIFF_MAX)
		return NULL;
	bytes += !bytes;
	void *p = align_slices == 1 ? big_take_spare(heap, bytes) : NULL;
	if (p)
		return p;
	struct span *span = big_alloc_span(heap, slices_for(bytes + harden_big_room()), align_slices, SPAN_BIG);
	if (!span)
		return NULL;
	set_bytes(span, bytes);
	if (span->is_zero && may_be_habit(bytes) && heap->state == HEAP_LIVE && !harden_is_on())
		follow_habit(heap, span);
	return span->start;
}

void big_clear(struct span *span, size_t bytes)
{
	/* Fresh from the kernel, or made so again: then only what the program writes to is there. */
	if (!span->is_zero && (bytes < RENEW_MIN_BYTES || !os_purge(span->start, big_page_round(bytes))))
		memset(span->start, 0, bytes);
	if (harden_is_on())
		harden_fence_big(span);
}

/* Spares. */

static_assert(sizeof(((struct heap *)NULL)->big_bins_used) * 8 >= HEAP_BIG_BINS, "a bit for each bin");

static void drop_bin(struct heap *heap, unsigned bin)
{
	for (struct span *span = heap->big_spares[bin], *next; span; span = next) {
		next = span->next;
		heap->big_spare_bytes -= span_bytes(span);
		span_free(span, false);
	}
	heap->big_spares[bin] = NULL;
}

void big_drop_spares(struct heap *heap)
{
	for (unsigned bin = 0; bin < HEAP_BIG_BINS && heap->big_spare_bytes > 0; bin++)
		drop_bin(heap, bin);
}

/* Lets go what hasn't been wanted since the last time. */
static __attribute__((cold, noinline)) void age_spares(struct heap *heap, uint32_t epoch)
{
	for (unsigned bin = 0; bin < HEAP_BIG_BINS; bin++)
		if (!(heap->big_bins_used >> bin & 1))
			drop_bin(heap, bin);
	heap->big_bins_used = 0;
	heap->big_epoch = epoch;
}

static void put_spare(struct heap *heap, struct span *span)
{
	uint32_t epoch = span_pool_epoch();
	size_t bytes = span_bytes(span);
	unsigned bin = span->class;

	if (heap->big_spare_bytes + bytes > BIG_SPARE_MAX_BYTES)
		big_drop_spares(heap);
	else if (heap->big_epoch != epoch)
		age_spares(heap, epoch);
	span->is_zero = false;
	__atomic_store_n(&span->serial, 0, __ATOMIC_RELAXED);
	span_set_kind(span, SPAN_SPARE);
	span->next = heap->big_spares[bin];
	heap->big_spares[bin] = span;
	heap->big_spare_bytes += bytes;
	if (++heap->big_frees % FREES_IN_A_TICK == 0)
		span_pool_tick();
}

void big_free_slab(struct heap *heap, struct span *slab)
{
	if (heap->state != HEAP_LIVE) {
		span_free(slab, false);
		return;
	}
	slab->owner = NULL;
	slab->bytes = 0;
	slab->class = (uint8_t)big_bin(slab->slices);
	put_spare(heap, slab);
}

static void release(struct span *span)
{
	bool is_clean = span->was_moved && os_renew(span->start, span_bytes(span));

	span_free(span, is_clean);
}

static struct big {
	bool cannot_move; /* the kernel has refused once; it isn't asked again */
	void (*sample_hook)(void *sample, const char *call);
} big;

void big_set_sample_hook(void (*hook)(void *sample, const char *call))
{
	big.sample_hook = hook;
}

static __attribute__((cold, noinline)) void end_sample(struct span *span, const char *call)
{
	void *sample = span->sample;

	span->sample = NULL;
	big.sample_hook(sample, call);
}

void big_free(struct heap *heap, struct span *span, void *p, const char *call)
{
	if (p != span->start) {
		report_misuse("%s(%p): not the start of a block: it lies %zu bytes into one of %zu", call,
		              p, (size_t)((char *)p - span->start), span->bytes);
		return;
	}
	if (__builtin_expect(span->sample != NULL, 0))
		end_sample(span, call);
	if (harden_is_on() && harden_free_big(heap, span, call))
		return;
	if (heap->state == HEAP_LIVE && span_bytes(span) <= BIG_SPARE_MAX_BYTES && !span->was_moved)
		put_spare(heap, span);
	else
		release(span);
}

/*
 * Brings the pages to a longer span without copying. Pages that were brought before lie in several of
 * the kernel's mappings, which most kernels don't move at once: those are copied, and lie in one again.
 */
static void *move(struct span *span, size_t bytes)
{
	if (span->bytes < MOVE_MIN_BYTES || span->was_moved ||
	    __atomic_load_n(&big.cannot_move, __ATOMIC_RELAXED))
		return NULL;
	struct span *to = span_alloc(slices_for(bytes), 1, SPAN_BIG);
	if (!to)
		return NULL;
	enum os_move result = os_move(span->start, to->start, span_bytes(span));
	if (result != OS_MOVED) {
		__atomic_store_n(&big.cannot_move, true, __ATOMIC_RELAXED);
		if (result == OS_NOT_MOVED)
			span_free(to, false);
		return NULL;
	}
	set_bytes(to, bytes);
	to->is_zero = false;
	to->was_moved = true;
	to->sample = span->sample;
	/* What is left behind reads as zero. */
	span_free(span, true);
	return to->start;
}

static void *resize(struct span *span, size_t bytes)
{
	size_t slices = slices_for(bytes);
	bool is_clean;

	if (bytes > PTRDIFF_MAX)
		return NULL;
	if (big_slices(bytes) > span->slices && !span_extend(span, slices, &is_clean))
		return move(span, bytes);
	if (slices < span->slices)
		span_shorten(span, slices);
	set_bytes(span, bytes);
	return span->start;
}

void *big_resize(struct span *span, size_t bytes)
{
	size_t old_bytes = span->bytes;

	if (!harden_is_on())
		return resize(span, bytes);
	if (bytes > PTRDIFF_MAX || !harden_lower(span))
		return NULL;
	char *p = resize(span, bytes + harden_big_room());
	harden_raise(p ? span_of(p) : span, p ? bytes : old_bytes);
	return p;
}
