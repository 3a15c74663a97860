/*
 * syscalls.h: system calls that keep errno, for the files of core/ that talk to the kernel.
 *
 * They are made here where it is known how: libc's syscall() lies among code that a small program has no
 * other use for, and the kernel would make sixteen pages of that resident.
 */
#ifndef LIBREGION_SYSCALLS_H
#define LIBREGION_SYSCALLS_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYSCALLS_MAX_ERRNO 4095

/* The result, or the negated error. */
#if defined(__x86_64__) && defined(__LP64__)
static inline long syscalls_make(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return result;
}
#else
static inline long syscalls_make(long number, long a, long b, long c, long d, long e, long f)
{
	int saved_errno = errno;
	long result = syscall(number, a, b, c, d, e, f);

	result = result == -1 ? -(long)errno : result;
	errno = saved_errno;
	return result;
}
#endif

static inline long syscalls_plain(long result)
{
	return result < 0 && result >= -SYSCALLS_MAX_ERRNO ? -1 : result;
}

#define SYSCALLS_PAD(number, a, b, c, d, e, f, ...) \
	syscalls_make(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* A call with up to six arguments; the result is -1 on failure. */
#define raw_call(...) syscalls_plain(raw_result(__VA_ARGS__))

/* The same, with the negated error in place of -1. */
#define raw_result(...) SYSCALLS_PAD(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

#endif
