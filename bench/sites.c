/*
 * sites.c: what a call costs that LIBREGION_SITES has made a scope, over one that it hasn't.
 *
 *     LIBREGION_SITES=bench_site,bench_filtered@bench_nobody,bench_blocks bench-sites
 *
 * All functions do the same: next to nothing (an empty scope), or malloc and free ten blocks. Kinds are
 * measured in turn, round after round, and what is printed is the median over rounds, in ns of CPU
 * time a call, and as a difference to the plain call:
 *
 *     plain       nothing
 *     filtered    a site of which no call is meant, because it is made by somebody else
 *     do          region_do_with of the plain function
 *     enter       region_enter and region_leave around the plain call
 *     site        a site
 *     blocks ...  the same with ten blocks in it
 *
 * Without libregion, or without sites, all are plain calls.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REGION_OPTIONAL
#include "region.h"

#define FUNCTION __attribute__((noinline, used))
/* Different in each function, so that the compiler doesn't take one for the other. */
#define BODY(name, arg) __asm__ volatile("# " name : : "r"(arg) : "memory")
#define ROUNDS_MOST 99
#define BLOCKS 10

static unsigned rounds = 31;
static long calls = 1000000;

FUNCTION void bench_plain(void *arg)
{
	BODY("plain", arg);
}

FUNCTION void bench_site(void *arg)
{
	BODY("site", arg);
}

FUNCTION void bench_filtered(void *arg)
{
	BODY("filtered", arg);
}

/* The caller that bench_filtered is a site for. */
FUNCTION void bench_nobody(void *arg)
{
	bench_filtered(arg);
	__asm__ volatile("");
}

static void use_blocks(void)
{
	void *blocks[BLOCKS];

	for (size_t i = 0; i < BLOCKS; i++)
		blocks[i] = malloc(16 + 40 * i);
	__asm__ volatile("" : : "r"(blocks) : "memory");
	for (size_t i = 0; i < BLOCKS; i++)
		free(blocks[i]);
}

FUNCTION void bench_plain_blocks(void *arg)
{
	BODY("plain blocks", arg);
	use_blocks();
}

FUNCTION void bench_blocks(void *arg)
{
	BODY("blocks", arg);
	use_blocks();
}

static void call_plain(void *arg)
{
	bench_plain(arg);
}

static void call_filtered(void *arg)
{
	bench_filtered(arg);
}

static void call_in_enter(void *arg)
{
	struct region_scope scope;

	region_enter(&scope);
	bench_plain(arg);
	region_leave(&scope);
}

static void call_in_do(void *arg)
{
	static const struct region_options unfreed = {.name = "do", .fade = REGION_FADE_UNFREED};

	region_do_with(&unfreed, bench_plain, arg);
}

static void call_site(void *arg)
{
	bench_site(arg);
}

static void call_plain_blocks(void *arg)
{
	bench_plain_blocks(arg);
}

static void call_blocks_in_do(void *arg)
{
	static const struct region_options unfreed = {.name = "do", .fade = REGION_FADE_UNFREED};

	region_do_with(&unfreed, bench_plain_blocks, arg);
}

static void call_blocks(void *arg)
{
	bench_blocks(arg);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static struct kind {
	const char *name;
	void (*call)(void *arg);
	unsigned base; /* the kind that it is compared with */
	unsigned share; /* of the calls, so that no kind takes too long */
	double ns[ROUNDS_MOST];
} kinds[] = {
	{"plain", call_plain, 0, 1, {0}},
	{"filtered", call_filtered, 0, 1, {0}},
	{"do", call_in_do, 0, 1, {0}},
	{"enter", call_in_enter, 0, 1, {0}},
	{"site", call_site, 0, 1, {0}},
	{"blocks plain", call_plain_blocks, 5, 10, {0}},
	{"blocks do", call_blocks_in_do, 5, 10, {0}},
	{"blocks site", call_blocks, 5, 10, {0}},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static double measure(const struct kind *kind)
{
	long count = calls / kind->share;
	double start = now_ns();

	for (long i = 0; i < count; i++)
		kind->call(&start);
	return (now_ns() - start) / (double)count;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(struct kind *kind)
{
	qsort(kind->ns, rounds, sizeof(kind->ns[0]), by_size);
	return kind->ns[rounds / 2];
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--smoke") == 0) {
		rounds = 1;
		calls = 1000;
	}
	for (unsigned round = 0; round < rounds; round++)
		for (size_t i = 0; i < KINDS; i++)
			kinds[i].ns[round] = measure(&kinds[i]);
	for (size_t i = 0; i < KINDS; i++)
		median(&kinds[i]);
	printf("kind,ns,over_plain_ns\n");
	for (size_t i = 0; i < KINDS; i++)
		printf("%s,%.2f,%.2f\n", kinds[i].name, kinds[i].ns[rounds / 2],
		       kinds[i].ns[rounds / 2] - kinds[kinds[i].base].ns[rounds / 2]);
	return 0;
}
