/*
 * program.h: random programs of allocator operations.
 *
 * A program is an array of small operations for 1 to PROGRAM_THREADS threads; each thread performs its
 * own ones in order. Every part of it follows from the seed, including how many threads there are,
 * whether they take turns (then the program is deterministic) or run freely, how big blocks are, and
 * which kinds of operation occur at all: a program with few kinds goes deeper than one with all.
 *
 * Operations name blocks by slot. One that makes no sense where it stands (free of an empty slot, leave
 * outside every scope) is skipped, so that any part of a program is a program too: shrinking is deleting.
 */
#ifndef TESTS_MODEL_PROGRAM_H
#define TESTS_MODEL_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PROGRAM_THREADS 4
#define PROGRAM_SLOTS 512

/* X(kind, weight): how often an operation occurs relative to the others, before a program's own taste. */
#define OP_MAP(X) \
	X(MALLOC, 40)   /* slot = malloc(size) */ \
	X(CALLOC, 10)   /* slot = calloc(count, size) */ \
	X(ALIGNED, 8)   /* slot = aligned block, by each of the five functions */ \
	X(HUGE, 2)      /* a request that no system can serve: NULL and ENOMEM */ \
	X(REALLOC, 25)  /* slot = realloc(slot, size), also of an empty slot and to size 0 */ \
	X(FREE, 40)     /* free(slot), also sized */ \
	X(STRETCH, 6)   /* use all of malloc_usable_size(slot) */ \
	X(KEEP, 4)      /* region_keep(slot) */ \
	X(COPY_OUT, 4)  /* slot = region_copy_out(slot other) */ \
	X(ASK, 4)       /* region_owns and region_name_of pointers of all sorts */ \
	X(SCOPE, 12)    /* open a scope, in each of the forms region.h offers */ \
	X(IGNORE, 3)    /* region_ignore() */ \
	X(LEAVE, 14)    /* return from the innermost scope or ignore */ \
	X(JUMP, 1)      /* longjmp out of one or more of them */ \
	X(ON_EXIT, 5)   /* region_on_exit() */ \
	X(HAND, 8)      /* give the block in the slot to another thread */ \
	X(TAKE, 10)     /* slot = what another thread gave */ \
	X(RESPAWN, 1)   /* the thread ends, inside its scopes, and a new one goes on with its blocks */ \
	X(SWEEP, 1)     /* check every block of the thread */ \
	X(STATS, 1)     /* compare the statistics with what was done */ \
	X(TRIM, 1)      /* malloc_trim() */

enum op_kind {
#define OP_ENUM(kind, weight) OP_##kind,
	OP_MAP(OP_ENUM)
#undef OP_ENUM
	OP_KINDS
};

/* Members that a kind has no use for are random too, and mean nothing. */
struct op {
	uint8_t kind;         /* enum op_kind */
	uint8_t thread;       /* who performs it */
	uint8_t variant;      /* which function, form or flavour of it */
	uint8_t fade;         /* enum region_fade of a scope */
	uint8_t named;        /* whether a scope gets a name */
	uint8_t align_shift;  /* alignment as a power of two */
	uint8_t buffer_shift; /* a scope's buffer_size as a power of two; 0: the default */
	uint8_t buffer_count; /* a scope's buffer_count */
	uint16_t slot;
	uint16_t other;     /* another slot, a thread, or how many levels to jump */
	uint32_t limit_kib; /* a scope's limit_bytes, in KiB; 0: the default */
	uint32_t size;      /* bytes */
};

struct program {
	uint64_t seed;
	unsigned threads;
	bool free_running; /* threads run at once, rather than in turns */
	size_t count;
	struct op *ops;
};

/* Forms of a scope, struct op's variant. Those on the stack end also when their frame is abandoned. */
enum scope_form {
	FORM_DO,           /* region_do() */
	FORM_DO_WITH,      /* region_do_with() */
	FORM_HANDLE,       /* region_enter_with(), handle on the stack */
	FORM_HANDLE_PLAIN, /* region_enter(), handle on the stack */
	FORM_BLOCK,        /* REGION_SCOPE_WITH() { } */
	FORM_HANDLE_HEAP,  /* region_enter_with(), handle elsewhere */
	FORMS
};

/* Makes the program of a seed; threads: 0 lets the seed choose. Free its ops with free(). */
struct program program_generate(uint64_t seed, size_t count, unsigned threads);

/* One operation per line, for people. */
void program_print(FILE *out, const struct program *program);

/* "malloc" for OP_MALLOC, and so on. */
const char *op_name(enum op_kind kind);

/* Of a form that has options, rather than the defaults. */
bool scope_form_has_options(unsigned form);

#endif
