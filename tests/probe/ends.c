/*
 * ends.c: all the ways a scope can end: return, longjmp, pthread_exit, cancellation, the end of the
 * thread or of the process; in a forked child. And the callbacks at its end.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static const struct region_options unfreed = {.name = "unfreed", .fade = REGION_FADE_UNFREED};
static const struct region_options none = {.name = "none", .fade = REGION_FADE_NONE};

static void *survivor;
static char calls[64]; /* one letter for each callback, in order */

static void note(void *letter)
{
	size_t length = strlen(calls);
	CHECK(length < sizeof(calls) - 1, "callbacks don't repeat");
	calls[length] = *(const char *)letter;
}

static void on_exit_note(const char *letter)
{
	CHECK(region_on_exit(note, (void *)(uintptr_t)letter) == 0, "region_on_exit takes a callback");
}

/* The next allocation is outside every scope, as if the abandoned ones had returned. */
static void no_scope_is_left(void)
{
	void *p = probe_block(100, 1);
	CHECK(!region_name_of(p), "the next allocation is on the general heap, not in '%s'",
	      region_name_of(p));
	CHECK(region_depth() == 0, "no scope is open: depth %u", region_depth());
	free(p);
	probe_heap_is_sound();
}

static void *run_in_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	void *result;
	CHECK(pthread_create(&thread, NULL, body, argument) == 0, "a thread starts");
	pthread_join(thread, &result);
	return result;
}

/* --- callbacks --- */

static void register_three(void *unused)
{
	(void)unused;
	on_exit_note("a");
	on_exit_note("b");
	on_exit_note("c");
	CHECK(!*calls, "callbacks wait for the end");
}

static void callbacks_run_last_in_first_out(void)
{
	region_do(register_three, NULL);
	CHECK(strcmp(calls, "cba") == 0, "they ran as '%s'", calls);
}

static void register_around_an_inner_scope(void *unused)
{
	on_exit_note("x");
	region_do(register_three, unused);
	CHECK(strcmp(calls, "cba") == 0, "the inner scope's run at its end: '%s'", calls);
	calls[0] = calls[1] = calls[2] = '\0';
	on_exit_note("y");
}

static void callbacks_belong_to_the_innermost_scope(void)
{
	region_do(register_around_an_inner_scope, NULL);
	CHECK(strcmp(calls, "yx") == 0, "the outer scope's run at its end: '%s'", calls);
}

static void check_block(void *p)
{
	probe_verify(p, 5000, 7, "a callback runs before memory is reclaimed");
	calls[0]++;
}

static void register_block(void *unused)
{
	void *p = probe_block(5000, 7);
	(void)unused;
	CHECK(region_on_exit(check_block, p) == 0, "region_on_exit takes a callback");
}

static void callbacks_run_before_memory_is_reclaimed(void)
{
	for (int i = 0; i < 50; i++)
		region_do_with(&none, register_block, NULL);
	CHECK(calls[0] == 50, "each ran once");
}

static void use_everything(void *unused)
{
	probe_heap_is_sound();
	region_do(register_block, unused);
	survivor = region_copy_out(probe_block(10, 1));
}

static void register_use_everything(void *unused)
{
	CHECK(region_on_exit(use_everything, unused) == 0, "region_on_exit takes a callback");
}

static void callbacks_may_allocate_and_open_scopes(void)
{
	region_do_with(&none, register_use_everything, NULL);
	CHECK(calls[0] == 1, "the scope in the callback ended");
	free(survivor);
	no_scope_is_left();
}

static void on_exit_outside_scopes_is_einval(void)
{
	errno = 0;
	CHECK(region_on_exit(note, calls) == -1 && errno == EINVAL, "there is no scope to end");
}

static void register_many(void *unused)
{
	(void)unused;
	for (int i = 0; i < 100000; i++)
		CHECK(region_on_exit(check_block, survivor) == 0, "region_on_exit takes many");
}

static void many_callbacks_cost_no_lasting_memory(void)
{
	size_t before = 0;
	survivor = probe_block(5000, 7);
	for (int i = 0; i < 20; i++) {
		region_do(register_many, NULL);
		if (i == 2)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + (4 << 20), "callbacks' memory is used again");
}

static struct region_scope left_open;

static void leave_in_callback(void *unused)
{
	(void)unused;
	calls[0]++;
	region_leave(&left_open);
}

static void leave_none_but_in_callback(void *unused)
{
	region_enter_with(&left_open, &none);
	CHECK(region_on_exit(leave_in_callback, unused) == 0, "region_on_exit takes a callback");
	probe_block(30, 1);
}

/* The handle isn't on the stack: its scope ends with the one around it. */
static void end_an_entered_scope(void *unused)
{
	void *p = probe_block(1000, 8);
	region_do(leave_none_but_in_callback, unused);
	CHECK(region_depth() == 1 && region_owns(p), "the outer scope is open: depth %u", region_depth());
	CHECK(region_owns(probe_block(10, 1)), "and serves");
	probe_verify(p, 1000, 8, "its blocks are whole");
}

static void leaving_a_scope_in_its_own_callback_is_reported_and_changes_nothing(void)
{
	region_do_with(&none, end_an_entered_scope, NULL);
	CHECK(calls[0] == 1, "the callback ran once: %d", calls[0]);
	no_scope_is_left();
}

/* --- longjmp --- */

static jmp_buf outside;
static sigjmp_buf outside_masked;

static void jump_out(void *unused)
{
	(void)unused;
	on_exit_note("j");
	survivor = probe_block(1000, 1);
	longjmp(outside, 1);
}

static void longjmp_ends_the_scope(void)
{
	if (setjmp(outside) == 0)
		region_do_with(&unfreed, jump_out, NULL);
	no_scope_is_left();
	CHECK(strcmp(calls, "j") == 0, "its callback ran once: '%s'", calls);
	probe_unblock(survivor, 1000, 1);
}

static void jump_from_the_innermost(void *levels)
{
	unsigned left = (*(unsigned *)levels)--;
	probe_block(100, left);
	on_exit_note("m");
	if (left == 0)
		longjmp(outside, 1);
	region_do_with(left % 2 ? &unfreed : &none, jump_from_the_innermost, levels);
}

static void longjmp_ends_all_the_scopes_it_leaves(void)
{
	static unsigned levels = 20;
	if (setjmp(outside) == 0)
		region_do(jump_from_the_innermost, &levels);
	no_scope_is_left();
	CHECK(strlen(calls) == 21, "each scope's callback ran once: %zu", strlen(calls));
}

static void jump_to_the_middle(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	if (setjmp(outside) == 0)
		region_do(jump_out, NULL);
	free(probe_block(100, 1));
	CHECK(region_depth() == 1, "the outer scope is open: depth %u", region_depth());
	CHECK(region_owns(p) && region_owns(probe_block(50, 1)), "and current again");
	probe_verify(p, 100, 1, "its blocks are whole");
}

static void longjmp_into_an_outer_scope_leaves_it_open(void)
{
	region_do_with(&none, jump_to_the_middle, NULL);
	no_scope_is_left();
}

static void jump_inside(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	for (volatile int i = 0; i < 100; i++)
		if (setjmp(outside) == 0)
			longjmp(outside, 1);
	CHECK(region_depth() == 1 && region_owns(p), "a jump within a scope doesn't end it");
}

static void longjmp_within_a_scope_leaves_it_open(void)
{
	region_do(jump_inside, NULL);
}

static void longjmp_again_and_again_leaves_nothing_behind(void)
{
	static size_t before;
	for (volatile int i = 0; i < 20000; i++) {
		if (i == 100)
			before = probe_resident();
		calls[0] = calls[1] = '\0';
		if (setjmp(outside) == 0)
			region_do_with(&none, jump_out, NULL);
	}
	CHECK(probe_resident() < before + (2 << 20), "abandoned scopes leave nothing behind: %zu KB more",
	      (probe_resident() - before) >> 10);
	no_scope_is_left();
}

static void jump_out_of_handler(int signal_number)
{
	siglongjmp(outside_masked, signal_number);
}

static void raise_here(void *unused)
{
	(void)unused;
	on_exit_note("s");
	probe_block(100, 1);
	raise(SIGUSR1);
}

static void siglongjmp_out_of_a_handler_ends_the_scope(void)
{
	signal(SIGUSR1, jump_out_of_handler);
	for (volatile int i = 0; i < 10; i++) {
		memset(calls, 0, sizeof(calls));
		if (sigsetjmp(outside_masked, 1) == 0)
			region_do_with(&none, raise_here, NULL);
		no_scope_is_left();
		CHECK(strcmp(calls, "s") == 0, "its callback ran once: '%s'", calls);
	}
}

static void enter_and_jump(void)
{
	struct region_scope scope;
	region_enter_with(&scope, &none);
	jump_out(NULL);
}

/* A handle on the stack of a frame that is gone. */
static void longjmp_ends_an_entered_scope(void)
{
	if (setjmp(outside) == 0)
		enter_and_jump();
	region_do(free, probe_block(100, 1));
	no_scope_is_left();
}

/* --- the end of a thread --- */

static void exit_thread(void *unused)
{
	on_exit_note("p");
	survivor = probe_block(1000, 2);
	pthread_exit(unused);
}

static void *thread_exits_in_scope(void *options)
{
	region_do_with(options, exit_thread, calls);
	return NULL;
}

static void pthread_exit_ends_the_scope(void)
{
	CHECK(run_in_thread(thread_exits_in_scope, (void *)(uintptr_t)&unfreed) == calls,
	      "pthread_exit hands its value over");
	CHECK(strcmp(calls, "p") == 0, "the callback ran once: '%s'", calls);
	probe_unblock(survivor, 1000, 2);
	probe_heap_is_sound();
}

static void *enter_and_return(void *unused)
{
	struct region_scope *handle = malloc(sizeof(*handle));
	region_enter_with(handle, &unfreed);
	on_exit_note("e");
	survivor = probe_block(1000, 3);
	return unused;
}

static void end_of_a_thread_ends_its_scopes(void)
{
	run_in_thread(enter_and_return, NULL);
	CHECK(strcmp(calls, "e") == 0, "the callback ran once: '%s'", calls);
	probe_unblock(survivor, 1000, 3);
}

static pthread_barrier_t ready;

static void wait_to_be_cancelled(void *unused)
{
	(void)unused;
	on_exit_note("c");
	survivor = probe_block(1000, 4);
	pthread_barrier_wait(&ready);
	for (;;)
		pause();
}

static void *thread_waits_in_scope(void *options)
{
	region_do_with(options, wait_to_be_cancelled, NULL);
	return NULL;
}

static void cancellation_ends_the_scope(void)
{
	for (int i = 0; i < 20; i++) {
		pthread_t thread;
		memset(calls, 0, sizeof(calls));
		pthread_barrier_init(&ready, NULL, 2);
		CHECK(pthread_create(&thread, NULL, thread_waits_in_scope,
		                     (void *)(uintptr_t)&unfreed) == 0, "a thread starts");
		pthread_barrier_wait(&ready);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		CHECK(strcmp(calls, "c") == 0, "the callback ran once: '%s'", calls);
		probe_unblock(survivor, 1000, 4);
	}
	probe_heap_is_sound();
}

static void threads_that_exit_in_scopes_leave_nothing_behind(void)
{
	size_t before = 0;
	for (int i = 0; i < 3000; i++) {
		memset(calls, 0, sizeof(calls));
		run_in_thread(thread_exits_in_scope, (void *)(uintptr_t)&none);
		if (i == 200)
			before = probe_resident();
	}
	CHECK(probe_resident() < before + (2 << 20), "their memory is used again");
}

/* --- the end of the process --- */

static void never(void *unused)
{
	(void)unused;
	CHECK(false, "no callback runs when the process exits inside the scope");
}

static void exit_here(void *function)
{
	CHECK(region_on_exit(never, NULL) == 0, "region_on_exit takes a callback");
	survivor = probe_block(1000, 5);
	((void (*)(int))(uintptr_t)function)(5);
}

static void use_survivor(void)
{
	probe_unblock(survivor, 1000, 5);
	probe_heap_is_sound();
}

static void exit_inside_a_scope_works(void)
{
	atexit(use_survivor);
	region_do_with(&none, exit_here, (void *)(uintptr_t)exit);
}

static void raw_exit_inside_a_scope_works(void)
{
	region_do_with(&none, exit_here, (void *)(uintptr_t)_exit);
}

static void *exit_in_scope(void *unused)
{
	region_do_with(&unfreed, exit_here, (void *)(uintptr_t)exit);
	return unused;
}

static void exit_of_another_thread_inside_a_scope_works(void)
{
	run_in_thread(exit_in_scope, NULL);
}

/* --- fork inside a scope --- */

static int child;

static void fork_here(void *unused)
{
	void *p = probe_block(1000, 6), *q;
	(void)unused;
	on_exit_note("f");
	child = fork();
	CHECK(child >= 0, "fork serves");
	q = probe_block(500, 7);
	CHECK(region_depth() == 1, "both go on in the scope: depth %u", region_depth());
	CHECK(region_owns(p) && region_owns(q), "and have its region");
	probe_verify(p, 1000, 6, "blocks are whole on both sides");
	probe_heap_is_sound();
	if (child == 0)
		free(p);
	survivor = q;
}

static void fork_inside_and_leave(const struct region_options *options)
{
	memset(calls, 0, sizeof(calls));
	region_do_with(options, fork_here, NULL);
	CHECK(strcmp(calls, "f") == 0, "the callback ran once on each side: '%s'", calls);
	if (options == &unfreed)
		probe_unblock(survivor, 500, 7);
	no_scope_is_left();
	if (child == 0)
		exit(0);
	CHECK(probe_wait_child(child, 10) == 0, "the child goes on, leaves and ends well");
}

static void fork_inside_a_scope_goes_on_in_it_on_both_sides(void)
{
	for (int i = 0; i < 20; i++)
		fork_inside_and_leave(i % 2 ? &unfreed : &none);
}

static int stop;

static void allocate_until_stopped(void *unused)
{
	unsigned state = 3;
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		free(probe_opaque(malloc(probe_random(&state) % 3000)));
}

static void *scopes_in_a_thread(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		region_do_with(&none, allocate_until_stopped, unused);
	return unused;
}

static void fork_inside_a_scope_while_others_have_theirs(void)
{
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, scopes_in_a_thread, NULL) == 0, "a thread starts");
	for (int i = 0; i < 50; i++)
		fork_inside_and_leave(i % 2 ? &unfreed : &none);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* A child made in a signal handler in the middle of a scope's malloc. */
static volatile sig_atomic_t forks;

static void fork_in_handler(int signal_number)
{
	struct itimerval timer = {{0, 0}, {0, 100 + 17 * (forks % 10)}};
	int saved = errno, pid = fork();
	(void)signal_number;
	if (pid == 0)
		_exit(0);
	forks++;
	probe_wait_child(pid, 10);
	setitimer(ITIMER_REAL, &timer, NULL);
	errno = saved;
}

static void allocate_while_forking(void *unused)
{
	unsigned state = 4;
	(void)unused;
	fork_in_handler(SIGALRM);
	while (forks < 200) {
		void *p = malloc(probe_random(&state) % 1000), *q = malloc(probe_random(&state) % 9000);
		free(p);
		free(q);
	}
	signal(SIGALRM, SIG_IGN);
}

static void fork_in_a_handler_inside_a_scope_does_not_hang(void)
{
	struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	region_do_with(&unfreed, allocate_while_forking, NULL);
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}
#define EXITS(name_) {.name = #name_, .run = name_, .status = 5}

const struct probe_case probe_cases[] = {
	CASE(callbacks_run_last_in_first_out),
	CASE(callbacks_belong_to_the_innermost_scope),
	CASE(callbacks_run_before_memory_is_reclaimed),
	CASE(callbacks_may_allocate_and_open_scopes),
	CASE(on_exit_outside_scopes_is_einval),
	CASE(many_callbacks_cost_no_lasting_memory),
	{.name = "leaving_a_scope_in_its_own_callback_is_reported_and_changes_nothing",
	 .run = leaving_a_scope_in_its_own_callback_is_reported_and_changes_nothing,
	 .lines = 1, .says = {"region_leave"}},
	CASE(longjmp_ends_the_scope),
	CASE(longjmp_ends_all_the_scopes_it_leaves),
	CASE(longjmp_into_an_outer_scope_leaves_it_open),
	CASE(longjmp_within_a_scope_leaves_it_open),
	CASE(longjmp_again_and_again_leaves_nothing_behind),
	CASE(siglongjmp_out_of_a_handler_ends_the_scope),
	CASE(longjmp_ends_an_entered_scope),
	CASE(pthread_exit_ends_the_scope),
	CASE(end_of_a_thread_ends_its_scopes),
	CASE(cancellation_ends_the_scope),
	CASE(threads_that_exit_in_scopes_leave_nothing_behind),
	EXITS(exit_inside_a_scope_works),
	EXITS(raw_exit_inside_a_scope_works),
	EXITS(exit_of_another_thread_inside_a_scope_works),
	CASE(fork_inside_a_scope_goes_on_in_it_on_both_sides),
	CASE(fork_inside_a_scope_while_others_have_theirs),
	CASE(fork_in_a_handler_inside_a_scope_does_not_hang),
	{0},
};
