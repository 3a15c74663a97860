/*
 * general.c: runs one workload (general.h) and prints what it took.
 *
 * CPU time is the process's from its start to the end of the workload, by getrusage: what starting
 * the allocator costs is on the bill, and so are threads of its own. The peak is the kernel's
 * high-water mark of the address space (VmHWM); ru_maxrss would be that of the program which
 * started this one, where that was bigger. The kernel keeps it by counters that may lag by some
 * pages for each processor, so it is at least the exact sum over the page tables at the end.
 */
#include "general.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct {
	size_t numerator, divisor; /* of the amount of work */
	unsigned threads;
	bool smoke;
} general = { .numerator = 4, .divisor = 1, .threads = 4 };

size_t general_times(size_t n)
{
	size_t times = n * general.numerator / general.divisor;

	return times ? times : 1;
}

size_t general_live(size_t n)
{
	size_t live = general.smoke ? n / 100 : n;

	return live > 4 ? live : 4;
}

unsigned general_threads(void)
{
	return general.threads;
}

void general_sleep(unsigned seconds)
{
	struct timespec left = { .tv_sec = general.smoke ? 0 : seconds };

	while (nanosleep(&left, &left) != 0)
		;
}

/* ---- threads --------------------------------------------------------------------------------- */

struct worker {
	void (*body)(void *, unsigned);
	void *arg;
	unsigned thread;
	pthread_t id;
};

static void *work(void *arg)
{
	const struct worker *worker = arg;

	worker->body(worker->arg, worker->thread);
	return NULL;
}

void general_run_threads(unsigned count, void (*body)(void *, unsigned), void *arg)
{
	struct worker workers[GENERAL_MAX_THREADS];

	if (count > GENERAL_MAX_THREADS)
		bench_fail("too many threads");
	for (unsigned i = 0; i < count; i++) {
		workers[i] = (struct worker){ .body = body, .arg = arg, .thread = i };
		if (pthread_create(&workers[i].id, NULL, work, &workers[i]))
			bench_fail("no more threads");
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].id, NULL);
}

/* ---- figures --------------------------------------------------------------------------------- */

static double milliseconds(struct timeval t)
{
	return (double)t.tv_sec * 1e3 + (double)t.tv_usec / 1e3;
}

/* A line "name   123 kB" of a file in /proc. No stdio: its buffers would be part of the result. */
static unsigned long kilobytes_in(const char *path, const char *name)
{
	char text[8192];
	const char *line;
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[length < 0 ? 0 : length] = '\0';
	line = strstr(text, name);
	if (!line)
		bench_fail("the kernel doesn't tell what is resident");
	return strtoul(line + strlen(name), NULL, 10);
}

static void print_figure(const struct workload *workload, const char *kind, double value, const char *unit)
{
	unsigned threads = workload->threads ? workload->threads : general.threads;

	printf("general,heap,%s,%s,%u,%.3f,%s\n", kind, workload->name, threads, value, unit);
}

static void run(const struct workload *workload)
{
	struct rusage usage;
	unsigned long now, peak;

	workload->run();
	getrusage(RUSAGE_SELF, &usage);
	now = kilobytes_in("/proc/self/smaps_rollup", "\nRss:");
	peak = kilobytes_in("/proc/self/status", "\nVmHWM:");
	print_figure(workload, "cpu", milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime), "ms");
	print_figure(workload, "peak", (double)(peak > now ? peak : now), "KiB");
	if (workload->is_idle)
		print_figure(workload, "idle", (double)now, "KiB");
}

/* ---- arguments ------------------------------------------------------------------------------- */

static void usage(void)
{
	printf("usage: general [--smoke|--quick] [--threads=N] [--list] WORKLOAD...\n"
	       "  --smoke      a thousandth of the work: does it work?\n"
	       "  --quick      a quarter of the work\n"
	       "  --threads=N  threads of the workloads that have many (default: 4)\n"
	       "  --list       print the names of the workloads\n"
	       "A process is one measurement: more than one workload, or \"all\", is for --smoke.\n"
	       "workloads:\n");
	for (const struct workload *const *w = general_workloads; *w; w++)
		printf("  %-12s %s\n", (*w)->name, (*w)->about);
	exit(0);
}

static void list(void)
{
	for (const struct workload *const *w = general_workloads; *w; w++)
		puts((*w)->name);
	exit(0);
}

static void run_called(const char *name)
{
	bool found = false;

	for (const struct workload *const *w = general_workloads; *w; w++) {
		if (strcmp(name, (*w)->name) != 0 && strcmp(name, "all") != 0)
			continue;
		run(*w);
		found = true;
	}
	if (!found) {
		fprintf(stderr, "general: %s: no such workload (see --list)\n", name);
		exit(2);
	}
}

static void set_threads(const char *text)
{
	long threads = strtol(text, NULL, 10);

	if (threads < 2 || threads > GENERAL_MAX_THREADS) {
		fprintf(stderr, "general: --threads=%s: 2 to %d\n", text, GENERAL_MAX_THREADS);
		exit(2);
	}
	general.threads = (unsigned)threads;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"smoke", no_argument, NULL, 's'},         {"quick", no_argument, NULL, 'q'},
		{"threads", required_argument, NULL, 't'}, {"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': general.smoke = true; general.numerator = 1; general.divisor = 1000; break;
		case 'q': general.numerator = 1; break;
		case 't': set_threads(optarg); break;
		case 'l': list(); break;
		case 'h': usage(); break;
		default: return 2;
		}
	}
	if (optind == argc)
		usage();
	bench_name_program("general");
	bench_print_malloc();
	for (int i = optind; i < argc; i++)
		run_called(argv[i]);
	return 0;
}
