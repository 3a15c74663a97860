/*
 * within.c: region_within(): a region is current for a call, so that malloc() fills it; what becomes of
 * these blocks; and how it goes together with scopes and with itself.
 */
#define _GNU_SOURCE
#include "within.h"

#include <malloc.h>
#include <stdio.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- what it does --- */

static void allocate_all_ways(void *unused)
{
	(void)unused;
	blocks[0] = probe_block(100, 0);
	blocks[1] = calloc(10, 10);
	blocks[2] = realloc(NULL, 100);
	blocks[3] = aligned_alloc(64, 128);
	blocks[4] = strdup("by libc");
	CHECK(asprintf((char **)&blocks[5], "%d", 42) == 2, "asprintf works");
	blocks[6] = probe_block(20000, 6);
	for (int i = 0; i < 7; i++)
		is_in(r, blocks[i], "what malloc and its kin give inside");
}

static void malloc_takes_from_the_region(void)
{
	r = a_region();
	region_within(r, allocate_all_ways, NULL);
	malloc_is_the_heap_s();
	verify(blocks[0], 100, 0);
	verify(blocks[6], 20000, 6);
	CHECK(strcmp(blocks[4], "by libc") == 0, "blocks stay after the call");
	CHECK(region_len(r) >= 20600, "they are counted: %zu", region_len(r));
	region_reset(r);
	region_within(r, allocate_all_ways, NULL);
	region_destroy(r);
	probe_heap_is_sound();
}

static void add_a_block(void *number)
{
	unsigned i = *(unsigned *)number;
	blocks[i] = probe_block(10 + i * 7, i);
}

static void calls_fill_it_one_after_the_other(void)
{
	r = a_region();
	for (unsigned i = 0; i < 1000; i++) {
		region_within(r, add_a_block, &i);
		void *own = block_of(r, 50, i);
		void *heap = probe_block(50, i);
		is_not_in(r, heap, "a block of the heap");
		verify(own, 50, i);
		free(heap);
	}
	for (unsigned i = 0; i < 1000; i++) {
		is_in(r, blocks[i], "each block");
		verify(blocks[i], 10 + i * 7, i);
	}
	region_destroy(r);
}

static void mix_both(void *unused)
{
	void *own[200], *given[200];
	(void)unused;
	for (unsigned i = 0; i < 200; i++) {
		size_t size = i % 50 == 49 ? 50000 : 1 + i * 11;
		own[i] = block_of(r, size, i);
		given[i] = probe_block(size, i + 1000);
		if (i % 3 == 0) {
			free(given[i]);
			given[i] = NULL;
		}
	}
	for (unsigned i = 0; i < 200; i++) {
		size_t size = i % 50 == 49 ? 50000 : 1 + i * 11;
		verify(own[i], size, i);
		if (given[i])
			verify(given[i], size, i + 1000);
	}
}

static void region_alloc_and_malloc_share_it_inside(void)
{
	r = a_region();
	for (int round = 0; round < 20; round++) {
		region_within(r, mix_both, NULL);
		mix_both(NULL);
		if (round % 4 == 3)
			region_reset(r);
	}
	region_destroy(r);
	probe_heap_is_sound();
}

static void churn(void *unused)
{
	(void)unused;
	for (int i = 0; i < 300000; i++) {
		void *p = malloc(500), *q = malloc(40);
		free(p);
		free(q);
	}
}

static void freeing_inside_is_real(void)
{
	r = a_region();
	region_within(r, churn, NULL);
	CHECK(region_cap(r) < 8 * MIB, "churn takes no more room: %zu", region_cap(r));
	region_destroy(r);
}

static void blocks_may_be_freed_after_the_call(void)
{
	r = a_region();
	for (unsigned i = 0; i < 1000; i++)
		region_within(r, add_a_block, &i);
	for (unsigned i = 0; i < 1000; i += 2)
		probe_unblock(blocks[i], 10 + i * 7, i);
	region_is_sound(r);
	for (unsigned i = 1; i < 1000; i += 2)
		verify(blocks[i], 10 + i * 7, i);
	region_destroy(r);
	probe_heap_is_sound();
}

static void resize_both(void *unused)
{
	(void)unused;
	blocks[0] = realloc(blocks[0], 5000);
	is_not_in(r, blocks[0], "a block of the heap that is reallocated inside");
	blocks[1] = probe_block(100, 2);
	blocks[1] = realloc(blocks[1], 3000);
	is_in(r, blocks[1], "a block that was made inside and is reallocated there");
}

static void realloc_goes_by_the_pointer(void)
{
	r = a_region();
	blocks[0] = probe_block(100, 1);
	region_within(r, resize_both, NULL);
	verify(blocks[0], 100, 1);
	verify(blocks[1], 100, 2);
	blocks[2] = realloc(blocks[1], 6000);
	is_not_in(r, blocks[2], "a block of the region that is reallocated outside");
	verify(blocks[2], 100, 2);
	region_destroy(r);
	verify(blocks[2], 100, 2);
	free(blocks[2]);
	free(blocks[0]);
}

/* --- ends --- */

static void make_one_of_each(void *fade)
{
	blocks[0] = probe_block(300, 1);
	blocks[1] = probe_block(300, 2);
	blocks[2] = probe_block(40000, 3);
	CHECK(region_keep(blocks[1]) == blocks[1], "keep gives its block");
	(void)fade;
}

static void end_and_look(struct region_options options, void (*end)(region_t *), int survive)
{
	r = region_of(options);
	region_within(r, make_one_of_each, NULL);
	void *own = block_of(r, 5000, 4);
	verify(own, 5000, 4);
	end(r);
	void *others[100];
	for (unsigned i = 0; i < 100; i++)
		others[i] = probe_block(300, 9);
	verify(blocks[1], 300, 2);
	free(blocks[1]);
	if (survive) {
		probe_unblock(blocks[0], 300, 1);
		probe_unblock(blocks[2], 40000, 3);
	}
	for (unsigned i = 0; i < 100; i++)
		probe_unblock(others[i], 300, 9);
	probe_heap_is_sound();
}

static void reset_it(region_t *region)
{
	region_reset(region);
	region_is_sound(region);
	region_destroy(region);
}

static void release_it(region_t *region)
{
	region_release(region);
	region_destroy(region);
}

static void kept_blocks_outlive_every_end(void)
{
	struct region_options options = {.fade = REGION_FADE_NONE};
	end_and_look(options, region_destroy, 0);
	end_and_look(options, reset_it, 0);
	end_and_look(options, release_it, 0);
	options.fade = REGION_FADE_DEFAULT;
	end_and_look(options, region_destroy, 0);
}

static void under_unfreed_all_blocks_of_malloc_outlive_every_end(void)
{
	struct region_options options = {.fade = REGION_FADE_UNFREED};
	end_and_look(options, region_destroy, 1);
	end_and_look(options, reset_it, 1);
	end_and_look(options, release_it, 1);
}

static void the_operator_s_policy_goes_before_the_region_s(void)
{
	struct region_options options = {.fade = REGION_FADE_NONE};
	end_and_look(options, region_destroy, 1);
	end_and_look(options, reset_it, 1);
}

static void rewinding_ends_blocks_of_malloc(void)
{
	for (int fade = REGION_FADE_UNFREED; fade <= REGION_FADE_NONE; fade += 2) {
		r = region_of((struct region_options){.fade = (enum region_fade)fade});
		region_within(r, add_a_block, &(unsigned){50});
		region_mark_t mark = region_mark(r);
		for (unsigned i = 100; i < 300; i++)
			region_within(r, add_a_block, &i);
		void *kept = region_keep(blocks[120]);
		region_rewind(r, mark);
		for (unsigned i = 0; i < 100; i++)
			block_of(r, 700, i);
		verify(blocks[50], 360, 50);
		probe_unblock(kept, 850, 120);
		for (unsigned i = 100; i < 300 && fade == REGION_FADE_UNFREED; i++)
			if (i != 120)
				probe_unblock(blocks[i], 10 + i * 7, i);
		region_destroy(r);
	}
	probe_heap_is_sound();
}

/* --- with scopes and other regions --- */

static region_t *inner;

static void inner_part(void *unused)
{
	void *p = probe_block(200, 1);
	(void)unused;
	is_in(inner, p, "what malloc gives in the inner region");
	is_not_in(r, p, "that");
	blocks[1] = p;
}

static void outer_part(void *unused)
{
	(void)unused;
	blocks[0] = probe_block(100, 0);
	region_within(inner, inner_part, NULL);
	blocks[2] = probe_block(100, 2);
	is_in(r, blocks[2], "what malloc gives after the inner call");
}

static void one_region_inside_another(void)
{
	r = a_region();
	inner = a_region();
	region_within(r, outer_part, NULL);
	region_destroy(r);
	verify(blocks[1], 200, 1);
	region_destroy(inner);
	malloc_trim(0);
	probe_heap_is_sound();
}

static void again(void *levels)
{
	unsigned *left = levels, i = *left;
	blocks[i] = probe_block(100 + i, i);
	if (--*left > 0)
		region_within(r, again, left);
	blocks[100 + i] = probe_block(100 + i, i);
}

static void region_inside_itself_is_served_by_a_child(void)
{
	unsigned levels = 50;
	r = a_region();
	region_within(r, again, &levels);
	for (unsigned i = 1; i <= 50; i++) {
		verify(blocks[i], 100 + i, i);
		verify(blocks[100 + i], 100 + i, i);
	}
	is_in(r, blocks[50], "a block of the outermost call");
	region_reset(r);
	levels = 5;
	region_within(r, again, &levels);
	region_destroy(r);
	probe_heap_is_sound();
}

static void a_scope(void *unused)
{
	(void)unused;
	blocks[1] = probe_block(500, 1);
	is_not_in(r, blocks[1], "what malloc gives in a scope inside");
	CHECK(region_owns(blocks[1]), "it is the scope's");
	blocks[2] = block_of(r, 500, 2);
	is_in(r, blocks[2], "what region_alloc gives there");
	blocks[0] = realloc(blocks[0], 800);
	is_in(r, blocks[0], "the region's block that is reallocated in the scope");
}

static void open_a_scope(void *unused)
{
	(void)unused;
	blocks[0] = probe_block(100, 0);
	region_do(a_scope, NULL);
	blocks[3] = probe_block(100, 3);
	is_in(r, blocks[3], "what malloc gives after the scope");
}

static void scope_inside_is_a_scope(void)
{
	r = a_region();
	region_within(r, open_a_scope, NULL);
	verify(blocks[0], 100, 0);
	verify(blocks[1], 500, 1);
	verify(blocks[2], 500, 2);
	free(blocks[1]);
	region_destroy(r);
	probe_heap_is_sound();
}

static void fill_from_a_scope(void *unused)
{
	(void)unused;
	blocks[1] = probe_block(100, 1);
	region_within(r, add_a_block, &(unsigned){2});
	blocks[3] = probe_block(100, 3);
	is_in(r, blocks[2], "what malloc gives in the region inside a scope");
	is_not_in(r, blocks[3], "what malloc gives in the scope again");
	CHECK(region_owns(blocks[3]) && !region_owns(blocks[2]), "the scope has its own");
}

static void region_inside_a_scope_outlives_it(void)
{
	r = a_region();
	region_do_with(&(struct region_options){.fade = REGION_FADE_NONE}, fill_from_a_scope, NULL);
	for (int i = 0; i < 100; i++)
		probe_block(100, 7);
	verify(blocks[2], 24, 2);
	region_destroy(r);
	probe_heap_is_sound();
}

static void ignored_part(void *unused)
{
	(void)unused;
	blocks[0] = probe_block(100, 0);
	is_not_in(r, blocks[0], "what malloc gives in region_ignore");
	region_within(r, add_a_block, &(unsigned){1});
	is_not_in(r, blocks[1], "what malloc gives in the region again, which a child serves,");
	verify(blocks[1], 17, 1);
}

static void ignore_some(void *unused)
{
	(void)unused;
	region_ignore(ignored_part, NULL);
	blocks[2] = probe_block(100, 2);
	is_in(r, blocks[2], "what malloc gives after region_ignore");
}

static void region_ignore_inside_ignores(void)
{
	r = a_region();
	region_within(r, ignore_some, NULL);
	region_destroy(r);
	probe_unblock(blocks[0], 100, 0);
}

const struct probe_case probe_cases[] = {
	CASE(malloc_takes_from_the_region),
	CASE(calls_fill_it_one_after_the_other),
	CASE(region_alloc_and_malloc_share_it_inside),
	CASE(freeing_inside_is_real),
	CASE(blocks_may_be_freed_after_the_call),
	CASE(realloc_goes_by_the_pointer),
	CASE(kept_blocks_outlive_every_end),
	CASE(under_unfreed_all_blocks_of_malloc_outlive_every_end),
	{.name = "the_operator_s_policy_goes_before_the_region_s", .environment = "LIBREGION_FADE=unfreed",
	 .run = the_operator_s_policy_goes_before_the_region_s},
	CASE(rewinding_ends_blocks_of_malloc),
	CASE(one_region_inside_another),
	CASE(region_inside_itself_is_served_by_a_child),
	CASE(scope_inside_is_a_scope),
	CASE(region_inside_a_scope_outlives_it),
	CASE(region_ignore_inside_ignores),
	{0},
};
