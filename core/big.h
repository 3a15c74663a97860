/*
 * big.h: blocks with a span of their own: everything larger than the largest size class.
 *
 * A block's size is rounded up to pages, its address range to slices; pages nobody touches cost
 * nothing. Growth is in place where the slices behind are free, and moves the pages, not their
 * contents, where they are not (as glibc does with mremap).
 */
#ifndef LIBREGION_BIG_H
#define LIBREGION_BIG_H

#include "span.h"

/* A block of at least `bytes`, aligned to a slice or to `align`, a power of two. NULL: out of memory. */
void *big_alloc(size_t bytes, size_t align);

void big_free(struct span *span, void *p, const char *call);

/* Makes the block larger or smaller; its address, which may be new, or NULL and nothing has changed. */
void *big_resize(struct span *span, size_t bytes);

#endif
