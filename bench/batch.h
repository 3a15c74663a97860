/*
 * batch.h: batches of blocks in an extent, the work that bench/scope, bench/enter and
 * bench/contended have in common.
 *
 * A batch is n blocks of sizes drawn beforehand. Each block is allocated and its first word is
 * written. Then one of three things happens, which is the row's kind:
 *   freed      blocks are freed one by one, in the order of allocation, before the extent ends;
 *   wholesale  blocks are left to the end of the extent, which takes them all (`none`, arenas);
 *   faded      blocks outlive the extent and are freed one by one after it (scopes that let them).
 * A way has those rows that it can serve: plain malloc has no wholesale end.
 */
#ifndef BATCH_H
#define BATCH_H

#include "bench.h"

struct batch_spec {
	size_t n;
	size_t min_bytes, max_bytes; /* of a block; one is the other, doubled any number of times */
	unsigned threads;
	const char *unit; /* "block": the time is shared out to blocks; else it is the whole extent's */
};

/* All ways that a batch can use, for bench_start(). */
extern const struct way *const batch_ways[];

/* Measures the rows of every way that is selected. */
void batch_measure(const struct batch_spec *spec);

#endif
