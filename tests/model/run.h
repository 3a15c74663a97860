/*
 * run.h: runs a program in a child process, and makes a failing one small.
 */
#ifndef TESTS_MODEL_RUN_H
#define TESTS_MODEL_RUN_H

#include "program.h"
#include "report.h"

/* How a run went. Two failures with the same cause count as the same. */
struct outcome {
	uintptr_t cause; /* 0: it passed; else the check's format string, or a signal or exit status */
	char text[1100];
	size_t op_count; /* of a failure: operations that threads had reached, if they take turns */
};

/* Shared memory for reports; totals add up over runs. */
struct report *report_new(void);

/* `quiet`: what the library says on stderr is dropped. A run of more than `patience_ms` hangs. */
struct outcome run_program(const struct program *program, struct report *report,
                           unsigned patience_ms, bool quiet);

/*
 * Deletes and simplifies operations as long as the program still fails with the same cause; at most
 * `seconds` long. Returns the outcome of the last failing run. The program is changed in place.
 */
struct outcome shrink_program(struct program *program, struct report *report,
                              const struct outcome *found, unsigned seconds);

#endif
