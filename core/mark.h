/*
 * mark.h: searching memory for pointers into waiting buffers, and following them from block to block.
 *
 * Conservative: every aligned word whose lower 48 bits are an address in a live block of a waiting buffer,
 * or one past its end, is a pointer to it. (Boehm and Weiser: "Garbage collection in an uncooperative
 * environment".) The upper 16 bits may be a tag.
 *
 * Blocks of waiting buffers that have faded count as outside; the others are reached or not, which a bit
 * for each granule says, kept aside from the granule map: the program may free blocks meanwhile.
 *
 * For one thread at a time, while the world stands still.
 */
#ifndef LIBREGION_MARK_H
#define LIBREGION_MARK_H

#include "span.h"

/* Memory for the tables, once, before any other call. False: none. */
bool mark_start(void);

/* Gives the tables' address space back, between searches; mark_start() makes them anew. */
void mark_forget(void);

/* Begins a search; pointers are looked for at multiples of `align` (1, 2, 4 or 8). False: out of memory. */
bool mark_begin(size_t align);

/*
 * A waiting buffer whose blocks are in question, or a big block, whose head is the map byte of its first
 * granule. All of them before the first call of mark_words.
 */
void mark_add(struct span *span);

/*
 * A span that something may lie in which a later search is about: words that point into it are of interest.
 * After the last mark_add(). mark_forget_interest() ends it, after the last mark_remove().
 */
void mark_add_interest(const struct span *span);
void mark_forget_interest(void);

/*
 * Takes the words from lo to hi as known to be reachable. `slab`: they are blocks of it, of which the free
 * ones don't count; else NULL. `at`: where they lie, if this is a copy; else lo. True: one of them points
 * to what is in question, or of interest.
 */
bool mark_words(uintptr_t lo, uintptr_t hi, const struct span *slab, uintptr_t at);

/*
 * A big block that is too long to be read whole, or in which the program has protected pages. One that is
 * reached isn't followed: mark_next_queued() has each of them once, and the caller gives its pages to
 * mark_words(). NULL: no more.
 */
#define MARK_DENSE_BYTES ((size_t)1 << 20)
bool mark_needs_care(const struct span *span);
const struct span *mark_next_queued(void);

/* Memory of ours that can't be read, lowest first, before the first call of mark_words(). */
void mark_add_hole(uintptr_t lo, uintptr_t hi);
bool mark_has_hole(const struct span *span);

/* Was there anything that would have had to be read? */
bool mark_has_failed(void);

/* From now on the words are doubtful: what only they reach must not be reclaimed, but need not be needed. */
void mark_doubt(void);

/*
 * Was there more to follow than there is room for? Then mark_again() is to be called for every head in
 * question, until there wasn't.
 */
bool mark_overflown(void);
void mark_again(const unsigned char *head);

/* Is the block with this head, of a buffer that was added, reached? Good until the next mark_begin. */
bool mark_is_reached(const unsigned char *head);

/* And is it reached by doubtful words only? */
bool mark_is_doubtful(const unsigned char *head);

/* Is any block of this buffer? */
bool mark_has_reached(const struct span *span);

/* Bytes looked at so far. */
size_t mark_bytes(void);

/* Ends a search: the buffer's blocks are not in question any more. */
void mark_remove(struct span *span);

/* Are the blocks of this buffer in question? */
bool mark_has(const struct span *span);

/* Where the search keeps its own tables, which aren't worth looking at. */
void mark_tables(uintptr_t *lo, uintptr_t *hi);

/* Called for each block when it is first reached: by the word at `at`. NULL: nobody is. */
typedef void mark_hook(const unsigned char *head, uintptr_t at);
void mark_set_hook(mark_hook *hook);

#endif
