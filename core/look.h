/*
 * look.h: what other memory there is in the process, and reading it without faults.
 *
 * A search for pointers must look at memory that isn't ours: stacks, data of modules, thread-local
 * storage, whatever the program has mapped. All of it is in /proc/thread-self/maps, which, unlike the
 * loader's own list, needs no lock that a stopped thread might hold.
 *
 * look_pages() alone decides which pages of a mapping count, and how each may be read:
 *
 *   private    pages that the process has written, whatever the mapping allows now. The kernel tells which
 *              (PAGEMAP_SCAN since Linux 6.7, /proc's pagemap before, mincore where that is forbidden)
 *   shared     pages of memory that has no file on a disk (memory files, shared anonymous memory); of
 *              files on disks those that are mapped to be written, and are in our page tables
 *
 * A page is read where it is only if it is in memory, can't go away, and the mapping is readable. Any
 * other one is copied by the kernel, which says so if it can't be read: guard pages, poisoned ones, what
 * lies behind the end of a file.
 *
 * Nothing here allocates, takes a lock or changes errno. For one thread at a time: there is one window, so
 * whoever is called back calls nothing here.
 */
#ifndef LIBREGION_LOOK_H
#define LIBREGION_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a mapping's name says of it. */
enum look_kind {
	LOOK_ANY,
	LOOK_KERNELS, /* [vdso] and its like: nothing of the process's */
	LOOK_MEMORY,  /* a file that is only memory: memfd, shared anonymous, System V, /dev/shm */
	LOOK_RING,    /* of io_uring or libaio, through which the kernel writes to pages that it has pinned */
	LOOK_SECRET,  /* memfd_secret(): the kernel itself doesn't copy it, and nobody can make it shorter */
};

struct look_mapping {
	uintptr_t lo, hi;
	bool is_readable, is_writable, is_executable, is_shared, is_file;
	uint8_t kind; /* enum look_kind */
};

/* Memory for the windows, once, before any other call. False: none. */
bool look_start(void);

/*
 * Calls fn for every mapping, lowest first, until it returns false. The list is made once between look_open()
 * and look_close(), unless it is very long. False: fn said so, or /proc can't be read.
 */
typedef bool look_mapping_fn(const struct look_mapping *mapping, void *arg);
bool look_mappings(look_mapping_fn *fn, void *arg);

/* Around calls of look_pages. False: what it has said may be wrong: pages were swapped out meanwhile. */
void look_open(void);
bool look_close(void);

/* The descriptor of /proc/thread-self/pagemap, from look_open() to look_close(); -1: it may not be opened. */
int look_pagemap(void);

/*
 * Calls fn for the pages from lo to hi, part of the mapping, that count. What lies at `at` is to be read from
 * lo to hi: `lo` is `at`, or where a copy of it is, of LOOK_COPY_BYTES at most. False: it isn't known which
 * pages count, or there is no way to read them.
 */
#define LOOK_COPY_BYTES ((size_t)64 << 10)
typedef void look_fn(uintptr_t lo, uintptr_t hi, uintptr_t at, void *arg);
bool look_pages(const struct look_mapping *mapping, uintptr_t lo, uintptr_t hi, look_fn *fn, void *arg);

/* Pages that were asked about since look_open(), where that takes time for each. */
size_t look_pages_asked(void);

#endif
