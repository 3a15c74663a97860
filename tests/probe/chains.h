/*
 * chains.h: chains of blocks that a scope leaves behind, with one pointer to them, and searches.
 *
 * A case leaves a chain of three blocks in a scope, with one pointer to it, in one place. Then other scopes
 * leave garbage, so that searches are made, and the chain must be whole: what is reclaimed is cleared.
 */
#ifndef PROBE_CHAINS_H
#define PROBE_CHAINS_H

#include "scoped.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATTERN_BYTES = 104, CHAIN = 3 };

struct link {
	struct link *next;
	unsigned char pattern[PATTERN_BYTES];
};

typedef void store(uintptr_t pointer);

/* Makes a chain in a scope; `put` is the only one to get the pointer. */
static inline void leave_chain(void *put)
{
	struct link *first = NULL;
	store **stores = put;
	for (unsigned i = CHAIN; i-- > 0;) {
		struct link *link = malloc(sizeof(*link));
		link->next = first;
		probe_fill(link->pattern, PATTERN_BYTES, i);
		first = link;
	}
	(*stores)((uintptr_t)first);
}

static __attribute__((noinline, unused)) void make_chain(store *put)
{
	region_do(leave_chain, &put);
}

static inline void leave_garbage(void *unused)
{
	for (int i = 0; i < 3000; i++) {
		void **p = malloc(96);
		memset(probe_opaque(p), 0, 96);
	}
	(void)unused;
}

static inline uint64_t searches(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return stats.searches;
}

/* Clears what calls before have left on the stack, below the caller's frame. */
static __attribute__((noinline, unused)) void clear_stack(void)
{
	volatile char room[8192];
	memset((char *)(uintptr_t)room, 0, sizeof(room));
}

static __attribute__((noinline, unused)) void search(void)
{
	uint64_t before = searches();
	clear_stack();
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
	CHECK(searches() >= before + 3, "searches are made: %d", (int)(searches() - before));
}

static __attribute__((noinline, unused)) bool is_whole(const struct link *link)
{
	unsigned char wanted[PATTERN_BYTES];
	for (unsigned i = 0; i < CHAIN; i++, link = link->next) {
		probe_fill(wanted, PATTERN_BYTES, i);
		if (!link || memcmp(wanted, link->pattern, PATTERN_BYTES) != 0)
			return false;
	}
	return true;
}

static inline void stays(uintptr_t pointer, const char *where)
{
	CHECK(is_whole((const struct link *)pointer), "a chain stays whose only pointer is %s", where);
}

/* A pointer that no search sees. */
#define KEY ((uintptr_t)0x5555555555555555u)

static uintptr_t hidden;

static inline void put_hidden(uintptr_t pointer)
{
	hidden = pointer ^ KEY;
}

/* A thread that has a chain, in some way, until it is told to show it. */
static sem_t is_ready, may_go_on;
static volatile int may_stop_spinning;

static inline void wait_until_searched(void)
{
	sem_post(&is_ready);
	while (sem_wait(&may_go_on) != 0)
		continue;
}

static inline void test_thread(void *(*body)(void *))
{
	pthread_t thread;
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	CHECK(pthread_create(&thread, NULL, body, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	usleep(1000);
	search();
	may_stop_spinning = 1;
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
}

/* The least that makes a search, so that each case is quick. */
#define SMALL "LIBREGION_WAIT_BYTES=64k LIBREGION_WAIT_SHARE=0"
#define CASE(name_) {.name = #name_, .run = name_, .environment = SMALL}
#define WITH(name_, environment_) {.name = #name_, .run = name_, .environment = SMALL " " environment_}

#endif
