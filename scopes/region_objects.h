/*
 * region_objects.h: regions as objects. Included by region.h, where the words are.
 *
 *     region_t *r = region_create(&(struct region_options){.name = "session"});
 *     struct node *n = region_alloc(r, sizeof(*n));      // a few instructions, inlined
 *     region_within(r, parse, text);                     // what malloc() gives in here is r's, too
 *     region_destroy(r);                                 // all of it is gone
 *
 * Threads: a region, and an array or a text in it, is used by one thread at a time, whichever; the program
 * sees to that. Shared regions, pools and slabs may be used by any threads at once, except that their end
 * (destroy, release) must not race with other uses. Like malloc(), nothing of this may be called from a
 * signal handler that has interrupted a call of the same.
 *
 * Blocks of region_alloc() and its kind aren't freed one by one: free() of one is reported as a misuse.
 * Blocks that malloc() gave inside region_within() are blocks like any other, and may be freed.
 *
 * Misuse (a region that has ended, a block of another region, a second release, a count below zero) is
 * one line on stderr and abort(); with LIBREGION_ON_ERROR=report the call does nothing, returns NULL, 0
 * or -1 with errno EINVAL, and the program runs on (region_within() calls its function all the same, with
 * what was current). A region that has ended is recognised until its
 * record is used again, which is when many others (64) have ended after it.
 *
 * Functions that return a pointer return NULL with errno ENOMEM only when the system is out of memory
 * (or the size is beyond PTRDIFF_MAX). Sizes are in bytes; 0 is taken as 1. Blocks are aligned to 16.
 *
 * What is offered is that of go-arena, nuke, memoryArena, go-slab and Go's arenas (#51317), in C's way.
 */
#ifndef REGION_OBJECTS_H
#define REGION_OBJECTS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define REGION_HAS_SINGLE_THREADED_ 1
#endif
#endif

#include "region.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The inlined half of a region, its first words. Version 2 of the layout: a block is taken if the sum of
 * cursor and its size, rounded up to 16, is at most limit; the cursor is moved there. It may be moved back to
 * where the newest block begins, if high is made no less than it was. All else is the library's: limit may be
 * set to NULL at any time, by any thread. A library that doesn't know the program's version leaves both NULL,
 * and every allocation is a call. (Version 1 had no high.)
 */
#define REGION_CURSOR_VERSION 2u

struct region_cursor {
	char *cursor; /* where the next block begins: a multiple of 16 */
	char *limit;  /* where the free extent ends */
	uint64_t id;  /* of the region since it was last reset; no two are the same. 0: it has ended */
	char *high;   /* how far the cursor has been, if further than it is; for region_peak() */
};

/*
 * A region, set up by *given (NULL: all defaults), which isn't used after the call returns. Its fade
 * policy, REGION_FADE_NONE by default, says what becomes of blocks that malloc() gave inside
 * region_within() when the region is reset or ends; what region_keep() marked stays in any case. Buffers
 * have up to 16 MiB; larger blocks have one of their own.
 */
REGION_API region_t *region_create_for(unsigned cursor_version, const struct region_options *given);

static inline region_t *region_create(const struct region_options *given)
{
	return region_create_for(REGION_CURSOR_VERSION, given);
}

/*
 * So far ahead of the cursor region_alloc() asks for the line that will be written. Stores leave the core in
 * order, so a line that isn't there holds up all behind it: without this, blocks of 40 bytes that are written
 * to take twice the time from 40 KB on.
 */
#define REGION_AHEAD_BYTES_ 192

/* The part of region_alloc() that isn't inlined. */
REGION_API __attribute__((malloc, alloc_size(2), cold)) void *
region_alloc_slow(region_t *region, size_t size);

/* A block of `size` bytes. What is in it is undefined. */
static inline __attribute__((malloc, alloc_size(2))) void *region_alloc(region_t *region, size_t size)
{
	struct region_cursor *at = (struct region_cursor *)region;
	char *block = at->cursor;
	uintptr_t end = (uintptr_t)block + ((size + 15) & ~(size_t)15);

	/* Above 8 MiB the sum might be beyond the end of the address space; 0 - 1 is, too. */
	if (__builtin_expect(size - 1 >= (size_t)8 << 20, 0) ||
	    __builtin_expect(end > (uintptr_t)__atomic_load_n(&at->limit, __ATOMIC_RELAXED), 0))
		return region_alloc_slow(region, size);
	__atomic_store_n(&at->cursor, (char *)end, __ATOMIC_RELAXED);
	/* Beyond the end of the buffer it does nothing: a prefetch doesn't fault. */
	__builtin_prefetch((char *)end + REGION_AHEAD_BYTES_, 1);
	return block;
}

/* Zeroed: an array of `count` times `size` bytes. */
REGION_API __attribute__((malloc, alloc_size(2, 3))) void *
region_calloc(region_t *region, size_t count, size_t size);

/* Aligned to `align`, a power of two of any size; else NULL with errno EINVAL. */
REGION_API __attribute__((malloc, alloc_size(3))) void *
region_memalign(region_t *region, size_t align, size_t size);

/*
 * Makes the block at p, allocated from this region with `old_size` bytes, `size` bytes long: where it is,
 * if it is the newest or gets smaller, else as a copy. What is cut off the newest block, all of it if
 * `size` is 0 (then NULL is returned), serves the next one. NULL for p is region_alloc(). After a failure
 * the block is as it was. (The growing string of Go's runtime.free is this.)
 */
REGION_API void *region_realloc(region_t *region, void *p, size_t old_size, size_t size);

/* Copies: of a string, of at most n bytes of one (a 0 is added), of n bytes; and printf() into a string. */
REGION_API char *region_strdup(region_t *region, const char *text);
REGION_API char *region_strndup(region_t *region, const char *text, size_t n);
REGION_API void *region_memdup(region_t *region, const void *p, size_t n);
REGION_API __attribute__((format(printf, 2, 3))) char *
region_printf(region_t *region, const char *format, ...);
REGION_API __attribute__((format(printf, 2, 0))) char *
region_vprintf(region_t *region, const char *format, va_list args);

/*
 * Calls fn(arg) with the region as the thread's current one: malloc() and its kin take from it, whoever
 * calls them, as in a scope. Ends as scopes do, by return, exception or longjmp, but the blocks stay until
 * the region is reset or ends. realloc() of such a block outside of region_within() makes it one of the
 * general heap. Where the region is current further out already, a child of it serves the inner call. On
 * a stack that isn't the thread's own it is fn(arg).
 */
REGION_API void region_within(region_t *region, void (*fn)(void *), void *arg);

/*
 * Ends every block of the region, after the calls of region_on_end() and after destroying its children.
 * Buffers are kept for the next ones, up to keep_bytes. Not inside region_within() of the region or of a
 * descendant. (go-arena's and nuke's Reset.)
 *
 * Of a shared region it costs the same whatever the threads have allocated: each takes notice with its next
 * allocation, until when nobody else gets its buffer; what is open in region_within() is ended when it is
 * next entered. (Generations as in memoryArena.)
 */
REGION_API void region_reset(region_t *region);

/* As reset, but gives all buffers back. Only region_destroy() may follow: all else is a misuse. */
REGION_API void region_release(region_t *region);

/* Ends the region and its handle. NULL is allowed. Not inside region_within() either. */
REGION_API void region_destroy(region_t *region);

/*
 * Bytes of blocks (rounded up to 16; freed ones of region_within() still count); bytes of the buffers it
 * holds; the largest region_len() since it was created or reset. Of a shared region what other threads
 * are doing may be missing.
 */
REGION_API size_t region_len(const region_t *region);
REGION_API size_t region_cap(const region_t *region);
REGION_API size_t region_peak(const region_t *region);

/*
 * A checkpoint. Rewinding to it ends all blocks that came after it, as a reset would, after the calls of
 * region_on_end() that came after it. That mark and those that came later are used up then, and all are with
 * a reset: to rewind to one again is a misuse. Not for shared regions, and not while the region is open in
 * region_within(). Serial 0: errno is ENOMEM, or EINVAL for a misuse. (obstacks free to a block; here it is
 * a mark, so that it can be checked.)
 */
typedef struct {
	uint64_t serial;
} region_mark_t;

REGION_API region_mark_t region_mark(region_t *region);
REGION_API void region_rewind(region_t *region, region_mark_t mark);

/*
 * Calls fn(arg) when the region is next reset, or ends, or is rewound to a mark that came before; last in
 * first out. The call may use the region in every way, but not reset or end it. 0 or -1.
 */
REGION_API int region_on_end(region_t *region, void (*fn)(void *), void *arg);

/* 1 if p points into memory of the region (blocks over the byte limit aren't), else 0. Any p will do. */
REGION_API int region_contains(const region_t *region, const void *p);

/* A copy of `size` bytes on the general heap, whichever region is current: it outlives all of them. */
REGION_API __attribute__((malloc, alloc_size(2))) void *region_copy_out_bytes(const void *p, size_t size);

/*
 * The calling thread's part of a shared region: region_alloc() from it is inlined, where from the shared one
 * it is a call. It may be kept as long as the thread and the region live, and notices resets. Everything but
 * allocation goes to the shared region. Of a region that isn't shared it is the region. NULL: out of memory.
 */
REGION_API region_t *region_local(region_t *region);

/*
 * Pools: regions that are used again, with a first buffer as large as their key's have needed lately: a
 * percentile of their peaks, older ones counting less and less, so that one outlier changes nothing.
 * What lies in the pool unused for idle_ms is given back when the pool is used next, and all of it when
 * memory runs out or on malloc_trim(). (go-arena's pool; what weak pointers are there, trimming is here.)
 */
struct region_pool_options {
	const char *name;             /* of the regions, too, if theirs is NULL */
	struct region_options region; /* buffer_size is the least */
	unsigned percentile;          /* 1 to 100; default 90 */
	unsigned idle_ms;             /* default 10000 */
	size_t idle_bytes;            /* most bytes of buffers that lie in the pool; default 64 MiB */
};

struct region_pool_stats {
	uint64_t acquired, released; /* calls */
	uint64_t created;            /* regions made because none lay ready */
	uint64_t trimmed;            /* regions ended because they lay too long, or too many did */
	size_t idle, idle_bytes;     /* regions in the pool now, and their buffers */
};

typedef struct region_pool region_pool_t;

REGION_API region_pool_t *region_pool_create(const struct region_pool_options *given);

/* An empty region, the caller's until it releases it. Keys are the program's: kinds of requests, say. */
REGION_API region_t *region_pool_acquire(region_pool_t *pool, uint64_t key);

/* Resets a region of this pool and takes it back. Releasing it twice, or to another pool, is a misuse. */
REGION_API void region_pool_release(region_pool_t *pool, region_t *region);

/* The bytes that a region of that key is made for now; 0: nothing is known of it. */
REGION_API size_t region_pool_expected(region_pool_t *pool, uint64_t key);

/* Ends all regions that lie in the pool. Bytes of buffers given back. */
REGION_API size_t region_pool_trim(region_pool_t *pool);
REGION_API void region_pool_stats_read(region_pool_t *pool, struct region_pool_stats *stats);

/* Ends the pool and its regions. A region that hasn't been released is a misuse, and stays. */
REGION_API void region_pool_destroy(region_pool_t *pool);

/*
 * An array in a region that grows where it is if it is the newest block (go-arena's SliceAppend). Its
 * members may be read. It ends with a reset, or with rewinding to a mark that came before it last grew: init
 * it again before further use.
 */
struct region_array {
	region_t *region;
	void *items;
	size_t count, capacity; /* items */
	size_t item_size;
	uint64_t id;            /* the region's, when it was initialised */
};

static inline uint64_t region_id_(const region_t *region)
{
	return __atomic_load_n(&((const struct region_cursor *)region)->id, __ATOMIC_RELAXED);
}

static inline void region_array_init(struct region_array *array, region_t *region, size_t item_size)
{
	memset(array, 0, sizeof(*array));
	array->region = region;
	array->item_size = item_size + !item_size;
	array->id = region_id_(region);
}

/* Room for `capacity` items in all. 0 or -1. */
REGION_API int region_array_reserve(struct region_array *array, size_t capacity);

/* Adds n items (undefined ones if `items` is NULL). The first of them, or NULL and nothing has changed. */
REGION_API void *region_array_append(struct region_array *array, const void *items, size_t n);

static inline void *region_array_push(struct region_array *array, const void *item)
{
	if (array->count < array->capacity && item && region_id_(array->region) == array->id)
		return memcpy((char *)array->items + array->count++ * array->item_size, item, array->item_size);
	return region_array_append(array, item, 1);
}

/* Takes the last item off. Its address, valid until the next is added; NULL: there is none. */
static inline void *region_array_pop(struct region_array *array)
{
	return array->count ? (char *)array->items + --array->count * array->item_size : NULL;
}

static inline void *region_array_at(const struct region_array *array, size_t i)
{
	return (char *)array->items + i * array->item_size;
}

/* Makes it empty; its memory serves the next block if it is the newest, else after the next reset. */
static inline void region_array_free(struct region_array *array)
{
	if (array->capacity && region_id_(array->region) == array->id)
		region_realloc(array->region, array->items, array->capacity * array->item_size, 0);
	region_array_init(array, array->region, array->item_size);
}

/* A buffer of bytes in a region that grows likewise, with a place to read from (go-arena's ArenaBuffer). */
struct region_text {
	region_t *region;
	char *data;
	size_t length, capacity;
	size_t read_at; /* what region_text_read() gives next */
	uint64_t id;    /* the region's, when it was initialised */
};

/* It begins where the next block will. */
static inline void region_text_init(struct region_text *text, region_t *region)
{
	text->region = region;
	text->data = ((struct region_cursor *)region)->cursor;
	text->length = text->capacity = text->read_at = 0;
	text->id = region_id_(region);
}

/*
 * Makes room for n bytes more, and some to spare, with the newest block's bump; 0: there is none. (Steps of
 * one size were slower: when the next one is due can't be predicted.)
 */
static inline int region_text_grow_(struct region_text *text, size_t n)
{
	struct region_cursor *at = (struct region_cursor *)text->region;
	size_t least = text->length + n, capacity = (least + least / 4 + 79) & ~(size_t)15;
	if (n - 1 >= (size_t)8 << 20 || text->data + text->capacity != at->cursor ||
	    (uintptr_t)text->data + capacity > (uintptr_t)__atomic_load_n(&at->limit, __ATOMIC_RELAXED))
		return 0;
	__atomic_store_n(&at->cursor, text->data + capacity, __ATOMIC_RELAXED);
	text->capacity = capacity;
	return 1;
}

/* Both add at the end. 0, or -1 and nothing has changed. The first is inlined as far as memory is at hand. */
REGION_API int region_text_write_slow(struct region_text *text, const void *data, size_t n);

static inline int region_text_write(struct region_text *text, const void *data, size_t n)
{
	if (region_id_(text->region) != text->id ||
	    (n - 1 >= text->capacity - text->length && !region_text_grow_(text, n))) {
		/* A copy, so that a text whose address isn't given away elsewhere can be kept in registers. */
		struct region_text copy = *text;
		int result = region_text_write_slow(&copy, data, n);
		text->data = copy.data;
		text->length = copy.length;
		text->capacity = copy.capacity;
		return result;
	}
	memcpy(text->data + text->length, data, n);
	text->length += n;
	__builtin_prefetch(text->data + text->length + REGION_AHEAD_BYTES_, 1);
	return 0;
}

REGION_API __attribute__((format(printf, 2, 3))) int
region_text_printf(struct region_text *text, const char *format, ...);

/* Up to n bytes that haven't been read yet; how many. */
REGION_API size_t region_text_read(struct region_text *text, void *data, size_t n);

/* All of it with a 0 behind, valid until something is added. NULL: out of memory. */
REGION_API const char *region_text_string(struct region_text *text);

/* Makes it no longer than `length`. */
REGION_API void region_text_cut(struct region_text *text, size_t length);

/* Makes it empty, as region_array_free() does an array. */
static inline void region_text_free(struct region_text *text)
{
	struct region_cursor *at = (struct region_cursor *)text->region;
	char *end = text->data + text->capacity;

	if (text->capacity && region_id_(text->region) == text->id) {
		if (end == at->cursor && end > at->high)
			__atomic_store_n(&at->high, end, __ATOMIC_RELAXED);
		if (end == at->cursor)
			__atomic_store_n(&at->cursor, text->data, __ATOMIC_RELAXED);
		else
			region_realloc(text->region, text->data, text->capacity, 0);
	}
	region_text_init(text, text->region);
}

/*
 * A stream over it, as fopen() has modes: "r" reads on, "w" and "a" write at the end ("w" empties it first),
 * "+" does both. fclose() it; the text stays. NULL with errno.
 */
REGION_API FILE *region_text_open(struct region_text *text, const char *mode);

/*
 * Slabs: blocks with a count of references, from slabs cut into blocks of one size each (go-slab). Sizes go
 * from block_size up, each `growth` times the last, to slab_size; larger blocks have a slab of their own.
 * A slab without blocks in use is given back, but for one a size and a few more. Any thread may call anything
 * at any time but destroy. Functions that take a block take any pointer into it.
 *
 * backing: where slabs come from. alloc() may return NULL; its memory is aligned to 16. NULL: the heap range,
 * where slabs have 64 KiB at least, though blocks above slab_size have their own all the same.
 */
struct region_slab_backing {
	void *(*alloc)(size_t bytes, void *arg);
	void (*free)(void *p, size_t bytes, void *arg);
	void *arg;
};

typedef struct region_slabs region_slabs_t;

__extension__ typedef unsigned __int128 region_wide_;

/*
 * The inlined half of slabs, the first words of a region_slabs_t. Version 1 of the layout: the slab that an
 * address lies in, if it was met lately, is near[address >> shift, modulo their number]; else that is
 * another slab, or one without blocks. The number of the block in it is the upper half of the product of
 * its distance from memory and reciprocal. Only while the process has one thread: with more, each call
 * takes a lock. A library that doesn't know the program's version leaves `near` as it is at first, and
 * everything is a call.
 */
#define REGION_SLABS_VERSION 1u
#define REGION_SLABS_NEAR_ 64

struct region_counted_ {
	uint32_t refs;      /* 0: free */
	uint32_t next_free; /* its number plus 1; 0: none */
	void *next;         /* of its chain */
};

struct region_slab_ {
	char *memory;
	size_t used_bytes;  /* of blocks that are or were in use */
	uint64_t reciprocal;
	struct region_counted_ *blocks;
	uint32_t first_free; /* number plus 1; 0: none */
	uint32_t in_use;
	int is_open;         /* its class knows that it has free blocks */
};

struct region_slabs_ {
	uint64_t add_refs, dec_refs, ends; /* statistics; ends: references that were the last */
	unsigned shift;
	struct region_slab_ *near[REGION_SLABS_NEAR_];
};

/*
 * Of the block at p, and its slab; NULL: the call has to find it. (Nothing is read before it is known that
 * there is one thread: another might just be giving the slab back.)
 */
static inline struct region_counted_ *
region_counted_at_(const region_slabs_t *slabs, const void *p, struct region_slab_ **slab)
{
#ifdef REGION_HAS_SINGLE_THREADED_
	if (__builtin_expect(__libc_single_threaded, 1)) {
		const struct region_slabs_ *head = (const struct region_slabs_ *)slabs;
		*slab = head->near[((uintptr_t)p >> head->shift) % REGION_SLABS_NEAR_];
		size_t offset = (size_t)((uintptr_t)p - (uintptr_t)(*slab)->memory);
		if (__builtin_expect(offset < (*slab)->used_bytes, 1))
			return &(*slab)->blocks[(size_t)((region_wide_)offset * (*slab)->reciprocal >> 64)];
	}
#else
	(void)slabs, (void)p, (void)slab;
#endif
	return NULL;
}

/* 0 takes the default: blocks from 64 bytes, slabs of 1 MiB, growth 1.25. NULL, errno EINVAL or ENOMEM. */
REGION_API region_slabs_t *region_slab_create_for(unsigned version, size_t block_size, size_t slab_size,
                                                  double growth, const struct region_slab_backing *backing);

static inline region_slabs_t *region_slab_create(size_t block_size, size_t slab_size, double growth,
                                                 const struct region_slab_backing *backing)
{
	return region_slab_create_for(REGION_SLABS_VERSION, block_size, slab_size, growth, backing);
}

/* Gives all slabs back, whatever is in use. */
REGION_API void region_slab_destroy(region_slabs_t *slabs);

/* A block with one reference. */
REGION_API void *region_slab_alloc(region_slabs_t *slabs, size_t size);

/* One reference more; four thousand million are too many, and a misuse. */
REGION_API void region_slab_add_ref_slow(region_slabs_t *slabs, void *block);

static inline void region_slab_add_ref(region_slabs_t *slabs, void *block)
{
	struct region_slab_ *slab;
	struct region_counted_ *counted = region_counted_at_(slabs, block, &slab);

	if (__builtin_expect(!counted || counted->refs - 1 >= UINT32_MAX - 1, 0)) {
		region_slab_add_ref_slow(slabs, block);
		return;
	}
	counted->refs++;
	((struct region_slabs_ *)slabs)->add_refs++;
}

/* One reference less; with the last the block ends, and what it is chained to loses one. 1 if it has. */
REGION_API int region_slab_dec_ref_slow(region_slabs_t *slabs, void *block);

/* The last one of a block without a chain, in an open slab with others in use: it is free then. */
static inline int region_slab_end_(region_slabs_t *slabs, struct region_slab_ *slab,
                                   struct region_counted_ *counted)
{
	counted->refs = 0;
	counted->next_free = slab->first_free;
	slab->first_free = (uint32_t)(counted - slab->blocks) + 1;
	slab->in_use--;
	((struct region_slabs_ *)slabs)->dec_refs++;
	((struct region_slabs_ *)slabs)->ends++;
	return 1;
}

static inline int region_slab_dec_ref(region_slabs_t *slabs, void *block)
{
	struct region_slab_ *slab = NULL;
	struct region_counted_ *counted = region_counted_at_(slabs, block, &slab);

	if (counted && counted->refs > 1) {
		counted->refs--;
		((struct region_slabs_ *)slabs)->dec_refs++;
		return 0;
	}
	if (counted && counted->refs == 1 && !counted->next && slab->in_use > 1 && slab->is_open)
		return region_slab_end_(slabs, slab, counted);
	return region_slab_dec_ref_slow(slabs, block);
}

/* 1 if p points into a block in use, else 0. Any p will do. Bytes of the block at p. References to it. */
REGION_API int region_slab_owns(region_slabs_t *slabs, const void *p);
REGION_API size_t region_slab_size(region_slabs_t *slabs, const void *block);
REGION_API unsigned region_slab_refs(region_slabs_t *slabs, const void *block);

/* Chains: a block has a reference to the one behind it (NULL: none). get_next gives its caller one, too. */
REGION_API void region_slab_set_next(region_slabs_t *slabs, void *block, void *next);
REGION_API void *region_slab_get_next(region_slabs_t *slabs, void *block);

/*
 * A pointer into a block as numbers that can be stored outside of memory. ptr_of() of one whose slab has
 * been given back is NULL; it doesn't add a reference. All zero is no location, and NULL's.
 */
struct region_slab_loc {
	uint32_t slab, serial, block, offset;
};

REGION_API struct region_slab_loc region_slab_loc_of(region_slabs_t *slabs, const void *p);
REGION_API void *region_slab_ptr_of(region_slabs_t *slabs, struct region_slab_loc loc);

/* X(member, help): go-slab's statistics; the last five are as of now. */
#define REGION_SLAB_STATS_MAP(X) \
	X(allocs, "calls of alloc") \
	X(add_refs, "calls of add_ref, and what set_next and get_next added") \
	X(dec_refs, "calls of dec_ref, and what chains took off") \
	X(dec_ref_zeroes, "references that were the last") \
	X(get_nexts, "calls of get_next") \
	X(set_nexts, "calls of set_next") \
	X(slab_allocs, "slabs taken from the backing") \
	X(slab_alloc_errors, "slabs that the backing hadn't") \
	X(slab_frees, "slabs given back") \
	X(too_big, "blocks larger than slab_size") \
	X(pushed_free, "blocks put on a free list") \
	X(popped_free, "blocks taken from a free list") \
	X(classes, "block sizes in use") \
	X(slabs, "slabs") \
	X(slab_bytes, "bytes of slabs") \
	X(blocks, "blocks in slabs") \
	X(blocks_in_use, "blocks in use")

struct region_slab_stats {
#define REGION_SLAB_STATS_MEMBER(member, help) uint64_t member;
	REGION_SLAB_STATS_MAP(REGION_SLAB_STATS_MEMBER)
#undef REGION_SLAB_STATS_MEMBER
};

REGION_API void region_slab_stats_read(region_slabs_t *slabs, struct region_slab_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
