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
#include <string.h>

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

static_assert(GRANULE_LONG_BYTES == sizeof(uint32_t) && GRANULE_LONG_BITS == 5, "the size bytes are a word");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the lowest bits come first");

/* The size bytes of a long block, and back. */
static inline uint32_t granule_size_word(size_t granules)
{
	uint32_t n = (uint32_t)granules;

	/* In each byte GRANULE_FREED and GRANULE_FADED, too: no scan takes it for a head. */
	return 0xc0c0c0c0u | (n & 0x1f) | (n & 0x1f << 5) << 3 | (n & 0x1f << 10) << 6 | (n & 0x1f << 15) << 9;
}

static inline size_t granule_of_size_word(uint32_t word)
{
	return (word & 0x1f) | (word >> 3 & 0x1f << 5) | (word >> 6 & 0x1f << 10) | (word >> 9 & 0x1f << 15);
}

static inline void granule_set_long(unsigned char *head, size_t granules)
{
	uint32_t word = granule_size_word(granules);

	assert(granules > GRANULE_SHORT_MAX && granules <= GRANULE_MAX);
	memcpy(head + 1, &word, sizeof(word));
	__atomic_store_n(head, (unsigned char)GRANULE_LONG, __ATOMIC_RELAXED);
}

static inline void granule_set(unsigned char *head, size_t granules)
{
	if (granules <= GRANULE_SHORT_MAX)
		granule_set_short(head, granules);
	else
		granule_set_long(head, granules);
}

/* Granules of the block at `head`, live or freed. */
static inline size_t granule_long_size(const unsigned char *head)
{
	uint32_t word;

	memcpy(&word, head + 1, sizeof(word));
	return granule_of_size_word(word);
}

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

/*
 * Passes over short blocks that live and have faded, and over what is zero: up to `end`, or not far before
 * whatever else there is. Where it stops may be inside of a short block, of which nothing follows.
 */
unsigned char *granule_skip_settled(const unsigned char *from, const unsigned char *end);

/* Less room than that isn't looked for. */
#define GRANULE_ROOM_LEAST 32u

/*
 * Where no live block is for `wanted` granules, GRANULE_ROOM_LEAST or more, at `from` or behind a live block;
 * if that is nowhere in [from, end), where the last of them ends, which may be behind `end`. No block lies
 * across `from`.
 */
unsigned char *granule_next_room(const unsigned char *from, const unsigned char *end, size_t wanted);

struct granule_room {
	size_t live;               /* blocks */
	size_t granules;           /* in gaps of GRANULE_ROOM_LEAST and more before them */
	const unsigned char *last; /* where the last block ends, or `from` */
};

/* What granule_next_room() would find in [from, end), but for what comes behind the last block. */
struct granule_room granule_survey(const unsigned char *from, const unsigned char *end);

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
