/*
 * world.h: stopping all other threads of the process, so that memory can be searched while it stands still.
 *
 * Each thread that /proc/self/task lists is sent a signal, and waits in its handler, with all registers on
 * its stack, until the world goes on. Threads that are born meanwhile are found by listing again. Where a
 * thread blocks the signal, sleeps in the kernel, or isn't scheduled in time, the stop fails, and everybody
 * goes on: who wants one tries again later. Threads of the kernel's own (io_uring) are left out.
 *
 * The signal is sent with a value that tells ours from anybody else's: of those, whoever had a handler
 * before us gets them as before. Interrupted system calls are restarted where the kernel can (SA_RESTART).
 * A program with one thread is never signalled. It is a real-time signal, since of other ones the kernel
 * keeps one at a time: ours and the program's would be lost to each other.
 *
 * The best signal is 33, which is libc's own for setuid() and its like: libc lets nobody block it or wait
 * for it, and its handler, which still gets its own ones, ignores all others. Many programs have threads
 * that block everything else.
 *
 * Whoever stops the world holds no lock that others wait for, blocks all signals (a handler might wait for a
 * thread that stands still), and calls nothing of libc that locks.
 */
#ifndef LIBREGION_WORLD_H
#define LIBREGION_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORLD_SIGNAL_MIN 33 /* 32 is libc's, for cancellation */
#define WORLD_SIGNAL_MAX 64

struct world_thread {
	int tid;
	uint32_t state;
	uintptr_t sp;                  /* where it was interrupted; 0: it isn't there any more */
	uintptr_t registers[2];        /* its stack pointer then, and in the handler */
	uintptr_t saved_lo, saved_hi;  /* the frame of the handler, with all registers, on whichever stack */
	uintptr_t code;                /* the instruction; 0: not known */
	uintptr_t control;             /* its control block, which libc puts at the upper end of its stack */
};

enum world_result {
	WORLD_STOPPED,
	WORLD_NO_LIST,   /* threads can't be listed */
	WORLD_NO_ROOM,   /* there are more than world_prepare() made room for: once more */
	WORLD_NO_MEMORY, /* out of memory */
	WORLD_NO_SIGNAL, /* no handler can be set */
	WORLD_NO_QUEUE,  /* the signal can't be sent */
	WORLD_BLOCKED,   /* a thread blocks the signal */
	WORLD_BUSY,      /* a thread sleeps in the kernel, as in vfork() */
	WORLD_LATE,      /* a thread didn't stop in time */
};

/* Makes room for as many threads as the last stop has seen, and more. False: out of memory. */
bool world_prepare(void);

/* Stops all threads but the calling one. Unless it says WORLD_STOPPED they go on. */
enum world_result world_stop(int signal);

/* Lets them go on. */
void world_go_on(void);

/* Those that stand still, or aren't there any more; `*count` of them. */
const struct world_thread *world_threads(size_t *count);

static inline bool world_is_stopped(const struct world_thread *thread)
{
	return thread->sp != 0;
}

/* The calling thread's alternate signal stack, or 0. */
uintptr_t world_own_alternate_stack(void);

/* The thread that made the last stop fail, or 0. */
int world_culprit(void);

#endif
