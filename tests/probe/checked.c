/*
 * checked.c: LIBREGION_CHECK in the life of a process: its exit status, its children, frees that come late,
 * and what the options take.
 */
#define _GNU_SOURCE
#include "checked.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static void *held[10];

static void hold_one(void *unused)
{
	held[0] = make(64);
	(void)unused;
}

/* --- processes --- */

static void status_is_what_was_asked_for(void)
{
	region_do_with(&planted, hold_one, NULL);
	exit(3);
}

static void streams_are_written_before_the_end(void)
{
	char text[64] = "";
	int ends[2];
	CHECK(pipe(ends) == 0, "a pipe is made");
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		printf("in a buffer");
		region_do_with(&planted, hold_one, NULL);
		exit(3);
	}
	CHECK(probe_wait_child(pid, 20) == 9, "the child's status");
	CHECK(read(ends[0], text, sizeof(text) - 1) == 11, "it says: %s", text);
	CHECK(strcmp(text, "in a buffer") == 0, "it says: %s", text);
}

static void hold_and_free(void *unused)
{
	hold_one(unused);
	free(held[0]);
	held[0] = NULL;
}

static void status_is_the_program_s(void)
{
	for (int i = 0; i < 10; i++)
		region_do_with(&planted, hold_and_free, NULL);
	exit(3);
}

static void children_have_findings_of_their_own(void)
{
	region_do_with(&planted, hold_one, NULL);
	pid_t clean = fork();
	if (clean == 0)
		exit(3);
	CHECK(probe_wait_child(clean, 20) == 3, "what the parent has found isn't the child's");
	pid_t faulty = fork();
	if (faulty == 0) {
		region_do_with(&planted, hold_one, NULL);
		exit(3);
	}
	CHECK(probe_wait_child(faulty, 20) == 9, "what the child has found is its own");
	_exit(0);
}

/* --- frees that come late --- */

static uintptr_t hidden, hidden_too;
static void hide(void *unused)
{
	hidden = ~(uintptr_t)make(64);
	(void)unused;
}

static void free_after_the_end(void)
{
	region_do_with(&planted, hide, NULL);
	free((void *)~hidden);
	free((void *)~hidden);
	struct region_stats stats;
	region_stats_read(&stats);
	CHECK(stats.late_frees == 2, "late frees are counted: %d", (int)stats.late_frees);
}

static const char *judge_late(const char *said)
{
	return count_is(said, "free(0x", 1);
}

/* Without a check, too, as long as nothing else lies there. */

static size_t hidden_bytes = 64;
static void hide_two(void *unused)
{
	hidden = ~(uintptr_t)make(hidden_bytes);
	hidden_too = ~(uintptr_t)make(hidden_bytes);
	(void)unused;
}

static void free_both(void)
{
	free((void *)~hidden);
	free((void *)~hidden_too);
	struct region_stats stats;
	region_stats_read(&stats);
	CHECK(stats.late_frees == 2, "late frees are counted: %d", (int)stats.late_frees);
	probe_heap_is_sound();
}

static void free_both_in_scope(void *unused)
{
	free_both();
	(void)unused;
}

static void free_late(void)
{
	region_do_with(&planted, hide_two, NULL);
	free_both();
}

static void free_late_in_another_scope(void)
{
	static const struct region_options other = {.name = "other"};
	region_do_with(&planted, hide_two, NULL);
	region_do_with(&other, free_both_in_scope, NULL);
}

static void free_late_after_a_trim(void)
{
	region_do_with(&planted, hide_two, NULL);
	malloc_trim(0);
	free_both();
}

static void free_late_of_long_blocks(void)
{
	hidden_bytes = 3 << 20;
	free_late_after_a_trim();
}

static void *hide_in_thread(void *unused)
{
	region_do_with(&planted, hide_two, NULL);
	return unused;
}

static void free_late_after_the_thread_s_end(void)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, hide_in_thread, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
	free_both();
}

static void leave_little(void *unused)
{
	make(16);
	(void)unused;
}

/* What calls have left on the stack keeps blocks. */
static NOINLINE void clear_stack(void)
{
	char room[32 << 10];
	memset(probe_opaque(room), 0, sizeof(room));
	probe_opaque(room);
}

static void free_late_what_a_search_has_reclaimed(void)
{
	static const struct region_options reachable = {.name = "planted", .fade = REGION_FADE_REACHABLE};
	hidden_bytes = 300000;
	region_do_with(&reachable, hide_two, NULL);
	for (int i = 0; i < 3; i++) {
		clear_stack();
		region_do_with(&reachable, leave_little, NULL);
	}
	struct region_stats stats;
	region_stats_read(&stats);
	/* The address of one may be left over somewhere. */
	CHECK(stats.big_reclaimed >= 1, "a search reclaims them: %d", (int)stats.big_reclaimed);
	free((void *)~hidden);
	free((void *)~hidden_too);
	region_stats_read(&stats);
	CHECK(stats.late_frees == stats.big_reclaimed, "late frees are counted: %d", (int)stats.late_frees);
	probe_heap_is_sound();
}

static void nothing(void)
{
	region_do_with(&planted, hide, NULL);
}

#define LATE(function) \
	.name = #function, .run = (function), .lines = 1, \
	.says = {"the block was reclaimed at the end of scope \"planted\"; ignored, and not reported again"}
#define CASE(function) .name = #function, .run = (function), .environment = CHECKED

const struct probe_case probe_cases[] = {
	{.name = "status_is_what_was_asked_for", .run = status_is_what_was_asked_for, .lines = PROBE_ANY_LINES,
	 .environment = CHECKED " LIBREGION_CHECK_EXIT=9", .status = 9, .says = {PLANTED}},
	{.name = "streams_are_written_before_the_end", .run = streams_are_written_before_the_end,
	 .lines = PROBE_ANY_LINES, .environment = CHECKED " LIBREGION_CHECK_EXIT=9"},
	{.name = "status_is_the_program_s", .run = status_is_the_program_s, .status = 3,
	 .environment = CHECKED " LIBREGION_CHECK_EXIT=9"},
	{.name = "children_have_findings_of_their_own", .run = children_have_findings_of_their_own,
	 .lines = PROBE_ANY_LINES, .environment = CHECKED " LIBREGION_CHECK_EXIT=9"},
	{CASE(free_after_the_end), .lines = PROBE_ANY_LINES,
	 .says = {"the block of 64 bytes was reclaimed at the end of scope \"planted\"; ignored",
	          "freed at:\nlibregion:     #0 free_after_the_end+0x",
	          "allocated at:\nlibregion:     #0 make+0x",
	          "the scope ended at:\nlibregion:     #0 free_after_the_end+0x"},
	 .judge = judge_late},
	{LATE(free_late)},
	{LATE(free_late_in_another_scope)},
	{LATE(free_late_after_a_trim)},
	{LATE(free_late_of_long_blocks)},
	{LATE(free_late_after_the_thread_s_end)},
	{LATE(free_late_what_a_search_has_reclaimed),
	 .environment = "LIBREGION_WAIT_BYTES=0 LIBREGION_WAIT_SHARE=0"},
	{.name = "file_that_can_t_be_written", .run = nothing, .lines = 1,
	 .environment = CHECKED " LIBREGION_CHECK_FILE=/nowhere/findings.json",
	 .says = {"LIBREGION_CHECK_FILE=/nowhere/findings.json: can't be written; what is found is said on "
	          "stderr"}},
	{.name = "bad_values_are_reported", .run = nothing, .lines = 3,
	 .environment = "LIBREGION_CHECK=2 LIBREGION_CHECK_EXIT=256 LIBREGION_CHECK_BYTES=1",
	 .says = {"LIBREGION_CHECK=2: not understood; expected 0 1 guard; using 0",
	          "LIBREGION_CHECK_EXIT=256: not understood; expected 0 to 255; using 0",
	          "LIBREGION_CHECK_BYTES=1: not understood; expected 1M to 1T; using 1G"}},
	{0},
};
