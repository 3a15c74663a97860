/*
 * span.c: the pool of slices, against a shadow that knows the state of every slice.
 *
 * Memory is tagged with a word at both ends of each slice: what says that it reads as zero must not show
 * any.
 */
#include "unit.h"

#define SMALL_BYTES RANGE_MIN_BYTES
#define SMALL_SLICES (SMALL_BYTES >> SLICE_SHIFT)

static uint64_t *tag_of(const struct span *span, size_t slice, bool is_last)
{
	char *start = span->start + (slice << SLICE_SHIFT);

	return (uint64_t *)(is_last ? start + SLICE_BYTES - sizeof(uint64_t) : start);
}

static void tag(struct span *span, size_t from, uint64_t value)
{
	for (size_t i = from; i < span->slices; i++)
		*tag_of(span, i, false) = *tag_of(span, i, true) = value;
}

static bool is_tagged(const struct span *span, size_t from, uint64_t value)
{
	for (size_t i = from; i < span->slices; i++)
		if (*tag_of(span, i, false) != value || *tag_of(span, i, true) != value)
			return false;
	return true;
}

/* What must hold of the whole range: spans and free runs follow each other up to where nothing is. */
static void check_range(size_t used_slices)
{
	size_t slices = range.granules << GRANULE_SHIFT >> SLICE_SHIFT, used = 0, dirty = 0, at = 0;
	unsigned last_kind = SPAN_NONE;

	while (at < slices && span_at_slice(at) != &range.spans[0]) {
		const struct span *span = span_at_slice(at);
		bool is_free = span->kind == SPAN_FREE_CLEAN || span->kind == SPAN_FREE_DIRTY;

		require(span->start == range.base + (at << SLICE_SHIFT), "slice %zu", at);
		require(!is_free || span->kind != last_kind, "two free runs touch at slice %zu", at);
		for (size_t i = 1; i < span->slices; i++) {
			bool is_inside = is_free && i + 1 < span->slices;
			require(span_at_slice(at + i) == (is_inside ? &range.spans[0] : span), "slice %zu", at + i);
		}
		used += is_free ? 0 : span->slices;
		dirty += span->kind == SPAN_FREE_DIRTY ? span->slices : 0;
		last_kind = span->kind;
		at += span->slices;
	}
	for (; at < slices; at++)
		require(span_at_slice(at) == &range.spans[0], "slice %zu", at);
	struct span_totals totals = span_pool_totals();
	require(used == used_slices, "%zu slices, not %zu", used, used_slices);
	require(totals.used_bytes == used << SLICE_SHIFT, "%zu bytes", totals.used_bytes);
	require(totals.dirty_bytes == dirty << SLICE_SHIFT, "%zu bytes", totals.dirty_bytes);
}

/* Random operations. */

#define MODEL_SPANS 100

static struct model {
	uint64_t seed;
	struct span *spans[MODEL_SPANS];
	size_t slices[MODEL_SPANS];
	uint64_t tags[MODEL_SPANS];
	size_t used;
} model;

static void model_alloc(size_t i)
{
	size_t slices = 1 + random_below(&model.seed, random_below(&model.seed, 8) ? 10 : 90);
	size_t align = (size_t)1 << (random_below(&model.seed, 3) ? 0 : random_below(&model.seed, 7));
	struct span *span = span_alloc(slices, align, SPAN_BIG);

	if (!span)
		return;
	require(span->slices == slices && span->kind == SPAN_BIG, "%zu slices", slices);
	require((uintptr_t)span->start % (align << SLICE_SHIFT) == 0, "%p at %zu", (void *)span->start, align);
	require(!span->is_zero || is_tagged(span, 0, 0), "%zu slices aren't zero", slices);
	require(!span->owner && !span->next && !span->region && !span->bytes, "the descriptor isn't zero");
	model.spans[i] = span;
	model.slices[i] = slices;
	model.used += slices;
	tag(span, 0, model.tags[i] = random_next(&model.seed) | 1);
}

static void model_free(size_t i)
{
	bool is_clean = random_below(&model.seed, 2);

	if (is_clean)
		tag(model.spans[i], 0, 0);
	span_free(model.spans[i], is_clean);
	model.used -= model.slices[i];
	model.spans[i] = NULL;
}

static void model_extend(size_t i)
{
	struct span *span = model.spans[i];
	size_t old = model.slices[i], slices = old + 1 + random_below(&model.seed, 8);
	bool is_clean = false;

	if (!span_extend(span, slices, &is_clean)) {
		require(span->slices == old, "%u slices, not %zu", span->slices, old);
		return;
	}
	require(span->slices == slices, "%u slices, not %zu", span->slices, slices);
	require(!is_clean || is_tagged(span, old, 0), "what was added isn't zero");
	tag(span, old, model.tags[i]);
	model.slices[i] = slices;
	model.used += slices - old;
}

static void model_shorten(size_t i)
{
	size_t old = model.slices[i], slices = 1 + random_below(&model.seed, old);

	if (slices == old)
		return;
	span_shorten(model.spans[i], slices);
	require(model.spans[i]->slices == slices, "%u slices", model.spans[i]->slices);
	model.slices[i] = slices;
	model.used -= old - slices;
}

static void model_step(void)
{
	size_t i = random_below(&model.seed, MODEL_SPANS);

	if (random_below(&model.seed, 300) == 0)
		span_pool_decay(true);
	if (!model.spans[i]) {
		model_alloc(i);
		return;
	}
	require(model.spans[i]->slices == model.slices[i], "%u slices", model.spans[i]->slices);
	require(is_tagged(model.spans[i], 0, model.tags[i]), "somebody wrote into a span");
	switch (random_below(&model.seed, 4)) {
	case 0:
		model_extend(i);
		return;
	case 1:
		model_shorten(i);
		return;
	default:
		model_free(i);
	}
}

static void run_model(size_t heap_bytes, uint64_t seed)
{
	core_start(heap_bytes);
	model.seed = seed;
	for (int step = 0; step < 15000; step++) {
		model_step();
		if (step % 50 == 0)
			check_range(model.used);
	}
	for (size_t i = 0; i < MODEL_SPANS; i++)
		if (model.spans[i])
			model_free(i);
	check_range(0);
}

Test(span, spans_never_overlap_and_zero_means_zero)
{
	run_model(256 * MIB, 1);
}

Test(span, nothing_goes_wrong_while_the_range_is_nearly_full)
{
	run_model(32 * MIB, 2);
}

/* One thing at a time. */

Test(span, alignment_is_kept_up_to_four_mebibytes)
{
	core_start(256 * MIB);
	for (size_t align = 1; align <= 64; align *= 2)
		for (size_t slices = 1; slices <= 5; slices++) {
			/* A slice between, so that the next one starts badly. */
			struct span *between = span_alloc(1, 1, SPAN_BIG), *span = span_alloc(slices, align, SPAN_BIG);

			require(between && span, "%zu slices at %zu", slices, align);
			require((uintptr_t)span->start % (align << SLICE_SHIFT) == 0, "%p at %zu", (void *)span->start,
			        align);
		}
}

Test(span, every_address_of_a_span_leads_to_it_and_none_after_it_is_freed)
{
	core_start(64 * MIB);
	struct span *span = span_alloc(5, 1, SPAN_BIG), *behind = span_alloc(1, 1, SPAN_BIG);
	char *start = span->start;

	for (size_t offset = 0; offset < span_bytes(span); offset += 4093)
		require(range_has(start + offset) && span_of(start + offset) == span, "offset %zu", offset);
	require(span_of(start + span_bytes(span) - 1) == span, "the last byte");
	require(span_of(start + span_bytes(span)) == behind, "the first byte behind");
	span_free(span, false);
	for (size_t slice = 0; slice < 5; slice++)
		require(span_of(start + (slice << SLICE_SHIFT))->kind <= SPAN_FREE_DIRTY, "slice %zu", slice);
}

Test(span, foreign_addresses_are_told_from_those_in_use)
{
	int local;

	core_start(64 * MIB);
	struct span *span = span_alloc(1, 1, SPAN_BIG);
	require(range_has(span->start) && range_has(span->start + SLICE_BYTES - 1), "its own");
	require(!range_has(range.base - 1) && !range_has(&local) && !range_has(NULL), "foreign");
	require(!range_has(range.base + (range.granules << GRANULE_SHIFT)), "behind what is in use");
	require(range_granule_at(span->start + 48) == range_granule_at(span->start) + 3, "granules");
	for (size_t i = 1; i < GRANULE_BYTES; i++)
		require(range_granule_at(span->start + i) >= range.granules, "offset %zu", i);
}

Test(span, a_small_range_can_be_used_up_and_recovers)
{
	struct span *spans[SMALL_SLICES];

	core_start(SMALL_BYTES);
	for (size_t i = 0; i < SMALL_SLICES; i++)
		require((spans[i] = span_alloc(1, 1, SPAN_BIG)) != NULL, "slice %zu", i);
	require(span_alloc(1, 1, SPAN_BIG) == NULL, "there is nothing left");
	for (size_t i = 0; i < SMALL_SLICES; i += 2)
		span_free(spans[i], false);
	require(span_alloc(2, 1, SPAN_BIG) == NULL, "there are no neighbours");
	for (size_t i = 1; i < SMALL_SLICES; i += 2)
		span_free(spans[i], false);
	check_range(0);
	struct span *all = span_alloc(SMALL_SLICES, 1, SPAN_BIG);
	require(all && all->start == range.base, "all of it");
	require(span_alloc(1, 1, SPAN_BIG) == NULL, "there is nothing left");
}

Test(span, dirty_and_clean_neighbours_become_one_when_memory_is_short)
{
	struct span *spans[SMALL_SLICES];

	core_start(SMALL_BYTES);
	for (size_t i = 0; i < SMALL_SLICES; i++)
		require((spans[i] = span_alloc(1, 1, SPAN_BIG)) != NULL, "slice %zu", i);
	for (size_t i = 0; i < SMALL_SLICES; i++) {
		bool is_clean = i % 2;

		if (!is_clean)
			tag(spans[i], 0, 1);
		span_free(spans[i], is_clean);
	}
	struct span *all = span_alloc(SMALL_SLICES, 1, SPAN_BIG);
	require(all != NULL, "all of it");
	require(all->is_zero && is_tagged(all, 0, 0), "it was given back on the way");
}

Test(span, what_can_never_fit_is_refused_and_changes_nothing)
{
	const size_t slices[] = {SMALL_SLICES + 1, RANGE_MAX_BYTES >> SLICE_SHIFT,
	                         SIZE_MAX >> SLICE_SHIFT, SIZE_MAX};

	core_start(SMALL_BYTES);
	for (size_t i = 0; i < COUNT_OF(slices); i++)
		require(span_alloc(slices[i], 1, SPAN_BIG) == NULL, "%zu", slices[i]);
	require(span_alloc(1, (size_t)1 << 40, SPAN_BIG) == NULL, "an alignment beyond the range");
	check_range(0);
	require(span_alloc(SMALL_SLICES, 1, SPAN_BIG) != NULL, "all of it");
}

Test(span, dirty_memory_is_used_again_before_fresh_memory)
{
	core_start(64 * MIB);
	struct span *clean = span_alloc(2, 1, SPAN_BIG);
	span_alloc(1, 1, SPAN_BIG);
	struct span *dirty = span_alloc(2, 1, SPAN_BIG);
	span_alloc(1, 1, SPAN_BIG);
	char *clean_start = clean->start, *dirty_start = dirty->start;

	span_free(dirty, false);
	span_free(clean, true);
	struct span *first = span_alloc(2, 1, SPAN_BIG), *second = span_alloc(2, 1, SPAN_BIG);
	require(first->start == dirty_start && !first->is_zero, "the dirty run first");
	require(second->start == clean_start && second->is_zero, "then the clean one");
}

/* Whichever run was freed last. */
static void check_fitting(bool is_reversed)
{
	static const size_t lengths[] = {30, 6, 7, 90, 6, 5, 29, 31, 33};
	static const struct { size_t slices, from; } rows[] = {{6, 1}, {6, 4}, {29, 6}, {29, 0}, {8, 7}, {32, 8}};
	struct span *spans[COUNT_OF(lengths)];
	char *starts[COUNT_OF(lengths)];

	core_start(64 * MIB);
	for (size_t i = 0; i < COUNT_OF(lengths); i++) {
		starts[i] = (spans[i] = span_alloc(lengths[i], 1, SPAN_BIG))->start;
		span_alloc(1, 1, SPAN_BIG);
	}
	for (size_t i = 0; i < COUNT_OF(lengths); i++)
		span_free(spans[is_reversed ? COUNT_OF(lengths) - 1 - i : i], false);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		char *start = span_alloc(rows[i].slices, 1, SPAN_BIG)->start;
		require(start == starts[rows[i].from], "row %zu: %zu slices", i, rows[i].slices);
	}
}

Test(span, of_the_runs_that_fit_the_shortest_and_then_the_lowest_is_cut)
{
	check_fitting(false);
}

Test(span, the_order_in_which_runs_were_freed_does_not_count)
{
	check_fitting(true);
}

Test(span, decay_gives_pages_back_which_then_read_as_zero)
{
	core_start(64 * MIB);
	struct span *span = span_alloc(100, 1, SPAN_BIG);
	char *start = span->start;

	memset(start, 0xff, span_bytes(span));
	size_t resident = os_resident_bytes();
	span_free(span, false);
	require(span_pool_totals().dirty_bytes == 100 * SLICE_BYTES, "%zu", span_pool_totals().dirty_bytes);
	require(span_pool_decay(true) == 100 * SLICE_BYTES, "all of it");
	require(span_pool_totals().dirty_bytes == 0, "%zu", span_pool_totals().dirty_bytes);
	require(resident - os_resident_bytes() > 90 * SLICE_BYTES, "%zu before, %zu now", resident,
	        os_resident_bytes());
	span = span_alloc(100, 1, SPAN_BIG);
	require(span->start == start && span->is_zero, "the same memory");
	for (size_t i = 0; i < span_bytes(span); i += 8)
		require(*(uint64_t *)(start + i) == 0, "offset %zu", i);
}

Test(span, memory_that_was_freed_just_now_stays_and_old_one_goes)
{
	core_start(64 * MIB);
	span_pool_set_decay_ms(100);
	struct span *span = span_alloc(10, 1, SPAN_BIG);

	tag(span, 0, 1);
	span_free(span, false);
	require(span_pool_decay(false) == 0, "it is too young");
	usleep(150000);
	require(span_pool_decay(false) == 10 * SLICE_BYTES, "it is old enough");
}

Test(span, a_free_gives_back_what_others_freed_long_ago)
{
	core_start(64 * MIB);
	span_pool_set_decay_ms(40);
	struct span *old = span_alloc(10, 1, SPAN_BIG);
	span_alloc(1, 1, SPAN_BIG);
	struct span *young = span_alloc(3, 1, SPAN_BIG);

	span_free(old, false);
	usleep(100000);
	span_free(young, false);
	require(span_pool_totals().dirty_bytes == 3 * SLICE_BYTES, "%zu", span_pool_totals().dirty_bytes);
}

Test(span, what_is_free_beyond_a_share_goes_back_at_once_and_stays_when_it_was_wanted_again)
{
	struct span *spans[100];

	core_start(512 * MIB);
	span_pool_set_decay_ms(1000);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < COUNT_OF(spans); i++)
			spans[i] = span_alloc(16, 1, SPAN_BIG);
		for (size_t i = 0; i < COUNT_OF(spans); i++) {
			span_free(spans[i], false);
			size_t used = (COUNT_OF(spans) - 1 - i) * MIB, dirty = span_pool_totals().dirty_bytes;
			require(round > 0 || dirty <= 6 * MIB + used / 4, "%zu dirty beside %zu", dirty, used);
		}
	}
	require(span_pool_totals().dirty_bytes > 80 * MIB, "%zu", span_pool_totals().dirty_bytes);
}

Test(span, growth_in_place_takes_free_neighbours_and_nothing_else)
{
	bool is_clean;

	core_start(SMALL_BYTES);
	struct span *span = span_alloc(2, 1, SPAN_BIG), *next = span_alloc(3, 1, SPAN_BIG);
	struct span *last = span_alloc(1, 1, SPAN_BIG);
	require(!span_extend(span, 3, &is_clean), "the neighbour is in use");
	span_free(next, false);
	require(!span_extend(span, 6, &is_clean), "the neighbour is too short");
	require(span_extend(span, 4, &is_clean) && !is_clean, "part of the neighbour");
	require(span_extend(span, 5, &is_clean) && !is_clean, "the rest of it");
	require(span_extend(last, 10, &is_clean) && is_clean, "what was never used");
	require(!span_extend(last, SMALL_SLICES, &is_clean), "the range ends");
	check_range(15);
}

static size_t visits, visited_slices;

static void note_visit(const struct span *span, void *arg)
{
	require(span->kind > SPAN_FREE_DIRTY && arg == &visits, "kind %u", span->kind);
	visits++;
	visited_slices += span->slices;
}

Test(span, a_walk_meets_every_span_in_use_once)
{
	struct span *spans[60];
	size_t slices = 0;

	core_start(64 * MIB);
	for (size_t i = 0; i < COUNT_OF(spans); i++)
		spans[i] = span_alloc(1 + i % 7, 1, i % 2 ? SPAN_BIG : SPAN_SLAB);
	for (size_t i = 0; i < COUNT_OF(spans); i++) {
		slices += i % 3 ? spans[i]->slices : 0;
		if (i % 3 == 0)
			span_free(spans[i], i % 2);
	}
	span_for_each(note_visit, &visits);
	require(visits == 40 && visited_slices == slices, "%zu spans, %zu slices", visits, visited_slices);
}
