/*
 * pool.h: pools of regions as objects. Private to scopes/; the interface is in region_objects.h.
 */
#ifndef LIBREGION_POOL_H
#define LIBREGION_POOL_H

#include "object.h"
#include "scopes.h"

/* Ends all regions that lie in pools: memory is short, or malloc_trim() was called. */
void pools_trim(void);

/* Guards all pools. */
struct lock *pool_lock(void);

#endif
