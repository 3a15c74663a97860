/*
 * faults.c: mistakes put between the model and a sound library, to see that the model finds each one
 * and makes it small. Linked with --wrap=function for every function here; MODEL_FAULT names the fault.
 *
 * A fault that isn't there from the first operation shows now and then (some_times), as real ones do.
 */
#include "fault.h"
#include "region.h"
#include "shim/shim.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

static struct {
	_Atomic(char *) latest;    /* block handed out last, of latest_size bytes */
	atomic_size_t latest_size;
	_Atomic(char *) hostage;   /* a block that another thread than this one allocated */
	_Atomic(pthread_t) hostage_thread;
} state;

/* --- allocation --- */

WRAPPED(void *, shim_malloc, size_t size)
{
	if (fault_is("crash") && size > 700)
		abort();
	if (fault_is("hang") && size > 700)
		for (;;)
			pause();
	if (fault_is("overlap") && state.latest && state.latest_size >= size && some_times())
		return state.latest;
	if (fault_is("invented-failure") && some_times())
		return NULL;
	char *p = __real_shim_malloc(size);
	state.latest = p;
	state.latest_size = size;
	state.hostage = p;
	state.hostage_thread = pthread_self();
	return p;
}

WRAPPED(void *, shim_calloc, size_t count, size_t size)
{
	char *p = __real_shim_calloc(count, size);
	if (fault_is("calloc-dirty") && p && count * size > 40)
		p[count * size - 1] = 1;
	return p;
}

WRAPPED(void *, shim_aligned_alloc, size_t align, size_t size)
{
	return fault_is("misaligned") ? __real_shim_malloc(size)
	                              : __real_shim_aligned_alloc(align, size);
}

WRAPPED(size_t, shim_usable_size, const void *p)
{
	return __real_shim_usable_size(p) + (fault_is("usable-too-much") ? 64 : 0);
}

/* --- realloc and free --- */

void __real_shim_free(void *p);

WRAPPED(void *, shim_realloc, void *p, size_t size)
{
	size_t old = p ? __real_shim_usable_size(p) : 0;
	if (fault_is("realloc-into-scope") && p && size > 0 && size < 100000) {
		void *q = __real_shim_malloc(size);
		memcpy(q, p, old < size ? old : size);
		__real_shim_free(p);
		return q;
	}
	char *q = __real_shim_realloc(p, size);
	if (fault_is("realloc-forgets") && p && q && size > 0)
		q[(old < size ? old : size) / 2] ^= 1;
	return q;
}

WRAPPED(void, shim_free, void *p)
{
	state.latest = NULL;
	if (fault_is("free-touches-errno") && p)
		errno = EAGAIN;
	if (state.hostage == p)
		state.hostage = NULL;
	if (fault_is("remote-free-scribbles") && p && state.hostage &&
	    !pthread_equal(state.hostage_thread, pthread_self()))
		*state.hostage ^= 1;
	__real_shim_free(p);
}

/* --- scopes --- */

WRAPPED(void, region_do_with, const struct region_options *options, void (*fn)(void *), void *arg)
{
	struct region_options changed = *options;
	if (fault_is("survivors-reclaimed"))
		changed.fade = REGION_FADE_NONE;
	if (fault_is("nothing-reclaimed"))
		changed.fade = REGION_FADE_UNFREED;
	if (fault_is("scope-not-entered"))
		fn(arg);
	else
		__real_region_do_with(&changed, fn, arg);
}

WRAPPED(void, region_ignore, void (*fn)(void *), void *arg)
{
	if (fault_is("not-ignored"))
		fn(arg);
	else
		__real_region_ignore(fn, arg);
}

WRAPPED(void *, region_keep, void *p)
{
	return fault_is("keep-forgotten") ? p : __real_region_keep(p);
}

WRAPPED(void *, region_copy_out, const void *p)
{
	if (!fault_is("copied-into-scope"))
		return __real_region_copy_out(p);
	size_t size = __real_shim_usable_size(p);
	void *copy = __real_shim_malloc(size);
	return copy ? memcpy(copy, p, size) : NULL;
}

WRAPPED(int, region_on_exit, void (*fn)(void *), void *arg)
{
	if (fault_is("callback-lost") && region_depth() > 0 && some_times())
		return 0;
	return __real_region_on_exit(fn, arg);
}

/* --- questions --- */

WRAPPED(int, region_owns, const void *p)
{
	return __real_region_owns(p) || (fault_is("owns-all") && p && region_depth() > 0);
}

WRAPPED(const char *, region_name_of, const void *p)
{
	return fault_is("name-unknown") ? NULL : __real_region_name_of(p);
}

WRAPPED(void, region_stats_read, struct region_stats *stats)
{
	__real_region_stats_read(stats);
	if (fault_is("miscounted") && stats->scopes_entered > 3)
		stats->scopes_entered--;
}
