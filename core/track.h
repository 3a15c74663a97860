/*
 * track.h: write tracking: what a search needn't read again, because the last one has.
 *
 * A page of the general heap that nobody has written to since the last search looked at it, and that held no
 * pointer to anything which could ever be in question, holds none now:
 *
 *   - if a word of it points to a block in question now, the word was there then;
 *   - the block was there then, too: a pointer to a block is written after the block was allocated;
 *   - it lay in a buffer that wasn't retired, or was a big block that a scope had noted. What such a word
 *     points to is called *of interest*; a page with one is read at every search.
 *
 * So a page is skipped if the last search has read it all, found nothing of interest, and the page is still
 * protected from then on (written.h). All else is read. What is known is forgotten with each search that
 * fails.
 *
 * Tracked are slabs, big blocks and bare buffers. Not the other kinds of buffers, which are written all the
 * time, and not what isn't ours (stacks, data of modules, what the program has mapped): it is small in most
 * programs, and may be the program's own to register.
 *
 * A page that was written soon after it was protected isn't protected again for some searches, up to 31: a
 * fault costs as much as reading the page four times.
 *
 * Writes are told by page tables. A kernel that has pinned pages, for io_uring's or libaio's sake, goes
 * past these: there is no tracking while the process has such a ring.
 *
 * All calls are made while the world stands still.
 */
#ifndef LIBREGION_TRACK_H
#define LIBREGION_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order of the option's words. */
enum track_mode {
	TRACK_WHEN_IT_PAYS,
	TRACK_NEVER,
	TRACK_FROM_THE_FIRST,
};

/* Set once, at start. */
void track_set_mode(enum track_mode mode);

/*
 * A search begins, of a general heap of so many bytes. `pagemap` is look_pagemap(). False: it isn't
 * tracked, and none of what follows is to be called.
 */
bool track_begin(int pagemap, size_t heap_bytes);

/* Pages of memory that is to be read, all of it before any is. */
void track_want(uintptr_t lo, uintptr_t hi);

/* Protects those of them that are worth it. False: it isn't tracked after all. */
bool track_protect(int pagemap);

/* The first page from lo to hi that must be read; hi or more: none. And the first behind it that needn't. */
uintptr_t track_next(uintptr_t lo, uintptr_t hi);
uintptr_t track_end_of(uintptr_t lo, uintptr_t hi);

/* The page was read whole. */
void track_note(uintptr_t at, bool has_interest);

/* Whether what has been noted is true. */
void track_end(bool is_done);

/* What it has cost, in bytes that could have been read meanwhile. */
size_t track_bytes(void);

/* How it stands, for who wants to tell. */
enum track_state { TRACK_IS_OFF, TRACK_IS_ON, TRACK_IS_DENIED };
enum track_state track_state(void);

/* Tracking ends, for the time being; nothing is known. */
void track_stop(void);

/* Gives address space back, between searches. */
void track_forget(void);

/* Where the table lies, which isn't worth looking at. */
void track_table(uintptr_t *lo, uintptr_t *hi);

#endif
