/*
 * decay.h: giving memory back while the program is idle.
 *
 * Freed memory that nobody wants goes back whenever something is freed (core/span.h). A program that frees
 * much and then sleeps would keep it, so there is a thread for that:
 *
 *   - it is started when at least 8 MiB wait, from a free() that holds no lock, and ends when less is left:
 *     most of the time there is none;
 *   - by default only in a program that has more than one thread already: a program that relies on being
 *     the only thread (unshare, fork without a warning) stays alone. LIBREGION_DECAY_THREAD=always
 *     starts it there too, =never nowhere;
 *   - it blocks all signals, has a small stack, never allocates, and calls nothing of the program's;
 *   - it isn't there in the child of a fork, and is started anew when that needs it.
 */
#ifndef LIBREGION_DECAY_H
#define LIBREGION_DECAY_H

#include "core/core.h"

/* Starts the thread; see decay_if_much. */
void decay_start(void);

/* Called where a free has ended, and no lock is held. */
static inline void decay_if_much(void)
{
	if (__builtin_expect(span_pool_has_much(), 0))
		decay_start();
}

/* The child of a fork has no such thread. */
void decay_after_fork_in_child(void);

#endif
