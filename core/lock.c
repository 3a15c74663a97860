/*
 * lock.c: a futex lock after Drepper's "Futexes Are Tricky", mutex 2, whose word names the holder.
 *
 * Holder and lock are one word, taken and given up by one instruction: a signal handler finds the lock
 * either held by its thread or not, and nothing in between. The kernel waits on the word's lower half,
 * which changes whenever the word does, but for two holders whose addresses differ by a multiple of
 * 4 GiB: then a waiter wakes up once in vain.
 */
#include "lock.h"

#include <assert.h>

#include "os.h"

/* Its address names the thread, and is the same in the child of a fork. */
static _Thread_local struct {
	uint16_t held;       /* locks that the thread holds, awaits or has just given up; a fork is one */
	uint16_t bare_forks; /* forks under way, one in the other, that take no locks */
	bool may_wait;       /* of the fork that does take locks */
	bool has_missed;     /* that fork had to leave a lock to others */
} lock_self __attribute__((tls_model("initial-exec"), aligned(8)));

#define LOCK_AWAITED ((uintptr_t)1)
#define LOCK_SPINS 100

static uintptr_t self(void)
{
	return (uintptr_t)&lock_self;
}

static bool is_mine(const struct lock *lock)
{
	return (__atomic_load_n(&lock->word, __ATOMIC_RELAXED) & ~LOCK_AWAITED) == self();
}

static bool swap(struct lock *lock, uintptr_t from, uintptr_t to)
{
	return __atomic_compare_exchange_n(&lock->word, &from, to, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* Said before a lock is taken, and after it was given up: a signal in between finds it so. */
static void count_held(int change)
{
	lock_self.held = (uint16_t)(lock_self.held + change);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static bool try(struct lock *lock)
{
	return swap(lock, 0, self());
}

bool lock_try(struct lock *lock)
{
	count_held(1);
	bool is_taken = try(lock);
	if (!is_taken)
		count_held(-1);
	return is_taken;
}

bool lock_is_any_held(void)
{
	return lock_self.held > 0;
}

static void pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
#endif
}

static __attribute__((cold, noinline)) void acquire_slow(struct lock *lock)
{
	/* Critical sections are short: a few looks are cheaper than a sleep. */
	for (int spins = 0; spins < LOCK_SPINS; spins++) {
		if (__atomic_load_n(&lock->word, __ATOMIC_RELAXED) == 0 && try(lock))
			return;
		pause();
	}
	/* Who has slept takes the lock as awaited: others may be sleeping still. */
	while (!swap(lock, 0, self() | LOCK_AWAITED)) {
		uintptr_t word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
		if (word != 0 && ((word & LOCK_AWAITED) || swap(lock, word, word | LOCK_AWAITED)))
			os_wait((const uint32_t *)&lock->word, (uint32_t)(word | LOCK_AWAITED));
	}
}

void lock_acquire(struct lock *lock)
{
	count_held(1);
	if (!try(lock))
		acquire_slow(lock);
}

void lock_release(struct lock *lock)
{
	assert(is_mine(lock));
	if (__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) & LOCK_AWAITED)
		os_wake((const uint32_t *)&lock->word);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	count_held(-1);
}

void lock_fork_begins(bool may_wait)
{
	if (lock_self.held > 0) {
		lock_self.bare_forks++;
		return;
	}
	count_held(1);
	lock_self.may_wait = may_wait;
	lock_self.has_missed = false;
}

bool lock_fork_has_all(void)
{
	return lock_self.bare_forks > 0 || !lock_self.has_missed;
}

void lock_fork_is_done(void)
{
	if (lock_self.bare_forks > 0)
		lock_self.bare_forks--;
	else
		count_held(-1);
}

void lock_before_fork(struct lock *lock)
{
	if (lock_self.bare_forks > 0)
		return;
	if (lock_self.may_wait)
		lock_acquire(lock);
	else if (!lock_self.has_missed)
		lock_self.has_missed = !lock_try(lock);
}

void lock_after_fork_in_parent(struct lock *lock)
{
	if (lock_self.bare_forks == 0 && is_mine(lock))
		lock_release(lock);
}

void lock_after_fork_in_child(struct lock *lock)
{
	bool is_held = is_mine(lock);

	/* Nobody waits in a child. */
	__atomic_store_n(&lock->word, is_held ? self() : 0, __ATOMIC_RELAXED);
	if (is_held)
		lock_after_fork_in_parent(lock);
}
