/*
 * guard.h: touches of memory that checked scopes have reclaimed. Private to scopes/.
 */
#ifndef LIBREGION_GUARD_H
#define LIBREGION_GUARD_H

#include "scope.h"

/* Something was fenced: from now on a touch of it is reported, whichever handler the program has. */
void guard_is_up(struct thread *thread);

struct lock *guard_lock(void);

/* A thread's own alternate stack, if it is ours, goes. */
void guard_thread_ends(struct thread *thread);

#endif
