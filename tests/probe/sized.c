/*
 * sized.c: frees that are told a size which the block can't have: an object was taken for another.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

/* C23's, which the library has and libc here doesn't. */
extern void free_sized(void *p, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));


/* operator delete(void *, size_t), and the aligned one, by the names that C++ compilers call them by. */
extern void sized_delete(void *p, size_t size) __asm__("_ZdlPvm") __attribute__((weak));
extern void aligned_delete(void *p, size_t size, size_t align) __asm__("_ZdlPvmSt11align_val_t")
	__attribute__((weak));

enum { SMALL = 48, MEDIUM = 5000, BIG = 200000 };

static void too_large(size_t size, size_t told)
{
	void *p = probe_block(size, 1);
	probe_expect("%p", p);
	free_sized(probe_opaque(p), told);
	probe_heap_is_sound();
}

static void small_block(void) { too_large(1, 72); }
static void small_block_by_one_granule(void) { too_large(SMALL, SMALL + 1); }
static void medium_block(void) { too_large(MEDIUM, 2 * MEDIUM); }
static void big_block(void) { too_large(BIG, 2 * BIG); }

static void by_operator_delete(void)
{
	void *p = probe_block(8, 1);
	probe_expect("%p", p);
	sized_delete(probe_opaque(p), 72);
	probe_heap_is_sound();
}

static void by_aligned_delete(void)
{
	void *p = aligned_alloc(64, 64);
	probe_expect("%p", p);
	aligned_delete(probe_opaque(p), 640, 64);
	probe_heap_is_sound();
}

static void by_free_aligned_sized(void)
{
	void *p = aligned_alloc(64, 64);
	probe_expect("%p", p);
	free_aligned_sized(probe_opaque(p), 64, 640);
	probe_heap_is_sound();
}

static void *free_it(void *p)
{
	free_sized(p, SMALL + 100);
	return NULL;
}

static void by_another_thread(void)
{
	pthread_t thread;
	void *p = probe_block(SMALL, 1);
	probe_expect("%p", p);
	CHECK(pthread_create(&thread, NULL, free_it, p) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void here(void *unused)
{
	(void)unused;
	too_large(SMALL, SMALL + 1);
}

static void in_scope(void)
{
	CHECK(region_do, "the library has region_do");
	region_do(here, NULL);
}

/* What is right, or can't be told from it, is left alone. */
static void right_sizes_pass(void)
{
	for (size_t size = 1; size < 300000; size += size / 3 + 1) {
		free_sized(probe_block(size, 1), size);
		sized_delete(probe_block(size, 1), size);
	}
	free_sized(NULL, 100);
	sized_delete(NULL, 100);
	sized_delete(probe_block(100, 1), 1);
	probe_heap_is_sound();
}

#define REPORT "LIBREGION_ON_ERROR=report"
#define FAULT(name_) \
	{.name = #name_, .run = name_, .says = {"sized free"}, .lines = 1, .signal = SIGABRT}, \
	{.name = #name_ "_reported", .run = name_, .says = {"sized free"}, .lines = 1, .environment = REPORT}

const struct probe_case probe_cases[] = {
	FAULT(small_block),
	FAULT(small_block_by_one_granule),
	FAULT(medium_block),
	FAULT(big_block),
	FAULT(by_operator_delete),
	FAULT(by_aligned_delete),
	FAULT(by_free_aligned_sized),
	FAULT(by_another_thread),
	FAULT(in_scope),
	{.name = "right_sizes_pass", .run = right_sizes_pass},
	{0},
};
