/*
 * stress.h: what the stress programs share.
 *
 *     <program> [--seconds S] [--threads N] [--seed N]
 *
 * A stress program lets threads do something to the allocator at once for S seconds, checks every block
 * it gets its hands on, prints one line of what it did, and exits non-zero on any finding. It is a plain
 * program and links the twins of malloc, so that it can be built with -fsanitize=thread or address:
 * the sanitizer has libc's names, the twins serve the blocks.
 *
 * A block begins with its size and id, then comes a pattern (pattern.h), so that whoever is given the
 * pointer can check all of it.
 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include "random.h"
#include "region.h"
#include "shim/shim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#define STRESS_HAS_FEATURE(feature) __has_feature(feature)
#else
#define STRESS_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || STRESS_HAS_FEATURE(thread_sanitizer)
#define STRESS_UNDER_TSAN 1
#else
#define STRESS_UNDER_TSAN 0
#endif
#if STRESS_UNDER_TSAN || defined(__SANITIZE_ADDRESS__) || STRESS_HAS_FEATURE(address_sanitizer)
#define STRESS_UNDER_SANITIZER 1
#else
#define STRESS_UNDER_SANITIZER 0
#endif

#define STRESS_EXIT_SKIPPED 77 /* meson's word for it */
#define STRESS_THREADS_MOST 64

struct stress {
	const char *name;
	unsigned seconds;
	unsigned threads;
	uint64_t seed;
	atomic_bool over;     /* the time is up */
	atomic_ullong blocks; /* made, over all workers */
	atomic_ullong bytes;
};

/* One thread's part. */
struct worker {
	struct stress *stress;
	unsigned id;
	uint64_t rng;
	uint64_t blocks;
	uint64_t bytes;
	void *shared; /* the program's own */
};

/* Reads the arguments; the number of threads is a default. Prints the seed at the end, or on failure. */
struct stress *stress_begin(const char *name, unsigned threads, int argc, char **argv);

/* Starts the threads with work(), lets the time pass, sets `over`, and joins. */
void stress_run(struct stress *stress, void (*work)(struct worker *), void *shared);

/* Prints "name: ..." and what was counted. Returns the exit status. */
int stress_end(const struct stress *stress, const char *what, unsigned long long count);

/* Prints the finding and the seed, and ends the process with status 1. */
_Noreturn void stress_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A worker for use outside of stress_run(), with a random sequence of its own. */
struct worker worker_make(struct stress *stress, unsigned id, void *shared);

/* Adds what a worker counted; stress_run() does it for its own. */
void worker_done(struct worker *worker);

/* --- blocks, all of at least BLOCK_MIN_BYTES --- */

#define BLOCK_MIN_BYTES ((size_t)8)

/* A size that is mostly small, below 1 << shift. */
size_t block_random_size(struct worker *worker, unsigned shift);

void *block_make(struct worker *worker, size_t size);

/* Fails unless every byte is as it was written. Returns the size. */
size_t block_check(const void *block);

/* Checks, and gives another size by realloc. */
void *block_resize(struct worker *worker, void *block, size_t size);

/* Checks and frees; NULL is fine. */
void block_free(void *block);

/* --- an array of places through which threads hand blocks to each other --- */

struct exchange {
	size_t count;
	_Atomic(void *) places[];
};

struct exchange *exchange_new(size_t count);

/* Puts a block (or NULL) into a random place; returns what was there, now the caller's. */
void *exchange_swap(struct exchange *exchange, struct worker *worker, void *block);

/* Frees all blocks that are left. */
void exchange_empty(struct exchange *exchange);

#endif
