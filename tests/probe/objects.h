/*
 * objects.h: for probes of regions as objects: making one, filling it, and looking whether it is whole.
 */
#ifndef PROBE_OBJECTS_H
#define PROBE_OBJECTS_H

#include "scoped.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

#define CASE(name_) {.name = #name_, .run = name_}

static inline region_t *region_of(struct region_options options)
{
	region_t *region = region_create(&options);
	CHECK(region, "a region is made");
	return region;
}

static inline region_t *a_region(void)
{
	return region_of((struct region_options){0});
}

/* A block, filled with the pattern of the seed. */
static inline void *block_of(region_t *region, size_t size, unsigned seed)
{
	void *p = region_alloc(region, size);
	CHECK(p, "region_alloc(%zu) serves", size);
	CHECK((uintptr_t)p % 16 == 0, "region_alloc(%zu) aligns to 16: %p", size, p);
	probe_fill(p, size, seed);
	return p;
}

static inline void verify(const void *p, size_t size, unsigned seed)
{
	probe_verify(p, size, seed, "a block keeps its contents");
}

/* The region can be used: many blocks at once, all whole. */
static inline void region_is_sound(region_t *region)
{
	enum { COUNT = 300 };
	static const size_t sizes[] = {1, 16, 40, 100, 1000, 5000, 40000, 300000};
	void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = block_of(region, sizes[i % 8], i);
	for (unsigned i = 0; i < COUNT; i++)
		verify(blocks[i], sizes[i % 8], i);
}

static inline void *in_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	void *result;
	CHECK(pthread_create(&thread, NULL, body, argument) == 0, "a thread starts");
	pthread_join(thread, &result);
	return result;
}

#endif
