/*
 * span.h: span descriptors, and the pool that hands out runs of slices.
 *
 * A span is a run of slices with one purpose. Its descriptor lies outside of the heap, so that nothing
 * a program writes can damage it, and the slice table leads from any address to it.
 *
 * The pool keeps free runs by length, those with dirty pages apart from those that read as zero, and
 * prefers dirty ones: touching a fresh page costs more than anything else an allocator does. A dirty
 * run that nobody wants for a while goes back to the system (span_pool_decay).
 *
 * Invariants:
 *   - every slice of a span in use leads to it through the slice table;
 *   - of a free run, the first and the last slice have it, the slices between have 0;
 *   - two free runs of the same state never touch, unless one is being purged;
 *   - descriptor 0 has kind SPAN_NONE and no owner, and never changes.
 */
#ifndef LIBREGION_SPAN_H
#define LIBREGION_SPAN_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "range.h"

enum span_kind {
	SPAN_NONE = 0,
	SPAN_FREE_CLEAN, /* free, and reads as zero */
	SPAN_FREE_DIRTY, /* free, with pages that hold old data */
	SPAN_SPARE,      /* of a freed big block, kept by a thread (big.h) */
	SPAN_SLAB,       /* blocks of one size class (slab.h) */
	SPAN_BIG,        /* one block (big.h) */
	SPAN_BUFFER,     /* a thread's own: in a region, or cached (buffer.h) */
	SPAN_RETIRED,    /* a buffer that no thread owns, with faded blocks in it (buffer.h) */
	SPAN_BARE,       /* a buffer whose blocks the map doesn't know (bare.h) */
	SPAN_NULL,       /* blocks of no bytes, without access (null.h) */
	SPAN_WAITING,    /* a buffer with blocks that wait to be found reachable or not (waiting.h) */
	SPAN_QUARANTINED, /* a buffer of ended scopes, whose addresses rest for a while (quarantine.h) */
};

struct heap;
struct region;
struct free_block;

struct span {
	/* The first line hardly changes: of a slab it is all that a free by another thread looks at. */
	struct heap *owner; /* of a slab; NULL for any other kind */
	union {
		struct {
			uint64_t reciprocal;    /* slab: floor(2^64 / granules of a block) + 1; see heap.h */
			uint64_t most_product;  /* slab: the last block's distance from the start, times that */
			uint64_t start_product; /* slab: the number of its first granule, times that */
		};
		struct {
			char *fresh_lo, *fresh_hi; /* buffer: where the open scope has bumped in it */
			char *resume;              /* buffer between scopes: where the next one goes on */
		};
		uint64_t serial;               /* big: of a block that a scope has noted, or 0 (big_list.h) */
	};
	uint8_t kind;            /* enum span_kind */
	union {
		uint8_t class;       /* slab: size class; big: the bin it belongs into when it becomes a spare */
		uint8_t wait_count;  /* waiting: searches that its blocks have been through */
	};
	uint8_t is_full;         /* slab: in no queue, having no free block; retired: no holes worth using */
	                         /* waiting: it is in the list */
	union {
		uint8_t is_kept;   /* slab: empty at some time, but kept as the first of its queue */
		uint8_t is_cached; /* bare: of a size that heaps cache */
		uint8_t is_guarded; /* big: there is no access behind it; as a spare, to any of it (harden.h) */
	};
	uint8_t is_zero;         /* the memory behind `extended` (slab) or all of it (big) reads as zero */
	uint8_t had_keeps;       /* buffer: it holds blocks that have faded, or shall */
	uint8_t was_moved;       /* big: os_move() brought its pages here */
	uint8_t has_map;         /* free run: pages of its map may be resident */
	uint32_t slices;         /* the span's length */
	uint32_t block_bytes;    /* slab */
	char *start;             /* the first byte */
	union {
		size_t bytes;   /* big: bytes of the block */
		char *used_end; /* buffer: no block has ended behind it since the map was cleared */
	};

	/* The second line is the owner's: of a slab it changes with every block. */
	union {
		struct free_block *free; /* slab: list of free blocks */
		const char *wait_name;   /* buffer: of the scope that left the last waiting blocks */
	};
	struct span *next, *prev;    /* slab queue, region's buffers, cache, pool */
	union {
		uint32_t countdown;   /* slab: frees until the next event; see slab.h */
		uint32_t wait_blocks; /* buffer: that wait, when they were last counted */
		uint32_t null_live;   /* null: blocks */
	};
	union {
		uint32_t asleep;        /* slab: free blocks on purged pages, which are not on the list */
		uint32_t stamp_ms;      /* free dirty run: when it became one, the low 32 bits */
		uint32_t wait_granules; /* buffer: of its waiting blocks */
		uint32_t null_next;     /* null: the number of the address that is looked at next */
	};
	union {
		struct {
			uint32_t capacity; /* slab: blocks */
			uint32_t extended; /* slab: blocks that have been on the free list so far */
		};
		char *wait_hi;         /* buffer: its blocks below this belong to no open scope; NULL: none */
	};
	union {
		uint64_t asleep_pages; /* slab: a bit for each page that was given back; see sleep.h */
		struct region *region; /* buffer: the open region it belongs to, or NULL; bare: whose it is */
		void *sample;          /* big: what is to be told when the block is freed, or NULL */
	};
	union {
		struct {
			uint32_t level;        /* slab: blocks handed out are countdown + level; see slab.h */
			uint32_t slack_blocks; /* slab: free ones that count as its heap's slack */
		};
		const char *reclaimer; /* buffer: last scope that reclaimed blocks here, by name; bare: the owner */
	};

	/*
	 * Retired, waiting: blocks that aren't freed, and the number of them at which a free looks again.
	 * Atomic, and for nothing else: a free that comes late may still count down when the span is
	 * something else.
	 */
	uint32_t live, live_wake;
} __attribute__((aligned(128)));

static_assert(sizeof(struct span) == 128, "a descriptor is two cache lines");
static_assert(offsetof(struct span, free) == 64, "what the owner changes has a line of its own");

/*
 * The slice table holds a descriptor's distance from the first one, in bytes: shifted beforehand, so to
 * speak. It is read by frees of any thread while the pool changes other entries of it.
 */
static inline struct span *span_at_slice(size_t slice)
{
	return (struct span *)((char *)range.spans + __atomic_load_n(&range.slices[slice], __ATOMIC_RELAXED));
}

/* The span that p lies in, or number 0; p is in the heap range. */
static inline struct span *span_of(const void *p)
{
	return span_at_slice(range_offset(p) >> SLICE_SHIFT);
}

/*
 * Kind and region of a span are read by any thread that has a pointer into it, be it a late one; they are
 * set by its owner, or under the lock of the list that it is in.
 */
static inline enum span_kind span_kind(const struct span *span)
{
	return (enum span_kind)__atomic_load_n(&span->kind, __ATOMIC_ACQUIRE);
}

static inline void span_set_kind(struct span *span, enum span_kind kind)
{
	__atomic_store_n(&span->kind, (uint8_t)kind, __ATOMIC_RELEASE);
}

static inline struct region *span_region(const struct span *span)
{
	return __atomic_load_n(&span->region, __ATOMIC_RELAXED);
}

static inline void span_set_region(struct span *span, struct region *region)
{
	__atomic_store_n(&span->region, region, __ATOMIC_RELAXED);
}

static inline size_t span_bytes(const struct span *span)
{
	return (size_t)span->slices << SLICE_SHIFT;
}

static inline char *span_end(const struct span *span)
{
	return span->start + span_bytes(span);
}

/*
 * A run of `slices`, its start a multiple of `align_slices` (a power of two) slices, of the given kind,
 * with is_zero set if it reads as zero; all else in the descriptor is zero. NULL: out of memory.
 */
struct span *span_alloc(size_t slices, size_t align_slices, enum span_kind kind);

/* The same, of dirty memory only. NULL: there is no such run. */
struct span *span_alloc_dirty(size_t slices, size_t align_slices, enum span_kind kind);

/* Makes a span in use one of another kind, whose fields are those of a new one; its memory is dirty. */
void span_recycle(struct span *span, enum span_kind kind);

/* Gives a span back. If `is_clean` all of it reads as zero. */
void span_free(struct span *span, bool is_clean);

/* Makes a span in use longer, in place, or returns false. New memory reads as zero if *is_clean. */
bool span_extend(struct span *span, size_t slices, bool *is_clean);

/* Makes a span in use shorter; what is cut off goes back to the pool. */
void span_shorten(struct span *span, size_t slices);

/* Returns dirty runs that have been free for longer than the decay time; `all`: at once. Bytes. */
size_t span_pool_decay(bool all);

/* Does that if it is time to. */
void span_pool_tick(void);

/* A number that grows each time the pool has looked for old runs. */
uint32_t span_pool_epoch(void);

/* The time that a dirty run stays; set once at start. */
void span_pool_set_decay_ms(uint32_t ms);

/* Bytes of spans in use, of free dirty runs, and of all slices that were ever used. */
struct span_totals {
	size_t used_bytes, dirty_bytes, most_bytes;
};
struct span_totals span_pool_totals(void);

/* Calls fn for every span in use, spares not, under the pool's lock: fn takes no lock and changes nothing. */
void span_for_each(void (*fn)(const struct span *span, void *arg), void *arg);

/* The same for who holds the pool's lock. */
void span_for_each_locked(void (*fn)(const struct span *span, void *arg), void *arg);

/* The pool's lock, for fork() and for who looks at all spans. */
struct lock *span_pool_lock(void);

#endif
