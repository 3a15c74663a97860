/*
 * look.h: what other memory there is in the process, and reading it without faults.
 *
 * A search for pointers must look at memory that isn't ours: stacks, data of modules, thread-local
 * storage, whatever the program has mapped. All of it is in /proc/self/maps, which, unlike the loader's
 * own list, needs no lock that a stopped thread might hold.
 *
 * Of a private mapping only pages matter that the process has written: the others are zero, or what a
 * file says. The kernel tells which (PAGEMAP_SCAN since Linux 6.7, /proc/self/pagemap before). They can be
 * read as they are, since no thread is there to unmap them meanwhile. A page of a shared mapping can go
 * away at any time, with the end of its file, so these are copied by the kernel.
 *
 * Nothing here allocates, takes a lock or changes errno. For one thread at a time: there is one window.
 */
#ifndef LIBREGION_LOOK_H
#define LIBREGION_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOOK_NAME_BYTES 64

struct look_mapping {
	uintptr_t lo, hi;
	bool is_readable, is_writable, is_executable, is_shared;
	size_t guard_bytes;          /* of a mapping below that touches it and can't be accessed */
	uint64_t inode;              /* 0: no file */
	char name[LOOK_NAME_BYTES];  /* its end, if it is longer; "" if it has none */
};

/* Memory for the windows, once, before any other call. False: none. */
bool look_start(void);

/* Calls fn for every mapping, lowest first, until it returns false. False: it did, or /proc can't be read. */
typedef bool look_mapping_fn(const struct look_mapping *mapping, void *arg);
bool look_mappings(look_mapping_fn *fn, void *arg);

/* Around calls of look_private. False: /proc can't be read. */
bool look_open(void);
void look_close(void);

/*
 * Calls fn for the pages from lo to hi, of a private mapping, that the process has written, in memory or
 * swapped out. False: not known.
 */
typedef void look_pages_fn(uintptr_t lo, uintptr_t hi, void *arg);
bool look_private(uintptr_t lo, uintptr_t hi, look_pages_fn *fn, void *arg);

/*
 * Calls fn with copies of the pages from lo to hi, of a shared mapping, that are in memory, in pieces
 * of LOOK_COPY_BYTES at most; `lo` and `hi` are where the copy lies, `at` is what it is a copy of. False:
 * there is no way to read them.
 */
#define LOOK_COPY_BYTES ((size_t)64 << 10)
typedef void look_copy_fn(uintptr_t lo, uintptr_t hi, uintptr_t at, void *arg);
bool look_shared(uintptr_t lo, uintptr_t hi, look_copy_fn *fn, void *arg);

#endif
