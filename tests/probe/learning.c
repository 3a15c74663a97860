/*
 * learning.c: call sites whose blocks outlive their scopes are learned, and unlearned; scopes of which most
 * outlives them are switched off, and tried again.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static const struct region_options unfreed = {.name = "request", .fade = REGION_FADE_UNFREED};
static const struct region_options reachable = {.name = "request", .fade = REGION_FADE_REACHABLE};

static struct region_stats stats_now(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return stats;
}

/* Blocks that outlive their request, each until so many others have come. */
static void *kept[50000];
static unsigned kept_count, kept_most = 500;

static void keep(void *p)
{
	void **place = &kept[kept_count++ % kept_most];
	free(*place);
	*place = p;
}

/* --- thirty call sites, of which three leave what they allocate --- */

#define SITE(n) \
	static __attribute__((noinline)) void *site_##n(size_t size) { return memset(malloc(size), n, size); }
#define SITES(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) \
	X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29)
SITES(SITE)
#define ADDRESS(n) site_##n,
static void *(*const sites[])(size_t) = {SITES(ADDRESS)};

static unsigned seed = 1;

/* A hundred blocks, a fifth of which survive. */
static void request(void *unused)
{
	void *own[80];
	unsigned count = 0;

	(void)unused;
	for (unsigned i = 0; i < 100; i++) {
		unsigned which = i % 5 ? 3 + probe_random(&seed) % 27 : i / 5 % 3;
		void *p = sites[which](1 + probe_random(&seed) % 300);
		if (which < 3)
			keep(p);
		else
			own[count++] = p;
	}
	while (count > 0)
		free(own[--count]);
	memset(own, 0, sizeof(own));
}

static void at_most_one_in_a_hundred_fades(const struct region_options *options)
{
	for (int i = 0; i < 1000; i++)
		region_do_with(options, request, NULL);
	struct region_stats before = stats_now();
	for (int i = 0; i < 5000; i++)
		region_do_with(options, request, NULL);
	struct region_stats after = stats_now();
	uint64_t faded = after.blocks_faded - before.blocks_faded;
	int64_t waiting = (int64_t)(after.waiting_blocks - before.waiting_blocks);
	uint64_t learned = after.heap_learned - before.heap_learned;
	CHECK((int64_t)faded + waiting <= 5000, "of 500000 blocks %d fade and %d wait", (int)faded, (int)waiting);
	CHECK(learned >= 95000 && learned <= 100000, "the general heap has those of three sites: %d",
	      (int)learned);
	CHECK(after.blocks_allocated - before.blocks_allocated >= 400000, "the others are in the scope");
}

static void three_of_thirty_sites_are_learned(void)
{
	at_most_one_in_a_hundred_fades(&unfreed);
}

/* What is kept lives when the search is made. */
static void what_a_search_finds_is_learned(void)
{
	kept_most = 50000;
	at_most_one_in_a_hundred_fades(&reachable);
}

/* --- other ways to allocate --- */

static void survive_in_other_ways(void *unused)
{
	(void)unused;
	free(malloc(100));
	free(calloc(1, 3000));
	keep(calloc(1, 100));
	keep(calloc(1, 3000));
	keep(realloc(malloc(100), 2000));
	keep(strdup("what libc allocates"));
	for (int i = 0; i < 60; i++)
		free(malloc(300));
}

static void every_way_to_allocate_is_seen(void)
{
	for (int i = 0; i < 300; i++)
		region_do_with(&unfreed, survive_in_other_ways, NULL);
	struct region_stats before = stats_now();
	for (int i = 0; i < 1000; i++)
		region_do_with(&unfreed, survive_in_other_ways, NULL);
	struct region_stats after = stats_now();
	uint64_t learned = after.heap_learned - before.heap_learned;
	CHECK(learned >= 3900 && learned <= 4000, "four blocks a call: %d", (int)learned);
}

/* --- unlearning --- */

static bool survives = true;
static void *last;

static __attribute__((noinline)) void *allocate(size_t size)
{
	return memset(malloc(size), 1, size);
}

static void survive_or_not(void *unused)
{
	void *p = allocate(200);

	(void)unused;
	for (int i = 0; i < 4; i++)
		free(malloc(64));
	last = p;
	if (survives)
		keep(p);
	else
		free(p);
}

static uint64_t learned_in(unsigned calls)
{
	uint64_t before = stats_now().heap_learned;
	while (calls-- > 0)
		region_do_with(&unfreed, survive_or_not, NULL);
	return stats_now().heap_learned - before;
}

static void what_stops_surviving_is_unlearned(void)
{
	learned_in(1000);
	CHECK(learned_in(1000) > 950, "what survives is learned");
	survives = false;
	learned_in(10000);
	CHECK(learned_in(1000) == 0, "what doesn't any more is unlearned");
	survives = true;
	learned_in(1000);
	CHECK(learned_in(1000) > 950, "and learned again");
}

static void leave_nothing(void *unused)
{
	(void)unused;
	free(malloc(100));
}

static void functions_are_told_apart(void)
{
	for (int i = 0; i < 1000; i++)
		region_do(survive_or_not, NULL);
	uint64_t before = stats_now().heap_learned;
	for (int i = 0; i < 1000; i++) {
		region_do(leave_nothing, NULL);
		region_do(survive_or_not, NULL);
	}
	CHECK(stats_now().heap_learned - before > 950, "one without options, after another: %d",
	      (int)(stats_now().heap_learned - before));
}

/* --- wrappers: one call site for all --- */

static __attribute__((noinline)) void *wrapper(size_t size)
{
	void *p = malloc(size);
	CHECK(p, "there is memory");
	return p;
}

static void one_of_ten_by_its_size(void *unused)
{
	(void)unused;
	for (int i = 0; i < 9; i++)
		free(wrapper(32 + 16 * (unsigned)i));
	keep(wrapper(500));
}

static void sizes_of_a_wrapper_are_told_apart(void)
{
	for (int i = 0; i < 300; i++)
		region_do_with(&unfreed, one_of_ten_by_its_size, NULL);
	struct region_stats before = stats_now();
	for (int i = 0; i < 1000; i++)
		region_do_with(&unfreed, one_of_ten_by_its_size, NULL);
	struct region_stats after = stats_now();
	uint64_t learned = after.heap_learned - before.heap_learned;
	CHECK(learned > 950 && learned <= 1000, "only the size that survives is learned: %d", (int)learned);
}

static void one_of_ten_of_a_size(void *unused)
{
	(void)unused;
	for (int i = 0; i < 9; i++)
		free(wrapper(100));
	keep(wrapper(100));
}

static void few_survivors_of_a_wrapper_are_not_learned(void)
{
	for (int i = 0; i < 3000; i++)
		region_do_with(&unfreed, one_of_ten_of_a_size, NULL);
	CHECK(stats_now().heap_learned == 0, "one of ten: the scope serves all");
	CHECK(stats_now().blocks_faded == 3000, "and what survives fades");
}

/* --- garbage --- */

/* A block before one that is kept counts as reached, by a pointer to its end. */
static void five_kept_five_left(void *unused)
{
	(void)unused;
	for (int i = 0; i < 20; i++) {
		void *p = allocate(1000);
		if (i / 5 % 2)
			keep(p);
	}
}

static void what_only_a_search_reclaims_is_not_learned(void)
{
	for (int i = 0; i < 20000; i++)
		region_do_with(&reachable, five_kept_five_left, NULL);
	CHECK(stats_now().heap_learned == 0 && stats_now().scopes_off == 0, "the general heap would keep it");
	CHECK(stats_now().blocks_reclaimed > 100000, "it is reclaimed: %d", (int)stats_now().blocks_reclaimed);
}

/* --- switching off --- */

static unsigned depth;
static bool fades = true;

static void most_fades(void *unused)
{
	(void)unused;
	depth = region_depth();
	for (int i = 0; i < 20; i++) {
		void *p = allocate(50 + 10 * (unsigned)i);
		if (fades && i > 4)
			keep(p);
		else
			free(p);
	}
}

static void call_often(unsigned calls)
{
	while (calls-- > 0)
		region_do_with(&unfreed, most_fades, NULL);
}

static void useless_scopes_are_switched_off_and_tried_again(void)
{
	call_often(100);
	CHECK(depth == 0, "its calls are plain ones");
	struct region_stats before = stats_now();
	CHECK(before.scopes_off > 50, "and counted: %d", (int)before.scopes_off);
	call_often(20000);
	struct region_stats after = stats_now();
	CHECK(depth == 0, "it is still off");
	uint64_t tries = after.scopes_entered - before.scopes_entered;
	CHECK(tries >= 16 && tries <= 100, "but was tried again, ever less often: %d calls", (int)tries);
	fades = false;
	call_often(40000);
	CHECK(depth == 1, "once nothing fades it is a scope again");
}

/* What the inner one leaves would be the outer one's, which reclaims it. */
static void call_inside(void *unused)
{
	region_do_with(&unfreed, most_fades, unused);
	CHECK(depth == 2, "it is a scope");
}

static void scopes_inside_others_stay_on(void)
{
	static const struct region_options none = {.name = "outer", .fade = REGION_FADE_NONE};

	call_often(100);
	CHECK(depth == 0, "it is switched off");
	for (int i = 0; i < 500; i++)
		region_do_with(&none, call_inside, NULL);
	probe_heap_is_sound();
}

static void count_call(void *unused)
{
	(void)unused;
	kept_count++;
}

static void with_a_call_at_its_end(void *unused)
{
	CHECK(region_on_exit(count_call, NULL) == 0, "it is a scope");
	most_fades(unused);
}

static void scopes_with_calls_at_their_end_stay_on(void)
{
	for (int i = 0; i < 2000; i++)
		region_do_with(&unfreed, with_a_call_at_its_end, NULL);
	CHECK(stats_now().scopes_off == 0, "what they promise is kept");
}

/* --- off by option --- */

static void nothing_is_learned(void)
{
	for (int i = 0; i < 2000; i++)
		region_do_with(&unfreed, request, NULL);
	call_often(1000);
	CHECK(stats_now().heap_learned == 0 && stats_now().scopes_off == 0, "LIBREGION_LEARN=0");
}

static void nothing_is_switched_off(void)
{
	call_often(2000);
	CHECK(stats_now().scopes_off == 0 && depth == 1, "LIBREGION_LEARN_OFF=0");
	CHECK(stats_now().heap_learned > 0, "but sites are learned");
}

/* --- scopes inside each other, threads, processes --- */

static void inner(void *unused)
{
	(void)unused;
	free(malloc(64));
	free(malloc(64));
	free(malloc(64));
	keep(malloc(128));
}

static void around_another(void *unused)
{
	static const struct region_options options = {.name = "inner", .fade = REGION_FADE_UNFREED};

	region_do_with(&options, inner, NULL);
	survive_or_not(unused);
}

static void an_inner_scope_changes_nothing_for_the_outer_one(void)
{
	for (int i = 0; i < 1000; i++)
		region_do_with(&unfreed, around_another, NULL);
	uint64_t before = stats_now().heap_learned;
	for (int i = 0; i < 1000; i++)
		region_do_with(&unfreed, around_another, NULL);
	CHECK(stats_now().heap_learned - before > 1900, "the blocks of both are still the general heap's");
	CHECK(!region_owns(last), "and not the scope's");
}

static void *survive_in_thread(void *unused)
{
	struct region_stats before, after;
	region_stats_read_thread(&before);
	for (int i = 0; i < 100; i++)
		region_do_with(&unfreed, survive_or_not, NULL);
	region_stats_read_thread(&after);
	CHECK(after.heap_learned - before.heap_learned >= 90, "what one thread has learned, others know");
	return unused;
}

static void threads_share_what_is_learned(void)
{
	pthread_t thread;
	learned_in(1000);
	for (int i = 0; i < 10; i++) {
		CHECK(pthread_create(&thread, NULL, survive_in_thread, NULL) == 0, "a thread starts");
		pthread_join(thread, NULL);
	}
}

static void *learn_in_thread(void *unused)
{
	for (int i = 0; i < 20000; i++) {
		void *p[8];
		struct region_scope scope;
		region_enter_with(&scope, &unfreed);
		for (int j = 0; j < 8; j++)
			p[j] = allocate(20 + 30 * (unsigned)j);
		region_leave(&scope);
		for (int j = 0; j < 8; j++)
			free(p[j]);
	}
	return unused;
}

static void threads_learn_and_fork_at_once(void)
{
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, learn_in_thread, NULL) == 0, "a thread starts");
	for (int i = 0; i < 50; i++) {
		int pid = fork();
		CHECK(pid >= 0, "fork works");
		if (pid == 0) {
			learned_in(200);
			_exit(0);
		}
		CHECK(probe_wait_child(pid, 20) == 0, "the child goes on learning");
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	probe_heap_is_sound();
}

#define CASE(function) {.name = #function, .run = function}
#define VERBOSE "LIBREGION_VERBOSE=1"

static void say_what_is_learned(void)
{
	for (int i = 0; i < 300; i++)
		region_do_with(&unfreed, one_of_ten_by_its_size, NULL);
}

static void say_what_is_switched_off(void)
{
	call_often(100);
}

const struct probe_case probe_cases[] = {
	CASE(three_of_thirty_sites_are_learned),
	CASE(what_a_search_finds_is_learned),
	{.name = "functions_are_told_apart", .run = functions_are_told_apart,
	 .environment = "LIBREGION_FADE=unfreed"},
	CASE(every_way_to_allocate_is_seen),
	CASE(what_stops_surviving_is_unlearned),
	CASE(sizes_of_a_wrapper_are_told_apart),
	CASE(few_survivors_of_a_wrapper_are_not_learned),
	CASE(what_only_a_search_reclaims_is_not_learned),
	CASE(useless_scopes_are_switched_off_and_tried_again),
	CASE(scopes_inside_others_stay_on),
	CASE(scopes_with_calls_at_their_end_stay_on),
	{.name = "nothing_is_learned", .run = nothing_is_learned, .environment = "LIBREGION_LEARN=0"},
	{.name = "nothing_is_switched_off", .run = nothing_is_switched_off,
	 .environment = "LIBREGION_LEARN_OFF=0"},
	CASE(an_inner_scope_changes_nothing_for_the_outer_one),
	CASE(threads_share_what_is_learned),
	{.name = "threads_learn_and_fork_at_once", .run = threads_learn_and_fork_at_once,
	 .environment = "LIBREGION_LEARN_AFTER=1"},
	{.name = "say_what_is_learned", .run = say_what_is_learned, .environment = VERBOSE,
	 .lines = PROBE_ANY_LINES,
	 .says = {"scope \"request\" (", "100% of the blocks asked for at", "of 512 bytes",
	          "outlive it: they come from the general heap"}},
	{.name = "say_what_is_switched_off", .run = say_what_is_switched_off, .environment = VERBOSE,
	 .lines = PROBE_ANY_LINES, .says = {"75% of its blocks", "of its bytes outlive it: it is switched off"}},
	{0},
};
