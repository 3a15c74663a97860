/*
 * pagemap.h: what the kernel says of pages: PAGEMAP_SCAN, which headers of before Linux 6.7 don't have.
 */
#ifndef LIBREGION_PAGEMAP_H
#define LIBREGION_PAGEMAP_H

#include <stdint.h>
#include <sys/ioctl.h>

struct page_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pagemap_scan)

/* Flags: write-protect what matches; fail where writes can't be told. */
#define PAGEMAP_PROTECT ((uint64_t)1 << 0)
#define PAGEMAP_CHECK ((uint64_t)1 << 1)

#define PAGE_TRACKED ((uint64_t)1 << 0) /* writes to it are told asynchronously */
#define PAGE_WRITTEN ((uint64_t)1 << 1) /* not write-protected by userfaultfd */
#define PAGE_FILE ((uint64_t)1 << 2)
#define PAGE_PRESENT ((uint64_t)1 << 3)
#define PAGE_SWAPPED ((uint64_t)1 << 4) /* or another entry for what isn't present: a guard, a mark */
#define PAGE_ZERO ((uint64_t)1 << 5)
#define PAGE_GUARD ((uint64_t)1 << 8) /* since Linux 6.15 */

#endif
