/*
 * bump.h: a hand-written bump allocator, the floor that the benchmarks measure against.
 *
 * The least that an allocator can do: round up, compare, move a cursor. Buffers are chained and
 * kept when the bump is rewound, so that only the first use of each is cold. Nothing can be
 * freed one by one, no block is known by its address, and what is bigger than a buffer is
 * refused with NULL.
 *
 * Programs that were compiled with it inline bump_take(); all others call bump_alloc() in
 * libbump.so, which is what any malloc behind LD_PRELOAD has to pay at least: a call through the
 * PLT, and initial-exec thread-local storage.
 */
#ifndef BUMP_H
#define BUMP_H

#include <stddef.h>

#define BUMP_API __attribute__((visibility("default")))
#define BUMP_GRANULE ((size_t)16)
#define BUMP_BUFFER ((size_t)64 << 10)

struct bump_buffer {
	struct bump_buffer *next;
	char padding[8]; /* what follows is aligned to a granule */
};

/* {0} is ready to use. */
struct bump {
	char *cursor;
	char *limit;
	struct bump_buffer *first;
	struct bump_buffer *current;
};

/* Serves from the next buffer. `rounded` is a multiple of the granule. */
BUMP_API void *bump_refill(struct bump *bump, size_t rounded);

/* Forgets all blocks; the buffers stay. */
BUMP_API void bump_rewind(struct bump *bump);

/* Forgets all blocks and gives the buffers back. */
BUMP_API void bump_drop(struct bump *bump);

static inline void *bump_take(struct bump *bump, size_t size)
{
	size_t rounded = (size + BUMP_GRANULE - 1) & ~(BUMP_GRANULE - 1);
	char *block = bump->cursor;

	if (__builtin_expect(rounded > (size_t)(bump->limit - block), 0))
		return bump_refill(bump, rounded);
	bump->cursor = block + rounded;
	return block;
}

/* The same with a bump of the library's own for each thread. bump_free() only counts. */
BUMP_API void *bump_alloc(size_t size);
BUMP_API void bump_free(void *block);
BUMP_API void bump_reset(void);
BUMP_API void bump_end_thread(void);

#endif
