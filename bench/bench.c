/*
 * bench.c: the harness of bench.h.
 *
 * A row is measured in three steps. Passes are timed alone on the main thread and their number
 * doubled until they fill the time slice of a repetition. Where there are more threads, each makes
 * one repetition that isn't counted, because it pays for first touches. Then come those that
 * count, fewer of them when a single pass takes long. Threads meet at a barrier before each, so
 * that they really run at the same time.
 */
#include "bench.h"
#include "ways.h"

#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_REPETITIONS 5
#define SMOKE_N 1000

static struct {
	const char *program;
	const char *ways; /* comma-separated names, or NULL for all that are available */
	unsigned repetitions; /* at most */
	double seconds;       /* of one repetition, at least */
	double row_seconds;   /* of all repetitions, at most, unless one takes longer */
	bool smoke;
	bool litter;
	pthread_barrier_t *meeting; /* of the run; NULL while one thread is alone */
} bench = { .program = "bench", .repetitions = 5, .seconds = 0.01, .row_seconds = 0.3 };

struct run {
	bench_pass *pass;
	void *job;
	size_t passes; /* in a repetition */
	unsigned repetitions;
	unsigned threads;
	clockid_t clock;
	pthread_barrier_t start;
	double seconds[MAX_REPETITIONS][BENCH_MAX_THREADS];
};

struct worker {
	struct run *run;
	unsigned thread;
	pthread_t id;
};

size_t bench_between(uint64_t *state, size_t low, size_t high)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return low + (*state >> 11) % (high - low + 1);
}

size_t bench_capped(size_t n)
{
	return bench.smoke && n > SMOKE_N ? SMOKE_N : n;
}

/* ---- ways ------------------------------------------------------------------------------------ */

static bool is_named(const struct way *way)
{
	size_t length = strlen(way->name);

	for (const char *name = bench.ways; name; name = strchr(name, ',')) {
		name += *name == ',';
		if (!strncmp(name, way->name, length) && (name[length] == ',' || name[length] == '\0'))
			return true;
	}
	return false;
}

bool bench_selected(const struct way *way)
{
	return bench.ways ? is_named(way) : way->available();
}

static void list_ways(const struct way *const *ways)
{
	for (; *ways; ways++)
		if ((*ways)->available())
			puts((*ways)->name);
	exit(0);
}

/* A way that is misspelt or missing must not pass as a run without rows. */
static void check_ways(const struct way *const *ways)
{
	size_t asked = 1, found = 0;

	for (const char *c = bench.ways; *c; c++)
		asked += *c == ',';
	for (; *ways; ways++)
		found += is_named(*ways) && (*ways)->available();
	if (found != asked) {
		fprintf(stderr, "%s: %s: not available under this malloc (see --list)\n",
		        bench.program, bench.ways);
		exit(2);
	}
}

/* ---- start ----------------------------------------------------------------------------------- */

/*
 * Leaves the general heap as a long-running program has it: blocks of many sizes were made, and
 * three of four of them freed in no order. What is left stays for the rest of the run.
 */
static void make_litter(void)
{
	enum { BLOCKS = 200000 };
	uint64_t random = 4;
	void **blocks = bench_array(BLOCKS, sizeof(*blocks));

	for (size_t i = 0; i < BLOCKS; i++) {
		size_t size = bench_between(&random, 16, 2048);
		blocks[i] = malloc(size);
		if (!blocks[i])
			bench_fail("out of memory");
		memset(blocks[i], 1, size);
	}
	for (size_t i = 0; i < BLOCKS; i++)
		if (bench_between(&random, 0, 3))
			free(blocks[i]);
	bench_array_free(blocks, BLOCKS, sizeof(*blocks));
}

static void usage(const struct way *const *ways)
{
	printf("usage: %s [--way=NAME,...] [--smoke|--quick] [--litter] [--list]\n"
	       "  --way     ways to get memory; default: all that are available\n"
	       "  --smoke   one pass of each row, with small numbers: does it work?\n"
	       "  --quick   shorter and fewer repetitions\n"
	       "  --litter  fragment the general heap first\n"
	       "  --list    print the ways that are available under this malloc\n"
	       "ways:\n", bench.program);
	for (; *ways; ways++)
		printf("  %-8s  %s\n", (*ways)->name, (*ways)->help);
	exit(0);
}

void bench_start(int argc, char **argv, const char *program, const struct way *const *ways)
{
	static const struct option options[] = {
		{"way", required_argument, NULL, 'w'},  {"smoke", no_argument, NULL, 's'},
		{"quick", no_argument, NULL, 'q'},      {"litter", no_argument, NULL, 'm'},
		{"list", no_argument, NULL, 'l'},       {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	bool list = false;
	int c;

	bench.program = program;
	bench_name_program(program);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'w': bench.ways = optarg; break;
		case 's': bench.smoke = true; bench.repetitions = 1; bench.seconds = 0; break;
		case 'q': bench.repetitions = 3; bench.seconds = 0.003; bench.row_seconds = 0.1; break;
		case 'm': bench.litter = true; break;
		case 'l': list = true; break;
		case 'h': usage(ways); break;
		default: exit(2);
		}
	}
	if (list)
		list_ways(ways);
	if (bench.ways)
		check_ways(ways);
	bench_print_malloc();
	atexit(ways_end_thread);
	if (bench.litter)
		make_litter();
}

/* ---- measuring ------------------------------------------------------------------------------- */

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static double time_passes(const struct run *run, unsigned thread)
{
	double start = now(run->clock);

	for (size_t i = 0; i < run->passes; i++)
		run->pass(run->job, thread);
	return now(run->clock) - start;
}

static void find_passes(struct run *run)
{
	double seconds;

	run->passes = 1;
	while ((seconds = time_passes(run, 0)) < bench.seconds)
		run->passes *= 2;
	/* The first time memory is new; the second time it may have gone back to the system in between. */
	seconds = time_passes(run, 0);
	run->repetitions = bench.repetitions;
	while (run->repetitions > 1 && run->repetitions * seconds > bench.row_seconds)
		run->repetitions--;
}

void bench_meet(void)
{
	if (bench.meeting)
		pthread_barrier_wait(bench.meeting);
}

static void repeat_passes(struct run *run, unsigned thread)
{
	for (unsigned i = 0; run->threads > 1 && i < 2; i++)
		time_passes(run, thread);
	for (unsigned i = 0; i < run->repetitions; i++) {
		pthread_barrier_wait(&run->start);
		run->seconds[i][thread] = time_passes(run, thread);
	}
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	repeat_passes(worker->run, worker->thread);
	ways_end_thread();
	return NULL;
}

static void run_threads(struct run *run)
{
	struct worker workers[BENCH_MAX_THREADS];

	pthread_barrier_t meeting;

	pthread_barrier_init(&run->start, NULL, run->threads);
	pthread_barrier_init(&meeting, NULL, run->threads);
	bench.meeting = run->threads > 1 ? &meeting : NULL;
	for (unsigned i = 1; i < run->threads; i++) {
		workers[i] = (struct worker){ .run = run, .thread = i };
		if (pthread_create(&workers[i].id, NULL, work, &workers[i]))
			bench_fail("no more threads");
	}
	repeat_passes(run, 0);
	for (unsigned i = 1; i < run->threads; i++)
		pthread_join(workers[i].id, NULL);
	bench.meeting = NULL;
	pthread_barrier_destroy(&meeting);
	pthread_barrier_destroy(&run->start);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median over repetitions of the seconds that all threads took together. */
static double median_seconds(const struct run *run)
{
	double totals[MAX_REPETITIONS] = {0};

	for (unsigned i = 0; i < run->repetitions; i++)
		for (unsigned thread = 0; thread < run->threads; thread++)
			totals[i] += run->seconds[i][thread];
	qsort(totals, run->repetitions, sizeof(*totals), compare_doubles);
	return totals[(run->repetitions - 1) / 2];
}

void bench_print(const struct bench_row *row, double value)
{
	printf("%s,%s,%s,%zu,%u,%.3f,%s\n", bench.program, row->way->name, row->kind, row->n,
	       row->threads, value, row->unit);
	fflush(stdout);
}

void bench_measure(const struct bench_row *row, bench_pass *pass, void *job)
{
	struct run run = {
		.pass = pass,
		.job = job,
		.threads = row->threads,
		.clock = row->threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_THREAD_CPUTIME_ID,
	};

	find_passes(&run);
	run_threads(&run);
	double units = row->units * (double)run.passes * row->threads;
	bench_print(row, median_seconds(&run) * 1e9 / units);
}
