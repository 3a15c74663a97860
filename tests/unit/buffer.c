/*
 * buffer.c: buffers with blocks laid out by hand, so that holes, ends of scopes and retired buffers can be
 * compared with a model that knows every block.
 */
#include "unit.h"

#define MOST_BLOCKS 20000
#define HOLE_LEAST 512u /* a smaller one is no hole */

struct block {
	char *at;
	size_t bytes;
	unsigned bits; /* GRANULE_FREED, GRANULE_FADED */
};

static struct block blocks[MOST_BLOCKS];
static size_t block_count;

static void lay(struct span *span, char *at, size_t bytes, unsigned bits)
{
	blocks[block_count++] = (struct block){.at = at, .bytes = bytes, .bits = bits};
	granule_set(range_map_of(at), bytes >> GRANULE_SHIFT);
	granule_mark(range_map_of(at), bits);
	if (at + bytes > span->used_end)
		span->used_end = at + bytes;
}

/* Blocks of all sizes to somewhere in the buffer; one in `rare` isn't freed. */
static void lay_randomly(struct span *span, uint64_t *seed, size_t rare)
{
	char *at = buffer_begin(span), *end = at + random_below(seed, span_bytes(span) - GRANULE_BYTES);

	block_count = 0;
	while (block_count < MOST_BLOCKS) {
		size_t bytes = GRANULE_BYTES * (1 + random_below(seed, random_below(seed, 20) ? 40 : 2500));
		unsigned bits = random_below(seed, rare) ? GRANULE_FREED : 0;

		bits |= random_below(seed, 4) ? 0 : GRANULE_FADED;
		if (at + bytes > end)
			break;
		lay(span, at, bytes, bits);
		at += bytes + (random_below(seed, 4) ? 0 : GRANULE_BYTES * random_below(seed, 60));
	}
}

static bool is_live(const struct block *block)
{
	return !(block->bits & GRANULE_FREED);
}

static size_t count_freed(void)
{
	size_t count = 0;

	for (size_t i = 0; i < block_count; i++)
		count += blocks[i].bits == GRANULE_FREED;
	return count;
}

static void check_live_blocks(void)
{
	for (size_t i = 0; i < block_count; i++) {
		const unsigned char *head = range_map_of(blocks[i].at);

		require(!is_live(&blocks[i]) || (granule_is_live(granule_load(head)) &&
		        granule_size(head) << GRANULE_SHIFT == blocks[i].bytes), "block %zu was touched", i);
	}
}

static size_t used_bytes(void)
{
	return span_pool_totals().used_bytes;
}

/* Holes. */

/* Goes through all holes in [at, end) that are found; returns the bytes that were left out. */
static size_t go_through(struct span *span, char *at, const char *end, size_t bytes,
                         struct hole *hole, bool *has_more, size_t *freed)
{
	while (*has_more && hole->lo < end) {
		require(hole->lo == at && hole->hi <= end, "hole at %p, not %p",
		        (void *)hole->lo, (void *)at);
		require((size_t)(hole->hi - hole->lo) >= (bytes > HOLE_LEAST ? bytes : HOLE_LEAST), "too small");
		for (char *p = hole->lo; p < hole->hi; p += GRANULE_BYTES)
			require(*range_map_of(p) == 0, "the map isn't zero");
		*freed += hole->freed_blocks;
		at = hole->hi;
		*has_more = buffer_next_hole(span, hole->hi, bytes, hole);
	}
	return (size_t)(end - at);
}

static void check_holes(struct span *span, size_t bytes)
{
	size_t wanted = bytes > HOLE_LEAST ? bytes : HOLE_LEAST, freed = 0, freed_before = count_freed();
	struct hole hole;
	bool has_more = buffer_next_hole(span, buffer_begin(span), bytes, &hole);
	char *at = buffer_begin(span);

	for (size_t i = 0; i <= block_count; i++) {
		const struct block *live = &blocks[i];
		if (i < block_count && !is_live(live))
			continue;
		char *end = i < block_count ? live->at : span_end(span);
		size_t left = go_through(span, at, end, bytes, &hole, &has_more, &freed);
		require(left < wanted, "%zu bytes before block %zu weren't found", left, i);
		at = i < block_count ? live->at + live->bytes : end;
	}
	require(!has_more, "a hole behind the end");
	check_live_blocks();
	/* Freed blocks were counted, or are still there. */
	size_t fresh_live = 0;
	for (size_t i = 0; i < block_count; i++)
		fresh_live += blocks[i].bits == 0;
	size_t left = granule_count(buffer_map(span), buffer_map_end(span)).blocks - fresh_live;
	require(freed + left == freed_before, "%zu counted and %zu left of %zu", freed, left, freed_before);
}

Test(buffer, holes_are_what_lies_between_live_blocks)
{
	struct heap *heap = heap_start(256 * MIB);
	const size_t wanted[] = {16, 512, 528, 4096, 20000, 32768};
	struct span *span = buffer_make(heap, 20, 1);

	for (uint64_t round = 1; round <= 120; round++) {
		uint64_t seed = round;

		lay_randomly(span, &seed, 1 + round % 40);
		check_holes(span, wanted[round % COUNT_OF(wanted)]);
		memset(range_map_of(span->start), 0, span_bytes(span) >> GRANULE_SHIFT);
		span->used_end = span->start;
	}
}

Test(buffer, a_fresh_buffer_is_one_hole_behind_its_first_granule)
{
	struct heap *heap = heap_start(64 * MIB);
	struct hole hole;

	for (unsigned log2 = BUFFER_MIN_LOG2; log2 <= BUFFER_MAX_LOG2; log2++) {
		struct span *span = buffer_make(heap, log2, 1);
		require(span && span_bytes(span) == (size_t)1 << log2, "%u", log2);
		require(buffer_next_hole(span, buffer_begin(span), 16, &hole), "%u", log2);
		require(hole.lo == span->start + GRANULE_BYTES && hole.hi == span_end(span), "%u", log2);
		buffer_put(heap, span);
	}
}

Test(buffer, looking_for_freed_blocks_pays_only_where_there_are_some)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = buffer_make(heap, 18, 1);

	for (char *p = buffer_begin(span); p + 64 <= span_end(span); p += 64)
		lay(span, p, 64, 0);
	require(!buffer_may_have_holes(span), "all live");
	for (size_t i = 0; i < block_count; i += 3)
		granule_mark(range_map_of(blocks[i].at), GRANULE_FREED);
	require(buffer_may_have_holes(span), "a third freed");
	buffer_clear(span);
	require(!buffer_may_have_holes(span), "empty");
	span->had_keeps = true;
	require(buffer_may_have_holes(span), "with survivors of scopes before");
}

/* The end of a scope. */

static void check_ending(struct span *span, bool reclaims)
{
	size_t from = block_count / 4, to = block_count - block_count / 5, live = 0, bytes = 0;
	bool has_survivors = false;

	if (to <= from)
		return;
	span->had_keeps = false;
	span->fresh_lo = blocks[from].at;
	span->fresh_hi = blocks[to - 1].at + blocks[to - 1].bytes;
	for (size_t i = from; i < to; i++) {
		live += blocks[i].bits == 0;
		bytes += blocks[i].bits == 0 ? blocks[i].bytes : 0;
		has_survivors |= is_live(&blocks[i]) && (!reclaims || blocks[i].bits);
	}
	struct buffer_fresh fresh = buffer_count_fresh(span);
	require(fresh.blocks == live && fresh.bytes == bytes, "%zu live, not %zu", fresh.blocks, live);
	struct buffer_ending ending = buffer_end_scope(span, reclaims);
	require(ending.blocks == live && ending.bytes == bytes, "%zu blocks, not %zu", ending.blocks, live);
	require(ending.has_survivors == has_survivors && span->had_keeps == has_survivors, "survivors");
	for (size_t i = 0; i < block_count; i++) {
		bool is_in = i >= from && i < to;
		bool is_gone = is_in && (!is_live(&blocks[i]) || (reclaims && !blocks[i].bits));
		const unsigned char *at = range_map_of(blocks[i].at);
		unsigned head = granule_load(at), bits = head & (GRANULE_FREED | GRANULE_FADED);
		unsigned wanted = is_in ? GRANULE_FADED : blocks[i].bits;

		require(is_gone ? head == 0 : head != 0 && bits == wanted, "block %zu: %x", i, head);
		require(is_gone || granule_size(at) << GRANULE_SHIFT == blocks[i].bytes, "block %zu", i);
		/* Of what is gone, size bytes are gone too. */
		for (size_t j = 0; is_gone && j < blocks[i].bytes >> GRANULE_SHIFT; j++)
			require(at[j] == 0, "block %zu, granule %zu: %x", i, j, at[j]);
	}
}

Test(buffer, the_end_of_a_scope_fades_or_reclaims_what_lives_and_forgets_the_rest)
{
	struct heap *heap = heap_start(256 * MIB);
	struct span *span = buffer_make(heap, 18, 1);

	for (uint64_t round = 1; round <= 100; round++) {
		uint64_t seed = round;

		lay_randomly(span, &seed, 1 + round % 10);
		check_ending(span, round % 2);
		memset(range_map_of(span->start), 0, span_bytes(span) >> GRANULE_SHIFT);
		span->used_end = span->start;
	}
}

/* Buffers that no thread owns. */

/* A buffer with a faded block of so many bytes every so many bytes, in `blocks`. */
static struct span *make_faded(struct heap *heap, size_t bytes, size_t every)
{
	struct span *span = buffer_make(heap, BUFFER_MIN_LOG2, 1);

	block_count = 0;
	for (char *p = buffer_begin(span); p + bytes <= span_end(span); p += every)
		lay(span, p, bytes, GRANULE_FADED);
	span->had_keeps = true;
	return span;
}

Test(buffer, the_last_free_gives_a_retired_buffer_back)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = make_faded(heap, 64, 1024);

	require(buffer_retire(span) && span->kind == SPAN_RETIRED, "it holds blocks");
	for (size_t i = 0; i < block_count; i++) {
		require(used_bytes() == SLICE_BYTES, "%zu blocks freed", i);
		require(heap_block_bytes(blocks[i].at, "measure") == 64, "block %zu", i);
		heap_free(blocks[i].at, "free");
	}
	require(used_bytes() == 0, "%zu", used_bytes());
	struct span *again = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	for (unsigned char *byte = buffer_map(again); byte < buffer_map_end(again); byte++)
		require(*byte == 0, "its map is left behind");
}

static void *free_all_blocks(void *arg)
{
	(void)arg;
	heap_make();
	for (size_t i = 0; i < block_count; i++)
		heap_free(blocks[i].at, "free");
	return NULL;
}

Test(buffer, the_last_free_may_come_from_another_thread)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = make_faded(heap, 1024, 1024);

	require(buffer_retire(span), "it holds blocks");
	run_thread(free_all_blocks, NULL);
	require(used_bytes() == 0, "%zu", used_bytes());
	require(buffer_adopt() == NULL, "it is in no list");
}

Test(buffer, a_buffer_without_live_blocks_is_not_retired)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = make_faded(heap, 64, 1024);

	free_all_blocks(NULL);
	require(span->kind == SPAN_BUFFER && used_bytes() == SLICE_BYTES, "frees only mark the map");
	require(!buffer_retire(span) && span->kind == SPAN_BUFFER, "it is the caller's");
	require(buffer_adopt() == NULL, "it is in no list");
}

Test(buffer, a_retired_buffer_with_room_is_taken_over_and_a_dense_one_is_not)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *dense = make_faded(heap, 1024, 1024);
	struct block *dense_blocks = blocks;
	size_t dense_count = block_count;
	char *freed[64];

	for (size_t i = 0; i < dense_count; i++)
		freed[i] = dense_blocks[i].at;
	buffer_retire(dense);
	require(buffer_adopt() == NULL, "there is no room in it");
	struct span *airy = make_faded(heap, 64, 1024), *airy_2 = make_faded(heap, 64, 1024);
	buffer_retire(airy);
	buffer_retire(airy_2);
	struct span *first = buffer_adopt(), *second = buffer_adopt();
	bool are_both = (first == airy && second == airy_2) || (first == airy_2 && second == airy);
	require(are_both, "%p and %p", (void *)first, (void *)second);
	require(first->kind == SPAN_BUFFER && first->resume == buffer_begin(first), "from its begin");
	require(buffer_adopt() == NULL, "the dense one stays");
	for (size_t i = 0; i + 8 < dense_count; i++)
		heap_free(freed[i], "free");
	require(buffer_adopt() == dense, "with most of it freed there is room");
}

Test(buffer, a_sweep_finds_buffers_whose_count_was_missed)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = make_faded(heap, 64, 1024);

	buffer_retire(span);
	for (size_t i = 0; i < block_count; i++)
		granule_mark(range_map_of(blocks[i].at), GRANULE_FREED);
	struct span *living = make_faded(heap, 64, 1024);
	buffer_retire(living);
	require(used_bytes() == 2 * SLICE_BYTES, "%zu", used_bytes());
	buffer_sweep_retired();
	require(used_bytes() == SLICE_BYTES, "%zu", used_bytes());
	require(living->kind == SPAN_RETIRED && buffer_adopt() == living, "the other one stays in the list");
}

/* The cache. */

Test(buffer, a_heap_keeps_empty_buffers_up_to_the_size_of_its_cache)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *spans[6];

	buffer_set_cache_bytes(4 * SLICE_BYTES);
	for (size_t i = 0; i < 6; i++)
		spans[i] = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	for (size_t i = 0; i < 6; i++)
		buffer_put(heap, spans[i]);
	require(heap->spare_bytes == 4 * SLICE_BYTES, "%zu", heap->spare_bytes);
	require(used_bytes() == 4 * SLICE_BYTES, "%zu", used_bytes());
	require(buffer_take_spare(heap, 17) == NULL, "none of that size");
	for (size_t i = 4; i-- > 0;)
		require(buffer_take_spare(heap, BUFFER_MIN_LOG2) == spans[i], "spare %zu", i);
	require(buffer_take_spare(heap, BUFFER_MIN_LOG2) == NULL, "there is no more");
	require(heap->spare_bytes == 0, "%zu", heap->spare_bytes);
	require(buffer_make(heap, 17, 2) && heap->spare_bytes == 2 * SLICE_BYTES, "one to spare");
	buffer_drop_spares(heap);
	require(heap->spare_bytes == 0 && buffer_take_spare(heap, 17) == NULL, "%zu", heap->spare_bytes);
	require(used_bytes() == 6 * SLICE_BYTES, "%zu", used_bytes());
}

Test(buffer, sizes_are_rounded_up_and_cut_to_the_limits)
{
	const struct { size_t bytes; unsigned log2; } rows[] = {
		{0, 16}, {1, 16}, {65536, 16}, {65537, 17}, {1 << 17, 17},
		{(1 << 17) + 1, 18}, {1 << 24, 24}, {1 << 25, 24},
	};

	for (size_t i = 0; i < COUNT_OF(rows); i++)
		require(buffer_size_log2(rows[i].bytes) == rows[i].log2, "%zu", rows[i].bytes);
}

/* Single frees. */

static void expect_free_report(char *p, const char *wanted)
{
	struct capture capture;

	capture_begin(&capture);
	heap_free(p, "free");
	capture_end(&capture);
	require(count_lines(capture.text) == (wanted ? 1 : 0), "%s", capture.text);
	require(!wanted || strstr(capture.text, wanted), "%s, not %s", capture.text, wanted);
}

Test(buffer, frees_of_what_is_no_block_are_reported_and_change_nothing)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	char *at = buffer_begin(span);

	lay(span, at, 32, 0);
	lay(span, at + 64, 2048, 0);
	expect_free_report(at + 16, "not the start of a block: it lies 16 bytes into one of 32");
	expect_free_report(at + 8, "not the start of a block: it lies 8 bytes into one of 32");
	expect_free_report(at + 32, "lies in a buffer, but in no block of it");
	expect_free_report(at + 80, "not the start of a block: it lies 16 bytes into one of 2048");
	expect_free_report(at + 64 + 2032, "not the start of a block: it lies 2032 bytes into one of 2048");
	expect_free_report(at + 4096, "lies in a buffer, but in no block of it");
	expect_free_report(span->start, "lies in a buffer, but in no block of it");
	check_live_blocks();
	expect_free_report(at, NULL);
	expect_free_report(at, "double free of a block of 32 bytes in a buffer");
	expect_free_report(at + 64, NULL);
	expect_free_report(at + 64, "double free of a block of 2048 bytes in a buffer");
	require(buffer_find(span, at) == NULL && buffer_find(span, at + 100) == NULL, "none lives");
}

Test(buffer, any_address_in_a_live_block_leads_to_its_head)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	char *at = buffer_begin(span);

	lay(span, at, 1600, 0);
	lay(span, at + 1600, 16, GRANULE_FREED);
	for (size_t i = 0; i < 1600; i++)
		require(buffer_find(span, at + i) == range_map_of(at), "offset %zu", i);
	require(buffer_find(span, at + 1600) == NULL && buffer_find(span, span->start) == NULL, "no block");
	require(heap_block_bytes(at, "measure") == 1600, "%zu", heap_block_bytes(at, "measure"));
}

Test(buffer, freeing_the_newest_block_moves_the_cursor_back)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	char *at = buffer_begin(span);

	lay(span, at, 2048, 0);
	lay(span, at + 2048, 1024, 0);
	heap->cursor = at + 3072;
	expect_free_report(at + 2048, NULL);
	require(heap->cursor == at + 2048 && *range_map_of(at + 2048) == 0, "it leaves no trace");
	require(heap->popped_blocks == 1 && heap->popped_bytes == 1024, "%zu", (size_t)heap->popped_bytes);
	granule_mark(range_map_of(at), GRANULE_FADED);
	expect_free_report(at, NULL);
	require(heap->cursor == at + 2048, "a faded block is only marked");
	require(!granule_is_live(granule_load(range_map_of(at))), "but it is");
}

Test(buffer, a_late_free_is_reported_once_and_counted)
{
	struct heap *heap = heap_start(64 * MIB);
	struct span *span = buffer_make(heap, BUFFER_MIN_LOG2, 1);
	char *at = buffer_begin(span);

	span->used_end = at + 4096;
	expect_free_report(at + 64, "in no block of it");
	buffer_note_reclaim(span, "request");
	expect_free_report(at + 64, "was reclaimed at the end of scope \"request\"");
	expect_free_report(at + 128, NULL);
	expect_free_report(at + 130, "in no block of it");
	require(buffer_late_frees() == 2, "%zu", (size_t)buffer_late_frees());
	span_free(span, false);
	expect_free_report(at + 64, NULL);
	require(buffer_late_frees() == 3, "%zu", (size_t)buffer_late_frees());
}
