/*
 * lock.c: one holder at a time, sleep for the others, and a way through fork() for whoever holds it.
 */
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#include "unit.h"

#define THREADS 4
#define TURNS 30000

static struct lock lock;

/* Two plain counters that only agree if nobody else was between them. */
static struct shared {
	volatile size_t first, second;
	size_t disagreements;
} shared;

static void *take_turns(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < TURNS; i++) {
		lock_acquire(&lock);
		shared.disagreements += shared.first != shared.second;
		shared.first++;
		if (i % 64 == 0)
			sched_yield();
		shared.second++;
		lock_release(&lock);
	}
	return NULL;
}

Test(lock, a_thread_knows_whether_it_holds_any)
{
	static struct lock own;

	cr_assert(!lock_is_any_held());
	lock_acquire(&own);
	cr_assert(lock_is_any_held());
	lock_release(&own);
	cr_assert(!lock_is_any_held());
}

Test(lock, one_thread_at_a_time_holds_it, .timeout = 30)
{
	pthread_t threads[THREADS];

	for (size_t i = 0; i < THREADS; i++)
		require(pthread_create(&threads[i], NULL, take_turns, NULL) == 0, "thread %zu", i);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	require(shared.disagreements == 0, "%zu", shared.disagreements);
	require(shared.first == THREADS * TURNS, "%zu turns", shared.first);
	require(lock.word == 0, "it is free in the end");
}

static void *try_it(void *arg)
{
	bool *could = arg;

	*could = lock_try(&lock);
	if (*could)
		lock_release(&lock);
	return NULL;
}

Test(lock, a_try_succeeds_only_while_nobody_holds_it)
{
	bool could = false;

	run_thread(try_it, &could);
	require(could, "free");
	lock_acquire(&lock);
	run_thread(try_it, &could);
	require(!could, "held");
	lock_release(&lock);
	run_thread(try_it, &could);
	require(could, "free again");
}

static bool has_got_it[THREADS];
static uint64_t waiting_ns[THREADS];

static void *wait_for_it(void *arg)
{
	bool *has = arg;
	struct timespec spent;

	lock_acquire(&lock);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	waiting_ns[has - has_got_it] = (uint64_t)spent.tv_sec * 1000000000u + (uint64_t)spent.tv_nsec;
	__atomic_store_n(has, true, __ATOMIC_RELEASE);
	lock_release(&lock);
	return NULL;
}

Test(lock, waiters_sleep_until_it_is_released_and_all_get_it, .timeout = 10)
{
	pthread_t threads[THREADS];

	lock_acquire(&lock);
	for (size_t i = 0; i < THREADS; i++)
		require(pthread_create(&threads[i], NULL, wait_for_it, &has_got_it[i]) == 0, "thread %zu", i);
	usleep(200000);
	for (size_t i = 0; i < THREADS; i++)
		require(!__atomic_load_n(&has_got_it[i], __ATOMIC_ACQUIRE), "thread %zu", i);
	lock_release(&lock);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		require(has_got_it[i], "thread %zu", i);
		require(waiting_ns[i] < 50000000, "thread %zu was awake for %zu ns", i, (size_t)waiting_ns[i]);
	}
}

/* Fork. A child says what it saw by its status. */

static int status_of(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static bool is_free_for_others(void)
{
	bool could = false;
	pthread_t thread;

	if (pthread_create(&thread, NULL, try_it, &could) == 0)
		pthread_join(thread, NULL);
	return could;
}

/* Takes the lock and ends: it is held by somebody who isn't us. */
static void *take_and_leave(void *unused)
{
	lock_acquire(&lock);
	return unused;
}

static void begin_fork(void)
{
	lock_fork_begins(true);
	lock_before_fork(&lock);
}

static void end_fork_in_parent(void)
{
	lock_after_fork_in_parent(&lock);
	lock_fork_is_done();
}

static void end_fork_in_child(void)
{
	lock_after_fork_in_child(&lock);
	lock_fork_is_done();
}

Test(lock, a_fork_that_interrupts_who_holds_a_lock_waits_for_no_other, .timeout = 10)
{
	static struct lock other;
	pthread_t thread;

	/* Another thread holds `lock` and will wait for `other`, which we hold: the handler must not wait. */
	lock_acquire(&other);
	require(pthread_create(&thread, NULL, take_and_leave, NULL) == 0, "no thread");
	pthread_join(thread, NULL);
	begin_fork();
	pid_t child = fork();
	if (child == 0) {
		end_fork_in_child();
		_exit(is_free_for_others() ? 0 : 1);
	}
	end_fork_in_parent();
	require(status_of(child) == 0, "the other thread's lock isn't free in the child");
	require(!is_free_for_others(), "the other thread's lock was given up in the parent");
	lock_release(&other);
}

Test(lock, a_fork_takes_a_free_lock_and_leaves_it_free_on_both_sides, .timeout = 10)
{
	begin_fork();
	require(!is_free_for_others(), "the fork holds it");
	pid_t child = fork();
	if (child == 0) {
		end_fork_in_child();
		_exit(is_free_for_others() ? 0 : 1);
	}
	end_fork_in_parent();
	require(status_of(child) == 0, "it isn't free in the child");
	require(is_free_for_others(), "it isn't free in the parent");
}

Test(lock, a_fork_inside_the_critical_section_passes_and_leaves_it_held_on_both_sides, .timeout = 10)
{
	lock_acquire(&lock);
	begin_fork();
	pid_t child = fork();
	if (child == 0) {
		end_fork_in_child();
		bool is_held = !is_free_for_others();
		lock_release(&lock);
		_exit(is_held && is_free_for_others() ? 0 : 1);
	}
	end_fork_in_parent();
	require(status_of(child) == 0, "the child has lost its critical section");
	require(!is_free_for_others(), "it is held in the parent");
	lock_release(&lock);
	require(is_free_for_others(), "it is free");
}

Test(lock, a_fork_that_may_not_wait_leaves_what_others_hold_and_says_so, .timeout = 10)
{
	static struct lock first, last;
	pthread_t thread;

	require(pthread_create(&thread, NULL, take_and_leave, NULL) == 0, "no thread");
	pthread_join(thread, NULL);
	lock_fork_begins(false);
	lock_before_fork(&first);
	lock_before_fork(&lock);
	lock_before_fork(&last);
	require(!lock_fork_has_all(), "one is held by somebody else");
	require(first.word != 0 && last.word == 0, "it goes on with no other");
	lock_after_fork_in_parent(&last);
	lock_after_fork_in_parent(&lock);
	lock_after_fork_in_parent(&first);
	lock_fork_is_done();
	require(first.word == 0 && lock.word != 0, "it gives back what it has, and no more");
}

Test(lock, a_fork_inside_a_fork_handler_passes_too, .timeout = 10)
{
	begin_fork();
	begin_fork();
	pid_t child = fork();
	if (child == 0) {
		end_fork_in_child();
		bool is_held = !is_free_for_others();
		end_fork_in_child();
		_exit(is_held && is_free_for_others() ? 0 : 1);
	}
	end_fork_in_parent();
	require(status_of(child) == 0, "the child");
	require(!is_free_for_others(), "the outer one holds it still");
	end_fork_in_parent();
	require(is_free_for_others(), "it is free");
}

Test(lock, a_fork_with_a_waiter_behind_it_leaves_no_waiter_in_the_child, .timeout = 10)
{
	pthread_t thread;

	lock_acquire(&lock);
	require(pthread_create(&thread, NULL, wait_for_it, &has_got_it[0]) == 0, "no thread");
	usleep(50000);
	/* Somebody is waiting now, who doesn't exist in the child. */
	begin_fork();
	pid_t child = fork();
	if (child == 0) {
		end_fork_in_child();
		lock_release(&lock);
		_exit(is_free_for_others() ? 0 : 1);
	}
	end_fork_in_parent();
	require(status_of(child) == 0, "the child");
	lock_release(&lock);
	pthread_join(thread, NULL);
	require(has_got_it[0], "the waiter in the parent");
}

struct forker {
	bool is_through;
};

static void *fork_elsewhere(void *arg)
{
	struct forker *forker = arg;

	begin_fork();
	__atomic_store_n(&forker->is_through, true, __ATOMIC_RELEASE);
	end_fork_in_parent();
	return NULL;
}

Test(lock, a_fork_of_another_thread_does_not_pass, .timeout = 10)
{
	struct forker forker = {0};
	pthread_t thread;

	lock_acquire(&lock);
	require(pthread_create(&thread, NULL, fork_elsewhere, &forker) == 0, "no thread");
	usleep(50000);
	require(!__atomic_load_n(&forker.is_through, __ATOMIC_ACQUIRE), "it waits");
	lock_release(&lock);
	pthread_join(thread, NULL);
	require(forker.is_through && lock.word == 0, "and gets through");
}
