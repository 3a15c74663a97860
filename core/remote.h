/*
 * remote.h: frees that cross threads.
 *
 * A thread collects the blocks of other heaps' slabs that it frees in *bundles*, one for each of the slabs
 * that it has last met. A bundle that has to make room goes to the *outbox* of the slab's owner, and from
 * there with others to the owner's *inbox*, by one compare-and-swap. The owner takes a bundle back by
 * looking at one block of it, however many they are. (Batches by owner and by slab are snmalloc's.)
 *
 * A bundle on its way is a *message*. Its blocks are linked as they will be on the slab's free list, and the
 * last one, whose link isn't needed yet, holds in its place what the message says:
 *
 *     bits 28-63   the granule of the next message's last block; all ones: there is none
 *     bits 14-27   the first block: granules from the slab's start
 *     bits 0-13    blocks
 *
 * All blocks keep their mark meanwhile, so a second free is seen here as it is on a free list.
 */
#ifndef LIBREGION_REMOTE_H
#define LIBREGION_REMOTE_H

#include "heap.h"

/* Frees a block that is known to be one, of a slab whose owner is another heap than the thread's `heap`. */
void remote_free(struct heap *heap, struct span *slab, struct free_block *block);

/* The same for a thread without a heap of its own. */
void remote_free_bare(struct span *slab, struct free_block *block);

/* Sends all that the heap has collected. */
void remote_flush(struct heap *heap);

/* Takes back what other threads have freed; `is_locked`: the caller has the heaps' lock. */
void remote_drain(struct heap *heap, bool is_locked);

#endif
