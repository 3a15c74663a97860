/*
 * rlimit.c: see rlimit.h.
 */
#include "rlimit.h"

#include <errno.h>
#include <sys/resource.h>

#include "core/core.h"
#include "life.h"
#include "scopes/scopes.h"

int rlimit_set(int process, int resource, const void *limit, void *old)
{
	bool is_own = process == 0 || process == os_process_id();
	int result = os_limit(process, resource, limit, old);

	if (result < 0) {
		errno = -result;
		return -1;
	}
	/* A child of vfork() has its parent's memory, and limits of its own. */
	if (limit && is_own && resource == RLIMIT_AS && life_is_own_memory())
		scopes_shrink();
	return 0;
}
