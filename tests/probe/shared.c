/*
 * shared.c: shared regions: any thread allocates at any time, resets reach all of them, and nobody's
 * memory goes to somebody else before its thread has taken notice.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

enum { THREADS = 8, COUNT = 2000 };

static region_t *r;
static pthread_barrier_t barrier;

static region_t *a_shared_region(void)
{
	return region_of((struct region_options){.name = "shared", .shared = 1});
}

/* Runs body(0) to body(count - 1) at once. */
static void in_threads(unsigned count, void *(*body)(void *))
{
	pthread_t threads[64];
	static unsigned numbers[64];
	pthread_barrier_init(&barrier, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		numbers[i] = i;
		CHECK(pthread_create(&threads[i], NULL, body, &numbers[i]) == 0, "a thread starts");
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
}

static size_t size_of(unsigned i)
{
	return i % 500 == 499 ? 100000 : 1 + i % 300;
}

static void *fill(void *number)
{
	void *blocks[COUNT];
	unsigned seed = *(unsigned *)number * 1000;
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = block_of(r, size_of(i), seed + i);
	for (unsigned i = 0; i < COUNT; i++) {
		verify(blocks[i], size_of(i), seed + i);
		CHECK(region_contains(r, blocks[i]), "block %u is the region's", i);
	}
	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < COUNT; i++)
		verify(blocks[i], size_of(i), seed + i);
	return NULL;
}

static void all_threads_allocate_at_once(void)
{
	r = a_shared_region();
	for (int round = 0; round < 5; round++) {
		in_threads(THREADS, fill);
		region_is_sound(r);
		region_reset(r);
	}
	region_destroy(r);
	probe_heap_is_sound();
}

static void *fill_by_the_local_part(void *number)
{
	void *blocks[COUNT];
	unsigned seed = *(unsigned *)number * 1000;
	region_t *local = region_local(r);
	CHECK(local && region_local(r) == local, "a thread has one part");
	for (int round = 0; round < 20; round++) {
		for (unsigned i = 0; i < COUNT; i++)
			blocks[i] = i % 10 ? block_of(local, size_of(i), seed + i) : block_of(r, size_of(i), seed + i);
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < COUNT; i++)
			verify(blocks[i], size_of(i), seed + i);
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			region_reset(r);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void local_parts_live_through_resets(void)
{
	r = a_shared_region();
	in_threads(THREADS, fill_by_the_local_part);
	CHECK(region_len(r) == 0, "it was reset last: %zu", region_len(r));
	region_is_sound(r);
	region_destroy(r);
}

static void local_part_of_a_region_that_is_not_shared_is_itself(void)
{
	region_t *region = a_region();
	CHECK(region_local(region) == region, "it has no parts");
	region_destroy(region);
}

/* A block is the thread's until it allocates again, whatever others do, resets included. */
static atomic_bool over;

static void *hold_one_block(void *number)
{
	unsigned seed = *(unsigned *)number;
	region_t *local = region_local(r);
	while (!atomic_load(&over)) {
		void *block = block_of(local, 1 + seed % 900, seed);
		for (int i = 0; i < 10; i++)
			verify(block, 1 + seed % 900, seed);
		seed += THREADS;
	}
	return NULL;
}

static void *reset_all_the_time(void *number)
{
	if (*(unsigned *)number != 0)
		return hold_one_block(number);
	double end = probe_seconds_now() + 2;
	while (probe_seconds_now() < end) {
		region_reset(r);
		usleep(100);
	}
	atomic_store(&over, true);
	return NULL;
}

static void resets_reach_threads_at_their_next_block_only(void)
{
	r = a_shared_region();
	in_threads(THREADS, reset_all_the_time);
	region_is_sound(r);
	region_destroy(r);
}

static void *one_block(void *unused)
{
	(void)unused;
	return block_of(r, 300, 7);
}

static void blocks_outlive_their_threads(void)
{
	void *blocks[500];
	r = a_shared_region();
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 500; i++)
			blocks[i] = in_thread(one_block, NULL);
		for (int i = 0; i < 500; i++)
			verify(blocks[i], 300, 7);
		CHECK(region_len(r) >= 500 * 304, "they are counted: %zu", region_len(r));
		region_reset(r);
	}
	region_destroy(r);
}

static void threads_that_end_leave_nothing_behind(void)
{
	size_t before = 0;
	r = a_shared_region();
	for (int i = 0; i < 5000; i++) {
		in_thread(one_block, NULL);
		if (i % 10 == 9)
			region_reset(r);
		if (i == 500)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 4 * MIB, "their parts are used again: %zu, %zu", before,
	      probe_resident());
	CHECK(region_cap(r) <= 16 * MIB, "its buffers, too: %zu", region_cap(r));
	region_destroy(r);
}

static void shared_regions_come_and_go_under_their_threads(void)
{
	size_t before = 0;
	for (int i = 0; i < 2000; i++) {
		r = a_shared_region();
		in_thread(one_block, NULL);
		block_of(r, 100, 1);
		region_destroy(r);
		if (i == 200)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + 4 * MIB, "nothing is left behind: %zu, %zu", before,
	      probe_resident());
}

static void *many_regions(void *number)
{
	static region_t *regions[100];
	unsigned own = *(unsigned *)number;
	if (own == 0)
		for (int i = 0; i < 100; i++)
			regions[i] = a_shared_region();
	pthread_barrier_wait(&barrier);
	for (unsigned round = 0; round < 50; round++)
		for (unsigned i = 0; i < 100; i++)
			verify(block_of(regions[i], 64, own + i), 64, own + i);
	pthread_barrier_wait(&barrier);
	for (unsigned i = own; i < 100; i += THREADS)
		region_destroy(regions[i]);
	return NULL;
}

static void threads_use_many_shared_regions(void)
{
	in_threads(THREADS, many_regions);
	probe_heap_is_sound();
}

static void *largest(void *number)
{
	(void)number;
	void *block = block_of(r, 40 * MIB, 3);
	pthread_barrier_wait(&barrier);
	verify(block, 40 * MIB, 3);
	return NULL;
}

static void there_is_no_limit_but_memory(void)
{
	r = a_shared_region();
	in_threads(4, largest);
	CHECK(region_cap(r) >= 160 * MIB, "each has its own: %zu", region_cap(r));
	region_reset(r);
	CHECK(region_cap(r) <= 16 * MIB, "reset keeps what it may: %zu", region_cap(r));
	region_destroy(r);
}

static void fill_by_malloc(void *blocks)
{
	for (unsigned i = 0; i < COUNT; i++)
		((void **)blocks)[i] = probe_block(size_of(i), i);
}

static void *fill_within(void *number)
{
	void *blocks[COUNT];
	(void)number;
	region_within(r, fill_by_malloc, blocks);
	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < COUNT; i++) {
		verify(blocks[i], size_of(i), i);
		CHECK(region_contains(r, blocks[i]), "a block of malloc inside is the region's");
	}
	for (unsigned i = 0; i < COUNT; i += 2)
		free(blocks[i]);
	return NULL;
}

static void threads_are_within_it_at_once(void)
{
	r = a_shared_region();
	for (int round = 0; round < 5; round++) {
		in_threads(THREADS, fill_within);
		region_reset(r);
	}
	region_destroy(r);
	probe_heap_is_sound();
}

static atomic_uint ended;

static void count_end(void *unused)
{
	(void)unused;
	atomic_fetch_add(&ended, 1);
}

static void *add_calls(void *number)
{
	(void)number;
	for (int i = 0; i < COUNT; i++)
		CHECK(region_on_end(r, count_end, NULL) == 0, "a callback is taken");
	return NULL;
}

static void threads_add_callbacks_at_once(void)
{
	r = a_shared_region();
	in_threads(THREADS, add_calls);
	region_reset(r);
	CHECK(ended == THREADS * COUNT, "each was called once: %u", ended);
	region_destroy(r);
}

static void *keep_allocating(void *unused)
{
	(void)unused;
	while (!atomic_load(&over)) {
		for (int i = 0; i < 200; i++)
			verify(block_of(r, 100, 5), 100, 5);
		usleep(100);
	}
	return NULL;
}

/* With buffers put back all the time. */
static void *keep_resetting(void *unused)
{
	(void)unused;
	while (!atomic_load(&over)) {
		for (int i = 0; i < 20; i++)
			verify(block_of(r, 50000, 5), 50000, 5);
		region_reset(r);
	}
	return NULL;
}

static void go_on_in_the_child(void)
{
	region_is_sound(r);
	verify(block_of(region_local(r), 50, 1), 50, 1);
	region_reset(r);
	region_is_sound(r);
	region_destroy(r);
	r = a_shared_region();
	region_is_sound(r);
	region_destroy(r);
	_exit(0);
}

static void fork_while_others(void *(*work)(void *), int times)
{
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0, "a thread starts");
	for (int i = 0; i < times; i++) {
		pid_t child = fork();
		if (child == 0)
			go_on_in_the_child();
		CHECK(probe_wait_child(child, 20) == 0, "child %d does well", i);
	}
	atomic_store(&over, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void fork_while_others_allocate(void)
{
	r = a_shared_region();
	void *before = block_of(r, 1000, 1);
	fork_while_others(keep_allocating, (int)probe_count(50));
	verify(before, 1000, 1);
	region_destroy(r);
	probe_heap_is_sound();
}

static void fork_while_others_reset(void)
{
	r = region_of((struct region_options){.shared = 1, .buffer_size = 65536, .growth = 100,
	                                      .keep_bytes = 200000});
	fork_while_others(keep_resetting, (int)probe_count(50));
	region_is_sound(r);
	region_destroy(r);
	probe_heap_is_sound();
}

static void len_and_cap_add_up_over_threads(void)
{
	r = a_shared_region();
	in_threads(THREADS, fill);
	size_t least = 0;
	for (unsigned i = 0; i < COUNT; i++)
		least += THREADS * ((size_of(i) + 15) / 16 * 16);
	CHECK(region_len(r) == least, "length when all threads have ended: %zu, not %zu", region_len(r), least);
	CHECK(region_peak(r) >= least && region_cap(r) >= least, "peak and capacity: %zu, %zu",
	      region_peak(r), region_cap(r));
	region_reset(r);
	CHECK(region_len(r) == 0, "nothing is in it: %zu", region_len(r));
	region_destroy(r);
}

const struct probe_case probe_cases[] = {
	CASE(all_threads_allocate_at_once),
	CASE(local_parts_live_through_resets),
	CASE(local_part_of_a_region_that_is_not_shared_is_itself),
	CASE(resets_reach_threads_at_their_next_block_only),
	CASE(blocks_outlive_their_threads),
	CASE(threads_that_end_leave_nothing_behind),
	CASE(shared_regions_come_and_go_under_their_threads),
	CASE(threads_use_many_shared_regions),
	CASE(there_is_no_limit_but_memory),
	CASE(threads_are_within_it_at_once),
	CASE(threads_add_callbacks_at_once),
	CASE(fork_while_others_allocate),
	CASE(fork_while_others_reset),
	CASE(len_and_cap_add_up_over_threads),
	{0},
};
