/*
 * object.c: regions as objects: their blocks, sizes, resets, marks, children and ends.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- blocks --- */

static void blocks_of_all_sizes_are_aligned_and_whole(void)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 991, 992, 993, 1008, 4096, 32767, 32768, 32769,
	                               65535, 65536, 65537, 131072, 262144, 262145, MIB, 8 * MIB,
	                               8 * MIB + 1, 16 * MIB, 16 * MIB + 1, 40 * MIB};
	enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
	region_t *region = a_region();
	void *blocks[2 * COUNT];
	for (unsigned i = 0; i < 2 * COUNT; i++)
		blocks[i] = block_of(region, probe_opaque_size(sizes[i % COUNT]), i);
	for (unsigned i = 0; i < 2 * COUNT; i++) {
		verify(blocks[i], sizes[i % COUNT], i);
		CHECK(region_contains(region, blocks[i]), "the region contains its block of %zu bytes",
		      sizes[i % COUNT]);
	}
	region_destroy(region);
	probe_heap_is_sound();
}

static void blocks_of_zero_bytes_are_unique(void)
{
	region_t *region = a_region();
	size_t none = probe_opaque_size(0);
	void *one = region_alloc(region, none), *other = region_alloc(region, none);
	CHECK(one && other && one != other, "0 bytes are taken as 1: %p and %p", one, other);
	CHECK(region_calloc(region, none, 8), "calloc of no items, too");
	CHECK(region_len(region) == 48, "each is counted: %zu", region_len(region));
	region_destroy(region);
}

static void calloc_is_zero_whatever_was_there(void)
{
	static const size_t sizes[] = {1, 16, 1000, 40000, 300000, 20 * MIB};
	region_t *region = a_region();
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 6; i++) {
			unsigned char *p = region_calloc(region, 1, sizes[i]);
			CHECK(p && probe_is_zero(p, sizes[i]), "calloc of %zu bytes is zero", sizes[i]);
			memset(p, 0xee, sizes[i]);
		}
		region_reset(region);
	}
	region_destroy(region);
}

static void memalign_aligns_to_every_power_of_two(void)
{
	region_t *region = a_region();
	for (size_t align = 1; align <= 4 * MIB; align *= 2)
		for (size_t size = 1; size <= 100000; size *= 10) {
			void *p = region_memalign(region, align, size);
			CHECK(p && (uintptr_t)p % align == 0, "memalign(%zu, %zu) aligns: %p", align, size, p);
			probe_fill(p, size, 3);
			verify(p, size, 3);
			block_of(region, 24, 1);
		}
	region_destroy(region);
}

static void memalign_rejects_what_is_no_power_of_two(void)
{
	static const size_t bad[] = {0, 3, 48, 65, MIB + 1, SIZE_MAX};
	region_t *region = a_region();
	for (unsigned i = 0; i < 6; i++) {
		errno = 0;
		CHECK(!region_memalign(region, probe_opaque_size(bad[i]), 100) && errno == EINVAL,
		      "alignment %zu is EINVAL: errno %d", bad[i], errno);
	}
	region_is_sound(region);
	region_destroy(region);
}

static void fails(const void *p, const char *call)
{
	CHECK(!p && errno == ENOMEM, "%s fails with ENOMEM: %p, errno %d", call, p, errno);
	errno = 0;
}

static void sizes_beyond_the_address_space_fail_with_enomem(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	size_t most = probe_opaque_size(SIZE_MAX), half = probe_opaque_size(PTRDIFF_MAX);
	errno = 0;
	fails(region_alloc(region, most), "alloc of SIZE_MAX");
	fails(region_alloc(region, most - 15), "alloc of SIZE_MAX - 15");
	fails(region_alloc(region, half + 1), "alloc of PTRDIFF_MAX + 1");
	fails(region_alloc(region, half), "alloc of PTRDIFF_MAX");
	fails(region_calloc(region, most / 2, 3), "calloc that overflows");
	fails(region_calloc(region, half, 2), "calloc of SIZE_MAX - 1");
	fails(region_memalign(region, 4096, most - 100), "memalign of SIZE_MAX - 100");
	fails(region_realloc(region, p, 100, half + 1), "realloc to PTRDIFF_MAX + 1");
	fails(region_realloc(region, p, 100, most), "realloc to SIZE_MAX");
	verify(p, 100, 1);
	region_is_sound(region);
	region_destroy(region);
}

static void copies_are_made(void)
{
	static char far[10001];
	region_t *region = a_region();
	memset(far, 'x', sizeof(far) - 1);
	char *text = region_strdup(region, "a text"), *cut = region_strndup(region, "a text", 3);
	char no_end[4] = {'a', 'b', 'c', 'd'};
	CHECK(strcmp(text, "a text") == 0, "strdup copies: %s", text);
	CHECK(strcmp(cut, "a t") == 0, "strndup cuts: %s", cut);
	CHECK(strcmp(region_strndup(region, "short", 100), "short") == 0, "strndup stops at the end");
	CHECK(strcmp(region_strndup(region, no_end, 4), "abcd") == 0, "strndup needs no 0");
	CHECK(strcmp(region_strdup(region, ""), "") == 0, "strdup copies nothing as well");
	CHECK(strcmp(region_strdup(region, far), far) == 0, "strdup copies 10000 bytes");
	CHECK(memcmp(region_memdup(region, far, sizeof(far)), far, sizeof(far)) == 0, "memdup copies");
	CHECK(region_memdup(region, NULL, 0), "memdup of nothing is a block");
	char *printed = region_printf(region, "%s/%d/%s", far, 42, "end");
	CHECK(strlen(printed) == 10000 + 7 && strcmp(printed + 10000, "/42/end") == 0, "printf prints");
	CHECK(strcmp(region_printf(region, "%s", ""), "") == 0, "printf prints nothing as well");
	CHECK(strcmp(text, "a text") == 0 && strcmp(cut, "a t") == 0, "all of that is side by side");
	region_destroy(region);
}

/* --- realloc --- */

static void newest_block_grows_where_it_is(void)
{
	region_t *region = a_region();
	char *p = block_of(region, 10, 1);
	for (size_t size = 10; size < 20000; size += 36) {
		char *q = region_realloc(region, p, size, size + 36);
		CHECK(q == p, "from %zu bytes on it stays at %p: %p", size, (void *)p, (void *)q);
	}
	verify(p, 10, 1);
	CHECK(region_len(region) <= 20048, "only the newest length counts: %zu", region_len(region));
	region_destroy(region);
}

static void older_block_is_copied_when_it_grows(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1), *newer = block_of(region, 100, 2);
	void *q = region_realloc(region, p, 100, 5000);
	CHECK(q && q != p, "it can't grow where it is");
	verify(q, 100, 1);
	probe_fill(q, 5000, 3);
	verify(newer, 100, 2);
	region_destroy(region);
}

static void realloc_keeps_contents_between_all_borders(void)
{
	static const size_t sizes[] = {1, 16, 992, 993, 32768, 40000, 65536, 262144, 300000, MIB, 17 * MIB};
	region_t *region = a_region();
	for (unsigned i = 0; i < 11; i++)
		for (unsigned j = 0; j < 11; j++)
			for (int newest = 0; newest < 2; newest++) {
				size_t common = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
				void *p = block_of(region, sizes[i], i);
				void *other = newest ? NULL : block_of(region, 50, 9);
				void *q = region_realloc(region, p, sizes[i], sizes[j]);
				CHECK(q, "realloc from %zu to %zu serves", sizes[i], sizes[j]);
				verify(q, common, i);
				probe_fill(q, sizes[j], j);
				if (other)
					verify(other, 50, 9);
				region_reset(region);
			}
	region_destroy(region);
}

static void shrinking_stays_where_it_is(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 5000, 1);
	block_of(region, 10, 2);
	CHECK(region_realloc(region, p, 5000, 100) == p, "an older block shrinks where it is");
	verify(p, 100, 1);
	p = block_of(region, 5000, 3);
	CHECK(region_realloc(region, p, 5000, 100) == p, "the newest shrinks where it is");
	void *next = block_of(region, 16, 4);
	CHECK((char *)next - (char *)p < 5000, "what is cut off serves the next: %p after %p", next, p);
	verify(p, 100, 3);
	region_destroy(region);
}

static void realloc_to_zero_gives_the_newest_back(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	size_t before = region_len(region);
	CHECK(!region_realloc(region, p, 100, probe_opaque_size(0)), "size 0 gives NULL");
	CHECK(region_len(region) < before, "it isn't counted any more: %zu", region_len(region));
	CHECK(block_of(region, 100, 2) == p, "its memory serves the next block");
	p = region_realloc(region, NULL, 0, 77);
	CHECK(p, "realloc of NULL allocates");
	probe_fill(p, 77, 3);
	verify(p, 77, 3);
	region_destroy(region);
}

/* --- sizes --- */

static void len_counts_blocks_in_steps_of_16(void)
{
	region_t *region = a_region();
	size_t expected = 0;
	CHECK(region_len(region) == 0 && region_peak(region) == 0, "a new region is empty");
	for (size_t size = 1; size < 200000; size = size * 3 / 2 + 1) {
		block_of(region, size, 1);
		expected += (size + 15) / 16 * 16;
		CHECK(region_len(region) == expected, "%zu bytes after one of %zu: %zu", expected, size,
		      region_len(region));
		CHECK(region_cap(region) >= expected, "buffers hold blocks: %zu", region_cap(region));
	}
	region_destroy(region);
}

static void peak_is_the_most_since_the_last_reset(void)
{
	region_t *region = a_region();
	region_mark_t empty = region_mark(region);
	for (int i = 0; i < 100; i++)
		block_of(region, 10000, 1);
	size_t len = region_len(region);
	CHECK(region_peak(region) == len, "the peak is now: %zu, %zu", region_peak(region), len);
	region_rewind(region, empty);
	CHECK(region_len(region) == 0, "rewinding empties it: %zu", region_len(region));
	CHECK(region_peak(region) == len, "rewinding keeps the peak: %zu", region_peak(region));
	block_of(region, 160, 1);
	CHECK(region_peak(region) == len, "a small block doesn't change it: %zu", region_peak(region));
	region_reset(region);
	CHECK(region_len(region) == 0 && region_peak(region) == 0, "reset does: %zu",
	      region_peak(region));
	block_of(region, 160, 1);
	CHECK(region_peak(region) == 160, "the next peak: %zu", region_peak(region));
	region_destroy(region);
}

static void contains_answers_for_any_pointer(void)
{
	region_t *region = a_region(), *other = a_region();
	static int object;
	int local;
	char *p = block_of(region, 1000, 1), *q = block_of(other, 1000, 1);
	void *heap = malloc(100), *big = block_of(region, 30 * MIB, 1);
	CHECK(region_contains(region, p) && region_contains(region, p + 999), "its block, inside, too");
	CHECK(region_contains(region, big) && region_contains(region, (char *)big + 29 * MIB),
	      "a large block, too");
	CHECK(!region_contains(region, q) && !region_contains(other, p), "not another region's");
	CHECK(!region_contains(region, heap), "not the heap's");
	CHECK(!region_contains(region, NULL) && !region_contains(region, &object), "not static data");
	CHECK(!region_contains(region, &local) && !region_contains(region, (void *)-16L), "nor others");
	region_reset(region);
	CHECK(region_contains(other, q), "another region's blocks stay");
	region_destroy(region);
	region_destroy(other);
	free(heap);
}

/* --- reset, release, destroy --- */

static void reset_keeps_buffers_and_uses_them_again(void)
{
	region_t *region = a_region();
	size_t before = 0;
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 3000; i++)
			block_of(region, 1000, (unsigned)i);
		CHECK(region_len(region) == 3000 * 1008, "length after a reset: %zu", region_len(region));
		region_reset(region);
		CHECK(region_cap(region) > 0, "buffers are kept");
		if (round == 10)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + MIB, "200 rounds take no more than ten: %zu, %zu",
	      probe_resident(), before);
	region_destroy(region);
}

static void reset_keeps_no_more_than_was_asked_for(void)
{
	static const size_t keeps[] = {256 << 10, MIB, 5 * MIB, 20 * MIB};
	for (int i = 0; i < 4; i++) {
		region_t *region = region_of((struct region_options){.keep_bytes = keeps[i]});
		for (int j = 0; j < 300; j++)
			block_of(region, 100000, 1);
		block_of(region, 30 * MIB, 1);
		region_reset(region);
		CHECK(region_cap(region) <= keeps[i], "at most %zu bytes are kept: %zu", keeps[i],
		      region_cap(region));
		region_is_sound(region);
		region_destroy(region);
	}
	region_t *region = a_region();
	for (int j = 0; j < 50; j++)
		block_of(region, MIB, 1);
	region_reset(region);
	CHECK(region_cap(region) <= 16 * MIB, "by default 16 MiB: %zu", region_cap(region));
	region_destroy(region);
}

static void reset_gives_memory_above_the_cap_back(void)
{
	region_t *region = region_of((struct region_options){.keep_bytes = MIB});
	for (int j = 0; j < 200; j++)
		block_of(region, MIB, 1);
	size_t full = probe_resident();
	region_reset(region);
	malloc_trim(0);
	CHECK(probe_resident() + 150 * MIB < full, "200 MiB went back: %zu of %zu are left",
	      probe_resident(), full);
	region_destroy(region);
}

static void release_gives_all_back(void)
{
	region_t *region = a_region();
	struct region_stats before, after;
	region_stats_read(&before);
	for (int j = 0; j < 100; j++)
		block_of(region, 100000, 1);
	region_release(region);
	malloc_trim(0);
	region_stats_read(&after);
	CHECK(after.mapped_bytes < before.mapped_bytes + 2 * MIB, "no span is left in use: %lu, %lu",
	      (long)before.mapped_bytes, (long)after.mapped_bytes);
	region_destroy(region);
	probe_heap_is_sound();
}

static void destroying_null_is_allowed(void)
{
	region_destroy(NULL);
}

static void a_million_regions_leave_nothing_behind(void)
{
	size_t before = 0;
	for (long i = 0, count = probe_count(300000); i < count; i++) {
		region_t *region = a_region();
		block_of(region, 40, 1);
		region_destroy(region);
		if (i == 1000)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 2 * MIB, "regions cost no memory once they have ended: %zu, %zu",
	      before, probe_resident());
}

static void ten_thousand_regions_live_at_once(void)
{
	enum { COUNT = 10000 };
	static region_t *regions[COUNT];
	static void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		regions[i] = a_region();
		blocks[i] = block_of(regions[i], 100, i);
	}
	for (unsigned i = 0; i < COUNT; i += 2)
		region_destroy(regions[i]);
	for (unsigned i = 1; i < COUNT; i += 2) {
		verify(blocks[i], 100, i);
		region_destroy(regions[i]);
	}
}

static void a_thousand_full_buffers_are_no_burden(void)
{
	region_t *region = region_of((struct region_options){.buffer_size = 65536, .growth = 100});
	for (int i = 0; i < 2000; i++)
		block_of(region, 32000, 1);
	double start = probe_seconds_now();
	for (int i = 0; i < 100000; i++)
		CHECK(region_alloc(region, 1000), "it serves");
	double last = probe_seconds_now() - start;
	region_destroy(region);
	region = a_region();
	start = probe_seconds_now();
	for (int i = 0; i < 100000; i++)
		CHECK(region_alloc(region, 1000), "it serves");
	double first = probe_seconds_now() - start;
	CHECK(last < 10 * first + 0.05, "100000 blocks take %f s, and %f s in an empty one", last, first);
	region_destroy(region);
}

/* --- options --- */

static void limited_region_is_served_by_the_heap(void)
{
	region_t *region =
		region_of((struct region_options){.limit_bytes = 128 << 10, .buffer_size = 65536});
	size_t before = 0;
	for (int round = 0; round < 100; round++) {
		void *blocks[100];
		for (unsigned i = 0; i < 100; i++)
			blocks[i] = block_of(region, 10000, i);
		for (unsigned i = 0; i < 100; i++)
			verify(blocks[i], 10000, i);
		CHECK(region_cap(region) <= 128 << 10, "it holds what it may: %zu", region_cap(region));
		region_reset(region);
		if (round == 10)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 2 * MIB, "what the heap served ends with the rest: %zu, %zu",
	      before, probe_resident());
	region_destroy(region);
}

static void buffers_grow_as_asked_for(void)
{
	region_t *small = region_of((struct region_options){.buffer_size = 65536, .growth = 100});
	region_t *fast = region_of((struct region_options){.buffer_size = 65536, .growth = 1000});
	for (int i = 0; i < 66; i++) {
		block_of(small, 1000, 1);
		block_of(fast, 1000, 1);
	}
	CHECK(region_cap(small) <= 2 * 65536, "growth 100 %% doesn't grow: %zu", region_cap(small));
	CHECK(region_cap(fast) >= 5 * 65536, "growth 1000 %% does: %zu", region_cap(fast));
	region_destroy(small);
	region_destroy(fast);
}

static void bad_options_are_made_good_ones(void)
{
	region_t *region = region_of((struct region_options){.buffer_size = SIZE_MAX, .buffer_count = 5000,
	                                                     .growth = 4000000000u, .keep_bytes = SIZE_MAX});
	region_is_sound(region);
	region_destroy(region);
	region = region_of((struct region_options){.buffer_size = 1, .growth = 1, .limit_bytes = 1,
	                                           .keep_bytes = 1});
	region_is_sound(region);
	region_reset(region);
	region_is_sound(region);
	region_destroy(region);
}

static void options_are_not_used_after_the_call(void)
{
	struct region_options options = {.name = "kept", .keep_bytes = MIB};
	region_t *region = region_create(&options);
	memset(&options, 0xff, sizeof(options));
	region_is_sound(region);
	region_reset(region);
	region_is_sound(region);
	region_destroy(region);
}

/* --- copies that outlive --- */

static void copies_out_outlive_the_region(void)
{
	region_t *region = a_region();
	void *small = block_of(region, 100, 1), *big = block_of(region, 3 * MIB, 2);
	void *one = region_copy_out_bytes(small, 100), *other = region_copy_out_bytes(big, 3 * MIB);
	CHECK(!region_contains(region, one) && !region_contains(region, other), "they aren't the region's");
	region_destroy(region);
	verify(one, 100, 1);
	verify(other, 3 * MIB, 2);
	free(one);
	free(other);
}

/* --- threads that take turns --- */

static void *fill_in_thread(void *region)
{
	region_is_sound(region);
	return block_of(region, 500, 7);
}

static void *make_in_thread(void *block)
{
	region_t *region = a_region();
	*(void **)block = block_of(region, 200, 3);
	return region;
}

static void *destroy_in_thread(void *region)
{
	region_destroy(region);
	return NULL;
}

static void threads_use_a_region_one_after_the_other(void)
{
	void *first, *second;
	region_t *region = in_thread(make_in_thread, &first);
	second = in_thread(fill_in_thread, region);
	verify(first, 200, 3);
	verify(second, 500, 7);
	region_is_sound(region);
	region_reset(region);
	in_thread(fill_in_thread, region);
	in_thread(destroy_in_thread, region);
	probe_heap_is_sound();
}

static void region_outlives_the_thread_that_made_it_again_and_again(void)
{
	size_t before = 0;
	for (int i = 0; i < 2000; i++) {
		void *block;
		region_t *region = in_thread(make_in_thread, &block);
		verify(block, 200, 3);
		region_destroy(region);
		if (i == 100)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 2 * MIB, "nothing is left behind: %zu, %zu", before,
	      probe_resident());
}

static void exit_with_regions_works(void)
{
	region_t *region = a_region();
	region_is_sound(region);
	region_create(&(struct region_options){.parent = region});
	region_create(&(struct region_options){.shared = 1});
	exit(0);
}

const struct probe_case probe_cases[] = {
	CASE(blocks_of_all_sizes_are_aligned_and_whole),
	CASE(blocks_of_zero_bytes_are_unique),
	CASE(calloc_is_zero_whatever_was_there),
	CASE(memalign_aligns_to_every_power_of_two),
	CASE(memalign_rejects_what_is_no_power_of_two),
	CASE(sizes_beyond_the_address_space_fail_with_enomem),
	CASE(copies_are_made),
	CASE(newest_block_grows_where_it_is),
	CASE(older_block_is_copied_when_it_grows),
	CASE(realloc_keeps_contents_between_all_borders),
	CASE(shrinking_stays_where_it_is),
	CASE(realloc_to_zero_gives_the_newest_back),
	CASE(len_counts_blocks_in_steps_of_16),
	CASE(peak_is_the_most_since_the_last_reset),
	CASE(contains_answers_for_any_pointer),
	CASE(reset_keeps_buffers_and_uses_them_again),
	CASE(reset_keeps_no_more_than_was_asked_for),
	CASE(reset_gives_memory_above_the_cap_back),
	CASE(release_gives_all_back),
	CASE(destroying_null_is_allowed),
	CASE(a_million_regions_leave_nothing_behind),
	CASE(ten_thousand_regions_live_at_once),
	CASE(a_thousand_full_buffers_are_no_burden),
	CASE(limited_region_is_served_by_the_heap),
	CASE(buffers_grow_as_asked_for),
	CASE(bad_options_are_made_good_ones),
	CASE(options_are_not_used_after_the_call),
	CASE(copies_out_outlive_the_region),
	CASE(threads_use_a_region_one_after_the_other),
	CASE(region_outlives_the_thread_that_made_it_again_and_again),
	CASE(exit_with_regions_works),
	{0},
};
