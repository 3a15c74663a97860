/*
 * slabs.c: blocks with counted references: counts, chains, locations, statistics, and where slabs come
 * from and go to.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static region_slabs_t *slabs_of(size_t block_size, size_t slab_size, double growth)
{
	region_slabs_t *slabs = region_slab_create(block_size, slab_size, growth, NULL);
	CHECK(slabs, "slabs are made");
	return slabs;
}

static void *slab_block(region_slabs_t *slabs, size_t size, unsigned seed)
{
	void *p = region_slab_alloc(slabs, size);
	CHECK(p, "region_slab_alloc(%zu) serves", size);
	CHECK((uintptr_t)p % 16 == 0, "it aligns to 16: %p", p);
	CHECK(region_slab_size(slabs, p) >= size, "%zu bytes are %zu", size, region_slab_size(slabs, p));
	CHECK(region_slab_refs(slabs, p) == 1, "it has one reference");
	probe_fill(p, size, seed);
	return p;
}

static struct region_slab_stats stats_of(region_slabs_t *slabs)
{
	struct region_slab_stats stats;
	region_slab_stats_read(slabs, &stats);
	return stats;
}

static void nothing_is_in_use(region_slabs_t *slabs)
{
	struct region_slab_stats stats = stats_of(slabs);
	CHECK(stats.blocks_in_use == 0, "no block is in use: %lu", (long)stats.blocks_in_use);
	CHECK(stats.allocs == stats.dec_ref_zeroes, "all that were made have ended: %lu, %lu",
	      (long)stats.allocs, (long)stats.dec_ref_zeroes);
}

static void blocks_of_all_sizes_are_whole(void)
{
	static const double growths[] = {0, 1.1, 1.25, 2, 10};
	for (int g = 0; g < 5; g++) {
		region_slabs_t *slabs = slabs_of(g ? 1 : 0, g ? 1024 : 0, growths[g]);
		void *blocks[3000];
		for (unsigned i = 0; i < 3000; i++)
			blocks[i] = slab_block(slabs, i, i);
		for (unsigned i = 0; i < 3000; i++) {
			verify(blocks[i], i, i);
			CHECK(region_slab_dec_ref(slabs, blocks[i]) == 1, "one reference less ends it");
		}
		nothing_is_in_use(slabs);
		region_slab_destroy(slabs);
	}
	probe_heap_is_sound();
}

static void references_are_counted(void)
{
	region_slabs_t *slabs = slabs_of(0, 0, 0);
	char *p = slab_block(slabs, 100, 1);
	for (unsigned i = 2; i <= 1000; i++) {
		region_slab_add_ref(slabs, p);
		CHECK(region_slab_refs(slabs, p) == i, "%u references: %u", i, region_slab_refs(slabs, p));
	}
	for (unsigned i = 999; i > 0; i--)
		CHECK(region_slab_dec_ref(slabs, p) == 0 && region_slab_refs(slabs, p) == i, "%u are left: %u", i,
		      region_slab_refs(slabs, p));
	verify(p, 100, 1);
	CHECK(region_slab_dec_ref(slabs, p) == 1, "the last one ends it");
	CHECK(!region_slab_owns(slabs, p), "it isn't in use any more");
	region_slab_destroy(slabs);
}

static void pointers_into_a_block_do(void)
{
	region_slabs_t *slabs = slabs_of(64, 4096, 2);
	static const size_t sizes[] = {1, 64, 1000, 4096, 100000};
	for (int i = 0; i < 5; i++) {
		char *p = slab_block(slabs, sizes[i], 1), *inside = p + sizes[i] - 1;
		region_slab_add_ref(slabs, inside);
		CHECK(region_slab_refs(slabs, p) == 2, "add_ref inside of %zu bytes", sizes[i]);
		CHECK(region_slab_owns(slabs, inside), "owns inside of %zu bytes", sizes[i]);
		CHECK(region_slab_size(slabs, inside) == region_slab_size(slabs, p), "size");
		CHECK(region_slab_dec_ref(slabs, inside) == 0, "dec_ref");
		CHECK(region_slab_dec_ref(slabs, inside) == 1, "dec_ref");
	}
	nothing_is_in_use(slabs);
	region_slab_destroy(slabs);
}

static void owns_answers_for_any_pointer(void)
{
	static int object;
	int local;
	region_slabs_t *slabs = slabs_of(0, 0, 0), *other = slabs_of(0, 0, 0);
	char *p = slab_block(slabs, 100, 1), *q = slab_block(other, 100, 1);
	region_t *region = a_region();
	void *heap = malloc(100);
	CHECK(region_slab_owns(slabs, p) == 1 && region_slab_owns(other, q) == 1, "its own");
	CHECK(!region_slab_owns(slabs, q) && !region_slab_owns(other, p), "not those of others");
	CHECK(!region_slab_owns(slabs, heap) && !region_slab_owns(slabs, block_of(region, 100, 1)),
	      "not the heap's or a region's");
	CHECK(!region_slab_owns(slabs, NULL) && !region_slab_owns(slabs, &object), "not static data");
	CHECK(!region_slab_owns(slabs, &local) && !region_slab_owns(slabs, (void *)-16L), "nor others");
	CHECK(!region_slab_owns(slabs, p + 300000), "nor what was never handed out");
	region_slab_destroy(slabs);
	region_slab_destroy(other);
	region_destroy(region);
	free(heap);
}

/* --- chains --- */

static void chains_end_with_their_first_block(void)
{
	enum { LENGTH = 1000000 };
	region_slabs_t *slabs = slabs_of(16, 0, 0);
	void *first = region_slab_alloc(slabs, 16), *last = first;
	for (int i = 1; i < LENGTH; i++) {
		void *next = region_slab_alloc(slabs, 16);
		region_slab_set_next(slabs, last, next);
		region_slab_dec_ref(slabs, next); /* the chain's reference stays */
		last = next;
	}
	CHECK(stats_of(slabs).blocks_in_use == LENGTH, "the chain holds them");
	CHECK(region_slab_dec_ref(slabs, first) == 1, "it ends");
	nothing_is_in_use(slabs);
	region_slab_destroy(slabs);
}

static void set_next_refers_to_the_next_and_lets_go_of_the_last(void)
{
	region_slabs_t *slabs = slabs_of(0, 0, 0);
	void *p = slab_block(slabs, 100, 1), *q = slab_block(slabs, 100, 2), *s = slab_block(slabs, 100, 3);
	region_slab_set_next(slabs, p, q);
	CHECK(region_slab_refs(slabs, q) == 2, "the next has a reference more");
	region_slab_set_next(slabs, p, q);
	CHECK(region_slab_refs(slabs, q) == 2, "setting the same again changes nothing: %u",
	      region_slab_refs(slabs, q));
	region_slab_set_next(slabs, p, s);
	CHECK(region_slab_refs(slabs, q) == 1 && region_slab_refs(slabs, s) == 2, "another takes its place");
	region_slab_set_next(slabs, p, NULL);
	CHECK(region_slab_refs(slabs, s) == 1, "NULL takes it off");
	region_slab_set_next(slabs, p, q);
	CHECK(region_slab_dec_ref(slabs, q) == 0, "the chain holds the last reference");
	region_slab_set_next(slabs, p, NULL);
	CHECK(!region_slab_owns(slabs, q), "it ends when it is taken off");
	verify(p, 100, 1);
	verify(s, 100, 3);
	region_slab_destroy(slabs);
}

static void get_next_gives_a_reference(void)
{
	region_slabs_t *slabs = slabs_of(0, 0, 0);
	char *p = slab_block(slabs, 100, 1), *q = slab_block(slabs, 100, 2);
	CHECK(!region_slab_get_next(slabs, p), "nothing is behind a new block");
	region_slab_set_next(slabs, p + 50, q);
	CHECK(region_slab_get_next(slabs, p) == q, "it gives the next");
	CHECK(region_slab_refs(slabs, q) == 3, "which has a reference more");
	region_slab_dec_ref(slabs, q);
	region_slab_dec_ref(slabs, q);
	CHECK(region_slab_dec_ref(slabs, p) == 1, "the first ends");
	nothing_is_in_use(slabs);
	CHECK(!region_slab_get_next(slabs, slab_block(slabs, 100, 1)), "a block used again is in no chain");
	region_slab_destroy(slabs);
}

static void blocks_may_be_in_several_chains(void)
{
	region_slabs_t *slabs = slabs_of(0, 0, 0);
	void *shared = slab_block(slabs, 100, 1), *heads[10];
	for (int i = 0; i < 10; i++) {
		heads[i] = slab_block(slabs, 10, 2);
		region_slab_set_next(slabs, heads[i], shared);
	}
	region_slab_dec_ref(slabs, shared);
	for (int i = 0; i < 9; i++) {
		region_slab_dec_ref(slabs, heads[i]);
		verify(shared, 100, 1);
	}
	region_slab_dec_ref(slabs, heads[9]);
	nothing_is_in_use(slabs);
	region_slab_destroy(slabs);
}

/* --- locations --- */

static void locations_lead_back(void)
{
	region_slabs_t *slabs = slabs_of(1, 4096, 1.5);
	static const struct region_slab_loc nowhere;
	for (size_t size = 1; size < 20000; size = size * 2 + 1)
		for (int i = 0; i < 50; i++) {
			char *p = slab_block(slabs, size, 1);
			for (size_t offset = 0; offset < size; offset += size / 3 + 1) {
				struct region_slab_loc loc = region_slab_loc_of(slabs, p + offset);
				CHECK(region_slab_ptr_of(slabs, loc) == p + offset, "offset %zu of %zu", offset, size);
				CHECK(memcmp(&loc, &nowhere, sizeof(loc)) != 0, "a location isn't all zero");
			}
			CHECK(region_slab_refs(slabs, p) == 1, "it adds no reference");
		}
	struct region_slab_loc loc = region_slab_loc_of(slabs, NULL);
	CHECK(memcmp(&loc, &nowhere, sizeof(loc)) == 0, "NULL's is all zero");
	CHECK(!region_slab_ptr_of(slabs, nowhere), "and leads to NULL");
	region_slab_destroy(slabs);
}

static void locations_of_slabs_given_back_lead_nowhere(void)
{
	enum { COUNT = 8000 };
	region_slabs_t *slabs = slabs_of(64, 4096, 2);
	static void *blocks[COUNT];
	static struct region_slab_loc locs[COUNT];
	for (int i = 0; i < COUNT; i++) {
		blocks[i] = slab_block(slabs, 200, 1);
		locs[i] = region_slab_loc_of(slabs, blocks[i]);
	}
	for (int i = 0; i < COUNT; i++)
		region_slab_dec_ref(slabs, blocks[i]);
	CHECK(stats_of(slabs).slab_frees > 0, "slabs are given back");
	for (int i = 0; i < COUNT; i++)
		slab_block(slabs, 900, 2); /* other blocks where these were */
	int found = 0;
	for (int i = 0; i < COUNT; i++)
		found += region_slab_ptr_of(slabs, locs[i]) != NULL;
	CHECK(found <= 4096 / 200, "but for the slab that was kept they lead nowhere: %d", found);
	region_slab_destroy(slabs);
}

/* --- where slabs come from, and go --- */

static struct {
	size_t taken, returned; /* bytes */
	long calls;
	long refuse_from; /* the call that fails, and those after it; 0: none */
	void *arg;
} backing;

static void *back_alloc(size_t bytes, void *arg)
{
	backing.arg = arg;
	if (++backing.calls >= backing.refuse_from && backing.refuse_from)
		return NULL;
	backing.taken += bytes;
	return malloc(bytes);
}

static void back_free(void *p, size_t bytes, void *arg)
{
	CHECK(arg == backing.arg, "the argument is passed on");
	backing.returned += bytes;
	memset(p, 0xdd, bytes);
	free(p);
}

static region_slabs_t *backed_slabs(void)
{
	struct region_slab_backing calls = {back_alloc, back_free, &backing};
	region_slabs_t *slabs = region_slab_create(16, 8192, 1.5, &calls);
	CHECK(slabs, "slabs are made");
	memset(&calls, 0xff, sizeof(calls));
	return slabs;
}

static void slabs_come_from_the_program_s_backing(void)
{
	region_slabs_t *slabs = backed_slabs();
	void *blocks[1000];
	for (unsigned i = 0; i < 1000; i++)
		blocks[i] = slab_block(slabs, i * 20, i);
	CHECK(backing.taken >= 1000 * 999 / 2 * 20, "all memory comes from there: %zu", backing.taken);
	CHECK(stats_of(slabs).slab_bytes == backing.taken, "and is counted: %lu, %zu",
	      (long)stats_of(slabs).slab_bytes, backing.taken);
	for (unsigned i = 0; i < 1000; i++)
		verify(blocks[i], i * 20, i);
	for (unsigned i = 0; i < 1000; i += 2)
		region_slab_dec_ref(slabs, blocks[i]);
	CHECK(backing.arg == &backing, "with the argument");
	region_slab_destroy(slabs);
	CHECK(backing.taken == backing.returned, "all of it goes back: %zu, %zu", backing.taken,
	      backing.returned);
	probe_heap_is_sound();
}

static void a_backing_that_has_no_more_is_enomem(void)
{
	region_slabs_t *slabs = backed_slabs();
	void *p = slab_block(slabs, 100, 1);
	backing.refuse_from = backing.calls + 1;
	errno = 0;
	CHECK(!region_slab_alloc(slabs, 100000) && errno == ENOMEM, "a large block: errno %d", errno);
	int count = 0;
	errno = 0;
	while (region_slab_alloc(slabs, 100))
		count++;
	CHECK(errno == ENOMEM && count < 100, "small ones, after %d: errno %d", count, errno);
	CHECK(stats_of(slabs).slab_alloc_errors >= 2, "it is counted");
	verify(p, 100, 1);
	backing.refuse_from = 0;
	verify(slab_block(slabs, 100, 2), 100, 2);
	region_slab_destroy(slabs);
	CHECK(backing.taken == backing.returned, "all of it goes back");
}

static void memory_moves_between_sizes(void)
{
	region_slabs_t *slabs = slabs_of(16, 65536, 2);
	static void *blocks[10000];
	uint64_t most = 0;
	for (unsigned round = 0; round < 10; round++) {
		size_t size = (size_t)40 << round % 5, count = 400000 / size;
		for (size_t i = 0; i < count; i++)
			blocks[i] = slab_block(slabs, size, round);
		if (stats_of(slabs).slab_bytes > most)
			most = stats_of(slabs).slab_bytes;
		for (size_t i = 0; i < count; i++)
			region_slab_dec_ref(slabs, blocks[i]);
	}
	CHECK(most < 2 * MIB, "no round takes more than a few times its 400000 bytes: %lu", (long)most);
	CHECK(stats_of(slabs).slab_bytes <= (8 + 16) * 65536, "one slab a size is kept, and a few: %lu",
	      (long)stats_of(slabs).slab_bytes);
	region_slab_destroy(slabs);
}

/* A slab that was full has a free block again: it serves before a new slab does. */
static void a_block_of_a_full_slab_serves_again(void)
{
	enum { COUNT = 65536 / 64 };
	region_slabs_t *slabs = slabs_of(64, 65536, 2);
	static void *blocks[2 * COUNT];
	for (int i = 0; i < 2 * COUNT - 1; i++)
		blocks[i] = slab_block(slabs, 64, 1);
	CHECK(stats_of(slabs).slabs == 2, "two slabs: %lu", (long)stats_of(slabs).slabs);
	region_slab_dec_ref(slabs, blocks[5]);
	void *p = slab_block(slabs, 64, 1), *q = slab_block(slabs, 64, 1);
	CHECK(p == blocks[5] || q == blocks[5], "what was free is taken");
	CHECK(stats_of(slabs).slabs == 2, "still two: %lu", (long)stats_of(slabs).slabs);
	region_slab_destroy(slabs);
}

static void slabs_come_and_go_without_a_trace(void)
{
	size_t before = 0;
	for (int i = 0; i < 20000; i++) {
		region_slabs_t *slabs = slabs_of(16, 4096, 2);
		slab_block(slabs, 100, 1);
		slab_block(slabs, 50000, 1);
		region_slab_destroy(slabs);
		if (i == 1000)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 2 * MIB, "nothing is left behind: %zu, %zu", before,
	      probe_resident());
}

static void bad_shapes_are_einval(void)
{
	errno = 0;
	CHECK(!region_slab_create(64, 4096, 1, NULL) && errno == EINVAL, "growth 1: errno %d", errno);
	errno = 0;
	CHECK(!region_slab_create(64, 4096, -2, NULL) && errno == EINVAL, "growth -2: errno %d", errno);
	errno = 0;
	CHECK(!region_slab_create(64, 4096, __builtin_nan(""), NULL) && errno == EINVAL, "no number");
	errno = 0;
	CHECK(!region_slab_create(8192, 4096, 2, NULL) && errno == EINVAL, "blocks above slabs");
}

static void statistics_tell_what_was_done(void)
{
	region_slabs_t *slabs = slabs_of(16, 4096, 2);
	void *p = slab_block(slabs, 100, 1), *q = slab_block(slabs, 200, 1), *big = slab_block(slabs, 5000, 1);
	region_slab_add_ref(slabs, p);
	region_slab_set_next(slabs, p, q);
	region_slab_get_next(slabs, p);
	region_slab_dec_ref(slabs, big);
	region_slab_dec_ref(slabs, p);
	struct region_slab_stats s = stats_of(slabs);
	CHECK(s.allocs == 3, "allocs: %lu", (long)s.allocs);
	CHECK(s.add_refs == 3, "add_refs: %lu", (long)s.add_refs);
	CHECK(s.dec_refs == 2, "dec_refs: %lu", (long)s.dec_refs);
	CHECK(s.dec_ref_zeroes == 1, "dec_ref_zeroes: %lu", (long)s.dec_ref_zeroes);
	CHECK(s.set_nexts == 1 && s.get_nexts == 1, "chains: %lu, %lu", (long)s.set_nexts, (long)s.get_nexts);
	CHECK(s.too_big == 1, "too_big: %lu", (long)s.too_big);
	CHECK(s.slab_allocs == 3 && s.slab_frees == 1, "slabs: %lu, %lu", (long)s.slab_allocs,
	      (long)s.slab_frees);
	CHECK(s.slabs == 2 && s.blocks_in_use == 2 && s.blocks >= 2, "now: %lu, %lu, %lu", (long)s.slabs,
	      (long)s.blocks_in_use, (long)s.blocks);
	region_slab_destroy(slabs);
}

/* --- threads --- */

static region_slabs_t *common;
static void *shared_block;

static void *refer(void *number)
{
	unsigned seed = *(unsigned *)number;
	for (int i = 0; i < 20000; i++) {
		region_slab_add_ref(common, shared_block);
		size_t size = 1 + (seed * 7 + (unsigned)i) % 600;
		void *p = slab_block(common, size, seed);
		region_slab_set_next(common, p, shared_block);
		verify(p, size, seed);
		region_slab_dec_ref(common, p);
		CHECK(region_slab_dec_ref(common, shared_block) == 0, "others hold it");
	}
	return NULL;
}

static void threads_share_slabs_and_blocks(void)
{
	pthread_t threads[6];
	unsigned numbers[6];
	common = slabs_of(16, 4096, 1.25);
	shared_block = slab_block(common, 100, 1);
	for (unsigned i = 0; i < 6; i++) {
		numbers[i] = i;
		CHECK(pthread_create(&threads[i], NULL, refer, &numbers[i]) == 0, "a thread starts");
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	CHECK(region_slab_refs(common, shared_block) == 1, "all references went away: %u",
	      region_slab_refs(common, shared_block));
	verify(shared_block, 100, 1);
	region_slab_dec_ref(common, shared_block);
	nothing_is_in_use(common);
	region_slab_destroy(common);
}

static void a_forked_child_goes_on_with_its_slabs(void)
{
	region_slabs_t *slabs = slabs_of(0, 0, 0);
	void *p = slab_block(slabs, 100, 1);
	pid_t child = fork();
	verify(p, 100, 1);
	for (unsigned i = 0; i < 1000; i++)
		slab_block(slabs, i, i);
	CHECK(region_slab_dec_ref(slabs, p) == 1, "it ends in each");
	region_slab_destroy(slabs);
	if (child == 0)
		_exit(0);
	CHECK(probe_wait_child(child, 10) == 0, "the child does well");
}

const struct probe_case probe_cases[] = {
	CASE(blocks_of_all_sizes_are_whole),
	CASE(references_are_counted),
	CASE(pointers_into_a_block_do),
	CASE(owns_answers_for_any_pointer),
	CASE(chains_end_with_their_first_block),
	CASE(set_next_refers_to_the_next_and_lets_go_of_the_last),
	CASE(get_next_gives_a_reference),
	CASE(blocks_may_be_in_several_chains),
	CASE(locations_lead_back),
	CASE(locations_of_slabs_given_back_lead_nowhere),
	CASE(slabs_come_from_the_program_s_backing),
	CASE(a_backing_that_has_no_more_is_enomem),
	CASE(memory_moves_between_sizes),
	CASE(a_block_of_a_full_slab_serves_again),
	CASE(slabs_come_and_go_without_a_trace),
	CASE(bad_shapes_are_einval),
	CASE(statistics_tell_what_was_done),
	CASE(threads_share_slabs_and_blocks),
	CASE(a_forked_child_goes_on_with_its_slabs),
	{0},
};
