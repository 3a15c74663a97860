/*
 * misuse.c: regions used wrongly (misuse.h).
 */
#define _GNU_SOURCE
#include "misuse.h"

#include <malloc.h>
#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_FORM;

static void changes_nothing_in(region_t *region)
{
	region_is_sound(region);
	region_reset(region);
	region_is_sound(region);
	region_destroy(region);
	probe_heap_is_sound();
}

/* --- regions that have ended --- */

static region_t *ended(void)
{
	region_t *region = a_region();
	block_of(region, 100, 1);
	region_destroy(region);
	errno = 0;
	return probe_opaque(region);
}

static void region_destroyed_twice(void)
{
	region_destroy(ended());
	probe_heap_is_sound();
}

static void alloc_from_an_ended_region(void)
{
	gives_null(region_alloc(ended(), 100));
}

static void calloc_from_an_ended_region(void)
{
	gives_null(region_calloc(ended(), 1, 100));
}

static void memalign_from_an_ended_region(void)
{
	gives_null(region_memalign(ended(), 64, 100));
}

static void realloc_from_an_ended_region(void)
{
	gives_null(region_realloc(ended(), NULL, 0, 100));
}

static void strdup_from_an_ended_region(void)
{
	gives_null(region_strdup(ended(), "text"));
}

static void printf_from_an_ended_region(void)
{
	gives_null(region_printf(ended(), "%d", 1));
}

static void reset_of_an_ended_region(void)
{
	region_reset(ended());
	probe_heap_is_sound();
}

static void release_of_an_ended_region(void)
{
	region_release(ended());
	probe_heap_is_sound();
}

static void len_of_an_ended_region(void)
{
	gives(0, (long)region_len(ended()));
}

static void cap_of_an_ended_region(void)
{
	gives(0, (long)region_cap(ended()));
}

static void mark_in_an_ended_region(void)
{
	gives(0, (long)region_mark(ended()).serial);
}

static void on_end_of_an_ended_region(void)
{
	gives(-1, region_on_end(ended(), free, NULL));
}

static void note_call(void *called)
{
	*(int *)called = 1;
}

static void within_an_ended_region(void)
{
	int called = 0;
	region_within(ended(), note_call, &called);
	CHECK(called, "the function is called all the same");
	probe_heap_is_sound();
}

static void local_part_of_an_ended_region(void)
{
	gives_null(region_local(ended()));
}

static void child_of_an_ended_region(void)
{
	struct region_options options = {.parent = ended()};
	gives_null(region_create(&options));
}

static void array_in_an_ended_region(void)
{
	struct region_array array;
	region_t *region = a_region();
	int item = 1;
	region_array_init(&array, region, sizeof(item));
	CHECK(region_array_push(&array, &item), "it takes an item");
	region_destroy(region);
	errno = 0;
	gives_null(region_array_push(&array, &item));
}

static void text_in_an_ended_region(void)
{
	struct region_text text;
	region_t *region = a_region();
	region_text_init(&text, region);
	CHECK(region_text_write(&text, "text", 4) == 0, "it takes a text");
	region_destroy(region);
	errno = 0;
	gives(-1, region_text_write(&text, "text", 4));
}

static void array_from_before_a_reset(void)
{
	struct region_array array;
	region_t *region = a_region();
	int item = 1;
	region_array_init(&array, region, sizeof(item));
	CHECK(region_array_push(&array, &item), "it takes an item");
	region_reset(region);
	errno = 0;
	gives_null(region_array_push(&array, &item));
	changes_nothing_in(region);
}

static void child_that_ended_with_its_parent(void)
{
	region_t *parent = a_region(), *child = region_of((struct region_options){.parent = parent});
	region_destroy(parent);
	errno = 0;
	gives_null(region_alloc(probe_opaque(child), 100));
}

static void child_that_ended_with_its_parent_s_reset(void)
{
	region_t *parent = a_region(), *child = region_of((struct region_options){.parent = parent});
	block_of(child, 100, 1);
	region_reset(parent);
	errno = 0;
	gives_null(region_alloc(probe_opaque(child), 100));
	changes_nothing_in(parent);
}

/* --- regions that were released --- */

static region_t *released(void)
{
	region_t *region = a_region();
	block_of(region, 100, 1);
	region_release(region);
	errno = 0;
	return probe_opaque(region);
}

static void alloc_from_a_released_region(void)
{
	region_t *region = released();
	gives_null(region_alloc(region, 100));
	region_destroy(region);
	probe_heap_is_sound();
}

static void reset_of_a_released_region(void)
{
	region_t *region = released();
	region_reset(region);
	region_destroy(region);
	probe_heap_is_sound();
}

static void region_released_twice(void)
{
	region_t *region = released();
	region_release(region);
	region_destroy(region);
	probe_heap_is_sound();
}

static void within_a_released_region(void)
{
	int called = 0;
	region_t *region = released();
	region_within(region, note_call, &called);
	CHECK(called, "the function is called all the same");
	region_destroy(region);
}

/* --- blocks --- */

static void free_of_a_region_s_block(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	block_of(region, 100, 2);
	free(probe_opaque(p));
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void free_of_a_region_s_newest_block(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	free(probe_opaque(p));
	void *q = block_of(region, 100, 2);
	CHECK(q != p, "the block is still there");
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void free_by_name(void *p)
{
	free(probe_opaque(p));
}

static void free_of_a_region_s_block_within_it(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_within(region, free_by_name, p);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void free_of_a_region_s_large_block(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 20 * MIB, 1);
	free(probe_opaque(p));
	verify(p, 20 * MIB, 1);
	changes_nothing_in(region);
}

static void plain_realloc_of_a_region_s_block(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	CHECK(!realloc(probe_opaque(p), 200), "realloc refuses it");
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void realloc_of_another_region_s_block(void)
{
	region_t *region = a_region(), *other = a_region();
	void *p = block_of(other, 100, 1);
	errno = 0;
	gives_null(region_realloc(region, p, 100, 200));
	verify(p, 100, 1);
	changes_nothing_in(region);
	verify(p, 100, 1);
	changes_nothing_in(other);
}

static void realloc_of_the_heap_s_block(void)
{
	region_t *region = a_region();
	void *p = probe_block(100, 1);
	errno = 0;
	gives_null(region_realloc(region, p, 100, 200));
	probe_unblock(p, 100, 1);
	changes_nothing_in(region);
}

/* The size reaches from the first buffer to the end of the newest block, in another one. */
static void realloc_with_a_size_beyond_its_buffer(void)
{
	region_t *region = a_region();
	char *first = block_of(region, 100, 1), *newest = first;
	while (newest <= first || newest - first < 1 << 20)
		newest = block_of(region, 1000, 2);
	errno = 0;
	gives_null(region_realloc(region, first, (size_t)(newest - first) + 1000, 0));
	verify(first, 100, 1);
	verify(newest, 1000, 2);
	region_destroy(region);
}

static void realloc_of_a_variable(void)
{
	static char variable[100];
	region_t *region = a_region();
	errno = 0;
	gives_null(region_realloc(region, probe_opaque(variable), 100, 200));
	changes_nothing_in(region);
}

/* --- marks --- */

static void rewinding_to_a_mark_passed_over(void)
{
	region_t *region = a_region();
	region_mark_t early = region_mark(region);
	void *p = block_of(region, 100, 1);
	region_mark_t late = region_mark(region);
	block_of(region, 100, 2);
	region_rewind(region, early);
	p = block_of(region, 400, 3);
	region_rewind(region, late);
	verify(p, 400, 3);
	CHECK(region_len(region) == 400, "nothing has changed: %zu", region_len(region));
	changes_nothing_in(region);
}

static void rewinding_twice_to_a_mark(void)
{
	region_t *region = a_region();
	region_mark_t mark = region_mark(region);
	block_of(region, 100, 1);
	region_rewind(region, mark);
	void *p = block_of(region, 400, 3);
	region_rewind(region, mark);
	verify(p, 400, 3);
	CHECK(region_len(region) == 400, "nothing has changed: %zu", region_len(region));
	changes_nothing_in(region);
}

static region_mark_t outside;

static void rewind_it(void *region)
{
	region_rewind(region, outside);
}

static void rewinding_within(void)
{
	region_t *region = a_region();
	outside = region_mark(region);
	void *p = block_of(region, 100, 1);
	region_within(region, rewind_it, region);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void mark_it(void *region)
{
	outside = region_mark(region);
}

static void mark_within(void)
{
	region_t *region = a_region();
	errno = 0;
	region_within(region, mark_it, region);
	gives(0, (long)outside.serial);
	changes_nothing_in(region);
}

static void rewinding_to_a_mark_from_before_a_reset(void)
{
	region_t *region = a_region();
	block_of(region, 100, 1);
	region_mark_t mark = region_mark(region);
	region_reset(region);
	void *p = block_of(region, 400, 3);
	region_rewind(region, mark);
	verify(p, 400, 3);
	CHECK(region_len(region) == 400, "nothing has changed: %zu", region_len(region));
	changes_nothing_in(region);
}

static void rewinding_to_another_region_s_mark(void)
{
	region_t *region = a_region(), *other = a_region();
	region_mark(region);
	void *p = block_of(region, 100, 1);
	block_of(other, 100, 1);
	region_mark_t mark = region_mark(other);
	region_rewind(region, mark);
	block_of(region, 100, 2);
	verify(p, 100, 1);
	changes_nothing_in(region);
	changes_nothing_in(other);
}

static void rewinding_to_no_mark(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_rewind(region, (region_mark_t){0});
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void mark_in_a_shared_region(void)
{
	region_t *region = region_of((struct region_options){.shared = 1});
	void *p = block_of(region, 100, 1);
	errno = 0;
	gives(0, (long)region_mark(region).serial);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

/* --- ends at the wrong place --- */

static void destroy_it(void *region)
{
	region_destroy(region);
}

static void destroy_within(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_within(region, destroy_it, region);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void destroy_from_an_inner_scope(void *region)
{
	region_do(destroy_it, region);
}

static void destroy_within_and_in_a_scope(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_within(region, destroy_from_an_inner_scope, region);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void reset_it(void *region)
{
	region_reset(region);
}

static void reset_within(void)
{
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_within(region, reset_it, region);
	verify(p, 100, 1);
	changes_nothing_in(region);
}

static void parent_destroyed_within_its_child(void)
{
	region_t *parent = a_region(), *child = region_of((struct region_options){.parent = parent});
	void *p = block_of(child, 100, 1);
	region_within(child, destroy_it, parent);
	verify(p, 100, 1);
	changes_nothing_in(child);
	changes_nothing_in(parent);
}

static void parent_reset_within_its_grandchild(void)
{
	region_t *parent = a_region(), *child = region_of((struct region_options){.parent = parent});
	region_t *grandchild = region_of((struct region_options){.parent = child});
	void *p = block_of(grandchild, 100, 1);
	region_within(grandchild, reset_it, parent);
	verify(p, 100, 1);
	changes_nothing_in(parent);
}

const struct probe_case probe_cases[] = {
	MISUSE(region_destroyed_twice),
	MISUSE(alloc_from_an_ended_region),
	MISUSE(calloc_from_an_ended_region),
	MISUSE(memalign_from_an_ended_region),
	MISUSE(realloc_from_an_ended_region),
	MISUSE(strdup_from_an_ended_region),
	MISUSE(printf_from_an_ended_region),
	MISUSE(reset_of_an_ended_region),
	MISUSE(release_of_an_ended_region),
	MISUSE(len_of_an_ended_region),
	MISUSE(cap_of_an_ended_region),
	MISUSE(mark_in_an_ended_region),
	MISUSE(on_end_of_an_ended_region),
	MISUSE(within_an_ended_region),
	MISUSE(local_part_of_an_ended_region),
	MISUSE(child_of_an_ended_region),
	MISUSE(array_in_an_ended_region),
	MISUSE(text_in_an_ended_region),
	MISUSE(array_from_before_a_reset),
	MISUSE(child_that_ended_with_its_parent),
	MISUSE(child_that_ended_with_its_parent_s_reset),
	MISUSE(alloc_from_a_released_region),
	MISUSE(reset_of_a_released_region),
	MISUSE(region_released_twice),
	MISUSE(within_a_released_region),
	MISUSE(free_of_a_region_s_block),
	MISUSE(free_of_a_region_s_newest_block),
	MISUSE(free_of_a_region_s_block_within_it),
	MISUSE(free_of_a_region_s_large_block),
	MISUSE(plain_realloc_of_a_region_s_block),
	MISUSE(realloc_of_another_region_s_block),
	MISUSE(realloc_of_the_heap_s_block),
	MISUSE(realloc_with_a_size_beyond_its_buffer),
	MISUSE(realloc_of_a_variable),
	MISUSE(rewinding_to_a_mark_passed_over),
	MISUSE(rewinding_twice_to_a_mark),
	MISUSE(rewinding_within),
	MISUSE(mark_within),
	MISUSE(rewinding_to_a_mark_from_before_a_reset),
	MISUSE(rewinding_to_another_region_s_mark),
	MISUSE(rewinding_to_no_mark),
	MISUSE(mark_in_a_shared_region),
	MISUSE(destroy_within),
	MISUSE(destroy_within_and_in_a_scope),
	MISUSE(reset_within),
	MISUSE(parent_destroyed_within_its_child),
	MISUSE(parent_reset_within_its_grandchild),
	{0},
};
