/*
 * slab.h: spans cut into equal blocks of one size class.
 *
 * A slab's free blocks form a list through their second words (struct free_block). The list is extended
 * lazily, about a page of blocks at a time, so that a slab touches no more memory than it has needed.
 *
 * `countdown` counts blocks handed out, less `level`, so that the free which makes it 0 is an event: the
 * common free has one compare for all of them.
 *
 *     level 0             the slab has become empty
 *     a level above 0     it has become sparse, or yet sparser; set when a slab ceases to be full
 *     kept empty          the level is so far below 0 that no free comes there
 *     full                countdown is 1: the next free brings the slab back into its queue
 *
 * Blocks on their way from another thread (remote.h) count as handed out.
 */
#ifndef LIBREGION_SLAB_H
#define LIBREGION_SLAB_H

#include "heap.h"

#define SLAB_MAX_BYTES (4 * SLICE_BYTES) /* of a slab, and nothing to do with its blocks */

/* A block of a class from the heap's slabs, for the heap's own thread. NULL: out of memory. */
void *slab_alloc(struct heap *heap, unsigned class);

/* Has a new heap's requests of each class served by one that serves its neighbours, too. */
void slab_share_classes(struct heap *heap);

/* Blocks of the slab that are handed out. */
uint32_t slab_used(const struct span *slab);

/*
 * Frees `count` blocks that are known to be such, linked from the first to the last, for the thread that owns
 * the slab's heap.
 */
void slab_free(struct heap *heap, struct span *slab, struct free_block *first, struct free_block *last,
               uint32_t count);

/* Makes a slab that is in a queue of one heap the other's; under the heaps' lock, as the owner changes. */
void slab_move(struct heap *from, struct heap *to, struct span *slab);

/* All of a queue. */
void slab_move_queue(struct heap *from, struct heap *to, unsigned class);

/* Gives back every slab of the heap that is empty, and with `holes` the free pages of the others. */
void slab_trim(struct heap *heap, bool holes);

/* Puts a block that has lost what it held, or never held anything, on the slab's list. */
void slab_put_fresh(struct span *slab, void *p);

/* Is this block of the free list as it was left? */
bool slab_is_sound(const struct span *slab, const struct free_block *block);

#endif
