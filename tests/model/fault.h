/*
 * fault.h: what the files of faults share: each function is put around the library's own by the linker
 * (--wrap), and does it wrong if MODEL_FAULT names the fault.
 */
#ifndef TESTS_MODEL_FAULT_H
#define TESTS_MODEL_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WRAPPED(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

static inline bool fault_is(const char *name)
{
	const char *fault = getenv("MODEL_FAULT");
	return fault && strcmp(fault, name) == 0;
}

/* Every fourth time that is asked. */
static inline bool some_times(void)
{
	static atomic_uint calls;
	return atomic_fetch_add(&calls, 1) % 4 == 3;
}

#endif
