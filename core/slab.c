/*
 * slab.c: the general heap's slabs.
 *
 * A queue's first slab is the one that is allocated from. A slab that runs out leaves its queue; the
 * first free of one of its blocks brings it back, at the end, so that slabs have time to empty. An
 * empty slab becomes a spare of its thread's (big.h) unless it is the first of its queue and those behind
 * it have hardly a free block: a program whose blocks in use go up and down by a few must not make and drop a
 * slab each time. Slabs that go back to the pool come to other threads, each with its memory in the wrong
 * processor's cache.
 */
#include "slab.h"

#include "big.h"
#include "harden.h"
#include "os.h"
#include "remote.h"
#include "report.h"
#include "sleep.h"

/* For classes above CLASS_MIDDLE_MAX, so that a slab has 8 blocks or more. */
#define SLAB_LONG_SLICES (SLAB_MAX_BYTES >> SLICE_SHIFT)

/* An empty slab is kept while the few behind it have less room than that share of one. */
#define ROOM_SHARE 4u
#define ROOM_LOOKS 4u

/* The level of a slab that is kept empty: there is no way down to it. */
#define SLAB_KEPT (-(UINT32_MAX / 2))

/* A slab is sparse when so few blocks are in use that pages may be free; below, there are more events. */
#define SPARSE_SHARE 8u
#define SPARSE_STEP_SHARE 4u

/* Pages without a free neighbour, each of which costs a system call, go back when this share is in use. */
#define SINGLE_SHARE 10u

/* The slack that a heap may have beside a share of its slabs, and beside what it has wanted back. */
#define SLACK_BYTES ((size_t)3 << 20)
#define SLACK_SHARE 64u

/* A heap's class that has more slabs than that grows, and has so much made resident at a time. */
#define GROWING_SLABS 4u
#define GROWING_BYTES ((size_t)16 << 10)
static_assert(SLICE_BYTES % GROWING_BYTES == 0, "a slab has whole ones");

/* What a slab that serves several classes may use; see below. */
#define SHARED_BYTES ((size_t)24 << 10)

uint32_t slab_used(const struct span *slab)
{
	return slab->is_full ? slab->capacity : slab->countdown + slab->level;
}

static size_t slab_slices(size_t block_bytes)
{
	return block_bytes > CLASS_MIDDLE_MAX ? SLAB_LONG_SLICES : 1;
}

static void set_direct_of(struct heap *heap, unsigned class, struct span *first)
{
	size_t i = class > 0 ? class_bytes(class - 1) >> GRANULE_SHIFT : 0;

	for (; i < class_bytes(class) >> GRANULE_SHIFT; i++)
		heap->direct[i] = first ? first : &range.spans[0];
}

/* Makes the inlined path of malloc see the queue's first slab, for all classes that it serves. */
static void set_direct(struct heap *heap, unsigned class)
{
	struct span *first = heap->queues[class].first;

	if (class > class_of(HEAP_DIRECT_MAX) || harden_is_on())
		return;
	for (unsigned served = class + 1; served-- > 0 && class_coarse(served) == class_coarse(class);)
		if (heap->serving[served] == class)
			set_direct_of(heap, served, first);
}

/*
 * Sharing: each class that a heap has blocks of takes a page or more. In a heap that has few of them, four
 * neighbouring classes (two of the smallest) are served by the slab of the coarsest. When that has used
 * SHARED_BYTES, what its larger blocks waste is more than pages of their own would be: from then on each of
 * the four has its own.
 */

void slab_share_classes(struct heap *heap)
{
	for (unsigned class = 0; class < CLASS_COUNT; class++)
		heap->serving[class] = (uint8_t)class_coarse(class);
}

static bool is_shared(const struct heap *heap, unsigned class)
{
	return class > 0 && heap->serving[class - 1] == class;
}

static __attribute__((cold, noinline)) void unshare_class(struct heap *heap, unsigned class)
{
	for (unsigned served = class + 1; served-- > 0 && class_coarse(served) == class;)
		if (heap->serving[served] != served) {
			heap->serving[served] = (uint8_t)served;
			set_direct(heap, served);
		}
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

/* A slab that was kept empty has company: when it is empty again, that is an event. */
static void unkeep(struct span *slab)
{
	slab->is_kept = false;
	slab->countdown += slab->level;
	slab->level = 0;
}

static void queue_append(struct heap *heap, struct span *slab)
{
	struct slab_queue *queue = &heap->queues[slab->class];

	slab->next = NULL;
	slab->prev = queue->last;
	if (queue->first && queue->first->is_kept)
		unkeep(queue->first);
	if (queue->last)
		queue->last->next = slab;
	else
		queue->first = slab;
	queue->last = slab;
	if (!slab->prev)
		set_direct(heap, slab->class);
}

void slab_put_fresh(struct span *slab, void *p)
{
	struct free_block *block = p;

	block->mark = heap_freed_mark(block);
	block->next = slab->free;
	slab->free = block;
}

bool slab_is_sound(const struct span *slab, const struct free_block *block)
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

	if (slab_is_sound(slab, block))
		return true;
	slab->free = NULL;
	report_misuse("malloc: a free block of %u bytes at %p, or a link to it, has been overwritten",
	              slab->block_bytes, (const void *)block);
	return false;
}

/*
 * A class that fills one slab after the other goes on doing so. The memory that the next `bytes` of its slab
 * begin is made resident by one system call, in place of a fault for each of its pages.
 */
static void populate(const struct heap *heap, const struct span *slab, size_t bytes)
{
	size_t used = (size_t)slab->extended * slab->block_bytes;
	size_t next = (used + GROWING_BYTES - 1) & ~(GROWING_BYTES - 1);

	if (slab->is_zero && next < used + bytes && heap->class_slabs[slab->class] > GROWING_SLABS)
		os_populate(slab->start + next, GROWING_BYTES);
}

static char *block_at(const struct span *slab, uint32_t number)
{
	return slab->start + (size_t)number * slab->block_bytes;
}

/* On an empty list, in the order of their addresses. */
static void put_in_order(struct span *slab, uint32_t count)
{
	char *p = block_at(slab, slab->extended), *last = p + (size_t)(count - 1) * slab->block_bytes;

	assert(!slab->free);
	slab->free = (struct free_block *)p;
	for (char *next; p < last; p = next) {
		next = p + slab->block_bytes;
		*(struct free_block *)p = (struct free_block){heap_freed_mark(p), (struct free_block *)next};
	}
	*(struct free_block *)last = (struct free_block){heap_freed_mark(last), NULL};
}

/* In random order, and perhaps more than `count`; how many. */
static uint32_t put_shuffled(struct span *slab, uint32_t count)
{
	unsigned char order[HARDEN_ORDER_MAX];
	char *first = block_at(slab, slab->extended);

	count = harden_extension(slab, count);
	harden_clear(slab, first, (size_t)count * slab->block_bytes);
	harden_shuffle(order, count, first);
	for (uint32_t i = 0; i < count; i++)
		slab_put_fresh(slab, block_at(slab, slab->extended + order[i]));
	return count;
}

/* Puts about a page of blocks that were never used before on the list. False: there are none. */
static bool slab_extend(struct heap *heap, struct span *slab)
{
	uint32_t left = slab->capacity - slab->extended;
	uint32_t count = (uint32_t)(OS_PAGE / slab->block_bytes);

	if (left == 0)
		return false;
	count = count == 0 ? 1 : count < left ? count : left;
	if (slab->block_bytes <= OS_PAGE)
		populate(heap, slab, (size_t)count * slab->block_bytes);
	if (harden_is_strict())
		count = put_shuffled(slab, count);
	else
		put_in_order(slab, count);
	if ((size_t)slab->extended * slab->block_bytes >= SHARED_BYTES && is_shared(heap, slab->class))
		unshare_class(heap, slab->class);
	heap->fresh_block = slab->is_zero && !harden_is_strict() ? slab->free : NULL;
	__atomic_store_n(&slab->extended, slab->extended + count, __ATOMIC_RELAXED);
	uint64_t last = (uint64_t)(slab->extended - 1) * (slab->block_bytes >> GRANULE_SHIFT);
	__atomic_store_n(&slab->most_product, last * slab->reciprocal, __ATOMIC_RELAXED);
	return true;
}

/*
 * Slack: what is free in sparse slabs, as far as events have told, and hasn't been given back. When it is
 * more than a heap may have, the holes of all its sparse slabs go back to the system. So a heap that is left
 * with a few blocks in each slab gives back what it can without any thread or clock.
 */

static void add_slack(struct heap *heap, struct span *slab, uint32_t blocks)
{
	slab->slack_blocks += blocks;
	heap->slack_bytes += (size_t)blocks * slab->block_bytes;
}

static void forget_slack(struct heap *heap, struct span *slab)
{
	heap->slack_bytes -= (size_t)slab->slack_blocks * slab->block_bytes;
	slab->slack_blocks = 0;
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
	struct span *slab = big_alloc_slab(heap, slab_slices(block_bytes));

	if (!slab)
		return NULL;
	slab->class = (uint8_t)class;
	slab->block_bytes = (uint32_t)block_bytes;
	if (harden_is_on()) {
		/* Nothing matches these: each free is heap_free()'s. */
		slab->reciprocal = 0;
		slab->start_product = 1;
	} else {
		slab->reciprocal = reciprocal_of(block_bytes >> GRANULE_SHIFT);
		slab->start_product = range_granule_at(slab->start) * slab->reciprocal;
	}
	slab->capacity = (uint32_t)(span_bytes(slab) / block_bytes);
	heap->slab_bytes += span_bytes(slab);
	heap->class_slabs[class]++;
	/* From here on any thread may free into it, once it has a block of it. */
	__atomic_store_n(&slab->owner, heap, __ATOMIC_RELEASE);
	queue_append(heap, slab);
	return slab;
}

/* Takes an empty slab out of its heap; its span is to be freed. */
static struct span *slab_leave(struct heap *heap, struct span *slab)
{
	assert(slab_used(slab) == 0);
	queue_remove(heap, slab);
	forget_slack(heap, slab);
	heap->slab_bytes -= span_bytes(slab);
	heap->class_slabs[slab->class]--;
	return slab;
}

/* What was given back is wanted again: that much more may stay for some time. */
static bool slab_wake(struct heap *heap, struct span *slab)
{
	if (slab->asleep == 0)
		return false;
	heap->slack_wanted += OS_PAGE;
	return sleep_wake(slab);
}

/* The first slab of the class with a free block; full ones on the way leave the queue. */
static struct span *slab_with_room(struct heap *heap, unsigned class)
{
	struct span *slab;

	while ((slab = heap->queues[class].first) != NULL) {
		if (slab->free && list_is_sound(slab))
			return slab;
		if (slab_wake(heap, slab) || slab_extend(heap, slab))
			return slab;
		queue_remove(heap, slab);
		forget_slack(heap, slab);
		slab->is_full = true;
		slab->is_kept = false;
		slab->countdown = 1;
	}
	return NULL;
}

void *slab_alloc(struct heap *heap, unsigned class)
{
	heap->fresh_block = NULL;
	heap_follow_trims(heap);
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
		slab_extend(heap, slab);
	}
	return slab_pop(slab);
}

static __attribute__((cold, noinline)) void purge_sparse(struct heap *heap)
{
	struct sleep_batch batch = {0};

	for (unsigned class = 0; class < CLASS_COUNT; class++)
		for (struct span *slab = heap->queues[class].first; slab; slab = slab->next)
			if (slab->slack_blocks > 0) {
				sleep_gather(&batch, slab, slab_used(slab) <= slab->capacity / SINGLE_SHARE);
				forget_slack(heap, slab);
			}
	sleep_give_back(&batch);
	heap->slack_wanted -= heap->slack_wanted / 4;
}

/* The first level of a slab that was full. */
static uint32_t sparse_level(const struct span *slab)
{
	uint32_t share = slab->capacity / SPARSE_SHARE, pages = (uint32_t)(span_bytes(slab) / OS_PAGE);

	return share < pages ? share : pages;
}

/* The blocks in use have come down to the level. */
static void lower_level(struct heap *heap, struct span *slab)
{
	uint32_t step = slab->level / SPARSE_STEP_SHARE, first = sparse_level(slab);

	step += !step;
	add_slack(heap, slab, slab->level == first ? slab->capacity - first : step);
	slab->level -= step;
}

/* A full slab is about to have free blocks. */
static void unfill(struct heap *heap, struct span *slab)
{
	slab->is_full = false;
	slab->level = sparse_level(slab);
	slab->countdown = slab->capacity - slab->level;
	queue_append(heap, slab);
}

/* Do the slabs behind this one have enough free blocks that it can be missed for a while? */
static bool is_room_behind(const struct span *slab)
{
	uint32_t enough = slab->capacity / ROOM_SHARE, room = 0, looks = ROOM_LOOKS;

	for (const struct span *next = slab->next; next && room < enough && looks > 0; next = next->next, looks--)
		room += next->capacity - slab_used(next);
	return room >= enough || looks == 0;
}

static void slab_is_empty(struct heap *heap, struct span *slab)
{
	bool is_first = !slab->prev;

	if (is_first && heap->state == HEAP_LIVE && !is_room_behind(slab)) {
		slab->is_kept = true;
		slab->level = SLAB_KEPT;
		slab->countdown = -SLAB_KEPT;
		forget_slack(heap, slab);
	} else {
		big_free_slab(heap, slab_leave(heap, slab));
	}
}

/* Blocks have been freed, and so many are in use still. */
static void note_used(struct heap *heap, struct span *slab, uint32_t used)
{
	while (slab->level > 0 && used <= slab->level)
		lower_level(heap, slab);
	slab->countdown = used - slab->level;
	if (used == 0)
		slab_is_empty(heap, slab);
	if (heap->slack_bytes > SLACK_BYTES + heap->slab_bytes / SLACK_SHARE + heap->slack_wanted)
		purge_sparse(heap);
}

void slab_free(struct heap *heap, struct span *slab, struct free_block *first, struct free_block *last,
               uint32_t count)
{
	last->next = slab->free;
	slab->free = first;
	if (slab->is_full)
		unfill(heap, slab);
	if (slab->is_kept)
		slab->countdown -= count;
	else
		note_used(heap, slab, slab_used(slab) - count);
}

__attribute__((cold, noinline)) void slab_event(struct heap *heap, struct span *slab)
{
	if (slab->is_full) {
		unfill(heap, slab);
		slab->countdown--;
	}
	note_used(heap, slab, slab_used(slab));
}

void slab_move(struct heap *from, struct heap *to, struct span *slab)
{
	uint32_t slack_blocks = slab->slack_blocks;

	if (slab->is_kept)
		unkeep(slab);
	queue_remove(from, slab);
	forget_slack(from, slab);
	from->slab_bytes -= span_bytes(slab);
	from->class_slabs[slab->class]--;
	__atomic_store_n(&slab->owner, to, __ATOMIC_RELAXED);
	queue_append(to, slab);
	to->slab_bytes += span_bytes(slab);
	to->class_slabs[slab->class]++;
	add_slack(to, slab, slack_blocks);
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
				span_free(slab_leave(heap, slab), false);
			else if (holes)
				sleep_purge_holes(slab, true);
		}
}
