/*
 * full.c: what a block costs when the arena has 1 to 1000 full buffers already. Go-arena looked through
 * all of them for one with room, and took 1,293 ns instead of 2.6.
 *
 *   standing   the full buffers stand there; 64 blocks of 1 KiB are allocated, one buffer's worth, and
 *              given back in the way that the allocator has for it: a mark, a child, or one by one
 *   wholesale  all is allocated from the start and then forgotten: as many blocks of 4 KiB as fill the
 *              buffers
 *
 * A buffer is taken to have 64 KiB; allocators with other ones hold as many bytes. For `wholesale`, n is
 * the number of blocks: 16 for each buffer. It touches all of its memory again in each pass, so from a
 * thousand buffers on it also shows what a cache miss costs; compare with the bump.
 */
#include "batch.h"
#include "ways.h"

#include <string.h>

#define BUFFER_BYTES ((size_t)64 << 10)
#define BIG_BLOCK 4096
#define BIG_BLOCKS (BUFFER_BYTES / BIG_BLOCK) /* in a buffer */
#define BLOCK_BYTES ((size_t)1 << 10)
#define BLOCKS (BUFFER_BYTES / BLOCK_BYTES)

/* A way with a place to come back to. */
struct full_way {
	const struct way *way;
	void (*mark)(void);           /* before the blocks; NULL: they are released one by one */
	void (*rewind)(void);         /* after them */
	void *(*alloc)(size_t bytes); /* of a block */
	void (*release)(void *block);
};

struct full_job {
	size_t buffers; /* that are full */
	void *blocks[BLOCKS];
};

/* ---- heaps and arenas: one by one ------------------------------------------------------------ */

#define ONE_BY_ONE(name, function) \
	static const struct full_way full_##name = { \
		&way_##name, NULL, NULL, way_##name##_alloc, function, \
	};

#define way_heap_alloc malloc
ONE_BY_ONE(heap, free)

static void arena_free(void *block)
{
	ways_jemalloc.dallocx(block, ways_thread.arena_flags);
}

#define way_arena_alloc arena_alloc
ONE_BY_ONE(arena, arena_free)

#define way_miheap_alloc miheap_alloc
ONE_BY_ONE(miheap, free)

/* ---- the bump: a copy of its cursor ---------------------------------------------------------- */

static struct bump bump_mark;

static void inlined_mark(void)
{
	bump_mark = ways_thread.bump;
}

static void inlined_rewind(void)
{
	bump_mark.first = ways_thread.bump.first; /* it may just have come to be */
	ways_thread.bump = bump_mark;
}

static const struct full_way full_inlined = {
	&way_inlined, inlined_mark, inlined_rewind, inlined_alloc, NULL,
};

/* ---- a region: region_mark ------------------------------------------------------------------- */

static region_mark_t mark;

static void region_mark_it(void)
{
	mark = region_mark(ways_thread.region);
}

static void region_rewind_it(void)
{
	region_rewind(ways_thread.region, mark);
}

static const struct full_way full_region = {
	&way_region, region_mark_it, region_rewind_it, region_take, NULL,
};

/* ---- obstack: freeing an object frees what came after it ------------------------------------- */

static void *obstack_marked;

static void obstack_mark(void)
{
	obstack_marked = obstack_alloc(&ways_thread.obstack, 1);
}

static void obstack_rewind(void)
{
	obstack_free(&ways_thread.obstack, obstack_marked);
}

static const struct full_way full_obstack = {
	&way_obstack, obstack_mark, obstack_rewind, obstack_take, NULL,
};

/* ---- APR: a child pool ----------------------------------------------------------------------- */

#ifdef BENCH_APR
#define FULL_APR(X) X(apr)

static apr_pool_t *apr_child;

static void apr_mark(void)
{
	apr_pool_create(&apr_child, ways_thread.pool);
}

static void apr_rewind(void)
{
	apr_pool_destroy(apr_child);
}

static void *apr_child_alloc(size_t size)
{
	return apr_palloc(apr_child, size);
}

static const struct full_way full_apr = { &way_apr, apr_mark, apr_rewind, apr_child_alloc, NULL };
#else
#define FULL_APR(X)
#endif

/* ---- talloc: one by one ---------------------------------------------------------------------- */

#ifdef BENCH_TALLOC
#define FULL_TALLOC(X) X(talloc) X(tpool)

static void talloc_release(void *block)
{
	talloc_free(block);
}

#define way_talloc_alloc talloc_take
#define way_tpool_alloc talloc_take
ONE_BY_ONE(talloc, talloc_release)
ONE_BY_ONE(tpool, talloc_release)
#else
#define FULL_TALLOC(X)
#endif

/* ---- passes ---------------------------------------------------------------------------------- */

#define FULL_WAYS(X) \
	X(heap) X(region) X(inlined) X(obstack) X(arena) X(miheap) FULL_APR(X) FULL_TALLOC(X)

WAY_INLINE void run_pass(const struct full_way *full, struct full_job *job)
{
	if (full->mark)
		full->mark();
	for (size_t i = 0; i < BLOCKS; i++) {
		uint64_t *block = full->alloc(BLOCK_BYTES);
		*block = i;
		bench_see(block);
		job->blocks[i] = block;
	}
	if (full->rewind)
		full->rewind();
	for (size_t i = 0; full->release && i < BLOCKS; i++)
		full->release(job->blocks[i]);
}

#define DEFINE_PASS(name) \
	static void pass_##name(void *job, unsigned thread) \
	{ \
		(void)thread; \
		run_pass(&full_##name, job); \
	}
FULL_WAYS(DEFINE_PASS)

#define PASS_ENTRY(name) { &full_##name, pass_##name },
static const struct full_pass {
	const struct full_way *full;
	bench_pass *pass;
} passes[] = { FULL_WAYS(PASS_ENTRY) };

static const struct full_pass *current;

/* In an extent of the way: fills the buffers, then measures with them standing there. */
static void measure_standing(void *arg)
{
	const struct way *way = current->full->way;
	struct full_job *job = arg;
	size_t count = job->buffers * BIG_BLOCKS;
	void **standing = bench_array(count, sizeof(*standing));

	for (size_t i = 0; i < count; i++)
		standing[i] = way->alloc(BIG_BLOCK);
	bench_measure(&(struct bench_row){
		.way = way, .kind = "standing", .n = job->buffers, .threads = 1,
		.units = BLOCKS, .unit = "block",
	}, current->pass, job);
	for (size_t i = 0; way->release && i < count; i++)
		way->release(standing[i]);
	bench_array_free(standing, count, sizeof(*standing));
}

static const size_t counts[] = { 1, 10, 100, 1000 };

static void measure_way(const struct full_pass *pass)
{
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		struct full_job job = { .buffers = counts[i] };
		current = pass;
		pass->full->way->extent(measure_standing, &job);
	}
}

int main(int argc, char **argv)
{
	bench_start(argc, argv, "full", batch_ways);
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++)
		if (bench_selected(passes[i].full->way))
			measure_way(&passes[i]);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		batch_measure(&(struct batch_spec){
			.n = counts[i] * BIG_BLOCKS, .min_bytes = BIG_BLOCK, .max_bytes = BIG_BLOCK,
			.threads = 1, .unit = "block",
		});
	return 0;
}
