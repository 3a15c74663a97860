/*
 * blocks.c: what malloc, calloc, realloc and free promise. Each rule is C23's, POSIX's, or the glibc
 * manual's where they leave a choice, since programs on Linux are written against glibc.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Around every border an allocator may have: classes, pages, slices, the sizes of spans of their own. */
static const size_t border_sizes[] = {
	0,     1,     7,      8,      15,     16,     17,     31,      33,      63,      64,
	65,    127,   128,    129,    255,    257,    511,    1000,    1024,    1025,    2048,
	4000,  4096,  4097,   8191,   8192,   8193,   16384,  16385,   20000,   32768,   32769,
	65520, 65536, 65537,  100000, 131072, 131073, 200000, 262144,  262145,  524288,  524289,
	1 << 20, (1 << 20) + 1, 3 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 17 << 20,
};

static void each_border(void (*rule)(size_t))
{
	for (size_t i = 0; i < COUNT_OF(border_sizes); i++)
		rule(border_sizes[i]);
}

/* --- malloc --- */

static void malloc_zero_is_unique_and_freeable(void)
{
	void *blocks[100];
	for (int i = 0; i < 100; i++) {
		blocks[i] = malloc(0);
		CHECK(blocks[i], "malloc(0) is a pointer that can be freed");
		for (int k = 0; k < i; k++)
			CHECK(blocks[i] != blocks[k], "malloc(0) is unique: %p", blocks[i]);
	}
	for (int i = 0; i < 100; i++)
		free(blocks[i]);
}

static void aligned_and_whole(size_t size)
{
	void *blocks[4];
	for (unsigned i = 0; i < 4; i++)
		blocks[i] = probe_block(size, i);
	for (unsigned i = 0; i < 4; i++)
		probe_unblock(blocks[i], size, i);
}

static void malloc_aligns_every_size_to_16(void)
{
	for (size_t size = 0; size <= 4096; size++)
		aligned_and_whole(size);
	each_border(aligned_and_whole);
}

static void live_blocks_never_overlap(void)
{
	enum { SLOTS = 512, STEPS = 100000 };
	static void *blocks[SLOTS];
	static size_t sizes[SLOTS];
	unsigned state = 12345;
	for (long step = 0; step < probe_count(STEPS); step++) {
		unsigned i = probe_random(&state) % SLOTS;
		if (blocks[i])
			probe_unblock(blocks[i], sizes[i], i);
		sizes[i] = probe_random(&state) % (step % 100 ? 700 : 70000);
		blocks[i] = probe_block(sizes[i], i);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (blocks[i])
			probe_unblock(blocks[i], sizes[i], i);
}

static const size_t too_large[] = {
	(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 2, SIZE_MAX / 2 + 4096, SIZE_MAX - 70000,
	SIZE_MAX - 4096,         SIZE_MAX - 64,           SIZE_MAX - 16,       SIZE_MAX - 15,
	SIZE_MAX - 8,            SIZE_MAX - 1,            SIZE_MAX,
};

static void fails_with_enomem(const void *p, const char *call, size_t size)
{
	CHECK(!p, "%s(%#zx) can't be served", call, size);
	CHECK(errno == ENOMEM, "%s(%#zx) sets ENOMEM, not %d", call, size, errno);
	errno = 0;
}

static void malloc_too_large_fails_with_enomem(void)
{
	errno = 0;
	for (size_t i = 0; i < COUNT_OF(too_large); i++)
		fails_with_enomem(malloc(too_large[i]), "malloc", too_large[i]);
	for (size_t less = 0; less < 4096; less++)
		fails_with_enomem(malloc(probe_opaque_size(SIZE_MAX - less)), "malloc", SIZE_MAX - less);
	probe_heap_is_sound();
}

/* Within PTRDIFF_MAX, but no machine has it. */
static void malloc_beyond_the_machine_fails_with_enomem(void)
{
	errno = 0;
	for (int bits = 48; bits <= 62; bits++)
		fails_with_enomem(malloc((size_t)1 << bits), "malloc", (size_t)1 << bits);
	fails_with_enomem(malloc(PTRDIFF_MAX), "malloc", PTRDIFF_MAX);
	fails_with_enomem(calloc(PTRDIFF_MAX, 1), "calloc", PTRDIFF_MAX);
	probe_heap_is_sound();
}

/* --- free --- */

static void free_null_does_nothing(void)
{
	errno = 4711;
	free(NULL);
	CHECK(errno == 4711, "free(NULL) keeps errno");
}

static void free_keeps_errno_of(size_t size)
{
	void *blocks[20];
	for (int i = 0; i < 20; i++)
		CHECK(blocks[i] = malloc(size), "malloc(%zu) serves", size);
	for (int i = 0; i < 20; i++) {
		errno = 4711;
		free(blocks[i]);
		CHECK(errno == 4711, "free of %zu bytes keeps errno, now %d", size, errno);
	}
}

static void free_keeps_errno(void)
{
	each_border(free_keeps_errno_of);
}

static void *free_there(void *p)
{
	errno = 4711;
	free(p);
	CHECK(errno == 4711, "free of another thread's block keeps errno");
	return NULL;
}

static void free_in_another_thread_keeps_errno(void)
{
	for (size_t i = 0; i < COUNT_OF(border_sizes); i++) {
		pthread_t thread;
		void *p = probe_block(border_sizes[i], 1);
		CHECK(pthread_create(&thread, NULL, free_there, p) == 0, "a thread starts");
		pthread_join(thread, NULL);
	}
}

/* --- calloc --- */

static void dirty(size_t size)
{
	enum { COUNT = 8 };
	void *blocks[COUNT];
	for (int i = 0; i < COUNT; i++) {
		blocks[i] = malloc(size);
		CHECK(blocks[i], "malloc(%zu) serves", size);
		memset(blocks[i], 0xee, malloc_usable_size(blocks[i]));
	}
	for (int i = 0; i < COUNT; i++)
		free(blocks[i]);
}

static void zeroed_after_reuse(size_t size)
{
	void *blocks[8];
	dirty(size);
	for (int i = 0; i < 8; i++) {
		blocks[i] = calloc(1, size);
		CHECK(blocks[i], "calloc(1, %zu) serves", size);
		CHECK((uintptr_t)blocks[i] % 16 == 0, "calloc(1, %zu) aligns to 16", size);
		CHECK(probe_is_zero(blocks[i], size), "calloc(1, %zu) is zero after reuse", size);
	}
	for (int i = 0; i < 8; i++)
		free(blocks[i]);
}

static void calloc_is_zero_after_reuse(void)
{
	for (size_t size = 1; size <= 1100; size++)
		zeroed_after_reuse(size);
	each_border(zeroed_after_reuse);
}

/* Memory that had another size before. */
static void calloc_is_zero_whatever_was_there(void)
{
	for (size_t i = 0; i < COUNT_OF(border_sizes); i++)
		for (size_t k = 0; k < COUNT_OF(border_sizes); k++) {
			void *p;
			if (border_sizes[i] > 600000 || border_sizes[k] > 600000)
				continue;
			dirty(border_sizes[i]);
			p = calloc(border_sizes[k], 1);
			CHECK(probe_is_zero(p, border_sizes[k]), "calloc(%zu) is zero after blocks of %zu",
			      border_sizes[k], border_sizes[i]);
			free(p);
		}
}

static void calloc_zero_is_unique_and_freeable(void)
{
	void *a = calloc(0, 8), *b = calloc(8, 0), *c = calloc(0, 0), *d;
	d = calloc(probe_opaque_size(SIZE_MAX), 0);
	CHECK(a && b && c && d, "calloc of nothing is a pointer that can be freed");
	CHECK(a != b && a != c && a != d && b != c && b != d && c != d, "calloc of nothing is unique");
	free(a);
	free(b);
	free(c);
	free(d);
}

static const size_t overflowing[][2] = {
	{SIZE_MAX, 2},           {2, SIZE_MAX},          {SIZE_MAX, SIZE_MAX},
	{SIZE_MAX / 2 + 1, 2},   {SIZE_MAX / 4 + 1, 4},  {(size_t)1 << 32, (size_t)1 << 32},
	{((size_t)1 << 32) + 1, ((size_t)1 << 32) - 1},  {SIZE_MAX / 16 + 1, 16},
	{SIZE_MAX / 3 + 1, 3},   {SIZE_MAX / 2, 2},      {(size_t)PTRDIFF_MAX + 1, 1},
	{1, (size_t)PTRDIFF_MAX + 1}, {SIZE_MAX - 15, 1}, {SIZE_MAX / 8, 8},
};

static void calloc_overflow_fails_with_enomem(void)
{
	errno = 0;
	for (size_t i = 0; i < COUNT_OF(overflowing); i++)
		fails_with_enomem(calloc(overflowing[i][0], overflowing[i][1]), "calloc",
		                  overflowing[i][0]);
	probe_heap_is_sound();
}

/* --- realloc --- */

static void realloc_of_null_allocates(void)
{
	for (size_t size = 0; size <= 70000; size = size * 3 + 1) {
		void *p = realloc(NULL, size);
		CHECK(p && (uintptr_t)p % 16 == 0, "realloc(NULL, %zu) is malloc", size);
		probe_fill(p, size, 3);
		probe_unblock(p, size, 3);
	}
}

/* As glibc: it frees, and returns NULL. 2 GB pass through here, were they not freed. */
static void realloc_to_zero_frees(void)
{
	size_t before = probe_resident();
	for (int i = 0; i < 40000; i++) {
		void *p = probe_opaque(malloc(50000));
		memset(p, 1, 50000);
		errno = 4711;
		CHECK(realloc(p, 0) == NULL, "realloc(p, 0) returns NULL as glibc's does");
		CHECK(errno == 4711, "realloc(p, 0) keeps errno");
	}
	CHECK(probe_resident() < before + (32 << 20), "realloc(p, 0) frees");
}

static void *resized(void *p, size_t from, size_t to, unsigned seed)
{
	size_t kept = from < to ? from : to;
	void *q = realloc(p, to);
	CHECK(q, "realloc from %zu to %zu serves", from, to);
	CHECK((uintptr_t)q % 16 == 0, "realloc from %zu to %zu aligns to 16: %p", from, to, q);
	probe_verify(q, kept, seed, "realloc keeps the contents");
	probe_fill(q, to, seed);
	return q;
}

static void realloc_keeps_contents_growing_by_one(void)
{
	void *p = probe_block(1, 7);
	for (size_t size = 1; size < 4200; size++)
		p = resized(p, size, size + 1, 7);
	probe_unblock(p, 4200, 7);
}

static void realloc_keeps_contents_shrinking_by_one(void)
{
	void *p = probe_block(4200, 8);
	for (size_t size = 4200; size > 1; size--)
		p = resized(p, size, size - 1, 8);
	probe_unblock(p, 1, 8);
}

static void realloc_keeps_contents_between_all_borders(void)
{
	for (size_t i = 1; i < COUNT_OF(border_sizes); i++)
		for (size_t k = 1; k < COUNT_OF(border_sizes); k++) {
			void *p, *neighbour;
			if (border_sizes[i] + border_sizes[k] > 700000)
				continue;
			p = probe_block(border_sizes[i], 9);
			neighbour = probe_block(border_sizes[i], 10);
			p = resized(p, border_sizes[i], border_sizes[k], 9);
			probe_unblock(neighbour, border_sizes[i], 10);
			probe_unblock(p, border_sizes[k], 9);
		}
}

/* Grows through every way of growing there is, and back. Only marks: 256 MB needn't be resident. */
static void realloc_keeps_contents_up_to_256_mb_and_back(void)
{
	size_t size = 8;
	char *p = malloc(size);
	memcpy(p, "region!", 8);
	while (size < (256 << 20)) {
		size += size / 3 + 1;
		p = realloc(p, size);
		CHECK(p && memcmp(p, "region!", 8) == 0, "realloc to %zu keeps the contents", size);
		p[size - 1] = 'e';
	}
	for (; size > 8; size = size * 2 / 3 + 1) {
		p = realloc(p, size);
		CHECK(p && memcmp(p, "region!", 7) == 0, "realloc to %zu keeps the contents", size);
		if (size <= 10)
			break;
	}
	free(p);
}

static void realloc_too_large_keeps_the_block(void)
{
	for (size_t i = 1; i < COUNT_OF(border_sizes); i++) {
		void *p = probe_block(border_sizes[i], 11);
		errno = 0;
		for (size_t k = 0; k < COUNT_OF(too_large); k++)
			fails_with_enomem(realloc(p, too_large[k]), "realloc", too_large[k]);
		fails_with_enomem(realloc(p, (size_t)1 << 50), "realloc", (size_t)1 << 50);
		probe_unblock(p, border_sizes[i], 11);
	}
}

static void reallocarray_multiplies(void)
{
	void *p = reallocarray(NULL, 10, 100);
	CHECK(p && malloc_usable_size(p) >= 1000, "reallocarray(NULL, 10, 100) has room for 1000");
	probe_fill(p, 1000, 12);
	p = reallocarray(p, 1000, 100);
	CHECK(p && malloc_usable_size(p) >= 100000, "reallocarray(p, 1000, 100) has room for 100000");
	probe_unblock(p, 1000, 12);
}

static void reallocarray_overflow_keeps_the_block(void)
{
	void *p = probe_block(1000, 13);
	errno = 0;
	for (size_t i = 0; i < COUNT_OF(overflowing); i++)
		fails_with_enomem(reallocarray(probe_opaque(p), overflowing[i][0], overflowing[i][1]),
		                  "reallocarray", overflowing[i][0]);
	fails_with_enomem(reallocarray(NULL, probe_opaque_size(SIZE_MAX), 2),
	                  "reallocarray", SIZE_MAX);
	probe_unblock(p, 1000, 13);
}

/* --- usable size --- */

static void usable_to_the_end(size_t size)
{
	enum { COUNT = 20 };
	void *blocks[COUNT];
	size_t usable[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		blocks[i] = malloc(size);
		usable[i] = malloc_usable_size(blocks[i]);
		CHECK(usable[i] >= size, "the usable size of %zu is no less: %zu", size, usable[i]);
		probe_fill(blocks[i], usable[i], i);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		CHECK(malloc_usable_size(blocks[i]) == usable[i], "a usable size doesn't change");
		probe_unblock(blocks[i], usable[i], i);
	}
}

static void usable_size_covers_the_request_and_is_writable(void)
{
	for (size_t size = 0; size < 2100; size++)
		usable_to_the_end(size);
	for (size_t i = 0; i < COUNT_OF(border_sizes); i++)
		if (border_sizes[i] < 600000)
			usable_to_the_end(border_sizes[i]);
}

static void usable_size_of_null_is_zero(void)
{
	CHECK(malloc_usable_size(NULL) == 0, "malloc_usable_size(NULL) is 0");
}

/* realloc must carry all of what malloc_usable_size has promised. */
static void realloc_keeps_all_of_the_usable_size(void)
{
	for (size_t size = 1; size < 300000; size += size / 7 + 1) {
		void *p = malloc(size);
		size_t usable = malloc_usable_size(p);
		probe_fill(p, usable, 14);
		p = realloc(p, usable * 3);
		probe_verify(p, usable, 14, "realloc keeps all of the usable size");
		free(p);
	}
}

/* --- C23 --- */

static void free_sized_takes_blocks_back(void)
{
	void (*free_sized)(void *, size_t) =
		(void (*)(void *, size_t))(uintptr_t)dlsym(RTLD_DEFAULT, "free_sized");
	CHECK(free_sized, "free_sized is exported");
	for (size_t size = 0; size < 200000; size = size * 2 + 1)
		free_sized(probe_block(size, 1), size);
	errno = 4711;
	free_sized(NULL, 100);
	CHECK(errno == 4711, "free_sized keeps errno");
	probe_heap_is_sound();
}

static void free_aligned_sized_takes_blocks_back(void)
{
	void (*free_aligned_sized)(void *, size_t, size_t) =
		(void (*)(void *, size_t, size_t))(uintptr_t)dlsym(RTLD_DEFAULT, "free_aligned_sized");
	CHECK(free_aligned_sized, "free_aligned_sized is exported");
	for (size_t align = 16; align <= 65536; align *= 2)
		free_aligned_sized(aligned_alloc(align, align * 3), align, align * 3);
	free_aligned_sized(NULL, 64, 64);
	probe_heap_is_sound();
}

/* --- libc's own callers --- */

/* What libc allocates for the program, the program frees, by the same malloc. */
static void blocks_that_libc_allocates_can_be_freed(void)
{
	char *text = strdup("a string"), *line = NULL, *stream_text = NULL, *path;
	size_t line_size = 0, stream_size = 0;
	FILE *stream = open_memstream(&stream_text, &stream_size);
	FILE *input = fmemopen((char *)"one line\n", 9, "r");
	CHECK(stream && input, "stdio opens streams in memory");
	for (int i = 0; i < 10000; i++)
		fprintf(stream, "%d,", i);
	fclose(stream);
	CHECK(strlen(stream_text) == stream_size, "open_memstream's text is whole");
	CHECK(getline(&line, &line_size, input) == 9 && line_size >= 10, "getline reads the line");
	CHECK(malloc_usable_size(line) >= line_size, "getline's line is our block");
	fclose(input);
	path = realpath("/", NULL);
	CHECK(path && strcmp(path, "/") == 0, "realpath resolves /");
	free(path);
	free(line);
	free(stream_text);
	free(text);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(malloc_zero_is_unique_and_freeable),
	CASE(malloc_aligns_every_size_to_16),
	CASE(live_blocks_never_overlap),
	CASE(malloc_too_large_fails_with_enomem),
	CASE(malloc_beyond_the_machine_fails_with_enomem),
	CASE(free_null_does_nothing),
	CASE(free_keeps_errno),
	CASE(free_in_another_thread_keeps_errno),
	CASE(calloc_is_zero_after_reuse),
	CASE(calloc_is_zero_whatever_was_there),
	CASE(calloc_zero_is_unique_and_freeable),
	CASE(calloc_overflow_fails_with_enomem),
	CASE(realloc_of_null_allocates),
	CASE(realloc_to_zero_frees),
	CASE(realloc_keeps_contents_growing_by_one),
	CASE(realloc_keeps_contents_shrinking_by_one),
	CASE(realloc_keeps_contents_between_all_borders),
	CASE(realloc_keeps_contents_up_to_256_mb_and_back),
	CASE(realloc_too_large_keeps_the_block),
	CASE(reallocarray_multiplies),
	CASE(reallocarray_overflow_keeps_the_block),
	CASE(usable_size_covers_the_request_and_is_writable),
	CASE(usable_size_of_null_is_zero),
	CASE(realloc_keeps_all_of_the_usable_size),
	CASE(free_sized_takes_blocks_back),
	CASE(free_aligned_sized_takes_blocks_back),
	CASE(blocks_that_libc_allocates_can_be_freed),
	{0},
};
