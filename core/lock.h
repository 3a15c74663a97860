/*
 * lock.h: a mutual exclusion lock that fork() can be taken through.
 *
 * A thread knows whether it holds or awaits any lock, so that a fork() in a signal handler which
 * interrupted that very thread doesn't wait for itself, nor for somebody who waits for it: then the
 * fork takes no lock at all. The child of such a fork may only do what is safe in a signal handler, says
 * POSIX; the locks that other threads held are free there, and those of its own thread stay held, for the
 * interrupted code to go on. Outside of fork() a thread never takes a lock twice.
 *
 * Order: counted slabs, pools of regions, regions as objects, statistics, shared heap, heaps, buffers, pool,
 * reservation. Nothing is called with a lock held that could run code of the host program.
 */
#ifndef LIBREGION_LOCK_H
#define LIBREGION_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct lock {
	uintptr_t word; /* 0, or an address that only the holder has; bit 0: somebody may be waiting */
};

void lock_acquire(struct lock *lock);
void lock_release(struct lock *lock);

/* Takes the lock if that needs no waiting. */
bool lock_try(struct lock *lock);

/* Does the calling thread hold or await any? Then it is in a signal handler that has interrupted it. */
bool lock_is_held_by_thread(void);

/* Around all the others below: the calling thread begins a fork; it is done, in the parent or the child. */
void lock_fork_begins(void);
void lock_fork_is_done(void);

/* Around fork(): the first before it, the others after it, in the parent and in the child. */
void lock_before_fork(struct lock *lock);
void lock_after_fork_in_parent(struct lock *lock);
void lock_after_fork_in_child(struct lock *lock);

#endif
