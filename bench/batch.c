/*
 * batch.c: the batches of batch.h, compiled once for each way.
 *
 * A pass runs so many extents that it handles some thousand blocks, or a thousand extents when
 * they are empty, so that calling the pass weighs nothing. The arrays of sizes and blocks are
 * read in the timed loop; a program that uses an allocator has such traffic too, and it is the
 * same for each way.
 */
#include "batch.h"
#include "ways.h"

#include <string.h>

#define BLOCKS_IN_A_PASS 1000

struct batch {
	const uint16_t *sizes;
	void **blocks;
	size_t n;
	size_t extents; /* in a pass */
};

WAY_INLINE void *fill_one(const struct way *way, const struct batch *batch, size_t i)
{
	uint64_t *block = way->alloc(batch->sizes[i]);

	*block = i;
	bench_see(block);
	return block;
}

WAY_INLINE void fill(const struct way *way, const struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++)
		batch->blocks[i] = fill_one(way, batch, i);
}

/* Nobody frees the blocks, so nobody needs to know where they are. */
WAY_INLINE void fill_and_forget(const struct way *way, const struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++)
		fill_one(way, batch, i);
}

WAY_INLINE void release(const struct way *way, const struct batch *batch)
{
	if (!way->release)
		return;
	for (size_t i = 0; i < batch->n; i++)
		way->release(batch->blocks[i]);
}

WAY_INLINE void run_extents(const struct way *way, void (*inside)(void *), bool fades,
                            struct batch *batch)
{
	for (size_t i = 0; i < batch->extents; i++) {
		way->extent(inside, batch);
		if (fades)
			release(way, batch);
	}
}

/* The pass of one kind for one way: what happens in the extent, and whether blocks outlive it. */
#define DEFINE_PASS(way, kind, fades, ...) \
	static void kind##_inside_##way(void *batch) \
	{ \
		__VA_ARGS__ \
	} \
	static void kind##_##way(void *job, unsigned thread) \
	{ \
		run_extents(&way_##way, kind##_inside_##way, fades, (struct batch *)job + thread); \
	}
#define DEFINE_PASSES(way) \
	DEFINE_PASS(way, freed, false, fill(&way_##way, batch); release(&way_##way, batch);) \
	DEFINE_PASS(way, wholesale, false, fill_and_forget(&way_##way, batch);) \
	DEFINE_PASS(way, faded, true, fill(&way_##way, batch);)
WAYS(DEFINE_PASSES)

struct batch_way {
	const struct way *way;
	bench_pass *freed, *wholesale, *faded;
};

#define WAY_ENTRY(way) {&way_##way, freed_##way, wholesale_##way, faded_##way},
static const struct batch_way passes[] = { WAYS(WAY_ENTRY) };

const struct way *const batch_ways[] = { WAYS(WAY_ADDRESS) NULL };

/*
 * Each doubling between the smallest and the largest size is as likely as the others, and so is
 * each size in it: programs make more small blocks than big ones.
 */
static uint16_t draw_size(const struct batch_spec *spec, uint64_t *random)
{
	size_t doublings = 0, low = spec->min_bytes;

	while (low << (doublings + 1) <= spec->max_bytes)
		doublings++;
	if (!doublings)
		return (uint16_t)low;
	low <<= bench_between(random, 0, doublings - 1);
	return (uint16_t)bench_between(random, low, 2 * low);
}

static void make_batch(struct batch *batch, const struct batch_spec *spec, uint64_t seed)
{
	uint16_t *sizes = bench_array(spec->n, sizeof(*sizes));

	for (size_t i = 0; i < spec->n; i++)
		sizes[i] = draw_size(spec, &seed);
	batch->sizes = sizes;
	batch->blocks = bench_array(spec->n, sizeof(*batch->blocks));
	batch->n = spec->n;
	batch->extents = BLOCKS_IN_A_PASS / (spec->n ? spec->n : 1);
	if (!batch->extents)
		batch->extents = 1;
}

static void drop_batch(struct batch *batch)
{
	bench_array_free((void *)batch->sizes, batch->n, sizeof(*batch->sizes));
	bench_array_free(batch->blocks, batch->n, sizeof(*batch->blocks));
}

static void measure_kind(const struct batch_spec *spec, const struct way *way, const char *kind,
                         bench_pass *pass, struct batch *batches)
{
	bool by_block = !strcmp(spec->unit, "block");
	struct bench_row row = {
		.way = way,
		.kind = kind,
		.n = spec->n,
		.threads = spec->threads,
		.units = (double)(batches->extents * (by_block ? spec->n : 1)),
		.unit = spec->unit,
	};

	bench_measure(&row, pass, batches);
}

static void measure_way(const struct batch_spec *spec, const struct batch_way *entry,
                        struct batch *batches)
{
	const struct way *way = entry->way;
	bool fades = way->release && !way->wholesale && way != &way_heap;

	if (way->release)
		measure_kind(spec, way, "freed", entry->freed, batches);
	if (way->wholesale)
		measure_kind(spec, way, "wholesale", entry->wholesale, batches);
	if (fades)
		measure_kind(spec, way, "faded", entry->faded, batches);
}

void batch_measure(const struct batch_spec *wanted)
{
	struct batch batches[BENCH_MAX_THREADS];
	struct batch_spec spec = *wanted;

	spec.n = bench_capped(spec.n);
	for (unsigned i = 0; i < spec.threads; i++)
		make_batch(&batches[i], &spec, i + 1);
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++)
		if (bench_selected(passes[i].way))
			measure_way(&spec, &passes[i], batches);
	for (unsigned i = 0; i < spec.threads; i++)
		drop_batch(&batches[i]);
}
