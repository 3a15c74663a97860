/*
 * processor.c: what is found out about the processor.
 */
#include "core/processor.h"

#include "unit.h"

Test(processor, has_what_the_compiler_finds_too)
{
	bool has = false;

#if defined(__x86_64__)
	has = __builtin_cpu_supports("avx2");
#endif
	for (int times = 0; times < 2; times++)
		require(processor_has_avx2() == has, "asked %d times", times + 1);
	require(processor_avx2 != PROCESSOR_NOT_ASKED, "the answer is kept");
}
