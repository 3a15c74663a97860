/*
 * big.c: see big.h.
 */
#include "big.h"

#include <stdint.h>

#include "os.h"
#include "report.h"

/* Moving pages leaves a seam in the kernel's mappings; for less than this, copying is as cheap. */
#define MOVE_MIN_BYTES ((size_t)1 << 20)

static size_t slices_for(size_t bytes)
{
	return (bytes + SLICE_BYTES - 1) >> SLICE_SHIFT;
}

static size_t page_round(size_t bytes)
{
	return (bytes + OS_PAGE - 1) & ~(OS_PAGE - 1);
}

void *big_alloc(size_t bytes, size_t align)
{
	size_t align_slices = align > SLICE_BYTES ? align >> SLICE_SHIFT : 1;

	if (bytes > PTRDIFF_MAX)
		return NULL;
	struct span *span = span_alloc(slices_for(bytes ? bytes : 1), align_slices, SPAN_BIG);
	if (!span)
		return NULL;
	span->bytes = page_round(bytes ? bytes : 1);
	return span->start;
}

static void release(struct span *span)
{
	bool is_clean = span->was_moved && os_renew(span->start, span_bytes(span));

	span_free(span, is_clean);
}

void big_free(struct span *span, void *p, const char *call)
{
	if (p == span->start)
		release(span);
	else
		report_misuse("%s(%p): not the start of a block: it lies %zu bytes into one of %zu", call,
		              p, (size_t)((char *)p - span->start), span->bytes);
}

static struct big {
	bool cannot_move; /* the kernel has refused once; it isn't asked again */
} big;

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
	to->bytes = page_round(bytes);
	to->is_zero = false;
	to->was_moved = true;
	/* What is left behind reads as zero. */
	span_free(span, true);
	return to->start;
}

void *big_resize(struct span *span, size_t bytes)
{
	size_t slices = slices_for(bytes);
	bool is_clean;

	if (bytes > PTRDIFF_MAX)
		return NULL;
	if (slices > span->slices && !span_extend(span, slices, &is_clean))
		return move(span, bytes);
	if (slices < span->slices)
		span_shorten(span, slices);
	span->bytes = page_round(bytes);
	return span->start;
}
