/*
 * site_none.c: in place of sites where they aren't built: on other processors than those that there is a
 * code_*.c for, or without Zydis.
 */
#include "core/core.h"
#include "scopes.h"
#include "site.h"

void scopes_start_sites(void)
{
	if (options.sites || options.sites_file[0])
		report("LIBREGION_SITES: this libregion was built without sites; ignored");
}

void site_finish(void)
{
}

void slot_thread_begins(struct thread *thread)
{
	(void)thread;
}

void slot_thread_ends(struct thread *thread)
{
	(void)thread;
}

void slot_before_longjmp(struct thread *thread, uintptr_t sp)
{
	(void)thread, (void)sp;
}

void slot_before_fork(void)
{
}

void slot_after_fork_in_parent(void)
{
}

void slot_after_fork_in_child(void)
{
}
