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

#include <stdbool.h>

#include "core/core.h"
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

/* Where all sets are found from; for who looks from outside (inspect.c). */
extern struct stats_roots {
	struct heap *heaps;     /* all that threads have had */
	struct counters *ended; /* what threads that have ended have counted, by name */
	struct lock lock;       /* guards that */
} stats_roots __attribute__((visibility("hidden")));

/* A thread has got its heap. */
void stats_thread_begins(void);

/* Guards the process's sets. */
struct lock *stats_lock(void);

/* What one heap's thread has counted. */
void stats_read_heap(const struct heap *heap, struct region_stats *stats);

/* Calls visit once for each name that some scope was entered under, with what it sums to. */
typedef void stats_visit(void *arg, const char *name, const struct region_stats *stats);
void stats_each_name(stats_visit *visit, void *arg);

/* Writing (stats_write.c). There must be one writer at a time. */
enum stats_form { STATS_TEXT, STATS_JSON, STATS_PROMETHEUS };

struct stats_moment {
	enum stats_form form;
	const char *reason;          /* "exit", "signal" or "interval" */
	uint64_t start_ms, clock_ms; /* of the process's start, and now; of the system's monotonic clock */
};

void stats_write(int fd, const struct stats_moment *moment);

/* When and where to (stats_dump.c). */
#define STATS_AT_ONCE 1u

extern struct stats_dumps {
	uint64_t next_ms;  /* when the next dump is due; STATS_AT_ONCE; 0: never */
	uint64_t start_ms;
	uint64_t period_ms; /* from one to the next, unless a timer tells; 0: there is none */
	int fd;            /* where they go, if that isn't a file */
	int writer_id;     /* process that wrote last: this one, or one that it was forked from; 0: none */
	bool is_busy;      /* a thread is writing */
	bool is_wanted;    /* and is to write once more */
	bool has_failed;   /* a file couldn't be written, and that was said */
} stats_dumps __attribute__((visibility("hidden")));

/* Options are read: keeps a way to write even if the program closes stderr. */
void stats_start(void);

/* libc can be used: handles the signal, and starts the timer. */
void stats_start_signal(void);
void stats_after_fork_in_child(void);

/* The process ends. */
void stats_finish(void);

/* Writes what is due; called now and then, with no lock held, where a dozen nanoseconds don't matter. */
void stats_dump_if_due(void);

static inline void stats_tick(void)
{
	if (__builtin_expect(__atomic_load_n(&stats_dumps.next_ms, __ATOMIC_RELAXED) != 0, 0))
		stats_dump_if_due();
}

#endif
