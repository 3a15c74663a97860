/*
 * slab.h: spans cut into equal blocks of one size class.
 *
 * A slab's free blocks form a list through their first words. The list is extended lazily, about a page
 * of blocks at a time, so that a slab touches no more memory than it has needed. `used` counts blocks
 * handed out; blocks in another thread's outbox or in the inbox still count.
 *
 * `wake` is the value of `used` at which a free has more to do: 0 for a slab in a queue (it has become
 * empty), capacity - 1 for a full one (it belongs into its queue again). So the common free has one
 * compare for both.
 */
#ifndef LIBREGION_SLAB_H
#define LIBREGION_SLAB_H

#include "heap.h"

/* A block of a class from the heap's slabs, for the heap's own thread. NULL: out of memory. */
void *slab_alloc(struct heap *heap, unsigned class);

/* Frees a block that is known to be one, for the thread that owns the slab's heap. */
void slab_free(struct heap *heap, struct span *slab, void *block);

/* Gives back every slab of the heap that is empty. */
void slab_trim(struct heap *heap);

/* The smallest class whose blocks hold `bytes` and start at multiples of `align`; CLASS_COUNT: none. */
unsigned slab_aligned_class(size_t align, size_t bytes);

#endif
