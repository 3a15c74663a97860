/*
 * corruption.c: writes to where no block in use is, and frees through stale pointers to memory that is in use
 * again. fault.c has the calls that are wrong by themselves; here every call is right, or looks so, and what
 * has gone wrong before shows in it. The kinds are those that collections of faulty programs
 * have (mimalloc-bench's "security" among them).
 */
#define _GNU_SOURCE
#include "probe.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

enum { SMALL = 48, MEDIUM = 4096, BIG = 256 << 10 };

/* --- a free block was written to: whichever call comes upon it says so --- */

static void *overwritten(size_t size)
{
	char *p = probe_block(size, 1);
	free(p);
	memset(probe_opaque(p), 'A', size);
	probe_expect("%p", (void *)p);
	return p;
}

static void calloc_comes_upon_a_write_after_free(void)
{
	overwritten(SMALL);
	for (int i = 0; i < 10; i++)
		CHECK(calloc(1, SMALL), "calloc serves");
	probe_heap_is_sound();
}

static void realloc_comes_upon_a_write_after_free(void)
{
	void *p = probe_block(16, 1);
	overwritten(MEDIUM);
	for (int i = 0; i < 10; i++)
		CHECK(realloc(probe_opaque(malloc(16)), MEDIUM), "realloc serves");
	probe_unblock(p, 16, 1);
	probe_heap_is_sound();
}

static void memalign_comes_upon_a_write_after_free(void)
{
	void *p = memalign(64, 128);
	free(p);
	memset(probe_opaque(p), 'A', 64);
	probe_expect("%p", p);
	for (int i = 0; i < 100; i++)
		CHECK(memalign(64, 128), "memalign serves");
	probe_heap_is_sound();
}

/* The usual case: freed, written, and the size is allocated and freed all the time. */
static void write_after_free_shows_while_others_come_and_go(void)
{
	overwritten(SMALL);
	for (int i = 0; i < 10000; i++)
		free(probe_opaque(malloc(SMALL)));
}

static void *free_there(void *p)
{
	free(p);
	return NULL;
}

/* The block is on its way to its owner when it is written. */
static void write_after_a_free_by_another_thread(void)
{
	enum { COUNT = 1000 };
	static char *blocks[COUNT];
	pthread_t thread;
	for (int i = 0; i < COUNT; i++)
		blocks[i] = probe_block(SMALL, 1);
	for (int i = 0; i < COUNT; i += 100) {
		CHECK(pthread_create(&thread, NULL, free_there, blocks[i]) == 0, "a thread starts");
		pthread_join(thread, NULL);
	}
	memset(probe_opaque(blocks[500]), 'A', SMALL);
	probe_expect("%p", (void *)blocks[500]);
	for (int i = 0; i < 10 * COUNT; i++)
		CHECK(malloc(SMALL), "malloc serves");
}

/* --- overflows --- */

/* Into a free neighbour, by a copy that is too long. */
static void overflow_by(size_t size, size_t excess)
{
	char *p = probe_block(size, 1), *q = probe_block(size, 2);
	CHECK(q == p + size, "neighbours: %p, %p", (void *)p, (void *)q);
	free(q);
	memset(probe_opaque(p), 'A', size + excess);
	probe_expect("%p", (void *)q);
	for (int i = 0; i < 10; i++)
		CHECK(malloc(size), "malloc serves");
	probe_heap_is_sound();
}

static void overflow_of_32_bytes_small(void) { overflow_by(SMALL, 32); }
static void overflow_of_32_bytes_medium(void) { overflow_by(MEDIUM, 32); }
static void overflow_of_8_bytes_large(void) { overflow_by(20480, 8); }

/* A small program's heap ends soon: there is nothing a megabyte behind its only block. */
static void write_far_behind_the_heap(void)
{
	char *p = probe_block(8, 1);
	((volatile char *)probe_opaque(p))[1 << 20] = 'A';
}

static void write_far_behind_a_big_block(void)
{
	char *p = probe_block(BIG, 1);
	((volatile char *)probe_opaque(p))[BIG + (1 << 20)] = 'A';
}

/* Code in a block: data is never run. */
static void call_of_a_block(void)
{
	unsigned char *p = malloc(SMALL);
	p[0] = 0xc3; /* ret */
	((void (*)(void))(uintptr_t)probe_opaque(p))();
}

/* --- stale pointers to memory that is in use again --- */

/* The second free through the old pointer takes the new owner's block; the owner's own free tells. */
static void owner_frees_what_a_stale_pointer_has_freed(size_t size)
{
	char *old = probe_block(size, 1), *owner;
	probe_block(size, 2);
	free(old);
	owner = malloc(size);
	CHECK(owner == old, "the block is in use again");
	free(probe_opaque(old));
	probe_expect("%p", (void *)owner);
	free(owner);
	probe_heap_is_sound();
}

static void double_free_after_reuse_small(void) { owner_frees_what_a_stale_pointer_has_freed(SMALL); }
static void double_free_after_reuse_medium(void) { owner_frees_what_a_stale_pointer_has_freed(MEDIUM); }
static void double_free_after_reuse_big(void) { owner_frees_what_a_stale_pointer_has_freed(BIG); }

static void double_free_interleaved(void)
{
	void *a = probe_block(SMALL, 1), *b = probe_block(SMALL, 2);
	free(a);
	free(b);
	probe_expect("%p", a);
	free(probe_opaque(a));
	probe_heap_is_sound();
}

/* --- frees beside a block --- */

static void refused(char *block, size_t size, ptrdiff_t offset)
{
	probe_expect("%p", (void *)(block + offset));
	free(probe_opaque(block + offset));
	probe_unblock(block, size, 1);
	probe_heap_is_sound();
}

static void free_of_the_end_of_a_big_block(void)
{
	char *p = probe_block(BIG, 1);
	refused(p, BIG, BIG);
}

static void free_of_16_bytes_before_a_block(void)
{
	probe_block(SMALL, 2);
	refused(probe_block(SMALL, 1), SMALL, -16);
}

static void free_of_an_odd_address(void) { refused(probe_block(SMALL, 1), SMALL, 7); }

#define REPORT "LIBREGION_ON_ERROR=report"

/* Each twice: it aborts, and with ON_ERROR=report it is reported and the program runs on. */
#define FAULT(name_, ...) \
	{.name = #name_, .run = name_, .says = {__VA_ARGS__}, .lines = 1, .signal = SIGABRT}, \
	{.name = #name_ "_reported", .run = name_, .environment = REPORT, .says = {__VA_ARGS__}, .lines = 1}

#define CRASH(name_) {.name = #name_, .run = name_, .signal = SIGSEGV}

const struct probe_case probe_cases[] = {
	FAULT(calloc_comes_upon_a_write_after_free, "overwritten"),
	FAULT(realloc_comes_upon_a_write_after_free, "overwritten"),
	FAULT(memalign_comes_upon_a_write_after_free, "overwritten"),
	FAULT(write_after_free_shows_while_others_come_and_go, "malloc", "overwritten"),
	FAULT(write_after_a_free_by_another_thread, "malloc", "overwritten"),
	FAULT(overflow_of_32_bytes_small, "malloc", "overwritten"),
	FAULT(overflow_of_32_bytes_medium, "malloc", "overwritten"),
	FAULT(overflow_of_8_bytes_large, "malloc", "overwritten"),
	CRASH(write_far_behind_the_heap),
	CRASH(write_far_behind_a_big_block),
	CRASH(call_of_a_block),
	FAULT(double_free_after_reuse_small, "free", "double free"),
	FAULT(double_free_after_reuse_medium, "free", "double free"),
	FAULT(double_free_after_reuse_big, "free"),
	FAULT(double_free_interleaved, "free", "double free"),
	FAULT(free_of_the_end_of_a_big_block, "free"),
	FAULT(free_of_16_bytes_before_a_block, "free"),
	FAULT(free_of_an_odd_address, "free"),
	{0},
};
