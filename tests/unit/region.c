/*
 * region.c: where a region's memory comes from, what becomes of it at the end, and what is counted.
 */
#include <stdlib.h>
#include <string.h>

#include "scopes/scope.h"
#include "unit.h"

static struct region_stats stats_now(void)
{
	struct region_stats stats;

	region_stats_read(&stats);
	return stats;
}

static struct region *current(void)
{
	return &scope_top(heap_self())->region;
}

static bool is_in_buffer(const void *p)
{
	return span_of(p)->kind == SPAN_BUFFER;
}

/* Every byte and block that a region served has ended in one of three ways. */
static void check_sums(const struct region_stats *stats)
{
	uint64_t blocks = stats->blocks_freed + stats->blocks_faded + stats->blocks_reclaimed;
	uint64_t bytes = stats->bytes_freed + stats->bytes_faded + stats->bytes_reclaimed;

	require(stats->blocks_allocated == blocks + stats->waiting_blocks, "%zu blocks: %zu, %zu, %zu, %zu",
	        (size_t)stats->blocks_allocated, (size_t)stats->blocks_freed, (size_t)stats->blocks_faded,
	        (size_t)stats->blocks_reclaimed, (size_t)stats->waiting_blocks);
	require(stats->bytes_allocated == bytes + stats->waiting_bytes, "%zu bytes: %zu, %zu, %zu, %zu",
	        (size_t)stats->bytes_allocated, (size_t)stats->bytes_freed, (size_t)stats->bytes_faded,
	        (size_t)stats->bytes_reclaimed, (size_t)stats->waiting_bytes);
}

/* Records that are ready. */

Test(region, a_scope_that_frees_all_leaves_its_record_ready_with_the_same_buffer)
{
	struct region_scope scope;
	char *first = NULL;

	scopes_begin();
	for (uint64_t i = 0; i < 100; i++) {
		region_enter(&scope);
		char *p = shim_malloc(100), *q = shim_malloc(200);
		require(i == 0 || p == first, "scope %zu: %p, not %p", (size_t)i, (void *)p, (void *)first);
		first = p;
		shim_free(q);
		shim_free(p);
		region_leave(&scope);
	}
	struct region_stats stats = stats_now();
	require(stats.scopes_entered == 100 && stats.buffers_made == 1 && stats.buffers_reused <= 2, "%zu made",
	        (size_t)stats.buffers_made);
	require(stats.blocks_allocated == 200 && stats.blocks_freed == 200, "%zu", (size_t)stats.blocks_freed);
	require(stats.bytes_freed == 100 * (112 + 208), "%zu", (size_t)stats.bytes_freed);
	check_sums(&stats);
}

Test(region, a_ready_record_serves_only_those_who_ask_for_the_same)
{
	const struct region_options small = {.name = "small", .buffer_size = 64 << 10, .fade = REGION_FADE_NONE};
	const struct region_options large = {.name = "large", .buffer_size = 1 << 20};
	struct region_scope scope;

	scopes_begin();
	for (int round = 0; round < 4; round++) {
		region_enter_with(&scope, round % 2 ? &small : &large);
		void *p = shim_malloc(100);
		require(span_bytes(span_of(p)) == (round % 2 ? 64 << 10 : 1 << 20), "round %d", round);
		require(strcmp(region_name_of(p), round % 2 ? "small" : "large") == 0, "round %d", round);
		enum region_fade fade = round % 2 ? REGION_FADE_NONE : REGION_FADE_REACHABLE;
		require(current()->policy->fade == fade, "round %d", round);
		shim_free(p);
		region_leave(&scope);
		region_enter(&scope);
		p = shim_malloc(100);
		require(span_bytes(span_of(p)) == 256 << 10, "round %d", round);
		require(strcmp(region_name_of(p), "scope") == 0, "round %d", round);
		shim_free(p);
		region_leave(&scope);
	}
}

Test(region, options_that_differ_in_one_member_are_not_the_same)
{
	const struct region_options rows[] = {
		{.name = "a"},
		{.name = "b"},
		{.name = "b", .fade = REGION_FADE_NONE},
		{.name = "b", .fade = REGION_FADE_NONE, .buffer_count = 3},
		{.name = "b", .fade = REGION_FADE_NONE, .buffer_count = 3, .limit_bytes = 1 << 20},
		{.name = "b", .fade = REGION_FADE_NONE, .buffer_count = 3, .limit_bytes = 1 << 20,
		 .buffer_size = 1 << 20},
	};
	struct region_scope scope;

	scopes_begin();
	for (size_t i = 0; i < 3 * COUNT_OF(rows); i++) {
		const struct region_options *row = &rows[i % COUNT_OF(rows)];
		struct policy wanted;

		policy_set(&wanted, row);
		region_enter_with(&scope, row);
		const struct policy *policy = current()->policy;
		require(policy->name == row->name && current()->counters->name == row->name, "entry %zu", i);
		require(policy->fade == wanted.fade && policy->size_log2 == wanted.size_log2, "entry %zu", i);
		require(policy->buffer_count == wanted.buffer_count, "entry %zu", i);
		require(policy->limit_bytes == wanted.limit_bytes, "entry %zu", i);
		region_leave(&scope);
	}
}

/* Policies. */

static char *left_by_scope(const struct region_options *given, size_t bytes)
{
	struct region_scope scope;

	region_enter_with(&scope, given);
	char *p = shim_malloc(bytes);
	memset(p, 7, bytes);
	region_leave(&scope);
	return p;
}

Test(region, unfreed_blocks_stay_valid_until_they_are_freed_once)
{
	struct capture capture;
	char *left[300];

	setenv("LIBREGION_FADE", "unfreed", 1);
	scopes_begin();
	for (size_t i = 0; i < 300; i++)
		left[i] = left_by_scope(NULL, 10 + 50 * i);
	for (size_t i = 0; i < 300; i++) {
		for (size_t j = 0; j < 10 + 50 * i; j++)
			require(left[i][j] == 7, "block %zu, byte %zu", i, j);
		require(shim_usable_size(left[i]) >= 10 + 50 * i && !region_name_of(left[i]), "block %zu", i);
		shim_free(left[i]);
	}
	struct region_stats stats = stats_now();
	require(stats.blocks_faded == 300 && stats.blocks_reclaimed == 0, "%zu", (size_t)stats.blocks_faded);
	check_sums(&stats);
	capture_begin(&capture);
	shim_free(left[5]);
	capture_end(&capture);
	require(strstr(capture.text, "libregion: free("), "%s", capture.text);
	shim_trim(0);
	require(stats_now().mapped_bytes <= 256 << 10, "%zu bytes", (size_t)stats_now().mapped_bytes);
}

Test(region, none_reclaims_all_but_what_is_kept_and_knows_late_frees)
{
	const struct region_options none = {.name = "request", .fade = REGION_FADE_NONE};
	struct region_scope scope;
	struct capture capture;

	setenv("LIBREGION_STATS", "0", 1);
	scopes_begin();
	region_enter_with(&scope, &none);
	char *before = shim_malloc(1000), *kept = shim_malloc(100), *after = shim_malloc(50);
	memset(kept, 9, 100);
	require(region_keep(kept) == kept && region_keep(kept) == kept, "in place");
	require(!region_owns(kept) && region_owns(after), "it has faded already");
	region_leave(&scope);
	require(kept[0] == 9 && kept[99] == 9 && shim_usable_size(kept) == 112, "%zu", shim_usable_size(kept));
	struct region_stats stats = stats_now();
	require(stats.blocks_faded == 1 && stats.blocks_reclaimed == 2, "%zu", (size_t)stats.blocks_reclaimed);
	require(stats.bytes_faded == 112, "%zu", (size_t)stats.bytes_faded);
	require(stats.bytes_reclaimed == 1008 + 64, "%zu", (size_t)stats.bytes_reclaimed);
	check_sums(&stats);
	capture_begin(&capture);
	shim_free(before);
	shim_free(after);
	capture_end(&capture);
	require(strstr(capture.text, "reclaimed at the end of scope \"request\""), "%s", capture.text);
	require(count_lines(capture.text) == 1, "%s", capture.text);
	require(stats_now().late_frees == 2 && kept[50] == 9, "%zu", (size_t)stats_now().late_frees);
	shim_free(kept);
}

Test(region, the_operators_policy_is_over_the_programs)
{
	setenv("LIBREGION_FADE", "unfreed", 1);
	scopes_begin();
	char *p = left_by_scope(&(struct region_options){.fade = REGION_FADE_NONE}, 100);
	require(p[0] == 7 && shim_usable_size(p) == 112, "it was reclaimed");
	require(stats_now().blocks_faded == 1, "%zu", (size_t)stats_now().blocks_faded);
}

Test(region, the_operators_policy_is_the_default_ones_too)
{
	setenv("LIBREGION_FADE", "none", 1);
	scopes_begin();
	left_by_scope(NULL, 100);
	left_by_scope(&(struct region_options){.fade = REGION_FADE_UNFREED}, 100);
	struct region_stats stats = stats_now();
	require(stats.blocks_faded == 0 && stats.bytes_reclaimed == 224, "%zu", (size_t)stats.bytes_reclaimed);
}

/* Where memory comes from. */

Test(region, past_its_limit_a_scope_is_served_by_the_general_heap)
{
	const struct region_options limited = {.buffer_size = 64 << 10, .limit_bytes = 256 << 10};
	size_t in_buffers = 0;
	struct region_scope scope;
	char *last = NULL;

	scopes_begin();
	region_enter_with(&scope, &limited);
	for (size_t i = 0; i < 1000; i++) {
		last = shim_malloc(1000);
		require(last != NULL, "block %zu", i);
		memset(last, 3, 1000);
		in_buffers += is_in_buffer(last);
		require(current()->held_bytes <= limited.limit_bytes, "%zu", current()->held_bytes);
	}
	require(!is_in_buffer(last) && in_buffers >= 250 && in_buffers <= 262, "%zu", in_buffers);
	region_leave(&scope);
	struct region_stats stats = stats_now();
	require(stats.heap_over_limit == 1000 - in_buffers, "%zu", (size_t)stats.heap_over_limit);
	require(stats.peak_bytes == 256 << 10 && last[999] == 3, "%zu", (size_t)stats.peak_bytes);
}

Test(region, as_many_buffers_are_made_ready_as_are_asked_for)
{
	struct region_scope scope;
	struct heap *heap = scopes_begin();

	region_enter_with(&scope, &(struct region_options){.buffer_size = 100000, .buffer_count = 5});
	void *p = shim_malloc(10);
	require(span_bytes(span_of(p)) == 128 << 10, "%zu", span_bytes(span_of(p)));
	require(heap->spare_bytes == 4 * (128 << 10), "%zu", heap->spare_bytes);
	region_leave(&scope);
}

Test(region, under_none_a_large_block_has_a_buffer_of_its_own_and_is_reclaimed)
{
	const struct region_options none = {.fade = REGION_FADE_NONE}, unfreed = {.fade = REGION_FADE_UNFREED};
	struct region_scope scope;

	scopes_begin();
	for (int round = 0; round < 2; round++) {
		region_enter_with(&scope, &none);
		/* First in the one, after a small one in the other. */
		char *small = round ? shim_malloc(10) : NULL, *large = shim_malloc(3 * MIB), *next = shim_malloc(10);
		require(is_in_buffer(large) && region_owns(large), "round %d", round);
		require(shim_usable_size(large) == 3 * MIB, "%zu", shim_usable_size(large));
		memset(large, 1, 3 * MIB);
		require(!small || span_of(next) == span_of(small), "the cursor stays where it was");
		region_leave(&scope);
		shim_trim(0);
		require(stats_now().mapped_bytes <= 256 << 10, "%zu bytes", (size_t)stats_now().mapped_bytes);
	}
	region_enter_with(&scope, &unfreed);
	char *large = shim_malloc(3 * MIB);
	require(span_of(large)->kind == SPAN_BIG && stats_now().heap_too_big == 1, "it would stay behind");
	region_leave(&scope);
	shim_free(large);
}

Test(region, a_scope_with_only_one_large_block_is_closed_properly)
{
	struct region_scope scope;

	scopes_begin();
	for (int round = 0; round < 30; round++) {
		region_enter_with(&scope, &(struct region_options){.fade = REGION_FADE_NONE});
		memset(shim_malloc(MIB), 1, MIB);
		region_leave(&scope);
	}
	require(stats_now().mapped_bytes <= 12 * MIB, "%zu bytes", (size_t)stats_now().mapped_bytes);
	require(stats_now().bytes_reclaimed == 30 * MIB, "%zu", (size_t)stats_now().bytes_reclaimed);
}

/* Holes. */

Test(region, a_long_scope_with_churn_stays_near_what_lives)
{
	static char *queue[2000];
	struct region_scope scope;
	uint64_t seed = 1;

	scopes_begin();
	region_enter(&scope);
	for (size_t i = 0; i < 400000; i++) {
		char **slot = &queue[i % COUNT_OF(queue)];
		shim_free(*slot);
		*slot = shim_malloc(1 + random_below(&seed, 200));
		/* 2000 blocks of about 110 bytes are one buffer. */
		require(current()->held_bytes <= 4 * (256 << 10), "turn %zu: %zu", i, current()->held_bytes);
		require(is_in_buffer(*slot), "turn %zu", i);
	}
	for (size_t i = 0; i < COUNT_OF(queue); i++)
		shim_free(queue[i]);
	region_leave(&scope);
	struct region_stats stats = stats_now();
	require(stats.blocks_allocated == 400000, "%zu", (size_t)stats.blocks_allocated);
	require(stats.blocks_freed == 400000, "%zu", (size_t)stats.blocks_freed);
	check_sums(&stats);
}

Test(region, one_survivor_a_scope_costs_no_buffer_a_scope)
{
	static char *survivors[20000];
	struct region_scope scope;
	size_t going_on = 0;

	setenv("LIBREGION_FADE", "unfreed", 1);
	setenv("LIBREGION_LEARN", "0", 1);
	struct heap *heap = scopes_begin();
	for (size_t i = 0; i < COUNT_OF(survivors); i++) {
		region_enter(&scope);
		for (int j = 0; j < 8; j++)
			if (j == 4)
				survivors[i] = shim_malloc(16);
			else
				shim_free(shim_malloc(700));
		region_leave(&scope);
		going_on += scope_thread(heap)->partial != NULL;
	}
	require(going_on > COUNT_OF(survivors) * 9 / 10, "after %zu scopes", going_on);
	/* What survived is 320 kB. */
	require(stats_now().mapped_bytes <= 4 * MIB, "%zu bytes", (size_t)stats_now().mapped_bytes);
	require(stats_now().buffers_made < 20, "%zu", (size_t)stats_now().buffers_made);
	for (size_t i = 0; i < COUNT_OF(survivors); i++)
		require(shim_usable_size(survivors[i]) == 16, "survivor %zu", i);
	struct region_stats stats = stats_now();
	require(stats.blocks_faded == COUNT_OF(survivors), "%zu", (size_t)stats.blocks_faded);
	check_sums(&stats);
	/* Once a scope leaves nothing, the buffer is given up. */
	region_enter(&scope);
	shim_free(shim_malloc(2000));
	region_leave(&scope);
	require(scope_thread(heap)->partial == NULL, "it is kept still");
	for (int i = 0; i < 2; i++)
		left_by_scope(NULL, 16);
	require(scope_thread(heap)->partial != NULL, "there is one again");
	region_enter(&scope);
	shim_free(shim_malloc(MIB));
	region_leave(&scope);
	require(scope_thread(heap)->partial == NULL, "a scope without any buffer gives it up, too");
	for (size_t i = 0; i < COUNT_OF(survivors); i++)
		shim_free(survivors[i]);
	shim_trim(0);
	/* All but the two blocks that were left just now. */
	require(stats_now().mapped_bytes <= 512 << 10, "%zu bytes", (size_t)stats_now().mapped_bytes);
}

static void ignored(void *unused)
{
	shim_free(shim_malloc(100));
	(void)unused;
}

Test(region, scopes_after_one_that_left_something_go_on_beside_it)
{
	struct region_scope scope;
	char *blocks[10], *first = NULL;

	setenv("LIBREGION_FADE", "unfreed", 1);
	scopes_begin();
	region_enter(&scope);
	unsigned char *survivor = shim_malloc(4000);
	memset(survivor, 7, 4000);
	region_leave(&scope);
	for (size_t i = 0; i < 1000; i++) {
		region_enter(&scope);
		for (size_t j = 0; j < COUNT_OF(blocks); j++)
			memset(blocks[j] = shim_malloc(100 + 10 * j), 9, 100 + 10 * j);
		/* From the second one on, where the one before has begun. */
		require(i < 2 || blocks[0] == first, "scope %zu: %p, not %p", i, (void *)blocks[0], (void *)first);
		first = blocks[0];
		if (i % 100 == 50)
			region_ignore(ignored, NULL);
		for (size_t j = 0; j < COUNT_OF(blocks); j++)
			shim_free(blocks[j]);
		region_leave(&scope);
		if (i % 100 == 70)
			region_ignore(ignored, NULL);
	}
	struct region_stats stats = stats_now();
	require(stats.buffers_made == 1, "%zu made", (size_t)stats.buffers_made);
	require(stats.buffers_partial < 30, "%zu looked for a hole", (size_t)stats.buffers_partial);
	require(stats.blocks_allocated == 10001, "%zu", (size_t)stats.blocks_allocated);
	require(stats.blocks_faded == 1, "%zu", (size_t)stats.blocks_faded);
	check_sums(&stats);
	for (size_t i = 0; i < 4000; i++)
		require(survivor[i] == 7, "byte %zu", i);
	shim_free(survivor);
	shim_trim(0);
	require(stats_now().mapped_bytes == 0, "%zu bytes", (size_t)stats_now().mapped_bytes);
}

static void free_long_blocks(struct span *span)
{
	unsigned char *head = buffer_map(span), *end = buffer_map_end(span);

	for (; (head = granule_next_live(head, end)) < end; head += granule_size(head))
		if (granule_size(head) > GRANULE_SHORT_MAX)
			shim_free(range_of_map(head));
}

Test(region, retired_buffers_with_room_are_used_before_new_ones_are_made)
{
	struct region_scope scope;
	char *survivors[20];

	setenv("LIBREGION_BUFFER_CACHE", "0", 1);
	setenv("LIBREGION_FADE", "unfreed", 1);
	scopes_begin();
	region_enter(&scope);
	/* A survivor in each of twenty buffers. */
	for (size_t i = 0; i < 20; i++) {
		survivors[i] = shim_malloc(16);
		for (size_t bytes = 0; bytes < 260 << 10; bytes += 10000)
			shim_malloc(10000);
	}
	for (struct span *span = current()->buffers; span; span = span->next)
		free_long_blocks(span);
	region_leave(&scope);
	uint64_t made = stats_now().buffers_made, partial = stats_now().buffers_partial;
	require(made >= 20, "%zu", (size_t)made);
	region_enter(&scope);
	for (size_t i = 0; i < 200; i++)
		require(is_in_buffer(shim_malloc(10000)), "block %zu", i);
	region_leave(&scope);
	require(stats_now().buffers_made == made, "%zu more", (size_t)(stats_now().buffers_made - made));
	require(stats_now().buffers_partial >= partial + 8, "%zu", (size_t)stats_now().buffers_partial);
	for (size_t i = 0; i < 20; i++)
		require(shim_usable_size(survivors[i]) == 16, "survivor %zu", i);
}

/* realloc goes by the pointer. */

Test(region, realloc_keeps_a_block_where_it_belongs)
{
	struct region_scope outer, inner;

	scopes_begin();
	char *global = shim_malloc(100);
	region_enter_with(&outer, &(struct region_options){.name = "outer"});
	char *out = shim_malloc(100);
	strcpy(out, "out");
	region_enter_with(&inner, &(struct region_options){.name = "inner"});
	global = shim_realloc(global, 500);
	require(!is_in_buffer(global), "a block of the general heap went into the scope");
	out = shim_realloc(out, 5000);
	require(strcmp(region_name_of(out), "outer") == 0 && strcmp(out, "out") == 0, "%s", region_name_of(out));
	char *in = shim_malloc(100), *grown = shim_realloc(in, 3000);
	require(grown == in && strcmp(region_name_of(in), "inner") == 0, "the newest block grows in place");
	shim_malloc(10);
	require(shim_realloc(in, 20) == in && shim_usable_size(in) == 32, "a block shrinks in place");
	require(region_owns(shim_malloc(10)), "the inner region is current still");
	region_leave(&inner);
	require(strcmp(out, "out") == 0 && region_owns(out), "and the outer one after it");
	region_leave(&outer);
	require(shim_usable_size(out) >= 5000, "%zu", shim_usable_size(out));
}

Test(region, a_copy_outlives_its_scope)
{
	struct region_scope scope;

	scopes_begin();
	region_enter_with(&scope, &(struct region_options){.fade = REGION_FADE_NONE});
	char *p = shim_malloc(100);
	strcpy(p, "copied");
	char *copy = region_copy_out(p);
	require(!is_in_buffer(copy) && region_copy_out(NULL) == NULL, "on the general heap");
	region_leave(&scope);
	require(strcmp(copy, "copied") == 0 && shim_usable_size(copy) >= 112, "%s", copy);
	shim_free(copy);
}

/* Sums. */

static void scope_at_random(uint64_t *seed, int depth)
{
	static const char *const names[] = {"a", "b", "c"};
	struct region_options given = {
		.name = names[random_below(seed, 3)],
		.fade = random_below(seed, 2) ? REGION_FADE_NONE : REGION_FADE_UNFREED,
		.buffer_size = random_below(seed, 2) ? 64 << 10 : 0,
	};
	struct region_scope scope;
	void *held[30] = {0};

	region_enter_with(&scope, &given);
	for (size_t i = random_below(seed, 1200); i > 0; i--) {
		void **slot = &held[random_below(seed, COUNT_OF(held))];
		size_t bytes = 1 + random_below(seed, random_below(seed, 30) ? 300 : 20000);
		if (random_below(seed, 3) == 0) {
			*slot = shim_realloc(*slot, bytes);
			continue;
		}
		shim_free(*slot);
		*slot = shim_malloc(bytes);
		if (random_below(seed, 100) == 0)
			region_keep(*slot);
		if (random_below(seed, 300) == 0 && depth < 4)
			scope_at_random(seed, depth + 1);
	}
	region_leave(&scope);
}

static void run_scopes_at_random(void)
{
	static const char *const names[] = {"a", "b", "c"};
	struct region_stats named, sum = {0}, total, own;

	scopes_begin();
	for (uint64_t round = 1; round <= 60; round++) {
		uint64_t seed = round;
		scope_at_random(&seed, 0);
	}
	for (size_t i = 0; i < 3; i++) {
		require(region_stats_read_scope(names[i], &named) == 0, "%s", names[i]);
		sum.scopes_entered += named.scopes_entered;
		sum.bytes_allocated += named.bytes_allocated;
		sum.blocks_allocated += named.blocks_allocated;
		sum.peak_bytes = sum.peak_bytes > named.peak_bytes ? sum.peak_bytes : named.peak_bytes;
	}
	region_stats_read(&total);
	region_stats_read_thread(&own);
	require(total.scopes_entered >= 60, "%zu", (size_t)total.scopes_entered);
	require(total.scopes_entered == sum.scopes_entered, "%zu", (size_t)sum.scopes_entered);
	require(total.bytes_allocated == sum.bytes_allocated, "%zu", (size_t)sum.bytes_allocated);
	require(total.blocks_allocated == sum.blocks_allocated, "%zu", (size_t)sum.blocks_allocated);
	require(total.peak_bytes == sum.peak_bytes, "%zu", (size_t)sum.peak_bytes);
	require(own.bytes_allocated == total.bytes_allocated, "%zu", (size_t)own.bytes_allocated);
	check_sums(&total);
	require(region_stats_read_scope("d", &named) == -1, "nobody entered it");
}

Test(region, sums_add_up_where_blocks_are_counted)
{
	setenv("LIBREGION_STATS", "/dev/null", 1);
	run_scopes_at_random();
}

Test(region, what_open_scopes_have_done_is_counted_when_the_process_ends)
{
	struct region_scope outer, inner;
	struct region_stats stats;

	struct heap *heap = scopes_begin();
	region_enter_with(&outer, &(struct region_options){.name = "outer"});
	shim_free(shim_malloc(3000));
	region_enter_with(&inner, &(struct region_options){.name = "inner"});
	void *first = shim_malloc(16);
	shim_malloc(16);
	shim_free(first);
	region_count_open(scope_thread(heap));
	require(region_stats_read_scope("outer", &stats) == 0 && stats.blocks_allocated == 1, "%zu",
	        (size_t)stats.blocks_allocated);
	require(stats.blocks_freed == 1 && stats.peak_bytes == 256 << 10, "%zu", (size_t)stats.blocks_freed);
	require(region_stats_read_scope("inner", &stats) == 0 && stats.blocks_allocated == 2, "%zu",
	        (size_t)stats.blocks_allocated);
	require(stats.blocks_freed == 1 && stats.bytes_allocated == 32, "%zu", (size_t)stats.bytes_allocated);
}
