/*
 * steps.c: signals at every instruction of a call of a site: of what is before and behind the function, too,
 * which the program doesn't know of.
 *
 * With the trap flag set, each instruction ends in a signal. Handlers do what programs that nobody
 * recompiled may do in theirs while they compute: call functions, which may be sites, and jump out.
 */
#define _GNU_SOURCE
#include "sites.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP() __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc")
#define STOP() __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc")

SITE long calculate(long x)
{
	__asm__ volatile("" : "+r"(x));
	return 3 * x + 1;
}

SITE long uses_a_block(long x)
{
	free(malloc((size_t)x));
	return x + 1;
}

SITE unsigned depth_inside(void)
{
	unsigned depth = site_depth_or(0);

	SITE_END();
	return depth;
}

static void on_trap(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};

	sigaction(SIGTRAP, &action, NULL);
}

/* --- handlers that return --- */

static volatile long steps, wrong;

SITE long in_handler(long x)
{
	__asm__ volatile("" : "+r"(x));
	return x ^ 5;
}

static void calls_a_site(int number)
{
	unsigned before = site_depth_or(0);

	(void)number;
	steps++;
	wrong += in_handler(steps) != (steps ^ 5);
	wrong += site_depth_or(0) != before;
}

static void step_through(long (*call)(long))
{
	for (long i = 1; i < 20; i++) {
		STEP();
		long result = call(i);
		STOP();
		printf("%ld\n", result);
		site_check(wrong == 0, "handlers see what they should");
		site_depth_is(0, "after a call");
	}
	site_check(steps > 19 * 5, "instructions were stepped through");
}

static void handlers_may_call_sites(void)
{
	on_trap(calls_a_site);
	step_through(calculate);
	step_through(uses_a_block);
}

static void *steps_in_a_thread(void *unused)
{
	step_through(calculate);
	return unused;
}

/* The first call of a thread is longer than others. */
static void handlers_may_call_sites_in_new_threads(void)
{
	on_trap(calls_a_site);
	for (int i = 0; i < 5; i++) {
		pthread_t thread;
		pthread_create(&thread, NULL, steps_in_a_thread, NULL);
		pthread_join(thread, NULL);
	}
}

/* --- handlers that don't --- */

static sigjmp_buf outside;
static volatile long left;

static void jumps_at_the_end(int number)
{
	(void)number;
	if (--left == 0)
		siglongjmp(outside, 1);
}

/* Jumps out at the n-th instruction. False: the call has fewer. */
static bool jump_out_at(long n)
{
	left = n;
	if (sigsetjmp(outside, 1))
		return true;
	STEP();
	depth_inside();
	STOP();
	return false;
}

/* Jumps from the `first` to the `last` instruction, or as many as there are. */
static void jump_from(long first, long last, unsigned depth)
{
	long n = first;

	while (n <= last && jump_out_at(n)) {
		site_depth_is(depth, "after a jump");
		site_check(depth_inside() == (site_is_hooked() ? depth + 1 : 0),
		           "the next call is a scope again");
		free(malloc(100));
		n++;
	}
	site_check(n > 5, "there was something to jump out of");
}

static void jumps_leave_nothing_behind(void)
{
	on_trap(jumps_at_the_end);
	depth_inside();
	jump_from(1, LONG_MAX, 0);
	/* Among these are those that enter the scope: so often, more slots would get lost than there are. */
	for (int i = 0; site_is_hooked() && i < 60; i++)
		jump_from(25, 65, 0);
	printf("done\n");
}

SITE long around(long x)
{
	void *block = malloc(100);

	site_churn();
	on_trap(jumps_at_the_end);
	depth_inside();
	if (site_is_hooked())
		jump_from(1, LONG_MAX, 1);
	site_churn();
	free(block);
	return x;
}

static void jumps_within_a_site_leave_it_open(void)
{
	printf("%ld\n", around(7));
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

const struct site_case site_cases[] = {
	{"handlers_may_call_sites", handlers_may_call_sites, "calculate,uses_a_block,in_handler/nest",
     "calculate=19 uses_a_block=19 in_handler>99"},
	{"handlers_may_call_sites_in_new_threads", handlers_may_call_sites_in_new_threads,
     "calculate,in_handler", "calculate=95 in_handler>9"},
	{"jumps_leave_nothing_behind", jumps_leave_nothing_behind, "depth_inside",
     "depth_inside>999"},
	{"jumps_within_a_site_leave_it_open", jumps_within_a_site_leave_it_open,
     "around,depth_inside/nest", "around=1 depth_inside>99"},
	{0},
};
