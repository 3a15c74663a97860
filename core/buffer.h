/*
 * buffer.h: spans that regions bump-allocate from.
 *
 * A buffer's first granule is never allocated, so that no block ends where a buffer begins. Everything
 * else is said by the granule map: a buffer is a sequence of live blocks and holes, and a hole is
 * whatever lies between the end of one live block and the head of the next, freed blocks included.
 *
 * A buffer is in one of these places:
 *   - in a heap's `spare` list: empty, its map all zero;
 *   - with a region (span->region), or between scopes with the thread that had it last: SPAN_BUFFER.
 *     A free only marks the map; the owner finds the hole when it looks for one;
 *   - retired: it holds faded blocks, and no thread owns it: SPAN_RETIRED. Frees count down `live`, and
 *     the last one gives the buffer back, whichever thread makes it. A thread that needs a buffer may
 *     take one with enough room over again.
 *
 * `live` may come out too high, when a free that saw the buffer still owned races with its retirement,
 * or too low, the other way round. So it only says when to look: what is released is decided by a scan
 * of the map under the lock. A count that is too high keeps the buffer until it is used again.
 */
#ifndef LIBREGION_BUFFER_H
#define LIBREGION_BUFFER_H

#include "heap.h"

/* Where blocks of a buffer start. */
static inline char *buffer_begin(const struct span *span)
{
	return span->start + GRANULE_BYTES;
}

/* The map of a buffer: of its first block, and one behind its last. */
static inline unsigned char *buffer_map(const struct span *span)
{
	return range_map_of(buffer_begin(span));
}

static inline unsigned char *buffer_map_end(const struct span *span)
{
	return range_map_of(span->start) + (span_bytes(span) >> GRANULE_SHIFT);
}

/* The smallest log2 of a buffer's size that holds `bytes`; sizes outside the limits are cut to them. */
unsigned buffer_size_log2(size_t bytes);

/* An empty buffer from the heap range, with `count` - 1 more for the cache. NULL: out of memory. */
struct span *buffer_make(struct heap *heap, unsigned size_log2, size_t count);

/* Is there an empty buffer of this one's size in the heap's cache? */
bool buffer_has_spare(const struct heap *heap, const struct span *span);

/* An empty buffer from the heap's cache, or NULL. */
static inline struct span *buffer_take_spare(struct heap *heap, unsigned size_log2)
{
	struct span *span = heap->spare[size_log2 - BUFFER_MIN_LOG2];

	if (span) {
		heap->spare[size_log2 - BUFFER_MIN_LOG2] = span->next;
		heap->spare_bytes -= span_bytes(span);
	}
	return span;
}

/* Puts an empty buffer, its map all zero, into the cache, or gives it back if that is full. */
void buffer_put(struct heap *heap, struct span *span);

/* Gives an empty buffer, its map all zero, back to the pool. */
void buffer_give_back(struct span *span);

/* Forgets all blocks of a buffer: its map is zero afterwards. */
void buffer_clear(struct span *span);

/* Gives the whole cache back. */
void buffer_drop_spares(struct heap *heap);

/* The bytes of buffers that a heap may cache; set once at start. */
void buffer_set_cache_bytes(size_t bytes);

/* A free extent of a buffer, and how many blocks were allocated and freed there since it was last one. */
struct hole {
	char *lo, *hi;
	size_t freed_blocks;
};

/*
 * Finds the next hole of at least `bytes` that begins at or behind `from`, which is where a block or
 * a hole begins; the map under it is zero afterwards. False: there is none.
 */
bool buffer_next_hole(struct span *span, char *from, size_t bytes, struct hole *hole);

/*
 * Is it worth looking for holes? Looks at a few places only: a buffer with an eighth of its blocks freed is
 * missed one time in twenty, and one without any freed block costs next to nothing.
 */
bool buffer_may_have_holes(const struct span *span);

/*
 * Ends a scope in a buffer some of whose blocks live, from fresh_lo to fresh_hi: blocks that haven't faded
 * are reclaimed, if `reclaims`, or fade; freed ones are forgotten.
 */
struct buffer_ending {
	size_t blocks, bytes; /* that faded or were reclaimed */
	bool has_survivors;   /* faded blocks, now or before, between fresh_lo and fresh_hi */
};
struct buffer_ending buffer_end_scope(struct span *span, bool reclaims);

/* Live blocks that haven't faded, from fresh_lo to fresh_hi. */
struct buffer_fresh {
	size_t blocks, bytes;
};
struct buffer_fresh buffer_count_fresh(const struct span *span);

/*
 * Gives up a buffer that holds only faded blocks: from now on it is nobody's. False: none of them lives,
 * the buffer is still the caller's.
 */
bool buffer_retire(struct span *span);

/* Takes over a retired buffer with room, or NULL. */
struct span *buffer_adopt(void);

/* Releases retired buffers in which nothing lives any more, and gives back free pages of the others. */
void buffer_sweep_retired(void);

/* The head, in the map, of the live block that p points into, or NULL. */
unsigned char *buffer_find(const struct span *span, const void *p);

/* The frees that the inlined path leaves; and of an address that lies in no span. */
void buffer_free(struct heap *heap, struct span *span, void *p, const char *call);
void buffer_free_gone(void *p, const char *call);

/*
 * Sets who is asked first about a free of what isn't a live block. True: it was reclaimed, and that has been
 * said. Once, at start.
 */
typedef bool buffer_late_hook(void *p, const char *call);
void buffer_set_late_hook(buffer_late_hook *hook);

/*
 * Notes that unfreed blocks of a scope are about to be reclaimed, so that late frees are known; in a
 * buffer, or of a big block.
 */
void buffer_note_reclaim(struct span *span, const char *scope_name);
void buffer_note_reclaim_big(const struct span *span, const char *scope_name);

/* Frees of blocks that a scope had reclaimed. */
uint64_t buffer_late_frees(void);

struct lock *buffer_lock(void);

#endif
