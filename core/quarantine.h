/*
 * quarantine.h: buffers of scopes that have ended, whose addresses aren't used again for a while.
 *
 * For checks. Whoever touches a reclaimed block, or still has its address somewhere, is found out as long
 * as nothing new lies there. So a buffer in which blocks were reclaimed doesn't go back to the cache: it
 * waits here (SPAN_QUARANTINED), and the one that has waited longest leaves when there are too many. In
 * its map the heads of reclaimed blocks stay, marked as freed; blocks that have faded live on, and may be
 * freed.
 *
 * Fenced pages can't be accessed, and hold no memory. Only whole pages that no living block touches are.
 */
#ifndef LIBREGION_QUARANTINE_H
#define LIBREGION_QUARANTINE_H

#include "span.h"

/* How many bytes of addresses may wait. Once, at start. */
void quarantine_set_bytes(size_t bytes);

/* Fences the pages of a buffer from lo to hi, which begin and end pages. False: not all of them. */
bool quarantine_fence(struct span *span, char *lo, char *hi);

/* Takes over a buffer in which nothing lives that hasn't faded. True: others have left for the first time. */
bool quarantine_put(struct span *span);

/* Lets the oldest go, where addresses are short. False: there is none. */
bool quarantine_let_go(void);

/* For fork(). */
struct lock *quarantine_lock(void);

#endif
