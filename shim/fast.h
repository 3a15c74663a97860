/*
 * fast.h: the bodies of malloc and free, to be inlined into whatever name they are exported under.
 *
 * Each holds the common case and hands over to its slow half by a tail call, so that neither needs a
 * stack frame.
 */
#ifndef LIBREGION_FAST_H
#define LIBREGION_FAST_H

#include "core/core.h"
#include "shim.h"

/*
 * The slow halves, in shim.c. They set errno. `caller` is the address that the program's call returns to.
 * The first one takes its own for that: who calls it does so last, by a jump.
 */
void *shim_malloc_slow(size_t size);
void *shim_malloc_slow_for(size_t size, uintptr_t caller);
void *shim_alloc_watched(size_t size, uintptr_t caller); /* NULL: the heap isn't watched, or out of memory */
void shim_free_slow(void *p);
void shim_free_sized_slow(void *p, size_t size);

/* Where the function that it stands in returns to. */
#define CALLER ((uintptr_t)__builtin_return_address(0))

static inline __attribute__((always_inline)) void *malloc_fast(size_t size)
{
	return heap_alloc_inline(heap_self(), size, shim_malloc_slow);
}

static inline __attribute__((always_inline)) void free_sized_fast(void *p, size_t size)
{
	if (__builtin_expect(!heap_free_sized_inline(heap_self(), p, size), 0))
		shim_free_sized_slow(p, size);
}

static inline __attribute__((always_inline)) void free_fast(void *p)
{
	if (__builtin_expect(!heap_free_inline(heap_self(), p), 0))
		shim_free_slow(p);
}

#endif
