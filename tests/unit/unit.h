/*
 * unit.h: what all unit tests share.
 *
 * Criterion runs each test in a process of its own, so a test starts with nothing set up and may leave
 * anything behind. It says what it needs first: core_start() for tests of core/, scopes_begin() for tests
 * of scopes. Nothing here ends a thread's heap by itself, as a pthread key does in the library: a test's
 * thread calls heap_retire() when it is done.
 *
 * require() costs nothing when it holds (Criterion's own macros write a message each time), so it can stand
 * in loops; its text names the row, size or seed that failed. It only works in the test's first thread:
 * others note what they have seen, and the first one looks at it after joining them.
 */
#ifndef UNIT_H
#define UNIT_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"
#include "scopes/scopes.h"
#include "shim/shim.h"

#define require(condition, ...) \
	do { \
		if (!(condition)) \
			require_fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
	} while (0)

static inline __attribute__((format(printf, 4, 5))) void
require_fail(const char *file, int line, const char *condition, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	cr_assert_fail("%s:%d: %s: %s", file, line, condition, text);
}

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

/* A generator of well mixed numbers (splitmix64): the same ones in each run. */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline size_t random_below(uint64_t *state, size_t n)
{
	return (size_t)(random_next(state) % n);
}

/* core/ with a heap range of so many bytes; misuse is reported, and the test goes on. */
static inline void core_start(size_t heap_bytes)
{
	require(range_init(heap_bytes), "%zu bytes", heap_bytes);
	report_set_fatal(false);
	/* Nothing is given back unless a test asks for it. */
	span_pool_set_decay_ms(3600000);
}

/* The same, and a heap for the test's first thread. */
static inline struct heap *heap_start(size_t heap_bytes)
{
	core_start(heap_bytes);
	struct heap *heap = heap_make();
	require(heap != NULL, "%zu bytes", heap_bytes);
	return heap;
}

/* All layers, as the environment says, and a heap for the test's first thread. */
static inline struct heap *scopes_begin(void)
{
	require(scopes_start(), "no memory");
	report_set_fatal(false);
	struct heap *heap = heap_make();
	require(heap != NULL, "no memory");
	return heap;
}

/* Do blocks of a class serve so many bytes, be it that the heap shares it with its neighbours? */
static inline bool serves(size_t block_bytes, size_t bytes)
{
	unsigned class = class_of(bytes);

	return block_bytes == class_bytes(class) || block_bytes == class_bytes(class_coarse(class));
}

static inline void run_thread(void *(*body)(void *), void *arg)
{
	pthread_t thread;

	require(pthread_create(&thread, NULL, body, arg) == 0, "no thread");
	pthread_join(thread, NULL);
}

/* What is written to stderr between capture_begin() and capture_end(): at most a pipe's worth. */
struct capture {
	int saved, pipe[2];
	char text[32 << 10];
};

static inline void capture_begin(struct capture *capture)
{
	require(pipe(capture->pipe) == 0, "no pipe");
	capture->saved = dup(2);
	dup2(capture->pipe[1], 2);
	close(capture->pipe[1]);
}

static inline const char *capture_end(struct capture *capture)
{
	size_t used = 0;
	ssize_t n;

	dup2(capture->saved, 2);
	close(capture->saved);
	while ((n = read(capture->pipe[0], capture->text + used, sizeof(capture->text) - 1 - used)) > 0)
		used += (size_t)n;
	close(capture->pipe[0]);
	capture->text[used] = '\0';
	return capture->text;
}

static inline size_t count_lines(const char *text)
{
	size_t lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

#endif
