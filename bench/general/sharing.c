/*
 * sharing.c: do blocks of different threads share cache lines? After E. Berger and others, "Hoard"
 * (ASPLOS 2000), which calls the two cases active and passive false sharing.
 *
 * "thrash": each thread makes a small block, writes it many times, frees it, and again. An
 * allocator that cuts blocks for different threads from one cache line makes them fight for it.
 * "scratch": the same, but the first block of each thread comes from the main thread, whose blocks
 * lie side by side. The thread frees it at once; an allocator that gives it back to that thread
 * keeps the sharing alive.
 */
#include "workloads.h"

#include <stdlib.h>

enum { BYTES = 8, WRITES = 400 };

struct job {
	volatile char *first[GENERAL_MAX_THREADS];
	size_t rounds;
};

static void write_often(volatile char *p)
{
	for (int i = 0; i < WRITES; i++)
		for (int k = 0; k < BYTES; k++)
			p[k] = (char)(p[k] + 1);
}

static void work(void *arg, unsigned thread)
{
	struct job *job = arg;

	free((void *)job->first[thread]);
	for (size_t i = 0; i < job->rounds; i++) {
		volatile char *p = malloc(BYTES);

		if (!p)
			bench_fail("out of memory");
		p[0] = 0;
		write_often(p);
		free((void *)p);
	}
}

static void run_with(struct job *job)
{
	job->rounds = general_times(10000);
	general_run_threads(general_threads(), work, job);
}

static void run_thrash(void)
{
	struct job job = { .rounds = 0 };

	run_with(&job);
}

static void run_scratch(void)
{
	struct job job;

	for (unsigned i = 0; i < GENERAL_MAX_THREADS; i++) {
		job.first[i] = malloc(BYTES);
		if (!job.first[i])
			bench_fail("out of memory");
	}
	run_with(&job);
	for (unsigned i = general_threads(); i < GENERAL_MAX_THREADS; i++)
		free((void *)job.first[i]);
}

const struct workload workload_thrash = {
	.name = "thrash", .about = "threads that write small blocks of their own", .run = run_thrash,
};
const struct workload workload_scratch = {
	.name = "scratch", .about = "the same, begun with blocks that lie side by side", .run = run_scratch,
};
