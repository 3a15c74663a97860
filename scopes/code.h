/*
 * code.h: the processor's side of sites: rewriting code so that a call arrives at slot_entry first. Private
 * to scopes/.
 *
 * For another processor there is one file like code_x86_64.c, one like slot_x86_64.S with its pool of
 * slots, and a line in meson.build; nothing else knows an instruction. Where there is none, sites say so.
 *
 * It goes in two steps. code_plan() looks: which bytes are to be rewritten, how, and whether that is safe;
 * it writes nothing, and the addresses it works on may as well be those of a file that is merely mapped.
 * code_make() and code_write() do it, before the code is run by any thread.
 *
 * An entry is rewritten as a jump to the site's *stub*, which hands the site to slot_entry. The
 * instructions that were there are moved behind the stub, and end with a jump to what follows them. Where
 * only two bytes can be had, they jump to five bytes of padding close by, and those to the stub: a hop. A
 * call instruction is given the stub for its target, and nothing moves.
 */
#ifndef LIBREGION_CODE_H
#define LIBREGION_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "module.h"

#define CODE_STUB_BYTES 128

enum code_way { CODE_REFUSED, CODE_ENTRY, CODE_HOP, CODE_CALL };

struct code_plan {
	/* Given. */
	uintptr_t at;     /* the function, or the call instruction */
	size_t bytes;     /* of the function; 0: not known */
	bool may_be_call; /* `at` is no function's address from a symbol: it may be a call */
	uintptr_t start;  /* of the function that it is in, then; 0: not known */
	/* Found. */
	enum code_way way;
	const char *refusal; /* why not, if that is the way */
	uintptr_t from;      /* what is rewritten begins here */
	uintptr_t padding;   /* of a hop */
	unsigned moved_bytes;
	uintptr_t target; /* of a call */
	unsigned targets; /* which of the bytes behind `from` are jumped to: bit i for the i-th */
};

/* What calls back with all functions of the module. May be NULL: then there are no hops. */
typedef void code_functions(void *context, elf_visitor *visitor, void *visitor_context);

/* Loads what decodes instructions. NULL, or why there is none. */
const char *code_start(void);

/* Gives that back, unless it is needed again. */
void code_end(void);

/* Fills in the plans for a module, of which `bias` is the load address of values. */
void code_plan(const struct elf_module *module, struct code_plan *plans, size_t count,
               code_functions *functions, void *context);

/*
 * Makes the stub for a plan in CODE_STUB_BYTES at `stub`, writable still: it pushes `site` and jumps to
 * `arrival`. Returns where the function goes on from there, or NULL: something is out of reach.
 */
void *code_make(const struct code_plan *plan, char *stub, const void *site, void (*arrival)(void));

/* Rewrites the code. `fd` is from os_open_code. False: the kernel doesn't let us. */
bool code_write(const struct code_plan *plan, const char *stub, int fd);

/* Puts back what was there. */
bool code_restore(const struct code_plan *plan, int fd);

/*
 * Rewrites a function that does nothing but return, and has padding behind it, so that it calls `fn`, with
 * all registers kept. `stub` likewise. False: it isn't like that.
 */
bool code_make_notifier(uintptr_t function, char *stub, void (*fn)(void *), int fd);

#endif
