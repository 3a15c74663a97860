/*
 * os.h: the contract with the kernel.
 *
 * os.c is the only file that asks the kernel for memory or tells it about memory; everything else that
 * the allocator needs from the system (time, randomness, waiting, writing a line) comes from here too.
 *
 * What holds for every function:
 *   - none allocates, none takes a lock, none changes errno;
 *   - addresses and lengths of memory are multiples of OS_PAGE unless the text says otherwise;
 *   - lengths are in bytes.
 */
#ifndef LIBREGION_OS_H
#define LIBREGION_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OS_PAGE ((size_t)4096)

/* Address space without access or commitment, aligned to a page; NULL when the kernel refuses. */
void *os_reserve(size_t bytes);

/* Makes reserved memory readable and writable. Fresh memory reads as zero. False: out of memory. */
bool os_commit(void *p, size_t bytes);

/* Takes access to committed memory away, until os_commit(); what it holds stays. False: nothing happened. */
bool os_forbid(void *p, size_t bytes);

/* Gives the pages back; the range stays committed and reads as zero. False: nothing happened. */
bool os_purge(void *p, size_t bytes);

/* The same for many stretches, with few system calls where the kernel can. How many, from the first on. */
struct os_extent {
	char *start;
	size_t bytes;
};
size_t os_purge_all(const struct os_extent *extents, size_t count);

/* Makes pages resident that are about to be written to, at less than a fault for each. A hint. */
void os_populate(void *p, size_t bytes);

/* Is every page resident? False also where it isn't known; some kernels say true of any page. */
bool os_is_resident(const void *p, size_t bytes);

/*
 * Gives the pages back, and access with them: any touch is a fault until they are committed again. False:
 * nothing happened.
 */
bool os_fence(void *p, size_t bytes);

/*
 * Moves the pages at `from` to `to`, both committed and of the same length; `from` reads as zero
 * afterwards and stays committed. Where the kernel can't, nothing happened; but older kernels may
 * have unmapped `to` by then, and if it can't be had back for certain, it is lost: not to be used again.
 */
enum os_move { OS_MOVED, OS_NOT_MOVED, OS_MOVE_LOST };
enum os_move os_move(void *from, void *to, size_t bytes);

/*
 * Replaces committed memory with fresh memory that reads as zero. Unlike os_purge it also undoes what
 * os_move does to the kernel's mappings, so that neighbours merge again.
 */
bool os_renew(void *p, size_t bytes);

/*
 * Bytes of address space that a reservation may take: half of what RLIMIT_AS leaves beside what the process
 * has, but for `own_bytes` of it; or SIZE_MAX.
 */
size_t os_reservable_bytes(size_t own_bytes);

/* prlimit(2): 0, or the negated error. */
int os_limit(int process, int resource, const void *limit, void *old);

/* Resident bytes of the process; 0 where /proc isn't there. */
size_t os_resident_bytes(void);

/*
 * The calling thread's stack, whichever stack it is running on just now, with the room that the initial
 * thread's has to grow. Without guard pages it may seem to begin lower than it does. False: not known.
 */
bool os_stack_bounds(uintptr_t *lo, uintptr_t *hi);

/* A number that nobody can guess. */
uint64_t os_random(void);

/* Milliseconds of a clock that never goes back and costs no system call. */
uint64_t os_clock_ms(void);

/* Nanoseconds of a clock that never goes back. */
uint64_t os_clock_ns(void);

/* CPU time of the calling thread, and of the process, in nanoseconds. */
uint64_t os_thread_cpu_ns(void);
uint64_t os_process_cpu_ns(void);

/* Sleeps while *word == value, or returns early; wakes one sleeper. */
void os_wait(const uint32_t *word, uint32_t value);
void os_wake(const uint32_t *word);

/* The same for so many milliseconds at most; wakes all sleepers. */
void os_wait_for(const uint32_t *word, uint32_t value, unsigned ms);
void os_wake_all(const uint32_t *word);

/* Writes all of it or gives up. Opens a file to be written anew, or to be added to: -1 on failure. */
void os_write(int fd, const char *text, size_t bytes);
int os_create(const char *path);
int os_append(const char *path);

/* Puts the file `from` in the place of `to`. */
void os_rename(const char *from, const char *to);
void os_close(int fd);

/* A second descriptor, out of the way, for the same open file; or `fd` itself where there is none. */
int os_keep_fd(int fd);

/*
 * Maps a stretch of a file to be written through the mapping, after making it as long. If the stretch is its
 * beginning, the file is made anew, in place of a regular file that is there, and `identity` set; else it
 * must be the one that has this identity. NULL: it can't be, or isn't; or the disk has no room. No descriptor
 * stays open.
 */
void *os_map_log(const char *path, size_t offset, size_t bytes, uint64_t *identity);

/* Up to `capacity` bytes from the start of a file; 0 when it can't be read. */
size_t os_read_file(const char *path, char *out, size_t capacity);

/*
 * Keeps all signals from the calling thread, libc's own too, but for one (0: none); what
 * os_unblock_signals() is to be given.
 */
uint64_t os_block_signals(int but);
void os_unblock_signals(uint64_t mask);

/* Is this a program with more rights than who runs it (AT_SECURE)? */
bool os_is_secure(void);

/* Sends the process a signal every so many milliseconds, from now on. False: the kernel refuses. */
bool os_start_timer(int signal, uint64_t ms);

int os_process_id(void);
int os_thread_id(void);
int os_parent_id(void);

/* A file's bytes, to be read only, with at least 8 zero bytes behind them; NULL when it can't be read. */
const char *os_map_file(const char *path, size_t *bytes);
void os_unmap_file(const char *p, size_t bytes);

/* Memory for a while, zeroed; NULL: none. Gives it back, or made code that nobody runs any more. */
void *os_map_scratch(size_t bytes);
void os_unmap(void *p, size_t bytes);

/*
 * For code that is made: memory, writable at first, all of which is within 1 GiB of both addresses. NULL:
 * there is no room. It is sealed to be run, and never written again.
 */
void *os_map_near(uintptr_t lo, uintptr_t hi, size_t bytes);
bool os_seal_code(void *p, size_t bytes);

/*
 * Overwrites code of this process, which stays write-protected for everybody else, without splitting its
 * mapping: a descriptor to do it with (-1: /proc isn't there, or forbids it), and one stretch of any
 * length.
 */
int os_open_code(void);
bool os_write_code(int fd, uintptr_t to, const void *from, size_t bytes);

#endif
