/*
 * check.h: LIBREGION_CHECK: a program's `none` scopes, tested while it runs. Private to scopes/.
 *
 * `none` is a promise: nothing of what the scope leaves unfreed is used after it. A check tells whether it is
 * kept, in either of two ways.
 *
 *   1      At each end of a `none` scope memory is searched for pointers to what it has left. Each such
 *          block is an *escape*: it is reported, with where it was allocated and what points to it, and
 *          fades, so that the program runs on.
 *   guard  What a scope reclaims can't be accessed from then on. A touch is reported, with where the block
 *          was allocated and where its scope has ended; then the process gets its signal.
 *
 * Under both, addresses aren't used again for a while (core/quarantine.h), every allocation takes the slow
 * path, where its stack is noted (stack.h), and a free of a reclaimed block is reported with both stacks.
 *
 *     check.c        start, allocation, threads, and the end of a scope
 *     escape.c       the search, and where a pointer lies
 *     guard.c        touches
 *     finding.c      reports, as text and as JSON, and the exit status
 *
 * Regions as objects aren't checked: whoever destroys one says when.
 */
#ifndef LIBREGION_CHECK_H
#define LIBREGION_CHECK_H

#include "scope.h"

enum check { CHECK_OFF, CHECK_ESCAPES, CHECK_GUARD };

static inline bool check_is_on(void)
{
	return __builtin_expect(options.check != CHECK_OFF, 0);
}

/* Does a check look after this region? */
static inline bool check_covers(const struct region *region)
{
	const struct scope *scope = (const struct scope *)region;

	return check_is_on() && region->policy->fade == REGION_FADE_NONE && !scope->is_lasting;
}

/* Before the range is reserved, and after. */
void check_prepare(void);
void check_start(void);

/* A scope was opened, or another is the top one again: nothing is served inline. */
void check_opened(struct scope *scope);
void check_closed(struct thread *thread, struct scope *scope);

/* Notes the stack that has allocated the block at p, which may be NULL. */
void check_note(void *p);

/* Ends a region that it covers. Unless it `reclaims`, blocks fade. */
void check_close(struct thread *thread, struct region *region, bool reclaims);

/* A thread has begun, and is about to end, or to give back what it keeps. */
void check_thread_begins(struct thread *thread);
void check_trim(struct thread *thread);
void check_thread_ends(struct thread *thread);

/* An empty buffer, where there is none: of addresses that haven't rested long enough. NULL: none of these. */
struct span *check_make_buffer(struct heap *heap, const struct policy *policy);

/* Memory is short: no addresses are kept from use. */
void check_gives_way(void);

/* In the child of a fork: what the parent has found is the parent's. */
void check_after_fork_in_child(void);

/* The process ends: a line that sums up, and the exit status. */
void check_finish(void);

#endif
