/*
 * pair.c: malloc and free right after each other, by size, and with some blocks alive.
 *
 *   hot      one size, the block just freed is the next one to get: 16 B to 8 MiB in powers of two
 *            and one and a half times those. The first word is written, so that a page given back to
 *            the system at each free is paid for.
 *   live256  sizes up to 1 KiB at random; each pair frees one of 256 blocks and takes its place.
 *
 * In a scope the same is measured once more, because a region serves it in another way (it moves
 * the cursor back).
 */
#include "bench.h"
#include "ways.h"

#define PAIRS_IN_A_PASS 256
#define LIVE 256
#define DRAWS 4096
#define LARGEST ((size_t)8 << 20)

#define PAIR_WAYS(X) X(heap) X(unfreed)

struct pairs {
	size_t size;
	uint16_t sizes[DRAWS], slots[DRAWS];
	void *live[LIVE];
};

WAY_INLINE void *take(size_t size)
{
	uint64_t *block = malloc(size);

	*block = size;
	bench_see(block);
	return block;
}

static void hot(void *job)
{
	struct pairs *pairs = job;

	for (size_t i = 0; i < PAIRS_IN_A_PASS; i++)
		free(take(pairs->size));
}

static void live256(void *job)
{
	struct pairs *pairs = job;

	for (size_t i = 0; i < DRAWS; i++) {
		void **slot = &pairs->live[pairs->slots[i]];
		free(*slot);
		*slot = take(pairs->sizes[i]);
	}
	for (size_t i = 0; i < LIVE; i++) {
		free(pairs->live[i]);
		pairs->live[i] = NULL;
	}
}

#define DEFINE_PASSES(way) WAY_PASS(way, hot) WAY_PASS(way, live256)
PAIR_WAYS(DEFINE_PASSES)

static const struct way *const pair_ways[] = { PAIR_WAYS(WAY_ADDRESS) NULL };

#define WAY_ENTRY(way) {&way_##way, hot_##way, live256_##way},
static const struct pair_way {
	const struct way *way;
	bench_pass *hot, *live256;
} passes[] = { PAIR_WAYS(WAY_ENTRY) };

static void measure_hot(const struct pair_way *entry, struct pairs *pairs, size_t size)
{
	pairs->size = size;
	bench_measure(&(struct bench_row){
		.way = entry->way, .kind = "hot", .n = size, .threads = 1,
		.units = PAIRS_IN_A_PASS, .unit = "pair",
	}, entry->hot, pairs);
}

static void measure_way(const struct pair_way *entry, struct pairs *pairs)
{
	for (size_t size = 16; size <= LARGEST; size *= 2) {
		measure_hot(entry, pairs, size);
		if (size < LARGEST)
			measure_hot(entry, pairs, size + size / 2);
	}
	bench_measure(&(struct bench_row){
		.way = entry->way, .kind = "live256", .n = 1024, .threads = 1,
		.units = DRAWS, .unit = "pair",
	}, entry->live256, pairs);
}

int main(int argc, char **argv)
{
	static struct pairs pairs;
	uint64_t random = 1;

	bench_start(argc, argv, "pair", pair_ways);
	for (size_t i = 0; i < DRAWS; i++) {
		pairs.sizes[i] = (uint16_t)bench_between(&random, 8, 1024);
		pairs.slots[i] = (uint16_t)bench_between(&random, 0, LIVE - 1);
	}
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++)
		if (bench_selected(passes[i].way))
			measure_way(&passes[i], &pairs);
	return 0;
}
