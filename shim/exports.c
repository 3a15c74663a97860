/*
 * exports.c: libc's and C++'s names for what the other files do. The only file that defines them.
 *
 * The list of exported names is checked in beside it (exports.list) and compared with the built
 * library. The linker script that hides the rest has an anonymous version node: a named one would make
 * the loader ignore these definitions.
 */
#include <stdlib.h>

#include "cxx.h"
#include "fast.h"
#include "introspect.h"
#include "life.h"
#include "rlimit.h"

/* Hot ones lie together, whichever a program calls. */
#define EXPORT __attribute__((visibility("default"), used, hot))

/* From the start of a cache line, so that how fast they are doesn't hang on what stands before them. */
#define HOT __attribute__((aligned(64)))

/* The prototypes of what no header declares. */
#define EXPORTED(type, name, ...) EXPORT type name(__VA_ARGS__); EXPORT type name(__VA_ARGS__)

/* C. */

EXPORTED(HOT void *, malloc, size_t size) { return malloc_fast(size); }
EXPORTED(HOT void, free, void *p) { free_fast(p); }
EXPORTED(void *, calloc, size_t count, size_t size) { return shim_calloc(count, size); }
EXPORTED(void *, realloc, void *p, size_t size) { return shim_realloc(p, size); }
EXPORTED(void *, reallocarray, void *p, size_t count, size_t size)
{
	return shim_reallocarray(p, count, size);
}
EXPORTED(void *, aligned_alloc, size_t align, size_t size) { return shim_aligned_alloc(align, size); }
EXPORTED(void *, memalign, size_t align, size_t size) { return shim_memalign(align, size); }
EXPORTED(int, posix_memalign, void **out, size_t align, size_t size)
{
	return shim_posix_memalign(out, align, size);
}
EXPORTED(void *, valloc, size_t size) { return shim_valloc(size); }
EXPORTED(void *, pvalloc, size_t size) { return shim_pvalloc(size); }
EXPORTED(size_t, malloc_usable_size, void *p) { return shim_usable_size(p); }
EXPORTED(HOT void, free_sized, void *p, size_t size) { free_sized_fast(p, size); }
EXPORTED(void, free_aligned_sized, void *p, size_t align, size_t size)
{
	shim_free_aligned_sized(p, align, size);
}
EXPORTED(void, cfree, void *p) { free_fast(p); }

/* glibc's own names, which some programs call. */

EXPORTED(void *, __libc_malloc, size_t size) { return malloc_fast(size); }
EXPORTED(void, __libc_free, void *p) { free_fast(p); }
EXPORTED(void, __libc_cfree, void *p) { free_fast(p); }
EXPORTED(void *, __libc_calloc, size_t count, size_t size) { return shim_calloc(count, size); }
EXPORTED(void *, __libc_realloc, void *p, size_t size) { return shim_realloc(p, size); }
EXPORTED(void *, __libc_memalign, size_t align, size_t size) { return shim_memalign(align, size); }
EXPORTED(void *, __libc_valloc, size_t size) { return shim_valloc(size); }
EXPORTED(void *, __libc_pvalloc, size_t size) { return shim_pvalloc(size); }
EXPORTED(int, __posix_memalign, void **out, size_t align, size_t size)
{
	return shim_posix_memalign(out, align, size);
}

/* Introspection. */

static int to_int(size_t n)
{
	return n > __INT_MAX__ ? __INT_MAX__ : (int)n;
}

EXPORTED(int, malloc_trim, size_t pad) { return shim_trim(pad); }
EXPORTED(struct mallinfo2, mallinfo2, void) { return introspect_mallinfo2(); }
EXPORTED(void, malloc_stats, void) { introspect_stats(); }
EXPORTED(int, malloc_info, int options, FILE *stream) { return introspect_info(options, stream); }

EXPORTED(int, mallopt, int parameter, int value) { return introspect_mallopt(parameter, value); }

EXPORTED(struct mallinfo, mallinfo, void)
{
	struct mallinfo2 wide = introspect_mallinfo2();

	return (struct mallinfo){
		.arena = to_int(wide.arena),
		.ordblks = to_int(wide.ordblks),
		.hblks = to_int(wide.hblks),
		.hblkhd = to_int(wide.hblkhd),
		.uordblks = to_int(wide.uordblks),
		.fordblks = to_int(wide.fordblks),
		.keepcost = to_int(wide.keepcost),
	};
}

/* C++: new and new[] are one function, and so is every kind of delete. They jump to their slow halves. */

static __attribute__((noinline)) void *new_slow(size_t size)
{
	void *p = shim_alloc_watched(size, CALLER);

	return p ? p : cxx_new_slow(size, GRANULE_BYTES, true);
}

static __attribute__((noinline)) void *new_nothrow_slow(size_t size)
{
	void *p = shim_alloc_watched(size, CALLER);

	return p ? p : cxx_new_slow(size, GRANULE_BYTES, false);
}

#define NEW(name) \
	EXPORTED(void *, name, size_t size) \
	{ \
		return heap_alloc_inline(heap_self(), size, new_slow); \
	}
#define NEW_NOTHROW(name) \
	EXPORTED(void *, name, size_t size, const void *tag) \
	{ \
		return (void)tag, heap_alloc_inline(heap_self(), size, new_nothrow_slow); \
	}
#define NEW_ALIGNED(name) \
	EXPORTED(void *, name, size_t size, size_t align) { return cxx_new_slow(size, align, true); }
#define NEW_ALIGNED_NOTHROW(name) \
	EXPORTED(void *, name, size_t size, size_t align, const void *tag) \
	{ \
		return (void)tag, cxx_new_slow(size, align, false); \
	}
#define DELETE(name) EXPORTED(void, name, void *p) { free_fast(p); }
#define DELETE_1(name, type) EXPORTED(void, name, void *p, type a) { (void)a, free_fast(p); }
#define DELETE_SIZED(name) EXPORTED(void, name, void *p, size_t size) { free_sized_fast(p, size); }
#define DELETE_SIZED_ALIGNED(name) \
	EXPORTED(void, name, void *p, size_t size, size_t align) { (void)align, free_sized_fast(p, size); }
#define DELETE_2(name, type_a, type_b) \
	EXPORTED(void, name, void *p, type_a a, type_b b) { (void)a, (void)b, free_fast(p); }

NEW(_Znwm)
NEW(_Znam)
NEW_NOTHROW(_ZnwmRKSt9nothrow_t)
NEW_NOTHROW(_ZnamRKSt9nothrow_t)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)
NEW_ALIGNED_NOTHROW(_ZnwmSt11align_val_tRKSt9nothrow_t)
NEW_ALIGNED_NOTHROW(_ZnamSt11align_val_tRKSt9nothrow_t)
DELETE(_ZdlPv)
DELETE(_ZdaPv)
DELETE_SIZED(_ZdlPvm)
DELETE_SIZED(_ZdaPvm)
DELETE_1(_ZdlPvSt11align_val_t, size_t)
DELETE_1(_ZdaPvSt11align_val_t, size_t)
DELETE_SIZED_ALIGNED(_ZdlPvmSt11align_val_t)
DELETE_SIZED_ALIGNED(_ZdaPvmSt11align_val_t)
DELETE_1(_ZdlPvRKSt9nothrow_t, const void *)
DELETE_1(_ZdaPvRKSt9nothrow_t, const void *)
DELETE_2(_ZdlPvSt11align_val_tRKSt9nothrow_t, size_t, const void *)
DELETE_2(_ZdaPvSt11align_val_tRKSt9nothrow_t, size_t, const void *)

/* longjmp ends the scopes that it jumps out of, and goes on to libc's. */

#define LONGJMP(name, which) \
	EXPORTED(__attribute__((noreturn)) void, name, void *buffer, int value) \
	{ \
		life_before_longjmp(buffer); \
		life_next_longjmp(which)(buffer, value); \
		__builtin_unreachable(); \
	}

LONGJMP(longjmp, LIFE_LONGJMP)
LONGJMP(_longjmp, LIFE__LONGJMP)
LONGJMP(siglongjmp, LIFE_SIGLONGJMP)
LONGJMP(__longjmp_chk, LIFE_LONGJMP_CHK)

/* Limits of the process. */

EXPORTED(int, setrlimit, int resource, const void *limit) { return rlimit_set(0, resource, limit, NULL); }
EXPORTED(int, setrlimit64, int resource, const void *limit) { return rlimit_set(0, resource, limit, NULL); }
EXPORTED(int, prlimit, int process, int resource, const void *limit, void *old)
{
	return rlimit_set(process, resource, limit, old);
}
EXPORTED(int, prlimit64, int process, int resource, const void *limit, void *old)
{
	return rlimit_set(process, resource, limit, old);
}
