/*
 * processor.h: what the processor can do.
 *
 * It is asked when that is first of interest, not when the library is loaded, as gcc's __builtin_cpu_supports
 * does: in a virtual machine each question costs microseconds, and a program without scopes has none.
 */
#ifndef LIBREGION_PROCESSOR_H
#define LIBREGION_PROCESSOR_H

#include <stdbool.h>

enum processor_answer { PROCESSOR_NOT_ASKED, PROCESSOR_LACKS, PROCESSOR_HAS };

extern enum processor_answer processor_avx2 __attribute__((visibility("hidden")));

/* Asks, and notes the answer. */
enum processor_answer processor_ask_avx2(void);

/* May functions with target("avx2") be called? False on processors of any other kind. */
static inline bool processor_has_avx2(void)
{
	enum processor_answer answer = __atomic_load_n(&processor_avx2, __ATOMIC_RELAXED);

	return (answer == PROCESSOR_NOT_ASKED ? processor_ask_avx2() : answer) == PROCESSOR_HAS;
}

#endif
