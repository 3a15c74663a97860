/*
 * stats.h: counting what scopes do, by thread and scope name.
 *
 * A counter set belongs to one thread and one name, and only that thread adds to it; whoever reads adds
 * up over all of them. So counting takes no lock and no atomic operation, and what a reader sees may be
 * a moment old. Sets are made when a thread first enters a scope of a name, and are never freed: what an
 * ended thread has counted is added to the process's own sets, and the thread that takes over its heap
 * starts from zero with the same sets.
 */
#ifndef LIBREGION_STATS_H
#define LIBREGION_STATS_H

#include "region.h"

struct thread;

struct counters {
	struct region_stats stats; /* only the members of REGION_STATS_MAP */
	const char *name;
	struct counters *next;     /* of the same thread */
};

static inline void stats_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void stats_max(uint64_t *counter, uint64_t n)
{
	if (__atomic_load_n(counter, __ATOMIC_RELAXED) < n)
		__atomic_store_n(counter, n, __ATOMIC_RELAXED);
}

/* The thread's counters for a name. NULL only when the system is out of memory for the very first. */
struct counters *stats_of(struct thread *thread, const char *name);

/* Adds what a thread has counted to the process's sets. */
void stats_thread_ends(struct thread *thread);

/* Guards the process's sets. */
struct lock *stats_lock(void);

/* Makes sure that statistics can be written at exit, even if the program has closed stderr by then. */
void stats_start(void);

/* Writes the statistics at exit, as LIBREGION_STATS says. */
void stats_write(void);

#endif
