/*
 * churn.c: freeing inside a scope is real. What was freed is used again before the scope ends, so that a
 * long scope stays near its live bytes, whoever frees, and even when memory has run out.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_FORM;

#define MB ((size_t)1 << 20)

static const struct region_options unfreed = {.name = "unfreed", .fade = REGION_FADE_UNFREED};

static void stays_flat(size_t before, size_t allowed, const char *rule)
{
	size_t now = probe_resident();
	CHECK(now < before + allowed, "%s: %zu KB more", rule, (now - before) >> 10);
}

/* A ring of live blocks; each round frees the oldest and allocates anew. */
static void churn(size_t total, size_t live, size_t (*size_of)(unsigned *))
{
	enum { SLOTS = 1 << 16 };
	static struct { void *p; size_t size; } ring[SLOTS];
	unsigned state = 31;
	size_t in, out = 0, held = 0, passed = 0;
	for (in = 0; passed < total; in++) {
		size_t size = size_of(&state);
		while (held + size > live || in - out == SLOTS) {
			probe_verify(ring[out % SLOTS].p, 8, (unsigned)out, "a live block is whole");
			held -= ring[out % SLOTS].size;
			free(ring[out++ % SLOTS].p);
		}
		ring[in % SLOTS].p = malloc(size);
		ring[in % SLOTS].size = size;
		CHECK(ring[in % SLOTS].p, "malloc serves");
		memset(ring[in % SLOTS].p, 0, size);
		probe_fill(ring[in % SLOTS].p, 8, (unsigned)in);
		held += size;
		passed += size;
	}
	for (; out < in; out++)
		free(ring[out % SLOTS].p);
}

static size_t always_200(unsigned *state)
{
	(void)state;
	return 200;
}

static size_t small_and_mixed(unsigned *state)
{
	return 16 + probe_random(state) % 500;
}

static size_t up_to_20000(unsigned *state)
{
	return 16 + probe_random(state) % (probe_random(state) % 16 ? 1000 : 20000);
}

typedef size_t size_chooser(unsigned *state);
static size_chooser *chosen;

static void churn_here(void *unused)
{
	size_t before;
	(void)unused;
	churn(16 * MB, MB, chosen);
	before = probe_resident();
	churn((size_t)probe_count(1000) * MB, MB, chosen);
	stays_flat(before, 4 * MB, "a gigabyte passes through a scope with one megabyte live");
}

static void churn_stays_small(size_chooser *sizes)
{
	size_t before = probe_resident();
	chosen = sizes;
	region_do_with(&unfreed, churn_here, NULL);
	stays_flat(before, 12 * MB, "the whole scope stays small");
}

static void churn_of_one_size_stays_small(void) { churn_stays_small(always_200); }
static void churn_of_mixed_sizes_stays_small(void) { churn_stays_small(small_and_mixed); }
static void churn_of_wide_sizes_stays_small(void) { churn_stays_small(up_to_20000); }

/* Another thread frees what the scope allocates. */
static pthread_barrier_t barrier;
static void *batch[1000];
enum { ROUNDS = 300 };

static void *free_batches(void *unused)
{
	for (int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		for (int i = 0; i < 1000; i++)
			probe_unblock(batch[i], 500, (unsigned)i);
		pthread_barrier_wait(&barrier);
	}
	return unused;
}

static void allocate_batches(void *unused)
{
	size_t before = 0;
	(void)unused;
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 1000; i++)
			batch[i] = probe_block(500, (unsigned)i);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
		if (round == 10)
			before = probe_resident();
	}
	stays_flat(before, 8 * MB, "150 MB pass through a scope and another thread's frees");
}

static void frees_by_another_thread_are_used_again_in_the_scope(void)
{
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	CHECK(pthread_create(&thread, NULL, free_batches, NULL) == 0, "a thread starts");
	region_do_with(&unfreed, allocate_batches, NULL);
	pthread_join(thread, NULL);
}

static void grow_a_string(void *unused)
{
	size_t before = probe_resident();
	(void)unused;
	for (int round = 0; round < 2000; round++) {
		char *text = NULL;
		for (size_t size = 36; size < 36 * 100; size += 36) {
			text = realloc(text, size);
			memset(text + size - 36, 'x', 36);
		}
		free(text);
	}
	stays_flat(before, 2 * MB, "growing strings use their memory again");
}

static void growing_strings_stay_small(void)
{
	region_do_with(&unfreed, grow_a_string, NULL);
}

/* A list through the blocks themselves, until there is no more memory; how many there were. */
static size_t exhaust(void)
{
	void **all = NULL, **block;
	size_t count = 0;
	errno = 0;
	for (; (block = malloc(48)); count++) {
		*block = all;
		all = block;
	}
	CHECK(errno == ENOMEM, "out of memory is ENOMEM, not %d", errno);
	while (all) {
		block = *all;
		free(all);
		all = block;
	}
	return count;
}

static void exhaust_again_and_again(void *unused)
{
	size_t first = exhaust(), again;
	(void)unused;
	for (int round = 0; round < 3; round++) {
		again = exhaust();
		CHECK(again >= first - first / 10, "%zu blocks at first, %zu after frees", first, again);
	}
}

static void exhausted_scope_uses_freed_memory_again(void)
{
	region_do_with(&unfreed, exhaust_again_and_again, NULL);
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(churn_of_one_size_stays_small),
	CASE(churn_of_mixed_sizes_stays_small),
	CASE(churn_of_wide_sizes_stays_small),
	CASE(frees_by_another_thread_are_used_again_in_the_scope),
	CASE(growing_strings_stay_small),
	{.name = "exhausted_scope_uses_freed_memory_again",
	 .run = exhausted_scope_uses_freed_memory_again,
	 .environment = "LIBREGION_HEAP_RANGE=64M"},
	{0},
};
