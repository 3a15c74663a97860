/*
 * heap.h: thread heaps, and the paths of malloc and free that are common enough to be inlined.
 *
 * A thread heap holds a thread's slabs by size class, the place where its region bumps, and its cache
 * of buffers. Only its thread touches it, except for the inbox, where other threads leave the blocks
 * of its slabs that they free.
 *
 * `bump_granules` is 0 outside of scopes and `inline_granules` in them, so that one sequence of compares
 * serves both: bump if that is allowed here and the block fits, else take from a slab if that is, else
 * hand over to the slow path. Threads without a heap share a constant one in which nothing ever fits
 * (mimalloc's empty heap), so there is no test for "initialised".
 *
 * Life: a heap is made when a thread first needs one, becomes idle when the thread ends, and is taken
 * over by the next new thread. Its slabs with room go to whoever needs them first (heap_adopt). A heap is
 * never unmapped, so that a free by another thread always finds an inbox. In the child of a fork the other
 * threads' heaps are lost: they may have been copied in the middle of an operation, so nothing is ever
 * taken from them again.
 */
#ifndef LIBREGION_HEAP_H
#define LIBREGION_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "class.h"
#include "granule.h"
#include "range.h"
#include "span.h"

#define HEAP_DIRECT_MAX ((size_t)1024)
#define HEAP_DIRECT_GRANULES (HEAP_DIRECT_MAX >> GRANULE_SHIFT)
#define HEAP_OUTBOXES 8u
#define HEAP_BUNDLES 64u
#define HEAP_BIG_BINS 24u
#define BUFFER_MIN_LOG2 16u
#define BUFFER_MAX_LOG2 24u
#define BUFFER_SIZES (BUFFER_MAX_LOG2 - BUFFER_MIN_LOG2 + 1)

enum heap_state { HEAP_NONE, HEAP_LIVE, HEAP_IDLE, HEAP_LOST, HEAP_SHARED };

/* A queue of slabs of one class that may have free blocks; the first is allocated from. */
struct slab_queue {
	struct span *first, *last;
};

/* Blocks of other heaps that this thread has freed: of one slab, and messages to one heap; see remote.h. */
struct bundle {
	struct span *slab;
	struct free_block *first, *last;
	uint32_t count;
};

struct outbox {
	struct heap *to;
	struct free_block *head, *tail;
};

struct heap {
	char *cursor;           /* where the next block of the current region begins */
	char *limit;            /* end of the free extent behind the cursor */
	size_t bump_granules;   /* a region may serve blocks to this size inline; 0 outside of scopes */
	size_t inline_granules; /* slabs may; 0 in a scope */
	void *upper;            /* what the layer above keeps for this thread */
	void *upper_top;        /* and what it needs of that most often */
	uint64_t popped_blocks; /* newest blocks freed again: they leave no trace in the map */
	uint64_t popped_bytes;
	enum heap_state state;  /* changes under the heaps' lock */
	size_t spare_bytes;     /* of the buffers in `spare` */

	struct span *direct[HEAP_DIRECT_GRANULES]; /* by granules - 1: the first slab of the class's queue */
	struct slab_queue queues[CLASS_COUNT];
	uint8_t serving[CLASS_COUNT];     /* the class whose slabs serve a class's requests; see slab.c */
	struct span *spare[BUFFER_SIZES]; /* empty buffers, by size, linked through next */
	size_t slab_bytes;                /* of all its slabs */
	uint32_t class_slabs[CLASS_COUNT]; /* how many of a class, full ones too */
	void *fresh_block;                /* that slab_alloc() has given, if nobody had it before; or NULL */
	size_t slack_bytes;               /* free in sparse slabs; see slab.c */
	size_t slack_wanted;              /* that had to be had back after it was given back */
	struct span *big_spares[HEAP_BIG_BINS]; /* spans of freed big blocks; see big.h */
	size_t big_spare_bytes;
	uint32_t big_bins_used;           /* a bit for each bin that has served since big_epoch */
	uint32_t big_frees;               /* that came to the spares */
	uint32_t big_epoch;               /* of the pool, when unused spares were last let go */
	char *fresh_big;                  /* the last long block made of clean memory; see big.c */
	size_t fresh_big_bytes;
	uint32_t filled_bigs;             /* such blocks in a row that the program has filled */
	struct bundle bundles[HEAP_BUNDLES];
	struct outbox outboxes[HEAP_OUTBOXES];
	size_t collected_bytes;           /* in bundles and outboxes */
	struct quarantine *quarantine;    /* see harden.h */
	uint32_t trims;                   /* heap_trim()s by any thread that this one has followed */
	struct heap *next_heap;           /* all heaps */
	struct heap *next_idle;

	/* While its allocations are sampled (HEAP_SAMPLED), what the layer above counts by. */
	size_t sample_left;      /* the allocation that has this many bytes, or goes past them, is due */
	size_t sample_gap;       /* what sample_left was set to last */
	uint64_t sample_blocks;  /* allocations so far */
	uint64_t sample_bytes;   /* and their bytes, when sample_left was set last */

	void *watched;           /* upper_top, while the layer above wants to see allocations (HEAP_WATCHED) */

	/* A line of its own: the only member that other threads write. */
	struct free_block *inbox __attribute__((aligned(64)));
} __attribute__((aligned(64)));

/* The calling thread's heap, or one of two constant ones: heap_none before, heap_dead after its life. */
extern __thread struct heap *heap_tls
	__attribute__((visibility("hidden"), tls_model("initial-exec")));
extern struct heap heap_none __attribute__((visibility("hidden")));
extern struct heap heap_dead __attribute__((visibility("hidden")));

static inline struct heap *heap_self(void)
{
	return heap_tls;
}

/* Called by whoever makes the calling thread's heap, before its first block is handed out. */
typedef void heap_hook(struct heap *heap);

/* Sets what is called when a thread gets a heap, once, at start, before there is any. */
void heap_set_birth_hook(heap_hook *hook);

/* Sets what is called, with no lock held, before memory is said to be out. Once, at start. */
void heap_set_pressure_hook(void (*hook)(void));

/* The calling thread's heap, made if need be. NULL: the thread is past its end, or out of memory. */
struct heap *heap_make(void);

/* Ends the calling thread's heap: the thread has only heap_dead from here on. */
void heap_retire(void);

/*
 * Gives back what is free in slabs: of the calling thread's heap, and of those that are idle. Other threads
 * do the same with theirs when they next need a slab that has room.
 */
void heap_trim(void);

/* Does it for the calling thread's heap, if another thread has asked for it since. */
void heap_follow_trims(struct heap *heap);

/* All heaps ever made, for statistics: in no order, through next_heap. */
struct heap *heap_all(void);

/* Around fork(); see lock.h. */
void heap_before_fork(void);
void heap_after_fork_in_parent(void);
void heap_after_fork_in_child(void);

/*
 * `bytes` from the general heap, for whichever thread calls: the way for everything that the inlined
 * paths can't serve. 16-byte aligned; NULL: out of memory.
 */
void *heap_alloc(size_t bytes);

/* The same with an alignment, a power of two of any size. */
void *heap_alloc_aligned(size_t align, size_t bytes);

/* Frees any pointer that the inlined path doesn't: NULL, foreign, big, remote, misused. `call` names
 * the caller's function in reports. */
void heap_free(void *p, const char *call);

/*
 * The same for who was told that the block has `size` bytes. One that has less is reported: who is wrong
 * about that has written beyond its end, or frees something else than it means to.
 */
void heap_free_sized(void *p, size_t size, const char *call);

/* Bytes of the block at p, wherever it is; 0: it has none, or there is no block, which is reported. */
size_t heap_block_bytes(const void *p, const char *call);

/* Gives a block that is known to be in use, and that nothing more is to be asked of, back to its slab. */
void heap_give_back(struct span *slab, void *p);

/* Takes over a slab of the class, with room if it can be told, that an ended thread has left. */
bool heap_adopt(struct heap *heap, unsigned class);

/* Takes back what has been sent to a heap, if its thread has ended. */
void heap_drain_idle(struct heap *heap);

/* Notes that an idle heap has a slab of the class, under the heaps' lock. */
void heap_note_idle_class(unsigned class);

/* Odd, so that no pointer to a block is one; it fits into one instruction with the address. */
#define FREED_MARK ((uintptr_t)0x35c1f0a7)

/*
 * A free block of a slab. The mark is the block's address plus a constant, which no program stores there:
 * seen at a free it tells a double free, missing at an allocation it tells that the block was written to
 * after its free, or that the link which led here was. (glibc's thread cache has a key of the kind.) It
 * comes first, because writes behind the end of the block before it come from there.
 */
struct free_block {
	uintptr_t mark;
	struct free_block *next;
};

static inline uintptr_t heap_freed_mark(const void *p)
{
	return (uintptr_t)p + FREED_MARK;
}

/*
 * For calloc of long blocks, whose pages needn't be touched where they read as zero: who asks for a block
 * calls the first before, and the second with what it got. True: all of it is zero but the first granule.
 */
static inline void heap_forget_fresh(struct heap *heap)
{
	if (heap->state == HEAP_LIVE)
		heap->fresh_block = NULL;
}

static inline bool heap_is_fresh(const struct heap *heap, const void *p)
{
	return heap->fresh_block == p;
}

/* Takes a slab's first free block. NULL: there is none, or it has been written to. */
static inline __attribute__((always_inline)) void *slab_pop(struct span *slab)
{
	struct free_block *block = slab->free;

	if (__builtin_expect(!block || block->mark != heap_freed_mark(block), 0))
		return NULL;
	slab->countdown++;
	slab->free = block->next;
	block->mark = 0;
	return block;
}

/*
 * Slabs serve blocks up to HEAP_DIRECT_GRANULES inline; or, if it is 0, the current region does; or, if it is
 * HEAP_SAMPLED, nobody does, so that the layers above see every allocation.
 */
#define HEAP_SAMPLED ((size_t)1)

/*
 * What the layer above keeps for `upper_top` while it wants to see who allocates in it, and calls
 * heap_set_inline() with to come back to it: the slow path is taken, and asks heap_is_watched().
 */
#define HEAP_WATCHED ((size_t)2)

static inline void heap_set_inline(struct heap *heap, size_t granules)
{
	heap->inline_granules = granules & HEAP_DIRECT_GRANULES;
	heap->bump_granules = granules ? 0 : GRANULE_SHORT_MAX;
}

/* Makes `upper_top` watched; the current region still serves blocks to that size inline. */
static inline void heap_set_watched(struct heap *heap, void *upper_top, size_t granules)
{
	heap->watched = upper_top;
	heap->inline_granules = 0;
	heap->bump_granules = granules;
}

static inline bool heap_is_watched(const struct heap *heap)
{
	return heap->watched && heap->watched == heap->upper_top;
}

/* Are allocations sampled, and this one isn't due? */
static inline bool heap_may_skip(const struct heap *heap, size_t size)
{
	return heap->bump_granules == 0 && size < heap->sample_left;
}

static inline void heap_count_skipped(struct heap *heap, size_t size)
{
	heap->sample_left -= size;
	heap->sample_blocks++;
}

/* Nothing is served inline: every allocation takes the slow path. A later heap_set_inline() undoes it. */
static inline void heap_set_slow(struct heap *heap)
{
	heap->inline_granules = heap->bump_granules = 0;
}

/*
 * Asks for the line at p as one to be written. A program writes to a block as soon as it has it, and stores
 * leave the core in order: one that waits for its line holds up all behind it, and a bump pointer
 * has a new line with every block or two. The map's next line has longer until it is needed. (On the
 * machines measured that was a fifth of the time of filling 2.6 MB.) Beyond the end of a buffer it does
 * nothing: a prefetch does not fault.
 */
static inline __attribute__((always_inline)) void heap_prefetch(const void *p)
{
	__builtin_prefetch(p, 1, 3);
}

#define HEAP_LINE_BYTES 64

/* p, in the register that functions return values in: else both ways of malloc end in one shared move. */
static inline __attribute__((always_inline)) char *heap_returned(char *p)
{
#if defined(__x86_64__)
	__asm__("" : "+a"(p));
#endif
	return p;
}

/*
 * The common allocation: bump in a scope, pop from a slab outside; else slow(size).
 * The last granule of no bytes at all is a huge number, and passes no compare.
 */
static inline __attribute__((always_inline)) void *
heap_alloc_inline(struct heap *heap, size_t size, void *(*slow)(size_t size))
{
	size_t last_granule = (size - 1) >> GRANULE_SHIFT;

	/* Straight on is the way of scopes: a branch that is taken costs as much as the rest of a bump. */
	if (__builtin_expect(last_granule < heap->bump_granules, 1)) {
		char *p = heap_returned(heap->cursor);
		char *end = p + ((last_granule + 1) << GRANULE_SHIFT);
		unsigned char *head = range_map_of(p);

		if (__builtin_expect((uintptr_t)end > (uintptr_t)heap->limit, 0))
			return slow(size);
		heap->cursor = end;
		heap_prefetch(end);
		heap_prefetch(head + HEAP_LINE_BYTES);
		granule_set_short(head, last_granule + 1);
		return p;
	}
	if (__builtin_expect(last_granule >= heap->inline_granules, 0))
		return slow(size);
	void *block = slab_pop(heap->direct[last_granule]);
	return __builtin_expect(block != NULL, 1) ? block : slow(size);
}

/*
 * The bump of a block of any length, in whole granules to GRANULE_MAX of them, and of any alignment, a power
 * of two from a granule on. NULL: there is no scope, or the hole is too short.
 */
static inline void *heap_bump(struct heap *heap, size_t bytes, size_t align)
{
	char *p = (char *)(((uintptr_t)heap->cursor + align - 1) & ~(align - 1));

	if (!heap->cursor || p > heap->limit || bytes > (size_t)(heap->limit - p))
		return NULL;
	heap->cursor = p + bytes;
	granule_set(range_map_of(p), bytes >> GRANULE_SHIFT);
	return p;
}

/* From a class's first slab. NULL: not served, or there is no such class. */
static inline void *heap_alloc_of_class(struct heap *heap, unsigned class)
{
	struct span *slab = class < CLASS_COUNT ? heap->queues[heap->serving[class]].first : NULL;

	return slab ? slab_pop(slab) : NULL;
}

/* From the class's first slab, of sizes to CLASS_MAX_BYTES. NULL: not served. */
static inline void *heap_alloc_class(struct heap *heap, size_t size)
{
	if (size - 1 >= CLASS_MAX_BYTES)
		return NULL;
	return heap_alloc_of_class(heap, class_of(size));
}

/*
 * Does a block of this slab that has ever been on the free list start at the granule of that number? With
 * c = floor(2^64 / size) + 1, the product of c and the distance from the slab's start, modulo 2^64, is
 * small if and only if the distance is a multiple of the size (Lemire, Kaser, Kurz: "Faster remainder by
 * direct computation"), and then it grows with the block's number: one compare checks both. The product
 * with the slab's own first granule is known beforehand.
 */
static inline bool slab_is_block(const struct span *slab, size_t granule)
{
	return granule * slab->reciprocal - HOT_LOAD(slab->start_product) <= HOT_LOAD(slab->most_product);
}

/* What a free does that emptied a slab, or gave a full one its first free block. */
void slab_event(struct heap *heap, struct span *slab);

/* Puts a marked block on the list of its slab, of the thread's own heap. */
static inline __attribute__((always_inline)) void
heap_push_free(struct heap *heap, struct span *slab, struct free_block *block)
{
	block->next = slab->free;
	slab->free = block;
	if (__builtin_expect(--slab->countdown == 0, 0))
		slab_event(heap, slab);
}

/* Takes back the newest block of the region, whose map byte the caller clears. */
static inline void heap_pop_newest(struct heap *heap, void *p, size_t bytes)
{
	heap->cursor = p;
	heap->popped_blocks++;
	heap->popped_bytes += bytes;
}

/*
 * The common free in a scope: of a short block of a buffer. `least`: the granules that it was told to have; a
 * constant 0 if it wasn't.
 */
static inline __attribute__((always_inline)) bool
heap_free_in_buffer(struct heap *heap, void *p, size_t granule, size_t least)
{
	unsigned char *head = range.map + granule;
	size_t granules = __atomic_load_n(head, __ATOMIC_RELAXED);

	/* The head of a short block that is live and hasn't faded: its buffer is some thread's own. */
	if (granules - 1 >= GRANULE_SHORT_MAX || granules < least)
		return false;
	/* A buffer's first granule is never a block's, so the end of another can't be the cursor. */
	if ((char *)p + (granules << GRANULE_SHIFT) == heap->cursor) {
		heap_pop_newest(heap, p, granules << GRANULE_SHIFT);
		__atomic_store_n(head, 0, __ATOMIC_RELAXED);
		return true;
	}
	__atomic_store_n(head, (unsigned char)(granules | GRANULE_FREED), __ATOMIC_RELEASE);
	return true;
}

/* The same of a long one; `least` in bytes. */
static inline bool heap_free_long(struct heap *heap, void *p, size_t least)
{
	size_t granule = range_granule_at(p);
	unsigned char *head = range.map + granule;

	if (heap->bump_granules == 0 || granule >= HOT_LOAD(range.granules) || granule_load(head) != GRANULE_LONG)
		return false;
	size_t bytes = granule_long_size(head) << GRANULE_SHIFT;
	if (bytes < least)
		return false;
	if ((char *)p + bytes == heap->cursor) {
		heap_pop_newest(heap, p, bytes);
		granule_clear(head);
		return true;
	}
	__atomic_store_n(head, (unsigned char)(GRANULE_LONG | GRANULE_FREED), __ATOMIC_RELEASE);
	return true;
}

/* What a watched heap's inlined free leaves, though it is as simple. */
static inline bool heap_free_watched(struct heap *heap, void *p)
{
	size_t granule = range_granule_at(p);

	return granule < HOT_LOAD(range.granules) && heap_free_in_buffer(heap, p, granule, 0);
}

/* The common free outside scopes: of a block of the thread's own slab. `least`: as above, in bytes. */
static inline __attribute__((always_inline)) bool
heap_free_in_slab(struct heap *heap, void *p, size_t granule, size_t least)
{
	struct span *span = span_at_slice(granule >> (SLICE_SHIFT - GRANULE_SHIFT));
	struct free_block *block = p;
	uintptr_t mark = heap_freed_mark(p);

	if (__builtin_expect(HOT_LOAD(span->owner) != heap, 0))
		return false;
	if (__builtin_expect(!slab_is_block(span, granule) || block->mark == mark, 0))
		return false;
	if (__builtin_expect(least > 0 && span->block_bytes < least, 0))
		return false;
	block->mark = mark;
	heap_push_free(heap, span, block);
	return true;
}

/* The common free, of a block that was told to have `least` bytes, or a constant 0. */
static inline __attribute__((always_inline)) bool
heap_free_at_least(struct heap *heap, void *p, size_t least)
{
	size_t granule = range_granule_at(p);

	if (__builtin_expect(granule >= HOT_LOAD(range.granules), 0))
		return false;
	/* In a scope it is more likely a buffer's; outside, nothing is lost by not looking at the map. */
	if (heap->bump_granules != 0 &&
	    heap_free_in_buffer(heap, p, granule, (least + GRANULE_BYTES - 1) >> GRANULE_SHIFT))
		return true;
	return heap_free_in_slab(heap, p, granule, least);
}

/* The common free. False: take the slow path, nothing has happened. */
static inline __attribute__((always_inline)) bool
heap_free_inline(struct heap *heap, void *p)
{
	return heap_free_at_least(heap, p, 0);
}

/* The common free where the size that was asked for is told. */
static inline __attribute__((always_inline)) bool
heap_free_sized_inline(struct heap *heap, void *p, size_t size)
{
	size_t granules = (size + GRANULE_BYTES - 1) >> GRANULE_SHIFT;

	if (__builtin_expect(granules > GRANULE_SHORT_MAX && heap->bump_granules != 0, 0))
		return heap_free_long(heap, p, size);
	return heap_free_at_least(heap, p, size);
}

#endif
