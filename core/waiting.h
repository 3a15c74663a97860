/*
 * waiting.h: buffers whose unfreed blocks wait to be found reachable or not, and the search that finds out.
 *
 * A waiting buffer (SPAN_WAITING) belongs to nobody. Its live blocks that haven't faded are the ones in
 * question; any thread may free them, and the last one gives the buffer back. The first search that finds a
 * block leaves it waiting: what it was found by may be garbage of a scope that is open, and gone at the next
 * one. Found by WAITING_SEARCHES searches it fades; by doubtful words only, WAITING_DOUBTS.
 *
 * A buffer that a thread goes on in may have waiting blocks, too, those below span->wait_hi; they are in
 * question only when the whole buffer waits.
 *
 * What a search looks at: registers and stacks of all threads, everything else that the process has
 * written (look.h), blocks in use on slabs, big ones, and live blocks of all other buffers. Doubtful is
 * what lies below a thread's stack pointer. Not looked at: memory of libregion's that is free, its own
 * structures, and the frames of the search.
 */
#ifndef LIBREGION_WAITING_H
#define LIBREGION_WAITING_H

#include "big_list.h"
#include "granule.h"
#include "look.h"
#include "mark.h"
#include "span.h"
#include "world.h"

#define WAITING_SEARCHES 2
#define WAITING_DOUBTS 16

/* May p be in a waiting block of a buffer that is in use? */
static inline bool waiting_has(const struct span *span, const void *p)
{
	return (const char *)p < __atomic_load_n(&span->wait_hi, __ATOMIC_RELAXED);
}

/* Notes blocks that wait in a buffer that is the caller's. */
void waiting_note(struct span *span, const char *name, struct granule_live live, char *hi);

/* The buffer, with blocks noted, isn't the caller's any more. */
void waiting_add(struct span *span);

/* Big blocks that a scope of that name has left: those of the list that still live. */
void waiting_add_bigs(struct big_list *list, const char *name);

/* Has waiting_take() taken any? */
bool waiting_has_bigs(void);

/* Bytes of buffers and big blocks that have come to wait since the last waiting_take(). */
size_t waiting_bytes(void);

/* A block of a waiting buffer was freed: the last one gives the buffer back. */
void waiting_freed(struct span *span);

/* What was given back so, in all. */
struct granule_live waiting_gone(void);

/* What waits now, as it was when it was last counted. */
struct granule_live waiting_now(void);

/* All waiting buffers, linked through next; they still are waiting ones. Big blocks are set aside, too. */
struct span *waiting_take(void);

/* Back, as if they had never been taken; but their bytes don't count again. */
void waiting_put_back(struct span *list);

/* Those that were set aside, for the search. */
const struct big_list *waiting_bigs(void);

/* How a search went. */
struct search {
	bool is_done;              /* if not, nothing is known */
	enum world_result stop;
	int culprit;               /* the thread that made a stop fail */
	size_t bytes;              /* looked at, with something for each mapping */
	uint64_t pause_ns;         /* that it took; nearly all of it other threads stood still */
};

/*
 * Looks which blocks of the list's buffers are reachable from outside of them. What the calling thread's
 * program has, lies at `sp` and above, registers included; below is what libregion does.
 */
struct search waiting_search(struct span *list, uintptr_t sp, int signal, size_t align);

/*
 * The same, of what is certain only, and calls the hook for each block when it is first reached, while the
 * world stands still: with its head and the place of the word that reaches it.
 */
struct search waiting_explain(struct span *list, uintptr_t sp, int signal, size_t align, mark_hook *hook);

/* For the hook: the mapping that is being looked at; NULL: it is memory of the heap range. */
const struct look_mapping *waiting_mapping(void);

/* What became of a buffer's waiting blocks. */
struct settled {
	size_t reclaimed_blocks, reclaimed_granules;
	size_t faded_blocks, faded_granules;
	enum { SETTLED_EMPTY, SETTLED_RETIRED, SETTLED_WAITS } span; /* EMPTY: it is the caller's, cleared */
};

/* After a search: reclaims what wasn't found, keeps or fades the rest. `is_known`: it was done. */
struct settled waiting_settle(struct span *span, bool is_known);

/* The same for the big blocks that waiting_take() has taken; how many it has reclaimed. */
size_t waiting_settle_bigs(bool is_known);

/* The lock of the list, for fork(). */
struct lock *waiting_lock(void);

#endif
