/*
 * sleep.h: slabs whose free pages have gone back to the system.
 *
 * A page of a slab that no block in use touches can be given back, but the marks and links of the free blocks
 * that begin there go with it. Those blocks leave the free list and *sleep*, until an allocation wakes the
 * page: a bit in the descriptor for each page says all there is to say about them.
 *
 * While blocks sleep, the product that every free compares is off by half its range: no free of a block of
 * this slab takes the inlined path, which can't see that a block sleeps.
 */
#ifndef LIBREGION_SLEEP_H
#define LIBREGION_SLEEP_H

#include "os.h"
#include "slab.h"

static_assert(SLAB_MAX_BYTES / OS_PAGE <= 64, "a word has a bit for each page of a slab");

/* Is the block at p, of a slab, free and asleep? Asked by any thread, while the owner may be trimming. */
static inline bool sleep_has(const struct span *slab, const void *p)
{
	size_t page = (size_t)((const char *)p - slab->start) / OS_PAGE;

	return __atomic_load_n(&slab->asleep_pages, __ATOMIC_RELAXED) >> page & 1;
}

/* Pages of slabs whose blocks sleep already, but which have yet to be given back. Empty when zeroed. */
struct sleep_batch {
	size_t count;
	struct os_extent extents[64];
};

/*
 * Puts the blocks of a slab to sleep whose pages no block in use touches, and adds the pages to the batch;
 * `single`: also those without neighbours. Makes room by giving back what is in the batch. Nothing may wake
 * between this and the next sleep_give_back(). Bytes given back.
 */
size_t sleep_gather(struct sleep_batch *batch, struct span *slab, bool single);

/* Gives back all of a batch, which is empty then. Bytes. */
size_t sleep_give_back(struct sleep_batch *batch);

/* Both, for one slab. */
size_t sleep_purge_holes(struct span *slab, bool single);

/* Puts the blocks of a page back on the free list, which is empty. False: none sleeps. */
bool sleep_wake(struct span *slab);

#endif
