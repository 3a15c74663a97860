/*
 * counted.c: slabs of counted blocks: references, chains, locations, statistics, and where memory goes.
 */
#include <errno.h>
#include <stdlib.h>

#include "scopes/counted.h"
#include "unit.h"

static struct region_slab_stats stats_of_slabs(region_slabs_t *slabs)
{
	struct region_slab_stats stats;

	region_slab_stats_read(slabs, &stats);
	return stats;
}

/* A backing that counts, and may be out of memory. */
static struct {
	size_t allocs, frees, bytes;
	bool is_out;
} backed;

static void *backed_alloc(size_t bytes, void *arg)
{
	require(arg == &backed, "%p", arg);
	if (backed.is_out)
		return NULL;
	backed.allocs++;
	backed.bytes += bytes;
	return aligned_alloc(16, bytes);
}

static void backed_free(void *p, size_t bytes, void *arg)
{
	require(arg == &backed, "%p", arg);
	backed.frees++;
	backed.bytes -= bytes;
	free(p);
}

static const struct region_slab_backing counting = {backed_alloc, backed_free, &backed};

Test(counted, blocks_of_all_sizes_are_apart_and_hold_their_bytes)
{
	char *blocks[3000];

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(1, 4096, 1.1, NULL);
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		size_t size = i * 7 % 9000;
		blocks[i] = region_slab_alloc(slabs, size);
		require(blocks[i] && (uintptr_t)blocks[i] % 16 == 0, "%zu", size);
		require(region_slab_size(slabs, blocks[i]) >= size, "%zu", size);
		memset(blocks[i], (int)i, size);
	}
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		for (size_t j = 0; j < i * 7 % 9000; j++)
			require(blocks[i][j] == (char)i, "block %zu", i);
		require(region_slab_dec_ref(slabs, blocks[i]) == 1, "block %zu", i);
	}
	struct region_slab_stats stats = stats_of_slabs(slabs);
	require(stats.blocks_in_use == 0 && stats.dec_ref_zeroes == 3000 && stats.too_big > 1000, "%zu",
	        (size_t)stats.too_big);
	region_slab_destroy(slabs);
}

Test(counted, a_block_lives_as_long_as_its_references)
{
	scopes_begin();
	region_slabs_t *slabs = region_slab_create(0, 0, 0, NULL);
	char *p = region_slab_alloc(slabs, 100);
	region_slab_add_ref(slabs, p);
	region_slab_add_ref(slabs, p + 50);
	require(region_slab_refs(slabs, p) == 3, "%u", region_slab_refs(slabs, p));
	require(!region_slab_dec_ref(slabs, p) && !region_slab_dec_ref(slabs, p), "too early");
	require(region_slab_owns(slabs, p) && region_slab_owns(slabs, p + 99), "owned");
	require(!region_slab_owns(slabs, slabs) && !region_slab_owns(slabs, NULL), "foreign");
	require(region_slab_dec_ref(slabs, p + 99) == 1, "too late");
	require(!region_slab_owns(slabs, p), "still owned");
	region_slab_destroy(slabs);
}

Test(counted, the_references_of_a_chain_cascade)
{
	void *blocks[1000];

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 4096, 1.5, NULL);
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		blocks[i] = region_slab_alloc(slabs, 16 + i);
		if (i == 0)
			continue;
		region_slab_set_next(slabs, blocks[i], blocks[i - 1]);
		require(region_slab_dec_ref(slabs, blocks[i - 1]) == 0, "%zu", i);
	}
	void *behind = region_slab_get_next(slabs, blocks[999]);
	require(behind == blocks[998] && region_slab_refs(slabs, behind) == 2, "%p", behind);
	require(region_slab_dec_ref(slabs, blocks[999]) == 1, "the first");
	require(stats_of_slabs(slabs).blocks_in_use == 999, "%zu", (size_t)stats_of_slabs(slabs).blocks_in_use);
	/* Cut in the middle: only what is behind goes. */
	region_slab_add_ref(slabs, blocks[500]);
	region_slab_set_next(slabs, blocks[500], NULL);
	require(stats_of_slabs(slabs).blocks_in_use == 499, "%zu", (size_t)stats_of_slabs(slabs).blocks_in_use);
	require(region_slab_get_next(slabs, blocks[500]) == NULL, "chained");
	require(region_slab_dec_ref(slabs, behind) == 1, "the second");
	require(region_slab_refs(slabs, blocks[500]) == 1, "%u", region_slab_refs(slabs, blocks[500]));
	region_slab_dec_ref(slabs, blocks[500]);
	require(stats_of_slabs(slabs).blocks_in_use == 0, "%zu", (size_t)stats_of_slabs(slabs).blocks_in_use);
	region_slab_destroy(slabs);
}

Test(counted, locations_lead_back_and_go_with_their_slab)
{
	char *blocks[500];
	struct region_slab_loc locs[500];

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 1024, 2, NULL);
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		blocks[i] = region_slab_alloc(slabs, 64 + i % 200);
		locs[i] = region_slab_loc_of(slabs, blocks[i] + i % 64);
	}
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		require(region_slab_ptr_of(slabs, locs[i]) == blocks[i] + i % 64, "%zu", i);
	require(region_slab_ptr_of(slabs, (struct region_slab_loc){0}) == NULL, "none");
	require(region_slab_ptr_of(slabs, (struct region_slab_loc){.slab = 100000, .serial = 1}) == NULL, "none");
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		region_slab_dec_ref(slabs, blocks[i]);
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		require(region_slab_ptr_of(slabs, locs[i]) == NULL, "%zu", i);
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		region_slab_alloc(slabs, 600);
	size_t stale = 0;
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		stale += region_slab_ptr_of(slabs, locs[i]) != NULL;
	require(stale < 40, "%zu locations of slabs that are gone", stale);
	region_slab_destroy(slabs);
}

Test(counted, slabs_are_given_back_and_memory_moves_between_classes)
{
	void *blocks[1000];

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 64 << 10, 2, &counting);
	for (size_t size = 64; size <= 32 << 10; size *= 2) {
		for (size_t i = 0; i < COUNT_OF(blocks); i++)
			require((blocks[i] = region_slab_alloc(slabs, size)) != NULL, "%zu", size);
		for (size_t i = 0; i < COUNT_OF(blocks); i++)
			region_slab_dec_ref(slabs, blocks[i]);
		/* One of the class, and 16 spare ones at most, which the next class takes. */
		require(backed.allocs - backed.frees <= 17, "%zu: %zu slabs", size, backed.allocs - backed.frees);
	}
	require(backed.allocs <= 2 + 2 * 500, "%zu slabs", backed.allocs);
	struct region_slab_stats stats = stats_of_slabs(slabs);
	require(stats.slab_allocs == backed.allocs && stats.slab_frees == backed.frees, "%zu, %zu",
	        (size_t)stats.slab_allocs, backed.allocs);
	require(stats.slab_bytes == backed.bytes && stats.blocks_in_use == 0, "%zu", backed.bytes);
	/* One block at a time doesn't make a slab at a time. */
	size_t before = backed.allocs;
	for (size_t i = 0; i < 1000; i++)
		region_slab_dec_ref(slabs, region_slab_alloc(slabs, 64));
	require(backed.allocs <= before + 1, "%zu slabs", backed.allocs - before);
	region_slab_destroy(slabs);
	require(backed.allocs == backed.frees && backed.bytes == 0, "%zu", backed.bytes);
}

Test(counted, a_backing_without_memory_is_an_error_and_no_more)
{
	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 1024, 2, &counting);
	backed.is_out = true;
	errno = 0;
	require(!region_slab_alloc(slabs, 64) && errno == ENOMEM, "%d", errno);
	size_t errors = stats_of_slabs(slabs).slab_alloc_errors;
	require(errors == 1, "%zu", errors);
	backed.is_out = false;
	require(region_slab_alloc(slabs, 64) != NULL, "again");
	region_slab_destroy(slabs);
}

Test(counted, more_references_than_can_be_counted_are_refused)
{
	static struct capture capture;
	struct counted_slab *slab;

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 1024, 2, NULL);
	void *p = region_slab_alloc(slabs, 10), *before = region_slab_alloc(slabs, 10);
	region_slab_set_next(slabs, before, p);
	counted_find(slabs, p, &slab)->refs = UINT32_MAX - 1;
	region_slab_add_ref(slabs, p);
	capture_begin(&capture);
	region_slab_add_ref(slabs, p);
	region_slab_set_next(slabs, before, p);
	require(region_slab_get_next(slabs, before) == NULL, "get_next");
	const char *lines = capture_end(&capture);
	require(count_lines(lines) == 3 && strstr(lines, "can't have more"), "%s", lines);
	require(region_slab_refs(slabs, p) == UINT32_MAX, "%u", region_slab_refs(slabs, p));
	require(region_slab_dec_ref(slabs, p) == 0 && region_slab_owns(slabs, p), "it goes on");
	region_slab_destroy(slabs);
}

Test(counted, a_program_with_another_layout_calls)
{
	scopes_begin();
	region_slabs_t *slabs = region_slab_create_for(REGION_SLABS_VERSION + 1, 64, 1024, 2, NULL);
	void *p = region_slab_alloc(slabs, 10);
	region_slab_add_ref_slow(slabs, p);
	for (unsigned i = 0; i < REGION_SLABS_NEAR_; i++)
		require(slabs->head.near[i]->used_bytes == 0, "%u", i);
	require(!region_slab_dec_ref_slow(slabs, p) && region_slab_dec_ref_slow(slabs, p), "references");
	region_slab_destroy(slabs);
}

Test(counted, settings_that_make_no_sense_are_refused)
{
	static const struct {
		size_t block, slab;
		double growth;
	} rows[] = {{2048, 1024, 2}, {64, 1024, 1.0}, {64, 1024, 0.5}, {64, (size_t)1 << 40, 2}, {64, 1024, 1e9}};

	scopes_begin();
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		errno = 0;
		region_slabs_t *slabs = region_slab_create(rows[i].block, rows[i].slab, rows[i].growth, NULL);
		require(!slabs && errno == EINVAL, "row %zu", i);
	}
}

Test(counted, misuse_is_one_line_each)
{
	static struct capture capture;
	int on_stack;

	scopes_begin();
	region_slabs_t *slabs = region_slab_create(64, 1024, 2, NULL);
	void *kept = region_slab_alloc(slabs, 10);
	for (int row = 0; row < 6; row++) {
		void *ended = region_slab_alloc(slabs, 10);
		region_slab_dec_ref(slabs, ended);
		capture_begin(&capture);
		switch (row) {
		case 0: require(region_slab_dec_ref(slabs, ended) == 0, "0"); break;
		case 1: region_slab_add_ref(slabs, ended); break;
		case 2: region_slab_set_next(slabs, kept, ended); break;
		case 3: region_slab_dec_ref(slabs, &on_stack); break;
		case 4: require(region_slab_get_next(slabs, &on_stack) == NULL, "4"); break;
		case 5: require(region_slab_loc_of(slabs, ended).slab == 0, "5"); break;
		}
		const char *line = capture_end(&capture);
		const char *says = row == 3 || row == 4 ? "not a block of these slabs" : "no references left";
		require(count_lines(line) == 1 && strstr(line, says), "row %d: %s", row, line);
	}
	require(region_slab_refs(slabs, kept) == 1, "%u", region_slab_refs(slabs, kept));
	region_slab_destroy(slabs);
	capture_begin(&capture);
	region_slab_destroy(slabs);
	const char *line = capture_end(&capture);
	require(count_lines(line) == 1 && strstr(line, "have been destroyed"), "%s", line);
}
