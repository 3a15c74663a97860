/*
 * guard.c: LIBREGION_CHECK=guard: a touch of what a `none` scope has reclaimed is reported, with the stacks
 * of the touch, of the allocation and of the scope's end, and the process gets its signal as it would have.
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
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

#define GUARDED "LIBREGION_CHECK=guard"
#define NOINLINE __attribute__((noinline))
#define BLOCK_BYTES 200

static const struct region_options guarded = {.name = "guarded", .fade = REGION_FADE_NONE};
static char *volatile left, *volatile kept, *volatile freed;

static NOINLINE void *make(size_t size)
{
	return memset(probe_opaque(malloc(size)), 7, size);
}

static void leave(void *unused)
{
	left = make(BLOCK_BYTES);
	(void)unused;
}

static NOINLINE char read_at(const char *p) { return *(const volatile char *)p; }
static NOINLINE void write_at(char *p) { *(volatile char *)p = 1; }

/* --- touches --- */

static void read_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	read_at(left + 100);
}

static void write_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	write_at(left);
}

static void touch_after_other_scopes_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	char *first = left;
	for (int i = 0; i < 300; i++) {
		region_do_with(&guarded, leave, NULL);
		free(make(BLOCK_BYTES));
	}
	read_at(first + 8);
}

static void leave_big(void *unused)
{
	left = make(500000);
	(void)unused;
}

static void touch_of_a_big_block_is_reported(void)
{
	region_do_with(&guarded, leave_big, NULL);
	read_at(left + 400000);
}

static void free_and_leave(void *unused)
{
	make(16);
	freed = make(5000);
	make(16);
	free(freed);
	(void)unused;
}

static void touch_of_a_freed_block_is_reported(void)
{
	region_do_with(&guarded, free_and_leave, NULL);
	read_at(freed + 4990);
}

static void *touch_in_thread(void *unused)
{
	read_at(left);
	return unused;
}

static void run_thread(void *(*run)(void *))
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, run, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void touch_in_another_thread_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	run_thread(touch_in_thread);
}

static void *leave_in_thread(void *unused)
{
	region_do_with(&guarded, leave, NULL);
	return unused;
}

static void touch_after_the_thread_s_end_is_reported(void)
{
	run_thread(leave_in_thread);
	read_at(left);
}

static void touch_in_a_child_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	pid_t pid = fork();
	if (pid == 0) {
		read_at(left);
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 20) == 128 + SIGSEGV, "the child is killed");
}

static void child_has_its_own_scopes(void)
{
	region_do_with(&guarded, leave, NULL);
	pid_t pid = fork();
	if (pid == 0) {
		char *before = left;
		region_do_with(&guarded, leave, NULL);
		CHECK(left != before, "addresses aren't used again");
		read_at(left);
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 20) == 128 + SIGSEGV, "the child is killed");
	region_do_with(&guarded, leave, NULL);
}

static jmp_buf way_out;

static void leave_and_jump(void *unused)
{
	leave(unused);
	longjmp(way_out, 1);
}

static void touch_after_a_longjmp_is_reported(void)
{
	if (setjmp(way_out) == 0)
		region_do_with(&guarded, leave_and_jump, NULL);
	read_at(left);
}

/* --- the program's own handlers --- */

static sigjmp_buf back;
static volatile sig_atomic_t handled, on_own_stack;
static char own_stack[64 << 10];

static void jump_back(int signal_number)
{
	handled += signal_number == SIGSEGV;
	siglongjmp(back, 1);
}

static void jump_back_with(int signal_number, siginfo_t *info, void *context)
{
	const char *here = __builtin_frame_address(0);

	CHECK(context && info->si_signo == SIGSEGV && info->si_addr == left, "the handler is told all");
	on_own_stack = here >= own_stack && here < own_stack + sizeof(own_stack);
	handled += signal_number == SIGSEGV;
	siglongjmp(back, 1);
}

static void set_handler(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0, "a handler is set");
}

/* Touches, and comes back by a jump of the handler. */
static NOINLINE void touch_and_return(char *p)
{
	if (sigsetjmp(back, 1) == 0)
		read_at(p);
}

static void own_handler_runs(void)
{
	set_handler(jump_back);
	region_do_with(&guarded, leave, NULL);
	for (int i = 0; i < 5; i++)
		touch_and_return(left);
	CHECK(handled == 5, "each touch comes to the program: %d", (int)handled);
	sigset_t blocked;
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	CHECK(!sigismember(&blocked, SIGSEGV) && !sigismember(&blocked, SIGUSR1), "no signal stays blocked");
}

static void handler_set_after_a_scope_runs(void)
{
	region_do_with(&guarded, leave, NULL);
	set_handler(jump_back);
	region_do_with(&guarded, leave, NULL);
	touch_and_return(left);
	CHECK(handled == 1, "it comes to the program: %d", (int)handled);
}

static void handler_keeps_its_stack_and_arguments(void)
{
	struct sigaction action = {.sa_sigaction = jump_back_with, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t stack = {.ss_sp = own_stack, .ss_size = sizeof(own_stack)};
	CHECK(sigaltstack(&stack, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0, "a handler is set");
	region_do_with(&guarded, leave, NULL);
	touch_and_return(left);
	CHECK(handled == 1 && on_own_stack, "it runs on the program's stack");
}

/* Two libraries' handlers, each of which calls the one it has replaced. */
static struct sigaction replaced[2];
static char order[8];

static void call_replaced(unsigned i, int signal_number, siginfo_t *info, void *context)
{
	strcat(order, i ? "2" : "1");
	if (replaced[i].sa_flags & SA_SIGINFO)
		replaced[i].sa_sigaction(signal_number, info, context);
	else if (replaced[i].sa_handler != SIG_DFL)
		replaced[i].sa_handler(signal_number);
	else
		siglongjmp(back, 1);
}

static void first(int signal_number, siginfo_t *info, void *context)
{
	call_replaced(0, signal_number, info, context);
}

static void second(int signal_number, siginfo_t *info, void *context)
{
	call_replaced(1, signal_number, info, context);
}

static void handlers_that_call_what_they_replaced(void)
{
	struct sigaction action = {.sa_sigaction = first, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &action, &replaced[0]);
	region_do_with(&guarded, leave, NULL);
	action.sa_sigaction = second;
	sigaction(SIGSEGV, &action, &replaced[1]);
	region_do_with(&guarded, leave, NULL);
	for (int i = 0; i < 3; i++) {
		order[0] = '\0';
		touch_and_return(left);
		CHECK(strcmp(order, "21") == 0, "the newest comes first, and each once: %s", order);
	}
}

static void other_faults_are_the_program_s(void)
{
	set_handler(jump_back);
	region_do_with(&guarded, leave, NULL);
	char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	touch_and_return(page);
	touch_and_return((char *)16);
	CHECK(handled == 2, "they come to the program");
}

static void other_faults_kill(void)
{
	region_do_with(&guarded, leave, NULL);
	read_at((char *)16);
}

static void *touch_on_a_small_stack(void *unused)
{
	stack_t stack;
	region_do_with(&guarded, leave, NULL);
	CHECK(sigaltstack(NULL, &stack) == 0 && !(stack.ss_flags & SS_DISABLE), "there is an alternate stack");
	read_at(left);
	return unused;
}

static void a_small_stack_is_enough(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 32 << 10);
	CHECK(pthread_create(&thread, &attributes, touch_on_a_small_stack, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void *touch_many(void *from)
{
	for (int i = 0; i < 50; i++) {
		char *volatile *place = from;
		read_at(*place + i);
	}
	return NULL;
}

static void count_and_skip(int signal_number)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
	(void)signal_number;
	pthread_exit(NULL);
}

static void threads_touch_at_once(void)
{
	pthread_t threads[8];
	set_handler(count_and_skip);
	region_do_with(&guarded, leave, NULL);
	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&threads[i], NULL, touch_many, (void *)&left) == 0, "a thread starts");
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	CHECK(handled == 8, "each comes to the program: %d", (int)handled);
}

/* --- what stays --- */

static void leave_and_keep(void *unused)
{
	for (int i = 0; i < 200; i++)
		make(100);
	kept = region_keep(make(100));
	for (int i = 0; i < 200; i++)
		make(100);
	(void)unused;
}

static void kept_blocks_can_be_used(void)
{
	for (int i = 0; i < 50; i++) {
		region_do_with(&guarded, leave_and_keep, NULL);
		for (int j = 0; j < 100; j++)
			CHECK(kept[j] == 7, "it is whole");
		kept = realloc(kept, 5000);
		CHECK(kept[99] == 7, "it can grow");
		free(kept);
	}
	probe_heap_is_sound();
}

static void addresses_are_not_used_again(void)
{
	static char *seen[4000];
	for (int i = 0; i < 4000; i++) {
		region_do_with(&guarded, leave, NULL);
		seen[i] = left;
	}
	for (int i = 0; i < 4000; i++)
		for (int j = i + 1; j < 4000; j += 7)
			CHECK(seen[i] != seen[j], "the %d-th and the %d-th", i, j);
}

static void memory_goes_back(void)
{
	for (int i = 0; i < 10; i++)
		region_do_with(&guarded, leave_big, NULL);
	size_t before = probe_resident();
	for (int i = 0; i < 500; i++)
		region_do_with(&guarded, leave_big, NULL);
	CHECK(probe_resident() < before + ((size_t)30 << 20), "%zu KB more", (probe_resident() - before) >> 10);
}

static void oldest_addresses_are_used_again(void)
{
	for (int i = 0; i < 2000; i++) {
		region_do_with(&guarded, leave, NULL);
		region_do_with(&guarded, leave_and_keep, NULL);
		free(kept);
	}
	probe_heap_is_sound();
	region_do_with(&guarded, leave, NULL);
	read_at(left);
}

static void small_range_does_not_run_out(void)
{
	for (int i = 0; i < 3000; i++) {
		region_do_with(&guarded, leave, NULL);
		void *p = make(100000);
		free(p);
		CHECK(p, "memory of the general heap");
	}
	CHECK(make(1 << 20), "a big block");
}

static void system_calls_fail(void)
{
	int ends[2];
	CHECK(pipe(ends) == 0, "a pipe is made");
	region_do_with(&guarded, leave, NULL);
	CHECK(write(ends[1], left, 10) == -1 && errno == EFAULT, "EFAULT");
}

static void free_after_the_end_is_reported(void)
{
	region_do_with(&guarded, leave, NULL);
	free(left);
	free(left);
}

static void plain_scopes_work(void)
{
	static const struct region_options unfreed = {.name = "unfreed", .fade = REGION_FADE_UNFREED};
	static const struct region_options reachable = {.name = "reachable", .fade = REGION_FADE_REACHABLE};
	for (int i = 0; i < 100; i++) {
		region_do_with(&guarded, leave, NULL);
		region_do_with(&unfreed, leave, NULL);
		CHECK(*left == 7, "what fades can be used");
		free(left);
		region_do_with(&guarded, leave, NULL);
		region_do_with(&reachable, leave, NULL);
		CHECK(*left == 7, "what is reachable can be used");
		free(left);
	}
	probe_heap_is_sound();
}

#define CASE(function) .name = #function, .run = (function), .environment = GUARDED
#define KILLS .signal = SIGSEGV, .lines = PROBE_ANY_LINES
#define GIVEN_BACK "in memory that scope \"guarded\" has given back: "

const struct probe_case probe_cases[] = {
	{CASE(read_is_reported), KILLS,
	 .says = {"check: read of ", GIVEN_BACK "100 bytes into a block of 208 bytes\n"
	          "libregion:   touched at:\nlibregion:     #0 read_at+0x",
	          "allocated at:\nlibregion:     #0 make+0x",
	          "the scope ended at:\nlibregion:     #0 read_is_reported+0x"}},
	{CASE(write_is_reported), KILLS,
	 .says = {"check: write of ", GIVEN_BACK "0 bytes into a block of 208 bytes\n",
	          "touched at:\nlibregion:     #0 write_at+0x", "#1 write_is_reported+0x"}},
	{CASE(touch_after_other_scopes_is_reported), KILLS, .says = {GIVEN_BACK "8 bytes into"}},
	{CASE(touch_of_a_big_block_is_reported), KILLS,
	 .says = {GIVEN_BACK "400000 bytes into a block of 500000 bytes"}},
	{CASE(touch_of_a_freed_block_is_reported), KILLS,
	 .says = {GIVEN_BACK "4990 bytes into a block of 5008 bytes, which was freed", "#1 free_and_leave+0x"}},
	{CASE(touch_in_another_thread_is_reported), KILLS, .says = {GIVEN_BACK, "#1 touch_in_thread+0x"}},
	{CASE(touch_after_the_thread_s_end_is_reported), KILLS,
	 .says = {GIVEN_BACK, "ended at:\nlibregion:     #0 leave_in_thread+0x"}},
	{CASE(touch_in_a_child_is_reported), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(child_has_its_own_scopes), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(touch_after_a_longjmp_is_reported), KILLS, .says = {GIVEN_BACK, "#0 make+0x"}},
	{CASE(own_handler_runs), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(handler_set_after_a_scope_runs), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(handler_keeps_its_stack_and_arguments), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(handlers_that_call_what_they_replaced), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(other_faults_are_the_program_s)},
	{CASE(other_faults_kill), .signal = SIGSEGV},
	{CASE(a_small_stack_is_enough), KILLS, .says = {GIVEN_BACK}},
	{CASE(threads_touch_at_once), .lines = PROBE_ANY_LINES, .says = {GIVEN_BACK}},
	{CASE(kept_blocks_can_be_used)},
	{CASE(addresses_are_not_used_again)},
	{CASE(memory_goes_back)},
	{.name = "oldest_addresses_are_used_again", .run = oldest_addresses_are_used_again, KILLS,
	 .environment = GUARDED " LIBREGION_CHECK_BYTES=1M",
	 .says = {"1048576 bytes of addresses are used up (LIBREGION_CHECK_BYTES)", GIVEN_BACK}},
	{.name = "small_range_does_not_run_out", .run = small_range_does_not_run_out, .lines = 0,
	 .environment = GUARDED " LIBREGION_HEAP_RANGE=16M"},
	{CASE(system_calls_fail)},
	{CASE(free_after_the_end_is_reported), .lines = PROBE_ANY_LINES,
	 .says = {"the block of 208 bytes was reclaimed at the end of scope \"guarded\"; ignored"}},
	{CASE(plain_scopes_work)},
	{0},
};
