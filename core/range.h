/*
 * range.h: the heap range and what describes it.
 *
 * One reservation holds six lanes, each committed from its start as far as it is used:
 *
 *     heap     the memory of blocks, in slices of 64 KiB
 *     map      the granule map: one byte for every 16 of the heap
 *     slices   for each slice, the span that it belongs to; 0 where it belongs to none
 *     spans    the span descriptors; number 0 describes what belongs to nobody
 *     notes    only if asked for: 4 bytes for each granule, for the layer above to note something in about
 *              the block that begins there
 *     meta     libregion's own structures: thread heaps, scope records, statistics
 *
 * Hence "is it mine?" is one subtraction and one compare, a foreign pointer is never dereferenced, and
 * neither the map nor a descriptor needs a look-up. (A flat map of the whole heap is snmalloc's idea.)
 *
 * Invariants:
 *   - once range_init() has returned only ends move: those of the lanes, and `granules` with them;
 *   - what is committed of a lane only grows, what is reserved only shrinks; committed memory stays
 *     committed, its pages may be purged;
 *   - the map of every slice is zero, but for those of buffers and null blocks.
 */
#ifndef LIBREGION_RANGE_H
#define LIBREGION_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock.h"

#define SLICE_SHIFT 16
#define SLICE_BYTES ((size_t)1 << SLICE_SHIFT)
#define GRANULE_SHIFT 4
#define GRANULE_BYTES ((size_t)1 << GRANULE_SHIFT)

#define RANGE_MIN_BYTES ((size_t)16 << 20)
#define RANGE_DEFAULT_BYTES ((size_t)1 << 40)
#define RANGE_MAX_BYTES ((size_t)1 << 40)

struct span;

struct lane {
	char *base;
	size_t reserved_bytes;
	size_t committed_bytes;
};

enum { LANE_HEAP, LANE_MAP, LANE_SLICES, LANE_SPANS, LANE_NOTES, LANE_META, LANE_COUNT };

struct range {
	char *base;          /* of the heap */
	size_t granules;     /* of the heap that are committed and described; only grows */
	unsigned char *map;  /* the granule map */
	uintptr_t map_bias;  /* of an address's map byte against the address in granules */
	uint32_t *slices;    /* which span each slice belongs to; see span.h */
	struct span *spans;  /* the descriptors */
	struct lane lanes[LANE_COUNT];
	struct lock lock;    /* guards the lanes' ends and meta_used */
	size_t meta_used;
	uint32_t *notes;     /* NULL: not asked for */
	bool wants_notes;
};

extern struct range range __attribute__((visibility("hidden")));

/* The range shall have notes; before it is reserved. */
void range_want_notes(void);

/*
 * Reserves the range, `wanted_bytes` of heap or the largest half, quarter, ... that the kernel and
 * RLIMIT_AS allow. False: there is no room even for RANGE_MIN_BYTES.
 */
bool range_init(size_t wanted_bytes);

/* Address space that the lanes have reserved. */
size_t range_reserved_bytes(void);

/*
 * Gives address space back, so that at most `bytes` are reserved, or what is in use if that is more. The heap
 * can't grow beyond that any more. Between the lanes there may be memory of others from then on.
 */
void range_shrink(size_t bytes);

/* Makes the first `bytes` of the heap usable, with their map and slices. False: out of memory. */
bool range_grow(size_t bytes);

/* Makes the first `count` span descriptors usable. False: out of memory. */
bool range_commit_spans(size_t count);

/* Memory for libregion's own structures: zeroed, aligned to 64 bytes, never given back. NULL: none. */
void *range_meta_alloc(size_t bytes);

/*
 * A word that other threads may be changing, read where it costs the most. A plain load is one access,
 * and folds into the compare that follows, which gcc doesn't do with an atomic one.
 */
#if defined(__SANITIZE_THREAD__)
#define HOT_LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#else
#define HOT_LOAD(word) (word)
#endif

static inline size_t range_offset(const void *p)
{
	return (size_t)((uintptr_t)p - (uintptr_t)range.base);
}

/* Does p point into the part of the heap range that is in use? Any p will do. */
static inline bool range_has(const void *p)
{
	return range_offset(p) >> GRANULE_SHIFT < HOT_LOAD(range.granules);
}

/*
 * The number of the granule that starts at p; at least range.granules if p isn't in the part that is in
 * use, or isn't a multiple of a granule: rotated, what is left over makes the number a huge one.
 */
static inline size_t range_granule_at(const void *p)
{
	size_t offset = range_offset(p);

	return offset >> GRANULE_SHIFT | offset << (64 - GRANULE_SHIFT);
}

/* The map byte of the granule that p lies in; p is in the heap range. */
static inline unsigned char *range_map_of(const void *p)
{
	return (unsigned char *)(range.map_bias + ((uintptr_t)p >> GRANULE_SHIFT));
}

/* The note of the block at p, which is in the heap range, or NULL. Zero until somebody notes something. */
static inline uint32_t *range_note_of(const void *p)
{
	return range.notes ? range.notes + (range_offset(p) >> GRANULE_SHIFT) : NULL;
}

static inline void *range_of_map(const unsigned char *byte)
{
	return range.base + ((size_t)(byte - range.map) << GRANULE_SHIFT);
}

#endif
