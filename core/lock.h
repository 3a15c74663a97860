/*
 * lock.h: a mutual exclusion lock that fork() can be taken through.
 *
 * A lock knows the thread that holds it, so that a fork() in a signal handler which interrupted that
 * very thread inside a critical section doesn't wait for itself: lock_before_fork() passes a lock that
 * the thread already holds, and the handlers after the fork leave it held. Everywhere else a thread
 * never takes a lock twice.
 *
 * Order: statistics, shared heap, heaps, buffers, pool, reservation. Nothing is called with a lock held
 * that could run code of the host program.
 */
#ifndef LIBREGION_LOCK_H
#define LIBREGION_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct lock {
	uintptr_t word;       /* 0, or an address that only the holder has; bit 0: somebody may be waiting */
	uint32_t fork_passes; /* forks that found the lock held by their own thread */
};

void lock_acquire(struct lock *lock);
void lock_release(struct lock *lock);

/* Takes the lock if that needs no waiting. */
bool lock_try(struct lock *lock);

/* Around fork(): the first before it, the others after it, in the parent and in the child. */
void lock_before_fork(struct lock *lock);
void lock_after_fork_in_parent(struct lock *lock);
void lock_after_fork_in_child(struct lock *lock);

#endif
