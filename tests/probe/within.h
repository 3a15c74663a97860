/*
 * within.h: for probes of region_within(): whose what malloc() gives is.
 */
#ifndef PROBE_WITHIN_H
#define PROBE_WITHIN_H

#include "objects.h"

#include <stdlib.h>

static region_t *r; /* the region of the case */
static void *blocks[1000];

static inline void is_in(const region_t *region, const void *p, const char *what)
{
	CHECK(region_contains(region, p), "%s is the region's", what);
}

static inline void is_not_in(const region_t *region, const void *p, const char *what)
{
	CHECK(!region_contains(region, p), "%s isn't the region's", what);
}

static inline void malloc_is_the_heap_s(void)
{
	void *p = probe_block(100, 1);
	is_not_in(r, p, "what malloc gives afterwards");
	CHECK(region_depth() == 0, "no scope is open: depth %u", region_depth());
	free(p);
}

#endif
