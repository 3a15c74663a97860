/*
 * figures.c: mallinfo2, malloc_info and malloc_stats agree with what the program knows it holds, to the byte
 * where nothing else goes on.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define KB ((size_t)1 << 10)
#define MB ((size_t)1 << 20)

enum { COUNT = 5000, THREADS = 4 };

static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();
	CHECK(info.arena == info.uordblks + info.fordblks, "what isn't in use is free");
	return info.uordblks + info.hblkhd;
}

static void *blocks[COUNT];

/* Takes blocks; the bytes that they have. */
static size_t take(size_t count, size_t size)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		blocks[i] = probe_block(size, 1);
		bytes += malloc_usable_size(blocks[i]);
	}
	return bytes;
}

/* Gives the first of them back; the bytes that they had. */
static size_t give(size_t count, size_t size)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		bytes += malloc_usable_size(blocks[i]);
		probe_unblock(blocks[i], size, 1);
	}
	return bytes;
}

static void blocks_count_with_their_bytes(void)
{
	for (size_t size = 1; size < 40 * KB; size += size / 2 + 1) {
		size_t before = in_use(), bytes = take(1000, size), now = in_use();
		CHECK(now == before + bytes, "1000 blocks of %zu: %zu and not %zu", size, now - before, bytes);
		bytes -= give(500, size);
		CHECK(in_use() == before + bytes, "half of them: %zu and not %zu", in_use() - before, bytes);
		for (int i = 500; i < 1000; i++)
			probe_unblock(blocks[i], size, 1);
		CHECK(in_use() == before, "none: %zu", in_use() - before);
	}
}

static void big_blocks_are_those_mapped(void)
{
	struct mallinfo2 before = mallinfo2(), now;
	size_t bytes = take(30, MB + 5);
	now = mallinfo2();
	CHECK(now.hblks == before.hblks + 30, "30 more: %zu, %zu", before.hblks, now.hblks);
	CHECK(now.hblkhd == before.hblkhd + bytes, "of %zu bytes", now.hblkhd - before.hblkhd);
	CHECK(now.uordblks == before.uordblks, "and nothing else");
	give(30, MB + 5);
	CHECK(mallinfo2().hblks == before.hblks, "as many as before");
}

static void *held_until(void *barrier)
{
	void *own[1000];
	for (int i = 0; i < 1000; i++)
		own[i] = probe_block(1000, 2);
	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	for (int i = 0; i < 1000; i++)
		probe_unblock(own[i], 1000, 2);
	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	return NULL;
}

static size_t distance(size_t a, size_t b)
{
	return a > b ? a - b : b - a;
}

static void threads_add_up(void)
{
	pthread_t threads[THREADS];
	pthread_barrier_t barrier;
	size_t before, bytes = malloc_usable_size(malloc(1000)) * 1000 * THREADS;
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	before = in_use();
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, held_until, &barrier);
	pthread_barrier_wait(&barrier);
	/* What libc keeps for a thread is a few hundred bytes. */
	CHECK(distance(in_use(), before + bytes) < 16 * KB, "%zu of %zu", in_use() - before, bytes);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	CHECK(distance(in_use(), before) < 16 * KB, "none is left: %zu, %zu", in_use(), before);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void *free_all(void *unused)
{
	give(COUNT, 500);
	return unused;
}

/* What a thread has collected for others and not sent. */
static void frees_by_others_show_when_they_arrive(void)
{
	pthread_t thread;
	size_t before = in_use(), bytes = take(COUNT, 500);
	CHECK(in_use() == before + bytes, "all: %zu of %zu", in_use() - before, bytes);
	pthread_create(&thread, NULL, free_all, NULL);
	pthread_join(thread, NULL);
	malloc_trim(0);
	CHECK(in_use() < before + 64 * KB, "the rest: %zu", in_use() - before);
}

static volatile bool is_done;

static void *churn(void *unused)
{
	void *own[100] = {0};
	unsigned state = (unsigned)(uintptr_t)&state | 1;
	while (!is_done) {
		void **place = &own[probe_random(&state) % 100];
		free(*place);
		*place = malloc(probe_random(&state) % 1000);
	}
	for (int i = 0; i < 100; i++)
		free(own[i]);
	return unused;
}

static void figures_hold_while_threads_work(void)
{
	pthread_t threads[THREADS];
	size_t before = in_use(), bytes = take(COUNT, 2000);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, churn, NULL);
	for (int i = 0; i < 200; i++) {
		size_t now = in_use();
		CHECK(now >= before + bytes && now < before + bytes + MB, "%zu of %zu", now - before, bytes);
		CHECK(mallinfo2().arena < 64 * MB, "the heap isn't larger than it is");
	}
	is_done = true;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void inside(void *unused)
{
	size_t before = in_use(), bytes = take(1000, 100);
	(void)unused;
	CHECK(in_use() == before + bytes, "what lives in a region: %zu of %zu", in_use() - before, bytes);
	give(900, 100);
	CHECK(in_use() == before + bytes / 10, "what was freed doesn't: %zu", in_use() - before);
}

static void blocks_of_regions_count_while_they_live(void)
{
	struct region_options options = {.fade = REGION_FADE_UNFREED};
	CHECK(region_do_with, "the library has region_do_with");
	size_t before = in_use();
	region_do_with(&options, inside, NULL);
	for (int i = 900; i < 1000; i++)
		probe_unblock(blocks[i], 100, 1);
	CHECK(distance(in_use(), before) < 4 * KB, "none is left: %zu", in_use() - before);
}

/* The number that follows a text, from `from` on. */
static size_t figure(const char *from, const char *text)
{
	size_t n;
	const char *at = strstr(from, text);
	CHECK(at && sscanf(at + strlen(text), "%zu", &n) == 1, "there is %s", text);
	return n;
}

static void malloc_info_says_the_same(void)
{
	static char text[64 * 1024];
	FILE *stream = fmemopen(text, sizeof(text) - 1, "w");
	take(COUNT, 300);
	for (int i = 0; i < COUNT; i += 2)
		probe_unblock(blocks[i], 300, 1);
	blocks[0] = probe_block(MB, 1);
	setvbuf(stream, NULL, _IONBF, 0);
	CHECK(malloc_info(0, stream) == 0, "malloc_info answers 0");
	struct mallinfo2 info = mallinfo2();
	const char *all = strstr(text, "</heap>");
	CHECK(all, "there is a heap");
	CHECK(figure(all, "type=\"mmap\" count=\"") == info.hblks, "big blocks");
	CHECK(figure(all, "type=\"current\" size=\"") == info.arena + info.hblkhd, "what the system has given");
	CHECK(figure(all, "type=\"rest\" count=\"") == info.ordblks, "free blocks");
	CHECK(figure(text, "type=\"current\" size=\"") == info.arena, "all but big blocks");
	size_t sum = 0, rest = figure(strstr(text, "type=\"rest\""), "size=\"");
	for (const char *at = text; (at = strstr(at, "<size from")); at++)
		sum += figure(at, "total=\"");
	CHECK(sum == rest && sum <= info.fordblks, "free blocks by size: %zu of %zu", sum, rest);
	CHECK(figure(all, "type=\"max\" size=\"") >= info.arena + info.hblkhd, "the most isn't less than now");
}

static void malloc_stats_says_the_same(void)
{
	struct mallinfo2 info;
	take(COUNT, 300);
	info = mallinfo2();
	probe_expect("in use bytes     = %10zu", info.uordblks);
	probe_expect("system bytes     = %10zu", info.arena + info.hblkhd);
	probe_expect("in use bytes     = %10zu", info.uordblks + info.hblkhd);
	malloc_stats();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(blocks_count_with_their_bytes),
	CASE(big_blocks_are_those_mapped),
	CASE(threads_add_up),
	CASE(frees_by_others_show_when_they_arrive),
	CASE(figures_hold_while_threads_work),
	CASE(blocks_of_regions_count_while_they_live),
	CASE(malloc_info_says_the_same),
	{.name = "malloc_stats_says_the_same", .run = malloc_stats_says_the_same, .lines = PROBE_ANY_LINES},
	{0},
};
