/*
 * misuse_pools.c: pools and slabs used wrongly (misuse.h).
 */
#define _GNU_SOURCE
#include "misuse.h"

#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- pools --- */

static void pool_region_released_twice(void)
{
	region_pool_t *pool = region_pool_create(NULL);
	region_t *region = region_pool_acquire(pool, 1);
	block_of(region, 100, 1);
	region_pool_release(pool, region);
	region_pool_release(pool, region);
	region_t *one = region_pool_acquire(pool, 1), *other = region_pool_acquire(pool, 1);
	CHECK(one != other, "it lies in the pool once");
	region_pool_release(pool, one);
	region_pool_release(pool, other);
	region_pool_destroy(pool);
}

static void pool_region_released_to_another_pool(void)
{
	region_pool_t *pool = region_pool_create(NULL), *other = region_pool_create(NULL);
	region_t *region = region_pool_acquire(pool, 1);
	void *p = block_of(region, 100, 1);
	region_pool_release(other, region);
	verify(p, 100, 1);
	region_pool_release(pool, region);
	region_pool_destroy(other);
	region_pool_destroy(pool);
}

static void region_of_no_pool_released_to_one(void)
{
	region_pool_t *pool = region_pool_create(NULL);
	region_t *region = a_region();
	void *p = block_of(region, 100, 1);
	region_pool_release(pool, region);
	verify(p, 100, 1);
	region_is_sound(region);
	region_destroy(region);
	region_pool_destroy(pool);
}

static void pool_destroyed_before_its_region_is_released(void)
{
	region_pool_t *pool = region_pool_create(NULL);
	region_t *region = region_pool_acquire(pool, 1);
	void *p = block_of(region, 100, 1);
	region_pool_destroy(pool);
	verify(p, 100, 1);
	region_is_sound(region);
}

/* --- slabs --- */

static region_slabs_t *some_slabs(void)
{
	region_slabs_t *slabs = region_slab_create(0, 0, 0, NULL);
	CHECK(slabs, "slabs are made");
	return slabs;
}

static void slab_reference_below_zero(void)
{
	region_slabs_t *slabs = some_slabs();
	void *p = region_slab_alloc(slabs, 100), *q = region_slab_alloc(slabs, 100);
	CHECK(region_slab_dec_ref(slabs, p) == 1, "the last reference ends it");
	errno = 0;
	gives(0, region_slab_dec_ref(slabs, p));
	CHECK(region_slab_refs(slabs, q) == 1, "the other is whole");
	region_slab_destroy(slabs);
}

static void slab_reference_added_to_an_ended_block(void)
{
	region_slabs_t *slabs = some_slabs();
	void *p = region_slab_alloc(slabs, 100), *q = region_slab_alloc(slabs, 100);
	region_slab_dec_ref(slabs, p);
	region_slab_add_ref(slabs, p);
	void *again = region_slab_alloc(slabs, 100);
	CHECK(region_slab_refs(slabs, again) == 1 && again != q, "blocks still come with one");
	region_slab_destroy(slabs);
}

static void slab_reference_to_other_slabs_block(void)
{
	region_slabs_t *slabs = some_slabs(), *other = some_slabs();
	void *p = region_slab_alloc(other, 100);
	region_slab_alloc(slabs, 100);
	errno = 0;
	gives(0, region_slab_dec_ref(slabs, p));
	CHECK(region_slab_refs(other, p) == 1, "it is whole");
	region_slab_destroy(slabs);
	region_slab_destroy(other);
}

static void slab_reference_to_the_heap_s_block(void)
{
	region_slabs_t *slabs = some_slabs();
	void *p = probe_block(100, 1);
	region_slab_alloc(slabs, 100);
	region_slab_add_ref(slabs, p);
	probe_unblock(p, 100, 1);
	region_slab_destroy(slabs);
}

static void slab_chain_to_the_heap_s_block(void)
{
	region_slabs_t *slabs = some_slabs();
	void *p = probe_block(100, 1), *block = region_slab_alloc(slabs, 100);
	region_slab_set_next(slabs, block, p);
	probe_unblock(p, 100, 1);
	CHECK(!region_slab_get_next(slabs, block), "nothing is chained");
	region_slab_destroy(slabs);
}

static void free_of_a_slab_s_block(void)
{
	region_slabs_t *slabs = some_slabs();
	void *p = region_slab_alloc(slabs, 100);
	free(probe_opaque(p));
	CHECK(region_slab_refs(slabs, p) == 1, "it is whole");
	region_slab_destroy(slabs);
	probe_heap_is_sound();
}

const struct probe_case probe_cases[] = {
	MISUSE(pool_region_released_twice),
	MISUSE(pool_region_released_to_another_pool),
	MISUSE(region_of_no_pool_released_to_one),
	MISUSE(pool_destroyed_before_its_region_is_released),
	MISUSE(slab_reference_below_zero),
	MISUSE(slab_reference_added_to_an_ended_block),
	MISUSE(slab_reference_to_other_slabs_block),
	MISUSE(slab_reference_to_the_heap_s_block),
	MISUSE(slab_chain_to_the_heap_s_block),
	MISUSE(free_of_a_slab_s_block),
	{0},
};
