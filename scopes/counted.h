/*
 * counted.h: slabs of blocks with counts of references, after go-slab. Private to scopes/; the interface is
 * in region_objects.h, and in refs.c.
 *
 * A slab is slab_size bytes of the backing, cut into blocks of one size. Everything about it lies outside of
 * it, in the general heap: counts, chains and free lists survive any overflow of a block, and any pointer
 * into a block is as good as its start. A table leads from an address to its slab: for each part of the
 * address space, as long as a slab, that the slab touches, it has an entry.
 *
 * A slab in which nothing is in use any more goes back to the backing, unless its class has no other with
 * free blocks; and before a slab is asked for, one that is empty is taken from another class. So memory is
 * given back and moves between classes, where go-slab keeps what a class once had.
 *
 * Each set of slabs has one of a few locks, and every call takes it if there is more than one thread. Neither
 * the backing nor the general heap is called with it held: what has to be given back is collected, and given
 * back behind it.
 */
#ifndef LIBREGION_COUNTED_H
#define LIBREGION_COUNTED_H

#include <sys/single_threaded.h>

#include "core/core.h"
#include "region.h"

/* All slabs that there are share a few locks. */
#define COUNTED_LOCKS 16u

#define COUNTED_DIRECT_GRANULES 64u
#define COUNTED_MAGIC 0x6c73676572636f75u

/* What is known of a block; one that is free has no references. */
struct counted {
	uint32_t refs;
	uint32_t next_free; /* its number plus 1; 0: none */
	void *next;         /* of its chain */
};

struct counted_slab {
	char *memory;
	size_t bytes;
	size_t block_bytes;
	uint64_t reciprocal; /* floor(2^64 / block_bytes) + 1; 0 for a slab of its own, which is one block */
	uint32_t block_count;
	uint32_t fresh;      /* blocks from here on have never been used */
	uint32_t first_free; /* its number plus 1; 0: none */
	uint32_t in_use;
	uint32_t class;      /* class_count: a slab of its own */
	uint32_t place;      /* in `places` */
	struct counted_slab *next, *prev; /* in its class, if it has free blocks; what is to be given back */
	struct counted blocks[];
};

struct size_class {
	size_t block_bytes;
	struct counted_slab *open; /* slabs with free blocks */
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
	void *unused[2];     /* what a freed block of the heap overwrites */
	uint64_t magic;
	struct lock *lock;
	bool is_locked;      /* the lock was taken; else there is one thread only */
	struct region_slab_backing backing;
	size_t slab_bytes;
	unsigned part_shift;
	uint32_t class_count;
	struct entry *table; /* a power of two of entries, at most half of them used */
	size_t table_size, table_used;
	struct place *places;
	uint32_t place_count, place_capacity, free_place;
	struct region_slab_stats stats;
	uint16_t direct[COUNTED_DIRECT_GRANULES + 1]; /* the class of so many granules */
	struct size_class classes[];
};

/* counted.c. The lock is held wherever `slabs` is an argument, unless the text says otherwise. */

struct lock *counted_lock(unsigned i);

/* One for new slabs, in turn. */
struct lock *counted_next_lock(void);

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

__extension__ typedef unsigned __int128 counted_wide;

/* The number of the block that p lies in; block_count or more: in none. */
static inline size_t counted_block_at(const struct counted_slab *slab, const void *p)
{
	/* A product's upper half is the quotient, exactly, as long as the dividend has 32 bits. */
	return (size_t)((counted_wide)(size_t)((const char *)p - slab->memory) * slab->reciprocal >> 64);
}

static inline char *counted_address(const struct counted_slab *slab, size_t block)
{
	return slab->memory + block * slab->block_bytes;
}

/* The block in use that p lies in, or NULL; and its slab, or NULL. */
struct counted *counted_find(const struct region_slabs *slabs, const void *p, struct counted_slab **slab);

/* A block with one reference, of a class, or of a slab of its own. The lock may be given up meanwhile. */
void *counted_alloc(struct region_slabs *slabs, uint32_t class, size_t size);

/*
 * Takes a reference off, and off what a block that ends is chained to. Slabs that are to be given back go
 * into the list. Has the first one ended?
 */
bool counted_unref(struct region_slabs *slabs, struct counted_slab *slab, struct counted *counted,
                   struct counted_slab **gone);

/* Gives slabs back that were taken out; without the lock. */
void counted_give_back(const struct region_slabs *slabs, struct counted_slab *list);

#endif
