/*
 * harden.c: what LIBREGION_HARDEN=1 and =2 see, and that programs without faults don't see it.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

extern void free_sized(void *p, size_t size) __attribute__((weak));

enum { TINY = 8, SMALL = 48, MEDIUM = 5000, LARGE = 30000, BIG = 200000, PAGES = 256 << 10 };

static void change(void *p, ptrdiff_t offset) { ((volatile char *)probe_opaque(p))[offset] ^= 'A'; }

static void seen_by_free(void *p)
{
	probe_expect("%p", p);
	free(probe_opaque(p));
	probe_heap_is_sound();
}

/* --- fences: writes behind a block --- */

static void one_byte_behind(size_t size)
{
	void *p = probe_block(size, 1);
	change(p, (ptrdiff_t)size);
	seen_by_free(p);
}

static void one_byte_behind_tiny(void) { one_byte_behind(TINY); }
static void one_byte_behind_small(void) { one_byte_behind(SMALL); }
static void one_byte_behind_medium(void) { one_byte_behind(MEDIUM); }
static void one_byte_behind_large(void) { one_byte_behind(LARGE); }
static void one_byte_behind_big(void) { one_byte_behind(BIG); }

/* The zero that ends a string. */
static void end_of_a_string_behind(void)
{
	char *p = malloc(TINY);
	strcpy(probe_opaque(p), "12345678");
	seen_by_free(p);
}

static void byte_31_behind(void)
{
	void *p = probe_block(4096, 1);
	change(p, 4096 + 31);
	seen_by_free(p);
}

static void behind_a_calloc(void)
{
	void *p = calloc(10, 10);
	change(p, 100);
	seen_by_free(p);
}

/* Large enough to be cleared by the kernel, after memory was used. */
static void behind_a_big_calloc(void)
{
	probe_unblock(probe_block(2 * BIG, 1), 2 * BIG, 1);
	void *p = calloc(1, 2 * BIG);
	change(p, 2 * BIG);
	seen_by_free(p);
}

static void behind_an_aligned_block(void)
{
	void *p = aligned_alloc(1024, 100);
	change(p, 100);
	seen_by_free(p);
}

static void behind_a_block_that_grew(void)
{
	void *p = realloc(probe_block(SMALL, 1), 1000);
	change(p, 1000);
	seen_by_free(p);
}

static void behind_a_block_that_shrank(void)
{
	void *p = realloc(probe_block(SMALL, 1), SMALL - 3);
	change(p, SMALL - 3);
	seen_by_free(p);
}

static void behind_a_big_block_that_grew(void)
{
	void *p = realloc(probe_block(BIG, 1), 3 << 20 | 1);
	change(p, 3 << 20 | 1);
	seen_by_free(p);
}

static void behind_a_big_block_that_shrank(void)
{
	void *p = realloc(probe_block(BIG, 1), BIG / 2 + 1);
	change(p, BIG / 2 + 1);
	seen_by_free(p);
}

static void seen_by_realloc(void)
{
	void *p = probe_block(SMALL, 1);
	change(p, SMALL);
	probe_expect("%p", p);
	CHECK(!realloc(probe_opaque(p), 1000), "realloc refuses");
	probe_heap_is_sound();
}

static void seen_by_usable_size(void)
{
	void *p = probe_block(SMALL, 1);
	change(p, SMALL);
	CHECK(malloc_usable_size(probe_opaque(p)) == 0, "there is no size to tell");
}

static void *free_it(void *p)
{
	free(p);
	return NULL;
}

static void free_in_a_thread(void *p)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, free_it, p) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void seen_by_another_thread(void)
{
	void *p = probe_block(SMALL, 1);
	change(p, SMALL);
	probe_expect("%p", p);
	free_in_a_thread(p);
}

static void behind_a_block_here(void *unused)
{
	(void)unused;
	one_byte_behind(SMALL);
}

static void behind_a_block_of_a_scope(void)
{
	struct region_options options = {.fade = REGION_FADE_UNFREED};
	CHECK(region_do_with, "the library has region_do_with");
	region_do_with(&options, behind_a_block_here, NULL);
}

static void sized_free_of_less(void)
{
	void *p = probe_block(SMALL, 1);
	probe_expect("%p", p);
	free_sized(probe_opaque(p), SMALL - 1);
	probe_heap_is_sound();
}

static void usable_size_is_what_was_asked_for(void)
{
	for (size_t size = 1; size < 300000; size += size / 5 + 1) {
		char *p = probe_block(size, 1);
		CHECK(malloc_usable_size(p) == size, "%zu bytes: %zu", size, malloc_usable_size(p));
		p = realloc(p, size + 5);
		CHECK(malloc_usable_size(p) == size + 5, "%zu bytes: %zu", size + 5, malloc_usable_size(p));
		probe_verify(p, size, 1, "realloc keeps contents");
		free(p);
	}
}

/* --- level 2: neighbours --- */

static void byte_before(void)
{
	void *p = probe_block(SMALL, 1);
	for (int i = 0; i < 100; i++)
		probe_block(SMALL, 2);
	change(p, (uintptr_t)p % 65536 ? -1 : 64 + 63);
	free(probe_opaque(p));
}

/* --- level 2: zero, quarantine --- */

static void freed_block_reads_as_zero(void)
{
	static const size_t sizes[] = {TINY, SMALL, MEDIUM, LARGE};
	for (int i = 0; i < 4; i++) {
		char *p = memset(malloc(sizes[i]), 'A', sizes[i]);
		free(p);
		CHECK(probe_is_zero(probe_opaque(p), sizes[i]), "%zu bytes are zero", sizes[i]);
	}
}

static void blocks_are_zero_when_handed_out(void)
{
	enum { COUNT = 3000 };
	static char *blocks[COUNT];
	for (int round = 0; round < 6; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			size_t size = i % 100 ? 16 + i % 700 : 30000 + i * 10;
			blocks[i] = malloc(size);
			CHECK(probe_is_zero(blocks[i], size), "%zu bytes are zero", size);
			memset(blocks[i], 'A', size);
		}
		for (unsigned i = 0; i < COUNT; i++)
			free(blocks[i]);
		if (round % 2)
			malloc_trim(0);
	}
}

static void freed_blocks_are_not_used_again_at_once(void)
{
	static const size_t sizes[] = {TINY, SMALL, MEDIUM, LARGE, BIG, PAGES};
	for (int i = 0; i < 6; i++) {
		char *p = malloc(sizes[i]);
		free(p);
		for (int j = 0; j < 20; j++)
			CHECK(probe_opaque(malloc(sizes[i])) != p, "%zu bytes", sizes[i]);
	}
}

static void write_after_free(size_t size)
{
	char *p = probe_block(size, 1);
	free(p);
	change(p, (ptrdiff_t)size - 1);
	probe_expect("%p", (void *)p);
	for (int i = 0; i < 10000; i++)
		free(malloc(size));
	probe_heap_is_sound();
}

static void write_after_free_tiny(void) { write_after_free(TINY); }
static void write_after_free_small(void) { write_after_free(SMALL); }
static void write_after_free_medium(void) { write_after_free(MEDIUM); }

static void write_after_free_by_another_thread(void)
{
	char *p = probe_block(SMALL, 1);
	free_in_a_thread(p);
	change(p, 20);
	probe_expect("%p", (void *)p);
	for (int i = 0; i < 10000; i++)
		malloc(SMALL);
}

static void read_of_a_freed_big_block(void)
{
	char *p = probe_block(BIG, 1);
	free(p);
	probe_opaque_size((size_t) * (volatile char *)probe_opaque(p));
}

static void double_free(size_t size)
{
	void *p = probe_block(size, 1);
	free(p);
	seen_by_free(p);
}

static void double_free_small(void) { double_free(SMALL); }
static void double_free_big(void) { double_free(BIG); }

static void double_free_by_two_threads(void)
{
	void *p = probe_block(SMALL, 1);
	free_in_a_thread(p);
	seen_by_free(p);
}

/* --- level 2: guards --- */

static void page_behind_a_big_block(void) { change(probe_block(PAGES, 1), PAGES); }
static void page_behind_a_calloc(void) { change(calloc(1, PAGES), PAGES); }

static void page_behind_a_block_that_grew(void)
{
	change(realloc(probe_block(PAGES, 1), 3 * PAGES), 3 * PAGES);
}

static void page_behind_a_block_that_shrank(void)
{
	change(realloc(probe_block(PAGES, 1), PAGES / 2), PAGES / 2);
}

static void page_behind_an_aligned_block(void) { change(aligned_alloc(1 << 20, PAGES), PAGES); }

/* The kernel has a limit to mappings; the program has to find room for its own. */
static void guards_leave_mappings_to_the_program(void)
{
	enum { COUNT = 20000 };
	static void *blocks[COUNT];
	for (int i = 0; i < COUNT; i++)
		CHECK((blocks[i] = malloc(40000)), "block %d is served", i);
	for (int i = 0; i < 1000; i++)
		CHECK(mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
		              MAP_FAILED,
		      "mapping %d", i);
	for (int i = 0; i < COUNT; i++)
		free(blocks[i]);
	probe_heap_is_sound();
}

/* --- level 2: placement --- */

static void blocks_come_in_no_order(void)
{
	char *blocks[64];
	int rising = 0;
	for (int i = 0; i < 64; i++)
		blocks[i] = malloc(SMALL);
	for (int i = 1; i < 64; i++)
		rising += blocks[i] - blocks[i - 1] == 64;
	CHECK(rising < 16, "%d of 63 come right behind the one before", rising);
}

/* --- without faults --- */

static void memory_stays_flat(void)
{
	enum { COUNT = 500 };
	static void *blocks[COUNT];
	unsigned state = 1;
	size_t before = 0;
	for (int i = 0; i < 400000; i++) {
		void **place = &blocks[probe_random(&state) % COUNT];
		free(*place);
		*place = malloc(probe_random(&state) % 100 ? probe_random(&state) % 2000 : 100000);
		before = i == 100000 ? probe_resident() : before;
	}
	CHECK(probe_resident() < before + (4 << 20), "%zu bytes more", probe_resident() - before);
}

static void *churn(void *unused)
{
	void *blocks[100] = {0};
	unsigned state = (unsigned)(uintptr_t)&state | 1;
	for (int i = 0; i < 20000; i++) {
		void **place = &blocks[probe_random(&state) % 100];
		free(*place);
		*place = malloc(probe_random(&state) % 3000);
	}
	for (int i = 0; i < 100; i++)
		free(blocks[i]);
	return unused;
}

static void threads_that_end_leave_nothing_behind(void)
{
	pthread_t threads[4];
	size_t before = 0;
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 4; i++)
			CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0, "a thread starts");
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		before = round == 5 ? probe_resident() : before;
	}
	CHECK(probe_resident() < before + (8 << 20), "%zu bytes more", probe_resident() - before);
}

static void children_go_on(void)
{
	pthread_t thread;
	free(probe_block(SMALL, 1));
	free(probe_block(BIG, 1));
	CHECK(pthread_create(&thread, NULL, churn, NULL) == 0, "a thread starts");
	for (int i = 0; i < 10; i++) {
		int pid = fork();
		if (pid == 0) {
			churn(NULL);
			probe_heap_is_sound();
			_exit(0);
		}
		CHECK(probe_wait_child(pid, 10) == 0, "the child ends well");
	}
	pthread_join(thread, NULL);
}

static void *survivor;

static void leave_one(void *unused)
{
	(void)unused;
	survivor = probe_block(SMALL, 3);
	probe_unblock(probe_block(100, 1), 100, 1);
}

static void scopes_of_each_policy_work(void)
{
	static const enum region_fade policies[] = {REGION_FADE_UNFREED, REGION_FADE_REACHABLE, REGION_FADE_NONE};
	CHECK(region_do_with, "the library has region_do_with");
	for (int i = 0; i < 3000; i++) {
		struct region_options options = {.name = "each", .fade = policies[i % 3]};
		region_do_with(&options, leave_one, NULL);
		if (options.fade != REGION_FADE_NONE)
			probe_unblock(survivor, SMALL, 3);
	}
	probe_heap_is_sound();
}

/* A search reads all blocks in use, and no guards. */
static void *holder;

static void hold(void *unused)
{
	(void)unused;
	*(void **)holder = probe_block(SMALL, 5);
	malloc(BIG);
}

static void searches_go_around_guards(void)
{
	struct region_options options = {.fade = REGION_FADE_REACHABLE};
	CHECK(region_do_with, "the library has region_do_with");
	holder = malloc(PAGES);
	probe_block(3 << 20, 1);
	free(probe_block(BIG, 1));
	region_do_with(&options, hold, NULL);
	for (int i = 0; i < 3; i++)
		malloc_trim(0);
	probe_unblock(*(void **)holder, SMALL, 5);
}

/* --- the table --- */

#define L1 "LIBREGION_HARDEN=1"
#define L2 "LIBREGION_HARDEN=2"
#define REPORT " LIBREGION_ON_ERROR=report"

#define CASE(name_, level_) {.name = #name_, .run = name_, .environment = level_}
#define CRASH(name_) {.name = #name_, .run = name_, .environment = L2, .signal = SIGSEGV}

/* Each fault on the levels that see it; and once with the program going on. */
#define FAULT(name_, text_) \
	{.name = #name_, .run = name_, .environment = L2, .says = {text_}, .lines = 1, .signal = SIGABRT}, \
	{.name = #name_ "_reported", .run = name_, .environment = L2 REPORT, .says = {text_}, .lines = 1}
#define FAULT_1(name_, text_) \
	{.name = #name_ "_1", .run = name_, .environment = L1, .says = {text_}, .lines = 1, .signal = SIGABRT}, \
	FAULT(name_, text_)

#define BEHIND "behind the end"
#define SINCE "written to since"

const struct probe_case probe_cases[] = {
	FAULT_1(one_byte_behind_tiny, BEHIND),
	FAULT_1(one_byte_behind_small, BEHIND),
	FAULT_1(one_byte_behind_medium, BEHIND),
	FAULT_1(one_byte_behind_large, BEHIND),
	FAULT_1(one_byte_behind_big, BEHIND),
	FAULT_1(end_of_a_string_behind, BEHIND),
	FAULT_1(byte_31_behind, BEHIND),
	FAULT_1(behind_a_calloc, BEHIND),
	FAULT_1(behind_a_big_calloc, BEHIND),
	FAULT_1(behind_an_aligned_block, BEHIND),
	FAULT_1(behind_a_block_that_grew, BEHIND),
	FAULT_1(behind_a_block_that_shrank, BEHIND),
	FAULT_1(behind_a_big_block_that_grew, BEHIND),
	FAULT_1(behind_a_big_block_that_shrank, BEHIND),
	FAULT_1(seen_by_realloc, BEHIND),
	FAULT_1(seen_by_usable_size, BEHIND),
	FAULT_1(seen_by_another_thread, BEHIND),
	FAULT_1(behind_a_block_of_a_scope, BEHIND),
	FAULT_1(sized_free_of_less, "sized free"),
	FAULT(byte_before, "overwritten"),
	FAULT(write_after_free_tiny, SINCE),
	FAULT(write_after_free_small, SINCE),
	FAULT(write_after_free_medium, SINCE),
	FAULT(write_after_free_by_another_thread, "overwritten"),
	FAULT(double_free_small, "double free"),
	FAULT(double_free_big, "double free"),
	FAULT(double_free_by_two_threads, "double free"),
	CRASH(read_of_a_freed_big_block),
	CRASH(page_behind_a_big_block),
	CRASH(page_behind_a_calloc),
	CRASH(page_behind_a_block_that_grew),
	CRASH(page_behind_a_block_that_shrank),
	CRASH(page_behind_an_aligned_block),
	{.name = "guards_leave_mappings_to_the_program", .run = guards_leave_mappings_to_the_program,
	 .environment = L2, .says = {"vm.max_map_count"}, .lines = 1},
	CASE(usable_size_is_what_was_asked_for, L1),
	CASE(freed_block_reads_as_zero, L2),
	CASE(blocks_are_zero_when_handed_out, L2),
	CASE(freed_blocks_are_not_used_again_at_once, L2),
	CASE(blocks_come_in_no_order, L2),
	CASE(memory_stays_flat, L2),
	CASE(threads_that_end_leave_nothing_behind, L2),
	CASE(children_go_on, L2),
	CASE(scopes_of_each_policy_work, L2),
	CASE(searches_go_around_guards, L2),
	{0},
};
