/*
 * object.c: regions as objects: where blocks come from, the length and the peak, reset and end, marks,
 * children, region_within(), and misuse.
 */
#include <errno.h>
#include <stdlib.h>

#include "scopes/object.h"
#include "unit.h"

#define KIB ((size_t)1 << 10)

static region_t *make(const char *name)
{
	region_t *region = region_create(&(struct region_options){.name = name, .buffer_size = 64 << 10});

	require(region != NULL, "%s", name);
	return region;
}

/* Fills a block, so that overlaps are seen later. */
static char *filled(region_t *region, size_t size, int byte)
{
	char *p = region_alloc(region, size);

	require(p != NULL && (uintptr_t)p % 16 == 0, "%zu bytes: %p", size, (void *)p);
	return memset(p, byte, size);
}

static bool holds(const char *p, size_t size, int byte)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != (char)byte)
			return false;
	return true;
}

/* The line that fn(arg) makes libregion write, if the process isn't to end. */
static const char *line_of(void (*fn)(void *), void *arg)
{
	static struct capture capture;

	capture_begin(&capture);
	fn(arg);
	const char *text = capture_end(&capture);
	require(count_lines(text) == 1, "%s", text);
	return text;
}

/* Where blocks come from. */

Test(object, blocks_follow_each_other_and_do_not_overlap)
{
	char *blocks[2000];

	scopes_begin();
	region_t *region = make("plain");
	for (size_t i = 0; i < COUNT_OF(blocks); i++)
		blocks[i] = filled(region, 1 + i % 700, (int)i);
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		require(holds(blocks[i], 1 + i % 700, (int)i), "block %zu", i);
		require(region_contains(region, blocks[i]), "block %zu", i);
	}
	require(blocks[1] == blocks[0] + 16, "%p", (void *)blocks[1]);
	require(!region_contains(region, blocks) && !region_contains(region, NULL), "the stack");
	region_destroy(region);
}

Test(object, the_length_is_the_sum_of_rounded_sizes_whatever_the_sizes)
{
	static const size_t sizes[] = {1, 40, 3000, 70 * KIB, 16, 40 * KIB, 1, 5 * MIB, 20 * MIB, 100, 60 * KIB};
	size_t sum = 0;

	scopes_begin();
	region_t *region = make("length");
	require(region_len(region) == 0 && region_cap(region) == 0, "%zu", region_len(region));
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		filled(region, sizes[i], 1);
		sum += (sizes[i] + 15) & ~(size_t)15;
		require(region_len(region) == sum, "%zu: %zu, not %zu", sizes[i], region_len(region), sum);
		require(region_peak(region) == sum && region_cap(region) >= sum, "%zu", region_peak(region));
	}
	region_destroy(region);
}

Test(object, little_is_lost_where_long_and_short_blocks_are_mixed)
{
	uint64_t rng = 7;

	scopes_begin();
	region_t *region = region_create(NULL);
	for (size_t i = 0; i < 20000; i++)
		region_alloc(region, random_below(&rng, 2) ? 8 + random_below(&rng, 504)
		                                           : 8 * KIB + random_below(&rng, 24 * KIB));
	size_t len = region_len(region), cap = region_cap(region);
	size_t open_bytes = (size_t)(region->limit - region->at.cursor);
	for (size_t i = 0; i < OBJECT_GAPS; i++)
		open_bytes += (size_t)(region->gaps[i].hi - region->gaps[i].lo);
	require((cap - len - open_bytes) * 20 < cap, "%zu of %zu, %zu open", len, cap, open_bytes);
	require(open_bytes < cap / 4, "%zu of %zu open", open_bytes, cap);
	region_destroy(region);
}

Test(object, alignments_of_any_size)
{
	scopes_begin();
	region_t *region = make("aligned");
	for (size_t align = 1; align <= MIB; align *= 2)
		for (size_t size = 1; size < 100 * KIB; size = size * 3 + 1) {
			char *p = region_memalign(region, align, size);
			require(p && (uintptr_t)p % align == 0, "%zu, %zu", align, size);
			memset(p, 1, size);
		}
	errno = 0;
	require(!region_memalign(region, 48, 1) && errno == EINVAL, "%d", errno);
	region_destroy(region);
}

Test(object, sizes_beyond_all_memory_are_refused)
{
	scopes_begin();
	region_t *region = make("huge");
	static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 15, PTRDIFF_MAX, SIZE_MAX / 2 + 1, (size_t)1 << 45};
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		errno = 0;
		require(!region_alloc(region, sizes[i]) && errno == ENOMEM, "%zu: %d", sizes[i], errno);
	}
	errno = 0;
	volatile size_t count = SIZE_MAX / 2;
	require(!region_calloc(region, count, 4) && errno == ENOMEM, "%d", errno);
	require(region_len(region) == 0, "%zu", region_len(region));
	region_destroy(region);
}

Test(object, over_the_byte_limit_the_general_heap_serves_and_takes_back)
{
	struct region_stats stats;

	scopes_begin();
	region_t *region = region_create(&(struct region_options){
		.name = "limited", .buffer_size = 64 << 10, .limit_bytes = 128 << 10, .growth = 100});
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < 300; i++)
			filled(region, 1000, (int)i);
		require(region_cap(region) == 128 << 10, "%zu", region_cap(region));
		require(region_len(region) == 300 * 1008, "%zu", region_len(region));
		require(region->strays != NULL, "round %d", round);
		region_reset(region);
		require(region->strays == NULL && region_len(region) == 0, "round %d", round);
	}
	region_stats_read(&stats);
	require(stats.heap_over_limit > 3 * 150, "%zu", (size_t)stats.heap_over_limit);
	region_destroy(region);
}

/* realloc and copies. */

Test(object, the_newest_block_grows_and_shrinks_in_place)
{
	scopes_begin();
	region_t *region = make("grow");
	char *p = filled(region, 100, 1);
	require(region_realloc(region, p, 100, 5000) == p && holds(p, 100, 1), "grown");
	require(region_len(region) == 5008, "%zu", region_len(region));
	require(region_realloc(region, p, 5000, 10) == p && region_len(region) == 16, "shrunk");
	require(region_peak(region) == 5008, "%zu", region_peak(region));
	char *q = filled(region, 30, 2);
	require(q == p + 16, "%p", (void *)q);
	char *r = region_realloc(region, p, 10, 100);
	require(r != p && holds(r, 10, 1) && holds(q, 30, 2), "moved");
	require(region_realloc(region, r, 100, 0) == NULL && region_len(region) == 48, "given up");
	require(region_realloc(region, NULL, 0, 10) == r, "from nothing");
	region_destroy(region);
}

Test(object, copies_and_text)
{
	char longer[1000];

	scopes_begin();
	region_t *region = make("text");
	require(strcmp(region_strdup(region, "abc"), "abc") == 0, "strdup");
	require(strcmp(region_strndup(region, "abcdef", 4), "abcd") == 0, "strndup");
	require(memcmp(region_memdup(region, "\0x\0y", 4), "\0x\0y", 4) == 0, "memdup");
	require(strcmp(region_printf(region, "%d-%s", 12, "z"), "12-z") == 0, "printf");
	memset(longer, 'l', 999);
	longer[999] = '\0';
	require(strcmp(region_printf(region, "%s!", longer) + 999, "!") == 0, "long printf");
	unsigned char *zeroed = region_calloc(region, 100, 10);
	for (size_t i = 0; i < 1000; i++)
		require(zeroed[i] == 0, "%zu", i);
	char *out = region_copy_out_bytes("out", 4);
	region_destroy(region);
	require(strcmp(out, "out") == 0 && span_kind(span_of(out)) == SPAN_SLAB, "copied out");
	shim_free(out);
}

/* Reset and the end. */

Test(object, reset_keeps_buffers_up_to_a_cap_and_uses_them_again)
{
	scopes_begin();
	region_t *region = region_create(&(struct region_options){.buffer_size = 64 << 10, .keep_bytes = MIB});
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < 4000; i++)
			filled(region, 1000, 3);
		require(region_cap(region) >= 4000 * 1008, "%zu", region_cap(region));
		require(region_peak(region) == 4000 * 1008, "%zu", region_peak(region));
		region_reset(region);
		require(region_cap(region) > 0 && region_cap(region) <= MIB, "%zu kept", region_cap(region));
		require(region_peak(region) == 0 && region_len(region) == 0, "%zu", region_peak(region));
	}
	char *first = region_alloc(region, 10);
	region_reset(region);
	require(region_alloc(region, 10) == first, "another place");
	region_destroy(region);
}

Test(object, what_a_region_held_is_given_back)
{
	scopes_begin();
	size_t before = span_pool_totals().used_bytes;
	for (int round = 0; round < 50; round++) {
		region_t *region = make("round");
		for (size_t i = 0; i < 100; i++)
			filled(region, 100 * KIB, round);
		region_destroy(region);
	}
	buffer_drop_spares(heap_self());
	heap_trim();
	size_t after = span_pool_totals().used_bytes;
	require(after <= before + SLICE_BYTES, "%zu", after - before);
}

static int order[8], order_count;

static void note(void *arg)
{
	order[order_count++] = (int)(uintptr_t)arg;
}

static void *number(int n)
{
	return (void *)(uintptr_t)n;
}

Test(object, calls_at_the_end_come_last_in_first_out_and_once)
{
	scopes_begin();
	region_t *region = make("calls");
	region_on_end(region, note, number(1));
	region_on_end(region, note, number(2));
	region_reset(region);
	require(order_count == 2 && order[0] == 2 && order[1] == 1, "%d, %d", order[0], order[1]);
	region_on_end(region, note, number(3));
	region_release(region);
	region_destroy(region);
	require(order_count == 3 && order[2] == 3, "%d", order_count);
}

Test(object, children_end_with_their_parent)
{
	scopes_begin();
	region_t *parent = make("parent");
	region_t *child = region_create(&(struct region_options){.name = "child", .parent = parent});
	region_t *other = region_create(&(struct region_options){.name = "other", .parent = parent});
	region_t *grandchild = region_create(&(struct region_options){.parent = child});
	region_on_end(parent, note, number(1));
	region_on_end(grandchild, note, number(3));
	region_on_end(child, note, number(2));
	region_destroy(other);
	filled(grandchild, 100, 1);
	region_reset(parent);
	require(order_count == 3 && order[0] == 3 && order[1] == 2 && order[2] == 1, "%d", order_count);
	require(child->at.id == 0 && grandchild->at.id == 0 && parent->at.id != 0, "ended");
	region_destroy(parent);
}

/* Marks. */

Test(object, rewinding_ends_what_came_after_the_mark)
{
	scopes_begin();
	region_t *region = make("marks");
	char *before = filled(region, 100, 1);
	for (int round = 0; round < 100; round++) {
		size_t len = region_len(region);
		region_mark_t mark = region_mark(region);
		region_on_end(region, note, number(7));
		order_count = 0;
		for (size_t i = 0; i < 200; i++)
			filled(region, 10 + i * 20, 2);
		filled(region, 3 * MIB, 3);
		region_rewind(region, mark);
		require(region_len(region) == len && order_count == 1, "round %d: %zu", round, region_len(region));
		require(holds(before, 100, 1), "round %d", round);
	}
	require(region_len(region) == 112, "%zu", region_len(region));
	region_destroy(region);
}

Test(object, a_block_does_not_grow_across_a_mark)
{
	scopes_begin();
	region_t *region = make("marks");
	char *p = filled(region, 100, 1);
	region_mark_t mark = region_mark(region);
	char *grown = region_realloc(region, p, 100, 200);
	require(grown != p && holds(grown, 100, 1), "in place");
	region_rewind(region, mark);
	char *next = filled(region, 100, 2);
	require(holds(p, 100, 1) && next > p + 100, "overlap");
	region_destroy(region);
}

Test(object, marks_nest)
{
	scopes_begin();
	region_t *region = make("marks");
	region_mark_t outer = region_mark(region);
	filled(region, 100, 1);
	region_mark_t inner = region_mark(region);
	filled(region, 100, 2);
	region_rewind(region, inner);
	filled(region, 100, 3);
	region_mark(region);
	region_rewind(region, outer);
	require(region_len(region) == 0 && region->marks == NULL, "%zu", region_len(region));
	region_destroy(region);
}

/* region_within(). */

struct within {
	region_t *region;
	void *block;
	char *text;
	bool is_open;
};

static void use_malloc(void *arg)
{
	struct within *within = arg;

	within->block = shim_malloc(100);
	shim_free(shim_malloc(50));
	within->text = shim_realloc(shim_malloc(10), 5000);
	memset(within->block, 1, 100);
	memset(within->text, 2, 5000);
}

Test(object, malloc_takes_from_the_region_within_it)
{
	struct within within = {0};

	scopes_begin();
	within.region = make("within");
	for (int i = 0; i < 100; i++) {
		region_within(within.region, use_malloc, &within);
		require(region_contains(within.region, within.block), "%d", i);
		require(region_contains(within.region, within.text), "%d", i);
		require(strcmp(region_name_of(within.block), "within") == 0, "%s", region_name_of(within.block));
		void *outside = shim_malloc(100);
		require(!region_contains(within.region, outside) && region_depth() == 0, "%d", i);
		shim_free(outside);
		/* A block of it may be freed from outside. */
		if (i % 2)
			shim_free(within.text);
	}
	require(region_len(within.region) > 100 * 5000, "%zu", region_len(within.region));
	region_reset(within.region);
	require(region_len(within.region) == 0, "%zu", region_len(within.region));
	region_destroy(within.region);
}

Test(object, blocks_that_are_kept_survive_the_region)
{
	struct within within = {0};

	scopes_begin();
	within.region = make("kept");
	region_within(within.region, use_malloc, &within);
	region_keep(within.text);
	region_destroy(within.region);
	require(holds(within.text, 5000, 2), "gone");
	shim_free(within.text);
}

static void nested(void *arg)
{
	struct within *within = arg;
	struct within inner = *within;

	region_within(within->region, use_malloc, &inner);
	require(region_contains(within->region, inner.block), "directly nested");
	struct region_scope scope;
	region_enter(&scope);
	void *scoped = shim_malloc(10);
	require(!region_contains(within->region, scoped), "a scope inside");
	region_within(within->region, use_malloc, &inner);
	require(region_contains(within->region, inner.block) != within->is_open, "a child, if need be");
	require(region_name_of(inner.block) != NULL, "a region");
	shim_free(scoped);
	region_leave(&scope);
	use_malloc(within);
	require(region_contains(within->region, within->block) == within->is_open, "again");
}

Test(object, within_nests_with_scopes_and_itself)
{
	struct within within = {0};

	scopes_begin();
	within.region = make("nested");
	for (int i = 0; i < 10; i++) {
		within.is_open = false;
		region_do(nested, &within);
		within.is_open = true;
		region_within(within.region, nested, &within);
		require(region_depth() == 0, "%u", region_depth());
	}
	require(within.region->inner && within.region->children == within.region->inner, "one child");
	region_destroy(within.region);
	region_do(use_malloc, &within);
}

Test(object, rewinding_ends_what_malloc_gave_after_the_mark)
{
	struct within within = {0};

	scopes_begin();
	within.region = make("within");
	region_within(within.region, use_malloc, &within);
	char *before = within.text;
	size_t len = region_len(within.region);
	region_mark_t mark = region_mark(within.region);
	for (int i = 0; i < 100; i++)
		region_within(within.region, use_malloc, &within);
	require(region_len(within.region) > len + 100 * 5000, "%zu", region_len(within.region));
	region_rewind(within.region, mark);
	require(region_len(within.region) == len, "%zu, not %zu", region_len(within.region), len);
	region_within(within.region, use_malloc, &within);
	require(holds(before, 5000, 2), "overwritten");
	region_destroy(within.region);
}

/* Misuse. */

static void call_alloc(void *region)
{
	errno = 0;
	require(region_alloc(region, 10) == NULL && errno == EINVAL, "%d", errno);
}

static void call_reset(void *region)
{
	region_reset(region);
}

static void call_destroy(void *region)
{
	region_destroy(region);
}

static void call_release(void *region)
{
	region_release(region);
}

static void call_free(void *p)
{
	shim_free(p);
}

static void call_within_reset(void *region)
{
	region_within(region, call_reset, region);
}

static void call_rewind(void *region)
{
	region_rewind(region, (region_mark_t){77});
}

static void call_foreign_realloc(void *region)
{
	void *p = shim_malloc(10);

	require(region_realloc(region, p, 10, 20) == NULL, "%p", p);
	shim_free(p);
}

Test(object, misuse_is_one_line_each)
{
	static const struct {
		const char *says;
		void (*fn)(void *);
		enum { LIVE, RELEASED, DESTROYED } state;
	} rows[] = {
		{"has been destroyed", call_alloc, DESTROYED},
		{"has been destroyed", call_reset, DESTROYED},
		{"has been destroyed", call_destroy, DESTROYED},
		{"has been destroyed", call_release, DESTROYED},
		{"has been released", call_alloc, RELEASED},
		{"has been released", call_reset, RELEASED},
		{"has been released", call_release, RELEASED},
		{"is open in region_within()", call_within_reset, LIVE},
		{"no mark of region", call_rewind, LIVE},
		{"no block of that size", call_foreign_realloc, LIVE},
	};

	scopes_begin();
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		region_t *region = make("misused");
		filled(region, 100, 1);
		if (rows[i].state == RELEASED)
			region_release(region);
		else if (rows[i].state == DESTROYED)
			region_destroy(region);
		const char *line = line_of(rows[i].fn, region);
		require(strstr(line, rows[i].says) && strstr(line, "\"misused\""), "row %zu: %s", i, line);
		if (rows[i].state == LIVE)
			require(region_alloc(region, 1) != NULL, "row %zu", i);
		if (rows[i].state != DESTROYED)
			region_destroy(region);
	}
	region_t *region = make("misused");
	const char *line = line_of(call_free, filled(region, 100, 1));
	require(strstr(line, "\"misused\", whose blocks are not freed one by one"), "%s", line);
}

/* Shared regions. */

struct shared {
	region_t *region;
	void *block;
	region_t *local;
};

static void *use_shared(void *arg)
{
	struct shared *shared = arg;

	for (int i = 0; i < 10000; i++)
		memset(shared->block = region_alloc(shared->region, 100), 1, 100);
	shared->local = region_local(shared->region);
	for (int i = 0; i < 10000; i++)
		memset(region_alloc(shared->local, 100), 1, 100);
	heap_retire();
	return NULL;
}

Test(object, threads_share_a_region_by_lanes_of_their_own)
{
	struct shared shared = {0};

	scopes_begin();
	shared.region = region_create(&(struct region_options){.name = "shared", .shared = 1});
	void *own = region_alloc(shared.region, 100);
	region_t *local = region_local(shared.region);
	for (int i = 0; i < 5; i++) {
		run_thread(use_shared, &shared);
		require(region_contains(shared.region, shared.block) && region_contains(shared.region, own), "%d", i);
		require(shared.local != local && shared.local != shared.region, "%d", i);
		require(region_local(shared.region) == local, "%d", i);
	}
	require(region_len(shared.region) == 5 * 20000 * 112 + 112, "%zu", region_len(shared.region));
	size_t lanes = 0;
	for (region_t *lane = shared.region->lanes; lane; lane = lane->next)
		lanes++;
	require(lanes == 2, "%zu lanes", lanes);
	size_t cap = region_cap(shared.region);
	region_reset(shared.region);
	require(region_len(shared.region) == 0, "%zu", region_len(shared.region));
	/* The inlined half notices. */
	require(region_alloc(local, 100) == own, "another place");
	require(region_len(shared.region) == 112, "%zu", region_len(shared.region));
	require(cap > 5 * 20000 * 112, "%zu", cap);
	region_destroy(shared.region);
	require(shared.region->at.id == 0 && local->at.id == 0, "ended");
}
