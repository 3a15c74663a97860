/*
 * site_spec.h: what LIBREGION_SITES says. Private to scopes/.
 *
 *     sites   = site { "," site }                          in a file: one a line, # begins a comment
 *     site    = place [ "@" caller ] { "/" option }
 *     place   = [ module ":" ] function | module [ "[" build-id "]" ] "+0x" offset
 *     option  = "name=" text | "fade=" policy | "buffer_size=" size | "buffer_count=" number
 *             | "limit_bytes=" size | "nest" | "once"
 *
 * A site that can't be understood is reported, with the number of the character, and left out; the others
 * hold.
 */
#ifndef LIBREGION_SITE_SPEC_H
#define LIBREGION_SITE_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "region.h"
#include "slot.h"

/* A name that functions are compared with. */
struct site_name {
	const char *text; /* "" if there is none */
	uint64_t hash;    /* of what is before the first dot */
	struct site_name *next_of_hash;
	struct site_spec *spec;
	bool is_caller;
};

enum site_state {
	SITE_WANTED,  /* not found so far */
	SITE_FOUND,   /* in force, at one place at least */
	SITE_REFUSED, /* and that has been said */
};

struct site_spec {
	const char *text;          /* all of it, as it was written */
	const char *module;        /* "" if it doesn't say */
	const char *build_id;      /* in hexadecimal, "" likewise */
	struct site_name function; /* text is "" if it is an offset */
	struct site_name caller;
	uintptr_t offset;
	bool may_nest, is_once;
	struct region_options
		options; /* the name is set, and the policy, whatever the process's default */
	struct site_callers
		callers; /* a caller that there isn't, and then those that have been found */
	enum site_state state;
	const void *found_in; /* the module, as long as it is there */
	bool was_found;                /* once at least */
	const char *refusal;           /* the last that has been said */
	struct site_spec *next;
};

/*
 * Reads the list in `text`, which is changed, and stays. `is_file`: one a line, with comments. Puts the sites
 * behind *last, and returns where the next goes.
 */
struct site_spec **site_spec_read(struct site_spec **last, const char *source, char *text,
                                  bool is_file);

#endif
