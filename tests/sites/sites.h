/*
 * sites.h: programs that nobody recompiled, run once as they are and once with sites in them.
 *
 * A case is a function that does one difficult thing, says on stdout what came of it, and is in a table
 * with the sites to set. The runner (runner.c) starts the program twice for it:
 *
 *   plain    without the library
 *   hooked   with the library preloaded and LIBREGION_SITES set
 *
 * Both must end in the same way (exit status or signal) and have said the same, byte for byte. The statistics
 * of the hooked run must tell that each site was entered exactly as often as the table says, and its
 * stderr must have the reports that the table says, and no other line: so a case fails when a
 * site is missed, entered too often, or harms the program.
 *
 * While it runs, a case can ask with site_depth_is() whether a scope is open. In the plain run that
 * says nothing.
 *
 * A program is compiled by several compilers, with several options; a case doesn't depend on which. Functions
 * that are sites are marked SITE, which keeps the compiler from cloning and inlining them.
 */
#ifndef SITES_H
#define SITES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SITE_ANY_LINES (-1)

struct site_case {
	const char *name;
	void (*run)(void);
	const char *sites;       /* LIBREGION_SITES of the hooked run */
	const char *entered;     /* "f=3 g>0": how often scopes of that name were entered */
	const char *says[6];     /* texts of the hooked run's reports, "libregion: ..." */
	const char *environment; /* "NAME=value NAME=value" for the hooked run */
	int status;              /* how both runs must end */
	int signal;
	int lines; /* how many reports there are; 0: one for each text; SITE_ANY_LINES */
};

/*
 * In the texts of a table "%P" stands for this program's name without its directory, "%B" for its
 * build-id, "%D" for the directory of the sources, and "%{name}" for the offset of a symbol in the program,
 * in hex: one of those that the program has put into this table, which ends with one without a name.
 */
struct site_symbol {
	const char *name;
	const void *address;
};
extern const struct site_symbol site_symbols[] __attribute__((weak));

/* Defined by each program: its cases, up to one without a name. */
extern const struct site_case site_cases[];

#if defined(__clang__)
#define SITE __attribute__((noinline, used))
#else
#define SITE __attribute__((noipa, used))
#endif

/* Keeps a call in front of it from being the last thing that a function does. */
#define SITE_END() __asm__ volatile("" ::: "memory")

/* Is this the hooked run? For what can't be said in the same words; nearly never needed. */
bool site_is_hooked(void);

/* How many scopes the thread is inside; when plain, what is given. */
unsigned site_depth_or(unsigned plain);

/* Fails the run unless the thread is inside that many scopes; nothing when plain. */
void site_depth_is(unsigned depth, const char *where);

/* Fails the run with the reason unless the condition holds. */
void site_check(bool condition, const char *what);

/* Ends the run as skipped, with the reason: the machine lacks something. */
void site_skip(const char *why) __attribute__((noreturn));

/* Allocates blocks of many sizes, checks that none overlaps another, and frees them but for one. */
void site_churn(void);

/* The blocks that site_churn() left are whole; they are freed. Any thread. */
void site_kept_are_whole(void);

/* The file that the program is in. */
const char *site_program_path(void);

/* A file beside the program. */
const char *site_path_beside(const char *name);

#ifdef __cplusplus
}
#endif

#endif
