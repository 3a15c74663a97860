/*
 * within_ends.c: leaving region_within() in other ways than by return, on other threads and stacks, and in
 * both processes after a fork.
 */
#define _GNU_SOURCE
#include "within.h"

#include <setjmp.h>
#include <ucontext.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static void add_a_block(void *number)
{
	unsigned i = *(unsigned *)number;
	blocks[i] = probe_block(10 + i * 7, i);
}

/* --- jumps --- */

static jmp_buf landing;

static void jump(void *unused)
{
	(void)unused;
	blocks[0] = probe_block(100, 0);
	longjmp(landing, 1);
}

static void jump_from_a_scope(void *unused)
{
	(void)unused;
	blocks[1] = probe_block(100, 1);
	region_do(jump, NULL);
}

static void longjmp_ends_it_as_a_return_does(void)
{
	r = a_region();
	for (volatile int i = 0; i < 1000; i++) {
		if (setjmp(landing) == 0)
			region_within(r, i % 2 ? jump_from_a_scope : jump, NULL);
		malloc_is_the_heap_s();
		verify(blocks[0], 100, 0);
		block_of(r, 100, 3);
		if (i % 100 == 0)
			region_reset(r);
		else if (i % 2)
			verify(blocks[1], 100, 1);
	}
	region_destroy(r);
	probe_heap_is_sound();
}

/* --- threads --- */

static void *exit_within(void *unused)
{
	region_within(r, (void (*)(void *))pthread_exit, unused);
	return NULL;
}

static void pthread_exit_ends_it(void)
{
	r = a_region();
	for (int i = 0; i < 100; i++) {
		in_thread(exit_within, NULL);
		region_is_sound(r);
		region_within(r, add_a_block, &(unsigned){1});
		is_in(r, blocks[1], "what malloc gives inside on the next thread");
		region_reset(r);
	}
	region_destroy(r);
}

static void *fill_on_this_thread(void *number)
{
	region_within(r, add_a_block, number);
	return NULL;
}

static void threads_fill_it_one_after_the_other(void)
{
	r = a_region();
	for (unsigned i = 0; i < 100; i++)
		in_thread(fill_on_this_thread, &i);
	for (unsigned i = 0; i < 100; i++) {
		is_in(r, blocks[i], "each thread's block");
		verify(blocks[i], 10 + i * 7, i);
	}
	for (unsigned i = 0; i < 100; i += 2)
		free(blocks[i]);
	region_is_sound(r);
	region_destroy(r);
	probe_heap_is_sound();
}

/* --- processes --- */

static void fork_here(void *unused)
{
	void *p = probe_block(1000, 1);
	(void)unused;
	pid_t child = fork();
	for (unsigned i = 0; i < 100; i++)
		blocks[i] = probe_block(500, i);
	for (unsigned i = 0; i < 100; i++) {
		verify(blocks[i], 500, i);
		is_in(r, blocks[i], "a block on both sides of a fork");
	}
	verify(p, 1000, 1);
	if (child != 0)
		CHECK(probe_wait_child(child, 10) == 0, "the child does well");
}

static void fork_inside_goes_on_in_it_on_both_sides(void)
{
	pid_t parent = getpid();
	r = a_region();
	block_of(r, 100, 1);
	region_within(r, fork_here, NULL);
	region_is_sound(r);
	region_reset(r);
	region_within(r, add_a_block, &(unsigned){1});
	is_in(r, blocks[1], "what malloc gives inside afterwards");
	region_destroy(r);
	probe_heap_is_sound();
	if (getpid() != parent)
		_exit(0);
}

static void exit_here(void *unused)
{
	(void)unused;
	add_a_block(&(unsigned){1});
	exit(0);
}

static void exit_inside_works(void)
{
	r = a_region();
	region_within(r, exit_here, NULL);
}

/* --- stacks --- */

static ucontext_t home, away;

static void on_another_stack(void)
{
	region_within(r, add_a_block, &(unsigned){5});
	swapcontext(&away, &home);
}

static void on_another_stack_it_is_a_plain_call(void)
{
	r = a_region();
	getcontext(&away);
	away.uc_stack.ss_size = 64 << 10;
	away.uc_stack.ss_sp = malloc(away.uc_stack.ss_size);
	makecontext(&away, on_another_stack, 0);
	swapcontext(&home, &away);
	verify(blocks[5], 45, 5);
	CHECK(!region_contains(r, blocks[5]), "on a stack of the program's own malloc is the heap's");
	region_destroy(r);
	probe_unblock(blocks[5], 45, 5);
	free(away.uc_stack.ss_sp);
}

const struct probe_case probe_cases[] = {
	CASE(longjmp_ends_it_as_a_return_does),
	CASE(pthread_exit_ends_it),
	CASE(threads_fill_it_one_after_the_other),
	CASE(fork_inside_goes_on_in_it_on_both_sides),
	CASE(exit_inside_works),
	CASE(on_another_stack_it_is_a_plain_call),
	{0},
};
