/*
 * null.c: malloc(0): addresses that are like any other block's for malloc's functions, and that nobody can
 * read from or write to.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

/* C23's, which the library has and libc here doesn't. */
extern void free_sized(void *p, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));

/* More than one span has. */
enum { MANY = 10000 };

static void *null_block(void)
{
	void *p = malloc(probe_opaque_size(0));
	CHECK(p, "malloc(0) serves");
	return probe_opaque(p);
}

/* --- without access --- */

static void reading_it_is_a_fault(void) { probe_opaque_size(*(volatile unsigned char *)null_block()); }
static void writing_to_it_is_a_fault(void) { *(volatile char *)null_block() = 'A'; }

static void reading_it_after_its_free_is_a_fault(void)
{
	void *p = null_block();
	free(p);
	probe_opaque_size(*(volatile unsigned char *)probe_opaque(p));
}

static void writing_to_a_block_realloc_has_left_is_a_fault(void)
{
	void *p = null_block();
	CHECK(realloc(p, 100) != p, "realloc moves it");
	*(volatile char *)probe_opaque(p) = 'A';
}

/* Where misuse is only reported, programs that write there run on. */
static void writing_to_it_runs_on_where_misuse_is_reported(void)
{
	*(volatile char *)null_block() = 'A';
	free(null_block());
	probe_heap_is_sound();
}

/* --- like any other block --- */

static void addresses_are_unique(void)
{
	static char *blocks[MANY];
	for (int i = 0; i < MANY; i++)
		blocks[i] = null_block();
	for (int i = 1; i < MANY; i++)
		for (int j = i > 5 ? i - 5 : 0; j < i; j++)
			CHECK(blocks[i] != blocks[j] && (uintptr_t)blocks[i] % 16 == 0, "%p and %p",
			      (void *)blocks[i], (void *)blocks[j]);
	for (int i = 0; i < MANY; i++)
		free(blocks[i * 7919L % MANY]);
	probe_heap_is_sound();
}

static void it_has_no_usable_bytes(void)
{
	CHECK(malloc_usable_size(null_block()) == 0, "nothing is usable");
	CHECK(malloc_usable_size(calloc(0, 5)) == 0, "nor after calloc");
}

static void realloc_copies_nothing(void)
{
	void *p = null_block();
	p = realloc(p, 100);
	CHECK(p && malloc_usable_size(p) >= 100, "it grows");
	memset(p, 1, 100);
	free(p);
	CHECK(!realloc(null_block(), 0), "realloc(p, 0) frees it");
	CHECK(!realloc(null_block(), PTRDIFF_MAX) && errno == ENOMEM, "what is too large fails");
	probe_heap_is_sound();
}

static void any_of_the_frees_takes_it(void)
{
	free(null_block());
	free_sized(null_block(), 0);
	free_aligned_sized(null_block(), 16, 0);
	errno = 4711;
	free(null_block());
	CHECK(errno == 4711, "free keeps errno");
}

static void free_one_here(void *p)
{
	free(p);
	CHECK(malloc(0), "malloc(0) serves in a scope");
}

static void a_scope_may_free_it(void)
{
	CHECK(region_do, "the library has region_do");
	for (int i = 0; i < MANY; i++)
		region_do(free_one_here, null_block());
	probe_heap_is_sound();
}

static void copying_it_out_gives_another(void)
{
	void *p = null_block(), *q = region_copy_out(p);
	CHECK(q && q != p && malloc_usable_size(q) == 0, "a copy of nothing is a block of nothing");
	free(p);
	free(q);
}

static void *work(void *exchange)
{
	void **places = exchange;
	unsigned state = (unsigned)(uintptr_t)&state | 1;
	for (int i = 0; i < 50000; i++) {
		void **place = &places[probe_random(&state) % 64];
		free(__atomic_exchange_n(place, null_block(), __ATOMIC_ACQ_REL));
	}
	return NULL;
}

static void threads_pass_them_around(void)
{
	static void *exchange[64];
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, work, exchange) == 0, "a thread starts");
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 64; i++)
		free(exchange[i]);
	probe_heap_is_sound();
}

static void forked_children_have_them(void)
{
	static void *exchange[64];
	pthread_t thread;
	void *p = null_block();
	CHECK(pthread_create(&thread, NULL, work, exchange) == 0, "a thread starts");
	for (int i = 0; i < 20; i++) {
		int pid = fork();
		if (pid == 0) {
			free(p);
			free(null_block());
			_exit(0);
		}
		CHECK(probe_wait_child(pid, 10) == 0, "the child ends well");
	}
	pthread_join(thread, NULL);
	free(p);
}

/* So many that ordinary blocks have to do for the last of them. */
static void there_are_as_many_as_memory_allows(void)
{
	enum { COUNT = 1200000 };
	void **blocks = malloc(COUNT * sizeof(*blocks));
	for (int i = 0; i < COUNT; i++)
		blocks[i] = null_block();
	for (int i = 0; i < COUNT; i++)
		free(blocks[i]);
	free(blocks);
	probe_heap_is_sound();
}

static void they_leave_nothing_behind(void)
{
	static void *blocks[MANY];
	size_t before = 0;
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < MANY; i++)
			blocks[i] = null_block();
		for (int i = 0; i < MANY; i++)
			free(blocks[i]);
		before = round == 10 ? probe_resident() : before;
	}
	CHECK(probe_resident() < before + (1 << 20), "%zu bytes more", probe_resident() - before);
}

/* --- misuse --- */

static void bad_free(void *p)
{
	probe_expect("%p", p);
	free(probe_opaque(p));
	probe_heap_is_sound();
}

static void double_free(void)
{
	void *p = null_block();
	free(p);
	bad_free(p);
}

static void free_inside(void) { bad_free((char *)null_block() + 8); }
static void free_of_one_never_handed_out(void) { bad_free((char *)null_block() + 4096); }

static void realloc_of_a_freed_one(void)
{
	void *p = null_block();
	free(p);
	CHECK(!realloc(probe_opaque(p), 10), "realloc refuses");
}

#define CASE(name_) {.name = #name_, .run = name_}
#define CRASH(name_) {.name = #name_, .run = name_, .signal = SIGSEGV}

/* With LIBREGION_ON_ERROR=report there are no such blocks. */
#define FAULT(name_, ...) {.name = #name_, .run = name_, .says = {__VA_ARGS__}, .lines = 1, .signal = SIGABRT}

const struct probe_case probe_cases[] = {
	CRASH(reading_it_is_a_fault),
	CRASH(writing_to_it_is_a_fault),
	CRASH(reading_it_after_its_free_is_a_fault),
	CRASH(writing_to_a_block_realloc_has_left_is_a_fault),
	{.name = "writing_to_it_runs_on_where_misuse_is_reported",
	 .run = writing_to_it_runs_on_where_misuse_is_reported, .environment = "LIBREGION_ON_ERROR=report"},
	CASE(addresses_are_unique),
	CASE(it_has_no_usable_bytes),
	CASE(realloc_copies_nothing),
	CASE(any_of_the_frees_takes_it),
	CASE(a_scope_may_free_it),
	CASE(copying_it_out_gives_another),
	CASE(threads_pass_them_around),
	CASE(forked_children_have_them),
	CASE(there_are_as_many_as_memory_allows),
	CASE(they_leave_nothing_behind),
	FAULT(double_free, "free", "double free"),
	FAULT(free_inside, "free", "not the start of a block"),
	FAULT(free_of_one_never_handed_out, "free", "not the start of a block"),
	FAULT(realloc_of_a_freed_one, "realloc"),
	{0},
};
