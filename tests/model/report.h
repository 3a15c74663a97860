/*
 * report.h: what a run of a program tells the process that started it.
 *
 * Programs run in a forked child, so that a crash or a hang is a finding like any other. The report lies
 * in memory shared with the parent. The first check that fails fills it in and ends the child at once:
 * nothing after it could be trusted. A failure is known by its format string, the same address in both
 * processes; shrinking uses that to stay with the failure that was found.
 */
#ifndef TESTS_MODEL_REPORT_H
#define TESTS_MODEL_REPORT_H

#include "program.h"

#include <stdatomic.h>
#include <stdint.h>

#define REPORT_EXIT_FAILED 9

struct report {
	_Atomic(const char *) failure;   /* format string of the check that failed, or NULL */
	char text[1000];                 /* the message */
	uint32_t current[PROGRAM_THREADS]; /* index of the operation that each thread is at */
	atomic_ullong performed;         /* operations that were not skipped */
	atomic_ullong region_blocks;     /* blocks that regions served */
	atomic_ullong heap_blocks;       /* blocks that the general heap served */
	atomic_ullong scopes;
};

/* Ends the process. */
_Noreturn void report_failure(struct report *report, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define REPORT_CHECK(report, condition, ...) \
	((condition) ? (void)0 : report_failure((report), __VA_ARGS__))

#endif
