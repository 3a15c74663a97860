/*
 * site.h: sites, functions of unmodified programs whose calls are scopes. Private to scopes/.
 *
 *     site_spec.c          what LIBREGION_SITES says
 *     module.c             the modules of the process, and their functions
 *     site_find.c          which of these are meant
 *     site_make.c          rewriting them
 *     code_*.c             what that takes on this processor
 *     site.c               start and end, libraries that come and go, what is said about sites
 *     slot*.c              the calls
 *
 * All but the last run at start, before the program's first constructor, and when a library has been
 * loaded or unloaded, with the loader's lock held. A program without sites has none of it.
 */
#ifndef LIBREGION_SITE_H
#define LIBREGION_SITE_H

#include "code.h"
#include "module.h"
#include "site_spec.h"
#include "slot.h"

/* A module that has been seen. */
struct site_module {
	uintptr_t bias;
	const ElfW(Phdr) * headers;
	char name[64];
	unsigned seen; /* in which look at all modules it was there last */
	char *stubs;   /* of its sites */
	size_t stub_bytes;
	struct site_module *next;
};

/* A place that has been rewritten, or refused. */
struct site {
	struct site_entry entry;
	struct site_spec *spec;
	struct site_module *module; /* NULL: unloaded */
	struct code_plan plan;
	char *stub;
	struct site *same; /* an earlier one at the same place, whose code is rewritten for both */
	struct site *next;
};

#define SITE_BUCKETS 1024u
#define SITE_NOT_FOUND "no such function (stripped, inlined or misspelt?)"
#define SITE_COMPRESSED \
	"no such function; its module has compressed symbols (.gnu_debugdata), which aren't read: give an offset"

extern struct sites {
	struct site_spec *specs;
	struct site *all;
	struct site_module *modules;
	struct site *spare_sites; /* of modules that are gone, to be used again */
	struct site_module *spare_modules;
	unsigned look;                           /* the number of the current look at all modules */
	int process_id;                          /* in which the sites were read */
	struct site_name *buckets[SITE_BUCKETS]; /* all names, by the low bits of their hash */
} sites __attribute__((visibility("hidden")));

/* site.c: makes slots ready, once, when libc can be used. False: this processor can't. */
bool site_start_slots(void);

/* The process ends. */
void site_finish(void);

/* site_make.c */

/* What has been found in a module. */
struct site_search {
	struct elf_module *module;
	struct site_module *record;
	struct site *found; /* what is to be rewritten in it, and what is refused */
	struct site **last;
	size_t count;
	bool is_for_callers; /* only those are looked for */
};

/* Rewrites what has been found, or refuses it all, if there is a reason. */
void site_make(struct site_search *search, const char *why);

/* site_find.c */

/* Puts the names of a site where they are found. */
void site_add_names(struct site_spec *spec);

/* Looks at all modules: takes note of new ones, puts sites into them, and forgets those that are gone. */
void site_look(void);

/* Why a function of this name can't be a site, whatever its code; NULL: it can. */
const char *site_why_not_by_name(const char *name);

/* Why none of this module can. */
const char *site_why_not_in(struct elf_module *module);

/* Prints that a site can't be, and why. */
void site_refuse(struct site_spec *spec, const char *why);

#endif
