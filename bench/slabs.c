/*
 * slabs.c: blocks with reference counts, as the benchmarks of the Go package go-slab use them.
 *
 *   alloc   blocks of 1, 128 or 256 bytes: 1000 of them are made, and then each loses its reference;
 *           for n = 1024 the i-th has i mod 1024 bytes, at least 1. The unit is a block
 *   refs    a reference is added to a block and taken away again, for each of 1000 blocks of n bytes.
 *           The unit is such a pair
 *
 * Slabs have 1024 bytes of blocks and chunk classes grow from 1 byte by a factor of 2 or 1.1, as there.
 * Against them stands what C programs do: malloc with a count in front of the block, and talloc's counts.
 */
#include "bench.h"
#include "ways.h"

#include <string.h>

#define BLOCKS 1000
#define MODULO 1024

/* A way to get blocks with counts; a block has one reference when it comes. */
struct slab_way {
	struct way way; /* of its members only name, help, available and alloc */
	void (*make)(void);
	void (*drop)(void);
	void (*add_ref)(void *block);
	void (*dec_ref)(void *block);
};

struct slab_job {
	size_t bytes; /* of a block; MODULO: i mod MODULO */
	void *blocks[BLOCKS];
};

static void nothing(void)
{
}

/* ---- malloc and a count ---------------------------------------------------------------------- */

struct counted {
	_Alignas(16) size_t references;
	char bytes[];
};

WAY_INLINE void *counted_alloc(size_t size)
{
	struct counted *block = malloc(sizeof(*block) + size);

	block->references = 1;
	return block + 1;
}

WAY_INLINE void counted_add_ref(void *block)
{
	struct counted *counted = (struct counted *)block - 1;

	counted->references++;
}

WAY_INLINE void counted_dec_ref(void *block)
{
	struct counted *counted = (struct counted *)block - 1;

	if (!--counted->references)
		free(counted);
}

static const struct slab_way slab_heap = {
	{ .name = "heap", .help = "malloc, with a count before the block",
	  .available = way_is_always, .alloc = counted_alloc },
	nothing, nothing, counted_add_ref, counted_dec_ref,
};

/* ---- libregion's slabs ----------------------------------------------------------------------- */

static region_slabs_t *slabs;

static void make_slabs(double growth)
{
	slabs = region_slab_create(1, 1024, growth, NULL);
	if (!slabs)
		bench_fail("libregion makes no slabs");
}

static void make_slabs_doubling(void)
{
	make_slabs(2);
}

static void make_slabs_fine(void)
{
	make_slabs(1.1);
}

static void drop_slabs(void)
{
	region_slab_destroy(slabs);
}

WAY_INLINE void *slabs_alloc(size_t size)
{
	return region_slab_alloc(slabs, size);
}

WAY_INLINE void slabs_add_ref(void *block)
{
	region_slab_add_ref(slabs, block);
}

WAY_INLINE void slabs_dec_ref(void *block)
{
	region_slab_dec_ref(slabs, block);
}

static const struct slab_way slab_doubling = {
	{ .name = "doubling", .help = "region_slab, growth 2",
	  .available = way_has_region_objects, .alloc = slabs_alloc },
	make_slabs_doubling, drop_slabs, slabs_add_ref, slabs_dec_ref,
};
static const struct slab_way slab_fine = {
	{ .name = "fine", .help = "region_slab, growth 1.1",
	  .available = way_has_region_objects, .alloc = slabs_alloc },
	make_slabs_fine, drop_slabs, slabs_add_ref, slabs_dec_ref,
};

/* ---- talloc ---------------------------------------------------------------------------------- */

#ifdef BENCH_TALLOC
#define SLAB_TALLOC(X) X(talloc)

/* References are held by the NULL context, which is also the parent. */
WAY_INLINE void *talloc_counted(size_t size)
{
	return talloc_size(NULL, size);
}

WAY_INLINE void talloc_add_ref(void *block)
{
	talloc_increase_ref_count(block);
}

WAY_INLINE void talloc_dec_ref(void *block)
{
	talloc_unlink(NULL, block);
}

static const struct slab_way slab_talloc = {
	{ .name = "talloc", .help = "talloc's reference counts",
	  .available = way_is_always, .alloc = talloc_counted },
	nothing, nothing, talloc_add_ref, talloc_dec_ref,
};
#else
#define SLAB_TALLOC(X)
#endif

/* ---- passes ---------------------------------------------------------------------------------- */

#define SLAB_WAYS(X) X(heap) X(doubling) X(fine) SLAB_TALLOC(X)

WAY_INLINE void fill(const struct slab_way *slab, struct slab_job *job)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		size_t bytes = job->bytes == MODULO ? (i ? i : 1) : job->bytes;
		unsigned char *block = slab->way.alloc(bytes);
		*block = (unsigned char)i;
		__asm__ volatile("" : : "m"(*block));
		job->blocks[i] = block;
	}
}

WAY_INLINE void release(const struct slab_way *slab, struct slab_job *job)
{
	for (size_t i = 0; i < BLOCKS; i++)
		slab->dec_ref(job->blocks[i]);
}

WAY_INLINE void refer(const struct slab_way *slab, struct slab_job *job)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		slab->add_ref(job->blocks[i]);
		__asm__ volatile("" : : : "memory");
		slab->dec_ref(job->blocks[i]);
	}
}

#define DEFINE_PASS(name) \
	static void alloc_##name(void *job, unsigned thread) \
	{ \
		(void)thread; \
		fill(&slab_##name, job); \
		release(&slab_##name, job); \
	} \
	static void refs_##name(void *job, unsigned thread) \
	{ \
		(void)thread; \
		refer(&slab_##name, job); \
	}
SLAB_WAYS(DEFINE_PASS)

#define PASS_ENTRY(name) { &slab_##name, alloc_##name, refs_##name },
static const struct slab_passes {
	const struct slab_way *slab;
	bench_pass *alloc, *refs;
} passes[] = { SLAB_WAYS(PASS_ENTRY) };

#define SLAB_ADDRESS(name) &slab_##name.way,
static const struct way *const slab_ways[] = { SLAB_WAYS(SLAB_ADDRESS) NULL };

static void measure(const struct slab_passes *entry, const char *kind, size_t bytes, bench_pass *pass,
                    struct slab_job *job)
{
	job->bytes = bytes;
	bench_measure(&(struct bench_row){
		.way = &entry->slab->way, .kind = kind, .n = bytes, .threads = 1,
		.units = BLOCKS, .unit = "block",
	}, pass, job);
}

static void measure_way(const struct slab_passes *entry)
{
	static const size_t sizes[] = { 1, 128, 256, MODULO };
	struct slab_job job;

	entry->slab->make();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		measure(entry, "alloc", sizes[i], entry->alloc, &job);
	job.bytes = 128;
	fill(entry->slab, &job);
	measure(entry, "refs", 128, entry->refs, &job);
	release(entry->slab, &job);
	entry->slab->drop();
}

int main(int argc, char **argv)
{
	bench_start(argc, argv, "slabs", slab_ways);
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++)
		if (bench_selected(&passes[i].slab->way))
			measure_way(&passes[i]);
	return 0;
}
