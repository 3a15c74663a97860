/*
 * fault.c: misuse of the heap. Each fault ends in one line on stderr that names the pointer, what it
 * is and the call, and then in abort(); with LIBREGION_ON_ERROR=report the same line comes, the call has no
 * effect, and the program runs on with a heap that still works. Each fault is tried both ways.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <errno.h>
#include <execinfo.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

enum { SMALL = 48, MEDIUM = 5000, LARGE = 20000, BIG = 200000, HUGE = 9 << 20 };

/* --- writes where no block in use is, which the next allocations come upon --- */

/* Allocates until what was written to must have been seen. */
static void come_upon(size_t size, void *damaged)
{
	probe_expect("%p", damaged);
	for (int i = 0; i < 10; i++)
		probe_block(size, 7);
	probe_heap_is_sound();
}

static void write_to_a_freed_block(size_t size)
{
	char *p = probe_block(size, 1);
	free(p);
	memset(probe_opaque(p), 'A', 16);
	come_upon(size, p);
}

static void write_after_free_small(void) { write_to_a_freed_block(SMALL); }
static void write_after_free_medium(void) { write_to_a_freed_block(MEDIUM); }
static void write_after_free_large(void) { write_to_a_freed_block(LARGE); }

/* One byte is enough where the block has no slack. */
static void write_behind_a_block_before_a_free_one(void)
{
	char *p = probe_block(SMALL, 1), *q = probe_block(SMALL, 2);
	CHECK(q == p + SMALL, "neighbours: %p, %p", (void *)p, (void *)q);
	free(q);
	((char *)probe_opaque(p))[SMALL] ^= 1;
	come_upon(SMALL, q);
}

/* A link that leads to a block in use. */
static void write_to_the_link_of_a_freed_block(void)
{
	char *p = probe_block(SMALL, 1), *q = probe_block(SMALL, 2);
	free(q);
	((void **)probe_opaque(q))[1] = p;
	come_upon(SMALL, p);
	probe_unblock(p, SMALL, 1);
}

/* --- the three calls with a pointer they must refuse --- */

static void bad_free(void *p)
{
	probe_expect("%p", p);
	free(probe_opaque(p));
	probe_heap_is_sound();
}

static void bad_realloc(void *p)
{
	probe_expect("%p", p);
	CHECK(!realloc(probe_opaque(p), 100), "realloc refuses a bad pointer");
	probe_heap_is_sound();
}

static void bad_usable_size(void *p)
{
	probe_expect("%p", p);
	CHECK(malloc_usable_size(probe_opaque(p)) == 0, "nothing is usable at a bad pointer");
	probe_heap_is_sound();
}

/* A block, freed once, in the company of others so that its neighbourhood stays in use. */
static void *freed(size_t size)
{
	void *p;
	probe_block(size, 1);
	p = probe_block(size, 2);
	probe_block(size, 3);
	free(p);
	return probe_opaque(p);
}

/* Tries the call on a pointer into a live block, which must come out unharmed. */
static void refuse_inside(size_t size, size_t offset, void (*call)(void *))
{
	char *p = probe_block(size, 4);
	call(p + offset);
	probe_unblock(p, size, 4);
}

static void run_in_scope(void (*body)(void *))
{
	CHECK(region_do, "the library has region_do");
	region_do(body, NULL);
	probe_heap_is_sound();
}

/* --- double frees --- */

static void double_free_smallest(void) { bad_free(freed(1)); }
static void double_free_small(void) { bad_free(freed(SMALL)); }
static void double_free_medium(void) { bad_free(freed(MEDIUM)); }
static void double_free_large(void) { bad_free(freed(LARGE)); }
static void double_free_big(void) { bad_free(freed(BIG)); }
static void double_free_huge(void) { bad_free(freed(HUGE)); }

static void double_free_aligned(void)
{
	void *p = memalign(4096, 100);
	free(p);
	bad_free(p);
}

/* The first free is no longer the newest thing on any list. */
static void double_free_after_other_frees(void)
{
	void *blocks[100];
	for (int i = 0; i < 100; i++)
		blocks[i] = probe_block(SMALL, 1);
	for (int i = 0; i < 100; i++)
		free(blocks[i]);
	bad_free(blocks[30]);
}

/* So many that whole slabs are free when it happens. */
static void double_free_with_all_neighbours_free(void)
{
	enum { COUNT = 3000 };
	static void *blocks[COUNT];
	for (int i = 0; i < COUNT; i++)
		blocks[i] = probe_block(700, 1);
	for (int i = 0; i < COUNT; i++)
		free(blocks[i]);
	bad_free(blocks[10]);
}

static void double_free_through_realloc_to_zero(void)
{
	void *p = probe_block(SMALL, 1);
	probe_block(SMALL, 2);
	CHECK(!realloc(p, 0), "realloc(p, 0) frees");
	bad_free(p);
}

static void *free_once(void *p)
{
	free(p);
	return NULL;
}

static void free_in_a_thread(void *p)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, free_once, p) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void double_free_second_by_its_owner(void)
{
	void *p = probe_block(SMALL, 1);
	free_in_a_thread(p);
	bad_free(p);
}

static void *free_twice(void *p)
{
	free(p);
	bad_free(p);
	return NULL;
}

static void double_free_both_by_another_thread(void)
{
	pthread_t thread;
	void *p = probe_block(SMALL, 1);
	CHECK(pthread_create(&thread, NULL, free_twice, p) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void double_free_of_a_big_block_by_two_threads(void)
{
	void *p = probe_block(BIG, 1);
	free_in_a_thread(p);
	bad_free(p);
}

/* --- double frees of a region's blocks --- */

static void free_twice_here(void *unused)
{
	(void)unused;
	bad_free(freed(SMALL));
}

static void free_newest_twice_here(void *unused)
{
	void *p = probe_block(SMALL, 1);
	(void)unused;
	free(p);
	bad_free(p);
}

static void free_long_twice_here(void *unused)
{
	(void)unused;
	bad_free(freed(MEDIUM));
}

static void free_there_and_here(void *unused)
{
	void *p = probe_block(SMALL, 1);
	probe_block(SMALL, 2);
	(void)unused;
	free_in_a_thread(p);
	bad_free(p);
}

static void double_free_in_scope(void) { run_in_scope(free_twice_here); }
static void double_free_of_the_newest_in_scope(void) { run_in_scope(free_newest_twice_here); }
static void double_free_long_in_scope(void) { run_in_scope(free_long_twice_here); }
static void double_free_in_scope_by_two_threads(void) { run_in_scope(free_there_and_here); }

static void *survivors[3];

static void leave_survivors(void *size)
{
	for (unsigned i = 0; i < 3; i++)
		survivors[i] = probe_block((size_t)(uintptr_t)size, i);
}

static void make_survivors(size_t size)
{
	CHECK(region_do, "the library has region_do");
	region_do(leave_survivors, (void *)(uintptr_t)size);
}

static void double_free_faded(void)
{
	make_survivors(SMALL);
	free(survivors[1]);
	bad_free(survivors[1]);
	probe_unblock(survivors[2], SMALL, 2);
}

static void double_free_faded_long(void)
{
	make_survivors(MEDIUM);
	free(survivors[1]);
	bad_free(survivors[1]);
	probe_unblock(survivors[2], MEDIUM, 2);
}

/* --- interior and misaligned pointers --- */

static void free_inside_small(void) { refuse_inside(SMALL, 16, bad_free); }
static void free_inside_medium(void) { refuse_inside(MEDIUM, 1600, bad_free); }
static void free_inside_large(void) { refuse_inside(LARGE, 4096, bad_free); }
static void free_inside_big(void) { refuse_inside(BIG, 65536, bad_free); }
static void free_inside_huge(void) { refuse_inside(HUGE, 4 << 20, bad_free); }
static void free_misaligned_small(void) { refuse_inside(SMALL, 1, bad_free); }
static void free_misaligned_by_8(void) { refuse_inside(SMALL, 8, bad_free); }
static void free_misaligned_big(void) { refuse_inside(BIG, 8, bad_free); }

static void free_inside_here(void *offset)
{
	refuse_inside(MEDIUM, (size_t)(uintptr_t)offset, bad_free);
}

static void in_scope_at(size_t offset)
{
	CHECK(region_do, "the library has region_do");
	region_do(free_inside_here, (void *)(uintptr_t)offset);
}

static void free_inside_in_scope(void) { in_scope_at(160); }
static void free_misaligned_in_scope(void) { in_scope_at(8); }

/* The bytes after a long block's first hold its size in the map: they must not pass for a block. */
static void free_just_inside_in_scope(void) { in_scope_at(16); }

static void free_inside_faded(void)
{
	make_survivors(SMALL);
	bad_free((char *)survivors[1] + 16);
	for (unsigned i = 0; i < 3; i++)
		probe_unblock(survivors[i], SMALL, i);
}

/* --- wild pointers --- */

/* Where nothing was ever allocated, though it is in the heap's address range. */
static void free_far_off_in_the_heap_range(void)
{
	bad_free((char *)probe_block(SMALL, 1) + ((size_t)4 << 30));
}

static void free_of_a_small_number(void) { bad_free((void *)(uintptr_t)48); }
static void free_of_a_non_canonical_address(void) { bad_free((void *)(UINT64_C(0xdead) << 48)); }
static void free_of_the_last_address(void) { bad_free((void *)~(uintptr_t)15); }

/* In a slab, a whole number of blocks from its last one. */
static void free_of_a_block_never_handed_out(void)
{
	char *last = NULL;
	for (int i = 0; i < 3; i++) {
		char *p = probe_block(900, 1);
		last = p > last ? p : last;
	}
	bad_free(last + malloc_usable_size(last) * 2);
}

static void free_ahead_here(void *unused)
{
	(void)unused;
	bad_free((char *)probe_block(SMALL, 1) + 1024);
}

static void free_ahead_of_the_cursor_in_scope(void) { run_in_scope(free_ahead_here); }

/* --- foreign pointers --- */

static void *mapped(void)
{
	char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED, "mmap serves");
	return p + 4096;
}

static long static_block[16];

static void free_of_the_stack(void)
{
	long on_the_stack[16];
	bad_free(probe_opaque(&on_the_stack[2]));
}

static void free_of_static_data(void) { bad_free(probe_opaque(&static_block[2])); }
static void free_of_a_string_constant(void) { bad_free(probe_opaque("constant")); }
static void free_of_mapped_memory(void) { bad_free(mapped()); }
static void free_of_an_environment_string(void) { bad_free(probe_opaque(environ[0])); }

/* --- realloc and malloc_usable_size --- */

static void realloc_of_freed_small(void) { bad_realloc(freed(SMALL)); }
static void realloc_of_freed_big(void) { bad_realloc(freed(BIG)); }
static void realloc_inside_small(void) { refuse_inside(SMALL, 16, bad_realloc); }
static void realloc_inside_big(void) { refuse_inside(BIG, 65536, bad_realloc); }
static void realloc_of_static_data(void) { bad_realloc(probe_opaque(&static_block[2])); }
static void realloc_of_mapped_memory(void) { bad_realloc(mapped()); }

static void realloc_freed_here(void *unused)
{
	(void)unused;
	bad_realloc(freed(SMALL));
}

static void realloc_inside_here(void *unused)
{
	(void)unused;
	refuse_inside(SMALL, 16, bad_realloc);
}

static void realloc_of_freed_in_scope(void) { run_in_scope(realloc_freed_here); }
static void realloc_inside_in_scope(void) { run_in_scope(realloc_inside_here); }

static void usable_size_of_freed_small(void) { bad_usable_size(freed(SMALL)); }
static void usable_size_of_freed_big(void) { bad_usable_size(freed(BIG)); }
static void usable_size_inside_small(void) { refuse_inside(SMALL, 16, bad_usable_size); }
static void usable_size_of_static_data(void) { bad_usable_size(probe_opaque(&static_block[2])); }

/* --- the report itself --- */

/* Programs with crash reporters: the handler runs with no lock of ours held. */
static void use_the_heap_and_exit(int signal_number)
{
	void *frames[10];
	backtrace(frames, 10);
	probe_heap_is_sound();
	_exit(signal_number == SIGABRT ? 3 : 4);
}

static void abort_handler_may_use_the_heap(void)
{
	void *frames[1];
	backtrace(frames, 1); /* loads what it needs */
	signal(SIGABRT, use_the_heap_and_exit);
	bad_free(freed(SMALL));
}

static void abort_handler_may_use_the_heap_in_scope(void)
{
	signal(SIGABRT, use_the_heap_and_exit);
	run_in_scope(free_twice_here);
}

static void *misuse_25_times(void *unused)
{
	for (int i = 0; i < 25; i++)
		free(probe_opaque(&static_block[2]));
	return unused;
}

static void reports_of_threads_do_not_mix(void)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, misuse_25_times, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

static void report_keeps_errno(void)
{
	errno = 4711;
	free(probe_opaque(&static_block[2]));
	CHECK(errno == 4711, "a reported free keeps errno");
}

/* Reports go to file descriptor 2; where there is none, or none that takes them, life goes on. */
static void report_without_stderr(void)
{
	close(STDERR_FILENO);
	free(probe_opaque(&static_block[2]));
	probe_heap_is_sound();
}

static void report_to_a_closed_pipe(void)
{
	int ends[2];
	CHECK(pipe(ends) == 0, "a pipe opens");
	signal(SIGPIPE, SIG_IGN);
	dup2(ends[1], STDERR_FILENO);
	close(ends[0]);
	close(ends[1]);
	free(probe_opaque(&static_block[2]));
	probe_heap_is_sound();
}

/* --- blocks that a scope with policy `none` has reclaimed --- */

static void reclaim(size_t size)
{
	struct region_options options = {.name = "reclaiming", .fade = REGION_FADE_NONE};
	CHECK(region_do_with, "the library has region_do_with");
	region_do_with(&options, leave_survivors, (void *)(uintptr_t)size);
}

static void late_free_is_reported_with_the_scope_s_name_and_ignored(void)
{
	reclaim(SMALL);
	free(survivors[1]);
	probe_heap_is_sound();
}

static void late_frees_of_a_scope_are_reported_once(void)
{
	reclaim(SMALL);
	for (int i = 0; i < 3; i++)
		free(survivors[i]);
	free(survivors[1]);
	probe_heap_is_sound();
}

static void late_free_of_a_long_block(void)
{
	reclaim(MEDIUM);
	free(survivors[1]);
	probe_heap_is_sound();
}

static void late_free_by_another_thread(void)
{
	reclaim(SMALL);
	free_in_a_thread(survivors[1]);
	probe_heap_is_sound();
}

/* --- the table --- */

#define REPORT "LIBREGION_ON_ERROR=report"

/* Each fault twice: it aborts, and with ON_ERROR=report it is reported only. */
#define FAULT(name_, ...) \
	{.name = #name_, .run = name_, .says = {__VA_ARGS__}, .lines = 1, .signal = SIGABRT}, \
	{.name = #name_ "_reported", .run = name_, .environment = REPORT, .says = {__VA_ARGS__}, .lines = 1}

#define REPORTED(name_, lines_, ...) \
	{.name = #name_, .run = name_, .environment = REPORT, .lines = (lines_), .says = {__VA_ARGS__}}

#define LATE(name_) {.name = #name_, .run = name_, .lines = 1, .says = {"free", "reclaiming"}}

const struct probe_case probe_cases[] = {
	FAULT(write_after_free_small, "malloc", "overwritten"),
	FAULT(write_after_free_medium, "malloc", "overwritten"),
	FAULT(write_after_free_large, "malloc", "overwritten"),
	FAULT(write_behind_a_block_before_a_free_one, "malloc", "overwritten"),
	FAULT(write_to_the_link_of_a_freed_block, "malloc", "overwritten"),
	FAULT(double_free_smallest, "free", "double free"),
	FAULT(double_free_small, "free", "double free"),
	FAULT(double_free_medium, "free", "double free"),
	FAULT(double_free_large, "free", "double free"),
	FAULT(double_free_big, "free"),
	FAULT(double_free_huge, "free"),
	FAULT(double_free_aligned, "free"),
	FAULT(double_free_after_other_frees, "free", "double free"),
	FAULT(double_free_with_all_neighbours_free, "free"),
	FAULT(double_free_through_realloc_to_zero, "free", "double free"),
	FAULT(double_free_second_by_its_owner, "free", "double free"),
	FAULT(double_free_both_by_another_thread, "free", "double free"),
	FAULT(double_free_of_a_big_block_by_two_threads, "free"),
	FAULT(double_free_in_scope, "free", "double free"),
	FAULT(double_free_of_the_newest_in_scope, "free"),
	FAULT(double_free_long_in_scope, "free", "double free"),
	FAULT(double_free_in_scope_by_two_threads, "free", "double free"),
	FAULT(double_free_faded, "free", "double free"),
	FAULT(double_free_faded_long, "free", "double free"),
	FAULT(free_inside_small, "free"),
	FAULT(free_inside_medium, "free"),
	FAULT(free_inside_large, "free"),
	FAULT(free_inside_big, "free"),
	FAULT(free_inside_huge, "free"),
	FAULT(free_inside_in_scope, "free"),
	FAULT(free_just_inside_in_scope, "free"),
	FAULT(free_inside_faded, "free"),
	FAULT(free_misaligned_small, "free"),
	FAULT(free_misaligned_by_8, "free"),
	FAULT(free_misaligned_big, "free"),
	FAULT(free_misaligned_in_scope, "free"),
	FAULT(free_far_off_in_the_heap_range, "free"),
	FAULT(free_of_a_small_number, "free"),
	FAULT(free_of_a_non_canonical_address, "free"),
	FAULT(free_of_the_last_address, "free"),
	FAULT(free_of_a_block_never_handed_out, "free"),
	FAULT(free_ahead_of_the_cursor_in_scope, "free"),
	FAULT(free_of_the_stack, "free"),
	FAULT(free_of_static_data, "free"),
	FAULT(free_of_a_string_constant, "free"),
	FAULT(free_of_mapped_memory, "free"),
	FAULT(free_of_an_environment_string, "free"),
	FAULT(realloc_of_freed_small, "realloc"),
	FAULT(realloc_of_freed_big, "realloc"),
	FAULT(realloc_of_freed_in_scope, "realloc"),
	FAULT(realloc_inside_small, "realloc"),
	FAULT(realloc_inside_big, "realloc"),
	FAULT(realloc_inside_in_scope, "realloc"),
	FAULT(realloc_of_static_data, "realloc"),
	FAULT(realloc_of_mapped_memory, "realloc"),
	FAULT(usable_size_of_freed_small, "malloc_usable_size"),
	FAULT(usable_size_of_freed_big, "malloc_usable_size"),
	FAULT(usable_size_inside_small, "malloc_usable_size"),
	FAULT(usable_size_of_static_data, "malloc_usable_size"),
	{.name = "abort_handler_may_use_the_heap", .run = abort_handler_may_use_the_heap, .lines = 1,
	 .status = 3},
	{.name = "abort_handler_may_use_the_heap_in_scope",
	 .run = abort_handler_may_use_the_heap_in_scope, .lines = 1, .status = 3},
	REPORTED(reports_of_threads_do_not_mix, 100, "free"),
	REPORTED(report_keeps_errno, 1, "free"),
	REPORTED(report_without_stderr, 0, NULL),
	REPORTED(report_to_a_closed_pipe, 0, NULL),
	LATE(late_free_is_reported_with_the_scope_s_name_and_ignored),
	LATE(late_frees_of_a_scope_are_reported_once),
	LATE(late_free_of_a_long_block),
	LATE(late_free_by_another_thread),
	{0},
};
