/*
 * shapes.c: "aligned" blocks, and a heap whose sizes drift ("litter").
 *
 * "aligned": places with blocks of all sizes to 16 KiB, aligned to anything from 32 bytes to a
 * page, replaced at random. "litter": a program whose live bytes stay the same while its sizes grow
 * from phase to phase; one block in eight of each phase stays for good. Where the memory of the old
 * sizes can't serve the new ones, it shows in the peak: M. Johnstone and P. Wilson, "The memory
 * fragmentation problem: solved?" (ISMM 1998).
 */
#include "workloads.h"

#include <malloc.h>
#include <stdlib.h>

enum { PLACES = 2000, PHASES = 8, MIN_BYTES = 24 };

static void *make_aligned(uint64_t *random)
{
	size_t align = (size_t)32 << random_below(random, 8);
	size_t size = random_pareto(random, 16, 10);
	void *p;

	if (posix_memalign(&p, align, size) != 0)
		bench_fail("out of memory");
	if ((uintptr_t)p % align != 0)
		bench_fail("a block isn't aligned");
	return block_mark(p, size);
}

static void run_aligned(void)
{
	uint64_t random = random_seed(1);
	void *blocks[PLACES] = {0};

	for (size_t i = general_times(1000000); i > 0; i--) {
		void **place = &blocks[random_below(&random, PLACES)];

		block_free(*place);
		*place = make_aligned(&random);
	}
	for (size_t i = 0; i < PLACES; i++)
		block_free(blocks[i]);
}

/* Blocks of a phase: as many as fill the live bytes with sizes around `size`. */
struct phase {
	void **blocks;
	size_t count;
};

static struct phase phase_make(size_t size, size_t bytes, uint64_t *random)
{
	struct phase phase = { .count = bytes / size };

	phase.blocks = bench_array(phase.count, sizeof(*phase.blocks));
	for (size_t i = 0; i < phase.count; i++)
		phase.blocks[i] = block_make(random_between(random, size * 3 / 4, size * 5 / 4));
	return phase;
}

static void phase_thin_out(const struct phase *phase, uint64_t *random)
{
	for (size_t i = 0; i < phase->count; i++) {
		if (random_below(random, 8) == 0)
			continue;
		block_free(phase->blocks[i]);
		phase->blocks[i] = NULL;
	}
}

static void phase_free(const struct phase *phase)
{
	for (size_t i = 0; i < phase->count; i++)
		block_free(phase->blocks[i]);
	bench_array_free(phase->blocks, phase->count, sizeof(*phase->blocks));
}

static void run_litter(void)
{
	uint64_t random = random_seed(1);
	size_t bytes = general_live((size_t)32 << 20);

	for (size_t i = general_times(1); i > 0; i--) {
		struct phase phases[PHASES];

		for (int p = 0; p < PHASES; p++) {
			phases[p] = phase_make((size_t)MIN_BYTES << p, bytes, &random);
			phase_thin_out(&phases[p], &random);
		}
		for (int p = 0; p < PHASES; p++)
			phase_free(&phases[p]);
	}
}

const struct workload workload_aligned = {
	.name = "aligned", .about = "alignments of 32 bytes to a page", .threads = 1, .run = run_aligned,
};
const struct workload workload_litter = {
	.name = "litter", .about = "sizes that drift, survivors of all of them", .threads = 1, .run = run_litter,
};
