/*
 * rlimit.h: setrlimit() and prlimit(), so that a program may lower its limit of address space when it runs.
 *
 * RLIMIT_AS counts what is reserved like what is used. Below what libregion has reserved, each later mapping
 * of the program would be refused: stacks of threads, files, libraries. So a call that lowers the limit makes
 * the reservation smaller, as it would have been if the limit had been there at start.
 *
 * Limits that are set by a raw system call, or by another process, aren't seen; LIBREGION_HEAP_RANGE is for
 * these.
 */
#ifndef LIBREGION_RLIMIT_H
#define LIBREGION_RLIMIT_H

/* The calls, with the arguments of libc's; -1 with errno. */
int rlimit_set(int process, int resource, const void *limit, void *old);

#endif
