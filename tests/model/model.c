/*
 * model.c: the model test: random programs of allocator and scope operations, each checked against a
 * shadow model (shadow.h) for overlap, alignment, contents, ownership and statistics.
 *
 *     model [--seed N] [--programs N] [--ops N] [--threads K] [--seconds S] [--faulty N]
 *
 * A seed is printed at the start. Program i of a run has the i-th seed that follows from it; a failing
 * one is shrunk, printed, and can be run again by its own seed with --programs 1. The structure is that
 * of bumpalo's AllocatorProgram.
 */
#include "random.h"
#include "run.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HANG_MS 20000
#define HANG_MS_FAULTY 2000
#define SHRINK_SECONDS 120

struct settings {
	uint64_t seed;
	uint64_t programs; /* 0: as many as the seconds allow */
	unsigned seconds;  /* 0: as many as the programs take */
	size_t ops;
	unsigned threads; /* 0: up to each program */
	size_t faulty;    /* succeed only by a failure that shrinks to so few operations; 0: by none */
};

_Noreturn static void usage(int status)
{
	fputs("usage: model [--seed N] [--programs N] [--ops N] [--threads 1-4] [--seconds S] [--faulty N]\n"
	      "  --faulty N   succeed if a failure is found, shrinks to N operations or fewer, and is\n"
	      "               gone when MODEL_FAULT is unset\n",
	      status ? stderr : stdout);
	exit(status);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);
	if (*text < '0' || *text > '9' || *end)
		usage(2);
	return value;
}

static void read_arguments(struct settings *settings, int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},    {"programs", 1, NULL, 'p'}, {"ops", 1, NULL, 'o'},
		{"threads", 1, NULL, 't'}, {"seconds", 1, NULL, 'S'},  {"faulty", 1, NULL, 'f'},
		{"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0},
	};
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 's': settings->seed = number(optarg); break;
		case 'p': settings->programs = number(optarg); break;
		case 'o': settings->ops = number(optarg); break;
		case 't': settings->threads = (unsigned)number(optarg); break;
		case 'S': settings->seconds = (unsigned)number(optarg); break;
		case 'f': settings->faulty = number(optarg); break;
		case 'h': usage(0);
		default: usage(2);
		}
	if (optind < argc || settings->threads > PROGRAM_THREADS || settings->ops == 0)
		usage(2);
}

static const char *threads_of(const struct program *program)
{
	if (program->threads == 1)
		return "on one thread";
	return program->free_running ? "on threads that run at once" : "on threads that take turns";
}

static void print_found(const struct program *program, const struct outcome *found)
{
	printf("model: FAILED: %s\n", found->text);
	printf("model: program %#" PRIx64 ", %zu operations %s; shrinking ...\n", program->seed,
	       program->count, threads_of(program));
	fflush(stdout);
}

static void print_shrunk(const struct settings *settings, const struct program *program,
                         const struct outcome *shrunk)
{
	printf("model: fails with %zu of them too, %s:\n", program->count, threads_of(program));
	program_print(stdout, program);
	printf("model: ends in: %s\n", shrunk->text);
	printf("model: to repeat: model --seed %#" PRIx64 " --programs 1 --ops %zu --threads %u\n",
	       program->seed, settings->ops, settings->threads);
}

/* Nothing but the planted fault may be at fault. */
static bool passes_without_fault(const struct program *program, struct report *report)
{
	unsetenv("MODEL_FAULT");
	struct outcome outcome = run_program(program, report, HANG_MS, false);
	if (outcome.cause)
		printf("model: without the planted fault too: %s\n", outcome.text);
	return outcome.cause == 0;
}

/* Runs the program of a seed. If it fails: shrinks and prints it, and says how small it has become. */
static bool run_and_shrink(const struct settings *settings, uint64_t seed, struct report *report,
                           size_t *shrunk_count)
{
	struct program program = program_generate(seed, settings->ops, settings->threads);
	bool faulty = settings->faulty > 0;
	unsigned patience = faulty ? HANG_MS_FAULTY : HANG_MS;
	struct outcome found = run_program(&program, report, patience, faulty);
	if (found.cause) {
		print_found(&program, &found);
		struct outcome shrunk = shrink_program(&program, report, &found, SHRINK_SECONDS);
		print_shrunk(settings, &program, &shrunk);
		*shrunk_count = program.count;
		if (faulty && !passes_without_fault(&program, report))
			*shrunk_count = SIZE_MAX;
	}
	free(program.ops);
	return found.cause != 0;
}

static bool has_time(const struct settings *settings, time_t start, uint64_t done)
{
	if (settings->programs && done >= settings->programs)
		return false;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return !settings->seconds || now.tv_sec - start < (time_t)settings->seconds;
}

static void print_totals(const struct report *report, uint64_t programs)
{
	printf("model: %" PRIu64 " programs, %llu operations, %llu scopes, %llu blocks of regions and %llu "
	       "of the general heap: no failure\n",
	       programs, (unsigned long long)report->performed, (unsigned long long)report->scopes,
	       (unsigned long long)report->region_blocks, (unsigned long long)report->heap_blocks);
}

int main(int argc, char **argv)
{
	struct settings settings = {.seed = random_seed_of_the_clock(), .ops = 1500};
	read_arguments(&settings, argc, argv);
	if (!settings.programs && !settings.seconds)
		settings.programs = 400;
	printf("model: seed %#" PRIx64 "\n", settings.seed);

	struct timespec start;
	clock_gettime(CLOCK_MONOTONIC, &start);
	struct report *report = report_new();
	uint64_t seed = settings.seed;
	uint64_t done = 0;
	for (; has_time(&settings, start.tv_sec, done); done++) {
		size_t count = 0;
		uint64_t program_seed = seed;
		random_next(&seed);
		if (run_and_shrink(&settings, program_seed, report, &count))
			return settings.faulty ? count > settings.faulty : 1;
	}
	print_totals(report, done);
	return settings.faulty ? 1 : 0;
}
