/*
 * written.h: which pages of the heap lane were written since they were last protected.
 *
 * The kernel's part of write tracking (track.h): userfaultfd in its asynchronous mode, where the first
 * write to a protected page costs a fault that the kernel resolves by itself, and PAGEMAP_SCAN, which tells
 * the pages that are not protected any more; both since Linux 6.7. Writes by system calls count as any
 * other.
 *
 * Only the heap lane is registered, which nobody else has mapped: of other memory the program may want to
 * register some itself, and the kernel allows that to one of us only. For the same reason nothing here trusts
 * that memory stays registered: a mapping that was moved, made anew or given to somebody else says so.
 *
 * Nothing here allocates, takes a lock or changes errno. For one thread at a time.
 */
#ifndef LIBREGION_WRITTEN_H
#define LIBREGION_WRITTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Begins, in this process. False: the kernel can't, or doesn't allow it. In a sandbox it isn't asked, which
 * may end who makes a call that it doesn't know, unless `is_forced`.
 */
bool written_start(bool is_forced);

/* Has this process begun? What a parent had begun doesn't count, nor what the program has closed. */
bool written_is_on(void);

/* Ends it: all pages count as written. */
void written_stop(void);

/* Registers what isn't yet of the lane. False: somebody else has some of it. */
bool written_register(void);

/*
 * Calls fn for runs of pages from lo to hi, lowest first, which together are all that may have been written
 * since they were protected, or aren't there. `pagemap` is look_pagemap().
 */
enum written_answer {
	WRITTEN_TOLD,
	WRITTEN_STRANGE, /* not all of it is registered: what fn was told isn't all */
	WRITTEN_UNKNOWN, /* the kernel doesn't tell */
};
typedef void written_fn(uintptr_t lo, uintptr_t hi);
enum written_answer written_ask(int pagemap, uintptr_t lo, uintptr_t hi, written_fn *fn);

/* The same for pages that are there and aren't tracked; the kernel takes longer to find them. */
bool written_ask_strange(int pagemap, uintptr_t lo, uintptr_t hi, written_fn *fn);

/* Protects the pages that are there. False: not all of them. */
bool written_protect(int pagemap, uintptr_t lo, uintptr_t hi);

#endif
