/*
 * object_end.c: what happens to a region and its blocks at an end: marks, callbacks, children.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <stdio.h>
#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- marks --- */

static void rewinding_ends_what_came_later(void)
{
	region_t *region = a_region();
	void *before = block_of(region, 1000, 1);
	size_t len = region_len(region);
	region_mark_t mark = region_mark(region);
	CHECK(mark.serial != 0, "a mark has a serial");
	char *after = block_of(region, 500, 2);
	block_of(region, 100000, 3);
	block_of(region, 20 * MIB, 3);
	region_rewind(region, mark);
	CHECK(region_len(region) == len, "the length is that of the mark: %zu, %zu", region_len(region), len);
	verify(before, 1000, 1);
	char *again = block_of(region, 500, 4);
	CHECK(again <= after && again >= after - 64, "its memory serves again: %p, %p", (void *)again,
	      (void *)after);
	verify(before, 1000, 1);
	region_destroy(region);
}

static void rewinding_again_and_again_loses_no_memory(void)
{
	region_t *region = a_region();
	void *before = block_of(region, 5000, 1);
	size_t resident = 0;
	for (int round = 0; round < 1000; round++) {
		region_mark_t mark = region_mark(region);
		region_is_sound(region);
		region_rewind(region, mark);
		if (round == 10)
			resident = probe_resident();
	}
	verify(before, 5000, 1);
	CHECK(probe_resident() < resident + MIB, "no memory is lost: %zu, %zu", resident, probe_resident());
	region_destroy(region);
}

static void a_mark_a_round_costs_no_lasting_memory(void)
{
	region_t *region = a_region();
	size_t resident = 0, len = 0;
	block_of(region, 5000, 1);
	for (long round = 0, count = probe_count(300000); round < count; round++) {
		region_mark_t mark = region_mark(region);
		block_of(region, 100, 2);
		region_rewind(region, mark);
		if (round == 1000) {
			resident = probe_resident();
			len = region_len(region);
		}
	}
	CHECK(region_len(region) == len, "marks take no room in the region");
	CHECK(probe_resident() < resident + MIB, "marks that nothing lies between cost nothing: %zu, %zu",
	      resident, probe_resident());
	region_destroy(region);
}

static void marks_nest(void)
{
	enum { DEPTH = 200 };
	region_t *region = a_region();
	region_mark_t marks[DEPTH];
	void *blocks[DEPTH];
	size_t lens[DEPTH];
	for (unsigned i = 0; i < DEPTH; i++) {
		lens[i] = region_len(region);
		marks[i] = region_mark(region);
		blocks[i] = block_of(region, 1 + i * 500, i);
	}
	for (unsigned i = DEPTH; i-- > 0;) {
		if (i % 3 == 0)
			continue; /* some are passed over */
		for (unsigned j = 0; j <= i; j++)
			verify(blocks[j], 1 + j * 500, j);
		region_rewind(region, marks[i]);
		CHECK(region_len(region) == lens[i], "mark %u: %zu, %zu", i, region_len(region), lens[i]);
	}
	region_destroy(region);
}

static void a_mark_of_an_empty_region_empties_it(void)
{
	region_t *region = a_region();
	for (int round = 0; round < 3; round++) {
		region_mark_t mark = region_mark(region);
		region_is_sound(region);
		region_rewind(region, mark);
		CHECK(region_len(region) == 0, "it is empty: %zu", region_len(region));
	}
	region_destroy(region);
}

static void realloc_across_a_mark_keeps_what_was_before_it(void)
{
	region_t *region = a_region();
	char *p = block_of(region, 1000, 1);
	region_mark_t mark = region_mark(region);
	char *q = region_realloc(region, p, 1000, 50000);
	verify(q, 1000, 1);
	probe_fill(q, 50000, 2);
	region_rewind(region, mark);
	block_of(region, 50000, 3);
	if (q != p)
		verify(p, 1000, 1);
	region_reset(region);
	region_is_sound(region);
	region_destroy(region);
}

/* --- callbacks --- */

static char called[64];

static void note(void *letter)
{
	size_t length = strlen(called);
	CHECK(length < sizeof(called) - 1, "no callback comes so often: %s", called);
	called[length] = *(char *)letter;
}

static void on_end(region_t *region, const char *letter)
{
	CHECK(region_on_end(region, note, (void *)letter) == 0, "a callback is taken");
}

static void called_were(const char *letters, const char *when)
{
	CHECK(strcmp(called, letters) == 0, "%s: '%s' were called, not '%s'", when, called, letters);
	memset(called, 0, sizeof(called));
}

static void callbacks_come_last_in_first_out(void)
{
	region_t *region = a_region();
	on_end(region, "a");
	on_end(region, "b");
	region_is_sound(region);
	on_end(region, "c");
	called_were("", "before the end");
	region_reset(region);
	called_were("cba", "reset");
	region_reset(region);
	called_were("", "the next reset");
	on_end(region, "d");
	on_end(region, "e");
	region_release(region);
	called_were("ed", "release");
	region_destroy(region);
	called_were("", "destroy after that");
	region = a_region();
	on_end(region, "f");
	on_end(region, "g");
	region_destroy(region);
	called_were("gf", "destroy");
}

static void rewinding_calls_those_that_came_after_the_mark(void)
{
	region_t *region = a_region();
	on_end(region, "a");
	region_mark_t mark = region_mark(region);
	on_end(region, "b");
	block_of(region, 100, 1);
	on_end(region, "c");
	region_rewind(region, mark);
	called_were("cb", "rewind");
	on_end(region, "d");
	region_destroy(region);
	called_were("da", "destroy");
}

static void verify_block(void *block)
{
	verify(block, 10000, 5);
	strcat(called, "v");
}

static void blocks_are_whole_when_callbacks_come(void)
{
	region_t *region = a_region();
	CHECK(region_on_end(region, verify_block, block_of(region, 10000, 5)) == 0, "it is taken");
	block_of(region, 30 * MIB, 1);
	region_mark_t mark = region_mark(region);
	CHECK(region_on_end(region, verify_block, block_of(region, 10000, 5)) == 0, "it is taken");
	region_rewind(region, mark);
	called_were("v", "rewind");
	region_reset(region);
	called_were("v", "reset");
	CHECK(region_on_end(region, verify_block, block_of(region, 10000, 5)) == 0, "it is taken");
	region_destroy(region);
	called_were("v", "destroy");
}

struct later {
	region_t *region;
	void *block; /* taken after a mark that came after the callback */
};

static void verify_later(void *arg)
{
	struct later *later = arg;
	block_of(later->region, 10000, 6);
	verify(later->block, 10000, 5);
	strcat(called, "v");
}

static void blocks_after_a_later_mark_are_whole_when_callbacks_come(void)
{
	struct later later = {.region = a_region()};
	region_mark_t mark = region_mark(later.region);
	CHECK(region_on_end(later.region, verify_later, &later) == 0, "it is taken");
	region_mark(later.region);
	later.block = block_of(later.region, 10000, 5);
	region_rewind(later.region, mark);
	called_were("v", "rewind");
	region_destroy(later.region);
}

static void count_one(void *number)
{
	++*(unsigned long *)number;
}

static void many_callbacks_cost_no_lasting_memory(void)
{
	region_t *region = a_region();
	size_t resident = 0;
	unsigned long number = 0;
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 5000; i++)
			CHECK(region_on_end(region, count_one, &number) == 0, "any number is taken");
		region_reset(region);
		if (round == 10)
			resident = probe_resident();
	}
	CHECK(number == 200 * 5000, "each was called once: %lu", number);
	CHECK(probe_resident() < resident + MIB, "they are gone: %zu, %zu", resident, probe_resident());
	region_destroy(region);
}

static void ask(void *region)
{
	region_t *child = region_of((struct region_options){.parent = region});
	CHECK(region_len(region) >= 1008 && region_contains(region, region_alloc(region, 16)), "it answers");
	CHECK(region_cap(region) >= region_len(region), "about its buffers, too");
	block_of(child, 100, 1);
	strcat(called, "q");
}

static void register_another(void *region)
{
	on_end(region, "x");
	strcat(called, "r");
}

static void callbacks_may_use_their_region(void)
{
	region_t *region = a_region();
	block_of(region, 1000, 1);
	CHECK(region_on_end(region, ask, region) == 0, "it is taken");
	CHECK(region_on_end(region, register_another, region) == 0, "it is taken");
	region_reset(region);
	called_were("rxq", "reset");
	CHECK(region_len(region) == 0, "nothing is left: %zu", region_len(region));
	region_destroy(region);
}

/* --- children --- */

static region_t *child_of(region_t *parent, const char *letter)
{
	region_t *child = region_of((struct region_options){.parent = parent});
	on_end(child, letter);
	block_of(child, 3000, 1);
	return child;
}

static void children_end_with_their_parent(void)
{
	region_t *parent = a_region();
	child_of(parent, "a");
	child_of(child_of(parent, "b"), "c");
	region_destroy(parent);
	CHECK(strlen(called) == 3, "each has ended once: '%s'", called);
	probe_heap_is_sound();
}

static void reset_of_a_parent_destroys_its_children(void)
{
	region_t *parent = a_region();
	size_t resident = 0;
	for (int round = 0; round < 2000; round++) {
		child_of(child_of(parent, "a"), "b");
		block_of(parent, 100, 1);
		region_reset(parent);
		CHECK(strlen(called) == 2, "they have ended: '%s'", called);
		memset(called, 0, sizeof(called));
		if (round == 100)
			resident = probe_resident();
	}
	CHECK(probe_resident() < resident + MIB, "they leave nothing: %zu, %zu", resident, probe_resident());
	region_release(parent);
	called_were("", "release, without children");
	region_destroy(parent);
}

static void children_may_end_first(void)
{
	region_t *parent = a_region();
	void *block = block_of(parent, 1000, 2);
	region_t *a = child_of(parent, "a"), *b = child_of(parent, "b"), *c = child_of(parent, "c");
	region_destroy(b);
	called_were("b", "the second of three");
	region_reset(a);
	called_were("a", "reset of a child");
	region_is_sound(a);
	verify(block, 1000, 2);
	region_destroy(c);
	called_were("c", "the third");
	region_destroy(parent);
	called_were("", "the parent, after all had their calls");
}

static void a_child_s_blocks_are_its_own(void)
{
	region_t *parent = a_region(), *child = child_of(parent, "a");
	void *mine = block_of(child, 5000, 1), *its = block_of(parent, 5000, 2);
	CHECK(region_contains(child, mine) && !region_contains(child, its), "each contains its own");
	region_reset(child);
	region_is_sound(child);
	verify(its, 5000, 2);
	region_destroy(parent);
}

static void deep_families_end(void)
{
	enum { DEPTH = 50000 };
	region_t *first = a_region(), *last = first;
	for (int i = 0; i < DEPTH; i++)
		last = region_of((struct region_options){.parent = last, .buffer_size = 65536});
	block_of(last, 100, 1);
	region_destroy(first);
	first = a_region();
	for (int i = 0; i < DEPTH; i++)
		last = region_of((struct region_options){.parent = first});
	region_destroy(first);
	probe_heap_is_sound();
}

const struct probe_case probe_cases[] = {
	CASE(rewinding_ends_what_came_later),
	CASE(rewinding_again_and_again_loses_no_memory),
	CASE(a_mark_a_round_costs_no_lasting_memory),
	CASE(marks_nest),
	CASE(a_mark_of_an_empty_region_empties_it),
	CASE(realloc_across_a_mark_keeps_what_was_before_it),
	CASE(callbacks_come_last_in_first_out),
	CASE(rewinding_calls_those_that_came_after_the_mark),
	CASE(blocks_are_whole_when_callbacks_come),
	CASE(blocks_after_a_later_mark_are_whole_when_callbacks_come),
	CASE(many_callbacks_cost_no_lasting_memory),
	CASE(callbacks_may_use_their_region),
	CASE(children_end_with_their_parent),
	CASE(reset_of_a_parent_destroys_its_children),
	CASE(children_may_end_first),
	CASE(a_child_s_blocks_are_its_own),
	CASE(deep_families_end),
	{0},
};
