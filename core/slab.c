/*
 * slab.c: the general heap's slabs.
 *
 * A queue's first slab is the one that is allocated from. A slab that runs out leaves its queue; the
 * first free of one of its blocks brings it back, at the end, so that slabs have time to empty. An
 * empty slab goes back to the pool unless it is the only one of its queue: a program that allocates
 * and frees one block in turn must not make and drop a slab each time.
 */
#include "slab.h"

#include <string.h>

#include "big.h"
#include "os.h"
#include "remote.h"
#include "report.h"

/* For classes above CLASS_MIDDLE_MAX, so that a slab has 8 blocks or more. */
#define SLAB_LONG_SLICES (SLAB_MAX_BYTES >> SLICE_SHIFT)

#define SLAB_KEPT (UINT32_MAX / 2)

uint32_t slab_used(const struct span *slab)
{
	if (slab->is_full)
		return slab->capacity;
	return slab->countdown - (slab->is_kept ? SLAB_KEPT : 0);
}

static size_t slab_slices(size_t block_bytes)
{
	return block_bytes > CLASS_MIDDLE_MAX ? SLAB_LONG_SLICES : 1;
}

/* Makes the inlined path of malloc see the queue's first slab. */
static void set_direct(struct heap *heap, unsigned class)
{
	struct span *first = heap->queues[class].first;
	size_t last = class_bytes(class);

	if (last > HEAP_DIRECT_MAX)
		return;
	size_t i = class > 0 ? class_bytes(class - 1) >> GRANULE_SHIFT : 0;
	for (; i < last >> GRANULE_SHIFT; i++)
		heap->direct[i] = first ? first : &range.spans[0];
}

static void queue_remove(struct heap *heap, struct span *slab)
{
	struct slab_queue *queue = &heap->queues[slab->class];

	if (slab->next)
		slab->next->prev = slab->prev;
	else
		queue->last = slab->prev;
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		queue->first = slab->next;
	if (!slab->prev)
		set_direct(heap, slab->class);
}

/* A slab that was kept empty is no longer the only one of its queue. */
static void unkeep(struct span *slab)
{
	slab->is_kept = false;
	slab->countdown -= SLAB_KEPT;
}

static void queue_append(struct heap *heap, struct span *slab)
{
	struct slab_queue *queue = &heap->queues[slab->class];

	slab->next = NULL;
	slab->prev = queue->last;
	if (queue->last && queue->last->is_kept)
		unkeep(queue->last);
	if (queue->last)
		queue->last->next = slab;
	else
		queue->first = slab;
	queue->last = slab;
	if (!slab->prev)
		set_direct(heap, slab->class);
}

/* Puts a block that has never been handed out on the list; it looks freed. */
static void put_fresh(struct span *slab, void *p)
{
	struct free_block *block = p;

	block->mark = heap_freed_mark(block);
	block->next = slab->free;
	slab->free = block;
}

/* Is this block of the free list as it was left? */
static bool is_sound(const struct span *slab, const struct free_block *block)
{
	size_t offset = (size_t)((const char *)block - slab->start);

	return offset < span_bytes(slab) && block->mark == heap_freed_mark(block);
}

/*
 * Something has written to a freed block, or behind the end of its neighbour, if the first block isn't
 * sound; the list can't be followed any further, and is given up.
 */
static bool list_is_sound(struct span *slab)
{
	struct free_block *block = slab->free;

	if (is_sound(slab, block))
		return true;
	slab->free = NULL;
	report_misuse("malloc: a free block of %u bytes at %p, or a link to it, has been overwritten",
	              slab->block_bytes, (const void *)block);
	return false;
}

/* Puts about a page of blocks that were never used before on the list. False: there are none. */
static bool slab_extend(struct span *slab)
{
	uint32_t left = slab->capacity - slab->extended;
	uint32_t count = (uint32_t)(OS_PAGE / slab->block_bytes);

	if (left == 0)
		return false;
	count = count == 0 ? 1 : count < left ? count : left;
	/* Backwards, so that they are handed out forwards. */
	for (uint32_t i = count; i-- > 0;)
		put_fresh(slab, slab->start + (size_t)(slab->extended + i) * slab->block_bytes);
	__atomic_store_n(&slab->extended, slab->extended + count, __ATOMIC_RELAXED);
	uint64_t last = (uint64_t)(slab->extended - 1) * (slab->block_bytes >> GRANULE_SHIFT);
	__atomic_store_n(&slab->most_product, last * slab->reciprocal, __ATOMIC_RELAXED);
	return true;
}

/*
 * Trimming. Purged pages take the list's links with them, so free blocks whose links lie there leave the
 * list and sleep: their heads are marked in the granule map, which a slab doesn't use otherwise.
 */

static unsigned char *block_mark(const struct span *slab, uint32_t i)
{
	return range_map_of(slab->start + (size_t)i * slab->block_bytes);
}

/* Marks the blocks of the list and takes them off it; how many they were. A damaged rest stays. */
static uint32_t mark_free(struct span *slab)
{
	uint32_t count = 0;

	for (; slab->free && is_sound(slab, slab->free); slab->free = slab->free->next) {
		__atomic_store_n(range_map_of(slab->free), GRANULE_FREED, __ATOMIC_RELAXED);
		count++;
	}
	return count;
}

/* Does no block in use touch the page that starts `at` bytes into the slab? */
static bool page_is_free(const struct span *slab, size_t at)
{
	uint32_t last = (uint32_t)((at + OS_PAGE - 1) / slab->block_bytes);

	for (uint32_t i = (uint32_t)(at / slab->block_bytes); i <= last && i < slab->extended; i++)
		if (*block_mark(slab, i) == 0)
			return false;
	return true;
}

/*
 * While blocks sleep, the product that every free compares is off by half its range: no free of a block of
 * this slab takes the inlined path, which can't see that a block sleeps.
 */
static void set_asleep(struct span *slab, uint32_t count)
{
	if ((slab->asleep > 0) != (count > 0))
		__atomic_store_n(&slab->start_product, slab->start_product ^ (uint64_t)1 << 63, __ATOMIC_RELAXED);
	slab->asleep = count;
}

bool slab_block_sleeps(const struct span *slab, const void *p)
{
	/* Read by any thread that frees a block of the slab, while the owner may be trimming it. */
	return __atomic_load_n(&slab->has_map, __ATOMIC_RELAXED) &&
	       __atomic_load_n(range_map_of(p), __ATOMIC_RELAXED) != 0;
}

/* Puts sleeping blocks back on the list, those that start in [from, to) of the slab. */
static void wake_blocks(struct span *slab, size_t from, size_t to)
{
	uint32_t i = (uint32_t)((from + slab->block_bytes - 1) / slab->block_bytes);

	for (; i < slab->extended && (size_t)i * slab->block_bytes < to; i++)
		if (*block_mark(slab, i) != 0) {
			__atomic_store_n(block_mark(slab, i), 0, __ATOMIC_RELAXED);
			set_asleep(slab, slab->asleep - 1);
			put_fresh(slab, slab->start + (size_t)i * slab->block_bytes);
		}
}

/* Wakes about a page of blocks. False: none sleeps. */
static bool slab_wake(struct span *slab)
{
	for (size_t at = 0; slab->asleep > 0 && !slab->free; at += OS_PAGE)
		wake_blocks(slab, at, at + OS_PAGE);
	return slab->free != NULL;
}

static_assert(SLAB_LONG_SLICES * SLICE_BYTES / OS_PAGE <= 64, "a word has a bit for each page of a slab");

/* A bit for each page that no block in use touches. */
static uint64_t free_pages(const struct span *slab)
{
	size_t end = (size_t)slab->extended * slab->block_bytes;
	uint64_t pages = 0;

	for (size_t at = 0; at < end; at += OS_PAGE)
		pages |= (uint64_t)page_is_free(slab, at) << (at / OS_PAGE);
	return pages;
}

size_t slab_purge_holes(struct span *slab)
{
	size_t end = (size_t)slab->extended * slab->block_bytes, purged = 0;

	__atomic_store_n(&slab->has_map, true, __ATOMIC_RELAXED);
	set_asleep(slab, slab->asleep + mark_free(slab));
	/* All pages are looked at before the first block wakes: it may reach into the next page. */
	uint64_t pages = free_pages(slab);
	for (size_t at = 0; at < end; at += OS_PAGE) {
		if ((pages >> (at / OS_PAGE) & 1) && os_purge(slab->start + at, OS_PAGE))
			purged += OS_PAGE;
		else
			wake_blocks(slab, at, at + OS_PAGE);
	}
	return purged;
}

/* floor(2^64 / n) + 1. */
static uint64_t reciprocal_of(uint64_t n)
{
	uint64_t floor = UINT64_MAX / n + (UINT64_MAX % n == n - 1);

	return floor + 1;
}

static struct span *slab_create(struct heap *heap, unsigned class)
{
	size_t block_bytes = class_bytes(class);
	struct span *slab = big_alloc_span(heap, slab_slices(block_bytes), 1, SPAN_SLAB);

	if (!slab)
		return NULL;
	slab->class = (uint8_t)class;
	slab->block_bytes = (uint32_t)block_bytes;
	slab->reciprocal = reciprocal_of(block_bytes >> GRANULE_SHIFT);
	slab->start_product = range_granule_at(slab->start) * slab->reciprocal;
	slab->capacity = (uint32_t)(span_bytes(slab) / block_bytes);
	/* From here on any thread may free into it, once it has a block of it. */
	__atomic_store_n(&slab->owner, heap, __ATOMIC_RELEASE);
	queue_append(heap, slab);
	return slab;
}

static void slab_destroy(struct heap *heap, struct span *slab)
{
	assert(slab_used(slab) == 0);
	if (slab->asleep > 0)
		memset(range_map_of(slab->start), 0, span_bytes(slab) >> GRANULE_SHIFT);
	queue_remove(heap, slab);
	span_free(slab, false);
}

/* The first slab of the class with a free block; full ones on the way leave the queue. */
static struct span *slab_with_room(struct heap *heap, unsigned class)
{
	struct span *slab;

	while ((slab = heap->queues[class].first) != NULL) {
		if (slab->free && list_is_sound(slab))
			return slab;
		if (slab_wake(slab) || slab_extend(slab))
			return slab;
		queue_remove(heap, slab);
		slab->is_full = true;
		slab->is_kept = false;
		slab->countdown = 1;
	}
	return NULL;
}

void *slab_alloc(struct heap *heap, unsigned class)
{
	remote_drain(heap, false);
	struct span *slab = slab_with_room(heap, class);
	if (!slab)
		remote_flush(heap);
	while (!slab && heap_adopt(heap, class))
		slab = slab_with_room(heap, class);
	if (!slab) {
		slab = slab_create(heap, class);
		if (!slab)
			return NULL;
		slab_extend(slab);
	}
	return slab_pop(slab);
}

/* A full slab is about to have free blocks. */
static void unfill(struct heap *heap, struct span *slab)
{
	slab->is_full = false;
	slab->countdown = slab->capacity;
	queue_append(heap, slab);
}

void slab_free(struct heap *heap, struct span *slab, struct free_block *first, struct free_block *last,
               uint32_t count)
{
	last->next = slab->free;
	slab->free = first;
	if (slab->is_full)
		unfill(heap, slab);
	slab->countdown -= count;
	if (slab->countdown == 0)
		slab_event(heap, slab);
}

__attribute__((cold, noinline)) void slab_event(struct heap *heap, struct span *slab)
{
	if (slab->is_full) {
		unfill(heap, slab);
		slab->countdown--;
	}
	if (slab_used(slab) > 0)
		return;
	bool is_only = !slab->next && !slab->prev;
	if (is_only && heap->state == HEAP_LIVE) {
		slab->is_kept = true;
		slab->countdown = SLAB_KEPT;
	} else {
		slab_destroy(heap, slab);
	}
}

void slab_move(struct heap *from, struct heap *to, struct span *slab)
{
	queue_remove(from, slab);
	__atomic_store_n(&slab->owner, to, __ATOMIC_RELAXED);
	queue_append(to, slab);
}

void slab_move_queue(struct heap *from, struct heap *to, unsigned class)
{
	while (from->queues[class].first)
		slab_move(from, to, from->queues[class].first);
}

void slab_trim(struct heap *heap, bool holes)
{
	for (unsigned class = 0; class < CLASS_COUNT; class++)
		for (struct span *slab = heap->queues[class].first, *next; slab; slab = next) {
			next = slab->next;
			/* Whose thread has ended is kept no longer: its last free gives it back. */
			if (slab->is_kept && slab_used(slab) > 0 && heap->state != HEAP_LIVE)
				unkeep(slab);
			if (slab_used(slab) == 0)
				slab_destroy(heap, slab);
			else if (holes)
				slab_purge_holes(slab);
		}
}

unsigned slab_aligned_class(size_t align, size_t bytes)
{
	size_t rounded = (bytes + align - 1) & ~(align - 1);

	if (rounded > CLASS_MAX_BYTES || align > CLASS_MAX_BYTES)
		return CLASS_COUNT;
	unsigned class = class_of(rounded);
	while (class < CLASS_COUNT && class_bytes(class) % align != 0)
		class++;
	return class;
}
