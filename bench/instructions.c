/*
 * instructions.c: PAIRS pairs of malloc and free of SIZE bytes, for counting instructions.
 *
 * Run under callgrind with two numbers of pairs; the difference of the totals, divided by that
 * of the numbers, is what one pair costs without start-up. With a third argument the pairs are
 * in a scope.
 */
#define REGION_OPTIONAL
#include "region.h"

#include <stdio.h>
#include <stdlib.h>

struct job {
	unsigned long pairs;
	size_t size;
};

static void make_pairs(void *arg)
{
	const struct job *job = arg;

	for (unsigned long i = 0; i < job->pairs; i++)
		free(malloc(job->size));
}

int main(int argc, char **argv)
{
	struct job job;

	if (argc < 3) {
		fprintf(stderr, "usage: %s PAIRS SIZE [scope]\n", argv[0]);
		return 2;
	}
	job.pairs = strtoul(argv[1], NULL, 10);
	job.size = strtoul(argv[2], NULL, 10);
	if (argc > 3)
		region_do(make_pairs, &job);
	else
		make_pairs(&job);
	return 0;
}
