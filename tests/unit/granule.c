/*
 * granule.c: the granule map's bytes, and its scans against models that look at one byte at a time.
 */
#include "unit.h"

static const size_t edge_sizes[] = {1, 2, 61, 62, 63, 64, 65, 1023, 1024, 1025, 32767, 32768, 32769,
                                    ((size_t)31 << 15) - 1, (size_t)31 << 15, GRANULE_MAX - 1, GRANULE_MAX};

static bool is_all_zero(const unsigned char *map, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (map[i] != 0)
			return false;
	return true;
}

/* One head at a time, all states. */

Test(granule, a_size_is_read_as_it_was_written_whatever_becomes_of_the_block)
{
	for (size_t i = 0; i < COUNT_OF(edge_sizes); i++) {
		unsigned char map[16] = {0};
		size_t size = edge_sizes[i];

		granule_set(map, size);
		require(granule_size(map) == size, "%zu: %zu", size, granule_size(map));
		require(granule_is_live(granule_load(map)), "%zu", size);
		granule_mark(map, GRANULE_FADED);
		require(granule_size(map) == size, "%zu faded: %zu", size, granule_size(map));
		require(granule_is_live(granule_load(map)), "%zu faded", size);
		granule_mark(map, GRANULE_FREED);
		require(granule_size(map) == size, "%zu freed: %zu", size, granule_size(map));
		require(!granule_is_live(granule_load(map)), "%zu freed", size);
	}
}

Test(granule, every_size_up_to_a_few_thousand_is_read_as_it_was_written)
{
	for (size_t size = 1; size <= 5000; size++) {
		unsigned char map[16] = {0};

		granule_set(map, size);
		require(granule_size(map) == size, "%zu: %zu", size, granule_size(map));
		require(is_all_zero(map + 1 + GRANULE_LONG_BYTES, sizeof(map) - 1 - GRANULE_LONG_BYTES), "%zu", size);
		require(size > GRANULE_SHORT_MAX || is_all_zero(map + 1, GRANULE_LONG_BYTES), "%zu", size);
	}
}

Test(granule, size_bytes_are_taken_for_no_head_of_a_live_block)
{
	for (size_t i = 0; i < COUNT_OF(edge_sizes); i++) {
		unsigned char map[16] = {0};

		granule_set(map, edge_sizes[i]);
		require(granule_next_live(map + 1, map + sizeof(map)) == map + sizeof(map), "%zu", edge_sizes[i]);
	}
}

Test(granule, mark_tells_what_was_there_before)
{
	unsigned char head = 5;

	require(granule_mark(&head, GRANULE_FADED) == 5, "%x", head);
	require(granule_mark(&head, GRANULE_FREED) == (5 | GRANULE_FADED), "%x", head);
	require(granule_mark(&head, GRANULE_FREED) == (5 | GRANULE_FADED | GRANULE_FREED), "%x", head);
}

Test(granule, clear_leaves_nothing_behind)
{
	const unsigned bits[] = {0, GRANULE_FADED, GRANULE_FREED, GRANULE_FADED | GRANULE_FREED};

	for (size_t i = 0; i < COUNT_OF(edge_sizes); i++)
		for (size_t j = 0; j < COUNT_OF(bits); j++) {
			unsigned char map[16] = {0};

			granule_set(map, edge_sizes[i]);
			granule_mark(map, bits[j]);
			granule_clear(map);
			require(is_all_zero(map, sizeof(map)), "%zu with %x", edge_sizes[i], bits[j]);
		}
}

Test(granule, clear_of_a_short_block_leaves_its_neighbour_alone)
{
	unsigned char map[8] = {1, 1, 1, 1, 1, 1};

	granule_clear(map);
	require(map[0] == 0 && map[1] == 1 && map[4] == 1, "%x %x %x", map[0], map[1], map[4]);
}

Test(granule, resize_keeps_the_faded_bit_and_leaves_no_size_bytes_behind)
{
	for (size_t i = 0; i < COUNT_OF(edge_sizes); i++)
		for (size_t j = 0; j < COUNT_OF(edge_sizes); j++)
			for (unsigned faded = 0; faded <= GRANULE_FADED; faded += GRANULE_FADED) {
				unsigned char map[16] = {0}, fresh[16] = {0};

				granule_set(map, edge_sizes[i]);
				granule_mark(map, faded);
				granule_resize(map, edge_sizes[j]);
				granule_set(fresh, edge_sizes[j]);
				granule_mark(fresh, faded);
				require(memcmp(map, fresh, sizeof(map)) == 0, "%zu to %zu, %x", edge_sizes[i],
				        edge_sizes[j], faded);
			}
}

/* Random maps: blocks of all sizes and states with gaps between them, and what a model knows of them. */

#define MAP_BYTES ((size_t)20000)

struct model {
	unsigned char map[MAP_BYTES];
	int head[MAP_BYTES]; /* of the block that the granule belongs to, or -1 */
};

static size_t random_size(uint64_t *seed)
{
	switch (random_below(seed, 4)) {
	case 0:
		return 1 + random_below(seed, 3);
	case 1:
		return 1 + random_below(seed, 70);
	case 2:
		return GRANULE_SHORT_MAX - 1 + random_below(seed, 5);
	default:
		return 1 + random_below(seed, 1200);
	}
}

static void fill(struct model *model, uint64_t *seed, size_t begin)
{
	memset(model->map, 0, MAP_BYTES);
	for (size_t i = 0; i < MAP_BYTES; i++)
		model->head[i] = -1;
	for (size_t at = begin; at < MAP_BYTES;) {
		size_t size = random_size(seed);

		if (at + size > MAP_BYTES)
			break;
		granule_set(model->map + at, size);
		granule_mark(model->map + at, (unsigned)random_below(seed, 4) << 6);
		for (size_t i = 0; i < size; i++)
			model->head[at + i] = (int)at;
		at += size + (random_below(seed, 3) == 0 ? random_below(seed, 100) : 0);
	}
}

Test(granule, every_granule_of_a_block_leads_to_its_head_and_no_other_does)
{
	static struct model model;

	for (uint64_t round = 1; round <= 20; round++) {
		uint64_t seed = round;
		size_t first = random_below(&seed, 50);

		fill(&model, &seed, first);
		for (size_t i = first; i < MAP_BYTES; i++) {
			const unsigned char *head = granule_find_head(model.map + i, model.map + first);
			int at = head ? (int)(head - model.map) : -1;

			require(at == model.head[i], "seed %zu, granule %zu: %d, not %d", (size_t)round, i, at,
			        model.head[i]);
		}
	}
}

Test(granule, nothing_before_the_first_byte_is_looked_at)
{
	unsigned char map[200] = {0};

	granule_set(map, 150);
	require(granule_find_head(map + 100, map) == map, "the block is there");
	for (size_t first = 1; first <= 6; first++)
		require(granule_find_head(map + 100, map + first) != map, "first %zu", first);
	require(granule_find_head(map + 100, map + 6) == NULL, "there is nothing behind the size bytes");
}

static size_t naive_next_live(const unsigned char *map, size_t from, size_t end)
{
	while (from < end && (map[from] == 0 || map[from] >= 0x80))
		from++;
	return from;
}

Test(granule, the_next_live_block_is_found_at_any_distance_and_alignment)
{
	unsigned char map[256] __attribute__((aligned(64)));
	uint64_t seed = 1;

	for (size_t from = 0; from < 40; from++)
		for (size_t end = from; end <= 170; end++)
			for (int round = 0; round < 6; round++) {
				/* Denser from round to round; live heads behind the end are not to be seen. */
				for (size_t i = 0; i < sizeof(map); i++)
					map[i] = random_below(&seed, 1 + (size_t)4096 / (1u << (2 * round))) == 0 || i >= end
					             ? (unsigned char)random_next(&seed)
					             : 0x80 * (unsigned char)(random_next(&seed) & 1);
				size_t found = (size_t)(granule_next_live(map + from, map + end) - map);
				size_t naive = naive_next_live(map, from, end);
				require(found == naive, "from %zu to %zu: %zu, not %zu", from, end, found, naive);
			}
}

/* A range of a map that begins and ends between blocks. */
static struct granule_counts naive_count(const struct model *model, size_t from, size_t end)
{
	struct granule_counts counts = {0};

	for (size_t i = from; i < end; i++)
		if (model->head[i] == (int)i) {
			counts.blocks += (model->map[i] & GRANULE_FADED) == 0;
			counts.any_live |= (model->map[i] & GRANULE_FREED) == 0;
		}
	return counts;
}

/* The next place at or behind `at` where no block is cut in two. */
static size_t next_edge(const struct model *model, size_t at)
{
	while (at < MAP_BYTES && model->head[at] != -1 && model->head[at] != (int)at)
		at++;
	return at;
}

/* A part of the map that begins and ends between blocks; every fifty rounds of another map. */
static size_t draw_part(struct model *model, uint64_t round, size_t *end)
{
	uint64_t seed = round;

	if (round % 50 == 1)
		fill(model, &seed, 0);
	size_t from = next_edge(model, random_below(&seed, MAP_BYTES));
	*end = next_edge(model, from + random_below(&seed, round % 2 ? 200 : MAP_BYTES - from + 1));
	*end = *end < MAP_BYTES ? *end : MAP_BYTES;
	return from;
}

Test(granule, count_tells_blocks_that_have_not_faded_and_whether_any_lives)
{
	static struct model model;

	for (uint64_t round = 1; round <= 2000; round++) {
		size_t end, from = draw_part(&model, round, &end);
		struct granule_counts counts = granule_count(model.map + from, model.map + end);
		struct granule_counts naive = naive_count(&model, from, end);
		require(counts.blocks == naive.blocks, "round %zu, %zu to %zu: %zu, not %zu", (size_t)round, from,
		        end, counts.blocks, naive.blocks);
		require(counts.any_live == naive.any_live, "round %zu, %zu to %zu", (size_t)round, from, end);
	}
}

static struct granule_live naive_live(const struct model *model, size_t from, size_t end)
{
	struct granule_live live = {0};

	for (size_t i = from; i < end; i++) {
		bool is_freed = model->map[i] & GRANULE_FREED, is_faded = model->map[i] & GRANULE_FADED;

		if (model->head[i] != (int)i)
			continue;
		live.any_faded |= is_faded && !is_freed;
		live.freed_blocks += is_freed && !is_faded;
		live.blocks += !is_freed && !is_faded;
		live.granules += !is_freed && !is_faded ? granule_size(model->map + i) : 0;
	}
	return live;
}

Test(granule, live_blocks_are_added_up_by_state)
{
	static struct model model;

	for (uint64_t round = 1; round <= 2000; round++) {
		size_t end, from = draw_part(&model, round, &end);
		struct granule_live live = granule_add_live(model.map + from, model.map + end);
		struct granule_live naive = naive_live(&model, from, end);
		require(live.blocks == naive.blocks, "round %zu: %zu", (size_t)round, live.blocks);
		require(live.granules == naive.granules, "round %zu: %zu", (size_t)round, live.granules);
		require(live.freed_blocks == naive.freed_blocks, "round %zu: %zu", (size_t)round, live.freed_blocks);
		require(live.any_faded == naive.any_faded, "round %zu", (size_t)round);
		bool any_faded = granule_any_faded(model.map + from, model.map + end);
		require(any_faded == naive.any_faded, "round %zu", (size_t)round);
	}
}

/* Is there nothing but settled blocks in a vector? */
static bool is_settled(const unsigned char *map)
{
	for (size_t i = 0; i < 32; i++)
		if (map[i] != 0 && (map[i] < GRANULE_FADED || map[i] >= 0x7f))
			return false;
	return true;
}

/* What is in [from, end), looked at block by block: where room for `wanted` begins, and all of it. */
static struct granule_room naive_room(const struct model *model, size_t from, size_t end, size_t wanted,
                                      size_t *room)
{
	struct granule_room all = {0};
	size_t at = from;

	*room = SIZE_MAX;
	for (size_t i = from; i < end; i++) {
		if (model->head[i] != (int)i || model->map[i] & GRANULE_FREED)
			continue;
		if (i - at >= wanted && *room == SIZE_MAX)
			*room = at;
		all.granules += i - at >= GRANULE_ROOM_LEAST ? i - at : 0;
		all.live++;
		at = i + granule_size(model->map + i);
	}
	*room = *room == SIZE_MAX ? at : *room;
	all.last = model->map + at;
	return all;
}

Test(granule, room_between_live_blocks_is_found_and_surveyed)
{
	static struct model model;
	size_t found = 0;

	for (uint64_t round = 1; round <= 4000; round++) {
		size_t end, from = draw_part(&model, round, &end), room;
		size_t wanted = GRANULE_ROOM_LEAST + round * 7 % 60;
		struct granule_room naive = naive_room(&model, from, end, wanted, &room);
		struct granule_room survey = granule_survey(model.map + from, model.map + end);
		size_t at = (size_t)(granule_next_room(model.map + from, model.map + end, wanted) - model.map);

		require(at == room, "round %zu, %zu to %zu: %zu, not %zu", (size_t)round, from, end, at, room);
		require(survey.live == naive.live, "round %zu: %zu", (size_t)round, survey.live);
		require(survey.granules == naive.granules, "round %zu: %zu", (size_t)round, survey.granules);
		require(survey.last == naive.last, "round %zu", (size_t)round);
		found += naive.last != model.map + room;
	}
	require(found > 100, "only %zu parts had room", found);
}

Test(granule, only_what_has_settled_is_skipped)
{
	static struct model model;
	size_t skipped = 0;

	for (uint64_t round = 1; round <= 4000; round++) {
		size_t end, from = draw_part(&model, round, &end);

		/* Mostly short blocks that have faded, as earlier scopes leave them. */
		for (size_t i = from; i < end; i++)
			if (model.head[i] == (int)i && (i * 31 + round) % 97 &&
			    granule_size(model.map + i) < GRANULE_LONG)
				model.map[i] = (unsigned char)(GRANULE_FADED | granule_size(model.map + i));
		size_t to = (size_t)(granule_skip_settled(model.map + from, model.map + end) - model.map);
		require(to >= from && (to <= end), "round %zu: %zu to %zu: %zu", (size_t)round, from, end, to);
		for (size_t i = from; i < to; i++)
			require(model.map[i] == 0 || (model.map[i] & GRANULE_FADED && model.map[i] < 0x7f),
			        "round %zu: %zu to %zu: %zu", (size_t)round, from, end, i);
		require(to + 32 > end || !is_settled(model.map + to), "round %zu: stopped early", (size_t)round);
		skipped += to - from;
	}
	require(skipped > 10000, "only %zu", skipped);
}

Test(granule, adding_up_a_full_map_does_not_overflow)
{
	static unsigned char map[(size_t)1 << 20];

	memset(map, GRANULE_SHORT_MAX, sizeof(map));
	struct granule_live live = granule_add_live(map, map + sizeof(map));
	require(live.blocks == sizeof(map), "%zu", live.blocks);
	require(live.granules == GRANULE_SHORT_MAX * sizeof(map), "%zu", live.granules);
	require(live.freed_blocks == 0 && !live.any_faded, "%zu", live.freed_blocks);
}

Test(granule, count_of_a_full_map_does_not_overflow)
{
	static unsigned char map[(size_t)1 << 20];

	memset(map, 1 | GRANULE_FREED, sizeof(map));
	struct granule_counts counts = granule_count(map, map + sizeof(map));
	require(counts.blocks == sizeof(map) && !counts.any_live, "%zu", counts.blocks);
	map[sizeof(map) - 1] = 1 | GRANULE_FADED;
	counts = granule_count(map, map + sizeof(map));
	require(counts.blocks == sizeof(map) - 1 && counts.any_live, "%zu", counts.blocks);
}

Test(granule, a_look_for_freed_blocks_covers_one_vector_and_no_more_than_there_is)
{
	for (size_t at = 0; at < 40; at++)
		for (size_t bytes = 1; bytes <= 40; bytes++) {
			unsigned char map[64];
			bool is_in_sight = at < bytes && at < 32;

			memset(map, 1, sizeof(map));
			require(!granule_any_freed(map, bytes), "none, %zu bytes", bytes);
			map[at] |= GRANULE_FREED;
			require(granule_any_freed(map, bytes) == is_in_sight, "at %zu, %zu bytes", at, bytes);
		}
}
