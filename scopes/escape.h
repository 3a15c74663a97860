/*
 * escape.h: which of the blocks that a scope leaves are still pointed to, and by what. Private to scopes/.
 */
#ifndef LIBREGION_ESCAPE_H
#define LIBREGION_ESCAPE_H

#include "scope.h"

/*
 * Searches memory for pointers to the live blocks of an ending region's buffers that haven't faded, follows
 * them, reports each kind, and lets those blocks fade. `sp`: where the program's part of the calling
 * thread's stack begins; `returned`: where the value lies that the function of a site returns, or 0;
 * `ended`: the stack. False: no search could be made.
 */
struct escape_place {
	uintptr_t sp, returned;
	uint32_t ended;
};
bool escape_find(struct thread *thread, struct region *region, const struct escape_place *place);

#endif
