/*
 * processor.c: see processor.h.
 */
#include "processor.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum processor_answer processor_avx2;

#if defined(__x86_64__)
#define XCR0_VECTORS 6u /* the system keeps the state of xmm and ymm registers */

static uint32_t xcr0(void)
{
	uint32_t lo, hi;

	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

static bool ask(void)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return false;
	if ((xcr0() & XCR0_VECTORS) != XCR0_VECTORS)
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
#else
static bool ask(void)
{
	return false;
}
#endif

__attribute__((cold, noinline)) enum processor_answer processor_ask_avx2(void)
{
	enum processor_answer answer = ask() ? PROCESSOR_HAS : PROCESSOR_LACKS;

	__atomic_store_n(&processor_avx2, answer, __ATOMIC_RELAXED);
	return answer;
}
