/*
 * scope.c: what a scope is: whose, for how long, and for which blocks. And each function of region.h.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static void in_scope_called(const char *name, void (*body)(void *))
{
	struct region_options options = {.name = name};
	region_do_with(&options, body, NULL);
}

static void is_in(const char *scope, const void *p, const char *rule)
{
	const char *name = region_name_of(p);
	CHECK(scope ? name && strcmp(name, scope) == 0 : !name, "%s: it is in '%s'", rule,
	      name ? name : "the general heap");
}

static void *run_in_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	void *result;
	CHECK(pthread_create(&thread, NULL, body, argument) == 0, "a thread starts");
	pthread_join(thread, &result);
	return result;
}

/* --- the call --- */

static void add_one(void *number)
{
	++*(int *)number;
	CHECK(region_depth() == 1, "a scope is open: depth %u", region_depth());
}

static void region_do_calls_its_function_once(void)
{
	int number = 0;
	region_do(add_one, &number);
	region_do_with(&(struct region_options){0}, add_one, &number);
	CHECK(number == 2, "each called it once: %d", number);
	CHECK(region_depth() == 0, "no scope is open afterwards");
}

static void go_deeper(void *levels)
{
	unsigned *left = levels, depth = region_depth();
	void *p = probe_block(100, *left);
	if (--*left > 0)
		region_do(go_deeper, left);
	CHECK(region_depth() == depth && region_owns(p), "the outer scope is current again");
	free(p);
}

static void scopes_nest_a_thousand_deep(void)
{
	unsigned levels = 1000;
	region_do(go_deeper, &levels);
	CHECK(region_depth() == 0, "all have ended");
	probe_heap_is_sound();
}

static void do_nothing(void *unused)
{
	(void)unused;
}

static void a_million_empty_scopes_leave_nothing_behind(void)
{
	size_t before;
	region_do(do_nothing, NULL);
	before = probe_resident();
	for (long i = probe_count(1000000); i > 0; i--)
		region_do(do_nothing, NULL);
	CHECK(probe_resident() < before + (2 << 20), "empty scopes cost no memory");
}

/* --- thread-local --- */

static void *look_from_another_thread(void *block)
{
	void *p = probe_block(100, 1);
	CHECK(region_depth() == 0, "a new thread starts outside every scope");
	CHECK(!region_owns(p) && !region_owns(block), "it owns nothing");
	is_in(NULL, p, "what a thread outside allocates");
	is_in("mine", block, "the name can be asked from any thread");
	free(p);
	return NULL;
}

static void start_a_thread(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	run_in_thread(look_from_another_thread, p);
	CHECK(region_depth() == 1 && region_owns(p), "the scope is still this thread's");
}

static void a_scope_belongs_to_the_thread_that_entered_it(void)
{
	in_scope_called("mine", start_a_thread);
}

/* --- nesting --- */

static void *outer_block, *inner_block;

static void be_inner(void *unused)
{
	(void)unused;
	inner_block = probe_block(200, 2);
	CHECK(region_depth() == 2, "the inner scope is the second");
	CHECK(region_owns(inner_block) && !region_owns(outer_block), "it has a region of its own");
	is_in("inner", inner_block, "a block of the inner scope");
	is_in("outer", outer_block, "a block of the outer scope");
}

static void be_outer(void *unused)
{
	(void)unused;
	outer_block = probe_block(100, 1);
	in_scope_called("inner", be_inner);
	CHECK(region_depth() == 1 && region_owns(outer_block), "the outer one is current again");
	CHECK(!region_owns(inner_block), "a faded block doesn't rebind to the outer scope");
	is_in(NULL, inner_block, "a faded block");
	is_in("outer", outer_block, "a block of the outer scope");
}

static void an_inner_scope_has_a_region_of_its_own(void)
{
	in_scope_called("outer", be_outer);
	is_in(NULL, outer_block, "a faded block");
	probe_unblock(outer_block, 100, 1);
	probe_unblock(inner_block, 200, 2);
}

static void call_inner(void *unused)
{
	(void)unused;
	outer_block = probe_block(100, 1);
	in_scope_called("inner", be_inner);
}

/* The outer scope reclaims all it has; what faded from the inner one isn't among it. */
static void faded_blocks_never_rebind_to_an_outer_scope(void)
{
	struct region_options none = {.name = "outer", .fade = REGION_FADE_NONE};
	region_do_with(&none, call_inner, NULL);
	probe_heap_is_sound();
	probe_unblock(inner_block, 200, 2);
}

/* --- free and realloc go by the pointer --- */

static void free_and_grow_outer(void *unused)
{
	(void)unused;
	free(inner_block);
	for (size_t size = 100; size < 300000; size *= 2) {
		outer_block = realloc(outer_block, size * 2);
		probe_verify(outer_block, size, 3, "realloc keeps the contents");
		is_in(NULL, outer_block, "a heap block that is reallocated in a scope");
		CHECK(!region_owns(outer_block), "it stays outside");
		probe_fill(outer_block, size * 2, 3);
	}
}

static void realloc_of_an_outer_block_stays_outside(void)
{
	struct region_options none = {.name = "request", .fade = REGION_FADE_NONE};
	outer_block = probe_block(100, 3);
	inner_block = probe_block(100, 4);
	region_do_with(&none, free_and_grow_outer, NULL);
	probe_verify(outer_block, 300000, 3, "a block from outside outlives the scope");
	free(outer_block);
}

static void grow_in_inner(void *unused)
{
	(void)unused;
	outer_block = realloc(outer_block, 10000);
	is_in("outer", outer_block, "a block of the outer scope that is reallocated in the inner one");
	probe_verify(outer_block, 100, 5, "realloc keeps the contents");
}

static void allocate_and_grow_in_inner(void *unused)
{
	(void)unused;
	outer_block = probe_block(100, 5);
	probe_block(100, 6);
	in_scope_called("inner", grow_in_inner);
	CHECK(region_owns(outer_block), "the outer scope still owns it");
}

static void realloc_of_an_outer_scope_s_block_stays_in_that_scope(void)
{
	in_scope_called("outer", allocate_and_grow_in_inner);
	probe_verify(outer_block, 100, 5, "a faded block keeps its contents");
	free(outer_block);
}

static void grow_here(void *unused)
{
	char *p = probe_block(10, 7);
	(void)unused;
	for (size_t size = 10; size < 20000; size += size / 3 + 1) {
		p = realloc(p, size);
		probe_block(40, 1); /* in the way */
		is_in("mine", p, "a scope's block that is reallocated in it");
	}
	probe_verify(p, 10, 7, "realloc keeps the contents");
}

static void realloc_of_a_scope_s_own_block_stays_inside(void)
{
	in_scope_called("mine", grow_here);
}

static void *grow_elsewhere(void *p)
{
	p = realloc(p, 5000);
	probe_verify(p, 100, 8, "realloc in another thread keeps the contents");
	return p;
}

static void let_another_thread_realloc(void *unused)
{
	void *p = probe_block(100, 8);
	(void)unused;
	p = run_in_thread(grow_elsewhere, p);
	probe_verify(p, 100, 8, "a block comes back whole");
	free(p);
}

static void another_thread_may_realloc_a_scope_s_block(void)
{
	region_do(let_another_thread_realloc, NULL);
	probe_heap_is_sound();
}

/* --- ignore --- */

static void open_again(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	CHECK(region_depth() == 1 && region_owns(p), "region_do inside region_ignore works again");
	is_in("again", p, "a block of the scope inside region_ignore");
}

static void ignored(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	CHECK(region_depth() == 0, "region_ignore counts as no scope");
	CHECK(!region_owns(p) && !region_owns(outer_block), "nothing is owned in it");
	is_in(NULL, p, "what is allocated in region_ignore");
	is_in("ignoring", outer_block, "a block of the scope around region_ignore");
	in_scope_called("again", open_again);
	CHECK(region_depth() == 0, "the scope inside has ended");
	outer_block = realloc(outer_block, 2000);
	is_in("ignoring", outer_block, "realloc in region_ignore goes by the pointer");
	inner_block = p;
}

static void ignore_once(void *unused)
{
	(void)unused;
	outer_block = probe_block(100, 1);
	region_ignore(ignored, NULL);
	CHECK(region_depth() == 1, "the scope is current again: depth %u", region_depth());
	is_in("ignoring", probe_block(100, 1), "a block after region_ignore");
}

static void ignore_runs_with_the_general_heap(void)
{
	struct region_options none = {.name = "ignoring", .fade = REGION_FADE_NONE};
	region_ignore(do_nothing, NULL);
	CHECK(region_depth() == 0, "region_ignore outside a scope is a plain call");
	region_do_with(&none, ignore_once, NULL);
	probe_unblock(inner_block, 100, 1);
}

/* --- asking --- */

static void ask(void *unused)
{
	char *p = probe_block(1000, 1), *big = malloc(20 << 20), here[32];
	(void)unused;
	is_in("scope", p, "a scope without a name is called 'scope'");
	CHECK(region_owns(p) == 1, "a live block is owned");
	CHECK(region_owns(p + 500) == 1, "a pointer into a live block is owned");
	CHECK(region_owns(p + 999) == 1, "a pointer to its last byte is owned");
	CHECK(!region_owns(NULL) && !region_owns(here) && !region_owns("text"), "others' aren't");
	CHECK(!region_owns((void *)(uintptr_t)16) && !region_owns((void *)~(uintptr_t)0), "wild ones aren't");
	CHECK(!region_owns(outer_block), "heap blocks aren't");
	is_in(NULL, here, "a pointer to the stack");
	is_in(NULL, NULL, "NULL");
	is_in(NULL, (void *)~(uintptr_t)0, "a wild pointer");
	is_in(NULL, outer_block, "a heap block");
	probe_block(10, 1);
	free(p);
	CHECK(!region_owns(p) && !region_owns(p + 500), "a freed block isn't owned");
	free(big);
}

static void owns_and_name_of_answer_for_any_pointer(void)
{
	outer_block = probe_block(100, 1);
	CHECK(!region_owns(outer_block), "outside a scope nothing is owned");
	region_do(ask, NULL);
}

static void version_is_the_header_s(void)
{
	char version[32];
	snprintf(version, sizeof(version), "%d.%d.%d", REGION_VERSION_MAJOR, REGION_VERSION_MINOR,
	         REGION_VERSION_PATCH);
	CHECK(strcmp(region_version(), version) == 0, "%s is %s", region_version(), version);
}

/* --- enter and leave --- */

static void enter_and_leave_open_and_end_a_scope(void)
{
	struct region_scope outer, inner;
	void *p;
	region_enter_with(&outer, &(struct region_options){.name = "outer"});
	p = probe_block(100, 1);
	is_in("outer", p, "a block between enter and leave");
	region_enter(&inner);
	CHECK(region_depth() == 2 && !region_owns(p), "enter nests");
	region_leave(&inner);
	CHECK(region_depth() == 1 && region_owns(p), "leave ends the inner one");
	region_leave(&outer);
	CHECK(region_depth() == 0, "leave ends the outer one");
	probe_unblock(p, 100, 1);
}

static struct region_scope static_handle;

static void handles_may_lie_anywhere(void)
{
	struct region_scope *handle = malloc(sizeof(*handle));
	for (int i = 0; i < 100; i++) {
		region_enter(handle);
		region_enter(&static_handle);
		probe_block(100, 1);
		CHECK(region_depth() == 2, "both are open: depth %u", region_depth());
		region_leave(&static_handle);
		region_leave(handle);
	}
	free(handle);
	CHECK(region_depth() == 0, "both have ended");
}

static void leaving_the_outer_handle_ends_the_inner_scope(void)
{
	struct region_scope outer, inner;
	region_enter(&outer);
	region_enter(&inner);
	probe_block(100, 1);
	region_leave(&outer);
	CHECK(region_depth() == 0, "both have ended: depth %u", region_depth());
	probe_heap_is_sound();
}

static void leaving_twice_is_reported_and_changes_nothing(void)
{
	struct region_scope outer, inner;
	region_enter(&outer);
	region_enter(&inner);
	region_leave(&inner);
	region_leave(&inner);
	CHECK(region_depth() == 1, "the outer scope is still open: depth %u", region_depth());
	region_leave(&outer);
	probe_heap_is_sound();
}

static void *leave_elsewhere(void *handle)
{
	region_leave(handle);
	return NULL;
}

static void leaving_on_another_thread_is_reported_and_changes_nothing(void)
{
	struct region_scope scope;
	void *p;
	region_enter(&scope);
	p = probe_block(100, 1);
	run_in_thread(leave_elsewhere, &scope);
	CHECK(region_depth() == 1 && region_owns(p), "the scope is still open");
	region_leave(&scope);
	CHECK(region_depth() == 0, "its own thread ends it");
	probe_unblock(p, 100, 1);
}

/* As it comes from an enter that found no place for a scope. */
static void leaving_an_empty_handle_changes_nothing(void)
{
	struct region_scope outer, empty = {0};
	region_enter(&outer);
	region_leave(&empty);
	CHECK(region_depth() == 1, "the outer scope is still open: depth %u", region_depth());
	region_leave(&outer);
	probe_heap_is_sound();
}

/* --- the block form --- */

static int leave_by_return(void)
{
	REGION_SCOPE("returning") {
		is_in("returning", probe_block(100, 1), "a block in REGION_SCOPE");
		return (int)region_depth();
	}
	return 99;
}

static void leave_by_goto(void)
{
	REGION_SCOPE("going") {
		CHECK(region_depth() == 1, "the block is a scope");
		goto out;
	}
out:
	CHECK(region_depth() == 0, "goto ends it");
}

static void block_form_ends_with_its_block_however_left(void)
{
	int rounds = 0;
	REGION_SCOPE("whole") {
		rounds++;
		REGION_SCOPE("nested")
			CHECK(region_depth() == 2, "blocks nest: depth %u", region_depth());
		CHECK(region_depth() == 1, "the inner block has ended");
	}
	CHECK(rounds == 1 && region_depth() == 0, "the block runs once and ends");
	REGION_SCOPE("breaking") {
		if (rounds)
			break;
		rounds = 99;
	}
	CHECK(rounds == 1 && region_depth() == 0, "break ends it");
	CHECK(leave_by_return() == 1 && region_depth() == 0, "return ends it");
	leave_by_goto();
	REGION_SCOPE_WITH(.name = "with", .fade = REGION_FADE_NONE)
		is_in("with", probe_block(10, 1), "a block with options");
	CHECK(region_depth() == 0, "all have ended");
}

/* --- other stacks --- */

static ucontext_t main_context, coroutine_context;
static char coroutine_stack[128 << 10] __attribute__((aligned(64)));
static void *coroutine_block;

static void be_a_coroutine(void)
{
	coroutine_block = probe_block(100, 9);
	swapcontext(&coroutine_context, &main_context);
	free(probe_block(100, 1));
}

static void switch_to_a_coroutine(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	getcontext(&coroutine_context);
	coroutine_context.uc_stack.ss_sp = coroutine_stack;
	coroutine_context.uc_stack.ss_size = sizeof(coroutine_stack);
	coroutine_context.uc_link = &main_context;
	makecontext(&coroutine_context, be_a_coroutine, 0);
	swapcontext(&main_context, &coroutine_context);
	CHECK(region_depth() == 1 && region_owns(p), "the scope is open after a coroutine ran");
	p = probe_block(200, 2);
	CHECK(region_owns(p), "and serves");
}

static void a_coroutine_does_not_end_the_scope(void)
{
	region_do(switch_to_a_coroutine, NULL);
	CHECK(region_depth() == 0, "the scope ends on its own stack");
	swapcontext(&main_context, &coroutine_context);
	probe_unblock(coroutine_block, 100, 9);
	probe_heap_is_sound();
}

/* --- before main, after it, at a thread's end --- */

static unsigned depth_in_odd_places;

static void note_depth(void *unused)
{
	(void)unused;
	free(probe_block(100, 1));
	depth_in_odd_places += region_depth();
}

/* The runner, which has no library, comes through here as well. */
static __attribute__((constructor(101))) void use_a_scope_before_main(void)
{
	region_do(note_depth, NULL);
}

static void use_a_scope_after_main(void)
{
	region_do(note_depth, NULL);
	CHECK(depth_in_odd_places == 2, "an atexit handler had a scope");
}

static void scopes_work_before_and_after_main(void)
{
	CHECK(depth_in_odd_places == 1, "a constructor had a scope");
	atexit(use_a_scope_after_main);
}

static pthread_key_t key;

static void use_a_scope_at_the_end(void *unused)
{
	static int calls;
	free(probe_block(100, 1));
	region_do(do_nothing, NULL);
	if (++calls < 3)
		pthread_setspecific(key, unused);
}

static void *set_key(void *unused)
{
	pthread_setspecific(key, &key);
	return unused;
}

static void scopes_in_key_destructors_do_no_harm(void)
{
	CHECK(pthread_key_create(&key, use_a_scope_at_the_end) == 0, "a key is made");
	run_in_thread(set_key, NULL);
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}
#define REPORTED(name_) {.name = #name_, .run = name_, .lines = 1, .says = {"region_leave"}}

const struct probe_case probe_cases[] = {
	CASE(region_do_calls_its_function_once),
	CASE(scopes_nest_a_thousand_deep),
	CASE(a_million_empty_scopes_leave_nothing_behind),
	CASE(a_scope_belongs_to_the_thread_that_entered_it),
	CASE(an_inner_scope_has_a_region_of_its_own),
	CASE(faded_blocks_never_rebind_to_an_outer_scope),
	CASE(realloc_of_an_outer_block_stays_outside),
	CASE(realloc_of_an_outer_scope_s_block_stays_in_that_scope),
	CASE(realloc_of_a_scope_s_own_block_stays_inside),
	CASE(another_thread_may_realloc_a_scope_s_block),
	CASE(ignore_runs_with_the_general_heap),
	CASE(owns_and_name_of_answer_for_any_pointer),
	CASE(version_is_the_header_s),
	CASE(enter_and_leave_open_and_end_a_scope),
	CASE(handles_may_lie_anywhere),
	CASE(leaving_the_outer_handle_ends_the_inner_scope),
	REPORTED(leaving_twice_is_reported_and_changes_nothing),
	REPORTED(leaving_on_another_thread_is_reported_and_changes_nothing),
	CASE(leaving_an_empty_handle_changes_nothing),
	CASE(block_form_ends_with_its_block_however_left),
	CASE(a_coroutine_does_not_end_the_scope),
	CASE(scopes_work_before_and_after_main),
	CASE(scopes_in_key_destructors_do_no_harm),
	{0},
};
