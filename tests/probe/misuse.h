/*
 * misuse.h: for probes of regions, pools and slabs used wrongly. Each misuse ends in one line on stderr
 * and abort(); with LIBREGION_ON_ERROR=report the same line comes, the call does nothing and returns NULL,
 * 0 or -1 with errno EINVAL, and the program runs on. Each is tried both ways.
 */
#ifndef PROBE_MISUSE_H
#define PROBE_MISUSE_H

#include "objects.h"

#include <errno.h>
#include <signal.h>

#define REPORT "LIBREGION_ON_ERROR=report"

/* Each misuse twice: it aborts, and with ON_ERROR=report it is reported only. */
#define MISUSE(name_) \
	{.name = #name_, .run = name_, .lines = 1, .signal = SIGABRT}, \
	{.name = #name_ "_reported", .run = name_, .environment = REPORT, .lines = 1}

/* What a misuse returns. Everything still works. */
static inline void gives_null(const void *p)
{
	CHECK(!p && errno == EINVAL, "a misuse returns NULL with EINVAL: %p, errno %d", p, errno);
	probe_heap_is_sound();
}

static inline void gives(long expected, long result)
{
	CHECK(result == expected && errno == EINVAL, "a misuse returns %ld with EINVAL: %ld, errno %d",
	      expected, result, errno);
	probe_heap_is_sound();
}

#endif
