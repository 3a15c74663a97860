/*
 * threads.c: threads come and go, and pass blocks around; memory doesn't care which of them allocated
 * it, and stays flat.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define MB ((size_t)1 << 20)

typedef void *body(void *);

static pthread_t start(body *run, void *argument)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, run, argument) == 0, "a thread starts");
	return thread;
}

static void run_in_thread(body *run, void *argument)
{
	pthread_join(start(run, argument), NULL);
}

static void run_in_threads(int count, body *run)
{
	pthread_t threads[16];
	for (int i = 0; i < count; i++)
		threads[i] = start(run, (void *)(intptr_t)i);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void *work_a_little(void *unused)
{
	void *blocks[100];
	for (unsigned i = 0; i < 100; i++)
		blocks[i] = probe_block(i * 30, i);
	for (unsigned i = 0; i < 100; i++)
		probe_unblock(blocks[i], i * 30, i);
	free(malloc(200000));
	return unused;
}

static void stays_flat(size_t before, size_t allowed, const char *rule)
{
	size_t now = probe_resident();
	CHECK(now < before + allowed, "%s: %zu KB more", rule, (now - before) >> 10);
}

static void thread_churn_keeps_memory_flat(void)
{
	long count = probe_count(10000);
	size_t before;
	for (int i = 0; i < 500; i++)
		run_in_thread(work_a_little, NULL);
	before = probe_resident();
	for (long i = 0; i < count; i++)
		run_in_thread(work_a_little, NULL);
	stays_flat(before, 2 * MB, "short threads leave nothing behind");
}

static void churn_of_threads_at_once_keeps_memory_flat(void)
{
	size_t before;
	for (int i = 0; i < 50; i++)
		run_in_threads(8, work_a_little);
	before = probe_resident();
	for (int i = 0; i < 400; i++)
		run_in_threads(8, work_a_little);
	stays_flat(before, 4 * MB, "short threads at once leave nothing behind");
}

/* --- blocks that outlive the thread that allocated them --- */

enum { LEFT = 500 };
static void *left_behind[LEFT];

static void *leave_blocks(void *unused)
{
	for (unsigned i = 0; i < LEFT; i++)
		left_behind[i] = probe_block(i * 13, i);
	return unused;
}

static void *take_blocks(void *unused)
{
	for (unsigned i = 0; i < LEFT; i++)
		probe_unblock(left_behind[i], i * 13, i);
	return unused;
}

static void blocks_of_exited_threads_can_be_freed(void)
{
	size_t before = 0;
	for (int round = 0; round < 500; round++) {
		run_in_thread(leave_blocks, NULL);
		take_blocks(NULL);
		if (round == 50)
			before = probe_resident();
	}
	stays_flat(before, 4 * MB, "what is freed after its thread's end is used again");
}

static void blocks_of_exited_threads_can_be_freed_by_new_threads(void)
{
	size_t before = 0;
	for (int round = 0; round < 500; round++) {
		run_in_thread(leave_blocks, NULL);
		run_in_thread(take_blocks, NULL);
		if (round == 50)
			before = probe_resident();
	}
	stays_flat(before, 4 * MB, "what a later thread frees is used again");
}

static void blocks_of_exited_threads_can_be_reallocated(void)
{
	run_in_thread(leave_blocks, NULL);
	for (unsigned i = 0; i < LEFT; i++) {
		left_behind[i] = realloc(left_behind[i], i * 13 + 5000);
		probe_verify(left_behind[i], i * 13, i, "realloc keeps an exited thread's block");
		free(left_behind[i]);
	}
	probe_heap_is_sound();
}

static void *use_16_mb(void *unused)
{
	static void *blocks[16384];
	for (int i = 0; i < 16384; i++) {
		blocks[i] = malloc(1000);
		memset(blocks[i], 1, 1000);
	}
	for (int i = 0; i < 16384; i++)
		free(blocks[i]);
	return unused;
}

static void memory_of_exited_threads_is_reused(void)
{
	size_t before = probe_resident();
	for (int i = 0; i < 50; i++)
		run_in_thread(use_16_mb, NULL);
	stays_flat(before, 64 * MB, "50 threads, one after another, with 16 MB each");
}

/* One block in a hundred stays: the rest of what an exited thread had must serve the next one. */
static void *use_16_mb_and_leave_some(void *kept)
{
	static void *blocks[16384];
	for (int i = 0; i < 16384; i++) {
		blocks[i] = malloc(1000);
		memset(blocks[i], 1, 1000);
	}
	for (int i = 0; i < 16384; i++)
		if (i % 100)
			free(blocks[i]);
	*(void **)kept = blocks[0];
	return NULL;
}

static void partly_used_memory_of_exited_threads_is_reused(void)
{
	size_t before = probe_resident();
	void *kept[30];
	for (int i = 0; i < 30; i++)
		run_in_thread(use_16_mb_and_leave_some, &kept[i]);
	stays_flat(before, 80 * MB, "30 threads with 16 MB each of which 160 KB stay");
}

/* --- passing blocks around --- */

enum { SLOTS = 256 };
static void *slots[SLOTS];

/* The first word of a block in a slot is its size; the rest is a pattern. */
static void put(unsigned *state)
{
	size_t size = 16 + probe_random(state) % (probe_random(state) % 50 ? 1000 : 100000);
	size_t *p = malloc(size);
	void *old;
	CHECK(p, "malloc serves");
	p[0] = size;
	probe_fill(p + 1, size - sizeof(*p), (unsigned)size);
	old = __atomic_exchange_n(&slots[probe_random(state) % SLOTS], p, __ATOMIC_ACQ_REL);
	if (!old)
		return;
	size = *(size_t *)old;
	probe_verify((size_t *)old + 1, size - sizeof(*p), (unsigned)size, "a passed block is whole");
	free(old);
}

static void *pass_around(void *which)
{
	unsigned state = 77 + (unsigned)(intptr_t)which;
	for (long i = probe_count(30000); i > 0; i--)
		put(&state);
	return NULL;
}

static void threads_pass_blocks_around(void)
{
	size_t before = probe_resident();
	run_in_threads(4, pass_around);
	stays_flat(before, 64 * MB, "blocks freed elsewhere are used again");
}

/* --- one allocates, the other frees: 400 MB pass through --- */

static pthread_barrier_t barrier;
static void *batch[2000];

static void *produce(void *unused)
{
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 2000; i++)
			batch[i] = memset(malloc(1000), 1, 1000);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
	}
	return unused;
}

static void *consume(void *unused)
{
	for (int round = 0; round < 200; round++) {
		pthread_barrier_wait(&barrier);
		for (int i = 0; i < 2000; i++)
			free(batch[i]);
		pthread_barrier_wait(&barrier);
	}
	return unused;
}

static void blocks_freed_elsewhere_are_used_again(void)
{
	size_t before = probe_resident();
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_t consumer = start(consume, NULL);
	produce(NULL);
	pthread_join(consumer, NULL);
	stays_flat(before, 32 * MB, "a producer gets back what its consumer frees");
}

/* --- the end of a thread --- */

static pthread_key_t keys[20];
static int destructor_runs;

/* Comes back in every round of destructors there is, long after the library's own has run. */
static void allocate_at_the_end(void *block)
{
	uintptr_t key = *(uintptr_t *)block;
	free(block);
	__atomic_add_fetch(&destructor_runs, 1, __ATOMIC_RELAXED);
	work_a_little(NULL);
	block = malloc(64);
	*(uintptr_t *)block = key;
	pthread_setspecific(keys[key], block);
}

static void *set_all_keys(void *unused)
{
	for (uintptr_t i = 0; i < 20; i++) {
		uintptr_t *block = malloc(64);
		*block = i;
		pthread_setspecific(keys[i], block);
	}
	return unused;
}

static void key_destructors_may_allocate_and_free(void)
{
	for (int i = 0; i < 20; i++)
		CHECK(pthread_key_create(&keys[i], allocate_at_the_end) == 0, "a key is made");
	for (int i = 0; i < 20; i++)
		run_in_thread(set_all_keys, NULL);
	CHECK(destructor_runs >= 20 * 20 * 3, "destructors come round: %d", destructor_runs);
	probe_heap_is_sound();
}

/* A destructor alone touches the heap: the thread never had one before. */
static void first_touch(void *value)
{
	(void)value;
	work_a_little(NULL);
}

static void *only_set_a_key(void *unused)
{
	pthread_setspecific(keys[0], &keys);
	return unused;
}

static void first_allocation_may_come_in_a_key_destructor(void)
{
	size_t before = 0;
	CHECK(pthread_key_create(&keys[0], first_touch) == 0, "a key is made");
	for (int i = 0; i < 1000; i++) {
		run_in_thread(only_set_a_key, NULL);
		if (i == 100)
			before = probe_resident();
	}
	stays_flat(before, 2 * MB, "allocations at a thread's end leave nothing behind");
}

/* libc frees buffers of its own after all destructors: those of dlerror and strerror. */
static void *make_libc_keep_buffers(void *unused)
{
	CHECK(!dlopen("libthere-is-no-such-library.so", RTLD_NOW), "there is no such library");
	CHECK(strlen(strerror(123456)) > 0, "strerror has a text");
	return unused;
}

static void libc_frees_its_buffers_at_the_end_of_a_thread(void)
{
	for (int i = 0; i < 100; i++)
		run_in_thread(make_libc_keep_buffers, NULL);
	probe_heap_is_sound();
}

static void threads_with_the_smallest_stack_can_allocate(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	CHECK(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) == 0, "it is a size");
	for (int i = 0; i < 10; i++) {
		CHECK(pthread_create(&thread, &attributes, work_a_little, NULL) == 0, "a thread starts");
		pthread_join(thread, NULL);
	}
}

static void stack_of_a_thread_may_be_a_block(void)
{
	enum { STACK = 256 << 10 };
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	for (int i = 0; i < 100; i++) {
		void *stack = memalign(4096, STACK);
		CHECK(pthread_attr_setstack(&attributes, stack, STACK) == 0, "a block is a stack");
		CHECK(pthread_create(&thread, &attributes, work_a_little, NULL) == 0, "a thread starts");
		pthread_join(thread, NULL);
		free(stack);
	}
}

static void *detach_and_work(void *unused)
{
	pthread_detach(pthread_self());
	return work_a_little(unused);
}

static void detached_threads_leave_nothing_behind(void)
{
	size_t before = probe_resident();
	for (int i = 0; i < 2000; i++) {
		start(detach_and_work, NULL);
		if (i % 20 == 0)
			usleep(1000);
	}
	usleep(100000);
	stays_flat(before, 32 * MB, "detached threads leave nothing behind");
}

static void *work_until_cancelled(void *unused)
{
	while (!unused) {
		work_a_little(unused);
		pthread_testcancel();
	}
	return unused;
}

static void cancelled_threads_leave_a_sound_heap(void)
{
	for (int i = 0; i < 100; i++) {
		pthread_t thread = start(work_until_cancelled, NULL);
		usleep(500);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	probe_heap_is_sound();
}

/* pthread_exit in main: the process ends with its last thread. */
static pthread_t main_thread;

static void *outlive_main(void *unused)
{
	pthread_join(main_thread, NULL);
	take_blocks(NULL);
	probe_heap_is_sound();
	exit(0);
	return unused;
}

static void main_thread_may_end_first(void)
{
	main_thread = pthread_self();
	leave_blocks(NULL);
	start(outlive_main, NULL);
	pthread_exit(NULL);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(thread_churn_keeps_memory_flat),
	CASE(churn_of_threads_at_once_keeps_memory_flat),
	CASE(blocks_of_exited_threads_can_be_freed),
	CASE(blocks_of_exited_threads_can_be_freed_by_new_threads),
	CASE(blocks_of_exited_threads_can_be_reallocated),
	CASE(memory_of_exited_threads_is_reused),
	CASE(partly_used_memory_of_exited_threads_is_reused),
	CASE(threads_pass_blocks_around),
	CASE(blocks_freed_elsewhere_are_used_again),
	CASE(key_destructors_may_allocate_and_free),
	CASE(first_allocation_may_come_in_a_key_destructor),
	CASE(libc_frees_its_buffers_at_the_end_of_a_thread),
	CASE(threads_with_the_smallest_stack_can_allocate),
	CASE(stack_of_a_thread_may_be_a_block),
	CASE(detached_threads_leave_nothing_behind),
	CASE(cancelled_threads_leave_a_sound_heap),
	CASE(main_thread_may_end_first),
	{0},
};
