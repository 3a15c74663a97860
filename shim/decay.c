/*
 * decay.c: see decay.h.
 */
#include "decay.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "scopes/scopes.h"

#define STACK_BYTES ((size_t)64 << 10)

enum { DECAY_AUTO, DECAY_NEVER, DECAY_ALWAYS }; /* the words of the option, in order */

static struct decay {
	int is_running; /* atomic: whoever makes it 1 starts the thread */
} decay;

static void *run(void *unused)
{
	uint32_t pause_ms = span_pool_pause_ms();
	struct timespec pause = {.tv_sec = pause_ms / 1000, .tv_nsec = (long)(pause_ms % 1000) * 1000000};

	while (span_pool_has_much()) {
		nanosleep(&pause, NULL);
		span_pool_decay(false);
	}
	__atomic_store_n(&decay.is_running, 0, __ATOMIC_RELEASE);
	return unused;
}

static bool start_thread(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;

	if (pthread_attr_init(&attributes) != 0)
		return false;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool is_started = pthread_create(&thread, &attributes, run, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return is_started;
}

static bool is_wanted(void)
{
	if (options.decay_thread != DECAY_AUTO)
		return options.decay_thread == DECAY_ALWAYS;
	/* Has there ever been a second thread that allocated? */
	return heap_all() && heap_all()->next_heap;
}

__attribute__((cold, noinline)) void decay_start(void)
{
	if (!is_wanted() || __atomic_exchange_n(&decay.is_running, 1, __ATOMIC_ACQUIRE))
		return;
	/* Without a thread things go on as in a program that is alone; a later free tries again. */
	int saved_errno = errno;
	if (!start_thread())
		__atomic_store_n(&decay.is_running, 0, __ATOMIC_RELEASE);
	errno = saved_errno;
}

void decay_after_fork_in_child(void)
{
	decay.is_running = 0;
}
