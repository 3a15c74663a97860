/*
 * big.h: blocks with a span of their own: everything larger than the largest size class.
 *
 * A block's size is rounded up to pages, its address range to slices; pages nobody touches cost
 * nothing. Growth is in place where the slices behind are free, and moves the pages, not their
 * contents, where they are not (as glibc does with mremap).
 *
 * Spares: a thread keeps the spans of blocks it has freed and of slabs that are empty, up to
 * BIG_SPARE_MAX_BYTES of them, and allocates from these without a lock. They lie in bins by length, four for
 * each doubling; a new span is as long as its bin says, so that any span of a bin fits. A spare (SPAN_SPARE)
 * has its old data and its slices still lead to it, so a second free is seen. Which bins have not been used
 * for a while is asked when a span comes in (span_pool_epoch); those are let go, and so is all when the
 * thread needs memory of another kind and the pool has none that was used before.
 */
#ifndef LIBREGION_BIG_H
#define LIBREGION_BIG_H

#include "heap.h"
#include "os.h"

#define BIG_SPARE_MAX_BYTES ((size_t)8 << 20)

/* A block of at least `bytes`, aligned to a slice or to `align`, a power of two. NULL: out of memory. */
void *big_alloc(struct heap *heap, size_t bytes, size_t align);

/* Makes the first `bytes` of a block that was just allocated zero. */
void big_clear(struct span *span, size_t bytes);

void big_free(struct heap *heap, struct span *span, void *p, const char *call);

/*
 * Sets what is called when a block is freed whose span has a `sample`, by any thread and with no lock
 * held, once, before there is any. `call` names the caller's function.
 */
void big_set_sample_hook(void (*hook)(void *sample, const char *call));

/* Makes the block larger or smaller; its address, which may be new, or NULL and nothing has changed. */
void *big_resize(struct span *span, size_t bytes);

/* span_alloc(), but what the heap has in spares is let go before memory is used that nobody has used. */
struct span *big_alloc_span(struct heap *heap, size_t slices, size_t align_slices, enum span_kind kind);

/* A slab's span: from the spares or as above; and back there when the slab is empty. */
struct span *big_alloc_slab(struct heap *heap, size_t slices);
void big_free_slab(struct heap *heap, struct span *slab);

/* Gives all of a heap's spares back. */
void big_drop_spares(struct heap *heap);

static inline size_t big_slices(size_t bytes)
{
	return (bytes + SLICE_BYTES - 1) >> SLICE_SHIFT;
}

static inline size_t big_page_round(size_t bytes)
{
	return (bytes + OS_PAGE - 1) & ~(OS_PAGE - 1);
}

/*
 * The first bin whose spans have `slices` or more: one for each length to 8, then four for each doubling.
 */
static inline unsigned big_bin(size_t slices)
{
	if (slices <= 8)
		return (unsigned)slices - 1;
	unsigned log2 = class_log2_floor(slices - 1);
	return 4 * log2 + (unsigned)((slices - 1) >> (log2 - 2)) - 8;
}

/* The newest spare of a bin; NULL: there is none. */
static inline struct span *big_pop_spare(struct heap *heap, unsigned bin)
{
	struct span *span = heap->big_spares[bin];

	if (span) {
		heap->big_spares[bin] = span->next;
		heap->big_spare_bytes -= span_bytes(span);
		heap->big_bins_used |= 1u << bin;
	}
	return span;
}

/*
 * Where the memory of a big block, or of a bare buffer, ends that a search may read: with its span, since the
 * block's bytes may be about to change; but they aren't while there is a guard behind it (harden.h).
 */
static inline char *big_end(const struct span *span)
{
	if (span_kind(span) == SPAN_BIG && __atomic_load_n(&span->is_guarded, __ATOMIC_ACQUIRE))
		return span->start + big_page_round(span->bytes);
	return span_end(span);
}

/* A block from the spares of the thread's own heap. NULL: there is none that fits. */
static inline void *big_take_spare(struct heap *heap, size_t bytes)
{
	if (bytes - CLASS_MAX_BYTES - 1 >= BIG_SPARE_MAX_BYTES - CLASS_MAX_BYTES)
		return NULL;
	struct span *span = big_pop_spare(heap, big_bin(big_slices(bytes)));
	if (!span)
		return NULL;
	span->bytes = big_page_round(bytes);
	span_set_kind(span, SPAN_BIG);
	return span->start;
}

#endif
