/*
 * aligned.c: memalign, aligned_alloc, posix_memalign, valloc and pvalloc. What counts as an invalid
 * alignment differs between them: POSIX is strict with posix_memalign, C23 and newer glibc are with
 * aligned_alloc, and glibc's memalign rounds up what isn't a power of two.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static bool is_aligned(const void *p, size_t align)
{
	return ((uintptr_t)p & (align - 1)) == 0;
}

/* Checks one aligned block, and takes it back. */
static void good(void *p, size_t align, size_t size, const char *call)
{
	CHECK(p, "%s of %zu aligned to %zu serves", call, size, align);
	CHECK(is_aligned(p, align), "%s aligns %zu bytes to %zu: %p", call, size, align, p);
	CHECK(malloc_usable_size(p) >= size, "%s of %zu aligned to %zu has room for it", call, size,
	      align);
	probe_fill(p, size, 1);
	probe_unblock(p, size, 1);
}

static void *by_posix_memalign(size_t align, size_t size)
{
	void *p = NULL;
	errno = 4711;
	CHECK(posix_memalign(&p, align, size) == 0, "posix_memalign(%zu, %zu) serves", align, size);
	CHECK(errno == 4711, "posix_memalign keeps errno");
	return p;
}

static void all_three(size_t align, size_t size)
{
	good(memalign(align, size), align, size, "memalign");
	good(aligned_alloc(align, size), align, size, "aligned_alloc");
	if (align >= sizeof(void *))
		good(by_posix_memalign(align, size), align, size, "posix_memalign");
}

static void every_power_of_two_is_an_alignment(void)
{
	static const size_t sizes[] = {0, 1, 8, 16, 100, 1000, 4096, 10000, 40000, 100000, 1000000};
	for (size_t align = 1; align <= (4 << 20); align *= 2)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			all_three(align, sizes[i]);
}

static void sizes_around_the_alignment_are_served(void)
{
	for (size_t align = 16; align <= (1 << 20); align *= 2) {
		all_three(align, align - 1);
		all_three(align, align);
		all_three(align, align + 1);
		all_three(align, align * 2);
	}
}

/* A GiB of address space is nothing to a heap range of its own: no page is touched. */
static void huge_alignments_are_served_or_fail_with_enomem(void)
{
	for (size_t align = (size_t)8 << 20; align <= (size_t)1 << 46; align *= 2) {
		void *p;
		errno = 0;
		p = memalign(align, 100);
		CHECK(p || errno == ENOMEM, "a refused alignment of %#zx is ENOMEM", align);
		CHECK(is_aligned(p, align), "an alignment of %#zx is kept: %p", align, p);
		CHECK(p || align > ((size_t)1 << 30), "an alignment of %#zx is served", align);
		free(p);
	}
	probe_heap_is_sound();
}

static void aligned_blocks_live_side_by_side(void)
{
	enum { COUNT = 400 };
	static void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		size_t align = (size_t)16 << (i % 12);
		blocks[i] = memalign(align, i * 5);
		CHECK(blocks[i] && is_aligned(blocks[i], align), "memalign(%zu) aligns", align);
		probe_fill(blocks[i], i * 5, i);
	}
	for (unsigned i = 0; i < COUNT; i++)
		probe_unblock(blocks[i], i * 5, i);
}

static void zero_bytes_are_unique_and_freeable(void)
{
	void *a = memalign(64, 0), *b = aligned_alloc(64, 0), *c = by_posix_memalign(64, 0);
	CHECK(a && b && c && a != b && b != c && a != c, "aligned blocks of 0 bytes are unique");
	free(a);
	free(b);
	free(c);
}

static void posix_memalign_rejects_bad_alignments(void)
{
	static const size_t bad[] = {0, 1, 2, 3, 4, 7, 9, 12, 24, 48, 100, 4095, SIZE_MAX, SIZE_MAX / 2};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int error;
		void *p = &error;
		errno = 4711;
		error = posix_memalign(&p, probe_opaque_size(bad[i]), 64);
		CHECK(error == EINVAL, "posix_memalign(%zu) is EINVAL, not %d", bad[i], error);
		CHECK(p == &error, "posix_memalign leaves the pointer alone when it fails");
		CHECK(errno == 4711, "posix_memalign keeps errno");
	}
}

static void aligned_alloc_rejects_bad_alignments(void)
{
	static const size_t bad[] = {0, 3, 5, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX / 2};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		errno = 0;
		CHECK(!aligned_alloc(probe_opaque_size(bad[i]), 64), "aligned_alloc(%zu) fails", bad[i]);
		CHECK(errno == EINVAL, "aligned_alloc(%zu) is EINVAL, not %d", bad[i], errno);
	}
}

/* Either way of reading memalign's contract is right; a block aligned to less than asked is not. */
static void memalign_rounds_bad_alignments_up_or_rejects_them(void)
{
	static const size_t bad[] = {3, 5, 24, 48, 100, 1000, 4095, 4097, 70000};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t rounded = 1;
		void *p;
		while (rounded < bad[i])
			rounded *= 2;
		errno = 0;
		p = memalign(probe_opaque_size(bad[i]), 64);
		CHECK(p || errno == EINVAL, "a refused memalign(%zu) is EINVAL, not %d", bad[i], errno);
		CHECK(is_aligned(p, rounded), "memalign(%zu) aligns to %zu: %p", bad[i], rounded, p);
		free(p);
	}
	errno = 0;
	CHECK(!memalign(probe_opaque_size(SIZE_MAX), 64), "memalign(SIZE_MAX) fails");
	CHECK(errno == EINVAL, "memalign(SIZE_MAX) is EINVAL, not %d", errno);
}

static void memalign_zero_is_any_alignment(void)
{
	good(memalign(probe_opaque_size(0), 100), 16, 100, "memalign(0, 100)");
}

static void is_enomem(const void *p, const char *call, size_t size)
{
	CHECK(!p, "%s(%#zx) fails", call, size);
	CHECK(errno == ENOMEM, "%s(%#zx) is ENOMEM, not %d", call, size, errno);
	errno = 0;
}

static void too_large_fails_with_enomem(void)
{
	size_t page = page_size();
	errno = 0;
	for (size_t less = 0; less < 3 * page; less += 13)
		for (size_t align = 16; align <= (1 << 20); align *= 16) {
			void *p = &page;
			size_t size = probe_opaque_size(SIZE_MAX - less);
			is_enomem(memalign(align, size), "memalign", size);
			is_enomem(aligned_alloc(align, size), "aligned_alloc", size);
			CHECK(posix_memalign(&p, align, size) == ENOMEM, "posix_memalign(%#zx)", size);
			CHECK(p == &page, "posix_memalign leaves the pointer alone when it fails");
		}
	is_enomem(memalign(64, probe_opaque_size((size_t)PTRDIFF_MAX + 1)), "memalign", PTRDIFF_MAX);
	is_enomem(memalign(probe_opaque_size((size_t)1 << 62), (size_t)1 << 62), "memalign",
	          (size_t)1 << 62);
	probe_heap_is_sound();
}

static void valloc_and_pvalloc_align_to_pages(void)
{
	size_t page = page_size();
	for (size_t size = 0; size < 300000; size = size * 2 + 1) {
		void *p = pvalloc(size);
		good(valloc(size), page, size, "valloc");
		CHECK(p && malloc_usable_size(p) >= (size + page - 1) / page * page,
		      "pvalloc(%zu) rounds up to pages", size);
		good(p, page, size, "pvalloc");
	}
}

static void valloc_and_pvalloc_too_large_fail_with_enomem(void)
{
	errno = 0;
	for (size_t less = 0; less < 3 * page_size(); less++) {
		size_t size = probe_opaque_size(SIZE_MAX - less);
		is_enomem(valloc(size), "valloc", size);
		is_enomem(pvalloc(size), "pvalloc", size);
	}
	is_enomem(pvalloc(probe_opaque_size(SIZE_MAX / 2 + 1)), "pvalloc", SIZE_MAX / 2 + 1);
}

static void realloc_of_an_aligned_block_keeps_contents(void)
{
	for (size_t align = 32; align <= 65536; align *= 2)
		for (size_t size = 10; size < 200000; size *= 5) {
			char *p = memalign(align, size);
			probe_fill(p, size, 2);
			p = realloc(p, size * 3);
			probe_verify(p, size, 2, "realloc of an aligned block keeps the contents");
			p = realloc(p, size / 2);
			probe_unblock(p, size / 2, 2);
		}
}

static void *free_there(void *p)
{
	free(p);
	return NULL;
}

static void aligned_blocks_are_freed_by_other_threads(void)
{
	for (size_t align = 32; align <= (1 << 20); align *= 2) {
		pthread_t thread;
		void *p = memalign(align, 100);
		memset(p, 1, 100);
		CHECK(pthread_create(&thread, NULL, free_there, p) == 0, "a thread starts");
		pthread_join(thread, NULL);
	}
	probe_heap_is_sound();
}

/* The room that alignment cost comes back with the block: 300 MB pass through 32. */
static void aligned_blocks_give_all_of_their_memory_back(void)
{
	size_t before = probe_resident();
	for (int i = 0; i < 30000; i++) {
		size_t align = (size_t)32 << (i % 13);
		char *p = memalign(align, align / 2 + 1);
		memset(p, 1, align / 2 + 1);
		free(p);
	}
	CHECK(probe_resident() < before + (32 << 20), "aligned blocks give their memory back: %zu MB",
	      (probe_resident() - before) >> 20);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(every_power_of_two_is_an_alignment),
	CASE(sizes_around_the_alignment_are_served),
	CASE(huge_alignments_are_served_or_fail_with_enomem),
	CASE(aligned_blocks_live_side_by_side),
	CASE(zero_bytes_are_unique_and_freeable),
	CASE(posix_memalign_rejects_bad_alignments),
	CASE(aligned_alloc_rejects_bad_alignments),
	CASE(memalign_rounds_bad_alignments_up_or_rejects_them),
	CASE(memalign_zero_is_any_alignment),
	CASE(too_large_fails_with_enomem),
	CASE(valloc_and_pvalloc_align_to_pages),
	CASE(valloc_and_pvalloc_too_large_fail_with_enomem),
	CASE(realloc_of_an_aligned_block_keeps_contents),
	CASE(aligned_blocks_are_freed_by_other_threads),
	CASE(aligned_blocks_give_all_of_their_memory_back),
	{0},
};
