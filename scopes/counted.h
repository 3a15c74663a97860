/*
 * counted.h: slabs of blocks with counts of references, after go-slab. Private to scopes/; the interface is
 * in region_objects.h, and in refs.c.
 *
 * A slab is slab_size bytes of the backing, cut into blocks of one size. Everything about it lies outside of
 * it, in the general heap: counts, chains and free lists survive any overflow of a block, and any pointer
 * into a block is as good as its start. A table leads from an address to its slab: for each part of the
 * address space, as long as a slab, that the slab touches, it has an entry.
 *
 * A slab in which nothing is in use any more stays if its class has no other with free blocks, or if few
 * are *spare*; else it goes back to the backing. Before a slab is asked for, a spare one is taken, or an
 * empty one from another class. So memory is given back and moves between classes, where go-slab keeps what
 * a class once had; and use that goes up and down costs nothing.
 *
 * Each set of slabs has one of a few locks, and every call takes it if there is more than one thread. Neither
 * the backing nor the general heap is called with it held: what has to be given back is collected, and given
 * back behind it. While there is one thread, common calls take a short way: counting is inlined from the
 * header, which finds slabs in `near`; taking and ending a block touch no more than it and its slab.
 *
 * A set's record lies where libregion's own structures do, and is used again when others have ended after
 * it: so a use of slabs that were destroyed is told from a proper one. A dead record has one slab only,
 * without blocks.
 */
#ifndef LIBREGION_COUNTED_H
#define LIBREGION_COUNTED_H

#include <sys/single_threaded.h>

#include "core/core.h"
#include "region.h"

/* All slabs that there are share a few locks. */
#define COUNTED_LOCKS 16u

#define COUNTED_DIRECT_GRANULES 64u

struct counted_slab {
	struct region_slab_ at; /* the header knows it */
	size_t bytes;
	size_t block_bytes;
	uint32_t block_count;
	uint32_t fresh;      /* blocks from here on have never been used */
	uint32_t class;      /* class_count: a slab of its own */
	uint32_t place;      /* in `places` */
	struct counted_slab *next, *prev; /* in its class; spare; what is to be given back */
	struct region_counted_ blocks[];
};

struct size_class {
	struct counted_slab *open; /* slabs with free blocks, and maybe full ones; COUNTED_NONE: none */
	size_t block_bytes;
	uint32_t slab_count;
};

/* An entry of the table, and a place, which a location names. */
struct entry {
	uintptr_t part;
	struct counted_slab *slab;
};

struct place {
	struct counted_slab *slab;
	uint32_t serial;     /* of the slab that is there, or was last */
	uint32_t next_free;  /* number plus 1 */
};

struct region_slabs {
	struct region_slabs_ head; /* the header knows it */
	struct size_class *classes;
	uint16_t direct[COUNTED_DIRECT_GRANULES + 1]; /* the class of so many granules */
	uint64_t allocs, fails;    /* calls of alloc; those that got nothing */
	uint64_t fresh;            /* those that got a block which had never been used */
	bool is_live;
	bool has_near;             /* the program knows the layout of `head` */
	bool is_locked;            /* the lock was taken; else there is one thread only */
	struct lock *lock;
	struct region_slab_backing backing;
	size_t slab_bytes;
	uint32_t class_count;
	struct counted_slab *spare; /* empty ones that are in no class's list, */
	uint32_t spare_count, spare_most; /* so many, and no more */
	struct entry *table; /* a power of two of entries, at most half of them used */
	size_t table_size, table_used;
	struct place *places;
	uint32_t place_count, place_capacity, free_place;
	struct region_slab_stats stats; /* what isn't counted elsewhere */
	struct region_slabs *next; /* dead records */
};

static_assert(offsetof(struct region_slabs, head) == 0 && offsetof(struct counted_slab, at) == 0,
              "the header knows the first words");

/* A slab without blocks: where there is none. Nobody writes to it. */
extern const struct counted_slab counted_none;
#define COUNTED_NONE ((struct counted_slab *)&counted_none)

/* counted.c. The lock is held wherever `slabs` is an argument, unless the text says otherwise. */

struct lock *counted_lock(unsigned i);

/* A record, all zero but for its lock and what makes it have no slabs; NULL: no memory. Without the lock. */
struct region_slabs *counted_take_record(void);

/* It is dead from now on: has no slabs again. Without the lock. */
void counted_put_record(struct region_slabs *slabs);

/*
 * Takes the lock and gives it up; as long as there is one thread, only so to speak. Nothing that is done in
 * between could start another.
 */
static inline void counted_take(struct region_slabs *slabs)
{
	bool is_alone = __libc_single_threaded;

	if (!is_alone)
		lock_acquire(slabs->lock);
	slabs->is_locked = !is_alone;
}

static inline void counted_give_up(struct region_slabs *slabs)
{
	if (slabs->is_locked)
		lock_release(slabs->lock);
}

/* The slab that p lies in, or NULL. */
struct counted_slab *counted_slab_at(const struct region_slabs *slabs, const void *p);

/* The number of the block that p lies in; block_count or more: in none. */
static inline size_t counted_block_at(const struct counted_slab *slab, const void *p)
{
	/* A product's upper half is the quotient, exactly, as long as the dividend has 32 bits. */
	return (size_t)((region_wide_)(size_t)((const char *)p - slab->at.memory) * slab->at.reciprocal >> 64);
}

static inline char *counted_address(const struct counted_slab *slab, size_t block)
{
	return slab->at.memory + block * slab->block_bytes;
}

/* Takes a free block that was in use before, with one reference. There is one. */
static inline void *counted_pop(struct region_slabs *slabs, struct counted_slab *slab)
{
	uint32_t block = slab->at.first_free - 1;

	slab->at.first_free = slab->blocks[block].next_free;
	slab->blocks[block].refs = 1;
	slab->at.in_use++;
	slabs->allocs++;
	return counted_address(slab, block);
}

/* The block in use that p lies in, or NULL; and its slab, or NULL. The slab is near then. */
struct region_counted_ *counted_find(struct region_slabs *slabs, const void *p, struct counted_slab **slab);

/* A block with one reference, of a class, or of a slab of its own. The lock may be given up meanwhile. */
void *counted_alloc(struct region_slabs *slabs, uint32_t class, size_t size);

/*
 * Takes a reference off, and off what a block that ends is chained to. Slabs that are to be given back go
 * into the list. Has the first one ended?
 */
bool counted_unref(struct region_slabs *slabs, struct counted_slab *slab, struct region_counted_ *counted,
                   struct counted_slab **gone);

/* Gives slabs back that were taken out; without the lock. */
void counted_give_back(const struct region_slabs *slabs, struct counted_slab *list);

#endif
