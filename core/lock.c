/*
 * lock.c: the three-state futex lock (Drepper, "Futexes Are Tricky", mutex 2), with an owner.
 *
 * The owner is written by the holder only. Another thread that reads it sees somebody else's address or
 * NULL, never its own, so the comparison in lock_before_fork() is exact although it is not ordered.
 */
#include "lock.h"

#include <assert.h>

#include "os.h"

/* Its address names the thread, and is the same in the child of a fork. */
static _Thread_local char lock_self __attribute__((tls_model("initial-exec")));

enum { LOCK_FREE, LOCK_HELD, LOCK_AWAITED };

static void set_owner(struct lock *lock, const void *owner)
{
	__atomic_store_n(&lock->owner, owner, __ATOMIC_RELAXED);
}

static bool is_mine(const struct lock *lock)
{
	return __atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == &lock_self;
}

bool lock_try(struct lock *lock)
{
	uint32_t expected = LOCK_FREE;

	if (!__atomic_compare_exchange_n(&lock->state, &expected, LOCK_HELD, false, __ATOMIC_ACQUIRE,
	                                 __ATOMIC_RELAXED))
		return false;
	set_owner(lock, &lock_self);
	return true;
}

static __attribute__((cold, noinline)) void acquire_slow(struct lock *lock)
{
	/* Critical sections are short: a few looks are cheaper than a sleep. */
	for (int spins = 0; spins < 100; spins++) {
		if (__atomic_load_n(&lock->state, __ATOMIC_RELAXED) == LOCK_FREE && lock_try(lock))
			return;
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
#if defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	}
	while (__atomic_exchange_n(&lock->state, LOCK_AWAITED, __ATOMIC_ACQUIRE) != LOCK_FREE)
		os_wait(&lock->state, LOCK_AWAITED);
	set_owner(lock, &lock_self);
}

void lock_acquire(struct lock *lock)
{
	if (!lock_try(lock))
		acquire_slow(lock);
}

void lock_release(struct lock *lock)
{
	assert(is_mine(lock));
	set_owner(lock, 0);
	if (__atomic_exchange_n(&lock->state, LOCK_FREE, __ATOMIC_RELEASE) == LOCK_AWAITED)
		os_wake(&lock->state);
}

void lock_before_fork(struct lock *lock)
{
	if (is_mine(lock))
		lock->fork_passes++;
	else
		lock_acquire(lock);
}

void lock_after_fork_in_parent(struct lock *lock)
{
	if (lock->fork_passes > 0)
		lock->fork_passes--;
	else
		lock_release(lock);
}

void lock_after_fork_in_child(struct lock *lock)
{
	/* Nobody waits in a child; a waiter's mark would only cost a needless wake. */
	__atomic_store_n(&lock->state, LOCK_HELD, __ATOMIC_RELAXED);
	lock_after_fork_in_parent(lock);
}
