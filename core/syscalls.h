/*
 * syscalls.h: system calls that keep errno, for the files of core/ that talk to the kernel.
 */
#ifndef LIBREGION_SYSCALLS_H
#define LIBREGION_SYSCALLS_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The result is -1 on failure. */
#define raw_call(...) \
	__extension__({ \
		int saved_errno_ = errno; \
		long result_ = syscall(__VA_ARGS__); \
		errno = saved_errno_; \
		result_; \
	})

/* The same, with the negated error in place of -1. */
#define raw_result(...) \
	__extension__({ \
		int saved_errno_ = errno; \
		long result_ = syscall(__VA_ARGS__); \
		result_ = result_ == -1 ? -(long)errno : result_; \
		errno = saved_errno_; \
		result_; \
	})

#endif
