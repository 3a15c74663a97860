/*
 * stacks.c: sites under signals, on other stacks, in forked processes, and seen by unwinders.
 */
#define _GNU_SOURCE
#include "sites.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

extern char **environ;

SITE long work(long x)
{
	void *block = malloc(32);

	site_depth_is(1, "in a site");
	free(block);
	return x * 3 + 1;
}

SITE long handler_work(long x)
{
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

/* --- signals --- */

static struct {
	volatile long signals, sum;
} seen;

static void on_timer(int number)
{
	(void)number;
	seen.signals++;
	seen.sum += handler_work(seen.signals);
}

static void set_timer(long microseconds)
{
	struct itimerval timer = {{0, microseconds}, {0, microseconds}};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void handle(int number, void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

	sigaction(number, &action, NULL);
}

/* Until enough of them have interrupted something. */
static void run_under_timer(void)
{
	long sum = 0, rounds = 0;

	set_timer(50);
	while (seen.signals < 5000) {
		for (long i = 0; i < 1000; i++)
			sum += work(i);
		rounds++;
	}
	set_timer(0);
	site_check(sum == rounds * (3 * 999 * 500 + 1000), "every call gives its result");
}

static void timer_storm_does_no_harm(void)
{
	handle(SIGALRM, on_timer, SA_RESTART);
	run_under_timer();
	site_check(seen.sum == seen.signals * (seen.signals + 1) / 2 + seen.signals,
	           "handlers are whole");
	site_depth_is(0, "after the storm");
	printf("done\n");
}

static char other_stack[1 << 16] __attribute__((aligned(16)));

static void use_other_stack(void)
{
	stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof(other_stack)};

	sigaltstack(&stack, NULL);
}

static void timer_storm_on_another_stack_does_no_harm(void)
{
	use_other_stack();
	handle(SIGALRM, on_timer, SA_RESTART | SA_ONSTACK);
	run_under_timer();
	site_depth_is(0, "after the storm");
	printf("done\n");
}

static void on_signal(int number)
{
	(void)number;
	seen.sum += handler_work(1);
	site_depth_is(0, "in a handler on another stack");
}

static void handler_on_another_stack_is_a_plain_call(void)
{
	use_other_stack();
	handle(SIGUSR1, on_signal, SA_ONSTACK);
	for (int i = 0; i < 100; i++) {
		raise(SIGUSR1);
		printf("%ld\n", work(i));
	}
}

SITE void raises(int number)
{
	site_churn();
	raise(number);
	site_depth_is(1, "after a handler in a site");
	site_churn();
	SITE_END();
}

static void call_in_site(int number)
{
	(void)number;
	seen.sum += handler_work(1);
}

static void handler_in_a_site_stays_in_its_scope(void)
{
	handle(SIGUSR1, call_in_site, 0);
	for (int i = 0; i < 100; i++)
		raises(SIGUSR1);
	printf("%ld\n", seen.sum);
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

/* --- coroutines --- */

static struct {
	ucontext_t scheduler, routines[2];
	int steps[2];
} co;

SITE int step(int which)
{
	free(malloc(50));
	co.steps[which]++;
	swapcontext(&co.routines[which], &co.scheduler);
	free(malloc(60));
	return co.steps[which];
}

static void routine(int which)
{
	for (int i = 0; i < 50; i++)
		printf("%d: %d\n", which, step(which));
}

static void make_routine(int which)
{
	static char stacks[2][1 << 17] __attribute__((aligned(16)));
	ucontext_t *context = &co.routines[which];

	getcontext(context);
	context->uc_stack.ss_sp = stacks[which];
	context->uc_stack.ss_size = sizeof(stacks[which]);
	context->uc_link = &co.scheduler;
	makecontext(context, (void (*)(void))routine, 1, which);
}

static void coroutines_may_call_sites(void)
{
	make_routine(0);
	make_routine(1);
	for (int i = 0; i < 51; i++) {
		swapcontext(&co.scheduler, &co.routines[0]);
		printf("%ld\n", work(i));
		swapcontext(&co.scheduler, &co.routines[1]);
	}
	site_depth_is(0, "after the coroutines");
}

SITE int runs_coroutines(void)
{
	site_churn();
	make_routine(0);
	for (int i = 0; i < 51; i++) {
		swapcontext(&co.scheduler, &co.routines[0]);
		site_churn();
	}
	site_depth_is(1, "after coroutines in a site");
	return co.steps[0];
}

static void a_site_may_run_coroutines(void)
{
	for (int i = 0; i < 3; i++)
		printf("%d\n", runs_coroutines());
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

/* --- processes --- */

static void wait_and_say(pid_t child)
{
	int status = 0;

	site_check(child > 0 && waitpid(child, &status, 0) == child, "a child ends");
	printf("%d %d\n", WIFEXITED(status), WEXITSTATUS(status));
}

SITE pid_t forks(void)
{
	pid_t child;

	site_churn();
	fflush(stdout);
	child = fork();
	site_depth_is(1, "after a fork in a site");
	site_churn();
	return child;
}

static void fork_inside_a_site_goes_on_in_both(void)
{
	for (int i = 0; i < 10; i++) {
		pid_t child = forks();
		site_depth_is(0, "after the site that forked");
		if (child == 0) {
			long x = work(i);
			site_kept_are_whole();
			_exit((int)x % 100);
		}
		wait_and_say(child);
	}
	site_kept_are_whole();
}

SITE pid_t vforks(long x)
{
	pid_t child;

	free(malloc(20));
	child = vfork();
	if (child == 0)
		_exit((int)handler_work(x));
	return child;
}

static void vfork_child_may_call_sites(void)
{
	for (int i = 0; i < 10; i++)
		wait_and_say(vforks(i));
	site_depth_is(0, "after the site");
}

SITE pid_t spawns(char *command)
{
	char *arguments[] = {"sh", "-c", command, NULL};
	pid_t child = -1;

	site_churn();
	fflush(stdout);
	site_check(posix_spawnp(&child, "sh", NULL, NULL, arguments, environ) == 0,
	           "posix_spawn works");
	site_churn();
	return child;
}

/* The child's environment has the sites, too; it hasn't these functions, and says nothing about it. */
static void spawned_programs_run_as_ever(void)
{
	for (int i = 0; i < 3; i++)
		wait_and_say(spawns("echo spawned; exit 6"));
	site_kept_are_whole();
}

SITE int runs_commands(void)
{
	char line[64];
	FILE *stream;
	int status;

	site_churn();
	fflush(stdout);
	status = system("exit 9");
	stream = popen("echo from a pipe", "r");
	printf("%s", fgets(line, sizeof(line), stream));
	pclose(stream);
	return WEXITSTATUS(status);
}

static void system_and_popen_work_in_a_site(void)
{
	for (int i = 0; i < 3; i++)
		printf("%d\n", runs_commands());
	site_kept_are_whole();
}

/* --- unwinders --- */

static uintptr_t program_base(void)
{
	Dl_info info;

	return dladdr((void *)&site_cases[0], &info) ? (uintptr_t)info.dli_fbase : 0;
}

/* Was a frame of anchor() on the stack? */
struct walk {
	bool has_anchor;
};

__attribute__((noinline, section("anchor_text"))) long anchor(long x);
extern char __start_anchor_text[], __stop_anchor_text[];

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *argument)
{
	struct walk *walk = argument;
	uintptr_t pc = _Unwind_GetIP(context);

	walk->has_anchor |= pc >= (uintptr_t)__start_anchor_text && pc <= (uintptr_t)__stop_anchor_text;
	return _URC_NO_REASON;
}

SITE int count_frames(void)
{
	void *frames[64];
	int count = backtrace(frames, 64), own = 0;
	uintptr_t base = program_base();

	for (int i = 0; i < count; i++) {
		Dl_info info;
		own += dladdr(frames[i], &info) && (uintptr_t)info.dli_fbase == base;
	}
	return own;
}

SITE int frames_from(int depth)
{
	int frames = depth > 0 ? frames_from(depth - 1) : count_frames();

	SITE_END();
	return frames;
}

static void backtrace_sees_through_slots(void)
{
	printf("%d\n", frames_from(0));
	printf("%d\n", frames_from(5));
	printf("%d\n", frames_from(20));
}

static void backtrace_sees_through_nested_slots(void)
{
	backtrace_sees_through_slots();
}

static struct {
	volatile bool is_on;
	volatile long seen, blind;
} stepping;

/* Code that has been moved has no unwind information: it is in no file. */
static bool is_in_a_file(const ucontext_t *context)
{
	Dl_info info;

	return dladdr((void *)context->uc_mcontext.gregs[REG_RIP], &info) != 0;
}

static void on_step(int number, siginfo_t *info, void *context)
{
	struct walk walk = {0};

	(void)number, (void)info;
	if (!stepping.is_on || !is_in_a_file(context))
		return;
	_Unwind_Backtrace(note_frame, &walk);
	if (walk.has_anchor)
		stepping.seen++;
	else
		stepping.blind++;
}

long anchor(long x)
{
	stepping.is_on = true;
	x = handler_work(x) + work(x);
	stepping.is_on = false;
	return x;
}

/* With the trap flag set, each instruction ends in a signal. */
static void unwinding_works_at_every_instruction(void)
{
	struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	long result;

	(void)anchor(1);
	sigaction(SIGTRAP, &action, NULL);
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
	result = anchor(2);
	__asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
	site_check(stepping.seen > 20, "instructions were stepped through");
	printf("%ld, %ld blind\n", result, stepping.blind);
}

const struct site_case site_cases[] = {
	{"timer_storm_does_no_harm", timer_storm_does_no_harm, "work,handler_work", "work>999"},
	{"timer_storm_on_another_stack_does_no_harm", timer_storm_on_another_stack_does_no_harm,
     "work,handler_work", "work>999 handler_work=0"},
	{"handler_on_another_stack_is_a_plain_call", handler_on_another_stack_is_a_plain_call,
     "work,handler_work", "work=100 handler_work=0"},
	{"handler_in_a_site_stays_in_its_scope", handler_in_a_site_stays_in_its_scope,
     "raises,handler_work", "raises=100 handler_work=0"},
	{"coroutines_may_call_sites", coroutines_may_call_sites, "step,work", "step=0 work=51"},
	{"a_site_may_run_coroutines", a_site_may_run_coroutines, "runs_coroutines,step",
     "runs_coroutines=3 step=0"},
	{"fork_inside_a_site_goes_on_in_both", fork_inside_a_site_goes_on_in_both, "forks,work",
     "forks=10"},
	{"vfork_child_may_call_sites", vfork_child_may_call_sites, "vforks,handler_work", "vforks=10"},
	{"spawned_programs_run_as_ever", spawned_programs_run_as_ever, "spawns", "spawns=3"},
	{"system_and_popen_work_in_a_site", system_and_popen_work_in_a_site, "runs_commands",
     "runs_commands=3"},
	{"backtrace_sees_through_slots", backtrace_sees_through_slots, "frames_from", "frames_from=3"},
	{"backtrace_sees_through_nested_slots", backtrace_sees_through_nested_slots,
     "frames_from/nest,count_frames/nest", "frames_from=3 count_frames=3"},
	{"unwinding_works_at_every_instruction", unwinding_works_at_every_instruction,
     "work,handler_work", "work=2 handler_work=2"},
	{0},
};
