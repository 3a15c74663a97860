/*
 * scope.c: entering and leaving scopes by every way there is, and what is said about wrong ones.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>

#include "scopes/scope.h"
#include "unit.h"

static struct region_stats stats_now(void)
{
	struct region_stats stats;

	region_stats_read(&stats);
	return stats;
}

static bool is_in_buffer(const void *p)
{
	return span_of(p)->kind == SPAN_BUFFER;
}

/* A callback that notes what it sees. */
struct visit {
	void (*inner)(void (*)(void *), void *); /* how the next one is called */
	struct visit *next;
	unsigned depth;
	bool owns, is_in_buffer;
	char *p;
};

static void visit(void *arg)
{
	struct visit *visit_arg = arg;

	visit_arg->p = shim_malloc(40);
	visit_arg->depth = region_depth();
	visit_arg->owns = region_owns(visit_arg->p);
	visit_arg->is_in_buffer = is_in_buffer(visit_arg->p);
	if (visit_arg->next)
		visit_arg->inner(visit, visit_arg->next);
	/* Back from there, this one's region is the current one again. */
	char *q = shim_malloc(40);
	visit_arg->owns &= region_owns(visit_arg->p) == region_owns(q);
	visit_arg->owns &= region_depth() == visit_arg->depth;
	shim_free(q);
	shim_free(visit_arg->p);
}

Test(scope, what_is_allocated_in_a_scope_lies_in_its_region)
{
	struct visit one = {0};

	scopes_begin();
	region_do(visit, &one);
	require(one.depth == 1 && one.owns && one.is_in_buffer, "depth %u", one.depth);
	void *p = shim_malloc(40);
	require(region_depth() == 0 && !region_owns(p) && !is_in_buffer(p), "and outside it doesn't");
}

Test(scope, the_first_thing_a_thread_does_may_be_to_enter_a_scope)
{
	struct visit one = {0};

	region_do(visit, &one);
	require(one.depth == 1 && one.owns, "depth %u", one.depth);
}

Test(scope, scopes_nest_each_with_a_region_of_its_own)
{
	struct visit visits[20] = {0};

	scopes_begin();
	for (size_t i = 0; i + 1 < 20; i++)
		visits[i] = (struct visit){.inner = region_do, .next = &visits[i + 1]};
	for (int round = 0; round < 3; round++) {
		region_do(visit, &visits[0]);
		for (size_t i = 0; i < 20; i++) {
			require(visits[i].depth == i + 1 && visits[i].owns, "scope %zu: depth %u", i, visits[i].depth);
			require(i == 0 || span_of(visits[i].p) != span_of(visits[i - 1].p), "scope %zu", i);
		}
		require(region_depth() == 0, "%u", region_depth());
	}
}

Test(scope, ignore_means_the_general_heap_and_a_scope_inside_it_works_again)
{
	struct visit in = {0}, ignored = {.inner = region_do, .next = &in};
	struct visit out = {.inner = region_ignore, .next = &ignored};

	scopes_begin();
	region_do(visit, &out);
	require(out.depth == 1 && out.is_in_buffer && out.owns, "depth %u", out.depth);
	require(ignored.depth == 0 && !ignored.is_in_buffer, "depth %u", ignored.depth);
	require(in.depth == 1 && in.is_in_buffer && in.owns, "depth %u", in.depth);
}

Test(scope, a_disabled_library_calls_and_nothing_more)
{
	struct visit one = {0};
	struct region_scope handle;

	setenv("LIBREGION_DISABLE", "1", 1);
	scopes_begin();
	region_do(visit, &one);
	require(one.depth == 0 && !one.is_in_buffer, "depth %u", one.depth);
	region_enter(&handle);
	require(region_depth() == 0, "%u", region_depth());
	region_leave(&handle);
	require(region_on_exit(visit, &one) == -1 && errno == EINVAL, "%d", errno);
}

/* Handles. */

Test(scope, a_handle_opens_and_closes_a_scope)
{
	struct region_scope outer, inner;

	scopes_begin();
	region_enter(&outer);
	void *p = shim_malloc(40);
	region_enter(&inner);
	void *q = shim_malloc(40);
	require(region_depth() == 2 && region_owns(q) && !region_owns(p), "%u", region_depth());
	region_leave(&inner);
	require(region_depth() == 1 && region_owns(p) && !region_owns(q), "%u", region_depth());
	region_leave(&outer);
	require(region_depth() == 0 && !region_owns(p), "%u", region_depth());
}

Test(scope, leaving_an_outer_scope_ends_those_inside_it)
{
	struct region_scope scopes[5];
	struct capture capture;

	scopes_begin();
	for (size_t i = 0; i < 5; i++) {
		region_enter(&scopes[i]);
		shim_malloc(16);
	}
	region_leave(&scopes[1]);
	require(region_depth() == 1, "%u", region_depth());
	require(stats_now().scopes_abandoned == 3, "%zu", (size_t)stats_now().scopes_abandoned);
	capture_begin(&capture);
	region_leave(&scopes[3]);
	capture_end(&capture);
	require(strstr(capture.text, "the scope has ended already; ignored"), "%s", capture.text);
	require(region_depth() == 1, "%u", region_depth());
	region_leave(&scopes[0]);
	require(region_depth() == 0, "%u", region_depth());
}

Test(scope, leaving_twice_is_reported_even_when_the_record_is_in_use_again)
{
	struct region_scope first, second;
	struct capture capture;

	scopes_begin();
	region_enter(&first);
	region_leave(&first);
	region_enter(&second);
	capture_begin(&capture);
	region_leave(&first);
	capture_end(&capture);
	require(strstr(capture.text, "the scope has ended already; ignored"), "%s", capture.text);
	require(count_lines(capture.text) == 1 && region_depth() == 1, "%u", region_depth());
	region_leave(&second);
}

static void *leave_handle(void *handle)
{
	heap_make();
	region_leave(handle);
	return NULL;
}

Test(scope, leaving_on_another_thread_is_reported_and_changes_nothing)
{
	struct region_scope handle;
	struct capture capture;

	scopes_begin();
	region_enter(&handle);
	void *p = shim_malloc(10);
	capture_begin(&capture);
	run_thread(leave_handle, &handle);
	capture_end(&capture);
	require(strstr(capture.text, "belongs to another thread; ignored"), "%s", capture.text);
	require(region_depth() == 1 && region_owns(p), "%u", region_depth());
	region_leave(&handle);
	require(region_depth() == 0, "%u", region_depth());
}

static int rounds;

static unsigned use_block(bool returns)
{
	REGION_SCOPE("block") {
		rounds++;
		if (returns)
			return region_depth();
		break;
	}
	return region_depth();
}

Test(scope, a_block_is_a_scope_whichever_way_it_is_left)
{
	struct region_stats stats;

	scopes_begin();
	require(use_block(true) == 1 && use_block(false) == 0 && rounds == 2, "%d", rounds);
	require(region_depth() == 0, "%u", region_depth());
	require(region_stats_read_scope("block", &stats) == 0 && stats.scopes_entered == 2, "%zu",
	        (size_t)stats.scopes_entered);
	require(stats.scopes_abandoned == 0, "%zu", (size_t)stats.scopes_abandoned);
}

/* Ways out that nobody announces. */

static jmp_buf landing;

static void jump_out(void *depth)
{
	shim_malloc(100);
	if (*(int *)depth == 0)
		longjmp(landing, 1);
	(*(int *)depth)--;
	region_do(jump_out, depth);
}

Test(scope, abandoned_scopes_end_when_the_thread_enters_one_again)
{
	struct visit one = {0};
	int depth = 4;

	scopes_begin();
	if (setjmp(landing) == 0)
		region_do(jump_out, &depth);
	region_do(visit, &one);
	require(one.depth == 1 && one.owns, "depth %u", one.depth);
	require(stats_now().scopes_abandoned == 5, "%zu", (size_t)stats_now().scopes_abandoned);
	require(region_depth() == 0, "%u", region_depth());
}

/* From so deep a frame that whatever the library calls afterwards lies above it. */
static __attribute__((noinline)) void jump_from_afar(int depth)
{
	volatile char room[8192];

	room[0] = 1;
	region_do(jump_out, &depth);
	room[0]++;
}

Test(scope, abandoned_scopes_end_when_the_thread_needs_the_slow_path)
{
	scopes_begin();
	if (setjmp(landing) == 0)
		jump_from_afar(2);
	void *p = shim_malloc(5000);
	require(region_depth() == 0 && !is_in_buffer(p), "%u", region_depth());
	require(stats_now().scopes_abandoned == 3, "%zu", (size_t)stats_now().scopes_abandoned);
}

static void announce(void *depth)
{
	if (setjmp(landing) == 0)
		region_do(jump_out, depth);
	/* What the shim says before a longjmp. */
	scopes_before_longjmp((uintptr_t)__builtin_frame_address(0));
	*(int *)depth = (int)region_depth();
}

Test(scope, an_announced_jump_ends_what_it_leaves_and_nothing_else)
{
	int depth = 3;

	scopes_begin();
	region_do(announce, &depth);
	require(depth == 1, "%d", depth);
	require(stats_now().scopes_abandoned == 4, "%zu", (size_t)stats_now().scopes_abandoned);
}

/* region_on_exit(). */

static struct { int order[8]; size_t count; bool could_read, was_in_scope; char *block; } exits;

static void note_exit(void *number)
{
	exits.order[exits.count++] = (int)(intptr_t)number;
	exits.could_read = exits.block && *exits.block == 77;
	exits.was_in_scope = region_depth() == 1 && region_owns(exits.block);
}

static void add_exit(void *number)
{
	note_exit(number);
	require(region_on_exit(note_exit, (void *)9) == 0, "%d", errno);
}

static void ask_for_exits(void *unused)
{
	(void)unused;
	exits.block = shim_malloc(10);
	*exits.block = 77;
	require(region_on_exit(note_exit, (void *)1) == 0, "%d", errno);
	require(region_on_exit(add_exit, (void *)2) == 0, "%d", errno);
	require(region_on_exit(note_exit, (void *)3) == 0, "%d", errno);
	require(exits.count == 0, "not yet");
}

Test(scope, exit_calls_run_last_in_first_out_while_the_memory_is_still_there)
{
	const int wanted[] = {3, 2, 9, 1};

	scopes_begin();
	region_do_with(&(struct region_options){.fade = REGION_FADE_NONE}, ask_for_exits, NULL);
	require(exits.count == 4 && memcmp(exits.order, wanted, sizeof(wanted)) == 0, "%zu calls", exits.count);
	require(exits.could_read && exits.was_in_scope, "they ran too late");
	region_do(visit, &(struct visit){0});
	require(exits.count == 4, "and never again");
}

static void ask_for_one(void *number)
{
	region_on_exit(note_exit, number);
}

Test(scope, exit_calls_run_in_a_scope_that_has_allocated_nothing)
{
	scopes_begin();
	for (intptr_t i = 1; i <= 3; i++) {
		region_do(ask_for_one, (void *)i);
		require(exits.count == (size_t)i && exits.order[i - 1] == i, "%zu", exits.count);
	}
	errno = 0;
	require(region_on_exit(note_exit, NULL) == -1 && errno == EINVAL, "outside every scope: %d", errno);
	require(exits.count == 3, "%zu", exits.count);
}

/* Threads. */

struct life {
	unsigned depth_at_start, depth_inside;
	char *survivor;
};

static void *live(void *arg)
{
	struct life *life = arg;
	struct region_scope left_open;

	life->depth_at_start = region_depth();
	region_enter_with(&left_open, &(struct region_options){.name = "left open", .fade = REGION_FADE_UNFREED});
	life->depth_inside = region_depth();
	life->survivor = shim_malloc(100);
	memset(life->survivor, 5, 100);
	scopes_thread_end(heap_self());
	heap_retire();
	return NULL;
}

Test(scope, a_thread_starts_outside_every_scope_and_its_end_ends_its_own)
{
	struct region_stats stats;
	struct region_scope handle;
	struct life life = {0};

	scopes_begin();
	region_enter(&handle);
	for (uint64_t i = 1; i <= 3; i++) {
		run_thread(live, &life);
		require(life.depth_at_start == 0 && life.depth_inside == 1, "%u", life.depth_at_start);
		require(region_stats_read_scope("left open", &stats) == 0, "%d", errno);
		require(stats.scopes_entered == i, "%zu", (size_t)stats.scopes_entered);
		require(stats.scopes_abandoned == i, "%zu", (size_t)stats.scopes_abandoned);
		require(stats.blocks_faded == i && life.survivor[99] == 5, "%zu", (size_t)stats.blocks_faded);
		shim_free(life.survivor);
	}
	require(region_depth() == 1, "%u", region_depth());
	region_leave(&handle);
}
