/*
 * stacks.c: scopes and stacks that aren't the thread's own: a handler's, a coroutine's. Frames there say
 * nothing about which scopes have been left, and a switch from one stack to another is announced by nobody;
 * so a scope that is open stays open, and one that is only thought to be left takes no block with it.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

const enum probe_form probe_default_form = PROBE_FORM;

static const struct region_options none = {.name = "none", .fade = REGION_FADE_NONE};

/* --- live blocks, and scopes that would write over them if their memory had been given up --- */

enum { LIVE = 100, LIVE_BYTES = 40, STACK_BYTES = 1 << 20 };
static void *live[LIVE];

static void make_live_blocks(void)
{
	for (unsigned i = 0; i < LIVE; i++)
		live[i] = probe_block(LIVE_BYTES, i);
}

static void write_much(void *unused)
{
	(void)unused;
	for (int i = 0; i < 3 * LIVE; i++)
		memset(probe_opaque(malloc(LIVE_BYTES)), 0xbb, LIVE_BYTES);
}

static void verify_live_blocks(const char *rule)
{
	region_do_with(&none, write_much, NULL);
	for (unsigned i = 0; i < LIVE; i++)
		probe_verify(live[i], LIVE_BYTES, i, rule);
}

/* --- scopes left by a way that nobody announces --- */

static sigjmp_buf before_the_scope;
static ucontext_t main_context, other_context;
static char other_stack[STACK_BYTES] __attribute__((aligned(64)));

static void jump_out_of_handler(int signal_number)
{
	siglongjmp(before_the_scope, signal_number);
}

static void handle_on_a_stack_of_its_own(void)
{
	stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof(other_stack)};
	struct sigaction action = {.sa_handler = jump_out_of_handler, .sa_flags = SA_ONSTACK};
	CHECK(sigaltstack(&stack, NULL) == 0, "the handler gets a stack");
	sigaction(SIGUSR1, &action, NULL);
}

static void raise_here(void *unused)
{
	(void)unused;
	probe_block(32, 1);
	raise(SIGUSR1);
}

/* From deeper on the stack, so that what is done after the scope was left is done above its frame. */
static __attribute__((noinline)) void enter_deeper(void (*function)(void *))
{
	volatile char room[4096];
	room[0] = 0;
	region_do_with(&none, function, NULL);
	room[1] = room[0];
}

/* The long block makes the library look around, and find that the scope's frame is gone. */
static void use_and_look_around(void)
{
	void *p;
	make_live_blocks();
	p = probe_block(3000, 2);
	verify_live_blocks("a block made after its scope was left is whole");
	probe_unblock(p, 3000, 2);
	CHECK(region_depth() == 0, "the scope has ended: depth %u", region_depth());
	for (int i = 0; i < LIVE; i++)
		free(live[i]);
	probe_heap_is_sound();
}

static void blocks_after_a_jump_from_a_handler_s_stack_are_whole(void)
{
	handle_on_a_stack_of_its_own();
	for (volatile int i = 0; i < 10; i++) {
		if (sigsetjmp(before_the_scope, 1) == 0)
			enter_deeper(raise_here);
		use_and_look_around();
	}
}

static void go_back(void *unused)
{
	(void)unused;
	probe_block(32, 1);
	setcontext(&main_context);
}

static void blocks_after_setcontext_out_of_a_scope_are_whole(void)
{
	for (volatile int i = 0; i < 10; i++) {
		volatile bool was_here = false;
		getcontext(&main_context);
		if (!was_here) {
			was_here = true;
			enter_deeper(go_back);
		}
		use_and_look_around();
	}
}

/* --- coroutines --- */

static void call_on(char *stack, void (*function)(void))
{
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = stack;
	other_context.uc_stack.ss_size = STACK_BYTES;
	other_context.uc_link = &main_context;
	makecontext(&other_context, function, 0);
	swapcontext(&main_context, &other_context);
}

/* Enough to use the scope's hole up, so that the library has to look around on this stack. */
static void allocate_on_another_stack(void)
{
	for (unsigned i = 0; i < 20000; i++)
		free(probe_opaque(malloc(i % 3000)));
	for (int i = 0; i < 300; i++)
		probe_block(3000, 1);
}

static void run_a_coroutine_in_scope(void *stack)
{
	make_live_blocks();
	call_on(stack, allocate_on_another_stack);
	CHECK(region_depth() == 1, "the coroutine hasn't ended the scope: depth %u", region_depth());
	verify_live_blocks("a block of a scope is whole after a coroutine ran");
	CHECK(region_owns(live[0]), "it is still the scope's");
}

static void *thread_with_a_coroutine(void *stack)
{
	region_do_with(&none, run_a_coroutine_in_scope, stack);
	CHECK(region_depth() == 0, "the scope ends on its own stack");
	probe_heap_is_sound();
	return NULL;
}

/* The kernel shows neighbours of one kind as one mapping: both stacks seem to be the thread's. */
static void coroutine_right_above_the_thread_s_stack_does_not_end_the_scope(void)
{
	pthread_t thread;
	pthread_attr_t attributes;
	char *both = mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	CHECK(both != MAP_FAILED, "stacks can be mapped");
	pthread_attr_init(&attributes);
	CHECK(pthread_attr_setstack(&attributes, both, STACK_BYTES) == 0, "a stack is taken");
	CHECK(pthread_create(&thread, &attributes, thread_with_a_coroutine, both + STACK_BYTES) == 0,
	      "a thread starts");
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
}

static void *made_ignoring;

static void make_block(void *unused)
{
	(void)unused;
	CHECK(region_depth() == 0, "ignore counts as no scope: depth %u", region_depth());
	made_ignoring = probe_block(40, 3);
}

static void ignore(void)
{
	region_ignore(make_block, NULL);
}

static void ignore_in_a_coroutine(void *unused)
{
	(void)unused;
	make_live_blocks();
	call_on(other_stack, ignore);
	CHECK(!region_name_of(made_ignoring), "region_ignore's block is the general heap's, not in '%s'",
	      region_name_of(made_ignoring));
	CHECK(region_depth() == 1, "the scope is open again: depth %u", region_depth());
	CHECK(region_owns(probe_block(40, 4)), "and serves");
	verify_live_blocks("a block of a scope is whole after region_ignore on another stack");
}

static void ignore_on_another_stack_ignores(void)
{
	region_do_with(&none, ignore_in_a_coroutine, NULL);
	region_do_with(&none, write_much, NULL);
	probe_unblock(made_ignoring, 40, 3);
	CHECK(region_depth() == 0, "no scope is left");
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(blocks_after_a_jump_from_a_handler_s_stack_are_whole),
	CASE(blocks_after_setcontext_out_of_a_scope_are_whole),
	CASE(coroutine_right_above_the_thread_s_stack_does_not_end_the_scope),
	CASE(ignore_on_another_stack_ignores),
	{0},
};
