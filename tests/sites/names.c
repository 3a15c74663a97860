/*
 * names.c: every way to say which calls are meant, and how they are to be run.
 */
#include "sites.h"

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__clang__)
#define LOCAL static __attribute__((noinline, used))
#else
#define LOCAL static __attribute__((noipa, used))
#endif

SITE long by_name(long x)
{
	free(malloc(40));
	return x * 2;
}

LOCAL long local_function(long x)
{
	free(malloc(40));
	return x * 3;
}

/* The names that gcc gives to parts and variants of functions. */
SITE long reduced(long x) __asm__("reduced.isra.0");
SITE long special(long x) __asm__("special.constprop.0.isra.1");
SITE long special_too(long x) __asm__("special.constprop.1");
SITE long cold_part(long x) __asm__("partial.cold");
SITE long hot_part(long x) __asm__("partial");

SITE long reduced(long x)
{
	return (long)(intptr_t)site_program_path() * 0 + x * 5;
}

SITE long special(long x)
{
	free(malloc(9));
	return x * 7;
}

SITE long special_too(long x)
{
	free(malloc(10));
	return x * 9;
}

SITE long cold_part(long x)
{
	free(malloc(11));
	site_depth_is(0, "in a cold part");
	return x * 11;
}

SITE long hot_part(long x)
{
	free(malloc(12));
	return x * 13;
}

/* The same two calls from two callers. The site's name is in both; a filter tells them apart. */
SITE long calls_it(long x)
{
	long sum = by_name(x) + by_name(x + 1);

	SITE_END();
	return sum;
}

SITE long calls_it_too(long x)
{
	long sum = by_name(x) + 1;

	SITE_END();
	return sum;
}

/* A function whose one call instruction has a name. */
__asm__(".text\n.p2align 4\n.globl one_call\n.type one_call, @function\n"
        "one_call: sub $8, %rsp\n.globl the_call\n"
        "the_call: call by_name\n add $1, %rax\n add $8, %rsp\n ret\n.size one_call, .-one_call\n");
long one_call(long x);
extern const char the_call[];

static void call_all(void)
{
	for (long i = 0; i < 10; i++)
		printf("%ld %ld %ld %ld %ld %ld %ld %ld\n", by_name(i), local_function(i), reduced(i),
		       special(i), special_too(i), cold_part(i), hot_part(i), one_call(i));
	site_depth_is(0, "after the calls");
}

static void call_by_name(void)
{
	for (long i = 0; i < 10; i++)
		printf("%ld %ld %ld\n", by_name(i), calls_it(i), calls_it_too(i));
	for (long i = 0; i < 5; i++)
		printf("%ld\n", one_call(i));
	site_depth_is(0, "after the calls");
}

SITE void outer_site(void)
{
	site_churn();
	printf("%ld\n", by_name(3));
	site_churn();
}

static void nest_two(void)
{
	for (int i = 0; i < 10; i++)
		outer_site();
	printf("%ld\n", by_name(4));
	site_kept_are_whole();
}

SITE void leaves_garbage(int n)
{
	/* Nobody looks at them again: `none` may reclaim them. */
	for (int i = 0; i < n; i++)
		memset(malloc(100), i, 100);
}

static void leave_garbage(void)
{
	for (int i = 0; i < 20000; i++)
		leaves_garbage(100);
	printf("done\n");
}

/* 200 MB in all. */
static void garbage_is_reclaimed(void)
{
	FILE *maps;
	char line[256];
	long resident = 0;

	leave_garbage();
	maps = fopen("/proc/self/status", "r");
	while (maps && fgets(line, sizeof(line), maps))
		if (strncmp(line, "VmRSS:", 6) == 0)
			resident = atol(line + 6);
	site_check(!site_is_hooked() || resident < 50000,
	           "what a scope under `none` leaves is reclaimed");
}

#define MEMBER(name) \
	{ \
#name, (const void *)(name) \
	}

const struct site_symbol site_symbols[] = {
	MEMBER(by_name), MEMBER(one_call), MEMBER(the_call), MEMBER(calls_it), MEMBER(reduced), {0},
};

const struct site_case site_cases[] = {
	{"exported_or_not", call_all, "by_name,local_function", "by_name=20 local_function=10"},
	{"with_the_program_s_name", call_by_name, "%P:by_name", "%P:by_name=45"},
	{"variants_of_compilers", call_all, "reduced,special", "reduced=10 special=20"},
	{"cold_parts_are_not_meant", call_all, "partial", "partial=10"},
	{"cold_parts_are_refused", call_all, "partial.cold", "partial.cold=0", {"isn't called as a function"}},
	{"by_offset_of_an_entry", call_by_name, "%P+%{by_name}", "%P+%{by_name}=45"},
	{"by_offset_with_the_build_id", call_by_name, "%P[%B]+%{by_name}", "%P[%B]+%{by_name}=45"},
	{"by_offset_of_a_call", call_by_name, "%P+%{the_call}", "%P+%{the_call}=5"},
	{"an_entry_and_a_call_of_it", call_by_name, "%P+%{the_call},by_name",
     "%P+%{the_call}=5 by_name=40"},
	{"only_from_one_caller", call_by_name, "by_name@calls_it", "by_name@calls_it=20"},
	{"only_from_one_caller_by_offset", call_by_name, "%P+%{by_name}@calls_it_too",
     "%P+%{by_name}@calls_it_too=10"},
	{"sites_may_share_a_function", call_by_name, "by_name@calls_it,by_name@calls_it_too",
     "by_name@calls_it=20 by_name@calls_it_too=10"},
	{"inside_another_site_it_is_ignored", nest_two, "outer_site,by_name",
     "outer_site=10 by_name=1"},
	{"nest_opts_in", nest_two, "outer_site,by_name/nest", "outer_site=10 by_name=11"},
	{"once_is_enough", nest_two, "outer_site/once,by_name", "outer_site=1 by_name=10"},
	{"a_name_of_its_own", nest_two, "outer_site/name=request", "request=10"},
	{"fade_none_reclaims", garbage_is_reclaimed, "leaves_garbage/fade=none",
     "leaves_garbage=20000"},
	/* It would be switched off. */
	{"a_limit_hands_over", leave_garbage, "leaves_garbage/limit_bytes=64k/buffer_size=64k",
     "leaves_garbage=20000", {0}, "LIBREGION_LEARN=0"},
	{"sites_from_a_file",
     call_by_name,
     NULL,
     "by_name@calls_it=20 calls_it_too=10",
     {0},
     "LIBREGION_SITES_FILE=%D/names.sites"},
	{0},
};
