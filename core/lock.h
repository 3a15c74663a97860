/*
 * lock.h: a mutual exclusion lock that fork() can be taken through.
 *
 * A thread knows whether it holds or awaits any lock, so that a fork() in a signal handler which
 * interrupted that very thread doesn't wait for itself, nor for somebody who waits for it: then the
 * fork takes no lock at all. The child of such a fork may only do what is safe in a signal handler, says
 * POSIX; the locks that other threads held are free there, and those of its own thread stay held, for the
 * interrupted code to go on. Outside of fork() a thread never takes a lock twice.
 *
 * Order: counted slabs, pools of regions, regions as objects, statistics, shared heap, heaps, null blocks,
 * buffers, pool, reservation. Nothing is called with a lock held that could run code of the host program.
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

/* Does the calling thread hold or await any lock? For signal handlers. */
bool lock_is_any_held(void);

/* Takes the lock if that needs no waiting. */
bool lock_try(struct lock *lock);

/*
 * Around all the others below: the calling thread begins a fork; it is done, in the parent or the child.
 * A fork that may not wait, because the thread has a lock that isn't ours and that holders of ours may
 * want, takes what is free. If that wasn't all, the thread calls what comes after a fork, and tries again.
 */
void lock_fork_begins(bool may_wait);
bool lock_fork_has_all(void);
void lock_fork_is_done(void);

/* Around fork(): the first before it, the others after it, in the parent and in the child. */
void lock_before_fork(struct lock *lock);
void lock_after_fork_in_parent(struct lock *lock);
void lock_after_fork_in_child(struct lock *lock);

#endif
