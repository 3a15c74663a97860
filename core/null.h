/*
 * null.h: blocks of no bytes.
 *
 * malloc(0) gives an address of its own in a span without access: whoever reads or writes there is stopped
 * by the processor. (OpenBSD's malloc does so.) Nothing can be kept in such memory, so what lives is said by
 * the granule map alone: the head of a live block has the size of a granule and the bit for faded ones,
 * which keeps the inlined frees away from it.
 *
 * A span has NULL_COUNT addresses, which are given out in turn: one that was freed comes again after all
 * others of the span. Each span is a mapping of the kernel's; where there are NULL_SPANS_MAX of them, or the
 * kernel takes no more, an ordinary block serves.
 *
 * Any thread, under one lock.
 */
#ifndef LIBREGION_NULL_H
#define LIBREGION_NULL_H

#include "granule.h"
#include "span.h"

#define NULL_COUNT ((uint32_t)(SLICE_BYTES >> GRANULE_SHIFT))
#define NULL_SPANS_MAX 256u
#define NULL_LIVE (1u | GRANULE_FADED)

/* Whether there are any, or ordinary blocks always serve; set once at start. */
void null_set_on(bool is_on);

/* A block of no bytes. NULL: an ordinary one has to do. */
void *null_alloc(void);

/* Is p, in a span of kind SPAN_NULL, a live block? */
static inline bool null_is_block(const void *p)
{
	return granule_load(range_map_of(p)) == NULL_LIVE && (uintptr_t)p % GRANULE_BYTES == 0;
}

/* Is p, which may be any pointer, a live block of no bytes? */
static inline bool null_has(const void *p)
{
	return range_has(p) && span_kind(span_of(p)) == SPAN_NULL && null_is_block(p);
}

/* Frees the block at p, in such a span; whatever else p is, is reported. */
void null_free(struct span *span, void *p, const char *call);

struct lock *null_lock(void);

#endif
