/*
 * bench.h: what every benchmark program shares: arguments, the clock, threads, medians, output.
 *
 * A program measures *rows*. A row is a kind of work ("freed"), a size of it (n), a number of
 * threads, and one *way* to get memory (ways.h). The work of a row is a *pass*: a function that
 * is called again and again, and that handles a known number of units (blocks, pairs, scopes). A
 * repetition is as many passes as fill the time slice; what is printed is the median over
 * repetitions of the CPU time of one unit, as one line
 *
 *     program,way,kind,n,threads,ns,unit
 *
 * which scripts/bench reads. A line that begins with '#' is for people.
 *
 * Rules that keep figures comparable:
 *   - CPU time, not wall time: the process's for one thread, so that a thread of the allocator's own
 *     is on the bill; the sum of the threads' own for more.
 *   - The first thread is the main one. A row for one thread runs before any other thread exists,
 *     because some allocators take locks from the first pthread_create() on.
 *   - Random sizes are made before the clock starts. Arrays of the harness come from mmap, not from
 *     the malloc that is measured.
 *   - Absolute figures depend on the machine. Only ratios of interleaved runs mean something.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_MAX_THREADS 16

struct way;

struct bench_row {
	const struct way *way;
	const char *kind;
	size_t n;         /* what the row varies: blocks, bytes, writes */
	unsigned threads; /* at most BENCH_MAX_THREADS */
	double units;     /* handled by one pass of one thread */
	const char *unit; /* what one of them is called */
};

/* Does the work of a row once. `thread` counts from 0; each thread has its own part of the job. */
typedef void bench_pass(void *job, unsigned thread);

/*
 * Reads the arguments. `ways` ends with NULL; it holds those that the program can measure. Exits
 * after --list and --help, and with status 2 when a way that was asked for isn't there.
 */
void bench_start(int argc, char **argv, const char *program, const struct way *const *ways);

/* Whether rows of this way are to be measured: asked for, or nothing was and it is available. */
bool bench_selected(const struct way *way);

/* Measures one row and prints its line. */
void bench_measure(const struct bench_row *row, bench_pass *pass, void *job);

/* A row whose value is `value` of the row's unit, not a time. */
void bench_print(const struct bench_row *row, double value);

/*
 * For passes that work on one thing together: waits until every thread of the run has come here. While
 * the number of passes is sought there is only one, the first.
 */
void bench_meet(void);

/* n, or what is enough to see that the program works when this is a smoke test. */
size_t bench_capped(size_t n);

/* Zeroed memory that doesn't come from malloc. Exits when there is none. */
void *bench_array(size_t count, size_t size);
void bench_array_free(void *array, size_t count, size_t size);

/* A number from low to high, both included. The state is any number but 0. */
size_t bench_between(uint64_t *state, size_t low, size_t high);

/* The name that messages begin with. */
void bench_name_program(const char *name);

/* Prints the line "# malloc from FILE": which library serves this process. */
void bench_print_malloc(void);

/* Says what went wrong on stderr and exits with status 1. */
void bench_fail(const char *what) __attribute__((noreturn));

/* Makes the compiler believe that *word is read: nothing about its block is optimised away. */
static inline void bench_see(const uint64_t *word)
{
	__asm__ volatile("" : : "m"(*word));
}

#ifdef __cplusplus
}
#endif

#endif
