/*
 * slab.c: slabs of all classes: which addresses are blocks, what the countdown says, and what becomes
 * of slabs in whatever order their blocks are freed.
 */
#include <sys/mman.h>

#include "unit.h"

static void *take_slow(size_t size)
{
	return heap_alloc(size);
}

static void *take(size_t size)
{
	return heap_alloc_inline(heap_self(), size, take_slow);
}

static void give(void *p)
{
	if (!heap_free_inline(heap_self(), p))
		heap_free(p, "free");
}

/* But for the spares of this thread. */
static size_t used_bytes(void)
{
	return span_pool_totals().used_bytes - heap_self()->big_spare_bytes;
}

static size_t blocks_handed_out;

static void add_used(const struct span *span, void *arg)
{
	(void)arg;
	blocks_handed_out += span->kind == SPAN_SLAB ? slab_used(span) : 0;
}

static size_t count_used(void)
{
	blocks_handed_out = 0;
	span_for_each(add_used, NULL);
	return blocks_handed_out;
}

static void check_starts(const struct span *slab)
{
	size_t first = range_granule_at(slab->start);

	for (size_t offset = 0; offset < span_bytes(slab); offset += GRANULE_BYTES) {
		bool is_start = offset % slab->block_bytes == 0 && offset / slab->block_bytes < slab->extended;
		bool is_block = slab_is_block(slab, first + (offset >> GRANULE_SHIFT));

		require(is_block == is_start, "class %u, %u extended: offset %zu", slab->class, slab->extended,
		        offset);
	}
}

Test(slab, only_starts_of_blocks_that_were_extended_to_are_blocks)
{
	struct heap *heap = heap_start(256 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		const struct span *slab = span_of(slab_alloc(heap, class));
		uint32_t extended = 0;

		require(slab->block_bytes == class_bytes(class), "class %u", class);
		while (slab_used(slab) < slab->capacity) {
			if (slab->extended != extended && (extended == 0 || slab->extended == slab->capacity))
				check_starts(slab);
			extended = slab->extended;
			require(span_of(slab_alloc(heap, class)) == slab, "class %u", class);
		}
		require(slab->extended == slab->capacity, "class %u: %u extended", class, slab->extended);
		check_starts(slab);
	}
}

Test(slab, a_fresh_slab_touches_no_more_than_it_needs)
{
	struct heap *heap = heap_start(256 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		const struct span *slab = span_of(slab_alloc(heap, class));
		size_t bytes = (size_t)slab->extended * slab->block_bytes;

		require(bytes <= OS_PAGE || slab->extended == 1, "class %u: %zu bytes", class, bytes);
	}
}

Test(slab, blocks_of_one_slab_fill_it_without_overlapping)
{
	static unsigned char seen[(4 * SLICE_BYTES) >> GRANULE_SHIFT];
	struct heap *heap = heap_start(256 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		const struct span *slab = NULL;
		uint32_t count = 0;

		memset(seen, 0, sizeof(seen));
		do {
			char *p = slab_alloc(heap, class);
			slab = slab ? slab : span_of(p);
			size_t offset = (size_t)(p - slab->start);
			require(offset % slab->block_bytes == 0 && offset + slab->block_bytes <= span_bytes(slab),
			        "class %u: offset %zu", class, offset);
			require(!seen[offset >> GRANULE_SHIFT]++, "class %u: offset %zu twice", class, offset);
			require(slab_used(slab) == ++count, "class %u: %u, not %u", class, slab_used(slab), count);
		} while (count < slab->capacity);
	}
}

/* Blocks of a class until it has its own slab. */
static void take_until_own(struct heap *heap, unsigned class)
{
	for (size_t bytes = 0; bytes < 2 * SLAB_MAX_BYTES; bytes += class_bytes(class))
		if (span_of(take(class_bytes(class)))->class == class)
			return;
	require(false, "class %u is served by %u for ever", class, heap->serving[class]);
}

Test(slab, a_heap_with_few_blocks_has_one_slab_for_neighbouring_classes)
{
	struct heap *heap = heap_start(256 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		unsigned coarse = class_coarse(class);
		size_t slabs = heap->class_slabs[coarse];
		void *p = take(class_bytes(class));

		require(span_of(p)->class == coarse, "class %u: %u", class, span_of(p)->class);
		require(heap->class_slabs[coarse] == 1, "class %u: %zu slabs", class, slabs);
		give(p);
	}
}

Test(slab, a_heap_with_many_blocks_has_slabs_for_each_class)
{
	struct heap *heap = heap_start(256 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		take_until_own(heap, class);
		/* Both ways of malloc know it, and so does whoever asks for its neighbours. */
		for (int i = 0; i < 3; i++)
			require(span_of(take(class_bytes(class)))->class == class, "class %u", class);
		for (unsigned other = 0; other < class; other++)
			require(span_of(take(class_bytes(other)))->class == other, "class %u after %u", other, class);
	}
}

Test(slab, the_inlined_path_serves_each_size_from_its_class)
{
	heap_start(64 * MIB);
	for (int round = 0; round < 2; round++)
		for (size_t size = 1; size <= CLASS_MAX_BYTES; size += size < 1100 ? 1 : 127) {
			void *p = take(size), *q = heap_alloc_class(heap_self(), size);
			require(serves(span_of(p)->block_bytes, size), "%zu bytes: %u", size, span_of(p)->block_bytes);
			require(!q || span_of(q)->block_bytes == span_of(p)->block_bytes, "%zu bytes: %u", size,
			        span_of(q)->block_bytes);
			give(p);
			if (q)
				give(q);
		}
}

/* Transitions. */

Test(slab, a_slab_leaves_its_queue_when_it_is_full_and_comes_back_with_the_first_free)
{
	struct heap *heap = heap_start(64 * MIB);
	unsigned class = class_of(1024);
	void *blocks[64];

	for (size_t i = 0; i < 64; i++)
		blocks[i] = slab_alloc(heap, class);
	struct span *slab = span_of(blocks[0]);
	require(heap->queues[class].first == slab && !slab->is_full, "nobody has looked yet");
	struct span *other = span_of(slab_alloc(heap, class));
	require(other != slab && slab->is_full && heap->queues[class].first == other, "it is full");
	require(slab_used(slab) == 64, "%u", slab_used(slab));
	give(blocks[7]);
	require(!slab->is_full && slab_used(slab) == 63, "%u", slab_used(slab));
	require(heap->queues[class].first == other && heap->queues[class].last == slab, "at the end");
	give(blocks[8]);
	require(slab_used(slab) == 62, "%u", slab_used(slab));
}

Test(slab, one_block_in_turn_makes_and_drops_no_slabs)
{
	heap_start(64 * MIB);
	for (size_t size = 1; size <= CLASS_MAX_BYTES; size = class_bytes(class_of(size)) + 1) {
		void *p = take(size);
		struct span *slab = span_of(p);
		size_t used = used_bytes();

		for (int i = 0; i < 100; i++) {
			give(p);
			require(slab->kind == SPAN_SLAB && slab_used(slab) == 0, "%zu bytes, turn %d", size, i);
			p = take(size);
			require(span_of(p) == slab && slab_used(slab) == 1, "%zu bytes, turn %d", size, i);
		}
		require(used_bytes() == used, "%zu bytes", size);
		give(p);
	}
}

Test(slab, an_empty_slab_goes_back_when_another_one_is_in_the_queue)
{
	struct heap *heap = heap_start(64 * MIB);
	unsigned class = class_of(1024);
	void *blocks[128];

	for (size_t i = 0; i < 128; i++)
		blocks[i] = slab_alloc(heap, class);
	size_t used = used_bytes();
	for (size_t i = 0; i < 64; i++)
		give(blocks[i]);
	require(used_bytes() == used - SLICE_BYTES, "one slab went back");
	for (size_t i = 64; i < 128; i++)
		give(blocks[i]);
	require(used_bytes() == used - SLICE_BYTES, "the last one is kept");
	slab_trim(heap, false);
	require(used_bytes() == used - 2 * SLICE_BYTES, "until it is asked for");
}

Test(slab, what_is_left_of_an_empty_slab_serves_the_thread_s_next_one)
{
	struct heap *heap = heap_start(64 * MIB);
	void *blocks[128];

	for (size_t i = 0; i < 128; i++)
		blocks[i] = slab_alloc(heap, class_of(1024));
	for (size_t i = 0; i < 64; i++)
		give(blocks[i]);
	require(heap->big_spare_bytes == SLICE_BYTES && span_kind(span_of(blocks[0])) == SPAN_SPARE,
	        "the first slab is a spare");
	struct span *slab = span_of(slab_alloc(heap, class_of(48)));
	require(slab == span_of(blocks[0]) && slab->owner == heap, "it is a slab again");
	require(slab->block_bytes == 48, "%u", slab->block_bytes);
	require(heap->big_spare_bytes == 0, "%zu", heap->big_spare_bytes);
}

/* Fills a slab and begins another one; the blocks, of which the last is in the second. */
static size_t fill_and_begin(struct heap *heap, unsigned class, void **blocks)
{
	size_t n = 0;

	do
		blocks[n++] = slab_alloc(heap, class);
	while (span_of(blocks[n - 1]) == span_of(blocks[0]));
	return n;
}

Test(slab, an_empty_slab_is_kept_until_others_have_room)
{
	struct heap *heap = heap_start(64 * MIB);
	unsigned class = class_of(1024);
	void *blocks[65];

	require(fill_and_begin(heap, class, blocks) == 65, "64 blocks fill a slab");
	struct span *full = span_of(blocks[0]), *kept = span_of(blocks[64]);
	give(blocks[64]);
	require(kept->is_kept && slab_used(kept) == 0, "%u", slab_used(kept));
	slab_move(heap, heap, kept);
	require(!kept->is_kept, "whose it is now decides anew");
	give(slab_alloc(heap, class));
	require(slab_alloc(heap, class) == blocks[64], "it is used again");
	require(kept->is_kept && slab_used(kept) == 1, "%u", slab_used(kept));
	give(blocks[0]);
	require(!kept->is_kept && slab_used(kept) == 1, "another one has a free block: %u", slab_used(kept));
	give(blocks[64]);
	require(kept->is_kept && slab_used(kept) == 0, "but hardly more than that: %u", slab_used(kept));
	for (size_t i = 1; i < 15; i++)
		give(blocks[i]);
	blocks[0] = slab_alloc(heap, class);
	require(span_of(blocks[0]) == kept && kept->is_kept, "none of these frees is an event for the kept one");
	slab_move(heap, heap, full);
	require(!kept->is_kept, "one that comes into the queue is");
	give(blocks[15]);
	give(blocks[0]);
	require(kept->kind != SPAN_SLAB, "a quarter of another one is free");
	require(slab_used(full) == 48, "%u", slab_used(full));
}

Test(slab, blocks_that_go_up_and_down_across_the_end_of_a_slab_make_no_slabs)
{
	struct heap *heap = heap_start(64 * MIB);
	unsigned class = class_of(32);
	static void *blocks[SLICE_BYTES / 32 + 1];
	size_t n = fill_and_begin(heap, class, blocks);
	void *tree[31];

	give(blocks[0]);
	give(blocks[n - 1]);
	for (size_t round = 0; round < 100; round++) {
		for (size_t i = 0; i < 31; i++)
			tree[i] = slab_alloc(heap, class);
		for (size_t i = 31; i-- > 0;)
			give(tree[i]);
		require(heap->class_slabs[class] == 2 && heap->big_spare_bytes == 0, "round %zu", round);
	}
}

/* Trimming. */

static size_t resident_bytes(const struct span *span)
{
	static unsigned char pages[4 * SLICE_BYTES / OS_PAGE];
	size_t bytes = 0;

	require(mincore(span->start, span_bytes(span), pages) == 0, "%zu bytes", span_bytes(span));
	for (size_t i = 0; i < span_bytes(span) / OS_PAGE; i++)
		bytes += pages[i] & 1 ? OS_PAGE : 0;
	return bytes;
}

/* A full slab of a class of which one block in twenty is still in use; all blocks hold 0x5a. */
static char *held[SLICE_BYTES / GRANULE_BYTES];
static size_t held_count;

static struct span *make_holes(struct heap *heap, unsigned class)
{
	uint64_t seed = class;
	struct span *slab;

	held_count = 0;
	do {
		held[held_count++] = slab_alloc(heap, class);
		slab = span_of(held[0]);
		memset(held[held_count - 1], 0x5a, class_bytes(class));
	} while (slab_used(slab) < slab->capacity);
	for (size_t i = 1; i < held_count; i++)
		if (random_below(&seed, 20) != 0) {
			give(held[i]);
			held[i] = NULL;
		}
	return slab;
}

/* Bytes of pages that no block in use touches. */
static size_t hole_bytes(const struct span *slab)
{
	size_t end = (size_t)slab->extended * slab->block_bytes, bytes = 0;

	for (const char *page = slab->start; page < slab->start + end; page += OS_PAGE) {
		bool is_used = false;
		for (size_t i = 0; i < held_count; i++)
			is_used |= held[i] && held[i] < page + OS_PAGE && held[i] + slab->block_bytes > page;
		bytes += is_used ? 0 : OS_PAGE;
	}
	return bytes;
}

Test(slab, pages_without_a_block_in_use_go_back_and_no_others)
{
	struct heap *heap = heap_start(64 * MIB);
	size_t all_purged = 0;

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		struct span *slab = make_holes(heap, class);
		uint32_t used = slab_used(slab);
		size_t touched = resident_bytes(slab), purged = sleep_purge_holes(slab, true);

		require(purged == hole_bytes(slab), "class %u: %zu, not %zu", class, purged, hole_bytes(slab));
		require(touched - resident_bytes(slab) == purged, "class %u: %zu bytes", class, purged);
		require(slab_used(slab) == used, "class %u: %u blocks, not %u", class, slab_used(slab), used);
		for (size_t i = 0; i < held_count; i++)
			for (size_t j = 0; held[i] && j < slab->block_bytes; j++)
				require(held[i][j] == 0x5a, "class %u: block %zu was purged", class, i);
		all_purged += purged;
	}
	require(all_purged > 16 * OS_PAGE, "%zu", all_purged);
}

Test(slab, blocks_on_pages_that_went_back_can_all_be_had_again)
{
	struct heap *heap = heap_start(64 * MIB);

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		struct span *slab = make_holes(heap, class);

		sleep_purge_holes(slab, true);
		for (uint32_t left = slab->capacity - slab_used(slab); left > 0; left--) {
			char *p = slab_alloc(heap, class);
			require(span_of(p) == slab, "class %u: %u free blocks are lost", class, left);
			for (size_t i = 0; i < held_count; i++)
				require(p != held[i], "class %u: a block in use was handed out", class);
			memset(p, 0x5a, slab->block_bytes);
		}
		const unsigned char *map = range_map_of(slab->start);
		for (size_t i = 0; i < span_bytes(slab) >> GRANULE_SHIFT; i++)
			require(map[i] == 0, "class %u: a block in use is marked", class);
	}
}

Test(slab, a_block_whose_page_went_back_cannot_be_freed_again)
{
	struct heap *heap = heap_start(64 * MIB);
	struct capture capture;

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		struct span *slab = make_holes(heap, class);
		sleep_purge_holes(slab, true);
		for (size_t i = 0; i < slab->extended; i += 1 + slab->extended / 40) {
			char *p = slab->start + i * slab->block_bytes;
			bool is_used = false;
			for (size_t j = 0; j < held_count; j++)
				is_used |= held[j] == p;
			if (is_used)
				continue;
			uint32_t used = slab_used(slab);
			capture_begin(&capture);
			give(p);
			capture_end(&capture);
			require(strstr(capture.text, "double free"), "class %u: %s", class, capture.text);
			require(slab_used(slab) == used, "class %u: %u", class, slab_used(slab));
		}
		for (size_t i = 0; i < held_count; i++)
			if (held[i])
				give(held[i]);
	}
}

Test(slab, a_trimmed_slab_can_be_emptied_and_leaves_a_clean_map)
{
	struct heap *heap = heap_start(64 * MIB);
	char *blocks[64];

	slab_alloc(heap, class_of(2048));
	for (size_t i = 0; i < 64; i++)
		blocks[i] = slab_alloc(heap, class_of(1024));
	slab_alloc(heap, class_of(1024));
	struct span *slab = span_of(blocks[0]);
	for (size_t i = 1; i < 64; i++)
		give(blocks[i]);
	slab_trim(heap, true);
	require(slab->asleep > 0 && slab_used(slab) == 1, "%u", slab->asleep);
	const unsigned char *map = range_map_of(slab->start);
	give(blocks[0]);
	require(slab->kind != SPAN_SLAB, "it went back");
	for (size_t i = 0; i < SLICE_BYTES >> GRANULE_SHIFT; i++)
		require(map[i] == 0, "granule %zu", i);
}

/* Orders of freeing. */

enum order { SAME, REVERSED, SHUFFLED, ORDERS };

static void arrange(void **blocks, size_t count, enum order order, uint64_t *seed)
{
	for (size_t i = count; i-- > 1;) {
		size_t j = order == SHUFFLED ? random_below(seed, i + 1) : count - 1 - i;

		if (order == SAME || (order == REVERSED && j >= i))
			continue;
		void *p = blocks[i];
		blocks[i] = blocks[j];
		blocks[j] = p;
	}
}

static void write_tag(void *p, size_t bytes, size_t number)
{
	((uint64_t *)p)[0] = ((uint64_t *)p)[1] = number;
	((uint64_t *)((char *)p + bytes))[-1] = number;
}

static size_t read_tag(const void *p, size_t bytes)
{
	const uint64_t *words = p, last = ((const uint64_t *)((const char *)p + bytes))[-1];

	return words[0] == words[1] && words[1] == last ? words[0] : 0;
}

static void fill_and_empty(unsigned class, enum order order, uint64_t *seed)
{
	static void *blocks[3 * SLICE_BYTES / GRANULE_BYTES];
	size_t bytes = class_bytes(class), slab_slices = bytes > 8192 ? 4 : 1;
	size_t count = 5 * slab_slices * SLICE_BYTES / 2 / bytes;

	for (size_t i = 0; i < count; i++)
		write_tag(blocks[i] = take(bytes), bytes, i + 1);
	for (size_t i = 0; i < count; i++)
		require(read_tag(blocks[i], bytes) == i + 1, "class %u: block %zu", class, i);
	arrange(blocks, count, order, seed);
	/* Half of them are freed and taken again on the way. */
	for (size_t i = 0; i < count; i += 2)
		give(blocks[i]);
	require(count_used() == count / 2, "class %u, order %d: %zu", class, order, count_used());
	for (size_t i = 0; i < count; i += 2)
		write_tag(blocks[i] = take(bytes), bytes, count + i);
	require(count_used() == count, "class %u, order %d: %zu", class, order, count_used());
	for (size_t i = 0; i < count; i += 2)
		require(read_tag(blocks[i], bytes) == count + i, "class %u: block %zu", class, i);
	for (size_t i = 0; i < count; i++)
		give(blocks[i]);
	require(count_used() == 0, "class %u, order %d: %zu left", class, order, count_used());
}

Test(slab, everything_goes_back_in_whatever_order_it_is_freed)
{
	struct heap *heap = heap_start(64 * MIB);
	uint64_t seed = 1;

	for (unsigned class = 0; class < CLASS_COUNT; class++)
		for (enum order order = SAME; order < ORDERS; order++) {
			fill_and_empty(class, order, &seed);
			slab_trim(heap, false);
			require(used_bytes() == 0, "class %u, order %d: %zu bytes", class, order,
			        used_bytes());
		}
}

Test(slab, a_random_mix_of_classes_loses_and_doubles_nothing)
{
	static struct { char *p; size_t bytes; } held[4000];
	struct heap *heap = heap_start(256 * MIB);
	uint64_t seed = 2;
	size_t count = 0;

	for (size_t step = 1; step <= 300000; step++) {
		size_t i = random_below(&seed, COUNT_OF(held));
		if (held[i].p) {
			require(read_tag(held[i].p, held[i].bytes) == i + 1, "step %zu", step);
			give(held[i].p);
			held[i].p = NULL;
			count--;
			continue;
		}
		unsigned class = (unsigned)random_below(&seed, random_below(&seed, 20) ? 20 : CLASS_COUNT);
		held[i].bytes = class_bytes(class);
		write_tag(held[i].p = take(held[i].bytes), held[i].bytes, i + 1);
		count++;
		require(step % 10000 || count_used() == count, "step %zu: %zu, not %zu", step, count_used(), count);
	}
	for (size_t i = 0; i < COUNT_OF(held); i++)
		if (held[i].p)
			give(held[i].p);
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}
