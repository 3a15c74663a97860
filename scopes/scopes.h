/*
 * scopes.h: the facade of scopes/ for the layer above.
 *
 * The public interface is region.h; here is what malloc's shim needs: start and end of the process and
 * of threads, and the slow halves of allocation, which know whether a scope is open.
 */
#ifndef LIBREGION_SCOPES_H
#define LIBREGION_SCOPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"
#include "region.h"

struct heap;

/* Have options been read and core and scopes set up, or can they be now? False: no memory at all. */
bool scopes_start(void);

/*
 * Puts LIBREGION_SITES into force: once, by the initial thread, when libc can be used and before anybody
 * else's constructor runs.
 */
void scopes_start_sites(void);

/* Puts LIBREGION_STATS_SIGNAL into force: once, when libc can be used. */
void scopes_start_signal(void);

/* Puts LIBREGION_ADVISE into force, likewise. */
void scopes_start_advice(void);

/* Sets what is called after a thread has got its heap. Once, before there are other threads. */
void scopes_set_birth_hook(void (*hook)(struct heap *heap));

/* A thread is about to lose its heap. */
void scopes_thread_end(struct heap *heap);

/*
 * Around fork(). The first one may be told not to wait for locks; when it then hasn't got all of them, the
 * second one gives back those that it has.
 */
bool scopes_before_fork(bool may_wait);
void scopes_after_fork_in_parent(void);
void scopes_after_fork_in_child(void);

/* Gives back what the calling thread, whose heap this is, keeps ready for scopes to come. */
void scopes_trim(struct heap *heap);

/* Finds out which waiting blocks are reachable, and reclaims the others. */
void scopes_search(struct heap *heap);

/* The process's limit of address space has changed: what is reserved becomes as small as it asks for. */
void scopes_shrink(void);

/* The process ends: statistics. */
void scopes_finish(void);

/*
 * `size` bytes for the calling thread, aligned to `align` (a power of two, at least 16), from the
 * current region if there is one and it can, else from the general heap. NULL: out of memory.
 */
void *scopes_alloc(size_t size, size_t align);

/*
 * A block of a class from the general heap, where the class's first slab has none left and nothing else is to
 * be asked: no scope is open, and allocations are neither sampled nor hardened. NULL: not served.
 */
void *scopes_alloc_outside(struct heap *heap, unsigned class);

/*
 * The same for the call site that `caller` is the return address of, where the heap is watched: from
 * wherever its blocks are best placed.
 */
void *scopes_alloc_watched(size_t size, uintptr_t caller);

/*
 * Makes the block at p, which isn't NULL, `size` bytes long, in its region if it belongs to an open one of
 * this thread, else on the general heap. NULL: out of memory, or p was reported as no block. `caller`: the
 * return address.
 */
void *scopes_realloc(void *p, size_t size, uintptr_t caller);

/* The bytes that the block at p has; 0 for NULL and for what was reported as no block. */
size_t scopes_usable_size(const void *p, const char *call);

/* A longjmp of the calling thread is about to set its stack pointer to `sp`. */
void scopes_before_longjmp(uintptr_t sp);

#endif
