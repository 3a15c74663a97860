/*
 * checked.h: for probes of LIBREGION_CHECK: what a `none` scope leaves, and reports of it.
 */
#ifndef PROBE_CHECKED_H
#define PROBE_CHECKED_H

#include "scoped.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKED "LIBREGION_CHECK=1"
#define NOINLINE __attribute__((noinline))
#define PLANTED "which scope \"planted\" leaves, is still pointed to"

static const struct region_options planted = {.name = "planted", .fade = REGION_FADE_NONE};

static __attribute__((noinline, unused)) void *make(size_t size)
{
	return memset(probe_opaque(malloc(size)), 7, size);
}

/* What is wrong if a text isn't there so many times, or NULL. */
static inline const char *count_is(const char *said, const char *text, int count)
{
	static char wrong[160];
	int found = 0;
	for (const char *at = said; (at = strstr(at, text)); at++)
		found++;
	snprintf(wrong, sizeof(wrong), "\"%s\" is there %d times, not %d", text, found, count);
	return found == count ? NULL : wrong;
}

#endif
