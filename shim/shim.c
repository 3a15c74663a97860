/*
 * shim.c: the logic behind libc's allocation functions: argument rules, errno, and which way to take.
 */
#include "shim.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "fast.h"
#include "scopes/scopes.h"

static __attribute__((cold, noinline)) void *out_of_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

static void *alloc_slow(size_t size, size_t align)
{
	void *p = scopes_start() ? scopes_alloc(size, align) : NULL;

	return __builtin_expect(p != NULL, 1) ? p : out_of_memory();
}

static inline void *alloc_watched(size_t size, uintptr_t caller)
{
	void *p = scopes_alloc_watched(size, caller);

	return __builtin_expect(p != NULL, 1) ? p : out_of_memory();
}

/* Where allocations are sampled, and this one isn't due to be. */
static __attribute__((noinline)) void *alloc_skipped(struct heap *heap, size_t size)
{
	void *p;

	if (size - 1 < HEAP_DIRECT_MAX)
		p = slab_pop(heap->direct[(size - 1) >> GRANULE_SHIFT]);
	else
		p = size <= CLASS_MAX_BYTES ? heap_alloc_class(heap, size) : big_take_spare(heap, size);
	if (p)
		heap_count_skipped(heap, size);
	return p;
}

/* From the class's first slab, or the next best, where no scope is open. NULL: not served. */
static inline void *alloc_of_class(struct heap *heap, unsigned class)
{
	void *p = heap_alloc_of_class(heap, class);

	return p || class >= CLASS_COUNT ? p : scopes_alloc_outside(heap, class);
}

static inline __attribute__((always_inline)) void *malloc_slow(size_t size, uintptr_t caller)
{
	struct heap *heap = heap_self();
	void *p = NULL;

	if (heap->inline_granules == HEAP_DIRECT_GRANULES)
		p = size - 1 < CLASS_MAX_BYTES ? alloc_of_class(heap, class_of(size)) : big_take_spare(heap, size);
	else if (heap_is_watched(heap))
		return alloc_watched(size, caller);
	else if (heap_may_skip(heap, size))
		p = alloc_skipped(heap, size);
	else if (harden_is_on() && heap->bump_granules == 0 && heap->state == HEAP_LIVE)
		p = heap_alloc(size); /* past scopes, of which none is open */
	return p ? p : alloc_slow(size, GRANULE_BYTES);
}

__attribute__((noinline)) void *shim_malloc_slow(size_t size)
{
	return malloc_slow(size, CALLER);
}

__attribute__((noinline)) void *shim_malloc_slow_for(size_t size, uintptr_t caller)
{
	return malloc_slow(size, caller);
}

/* For who calls it in the middle of something. */
static inline __attribute__((always_inline)) void *malloc_slow_here(size_t size)
{
	return shim_malloc_slow_for(size, CALLER);
}

static inline __attribute__((always_inline)) void *malloc_here(size_t size)
{
	return heap_alloc_inline(heap_self(), size, malloc_slow_here);
}

__attribute__((noinline)) void *shim_alloc_watched(size_t size, uintptr_t caller)
{
	return heap_is_watched(heap_self()) ? scopes_alloc_watched(size, caller) : NULL;
}

__attribute__((noinline)) void shim_free_slow(void *p)
{
	struct heap *heap = heap_self();

	if (!(heap_is_watched(heap) ? heap_free_watched(heap, p) : heap_free_long(heap, p, 0)))
		heap_free(p, "free");
}

__attribute__((noinline)) void shim_free_sized_slow(void *p, size_t size)
{
	heap_free_sized(p, size, "sized free");
}

void *shim_malloc(size_t size)
{
	return malloc_fast(size);
}

void shim_free(void *p)
{
	free_fast(p);
}

/* Of shorter blocks it isn't asked whether they are clear: clearing them takes no longer. */
#define ASK_MIN_BYTES ((size_t)1 << 10)

/* What reads as zero isn't written to, so that only what the program needs gets pages. */
static __attribute__((noinline)) void *calloc_long(size_t bytes, uintptr_t caller)
{
	heap_forget_fresh(heap_self());
	void *p = heap_is_watched(heap_self()) ? shim_malloc_slow_for(bytes, caller) : malloc_fast(bytes);

	if (!p)
		return NULL;
	if (heap_is_fresh(heap_self(), p))
		memset(p, 0, GRANULE_BYTES);
	else if (bytes <= CLASS_MAX_BYTES || span_kind(span_of(p)) != SPAN_BIG)
		memset(p, 0, bytes);
	else
		big_clear(span_of(p), bytes);
	return p;
}

void *shim_calloc(size_t count, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(count, size, &total))
		return out_of_memory();
	if (total > ASK_MIN_BYTES)
		return calloc_long(total, CALLER);
	void *p = malloc_here(total);
	return __builtin_expect(p != NULL, 1) ? memset(p, 0, total) : NULL;
}

void *shim_realloc(void *p, size_t size)
{
	if (!p)
		return malloc_fast(size);
	if (size == 0) {
		free_fast(p);
		return NULL;
	}
	void *q = scopes_realloc(p, size, CALLER);
	return q ? q : out_of_memory();
}

void *shim_reallocarray(void *p, size_t count, size_t size)
{
	size_t total;

	return __builtin_mul_overflow(count, size, &total) ? out_of_memory() : shim_realloc(p, total);
}

void shim_free_sized(void *p, size_t size)
{
	free_sized_fast(p, size);
}

void shim_free_aligned_sized(void *p, size_t align, size_t size)
{
	(void)align;
	free_sized_fast(p, size);
}

/* Alignment. */

static bool is_power_of_two(size_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/* From the class's slabs. NULL: not served, and errno is as it was. */
static inline void *alloc_aligned_fast(size_t align, size_t size)
{
	struct heap *heap = heap_self();

	if (heap->inline_granules != HEAP_DIRECT_GRANULES || size == 0)
		return NULL;
	return alloc_of_class(heap, class_of_aligned(align, size));
}

static __attribute__((noinline)) void *alloc_aligned_slow(size_t align, size_t size)
{
	return align <= GRANULE_BYTES ? malloc_fast(size) : alloc_slow(size, align);
}

static void *alloc_aligned(size_t align, size_t size)
{
	void *p = alloc_aligned_fast(align, size);

	return __builtin_expect(p != NULL, 1) ? p : alloc_aligned_slow(align, size);
}

void *shim_aligned_alloc(size_t align, size_t size)
{
	if (!is_power_of_two(align)) {
		errno = EINVAL;
		return NULL;
	}
	return alloc_aligned(align, size);
}

void *shim_memalign(size_t align, size_t size)
{
	/* As glibc: any alignment will do, and is rounded up to a power of two. */
	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	if (!is_power_of_two(align))
		align = align <= 1 ? 1 : (size_t)1 << (64 - __builtin_clzl(align - 1));
	return alloc_aligned(align, size);
}

static __attribute__((noinline)) int posix_memalign_slow(void **out, size_t align, size_t size)
{
	int saved_errno = errno;
	void *p = alloc_aligned_slow(align, size);

	/* As in glibc, whose callers look, errno says so as well. */
	if (!p)
		return ENOMEM;
	errno = saved_errno;
	*out = p;
	return 0;
}

int shim_posix_memalign(void **out, size_t align, size_t size)
{
	if (!is_power_of_two(align) || align % sizeof(void *) != 0)
		return EINVAL;
	void *p = alloc_aligned_fast(align, size);
	if (__builtin_expect(!p, 0))
		return posix_memalign_slow(out, align, size);
	*out = p;
	return 0;
}

void *shim_valloc(size_t size)
{
	return alloc_aligned(OS_PAGE, size);
}

void *shim_pvalloc(size_t size)
{
	size_t rounded = (size + OS_PAGE - 1) & ~(OS_PAGE - 1);

	return rounded < size ? out_of_memory() : alloc_aligned(OS_PAGE, rounded);
}

size_t shim_usable_size(const void *p)
{
	return scopes_usable_size(p, "malloc_usable_size");
}

int shim_trim(size_t pad_bytes)
{
	size_t before = os_resident_bytes();

	(void)pad_bytes;
	scopes_trim(heap_self());
	scopes_search(heap_self());
	heap_trim();
	buffer_sweep_retired();
	span_pool_decay(true);
	return os_resident_bytes() < before;
}
