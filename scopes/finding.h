/*
 * finding.h: what a check has found, said once for each kind, on stderr and, as JSON, in a file. Private to
 * scopes/.
 *
 * A kind is a scope, a stack that has allocated the block, and a sort of finding: for an escape, the sort of
 * place that holds the pointer. All findings of a kind count.
 */
#ifndef LIBREGION_FINDING_H
#define LIBREGION_FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum finding_kind { FINDING_ESCAPE, FINDING_LATE_FREE, FINDING_TOUCH };

/* What holds the pointer to an escape. */
enum holder_kind {
	HOLDER_GLOBAL,
	HOLDER_TLS,
	HOLDER_BLOCK,    /* of the general heap, or one that has faded */
	HOLDER_SCOPE,    /* a block of another scope that is open, or of a region as an object */
	HOLDER_SAME,     /* a block of this scope that escapes, too */
	HOLDER_STACK,
	HOLDER_REGISTER, /* of a thread, when it was stopped */
	HOLDER_RETURNED, /* the value that the function of a site returns */
	HOLDER_MEMORY,   /* mapped otherwise */
	HOLDER_COUNT,
};

struct holder {
	enum holder_kind kind;
	uintptr_t at;        /* where the pointer lies; thread-local: as if it were the calling thread's own */
	uintptr_t start;     /* block, mapping */
	size_t bytes;        /* block */
	uint32_t allocated;  /* block: its stack */
	const char *scope;   /* block: of a scope, its name */
	uintptr_t code;      /* stack, register: an address in the function */
	int thread;          /* stack, register, thread-local */
};

struct finding {
	enum finding_kind kind;
	const char *scope;             /* that has ended; NULL: not known */
	const void *block;             /* where it begins; NULL: not known */
	size_t bytes;                  /* of it */
	size_t blocks, total_bytes;    /* escape: of this kind, at this end of the scope */
	uint32_t allocated, ended;     /* stacks */
	const struct holder *holder;   /* escape */
	const uintptr_t *frames;       /* touch, free: the stack */
	size_t frame_count;
	const char *call;              /* free: the caller's function */
	const void *address;           /* touch, free */
	const char *access;            /* touch: "read" or "write" */
	bool was_freed;                /* touch: of a block that was freed inside the scope */
};

/* Tables, once. False: no memory. */
bool finding_start(void);

/* Reports it, if it is the first of its kind, and counts it. */
void finding_report(const struct finding *finding);

/* At the process's end: a line that sums up. Were there any? */
bool finding_sum_up(void);

/* In the child of a fork: nothing has been found, but what has been said isn't said again. */
void finding_after_fork_in_child(void);

struct lock *finding_lock(void);

#endif
