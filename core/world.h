/*
 * world.h: stopping all other threads of the process, so that memory can be searched while it stands still.
 *
 * Each thread that /proc/self/task lists is sent a signal, and waits in its handler, with all registers on
 * its stack, until the world goes on. Threads that are born meanwhile are found by listing again. A thread
 * that blocks the signal, or isn't scheduled in time, makes the stop fail, and everybody goes on.
 *
 * The signal is sent with a value that tells ours from anybody else's: of those, whoever had a handler
 * before us gets them as before. Interrupted system calls are restarted where the kernel can (SA_RESTART).
 * A program with one thread is never signalled.
 *
 * The best signal is 33, which is libc's own for setuid() and its like: libc lets nobody block it or wait
 * for it, and its handler, which still gets its own ones, ignores all others. Many programs have threads
 * that block everything else.
 *
 * Whoever stops the world holds no lock that others wait for, and calls nothing of libc that locks.
 */
#ifndef LIBREGION_WORLD_H
#define LIBREGION_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world_thread {
	int tid;
	uint32_t state;
	uintptr_t sp;      /* where it was interrupted */
	uintptr_t frame;   /* of the handler: what it has saved lies above, up to sp or on another stack */
	uintptr_t control; /* its control block, which libc puts at the upper end of its stack */
};

enum world_result {
	WORLD_STOPPED,
	WORLD_NO_LIST,   /* threads can't be listed */
	WORLD_NO_ROOM,   /* there are more than world_prepare() made room for: once more */
	WORLD_NO_SIGNAL, /* no handler can be set */
	WORLD_BLOCKED,   /* a thread blocks the signal */
	WORLD_LATE,      /* a thread didn't stop in time */
};

/* Makes room for as many threads as the last stop has seen, and more. False: out of memory. */
bool world_prepare(void);

/* Stops all threads but the calling one. Unless it says WORLD_STOPPED they go on. */
enum world_result world_stop(int signal);

/* Lets them go on. */
void world_go_on(void);

/* Those that stand still; `*count` of them. */
const struct world_thread *world_threads(size_t *count);

/* The thread that made the last stop fail, or 0. */
int world_culprit(void);

#endif
