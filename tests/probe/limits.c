/*
 * limits.c: a program that lowers its limit of address space when it runs has the room that the limit leaves,
 * whatever the library had reserved before.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define MB ((size_t)1 << 20)
#define GB ((size_t)1 << 30)

static void *touch(void *size)
{
	free(memset(malloc((size_t)(uintptr_t)size), 1, (size_t)(uintptr_t)size));
	return NULL;
}

static void room_is_there(void)
{
	pthread_t thread;
	void *p = mmap(NULL, 64 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED, "the program may map memory");
	CHECK(pthread_create(&thread, NULL, touch, (void *)(uintptr_t)MB) == 0, "a thread starts");
	pthread_join(thread, NULL);
	munmap(p, 64 * MB);
	touch((void *)(uintptr_t)(100 * MB));
	probe_heap_is_sound();
}

static void lower(size_t bytes)
{
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_AS, &limit) == 0, "the limit can be read");
	limit.rlim_cur = bytes;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "the limit can be lowered");
}

static void lowering_leaves_room(void)
{
	char *p = probe_block(MB, 1), *q = probe_block(100, 2);
	lower(GB);
	room_is_there();
	probe_unblock(p, MB, 1);
	probe_unblock(q, 100, 2);
}

static void lowering_twice_leaves_room(void)
{
	lower(16 * GB);
	room_is_there();
	lower(GB);
	room_is_there();
}

static void prlimit_leaves_room(void)
{
	struct rlimit limit = {GB, RLIM_INFINITY}, old, now;
	CHECK(prlimit(0, RLIMIT_AS, &limit, &old) == 0 && old.rlim_cur == RLIM_INFINITY, "it says what was");
	room_is_there();
	CHECK(prlimit(getpid(), RLIMIT_AS, NULL, &now) == 0 && now.rlim_cur == GB, "it says what is");
}

static void prlimit_by_its_own_number_leaves_room(void)
{
	struct rlimit limit = {GB, RLIM_INFINITY};
	CHECK(prlimit(getpid(), RLIMIT_AS, &limit, NULL) == 0, "the limit can be lowered");
	room_is_there();
}

/* What the heap may take is half of what there is. */
static void memory_runs_out_and_comes_back(void)
{
	enum { COUNT = 2000 };
	static void *blocks[COUNT];
	int count = 0;
	lower(GB);
	while (count < COUNT && (blocks[count] = malloc(MB)))
		count++;
	CHECK(count >= 200 && count < 1024, "%d MB are served", count);
	CHECK(errno == ENOMEM, "then ENOMEM");
	for (int i = 0; i < count; i++)
		free(blocks[i]);
	room_is_there();
}

static void other_limits_are_left_alone(void)
{
	struct rlimit limit = {0, 0};
	CHECK(setrlimit(RLIMIT_CORE, &limit) == 0, "another limit can be set");
	CHECK(setrlimit((__rlimit_resource_t)12345, &limit) == -1 && errno == EINVAL, "what isn't one is EINVAL");
	CHECK(prlimit(-5, RLIMIT_AS, &limit, NULL) == -1 && errno != 0, "nor is that process");
	void *p = malloc(3 * GB);
	CHECK(p, "the heap is as large as before");
	free(p);
}

static void children_may_have_less(void)
{
	int pid = fork();
	if (pid == 0) {
		lower(GB);
		room_is_there();
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 20) == 0, "the child has room");
	void *p = malloc(3 * GB);
	CHECK(p, "the parent's heap is as large as before");
	free(p);
}

/* It has its parent's memory. */
static void limit_of_a_vfork_child_is_not_the_parent_s(void)
{
	volatile int pid = vfork();
	if (pid == 0) {
		struct rlimit limit = {GB, RLIM_INFINITY};
		setrlimit(RLIMIT_AS, &limit);
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 20) == 0, "the child ends");
	void *p = malloc(3 * GB);
	CHECK(p, "the parent's heap is as large as before");
	free(p);
}

static volatile bool is_done;

static void *churn(void *unused)
{
	unsigned state = (unsigned)(uintptr_t)&state | 1;
	while (!is_done)
		touch((void *)(uintptr_t)(1 + probe_random(&state) % 100000));
	return unused;
}

static void threads_allocate_meanwhile(void)
{
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0, "a thread starts");
	for (size_t bytes = 64 * GB; bytes >= GB; bytes /= 2) {
		lower(bytes);
		room_is_there();
	}
	is_done = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void *first_place, **holder = &first_place;

static void leave(void *unused)
{
	(void)unused;
	*holder = probe_block(100, 3);
	for (int i = 0; i < 100; i++)
		malloc(100);
}

/* What is mapped where the library had reserved memory is searched like any other. */
static void searches_see_what_takes_the_place(void)
{
	char *p = probe_block(100, 1);
	CHECK(region_do, "the library has region_do");
	region_do(leave, NULL);
	malloc_trim(0);
	lower(GB);
	p = (char *)((uintptr_t)p & ~(uintptr_t)4095) + 8 * GB;
	holder = mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
	              -1, 0);
	CHECK((char *)holder == p, "the place is free");
	for (int i = 0; i < 20; i++) {
		region_do(leave, NULL);
		malloc_trim(0);
		malloc_trim(0);
		probe_unblock(*holder, 100, 3);
	}
	room_is_there();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(lowering_leaves_room),
	CASE(lowering_twice_leaves_room),
	CASE(prlimit_leaves_room),
	CASE(prlimit_by_its_own_number_leaves_room),
	CASE(memory_runs_out_and_comes_back),
	CASE(other_limits_are_left_alone),
	CASE(children_may_have_less),
	CASE(limit_of_a_vfork_child_is_not_the_parent_s),
	CASE(threads_allocate_meanwhile),
	{.name = "searches_see_what_takes_the_place", .run = searches_see_what_takes_the_place,
	 .environment = "LIBREGION_FADE=reachable"},
	{0},
};
