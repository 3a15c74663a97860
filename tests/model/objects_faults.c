/*
 * objects_faults.c: mistakes put between the model of objects.h and a sound library, to see that the model
 * finds each one and makes it small. As faults.c; MODEL_FAULT names the fault.
 */
#include "fault.h"
#include "region.h"

#include <stdint.h>

static struct {
	void *latest; /* block of latest_size bytes, of latest_region */
	size_t latest_size;
	region_t *latest_region;
	region_t *local; /* the part of a shared region that was asked for first */
	region_t *local_of;
} state;

/* --- blocks --- */

WRAPPED(void *, region_memalign, region_t *region, size_t align, size_t size)
{
	if (fault_is("overlap") && state.latest_region == region && state.latest_size >= size && align <= 16)
		return state.latest;
	char *p = __real_region_memalign(region, align, size);
	state.latest = p;
	state.latest_size = size;
	state.latest_region = region;
	return fault_is("misaligned") && p && align > 16 && size > 16 ? p + 16 : p;
}

WRAPPED(void *, region_calloc, region_t *region, size_t count, size_t size)
{
	char *p = __real_region_calloc(region, count, size);
	if (fault_is("calloc-dirty") && p && count * size > 40)
		p[count * size - 1] = 1;
	return p;
}

WRAPPED(void *, region_realloc, region_t *region, void *p, size_t old_size, size_t size)
{
	char *q = __real_region_realloc(region, p, old_size, size);
	if (fault_is("realloc-forgets") && q && size > 0 && old_size > 0)
		q[(old_size < size ? old_size : size) / 2] ^= 1;
	return q;
}

WRAPPED(region_t *, region_local, region_t *region)
{
	if (!fault_is("local-of-another"))
		return __real_region_local(region);
	if (state.local_of != region)
		state.local = __real_region_local(region);
	state.local_of = region;
	return state.local;
}

WRAPPED(void, region_within, region_t *region, void (*fn)(void *), void *arg)
{
	__real_region_within(region, fn, arg);
	if (fault_is("within-resets"))
		region_reset(region);
}

WRAPPED(void *, region_keep, void *p)
{
	return fault_is("keep-forgotten") ? p : __real_region_keep(p);
}

/* --- ends --- */

WRAPPED(void, region_reset, region_t *region)
{
	if (!fault_is("reset-forgotten") || !some_times())
		__real_region_reset(region);
}

WRAPPED(void, region_rewind, region_t *region, region_mark_t mark)
{
	__real_region_rewind(region, mark);
	if (fault_is("rewinds-too-far"))
		__real_region_reset(region);
}

WRAPPED(int, region_on_end, region_t *region, void (*fn)(void *), void *arg)
{
	if (fault_is("call-lost") && some_times())
		return 0;
	int result = __real_region_on_end(region, fn, arg);
	return fault_is("called-twice") && some_times() ? __real_region_on_end(region, fn, arg) : result;
}

WRAPPED(region_t *, region_create_for, unsigned version, const struct region_options *options)
{
	struct region_options changed = options ? *options : (struct region_options){0};
	if (fault_is("orphan"))
		changed.parent = NULL;
	return __real_region_create_for(version, &changed);
}

/* --- questions --- */

WRAPPED(size_t, region_len, const region_t *region)
{
	size_t len = __real_region_len(region);
	return fault_is("len-short") ? len / 2 : len;
}

WRAPPED(int, region_contains, const region_t *region, const void *p)
{
	return __real_region_contains(region, p) || fault_is("contains-all");
}

/* --- pools --- */

WRAPPED(region_t *, region_pool_acquire, region_pool_t *pool, uint64_t key)
{
	region_t *region = __real_region_pool_acquire(pool, key);
	if (fault_is("pool-dirty") && some_times())
		region_strdup(region, "left");
	return region;
}

WRAPPED(size_t, region_pool_expected, region_pool_t *pool, uint64_t key)
{
	return __real_region_pool_expected(pool, key) * (fault_is("expects-too-much") ? 8 : 1);
}

WRAPPED(void, region_pool_stats_read, region_pool_t *pool, struct region_pool_stats *stats)
{
	__real_region_pool_stats_read(pool, stats);
	if (fault_is("pool-miscounted") && stats->released > 2)
		stats->released--;
}

/* --- slabs --- */

WRAPPED(void, region_slab_add_ref_slow, region_slabs_t *slabs, void *block)
{
	if (!fault_is("reference-lost") || !some_times())
		__real_region_slab_add_ref_slow(slabs, block);
}

WRAPPED(int, region_slab_dec_ref_slow, region_slabs_t *slabs, void *block)
{
	if (fault_is("ends-early") && region_slab_refs(slabs, block) > 1)
		__real_region_slab_dec_ref_slow(slabs, block);
	return __real_region_slab_dec_ref_slow(slabs, block);
}

WRAPPED(void, region_slab_set_next, region_slabs_t *slabs, void *block, void *next)
{
	__real_region_slab_set_next(slabs, block, fault_is("chain-lost") ? NULL : next);
}

WRAPPED(void *, region_slab_ptr_of, region_slabs_t *slabs, struct region_slab_loc loc)
{
	if (fault_is("location-astray"))
		loc.offset = 0;
	return __real_region_slab_ptr_of(slabs, loc);
}

WRAPPED(int, region_slab_owns, region_slabs_t *slabs, const void *p)
{
	return __real_region_slab_owns(slabs, p) || fault_is("slabs-own-all");
}

WRAPPED(void, region_slab_stats_read, region_slabs_t *slabs, struct region_slab_stats *stats)
{
	__real_region_slab_stats_read(slabs, stats);
	if (fault_is("slabs-miscounted") && stats->dec_refs > 3)
		stats->dec_refs--;
}
