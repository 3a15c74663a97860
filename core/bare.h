/*
 * bare.h: buffers whose blocks the granule map doesn't know.
 *
 * Regions as objects bump in them from code that is inlined into the program: there a store to the map
 * would be half of the cost. So nothing can be said of their blocks one by one; free() of one is a
 * misuse, and is reported. The map under them is as it was, and they go back to where buffers come from.
 */
#ifndef LIBREGION_BARE_H
#define LIBREGION_BARE_H

#include "heap.h"

/*
 * A bare buffer of at least `bytes`, of a size that a heap caches where there is one; `owner` and `name`
 * say whose. `heap` is the calling thread's, or NULL if it has none. NULL: out of memory.
 */
struct span *bare_take(struct heap *heap, size_t bytes, void *owner, const char *name);

/* Gives it back; nothing points into it any more. */
void bare_put(struct heap *heap, struct span *span);

/* Where its blocks may start; as in any buffer none ends where one begins. */
static inline char *bare_begin(const struct span *span)
{
	return span->start + GRANULE_BYTES;
}

static inline void *bare_owner(const struct span *span)
{
	return span_region(span);
}

/* p was given to free() or its like: says what it is. */
void bare_misuse(const struct span *span, const void *p, const char *call);

#endif
