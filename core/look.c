/*
 * look.c: see look.h.
 */
#include "look.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "os.h"
#include "range.h"
#include "syscalls.h"

/* PAGEMAP_SCAN, which headers of before Linux 6.7 don't have. */
struct page_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pagemap_scan)
#define PAGE_FILE ((uint64_t)1 << 2)
#define PAGE_PRESENT ((uint64_t)1 << 3)
#define PAGE_SWAPPED ((uint64_t)1 << 4)
#define PAGE_ZERO ((uint64_t)1 << 5)

/* An entry of /proc/self/pagemap. */
#define ENTRY_PRESENT ((uint64_t)1 << 63)
#define ENTRY_SWAPPED ((uint64_t)1 << 62)
#define ENTRY_FILE ((uint64_t)1 << 61)

#define TEXT_BYTES 16384
#define REGION_COUNT 512
#define ENTRY_COUNT 1024
#define CORE_PAGES 4096

static struct look {
	int pagemap;       /* descriptor */
	bool has_no_scan;  /* the kernel has refused PAGEMAP_SCAN */
	bool has_no_readv; /* and process_vm_readv */
	struct windows {
		char text[TEXT_BYTES];
		struct page_region regions[REGION_COUNT];
		uint64_t entries[ENTRY_COUNT];
		unsigned char in_core[CORE_PAGES];
		char copy[LOOK_COPY_BYTES] __attribute__((aligned(64)));
	} *windows;
} look = {.pagemap = -1};

bool look_start(void)
{
	if (!look.windows)
		look.windows = range_meta_alloc(sizeof(*look.windows));
	return look.windows != NULL;
}

static int open_file(const char *path)
{
	return (int)raw_call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

/* /proc/self/maps: "lo-hi perms offset device inode   name". */

struct reader {
	int fd;
	size_t at, filled;
	bool has_ended, has_failed;
};

static int next_char(struct reader *reader)
{
	if (reader->at == reader->filled) {
		long n = raw_call(SYS_read, reader->fd, look.windows->text, sizeof(look.windows->text));
		if (n <= 0) {
			reader->has_ended = true;
			reader->has_failed |= n < 0;
			return -1;
		}
		reader->filled = (size_t)n;
		reader->at = 0;
	}
	return (unsigned char)look.windows->text[reader->at++];
}

/* A number, and the one character behind it. */
static uint64_t next_number(struct reader *reader, unsigned base)
{
	uint64_t value = 0;

	for (;;) {
		int c = next_char(reader);
		unsigned digit = c >= 'a' ? (unsigned)c - 'a' + 10 : (unsigned)c - '0';
		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

static void skip_word(struct reader *reader)
{
	int c;

	while ((c = next_char(reader)) != ' ' && c != '\n' && c != -1)
		continue;
}

/* The rest of the line without the spaces before it; of one that is too long, the end. */
static bool next_name(struct reader *reader, char *name)
{
	size_t n = 0;
	int c;

	while ((c = next_char(reader)) != '\n' && c != -1) {
		if (n == 0 && c == ' ')
			continue;
		if (n == LOOK_NAME_BYTES - 1)
			memmove(name, name + 1, --n);
		name[n++] = (char)c;
	}
	name[n] = '\0';
	return c == '\n';
}

static bool next_mapping(struct reader *reader, struct look_mapping *mapping)
{
	mapping->lo = next_number(reader, 16);
	mapping->hi = next_number(reader, 16);
	mapping->is_readable = next_char(reader) == 'r';
	mapping->is_writable = next_char(reader) == 'w';
	mapping->is_executable = next_char(reader) == 'x';
	mapping->is_shared = next_char(reader) == 's';
	next_char(reader);
	skip_word(reader);
	skip_word(reader);
	mapping->inode = next_number(reader, 10);
	if (reader->has_ended)
		return false;
	/* The number may be the last thing in its line. */
	if (reader->at > 0 && look.windows->text[reader->at - 1] == '\n') {
		mapping->name[0] = '\0';
		return true;
	}
	return next_name(reader, mapping->name);
}

bool look_mappings(look_mapping_fn *fn, void *arg)
{
	struct reader reader = {.fd = open_file("/proc/self/maps")};
	struct look_mapping mapping = {0};
	uintptr_t guard_lo = 0, guard_hi = 0;
	bool goes_on = true, has_any = false;

	if (reader.fd < 0)
		return false;
	while (goes_on && next_mapping(&reader, &mapping)) {
		has_any = true;
		mapping.guard_bytes = guard_hi == mapping.lo ? guard_hi - guard_lo : 0;
		goes_on = fn(&mapping, arg);
		guard_lo = mapping.lo;
		guard_hi = mapping.is_readable || mapping.is_writable ? 0 : mapping.hi;
	}
	os_close(reader.fd);
	return goes_on && has_any && !reader.has_failed;
}

/* Private pages. */

bool look_open(void)
{
	look.pagemap = open_file("/proc/self/pagemap");
	return look.pagemap >= 0;
}

void look_close(void)
{
	os_close(look.pagemap);
	look.pagemap = -1;
}

/* False: the kernel has no such call; nothing has happened. */
static bool scan_pages(uintptr_t lo, uintptr_t hi, look_pages_fn *fn, void *arg)
{
	struct page_region *regions = look.windows->regions;
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.vec = (uintptr_t)regions,
		.vec_len = REGION_COUNT,
		.end = hi,
		.category_inverted = PAGE_FILE | PAGE_ZERO,
		.category_mask = PAGE_FILE | PAGE_ZERO,
		.category_anyof_mask = PAGE_PRESENT | PAGE_SWAPPED,
		.return_mask = PAGE_PRESENT | PAGE_SWAPPED,
	};

	for (scan.start = lo; scan.start < hi; scan.start = scan.walk_end) {
		long n = raw_call(SYS_ioctl, look.pagemap, PAGEMAP_SCAN, &scan);
		if (n < 0)
			return false;
		for (long i = 0; i < n; i++)
			fn(regions[i].start, regions[i].end, arg);
	}
	return true;
}

/* False: the kernel doesn't tell. */
static bool read_entries(uintptr_t lo, uintptr_t hi, look_pages_fn *fn, void *arg)
{
	const uint64_t *entries = look.windows->entries;
	uintptr_t begin = 0;

	while (lo < hi) {
		size_t left = (hi - lo) / OS_PAGE, count = left < ENTRY_COUNT ? left : ENTRY_COUNT;
		long n = raw_call(SYS_pread64, look.pagemap, look.windows->entries, count * sizeof(entries[0]),
		                  lo / OS_PAGE * sizeof(entries[0]));
		if (n <= 0)
			return false;
		count = (size_t)n / sizeof(entries[0]);
		for (size_t i = 0; i < count; i++, lo += OS_PAGE) {
			bool is_written = (entries[i] & (ENTRY_PRESENT | ENTRY_SWAPPED)) && !(entries[i] & ENTRY_FILE);
			if (is_written && !begin)
				begin = lo;
			if (!is_written && begin) {
				fn(begin, lo, arg);
				begin = 0;
			}
		}
	}
	if (begin)
		fn(begin, hi, arg);
	return true;
}

bool look_private(uintptr_t lo, uintptr_t hi, look_pages_fn *fn, void *arg)
{
	if (!look.has_no_scan && scan_pages(lo, hi, fn, arg))
		return true;
	look.has_no_scan = true;
	return read_entries(lo, hi, fn, arg);
}

/* Shared pages. */

/* Copies memory as if it were another process's: what can't be read ends the copy. Bytes; -1: no way. */
static long copy(uintptr_t from, size_t bytes)
{
	struct iovec to = {.iov_base = look.windows->copy, .iov_len = bytes};
	struct iovec what = {.iov_base = (void *)from, .iov_len = bytes};
	long n = look.has_no_readv ? -EPERM
	                           : raw_result(SYS_process_vm_readv, os_process_id(), &to, 1, &what, 1, 0);

	if (n >= 0 || n == -EFAULT)
		return n >= 0 ? n : 0;
	look.has_no_readv = true;
	int fd = open_file("/proc/self/mem");
	if (fd < 0)
		return -1;
	n = raw_call(SYS_pread64, fd, to.iov_base, bytes, from);
	os_close(fd);
	return n > 0 ? n : 0;
}

static bool copy_run(uintptr_t lo, uintptr_t hi, look_copy_fn *fn, void *arg)
{
	const uintptr_t window = (uintptr_t)look.windows->copy;

	while (lo < hi) {
		long n = copy(lo, hi - lo < LOOK_COPY_BYTES ? hi - lo : LOOK_COPY_BYTES);
		if (n < 0)
			return false;
		size_t bytes = (size_t)n & ~(OS_PAGE - 1);
		if (bytes > 0)
			fn(window, window + bytes, lo, arg);
		/* A page that can't be read is past the end of its file, or a device's. */
		lo += bytes ? bytes : OS_PAGE;
	}
	return true;
}

bool look_shared(uintptr_t lo, uintptr_t hi, look_copy_fn *fn, void *arg)
{
	unsigned char *in_core = look.windows->in_core;

	for (size_t pages; lo < hi; lo += pages * OS_PAGE) {
		pages = (hi - lo) / OS_PAGE < CORE_PAGES ? (hi - lo) / OS_PAGE : CORE_PAGES;
		/* If the kernel doesn't say, all are taken to be there. */
		if (raw_call(SYS_mincore, lo, pages * OS_PAGE, in_core) != 0)
			memset(in_core, 1, pages);
		for (size_t i = 0, n; i < pages; i = n + 1) {
			for (n = i; n < pages && (in_core[n] & 1); n++)
				continue;
			if (!copy_run(lo + i * OS_PAGE, lo + n * OS_PAGE, fn, arg))
				return false;
		}
	}
	return true;
}
