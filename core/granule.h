/*
 * granule.h: what a byte of the granule map says, and scans over the map.
 *
 * The byte of a block's first granule:
 *
 *     bit 7      freed
 *     bit 6      faded: the block outlives its scope, or has done so
 *     bits 0-5   granules of the block, 1 to 62; or 63: the size is in the next four bytes, which
 *                belong to the block, five bits each, lowest first, with bits 7 and 6 set
 *
 * All other bytes are zero. So, as signed numbers: a byte that is positive is the head of a live block,
 * one whose double is positive is the head of a block that hasn't faded, a size byte (0xc0 to 0xdf) is
 * neither, and a freed head of a long block (0xbf or 0xff) can't be taken for a size byte.
 *
 * Bytes are written by the thread that owns the buffer, except that any thread may set bit 7 of a live
 * block: a plain store from the one thread that frees it. Setting bit 6 of a block that another thread
 * might free takes a compare-and-swap, since a lost bit 7 would be a leak.
 */
#ifndef LIBREGION_GRANULE_H
#define LIBREGION_GRANULE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRANULE_FREED 0x80u
#define GRANULE_FADED 0x40u
#define GRANULE_SIZE_MASK 0x3fu
#define GRANULE_LONG 63u     /* the size is in the next bytes */
#define GRANULE_SHORT_MAX 62u
#define GRANULE_LONG_BYTES 4u
#define GRANULE_LONG_BITS 5u
#define GRANULE_MAX (((size_t)1 << (GRANULE_LONG_BYTES * GRANULE_LONG_BITS)) - 1)

static_assert(GRANULE_SHORT_MAX > GRANULE_LONG_BYTES, "a long block has room for its size bytes");

static inline unsigned granule_load(const unsigned char *head)
{
	return __atomic_load_n(head, __ATOMIC_ACQUIRE);
}

static inline bool granule_is_live(unsigned byte)
{
	return (int8_t)byte > 0;
}

/* Marks a block of `granules` at `head`: 1 to GRANULE_SHORT_MAX; more, to GRANULE_MAX; either. The bytes
 * under it are zero. */
static inline void granule_set_short(unsigned char *head, size_t granules)
{
	__atomic_store_n(head, (unsigned char)granules, __ATOMIC_RELAXED);
}

void granule_set_long(unsigned char *head, size_t granules);
void granule_set(unsigned char *head, size_t granules);

/* Granules of the block at `head`, live or freed. */
size_t granule_long_size(const unsigned char *head);

static inline size_t granule_size(const unsigned char *head)
{
	size_t size = granule_load(head) & GRANULE_SIZE_MASK;

	return size < GRANULE_LONG ? size : granule_long_size(head);
}

/* Changes the size of the live block at `head`, keeping its bit 6. */
void granule_resize(unsigned char *head, size_t granules);

/* Forgets the block at `head`. */
void granule_clear(unsigned char *head);

/* Sets bits of the head of a live block; returns what it was before, without the bits if another
 * thread freed it first. */
unsigned granule_mark(unsigned char *head, unsigned bits);

/* The head of the block that the granule of `byte` belongs to, at or after `first`; NULL: none. */
const unsigned char *granule_find_head(const unsigned char *byte, const unsigned char *first);

/* The first head of a live block in [from, end), or end. */
unsigned char *granule_next_live(const unsigned char *from, const unsigned char *end);

/* Forgets everything in [from, end), if there is anything between them. */
void granule_zero(unsigned char *from, const unsigned char *end);

/* Is there the head of a freed block in the first vector (32 bytes) at `from`, or as many as there are? */
bool granule_any_freed(const unsigned char *from, size_t bytes);

struct granule_counts {
	size_t blocks; /* heads, live or freed, that haven't faded */
	bool any_live; /* some head is of a live block, faded or not */
};

/* Counts the blocks in [from, end). */
struct granule_counts granule_count(const unsigned char *from, const unsigned char *end);

struct granule_live {
	size_t blocks, granules; /* of live blocks that haven't faded */
	size_t freed_blocks;     /* heads of freed blocks that hadn't */
	bool any_faded;          /* there are live ones that have */
};

/* Adds up the blocks in [from, end). */
struct granule_live granule_add_live(const unsigned char *from, const unsigned char *end);

/* Is there a live block that has faded? */
bool granule_any_faded(const unsigned char *from, const unsigned char *end);

#endif
