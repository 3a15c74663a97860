/*
 * exhaustion.c: life with little address space. Out of memory is NULL and ENOMEM, from every function,
 * never a crash; and once something was freed, memory is there again.
 *
 * The limits are in place before the program starts, so that they also meet the library's own start.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define MB ((size_t)1 << 20)

/* A list through the blocks themselves: it needs no memory of its own. */
struct link {
	struct link *next;
};

static struct link *push(struct link *head, void *p)
{
	struct link *link = p;
	link->next = head;
	return link;
}

static void free_all(struct link *head)
{
	while (head) {
		struct link *next = head->next;
		free(head);
		head = next;
	}
}

/* Allocates blocks until there are no more; returns how many there were. */
static size_t exhaust(size_t size, struct link **all)
{
	size_t count = 0;
	void *p;
	*all = NULL;
	errno = 0;
	for (; (p = malloc(size)); count++)
		*all = push(*all, p);
	CHECK(errno == ENOMEM, "out of memory is ENOMEM, not %d", errno);
	return count;
}

static void exhausts_and_recovers(size_t size, size_t wanted_bytes)
{
	struct link *all;
	size_t first = exhaust(size, &all), again;
	CHECK(first * size >= wanted_bytes, "blocks of %zu find %zu MB, which is too little", size,
	      first * size / MB);
	free_all(all);
	for (int round = 0; round < 3; round++) {
		again = exhaust(size, &all);
		free_all(all);
		CHECK(again >= first - first / 10, "blocks of %zu: %zu at first, %zu after frees", size,
		      first, again);
	}
	probe_heap_is_sound();
}

static void small_blocks_run_out_and_come_back(void)
{
	exhausts_and_recovers(48, 32 * MB);
}

static void medium_blocks_run_out_and_come_back(void)
{
	exhausts_and_recovers(20000, 32 * MB);
}

static void big_blocks_run_out_and_come_back(void)
{
	exhausts_and_recovers(MB, 32 * MB);
}

/* Big blocks after small ones: a heap that is free again must be whole again. */
static void memory_of_small_blocks_serves_big_ones(void)
{
	struct link *all;
	size_t bytes = 100 * exhaust(100, &all);
	void *p;
	free_all(all);
	p = malloc(bytes / 4);
	CHECK(p, "after %zu MB of small blocks were freed, %zu MB are there at once", bytes / MB,
	      bytes / 4 / MB);
	memset(p, 1, bytes / 4);
	free(p);
}

static void memory_of_big_blocks_serves_small_ones(void)
{
	struct link *all;
	size_t bytes = MB * exhaust(MB, &all), count;
	free_all(all);
	count = exhaust(100, &all);
	CHECK(count * 100 > bytes / 4, "after %zu MB of big blocks, %zu MB in small ones", bytes / MB,
	      count * 100 / MB);
	free_all(all);
}

static void every_function_fails_with_enomem(void)
{
	struct link *all, *more;
	void *kept = probe_block(1000, 1), *out = kept;
	exhaust(MB, &all);
	exhaust(64, &more);
	errno = 0;
	CHECK(!calloc(4, MB) && errno == ENOMEM, "calloc fails with ENOMEM");
	errno = 0;
	CHECK(!realloc(probe_opaque(kept), 4 * MB) && errno == ENOMEM, "realloc fails with ENOMEM");
	errno = 0;
	CHECK(!memalign(4096, 4 * MB) && errno == ENOMEM, "memalign fails with ENOMEM");
	errno = 0;
	CHECK(!aligned_alloc(4096, 4 * MB) && errno == ENOMEM, "aligned_alloc fails with ENOMEM");
	errno = 0;
	CHECK(!valloc(4 * MB) && errno == ENOMEM, "valloc fails with ENOMEM");
	errno = 0;
	CHECK(!pvalloc(4 * MB) && errno == ENOMEM, "pvalloc fails with ENOMEM");
	errno = 0;
	CHECK(!reallocarray(NULL, 4, MB) && errno == ENOMEM, "reallocarray fails with ENOMEM");
	errno = 0;
	CHECK(posix_memalign(&out, 4096, 4 * MB) == ENOMEM, "posix_memalign returns ENOMEM");
	CHECK(errno == ENOMEM, "errno says so, too, as with glibc");
	CHECK(out == kept, "posix_memalign leaves the pointer alone");
	probe_unblock(kept, 1000, 1);
	free_all(all);
	free_all(more);
	probe_heap_is_sound();
}

/* No growth to be had: shrinking a block and freeing must still work. */
static void shrinking_and_freeing_need_no_memory(void)
{
	struct link *all, *more;
	void *p = probe_block(3 * MB, 2);
	exhaust(MB, &all);
	exhaust(64, &more);
	p = realloc(p, 2 * MB);
	CHECK(p, "a block shrinks when memory is out");
	p = realloc(p, 100);
	CHECK(p, "a block shrinks a lot when memory is out");
	probe_unblock(p, 100, 2);
	free_all(more);
	free_all(all);
}

/* Nor is there a block of the smaller size: then the old one is kept. */
static void shrinking_small_blocks_never_fails(void)
{
	enum { COUNT = 8 };
	static const size_t sizes[COUNT] = {60, 130, 600, 3000, 15000, 30000, 100000, 500000};
	struct link *all[4];
	void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = probe_block(sizes[i], i);
	for (int i = 0; i < 4; i++)
		exhaust((const size_t[]){MB / 8, 20000, 400, 16}[i], &all[i]);
	for (unsigned i = 0; i < COUNT; i++) {
		void *p = realloc(blocks[i], sizes[i] / 4);
		CHECK(p, "a block of %zu bytes shrinks to a quarter when memory is out", sizes[i]);
		probe_verify(p, sizes[i] / 4, i, "a smaller block is whole");
		blocks[i] = realloc(p, 10);
		CHECK(blocks[i], "a block of %zu bytes shrinks to 10 when memory is out", sizes[i]);
	}
	for (unsigned i = 0; i < COUNT; i++)
		probe_unblock(blocks[i], 10, i);
	for (int i = 0; i < 4; i++)
		free_all(all[i]);
	probe_heap_is_sound();
}

/* 300 MB in all sizes, under what `ulimit -v 2000000` sets. */
static void mixed_sizes_work_under_a_limit(void)
{
	static void *blocks[3000];
	static size_t sizes[3000];
	unsigned state = 99;
	for (unsigned i = 0; i < 3000; i++) {
		sizes[i] = (size_t)probe_random(&state) % ((size_t)1 << (8 + i % 12)) * (i % 7 ? 1 : 2);
		blocks[i] = probe_block(sizes[i], i);
	}
	for (unsigned i = 0; i < 3000; i++)
		probe_unblock(blocks[i], sizes[i], i);
	free(probe_block(200 * MB, 1));
}

/* --- threads --- */

static void *exhaust_and_free(void *unused)
{
	for (int i = 0; i < 3; i++) {
		struct link *small, *big;
		exhaust(100000, &big);
		exhaust(400, &small);
		free_all(big);
		free_all(small);
	}
	return unused;
}

static int start_threads(pthread_t *threads, int wanted, void *(*body)(void *))
{
	pthread_attr_t attributes;
	int started = 0;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	while (started < wanted && pthread_create(&threads[started], &attributes, body, NULL) == 0)
		started++;
	pthread_attr_destroy(&attributes);
	return started;
}

static void join_threads(pthread_t *threads, int count)
{
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void threads_that_exhaust_memory_survive(void)
{
	pthread_t threads[4];
	int started = start_threads(threads, 4, exhaust_and_free);
	CHECK(started == 4, "threads start");
	join_threads(threads, started);
	probe_heap_is_sound();
}

static void *allocate_if_possible(void *unused)
{
	for (size_t size = 1; size < 100000; size *= 3) {
		void *p = malloc(size);
		CHECK(p || errno == ENOMEM, "out of memory is ENOMEM in a new thread too");
		free(p);
	}
	return unused;
}

/* Nothing is left when they start: their first malloc finds neither a heap of theirs nor memory. */
static void threads_started_without_memory_survive(void)
{
	pthread_t threads[20];
	struct link *all, *more;
	int started;
	void *room = malloc(16 * MB);
	CHECK(room, "malloc serves");
	exhaust(MB, &all);
	exhaust(16, &more);
	started = start_threads(threads, 20, allocate_if_possible);
	join_threads(threads, started);
	free(room);
	free_all(all);
	free_all(more);
	started = start_threads(threads, 20, allocate_if_possible);
	CHECK(started == 20, "threads start again when memory is there again");
	join_threads(threads, started);
	probe_heap_is_sound();
}

/* --- the data segment --- */

static void limited_data_segment_gives_enomem(void)
{
	exhausts_and_recovers(5000, 16 * MB);
}

#define WITHIN(name_, megabytes_) {.name = #name_, .run = name_, .address_space = (megabytes_) << 20}

const struct probe_case probe_cases[] = {
	WITHIN(small_blocks_run_out_and_come_back, (size_t)256),
	WITHIN(medium_blocks_run_out_and_come_back, (size_t)256),
	WITHIN(big_blocks_run_out_and_come_back, (size_t)256),
	WITHIN(memory_of_small_blocks_serves_big_ones, (size_t)256),
	WITHIN(memory_of_big_blocks_serves_small_ones, (size_t)256),
	WITHIN(every_function_fails_with_enomem, (size_t)256),
	WITHIN(shrinking_and_freeing_need_no_memory, (size_t)256),
	{.name = "shrinking_small_blocks_never_fails", .run = shrinking_small_blocks_never_fails,
	 .environment = "LIBREGION_HEAP_RANGE=32M"},
	{.name = "mixed_sizes_work_under_a_limit", .run = mixed_sizes_work_under_a_limit,
	 .address_space = (size_t)2000000 << 10},
	WITHIN(threads_that_exhaust_memory_survive, (size_t)400),
	WITHIN(threads_started_without_memory_survive, (size_t)256),
	{.name = "limited_data_segment_gives_enomem", .run = limited_data_segment_gives_enomem,
	 .data_segment = 64 * MB},
	{0},
};
