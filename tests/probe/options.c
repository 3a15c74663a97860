/*
 * options.c: the environment's options. What is not understood is said once, in one line with what
 * is accepted and what is used instead, and the program runs on; what is understood is in force.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "probe.h"
#include "region.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

static unsigned depth_seen = 99;
static int owns_seen = 99;

static void look_around(void *unused)
{
	void *p = probe_block(100, 1);
	(void)unused;
	depth_seen = region_depth();
	owns_seen = region_owns(p);
	probe_unblock(p, 100, 1);
}

/* Everything works, scopes included. */
static void runs_on(void)
{
	probe_heap_is_sound();
	region_do(look_around, NULL);
	CHECK(depth_seen == 1 && owns_seen == 1, "scopes work: depth %u", depth_seen);
}

/* The options are read once: a child that execs reads them anew, one that forks doesn't. */
static void children_do_not_repeat_the_report(void)
{
	int pid = fork();
	if (pid == 0) {
		probe_heap_is_sound();
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 10) == 0, "the child runs");
}

/* --- what single options do --- */

static void disable_makes_scopes_plain_calls(void)
{
	struct region_scope scope;
	probe_heap_is_sound();
	region_do(look_around, NULL);
	CHECK(depth_seen == 0 && owns_seen == 0, "a disabled scope is a plain call: depth %u",
	      depth_seen);
	region_enter(&scope);
	look_around(NULL);
	CHECK(depth_seen == 0, "a disabled enter does nothing");
	region_leave(&scope);
	CHECK(region_on_exit(look_around, NULL) == -1, "there is no scope to end");
}

static void heap_range_bounds_the_heap(void)
{
	void *p = malloc((size_t)200 << 20);
	CHECK(!p, "a heap range of 64 MB can't hold 200 MB");
	p = malloc((size_t)32 << 20);
	CHECK(p, "a heap range of 64 MB holds 32 MB");
	free(p);
	runs_on();
}

static void wrap_threads_puts_main_in_a_scope(void)
{
	void *p = probe_block(100, 1);
	CHECK(region_depth() == 1 && region_owns(p) == 1, "the main thread is in a scope");
	probe_unblock(p, 100, 1);
	region_do(look_around, NULL);
	CHECK(depth_seen == 2, "a scope in it is the second: depth %u", depth_seen);
}

/* --- judging what is printed --- */

static const char *const option_names[] = {
	"LIBREGION_FADE",       "LIBREGION_BUFFER_SIZE",  "LIBREGION_BUFFER_COUNT",
	"LIBREGION_LIMIT",      "LIBREGION_BUFFER_CACHE", "LIBREGION_MAX_BLOCK",
	"LIBREGION_STATS",      "LIBREGION_HEAP_RANGE",   "LIBREGION_VERBOSE",
	"LIBREGION_DISABLE",    "LIBREGION_ON_ERROR",
};

static const char *names_every_option(const char *said)
{
	for (size_t i = 0; i < sizeof(option_names) / sizeof(option_names[0]); i++)
		if (!strstr(said, option_names[i]))
			return option_names[i];
	return NULL;
}

static const char *every_line_is_ours(const char *said)
{
	for (const char *line = said; line && *line; line = strchr(line, '\n'), line += line != NULL)
		if (strncmp(line, "libregion: ", 11) != 0)
			return "a line doesn't begin 'libregion: '";
	return NULL;
}

#define GOOD(name_, environment_) \
	{.name = #name_, .run = runs_on, .environment = "LIBREGION_" environment_}
#define BAD(name_, option_, value_, ...) \
	{.name = #name_, .run = runs_on, .environment = "LIBREGION_" option_ "=" value_, .lines = 1, \
	 .says = {"LIBREGION_" option_, __VA_ARGS__}}

const struct probe_case probe_cases[] = {
	BAD(unknown_option, "FOO", "1", "ignored"),
	BAD(misspelt_option, "BUFFER_SIZES", "64k", "ignored"),
	{.name = "two_unknown_options", .run = runs_on, .environment = "LIBREGION_FOO=1 LIBREGION_BAR=2",
	 .lines = 2, .says = {"LIBREGION_FOO", "LIBREGION_BAR"}},
	{.name = "names_of_others_are_left_alone", .run = runs_on,
	 .environment = "REGION=eu-west-1 REGION_FADE=x LIBREGIONAL=1 XLIBREGION_FADE=y"},

	BAD(bad_fade, "FADE", "perhaps", "perhaps", "unfreed", "none"),
	GOOD(fade_reachable_is_accepted, "FADE=reachable"),
	BAD(bad_on_error, "ON_ERROR", "explode", "explode", "abort", "report"),
	BAD(bad_boolean, "DISABLE", "maybe", "maybe"),
	BAD(buffer_size_that_is_no_size, "BUFFER_SIZE", "banana", "banana", "64k"),
	BAD(buffer_size_with_an_unknown_unit, "BUFFER_SIZE", "64q", "64q"),
	BAD(buffer_size_too_small, "BUFFER_SIZE", "1", "64k"),
	BAD(buffer_size_too_large, "BUFFER_SIZE", "1G", "1G"),
	BAD(buffer_size_negative, "BUFFER_SIZE", "-1", "-1"),
	BAD(buffer_size_that_overflows, "BUFFER_SIZE", "99999999999999999999999", "9999999999"),
	BAD(buffer_size_that_overflows_by_its_unit, "BUFFER_SIZE", "18014398509481985k", "k"),
	BAD(buffer_count_that_is_no_number, "BUFFER_COUNT", "many", "many"),
	BAD(buffer_cache_that_is_no_size, "BUFFER_CACHE", "big", "big"),
	BAD(limit_that_is_no_size, "LIMIT", "none", "none"),
	BAD(max_block_too_small, "MAX_BLOCK", "0", "0"),
	BAD(heap_range_too_small, "HEAP_RANGE", "4k", "4k", "16M"),
	BAD(heap_range_too_large, "HEAP_RANGE", "9999T", "9999T"),

	GOOD(size_in_kilobytes, "BUFFER_SIZE=64k"),
	GOOD(size_in_capital_kilobytes, "BUFFER_SIZE=128K"),
	GOOD(size_in_megabytes, "BUFFER_SIZE=1M"),
	GOOD(size_in_bytes, "BUFFER_SIZE=65536"),
	GOOD(fade_unfreed, "FADE=unfreed"),
	GOOD(fade_none, "FADE=none"),
	GOOD(boolean_no, "DISABLE=no"),
	GOOD(boolean_false, "DISABLE=false"),
	GOOD(boolean_off, "DISABLE=off"),
	GOOD(boolean_0, "DISABLE=0"),
	GOOD(many_buffers_ready, "BUFFER_COUNT=4"),
	GOOD(no_buffer_cache, "BUFFER_CACHE=0"),

	{.name = "disable_by_1", .run = disable_makes_scopes_plain_calls,
	 .environment = "LIBREGION_DISABLE=1"},
	{.name = "disable_by_yes", .run = disable_makes_scopes_plain_calls,
	 .environment = "LIBREGION_DISABLE=yes"},
	{.name = "disable_by_true", .run = disable_makes_scopes_plain_calls,
	 .environment = "LIBREGION_DISABLE=true"},
	{.name = "disable_by_on", .run = disable_makes_scopes_plain_calls,
	 .environment = "LIBREGION_DISABLE=on"},
	{.name = "heap_range_bounds_the_heap", .run = heap_range_bounds_the_heap,
	 .environment = "LIBREGION_HEAP_RANGE=64M"},
	{.name = "heap_range_at_its_smallest", .run = runs_on, .environment = "LIBREGION_HEAP_RANGE=16M"},
	{.name = "wrap_threads_puts_main_in_a_scope", .run = wrap_threads_puts_main_in_a_scope,
	 .environment = "LIBREGION_WRAP_THREADS=1"},
	{.name = "children_do_not_repeat_the_report", .run = children_do_not_repeat_the_report,
	 .environment = "LIBREGION_FOO=1", .lines = 1},

	{.name = "verbose_prints_version_path_and_options_in_force", .run = runs_on,
	 .environment = "LIBREGION_VERBOSE=1 LIBREGION_BUFFER_SIZE=128k", .lines = PROBE_ANY_LINES,
	 .says = {"0.1.0", ".so", "LIBREGION_BUFFER_SIZE", "128k"}, .judge = every_line_is_ours},
	{.name = "help_prints_every_option", .run = runs_on, .environment = "LIBREGION_HELP=1",
	 .lines = PROBE_ANY_LINES, .judge = names_every_option},
	{0},
};
