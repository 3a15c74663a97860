/*
 * advise_none.c: in place of sampling where sites, on which it stands, aren't built.
 */
#include "advise.h"
#include "scopes.h"

struct advise advise;

void scopes_start_advice(void)
{
	if (options.advise[0])
		report("LIBREGION_ADVISE: this libregion was built without sites; nothing is sampled");
}

void advise_finish(void)
{
}

size_t advise_inline_granules(void)
{
	return harden_inline_granules();
}

void *advise_alloc(struct thread *thread, size_t size, size_t align)
{
	(void)thread, (void)size, (void)align;
	return NULL;
}

void advise_thread_ends(struct thread *thread)
{
	(void)thread;
}

void advise_before_longjmp(struct thread *thread, uintptr_t sp)
{
	(void)thread, (void)sp;
}

struct lock *advise_lock(void)
{
	return &advise.lock;
}

void advise_after_fork_in_child(void)
{
}
