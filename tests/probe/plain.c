/*
 * plain.c: a program that uses region.h with weak references, and runs without the library: scopes are
 * plain calls, and the questions answer "no scope".
 */
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_PLAIN;

static int calls;

static void count_call(void *p)
{
	calls++;
	CHECK(region_depth() == 0, "no scope is open");
	CHECK(!region_owns(p), "nothing is owned");
	CHECK(!region_name_of(p), "nothing has a scope's name");
	CHECK(region_keep(p) == p, "region_keep hands its argument back");
}

static void scopes_are_plain_calls(void)
{
	struct region_options options = {.name = "plain", .fade = REGION_FADE_NONE};
	void *p = probe_block(100, 1);
	region_do(count_call, p);
	region_do_with(&options, count_call, p);
	region_ignore(count_call, p);
	CHECK(calls == 3, "each called its function once: %d", calls);
	probe_unblock(p, 100, 1);
}

static void enter_and_leave_do_nothing(void)
{
	struct region_scope scope;
	void *p;
	region_enter(&scope);
	p = probe_block(100, 1);
	region_leave(&scope);
	region_enter_with(&scope, &(struct region_options){.fade = REGION_FADE_NONE});
	region_leave(&scope);
	probe_unblock(p, 100, 1);
}

static void block_form_is_a_plain_block(void)
{
	void *p = NULL;
	REGION_SCOPE("plain") {
		calls++;
		p = probe_block(100, 1);
	}
	CHECK(calls == 1, "the block runs once");
	probe_unblock(p, 100, 1);
}

static void the_rest_can_be_asked_for(void)
{
	CHECK(!region_copy_out && !region_on_exit && !region_stats_read && !region_version,
	      "functions without a plain form are null");
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(scopes_are_plain_calls),
	CASE(enter_and_leave_do_nothing),
	CASE(block_form_is_a_plain_block),
	CASE(the_rest_can_be_asked_for),
	{0},
};
