/*
 * leaving.c: sites that are left by longjmp, at the end of their thread or by cancellation, and sites in
 * many threads.
 */
#define _GNU_SOURCE
#include "sites.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- longjmp --- */

static jmp_buf outside;

SITE long jump_out(int n)
{
	char frame[64];
	long below;

	memset(frame, n, sizeof(frame));
	site_depth_is(1, "before a longjmp");
	if (n == 0) {
		site_churn();
		longjmp(outside, 1);
	}
	below = jump_out(n - 1);
	SITE_END();
	return below + frame[0];
}

static void longjmp_ends_the_scope(void)
{
	for (volatile int i = 0; i < 1000; i++) {
		if (setjmp(outside) == 0)
			jump_out(i % 10);
		site_depth_is(0, "after a longjmp");
	}
	site_kept_are_whole();
	printf("done\n");
}

SITE long returns_fine(long x)
{
	site_depth_is(1, "in a site");
	free(malloc(40));
	return x + 1;
}

SITE long returns_late(long x)
{
	free(malloc(40));
	return x + 1;
}

static void sites_work_after_a_longjmp(void)
{
	for (volatile long i = 0; i < 1000; i++) {
		if (setjmp(outside) == 0)
			jump_out(3);
		printf("%ld\n", returns_fine(i));
	}
	site_kept_are_whole();
}

SITE int jump_within(void)
{
	jmp_buf here;
	volatile int jumps = 0;

	site_churn();
	if (setjmp(here) < 3) {
		jumps++;
		site_depth_is(1, "after a longjmp within the site");
		longjmp(here, jumps);
	}
	site_churn();
	return jumps;
}

static void longjmp_within_a_site_leaves_it_open(void)
{
	for (int i = 0; i < 100; i++)
		printf("%d\n", jump_within());
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

static jmp_buf middle;

SITE void innermost(int n)
{
	site_churn();
	if (n > 0)
		innermost(n - 1);
	else
		longjmp(middle, 1);
	SITE_END();
}

SITE int catches_a_jump(int n)
{
	site_depth_is(1, "in the outer site");
	if (setjmp(middle) == 0)
		innermost(n);
	site_depth_is(1, "after a longjmp into the outer site");
	site_churn();
	return n;
}

static void longjmp_into_an_outer_site_leaves_it_open(void)
{
	for (int i = 0; i < 20; i++)
		printf("%d\n", catches_a_jump(i));
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

static sigjmp_buf before_signal;

static void jump_on_signal(int number)
{
	(void)number;
	siglongjmp(before_signal, 1);
}

SITE void interrupted(int n)
{
	site_churn();
	if (n > 0)
		interrupted(n - 1);
	else
		raise(SIGUSR1);
	SITE_END();
}

static void siglongjmp_out_of_a_handler_ends_the_scope(void)
{
	signal(SIGUSR1, jump_on_signal);
	for (volatile int i = 0; i < 300; i++) {
		if (sigsetjmp(before_signal, 1) == 0)
			interrupted(i % 4);
		site_depth_is(0, "after a siglongjmp");
	}
	site_kept_are_whole();
	printf("done\n");
}

/* --- ends of threads --- */

static void in_a_thread(void *(*start)(void *), void *argument)
{
	pthread_t thread;
	void *result;

	site_check(pthread_create(&thread, NULL, start, argument) == 0, "a thread can be made");
	pthread_join(thread, &result);
	printf("%ld\n", (long)result);
}

static void note_cleanup(void *text)
{
	printf("%s\n", (const char *)text);
}

SITE void exit_thread(long n)
{
	site_churn();
	if (n > 0)
		exit_thread(n - 1);
	else
		pthread_exit((void *)5);
	SITE_END();
}

static void *exits_in_a_site(void *n)
{
	pthread_cleanup_push(note_cleanup, "cleaned up");
	exit_thread((long)n);
	pthread_cleanup_pop(0);
	return NULL;
}

static void pthread_exit_ends_the_scope(void)
{
	for (long i = 0; i < 50; i++)
		in_a_thread(exits_in_a_site, (void *)(i % 4));
	site_kept_are_whole();
}

static volatile int is_inside;

SITE void wait_forever(void)
{
	site_churn();
	is_inside = 1;
	for (;;)
		pause();
}

static void *waits_in_a_site(void *unused)
{
	pthread_cleanup_push(note_cleanup, "cancelled");
	wait_forever();
	pthread_cleanup_pop(0);
	return unused;
}

static void cancel(void *(*start)(void *), unsigned delay)
{
	pthread_t thread;
	void *result;

	is_inside = 0;
	site_check(pthread_create(&thread, NULL, start, NULL) == 0, "a thread can be made");
	while (!is_inside)
		sched_yield();
	for (volatile unsigned i = 0; i < delay; i++)
		;
	pthread_cancel(thread);
	pthread_join(thread, &result);
	site_check(result == PTHREAD_CANCELED, "the thread was cancelled");
}

static void cancellation_ends_the_scope(void)
{
	for (unsigned i = 0; i < 50; i++)
		cancel(waits_in_a_site, i * 20);
	site_kept_are_whole();
}

SITE unsigned long calculate(unsigned long x)
{
	SITE_END();
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

/* Wherever it is hit: in the site, in the library, or between. Nothing there allocates. */
static void *calls_without_end(void *unused)
{
	unsigned long x = 1;

	calculate(x);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	is_inside = 1;
	for (;;)
		x = calculate(x);
	return unused;
}

static void asynchronous_cancellation_does_no_harm(void)
{
	for (unsigned i = 0; i < 200; i++)
		cancel(calls_without_end, i * 37);
	printf("%lu\n", calculate(1));
	site_depth_is(0, "after the threads");
}

SITE void *thread_start(void *n)
{
	site_depth_is(1, "in a thread's start routine");
	site_churn();
	if ((long)n % 2)
		pthread_exit(n);
	return n;
}

static void start_routine_of_a_thread_is_a_site(void)
{
	for (long i = 0; i < 40; i++)
		in_a_thread(thread_start, (void *)i);
	site_kept_are_whole();
}

static pthread_key_t key;

static void call_in_destructor(void *n)
{
	printf("%ld\n", returns_late((long)n));
}

SITE void *sets_key(void *n)
{
	pthread_setspecific(key, n);
	return n;
}

/* The thread's heap may be gone by then: a plain call does, too. */
static void key_destructors_may_call_sites(void)
{
	pthread_key_create(&key, call_in_destructor);
	for (long i = 1; i < 20; i++)
		in_a_thread(sets_key, (void *)i);
}

SITE void end_process(void)
{
	site_churn();
	exit(4);
}

static void *ends_process(void *unused)
{
	end_process();
	return unused;
}

static void exit_in_a_thread_s_site(void)
{
	printf("about to end\n");
	in_a_thread(ends_process, NULL);
}

/* --- many threads --- */

enum { THREADS = 16, CALLS = 2000 };

static void *calls_sites(void *n)
{
	long sum = 0;

	for (long i = 0; i < CALLS; i++) {
		sum += returns_fine((long)n + i);
		if (i % 100 == 0)
			site_churn();
	}
	return (void *)sum;
}

static void sixteen_threads_call_sites(void)
{
	pthread_t threads[THREADS];

	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, calls_sites, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		void *sum;
		pthread_join(threads[i], &sum);
		printf("%ld\n", (long)sum);
	}
	site_kept_are_whole();
}

SITE long many_levels(long n)
{
	long sum = n;

	free(malloc((size_t)n + 1));
	if (n > 0)
		sum += many_levels(n - 1);
	SITE_END();
	return sum;
}

static void *goes_down(void *unused)
{
	long sum = 0;

	(void)unused;
	for (int i = 0; i < 50; i++)
		sum += many_levels(20);
	return (void *)sum;
}

/* 16 times 21 scopes at once, if all go down at the same time. */
static void sixteen_threads_nest_sites(void)
{
	pthread_t threads[THREADS];

	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, goes_down, NULL);
	for (int i = 0; i < THREADS; i++) {
		void *sum;
		pthread_join(threads[i], &sum);
		printf("%ld\n", (long)sum);
	}
}

static void short_threads_leave_nothing_behind(void)
{
	for (long i = 0; i < 2000; i++) {
		pthread_t thread;
		void *result;
		pthread_create(&thread, NULL, thread_start, (void *)i);
		pthread_join(thread, &result);
		site_check((long)result == i, "a start routine's result is the thread's");
	}
	site_kept_are_whole();
	printf("done\n");
}

const struct site_case site_cases[] = {
	{"longjmp_ends_the_scope", longjmp_ends_the_scope, "jump_out", "jump_out=1000"},
	{"sites_work_after_a_longjmp", sites_work_after_a_longjmp, "jump_out,returns_fine",
     "jump_out=1000 returns_fine=1000"},
	{"longjmp_within_a_site_leaves_it_open", longjmp_within_a_site_leaves_it_open, "jump_within",
     "jump_within=100"},
	{"longjmp_into_an_outer_site_leaves_it_open", longjmp_into_an_outer_site_leaves_it_open,
     "catches_a_jump,innermost/nest", "catches_a_jump=20 innermost=20"},
	{"siglongjmp_out_of_a_handler_ends_the_scope", siglongjmp_out_of_a_handler_ends_the_scope,
     "interrupted", "interrupted=300"},
	{"pthread_exit_ends_the_scope", pthread_exit_ends_the_scope, "exit_thread", "exit_thread=50"},
	{"cancellation_ends_the_scope", cancellation_ends_the_scope, "wait_forever", "wait_forever=50"},
	{"asynchronous_cancellation_does_no_harm", asynchronous_cancellation_does_no_harm, "calculate",
     "calculate>400"},
	{"start_routine_of_a_thread_is_a_site", start_routine_of_a_thread_is_a_site, "thread_start",
     "thread_start=40"},
	{"key_destructors_may_call_sites", key_destructors_may_call_sites, "sets_key,returns_late",
     "sets_key=19"},
	{"exit_in_a_thread_s_site", exit_in_a_thread_s_site, "end_process", "end_process=1",
     .status = 4},
	{"sixteen_threads_call_sites", sixteen_threads_call_sites, "returns_fine",
     "returns_fine=32000"},
	{"sixteen_threads_nest_sites", sixteen_threads_nest_sites, "many_levels/nest",
     "many_levels=800"},
	{"short_threads_leave_nothing_behind", short_threads_leave_nothing_behind, "thread_start",
     "thread_start=2000"},
	{0},
};
