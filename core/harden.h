/*
 * harden.h: LIBREGION_HARDEN: what makes more misuse of the general heap show, for a price.
 *
 *     level 1   a *fence* behind each block: bytes that are put there when the block is handed out and
 *               looked at when it is freed or reallocated. The usable size is the size that was asked for,
 *               and a sized free has to tell just that
 *     level 2   what was freed reads as zero, and so does what is handed out; a freed block stays in its
 *               thread's *quarantine* until so many others were freed, and must still read as zero then,
 *               and when it is handed out again. Blocks of a slab are handed out in random order, and a free
 *               looks at both neighbours, too. Behind a big block there is no access (a *guard*), and while
 *               it is in quarantine there is none to it
 *
 * The fence of a slab's block: up to FENCE_FILL_BYTES bytes right behind what was asked for, and the block's
 * last word, which says how many bytes there are behind the size. Both are derived from the block's address
 * and a secret of the process. A big block's size is in its descriptor, and its fence lies in its last
 * page, if there is room.
 *
 * A block in quarantine counts as handed out for its slab. Its last word says that it was freed, everything
 * before that is zero. On level 2 the last word of a free block is 0, so that word alone tells what a block
 * is; it is stored at once, and after what goes with it, since any thread may free the block beside it. A
 * quarantine has room for QUARANTINE_COUNT blocks and QUARANTINE_BYTES; threads without a heap have none.
 *
 * Hardened heaps serve nothing inline: the queues' first slabs don't show in `direct`, `inline_granules` is
 * HARDEN_GRANULES outside of scopes, and the products of a slab (heap.h) never match, so that each free
 * takes the slow path. So nothing of this costs anything where it is off.
 *
 * Guards split the kernel's mappings, of which a process may have so many (vm.max_map_count). Guards may
 * take half of them; then big blocks go without, which is said once.
 */
#ifndef LIBREGION_HARDEN_H
#define LIBREGION_HARDEN_H

#include "heap.h"
#include "os.h"

#define HARDEN_MAX 2u
#define FENCE_WORD_BYTES sizeof(uint64_t)
#define FENCE_FILL_BYTES ((size_t)32)
/* On level 2 a block's last word isn't one that its slab needs while the block is free. */
#define FENCE_BLOCK_MIN (sizeof(struct free_block) + FENCE_WORD_BYTES)
#define QUARANTINE_COUNT 2048u
#define QUARANTINE_BYTES ((size_t)1 << 20)

/* Not 0, which means that a scope is open, and so little that only the first of `direct` is looked at. */
#define HARDEN_GRANULES ((size_t)1)

struct harden {
	unsigned level;      /* constant after start, as the next two */
	uint64_t secret;
	uint32_t guard_max;
	uint32_t guards;     /* spans with a guard, or in quarantine without access; atomic */
	bool has_said_so;    /* that there are too many */
};

extern struct harden harden __attribute__((visibility("hidden")));

/* Once, before there is any heap. */
void harden_start(unsigned level);

static inline bool harden_is_on(void)
{
	return __builtin_expect(harden.level > 0, 0);
}

/* Do blocks read as zero, and freed ones stay in quarantine? */
static inline bool harden_is_strict(void)
{
	return __builtin_expect(harden.level > 1, 0);
}

/* What slabs serve inline outside of scopes. */
static inline size_t harden_inline_granules(void)
{
	return harden_is_on() ? HARDEN_GRANULES : HEAP_DIRECT_GRANULES;
}

/* What a block of a slab must have that is asked for so many bytes, and one that is larger, beyond them. */
static inline size_t harden_slab_bytes(size_t bytes)
{
	size_t fenced = bytes + FENCE_WORD_BYTES;

	if (!harden_is_on())
		return bytes;
	return harden_is_strict() && fenced < FENCE_BLOCK_MIN ? FENCE_BLOCK_MIN : fenced;
}

static inline size_t harden_big_room(void)
{
	return harden_is_strict() ? OS_PAGE : 0;
}

/* Makes a block that was just taken one of `bytes`. NULL, and it is lost: it has been written to. */
void *harden_open(void *p, size_t bytes);

/* Is the block of the slab in quarantine? */
bool harden_is_held(const struct span *slab, const void *p);

/* The size of a block that is in use, of a slab or a big one; 0: its fence isn't whole. */
size_t harden_bytes(const struct span *span, const void *p);

/* Says so. */
void harden_report(const struct span *span, const void *p, const char *call);

/* Frees a block that is in use. */
void harden_free(struct heap *heap, struct span *slab, void *p, const char *call);

/* Makes the block in use at p `size` bytes long where it is, or returns false. It isn't a big one. */
bool harden_refit(const struct span *span, void *p, size_t old_bytes, size_t size);

/* Frees a big block, as far as that is different. False: all is as usual. */
bool harden_free_big(struct heap *heap, struct span *span, const char *call);

/* Around a change of a big block's size: without a guard; and with fence and guard again. */
bool harden_lower(struct span *span);
void harden_raise(struct span *span, size_t bytes);

/* Fence of a big block whose last page has been cleared. */
void harden_fence_big(struct span *span);

/* Level 2: by how many blocks a slab that wants `count` is extended; and makes them read as zero. */
uint32_t harden_extension(const struct span *slab, uint32_t count);
void harden_clear(const struct span *slab, char *from, size_t bytes);

/* A random order of `count` numbers, at most HARDEN_ORDER_MAX, to go with what lies at p. */
#define HARDEN_ORDER_MAX 256u
void harden_shuffle(unsigned char *order, uint32_t count, const void *p);

/* Lets everything out of the thread's quarantine. */
void harden_flush(struct heap *heap);

#endif
