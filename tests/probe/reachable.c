/*
 * reachable.c: the fade policy `reachable`: what nothing points to goes, what is kept stays, and searches in
 * the life of a process. Where pointers are looked for is hidden.c's.
 */
#define _GNU_SOURCE
#include "chains.h"

#include <errno.h>
#include <signal.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- where nothing sees it --- */

static void what_nothing_points_to_is_reclaimed(void)
{
	make_chain(put_hidden);
	search();
	CHECK(!is_whole((const struct link *)(hidden ^ KEY)), "a chain goes whose only pointer is disguised");
}

static void put_kept(uintptr_t pointer)
{
	hidden = pointer ^ KEY;
	for (struct link *link = (struct link *)pointer; link; link = link->next)
		region_keep(link);
}

static void what_was_kept_needs_no_pointer(void)
{
	make_chain(put_kept);
	search();
	stays(hidden ^ KEY, "disguised, but it was kept");
}

static void free_after_the_end_is_reported_once(void)
{
	make_chain(put_hidden);
	search();
	probe_expect("the block was reclaimed at the end of scope \"scope\"");
	free((void *)(hidden ^ KEY));
	free((void *)(hidden ^ KEY));
	struct region_stats stats;
	region_stats_read(&stats);
	CHECK(stats.late_frees == 2, "late frees are counted: %d", (int)stats.late_frees);
}

static void leak_a_megabyte(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		memset(probe_opaque(malloc(1000)), 1, 1000);
	memset(probe_opaque(malloc(500000)), 1, 500000);
}

static void leaks_stay_flat(void)
{
	size_t before = probe_resident();
	for (long i = probe_count(500); i > 0; i--)
		region_do(leak_a_megabyte, NULL);
	CHECK(probe_resident() < before + (12 << 20), "%zu KB more", (probe_resident() - before) >> 10);
}

/* Linked lists, whose memory nobody writes all of. */
static void leak_a_list(void *unused)
{
	struct link *list = NULL;
	for (int i = 0; i < 5000; i++) {
		struct link *link = malloc(sizeof(*link));
		link->next = list;
		list = link;
	}
	(void)unused;
}

static void leaked_lists_stay_flat(void)
{
	size_t before = probe_resident();
	for (long i = probe_count(1000); i > 0; i--)
		region_do(leak_a_list, NULL);
	CHECK(probe_resident() < before + (12 << 20), "%zu KB more", (probe_resident() - before) >> 10);
}

static uintptr_t in_bss;
static void put_bss(uintptr_t pointer) { in_bss = pointer; }

static uintptr_t *on_stack;
static void put_on_stack(uintptr_t pointer) { *on_stack = pointer; }

static void *have_a_local(void *unused)
{
	uintptr_t local[2] = {0};
	on_stack = local;
	make_chain(put_on_stack);
	wait_until_searched();
	stays(local[0], "another thread's local");
	return unused;
}

/* --- life --- */

static void children_search(void)
{
	make_chain(put_bss);
	int pid = fork();
	if (pid == 0) {
		make_chain(put_hidden);
		search();
		bool is_kept = is_whole((const struct link *)in_bss);
		bool is_gone = !is_whole((const struct link *)(hidden ^ KEY));
		_exit(is_kept && is_gone ? 0 : 1);
	}
	search();
	stays(in_bss, "in a parent");
	CHECK(probe_wait_child(pid, 20) == 0, "the child searches as the parent does");
}

static int pipe_ends[2];
static ssize_t bytes_read;

static void *read_from_pipe(void *unused)
{
	char c;
	sem_post(&is_ready);
	bytes_read = read(pipe_ends[0], &c, 1);
	return unused;
}

static void interrupted_calls_are_restarted(void)
{
	pthread_t thread;
	sem_init(&is_ready, 0, 0);
	CHECK(pipe(pipe_ends) == 0, "a pipe is made");
	CHECK(pthread_create(&thread, NULL, read_from_pipe, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	usleep(20000);
	search();
	CHECK(write(pipe_ends[1], "x", 1) == 1, "the pipe takes a byte");
	pthread_join(thread, NULL);
	CHECK(bytes_read == 1, "read() in another thread was restarted: %d", (int)bytes_read);
}

enum { OWN_SIGNAL = 40 };

static void one_thread_is_never_signalled(void)
{
	struct sigaction action;
	search();
	sigaction(OWN_SIGNAL, NULL, &action);
	CHECK(action.sa_handler == SIG_DFL, "no handler was set");
}

static volatile sig_atomic_t handled;
static void count_signal(int signal_number)
{
	handled += signal_number == OWN_SIGNAL;
}

static void own_handler_of_the_signal_still_works(void)
{
	signal(OWN_SIGNAL, count_signal);
	test_thread(have_a_local);
	CHECK(handled == 0, "it isn't called for searches");
	raise(OWN_SIGNAL);
	CHECK(handled == 1, "it is called for the program's own signals");
}

static void *block_everything(void *unused)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	wait_until_searched();
	return unused;
}

static void threads_may_block_all_they_can(void)
{
	test_thread(block_everything);
}

static void where_a_thread_blocks_the_signal_blocks_fade(void)
{
	pthread_t thread;
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	CHECK(pthread_create(&thread, NULL, block_everything, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	make_chain(put_hidden);
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
	stays(hidden ^ KEY, "disguised, but no search could be made");
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
}

static void leave_big(void *unused)
{
	(void)unused;
	in_bss = (uintptr_t)probe_block(300000, 5);
	hidden = (uintptr_t)probe_block(300000, 6) ^ KEY;
	free(probe_block(300000, 7));
}

static void big_blocks_are_reclaimed_too(void)
{
	struct region_stats stats;
	region_do(leave_big, NULL);
	search();
	region_stats_read(&stats);
	CHECK(stats.big_reclaimed == 1, "one of three is garbage: %d", (int)stats.big_reclaimed);
	probe_verify((void *)in_bss, 300000, 5, "a big block that is reachable stays");
	probe_unblock((void *)in_bss, 300000, 5);
}

/* A block that waits is nobody's scope's: what becomes of it doesn't depend on what is open. */
static void grow_in_another_scope(void *unused)
{
	(void)unused;
	/* The scope goes on in the buffer that the block lies in. */
	memset(probe_opaque(malloc(100)), 1, 100);
	in_bss = (uintptr_t)realloc((void *)in_bss, 3000);
	CHECK(!region_name_of((void *)in_bss), "it doesn't move into the scope that reallocates it");
}

static void realloc_of_a_waiting_block_stays_outside(void)
{
	make_chain(put_bss);
	CHECK(!region_name_of((void *)in_bss), "it is in no scope");
	region_do_with(&(struct region_options){.fade = REGION_FADE_NONE}, grow_in_another_scope, NULL);
	search();
	stays(in_bss, "to a block that was reallocated");
}

static void free_it(uintptr_t pointer)
{
	for (struct link *link = (struct link *)pointer, *next; link; link = next) {
		next = link->next;
		free(link);
	}
}

static void blocks_freed_inside_cause_no_search(void)
{
	for (int i = 0; i < 20000; i++)
		make_chain(free_it);
	CHECK(searches() == 0, "no searches: %d", (int)searches());
}

const struct probe_case probe_cases[] = {
	CASE(what_nothing_points_to_is_reclaimed),
	CASE(what_was_kept_needs_no_pointer),
	{.name = "free_after_the_end_is_reported_once", .run = free_after_the_end_is_reported_once,
	 .environment = SMALL, .lines = 1},
	{.name = "leaks_stay_flat", .run = leaks_stay_flat},
	{.name = "leaked_lists_stay_flat", .run = leaked_lists_stay_flat},
	CASE(children_search),
	CASE(interrupted_calls_are_restarted),
	WITH(one_thread_is_never_signalled, "LIBREGION_STOP_SIGNAL=40"),
	WITH(own_handler_of_the_signal_still_works, "LIBREGION_STOP_SIGNAL=40"),
	CASE(threads_may_block_all_they_can),
	{.name = "where_a_thread_blocks_the_signal_blocks_fade",
	 .run = where_a_thread_blocks_the_signal_blocks_fade,
	 .environment = SMALL " LIBREGION_STOP_SIGNAL=40", .lines = 1,
	 .says = {"a thread blocks the signal", "LIBREGION_STOP_SIGNAL"}},
	CASE(big_blocks_are_reclaimed_too),
	CASE(realloc_of_a_waiting_block_stays_outside),
	CASE(blocks_freed_inside_cause_no_search),
	{0},
};
