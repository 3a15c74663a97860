/*
 * sleep.c: see sleep.h.
 */
#include "sleep.h"

static uint64_t bit_of(size_t offset)
{
	return (uint64_t)1 << (offset / OS_PAGE);
}

/* How many blocks sleep, and on which pages. */
static void set_asleep(struct span *slab, uint32_t count, uint64_t pages)
{
	if ((slab->asleep > 0) != (count > 0))
		__atomic_store_n(&slab->start_product, slab->start_product ^ (uint64_t)1 << 63, __ATOMIC_RELAXED);
	slab->asleep = count;
	/* Nothing sleeps on pages that lie inside of blocks, or behind the last. */
	__atomic_store_n(&slab->asleep_pages, count > 0 ? pages : 0, __ATOMIC_RELAXED);
}

/* How many blocks ahead of the one that is looked at are asked for. */
#define CENSUS_AHEAD 12

/*
 * Free blocks that touch each page, and which blocks are on the list, by their numbers. Who makes the list
 * anew goes by these bits: other threads mark blocks that they free at any time, and a look at the marks
 * after the census would take one for listed that is still on its way here.
 */
struct census {
	uint16_t free[64];
	uint64_t listed[64 * OS_PAGE / GRANULE_BYTES / 64];
};

static void count_block(struct census *census, const struct span *slab, size_t offset)
{
	for (size_t page = offset / OS_PAGE; page <= (offset + slab->block_bytes - 1) / OS_PAGE; page++)
		census->free[page]++;
}

static size_t extended_bytes(const struct span *slab)
{
	return (size_t)slab->extended * slab->block_bytes;
}

/*
 * Is the block at p on the free list? Blocks lie in memory as they come, on the list in whatever order, and
 * looking at one after the other is many times faster than following the list. A block in use may be written
 * to meanwhile, by any thread; what matters is whether it has the mark.
 */
static __attribute__((no_sanitize("thread"))) bool is_listed(const struct span *slab, size_t offset)
{
	const struct free_block *block = (const struct free_block *)(slab->start + offset);

	return !(slab->asleep_pages & bit_of(offset)) && block->mark == heap_freed_mark(block);
}

/* Counts free blocks by page. False: there are some on their way here, or one has been overwritten. */
static bool take_census(struct census *census, const struct span *slab)
{
	uint32_t free_count = slab->extended - slab_used(slab), listed = 0;

	for (size_t at = 0, number = 0; at < extended_bytes(slab); at += slab->block_bytes, number++) {
		/* What is looked at here was freed long ago; and what lies behind the slab does no harm. */
		__builtin_prefetch(slab->start + at + CENSUS_AHEAD * slab->block_bytes);
		bool has_mark = is_listed(slab, at);
		if (!has_mark && !(slab->asleep_pages & bit_of(at)))
			continue;
		census->listed[number / 64] |= (uint64_t)has_mark << number % 64;
		listed += has_mark;
		count_block(census, slab, at);
	}
	return listed + slab->asleep == free_count;
}

/* A bit for each page that no block in use touches, and that isn't asleep or has never been used. */
static uint64_t free_pages(const struct census *census, const struct span *slab)
{
	size_t end = extended_bytes(slab);
	uint64_t pages = 0;

	for (size_t at = 0; at < end; at += OS_PAGE) {
		size_t last = (at + OS_PAGE < end ? at + OS_PAGE : end) - 1;
		size_t blocks = last / slab->block_bytes - at / slab->block_bytes + 1;
		pages |= census->free[at / OS_PAGE] == blocks ? bit_of(at) : 0;
	}
	return pages & ~slab->asleep_pages;
}

/* Makes the list anew, in the order of addresses, without the blocks that begin on these pages; how many. */
static uint32_t unlist(const struct census *census, struct span *slab, uint64_t pages)
{
	struct free_block **link = &slab->free;
	uint32_t count = 0;

	for (size_t at = 0, number = 0; at < extended_bytes(slab); at += slab->block_bytes, number++) {
		if (!(census->listed[number / 64] >> number % 64 & 1))
			continue;
		if (pages & bit_of(at)) {
			count++;
			continue;
		}
		*link = (struct free_block *)(slab->start + at);
		link = &(*link)->next;
	}
	*link = NULL;
	return count;
}

/* Where the heads of a page's blocks end. */
static size_t heads_end(const struct span *slab, size_t page)
{
	size_t end = (page + 1) * OS_PAGE;

	return end < extended_bytes(slab) ? end : extended_bytes(slab);
}

/* Puts the blocks that begin on a page on the list. */
static void wake_page(struct span *slab, size_t page)
{
	size_t end = heads_end(slab, page), size = slab->block_bytes;
	uint32_t count = 0;

	for (size_t at = (page * OS_PAGE + size - 1) / size * size; at < end; at += size, count++)
		slab_put_fresh(slab, slab->start + at);
	set_asleep(slab, slab->asleep - count, slab->asleep_pages & ~((uint64_t)1 << page));
}

bool sleep_wake(struct span *slab)
{
	/* A page in the middle of long blocks has no heads. */
	while (slab->asleep > 0 && !slab->free)
		wake_page(slab, (size_t)__builtin_ctzl(slab->asleep_pages));
	return slab->free != NULL;
}

/* The kernel won't take these pages, which the program may have locked. */
static void wake_extent(const struct os_extent *extent)
{
	struct span *slab = span_of(extent->start);
	size_t first = (size_t)(extent->start - slab->start) / OS_PAGE;

	for (size_t page = first; page < first + extent->bytes / OS_PAGE; page++)
		wake_page(slab, page);
}

size_t sleep_give_back(struct sleep_batch *batch)
{
	size_t done = os_purge_all(batch->extents, batch->count), bytes = 0;

	for (size_t i = 0; i < done; i++)
		bytes += batch->extents[i].bytes;
	for (size_t i = done; i < batch->count; i++)
		wake_extent(&batch->extents[i]);
	batch->count = 0;
	return bytes;
}

#define BATCH_MAX (sizeof(((struct sleep_batch *)NULL)->extents) / sizeof(struct os_extent))
#define MOST_EXTENTS 32 /* of a slab: every other one of 64 pages */

/* Adds the runs of these pages. */
static void add_pages(struct sleep_batch *batch, const struct span *slab, uint64_t pages)
{
	while (pages) {
		size_t first = (size_t)__builtin_ctzl(pages), count = 1;
		while (first + count < 64 && pages >> (first + count) & 1)
			count++;
		assert(batch->count < BATCH_MAX);
		batch->extents[batch->count++] =
			(struct os_extent){.start = slab->start + first * OS_PAGE, .bytes = count * OS_PAGE};
		pages &= first + count < 64 ? UINT64_MAX << (first + count) : 0;
	}
}

size_t sleep_gather(struct sleep_batch *batch, struct span *slab, bool single)
{
	struct census census = {0};

	uint64_t pages = take_census(&census, slab) ? free_pages(&census, slab) : 0;
	if (!single)
		pages &= pages << 1 | pages >> 1;
	if (pages == 0)
		return 0;
	size_t bytes = batch->count + MOST_EXTENTS > BATCH_MAX ? sleep_give_back(batch) : 0;
	set_asleep(slab, slab->asleep + unlist(&census, slab, pages), slab->asleep_pages | pages);
	add_pages(batch, slab, pages);
	return bytes;
}

size_t sleep_purge_holes(struct span *slab, bool single)
{
	struct sleep_batch batch = {0};

	sleep_gather(&batch, slab, single);
	return sleep_give_back(&batch);
}
