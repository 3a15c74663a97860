/*
 * general.h: what the workloads of the general heap share: scale, threads, random numbers, blocks.
 *
 * A *workload* is a program of its own kind (a server, a producer and its consumer, threads that
 * come and go): a fixed amount of work, done once, under whichever malloc the process has. The
 * process prints
 *
 *     general,heap,cpu,NAME,THREADS,VALUE,ms          user and system time, all threads
 *     general,heap,peak,NAME,THREADS,VALUE,KiB        the most that was resident
 *     general,heap,idle,NAME,THREADS,VALUE,KiB        what is resident at the end (idle workloads only)
 *
 * which scripts/bench reads. A line that begins with '#' is for people.
 *
 * Rules that keep figures comparable:
 *   - The work doesn't depend on how fast it goes: nothing stops at a time.
 *   - Random numbers come from fixed seeds, and every thread has its own; which thread gets which block
 *     may vary where threads race for them.
 *   - Arrays of the harness come from mmap, not from the malloc that is measured.
 *   - Threads that wait sleep. Nobody spins, so CPU time is work.
 *   - Every block is written, at its first word and its last byte at least, and checked when it goes: a
 *     malloc that hands out a block twice is an error, not a figure.
 */
#ifndef BENCH_GENERAL_H
#define BENCH_GENERAL_H

#include "bench.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define GENERAL_MAX_THREADS 16

struct workload {
	const char *name;
	const char *about;
	unsigned threads; /* 0: as many as the process was told */
	bool is_idle;     /* what is resident at its end is a figure of its own */
	void (*run)(void);
};

/* All workloads there are, ended by NULL. */
extern const struct workload *const general_workloads[];

/* The amount of work: n when --quick, four times as much by default, a thousandth for --smoke. */
size_t general_times(size_t n);

/* As many of something that must not grow with the work (live blocks, slots): n, or less for --smoke. */
size_t general_live(size_t n);

/* The number of threads that a workload without a number of its own has. */
unsigned general_threads(void);

/* Runs body(arg, 0 … count - 1), each in a thread of its own, and waits for all of them. */
void general_run_threads(unsigned count, void (*body)(void *arg, unsigned thread), void *arg);

/* Lets time pass, as an idle program does. */
void general_sleep(unsigned seconds);

/* ---- random numbers ------------------------------------------------------------------------------ */

/* A state for a thread, or for a part of the work; never 0. */
static inline uint64_t random_seed(uint64_t number)
{
	return number * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

static inline uint32_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 32);
}

/* From 0 to n - 1, without a division: what is measured is malloc. */
static inline size_t random_below(uint64_t *state, size_t n)
{
	return (size_t)(((uint64_t)random_next(state) * n) >> 32);
}

static inline size_t random_between(uint64_t *state, size_t low, size_t high)
{
	return low + random_below(state, high - low + 1);
}

/* Sizes by doublings, each half as likely as the one before it: `low` to `low << doublings`. */
static inline size_t random_pareto(uint64_t *state, size_t low, unsigned doublings)
{
	unsigned zeros = (unsigned)__builtin_ctz(random_next(state) | UINT32_C(1) << (doublings - 1));

	return (low << zeros) + random_below(state, low << zeros);
}

/* ---- blocks -------------------------------------------------------------------------------------- */

/* A block's first word tells its size, its last byte repeats a part of that. */
static inline void *block_mark(void *p, size_t size)
{
	if (!p)
		bench_fail("out of memory");
	*(size_t *)p = size;
	if (size > sizeof(size_t))
		((char *)p)[size - 1] = (char)size;
	return p;
}

static inline size_t block_size(const void *p)
{
	size_t size = *(const size_t *)p;

	if (size > sizeof(size_t) && ((const char *)p)[size - 1] != (char)size)
		bench_fail("a block was damaged");
	return size;
}

/* At least a word. */
static inline void *block_make(size_t size)
{
	return block_mark(malloc(size), size);
}

static inline void block_free(void *p)
{
	if (p)
		block_size(p);
	free(p);
}

#endif
