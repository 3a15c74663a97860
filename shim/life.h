/*
 * life.h: the life cycle of the process and its threads.
 *
 * The first allocation starts the library: the loader allocates before any constructor runs. What needs
 * libc to be set up (fork handlers, the key that tells of a thread's end) waits for the constructor.
 */
#ifndef LIBREGION_LIFE_H
#define LIBREGION_LIFE_H

#include <stdbool.h>
#include <stdint.h>

/* A longjmp of the calling thread with this buffer is about to happen. */
void life_before_longjmp(const void *jump_buffer);

/* Is the calling process's memory its own, and not that of a parent in vfork()? */
bool life_is_own_memory(void);

/* libc's own longjmp by the name it has there, or NULL. */
typedef void life_longjmp(void *jump_buffer, int value);
enum { LIFE_LONGJMP, LIFE__LONGJMP, LIFE_SIGLONGJMP, LIFE_LONGJMP_CHK, LIFE_LONGJMP_COUNT };
life_longjmp *life_next_longjmp(unsigned which);

#endif
