/*
 * stress.c: arguments, threads, blocks and the exchange of the stress programs.
 */
#include "stress.h"

#include "pattern.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct stress the_stress;

/* What a block begins with; its id is also the pattern's. */
struct header {
	uint32_t size;
	uint32_t id;
};

void stress_fail(const char *format, ...)
{
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "%s: FAILED: %s (--seed %#" PRIx64 ")\n", the_stress.name, text, the_stress.seed);
	_exit(1);
}

static unsigned long long number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 0);
	if (*text < '0' || *text > '9' || *end)
		stress_fail("%s isn't a number", text);
	return value;
}

struct stress *stress_begin(const char *name, unsigned threads, int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", 1, NULL, 'S'}, {"threads", 1, NULL, 't'}, {"seed", 1, NULL, 's'}, {0},
	};
	the_stress.name = name;
	the_stress.seconds = 1;
	the_stress.threads = threads;
	the_stress.seed = random_seed_of_the_clock();
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 'S': the_stress.seconds = (unsigned)number(optarg); break;
		case 't': the_stress.threads = (unsigned)number(optarg); break;
		case 's': the_stress.seed = number(optarg); break;
		default: exit(2);
		}
	if (the_stress.threads == 0 || the_stress.threads > STRESS_THREADS_MOST)
		stress_fail("1 to %d threads", STRESS_THREADS_MOST);
	return &the_stress;
}

/* --- workers --- */

struct worker worker_make(struct stress *stress, unsigned id, void *shared)
{
	uint64_t seed = stress->seed ^ (uint64_t)id << 48;
	return (struct worker){.stress = stress, .id = id, .rng = random_next(&seed), .shared = shared};
}

void worker_done(struct worker *worker)
{
	atomic_fetch_add(&worker->stress->blocks, worker->blocks);
	atomic_fetch_add(&worker->stress->bytes, worker->bytes);
}

struct job {
	struct worker worker;
	void (*work)(struct worker *);
	pthread_t thread;
};

static void *run_job(void *arg)
{
	struct job *job = arg;
	job->work(&job->worker);
	worker_done(&job->worker);
	return NULL;
}

/* Searches of the library end a plain sleep() early: it is a call that isn't restarted. */
static void let_time_pass(unsigned seconds)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)seconds;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) != 0)
		continue;
}

void stress_run(struct stress *stress, void (*work)(struct worker *), void *shared)
{
	struct job *jobs = calloc(stress->threads, sizeof *jobs);
	if (!jobs)
		abort();
	for (unsigned i = 0; i < stress->threads; i++) {
		jobs[i] = (struct job){.worker = worker_make(stress, i, shared), .work = work};
		if (pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]) != 0)
			stress_fail("no more threads to be had");
	}
	let_time_pass(stress->seconds);
	atomic_store(&stress->over, true);
	for (unsigned i = 0; i < stress->threads; i++)
		pthread_join(jobs[i].thread, NULL);
	free(jobs);
}

int stress_end(const struct stress *stress, const char *what, unsigned long long count)
{
	printf("%s: %u s, %u threads, %llu blocks, %llu MiB", stress->name, stress->seconds,
	       stress->threads, (unsigned long long)stress->blocks,
	       (unsigned long long)stress->bytes >> 20);
	if (what)
		printf(", %llu %s", count, what);
	printf(" (--seed %#" PRIx64 ")\n", stress->seed);
	return 0;
}

/* --- blocks --- */

size_t block_random_size(struct worker *worker, unsigned shift)
{
	return BLOCK_MIN_BYTES + (size_t)random_scaled(&worker->rng, shift);
}

void *block_make(struct worker *worker, size_t size)
{
	struct header header = {(uint32_t)size, (uint32_t)random_next(&worker->rng)};
	char *block = shim_malloc(size);
	if (!block)
		stress_fail("NULL for %zu bytes", size);
	memcpy(block, &header, sizeof header);
	pattern_fill(block, sizeof header, size, header.id);
	worker->blocks++;
	worker->bytes += size;
	return block;
}

static void check_bytes(const char *block, struct header header, size_t to)
{
	size_t at = pattern_damage(block, sizeof header, to, header.id);
	if (at != PATTERN_INTACT)
		stress_fail("block %#x at %p of %u bytes has changed at offset %zu", header.id,
		            (const void *)block, header.size, at);
}

size_t block_check(const void *block)
{
	struct header header;
	memcpy(&header, block, sizeof header);
	/* a header that was overwritten must not lead past the block */
	size_t usable = shim_usable_size(block);
	if (header.size < sizeof header || header.size > usable)
		stress_fail("block at %p: its header has changed: %u bytes of %zu", block, header.size, usable);
	check_bytes(block, header, header.size);
	return header.size;
}

void *block_resize(struct worker *worker, void *block, size_t size)
{
	struct header header;
	size_t old = block_check(block);
	char *resized = shim_realloc(block, size);
	if (!resized)
		stress_fail("realloc: NULL for %zu bytes", size);
	memcpy(&header, resized, sizeof header);
	if (header.size != old)
		stress_fail("realloc from %zu to %zu bytes changes the first ones", old, size);
	size_t common = old < size ? old : size;
	check_bytes(resized, header, common);
	header.size = (uint32_t)size;
	memcpy(resized, &header, sizeof header);
	pattern_fill(resized, common, size, header.id);
	worker->blocks++;
	worker->bytes += size;
	return resized;
}

void block_free(void *block)
{
	if (!block)
		return;
	block_check(block);
	shim_free(block);
}

/* --- the exchange --- */

struct exchange *exchange_new(size_t count)
{
	struct exchange *exchange = calloc(1, sizeof *exchange + count * sizeof *exchange->places);
	if (!exchange)
		abort();
	exchange->count = count;
	return exchange;
}

void *exchange_swap(struct exchange *exchange, struct worker *worker, void *block)
{
	size_t place = random_below(&worker->rng, exchange->count);
	return atomic_exchange(&exchange->places[place], block);
}

void exchange_empty(struct exchange *exchange)
{
	for (size_t i = 0; i < exchange->count; i++)
		block_free(atomic_exchange(&exchange->places[i], NULL));
}
