/*
 * big.c: blocks with a span of their own keep their contents however they are resized.
 */
#include "unit.h"

static void write_pages(char *p, size_t from, size_t bytes, uint64_t value)
{
	for (size_t i = from; i < bytes; i += OS_PAGE)
		*(uint64_t *)(p + i) = value + i;
}

static bool has_pages(const char *p, size_t bytes, uint64_t value)
{
	for (size_t i = 0; i < bytes; i += OS_PAGE)
		if (*(const uint64_t *)(p + i) != value + i)
			return false;
	return true;
}

static size_t used_bytes(void)
{
	return span_pool_totals().used_bytes;
}

static size_t span_bytes_of_rest(void *const *blocks, size_t from)
{
	size_t bytes = 0;

	for (size_t i = from; i < 200; i++)
		bytes += span_bytes(span_of(blocks[i]));
	return bytes;
}

Test(big, a_block_grows_and_shrinks_in_place_where_nothing_is_behind_it)
{
	core_start(64 * MIB);
	char *p = big_alloc(heap_self(), 100000, 1);
	size_t bytes = 100000;

	write_pages(p, 0, bytes, 1);
	for (; bytes < 8 * MIB; bytes += bytes / 3) {
		size_t more = bytes + bytes / 3;

		require(big_resize(span_of(p), more) == p, "%zu bytes", more);
		require(has_pages(p, bytes, 1), "%zu bytes", more);
		require(span_of(p)->bytes >= more && span_bytes(span_of(p)) >= more, "%zu bytes", more);
		write_pages(p, 0, more, 1);
	}
	require(big_resize(span_of(p), 70000) == p && has_pages(p, 70000, 1), "shrunk");
	require(used_bytes() == 2 * SLICE_BYTES, "%zu", used_bytes());
}

Test(big, a_neighbour_makes_a_large_block_move_with_its_pages)
{
	core_start(256 * MIB);
	char *p = big_alloc(heap_self(), 2 * MIB, 1), *neighbour = big_alloc(heap_self(), 1, 1);

	write_pages(p, 0, 2 * MIB, 5);
	write_pages(neighbour, 0, 1, 9);
	char *q = big_resize(span_of(p), 5 * MIB);
	require(q && q != p && has_pages(q, 2 * MIB, 5), "%p to %p", (void *)p, (void *)q);
	require(span_of(q)->bytes == 5 * MIB && !span_of(q)->is_zero, "%zu", span_of(q)->bytes);
	require(span_of(p)->kind == SPAN_FREE_CLEAN, "the old place is free");
	require(*(uint64_t *)neighbour == 9, "the neighbour");
	/* What is left behind really reads as zero. */
	char *reused = big_alloc(heap_self(), 2 * MIB, 1);
	require(reused == p && span_of(p)->is_zero, "%p, not %p", (void *)reused, (void *)p);
	for (size_t i = 0; i < 2 * MIB; i += 64)
		require(*(uint64_t *)(p + i) == 0, "offset %zu", i);
}

Test(big, a_block_that_has_moved_can_move_again_and_be_freed)
{
	core_start(1024 * MIB);
	char *p = big_alloc(heap_self(), 1 * MIB, 1);
	size_t bytes = 1 * MIB, blockers = 0;

	write_pages(p, 0, bytes, 3);
	while (bytes < 40 * MIB) {
		big_alloc(heap_self(), 1, 1);
		blockers++;
		char *q = big_resize(span_of(p), bytes * 2);
		require(q && has_pages(q, bytes, 3), "%zu bytes", bytes * 2);
		bytes *= 2;
		write_pages(p = q, 0, bytes, 3);
	}
	big_free(heap_self(), span_of(p), p, "free");
	require(used_bytes() == blockers * SLICE_BYTES, "%zu", used_bytes());
	char *fresh = big_alloc(heap_self(), bytes, 1);
	require(!span_of(fresh)->is_zero || *(uint64_t *)fresh == 0, "what was moved away isn't clean");
}

Test(big, a_block_too_small_to_move_is_left_as_it_is)
{
	core_start(64 * MIB);
	char *p = big_alloc(heap_self(), 100000, 1);

	big_alloc(heap_self(), 1, 1);
	write_pages(p, 0, 100000, 1);
	size_t bytes = span_of(p)->bytes;
	require(big_resize(span_of(p), 10 * MIB) == NULL, "a copy is cheaper");
	require(span_of(p)->bytes == bytes && has_pages(p, 100000, 1), "nothing has changed");
}

Test(big, what_cannot_be_had_is_refused_and_changes_nothing)
{
	core_start(RANGE_MIN_BYTES);
	char *p = big_alloc(heap_self(), 2 * MIB, 1);

	write_pages(p, 0, 2 * MIB, 1);
	big_alloc(heap_self(), 1, 1);
	require(big_alloc(heap_self(), RANGE_MIN_BYTES, 1) == NULL, "more than there is");
	require(big_alloc(heap_self(), (size_t)PTRDIFF_MAX + 1, 1) == NULL, "more than anything may have");
	require(big_resize(span_of(p), RANGE_MIN_BYTES) == NULL, "no room to move");
	require(big_resize(span_of(p), SIZE_MAX - 5) == NULL, "no room at all");
	require(span_of(p)->bytes == 2 * MIB && has_pages(p, 2 * MIB, 1), "nothing has changed");
}

Test(big, alignment_is_kept_from_a_page_to_four_mebibytes)
{
	core_start(256 * MIB);
	for (size_t align = OS_PAGE; align <= 4 * MIB; align *= 2) {
		char *p = big_alloc(heap_self(), 50000, align);

		big_alloc(heap_self(), 1, 1);
		require(p && (uintptr_t)p % align == 0, "%zu: %p", align, (void *)p);
	}
}

/* Spares. */

static void free_big(void *p)
{
	big_free(heap_self(), span_of(p), p, "free");
}

Test(big, freed_spans_of_every_size_to_8_mib_serve_again)
{
	struct heap *heap = heap_start(256 * MIB);

	for (size_t bytes = CLASS_MAX_BYTES + 1; bytes <= BIG_SPARE_MAX_BYTES; bytes += bytes / 7) {
		char *p = big_alloc(heap, bytes, 1);

		require(span_bytes(span_of(p)) <= bytes + bytes / 4 + SLICE_BYTES, "%zu bytes", bytes);
		require(big_take_spare(heap, bytes) == NULL, "%zu bytes: nothing is there yet", bytes);
		free_big(p);
		require(big_take_spare(heap, bytes) == p, "%zu bytes", bytes);
		require(span_of(p)->kind == SPAN_BIG && span_of(p)->bytes >= bytes, "%zu bytes", bytes);
		free_big(p);
		big_drop_spares(heap);
	}
	require(big_take_spare(heap, BIG_SPARE_MAX_BYTES + 1) == NULL && big_take_spare(heap, 0) == NULL &&
	        big_take_spare(heap, CLASS_MAX_BYTES) == NULL && big_take_spare(heap, SIZE_MAX) == NULL,
	        "sizes that have no spares");
}

Test(big, spares_stay_within_their_bound_and_add_up)
{
	struct heap *heap = heap_start(1024 * MIB);
	void *blocks[200];
	uint64_t seed = 3;

	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < COUNT_OF(blocks); i++)
			blocks[i] = big_alloc(heap, 40000 + random_below(&seed, 2 * MIB), 1);
		for (size_t i = 0; i < COUNT_OF(blocks); i++) {
			free_big(blocks[i]);
			require(heap->big_spare_bytes <= BIG_SPARE_MAX_BYTES, "%zu", heap->big_spare_bytes);
			require(used_bytes() == heap->big_spare_bytes + span_bytes_of_rest(blocks, i + 1),
			        "%zu", used_bytes());
		}
	}
	big_drop_spares(heap);
	require(heap->big_spare_bytes == 0 && used_bytes() == 0, "%zu", used_bytes());
}

Test(big, spares_that_were_resized_fit_what_they_are_taken_for)
{
	struct heap *heap = heap_start(1024 * MIB);
	uint64_t seed = 4;

	for (int i = 0; i < 5000; i++) {
		size_t bytes = CLASS_MAX_BYTES + 1 + random_below(&seed, 3 * MIB);
		char *p = big_take_spare(heap, bytes);

		p = p ? p : big_alloc(heap, bytes, random_below(&seed, 4) ? 1 : 4 * SLICE_BYTES);
		require(span_of(p)->bytes >= bytes && span_bytes(span_of(p)) >= bytes, "%zu bytes", bytes);
		write_pages(p, 0, bytes, 1);
		bytes = CLASS_MAX_BYTES + 1 + random_below(&seed, 3 * MIB);
		char *q = big_resize(span_of(p), bytes);
		free_big(q ? q : p);
	}
}

Test(big, spares_nobody_wants_are_let_go)
{
	struct heap *heap = heap_start(256 * MIB);
	char *p = big_alloc(heap, 1 * MIB, 1), *q = big_alloc(heap, 2 * MIB, 1);

	free_big(p);
	span_pool_decay(false);
	free_big(q);
	span_pool_decay(false);
	free_big(big_alloc(heap, 3 * MIB, 1));
	require(big_take_spare(heap, 1 * MIB) == NULL, "not wanted between two looks");
	require(big_take_spare(heap, 3 * MIB) != NULL, "the last one");
}

Test(big, spares_serve_slabs_before_fresh_memory_does)
{
	struct heap *heap = heap_start(256 * MIB);
	char *p = big_alloc(heap, 1 * MIB, 1), *end = p + 1 * MIB;

	free_big(p);
	char *block = heap_alloc(100);
	require(block >= p && block < end, "%p", (void *)block);
	require(heap->big_spare_bytes == 0, "%zu", heap->big_spare_bytes);
}

Test(big, calloc_clears_what_is_not_known_to_be_zero)
{
	scopes_begin();
	for (int round = 0; round < 3; round++) {
		char *p = shim_calloc(3, 100000);

		for (size_t i = 0; i < 300000; i++)
			require(p[i] == 0, "round %d, offset %zu", round, i);
		memset(p, 0xff, 300000);
		shim_free(p);
	}
}
