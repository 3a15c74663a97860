/*
 * resident.c: which pages of slabs are there: made resident ahead of their use, given back by the batch.
 */
#include <sys/mman.h>

#include "unit.h"

static size_t resident_pages(const char *from, size_t bytes)
{
	unsigned char pages[256];
	size_t count = 0;

	require(bytes / OS_PAGE <= COUNT_OF(pages), "%zu bytes", bytes);
	require(mincore((void *)(uintptr_t)from, bytes, pages) == 0, "%zu bytes", bytes);
	for (size_t i = 0; i < bytes / OS_PAGE; i++)
		count += pages[i] & 1;
	return count;
}

static size_t slab_pages(const struct span *slab)
{
	return resident_pages(slab->start, span_bytes(slab));
}

/* Giving back many stretches at once. */

enum { STRETCHES = 40 };

/* Every other page of a span, all of which is resident. */
static struct span *make_stretches(struct os_extent *extents)
{
	struct span *span = span_alloc(2 * STRETCHES * OS_PAGE / SLICE_BYTES, 1, SPAN_BIG);

	memset(span->start, 1, span_bytes(span));
	for (size_t i = 0; i < STRETCHES; i++)
		extents[i] = (struct os_extent){.start = span->start + 2 * i * OS_PAGE, .bytes = OS_PAGE};
	return span;
}

Test(resident, many_stretches_go_back_and_what_lies_between_stays)
{
	struct os_extent extents[STRETCHES];

	core_start(64 * MIB);
	for (size_t count = 0; count <= STRETCHES; count++) {
		struct span *span = make_stretches(extents);

		require(os_purge_all(extents, count) == count, "%zu", count);
		require(slab_pages(span) == 2 * STRETCHES - count, "%zu: %zu", count, slab_pages(span));
		for (size_t i = 0; i < 2 * STRETCHES; i++) {
			bool is_purged = i % 2 == 0 && i / 2 < count;
			require(span->start[i * OS_PAGE] == !is_purged, "%zu: page %zu", count, i);
		}
		span_free(span, false);
	}
}

Test(resident, of_many_stretches_those_from_a_locked_one_on_stay)
{
	struct os_extent extents[STRETCHES];

	core_start(64 * MIB);
	struct span *span = make_stretches(extents);
	for (size_t locked = 0; locked < STRETCHES; locked += 7) {
		memset(span->start, 1, span_bytes(span));
		require(mlock(extents[locked].start, OS_PAGE) == 0, "%zu", locked);
		size_t done = os_purge_all(extents, STRETCHES);
		require(done == locked, "%zu, not %zu", done, locked);
		require(slab_pages(span) == 2 * STRETCHES - locked, "%zu: %zu", locked, slab_pages(span));
		munlock(extents[locked].start, OS_PAGE);
	}
}

/* Slabs that sleep together. */

enum {
	CLASS_BYTES = 512,
	IN_A_PAGE = OS_PAGE / CLASS_BYTES,
	IN_A_SLAB = SLICE_BYTES / CLASS_BYTES,
	SLABS = 12,
};

/* Slabs of which every other page has one block in use. */
static void make_sparse(struct heap *heap, struct span **slabs)
{
	static char *blocks[SLABS * IN_A_SLAB];

	for (size_t i = 0; i < SLABS * IN_A_SLAB; i++) {
		memset(blocks[i] = slab_alloc(heap, class_of(CLASS_BYTES)), 1, CLASS_BYTES);
		slabs[i / IN_A_SLAB] = span_of(blocks[i]);
	}
	for (size_t i = 0; i < SLABS * IN_A_SLAB; i++)
		if (i % (2 * IN_A_PAGE) != 0)
			heap_free(blocks[i], "free");
}

Test(resident, a_batch_takes_more_slabs_than_it_has_room_for)
{
	struct heap *heap = heap_start(64 * MIB);
	struct sleep_batch batch = {0};
	struct span *slabs[SLABS];
	size_t bytes = 0;

	make_sparse(heap, slabs);
	for (size_t i = 0; i < SLABS; i++)
		bytes += sleep_gather(&batch, slabs[i], true);
	bytes += sleep_give_back(&batch);
	require(bytes == SLABS * SLICE_BYTES / 2, "%zu", bytes);
	for (size_t i = 0; i < SLABS; i++) {
		require(slab_pages(slabs[i]) == SLICE_BYTES / OS_PAGE / 2, "%zu", i);
		require(slabs[i]->asleep == IN_A_SLAB / 2, "%zu: %u", i, slabs[i]->asleep);
	}
}

Test(resident, pages_of_a_batch_that_are_locked_wake_and_serve)
{
	struct heap *heap = heap_start(64 * MIB);
	struct sleep_batch batch = {0};
	struct span *slabs[SLABS];

	make_sparse(heap, slabs);
	require(mlock(slabs[3]->start, SLICE_BYTES) == 0, "locked");
	for (size_t i = 0; i < 6; i++)
		sleep_gather(&batch, slabs[i], true);
	sleep_give_back(&batch);
	require(slabs[3]->asleep == 0 && slab_pages(slabs[3]) == SLICE_BYTES / OS_PAGE, "%u", slabs[3]->asleep);
	for (size_t i = 0; i < IN_A_SLAB * SLABS; i++)
		memset(slab_alloc(heap, class_of(CLASS_BYTES)), 2, CLASS_BYTES);
	for (size_t i = 0; i < SLABS; i++)
		for (size_t k = 0; k < IN_A_SLAB; k += 2 * IN_A_PAGE)
			require(slabs[i]->start[k * CLASS_BYTES] == 1, "slab %zu: block %zu in use", i, k);
}

/* Memory that a class will need. */

Test(resident, a_class_that_has_filled_slabs_gets_pages_before_it_writes_to_them)
{
	static const size_t sizes[] = {16, 64, 400, 1024, 4096};
	struct heap *heap = heap_start(256 * MIB);

	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		unsigned class = class_of(sizes[i]);
		struct span *slab = NULL;

		for (unsigned slabs = 0; slabs < 8;) {
			char *p = slab_alloc(heap, class);
			if (span_of(p) == slab)
				continue;
			slab = span_of(p);
			slabs++;
			size_t pages = slab_pages(slab);
			require(slabs > 4 ? pages == 4 : pages <= 2, "%zu bytes, slab %u: %zu pages", sizes[i],
			        slabs, pages);
		}
		while (slab->free || slab->extended < slab->capacity)
			slab_alloc(heap, class);
		require(slab_pages(slab) == SLICE_BYTES / OS_PAGE, "%zu bytes", sizes[i]);
	}
}

/* The habit of filling long blocks. */

#define LONG_BYTES (MIB)

/* A block of fresh memory: how many of its pages are there. */
static size_t make_long(size_t bytes, char **p)
{
	*p = big_alloc(heap_self(), bytes, 1);
	return resident_pages(*p, LONG_BYTES);
}

Test(resident, who_fills_long_blocks_has_pages_made_for_the_next)
{
	char *p;

	heap_start(256 * MIB);
	for (int i = 0; i < 4; i++) {
		size_t pages = make_long(LONG_BYTES, &p);
		require(pages == (i < 3 ? 0 : 240), "block %d: %zu pages", i, pages);
		memset(p, 1, LONG_BYTES);
	}
	/* As many as the last block had, however long this one is. */
	require(make_long(16 * LONG_BYTES, &p) == 240, "a longer one");
	require(resident_pages(p + LONG_BYTES, LONG_BYTES) == 0, "what is beyond the last one's length");
}

Test(resident, who_leaves_a_long_block_unfilled_has_no_habit_any_more)
{
	char *p;

	heap_start(256 * MIB);
	for (int i = 0; i < 4; i++) {
		make_long(LONG_BYTES, &p);
		memset(p, 1, LONG_BYTES);
	}
	require(make_long(LONG_BYTES, &p) == 240, "the one that is left alone");
	for (int i = 0; i < 4; i++) {
		size_t pages = make_long(LONG_BYTES, &p);
		require(pages == (i < 3 ? 0 : 240), "block %d after it: %zu pages", i, pages);
		memset(p, 1, LONG_BYTES);
	}
}

/* Memory that reads as zero. */

static bool is_zero(const char *p, size_t bytes)
{
	return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

Test(resident, calloc_of_a_block_that_nobody_had_touches_one_page)
{
	scopes_begin();
	for (size_t bytes = 3 * OS_PAGE; bytes <= CLASS_MAX_BYTES; bytes += OS_PAGE / 2) {
		const char *p = shim_calloc(1, bytes);
		const char *page = p + OS_PAGE - (uintptr_t)p % OS_PAGE;

		size_t touched = resident_pages(page, (bytes - OS_PAGE) & ~(OS_PAGE - 1));
		require(touched == 0, "%zu bytes: %zu pages behind the first", bytes, touched);
		require(is_zero(p, bytes), "%zu bytes", bytes);
	}
}

/* What the first slabs are made of held something else. */
static void leave_dirty_memory(void)
{
	for (size_t slices = 1; slices <= 32; slices++) {
		char *p = shim_malloc(slices * SLICE_BYTES);
		memset(p, 0x5a, slices * SLICE_BYTES);
		shim_free(p);
	}
}

Test(resident, calloc_of_a_block_that_somebody_had_is_zero)
{
	scopes_begin();
	leave_dirty_memory();
	for (size_t bytes = 512; bytes <= 2 * CLASS_MAX_BYTES; bytes += bytes / 9) {
		/* Of a slab that is new, or extended for it; and then not. */
		for (int round = 0; round < 2 * (int)(OS_PAGE / 512); round++) {
			char *p = shim_malloc(bytes);
			memset(p, 0x5a, bytes);
			shim_free(p);
			char *q = shim_calloc(1, bytes);
			require(is_zero(q, bytes), "%zu bytes, round %d: %s block", bytes, round,
			        p == q ? "the same" : "another");
			memset(q, 0x5a, bytes);
			q = shim_calloc(1, bytes);
			require(is_zero(q, bytes), "%zu bytes, round %d: a new block", bytes, round);
			memset(q, 0x5a, bytes);
		}
	}
}

/* A trim by another thread. */

static void *trim(void *arg)
{
	heap_trim();
	return arg;
}

/* A slab of CLASS_BYTES with one block in use, and a spare. */
static struct span *leave_holes(struct heap *heap)
{
	void *blocks[IN_A_SLAB], *big = big_alloc(heap, 3 * SLICE_BYTES, SLICE_BYTES);

	for (size_t i = 0; i < IN_A_SLAB; i++)
		blocks[i] = slab_alloc(heap, class_of(CLASS_BYTES));
	for (size_t i = 1; i < IN_A_SLAB; i++)
		heap_free(blocks[i], "free");
	heap_free(big, "free");
	require(slab_pages(span_of(blocks[0])) == SLICE_BYTES / OS_PAGE, "all of it is resident");
	require(heap->big_spare_bytes == 3 * SLICE_BYTES, "%zu", heap->big_spare_bytes);
	return span_of(blocks[0]);
}

Test(resident, a_trim_by_another_thread_is_followed_when_a_slab_is_needed)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *slab = leave_holes(heap);

	run_thread(trim, NULL);
	require(slab_pages(slab) == SLICE_BYTES / OS_PAGE, "it doesn't touch what is this thread's");
	slab_alloc(heap, class_of(32));
	require(slab_pages(slab) == 1, "%zu pages", slab_pages(slab));
	require(heap->big_spare_bytes == 0, "%zu", heap->big_spare_bytes);
	require(span_pool_totals().dirty_bytes == 0, "%zu", span_pool_totals().dirty_bytes);
}

Test(resident, a_trim_is_followed_once_and_not_by_those_who_begin_later)
{
	core_start(64 * MIB);
	/* Memory that was used before: for want of it spares are let go. */
	span_free(span_alloc(16, 1, SPAN_BIG), false);
	run_thread(trim, NULL);
	struct heap *heap = heap_make();

	for (unsigned class = 0; class < 3; class++) {
		heap_free(big_alloc(heap, 3 * SLICE_BYTES, SLICE_BYTES), "free");
		slab_alloc(heap, class);
		require(heap->big_spare_bytes > 0, "class %u", class);
		heap_trim();
	}
}
