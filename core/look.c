/*
 * look.c: see look.h.
 */
#include "look.h"

#include <fcntl.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>

#include "os.h"
#include "pagemap.h"
#include "range.h"
#include "syscalls.h"

/* An entry of /proc/self/pagemap. */
#define ENTRY_PRESENT ((uint64_t)1 << 63)
#define ENTRY_SWAPPED ((uint64_t)1 << 62)
#define ENTRY_FILE ((uint64_t)1 << 61)
#define ENTRY_GUARD ((uint64_t)1 << 58)
#define ENTRY_PROTECTED ((uint64_t)1 << 57)

#define TEXT_BYTES 16384
#define REGION_COUNT 512
#define ENTRY_COUNT 1024
#define CORE_PAGES 4096
#define MAPPING_COUNT 2048
#define NAME_BYTES 16

/* In a longer shared mapping only pages are looked for that are in our page tables. */
#define CORE_MAX_BYTES ((size_t)1 << 30)

static struct look {
	int pagemap;          /* descriptor; -1: may not be opened */
	int memory;           /* of /proc/self/mem; -1: not opened yet */
	bool has_no_scan;     /* the kernel has refused PAGEMAP_SCAN */
	bool has_no_guards;   /* it doesn't know PAGE_GUARD */
	bool has_no_readv;    /* it has refused process_vm_readv */
	bool has_swap;        /* something is swapped out, on this machine */
	bool is_open;
	bool relies_on_swap;  /* pages were left alone because nothing is */
	size_t pages_asked;
	size_t mapping_count; /* of the list; 0: not made, or too long */
	struct windows {
		char text[TEXT_BYTES];
		struct page_region regions[REGION_COUNT];
		uint64_t entries[ENTRY_COUNT];
		unsigned char in_core[CORE_PAGES];
		struct look_mapping mappings[MAPPING_COUNT];
		char copy[LOOK_COPY_BYTES] __attribute__((aligned(64)));
	} *windows;
} look = {.pagemap = -1, .memory = -1};

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

/* /proc/thread-self/maps: "lo-hi perms offset device inode   name". */

struct reader {
	int fd;
	size_t at, filled;
	bool has_ended, has_failed;
};

static int next_char(struct reader *reader)
{
	if (reader->has_ended)
		return -1;
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

static bool has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum look_kind kind_of(const char *name)
{
	static const char *const memory[] = {"/memfd:", "/dev/zero", "/SYSV", "/dev/shm/", "/anon_hugepage"};

	if (has_prefix(name, "[v"))
		return LOOK_KERNELS;
	if (has_prefix(name, "/secretmem"))
		return LOOK_SECRET;
	if (has_prefix(name, "anon_inode:[io_") || has_prefix(name, "/[aio]"))
		return LOOK_RING;
	for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++)
		if (has_prefix(name, memory[i]))
			return LOOK_MEMORY;
	return LOOK_ANY;
}

/* The rest of the line is spaces and a name. */
static enum look_kind next_kind(struct reader *reader)
{
	char name[NAME_BYTES];
	size_t n = 0;
	int c;

	while ((c = next_char(reader)) != '\n' && c != -1)
		if (n < NAME_BYTES - 1 && (n > 0 || c != ' '))
			name[n++] = (char)c;
	name[n] = '\0';
	return kind_of(name);
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
	mapping->is_file = next_number(reader, 10) != 0;
	if (reader->has_ended)
		return false;
	/* The number may be the last thing in its line. */
	bool is_last = reader->at > 0 && look.windows->text[reader->at - 1] == '\n';
	mapping->kind = is_last ? LOOK_ANY : (uint8_t)next_kind(reader);
	return true;
}

/* Reads the list, and keeps it if there is room. */
static bool read_mappings(look_mapping_fn *fn, void *arg)
{
	/* Not self: its first thread may have ended. */
	struct reader reader = {.fd = open_file("/proc/thread-self/maps")};
	struct look_mapping mapping = {0};
	bool goes_on = true;
	size_t count = 0;

	if (reader.fd < 0)
		return false;
	for (; goes_on && next_mapping(&reader, &mapping); count++) {
		if (count < MAPPING_COUNT)
			look.windows->mappings[count] = mapping;
		goes_on = fn(&mapping, arg);
	}
	os_close(reader.fd);
	bool is_whole = goes_on && count > 0 && !reader.has_failed;
	if (is_whole && look.is_open && count <= MAPPING_COUNT)
		look.mapping_count = count;
	return is_whole;
}

bool look_mappings(look_mapping_fn *fn, void *arg)
{
	if (look.mapping_count == 0)
		return read_mappings(fn, arg);
	for (size_t i = 0; i < look.mapping_count; i++)
		if (!fn(&look.windows->mappings[i], arg))
			return false;
	return true;
}

/* Of the machine: what the kernel counts for a process isn't exact. */
static bool has_swap(void)
{
	struct sysinfo info;

	return raw_call(SYS_sysinfo, &info) != 0 || info.freeswap != info.totalswap;
}

void look_open(void)
{
	look.pages_asked = look.mapping_count = 0;
	look.is_open = true;
	look.relies_on_swap = false;
	look.has_swap = has_swap();
	/* The file is root's if the process has changed its user. */
	look.pagemap = open_file("/proc/thread-self/pagemap");
}

bool look_close(void)
{
	if (look.pagemap >= 0)
		os_close(look.pagemap);
	if (look.memory >= 0)
		os_close(look.memory);
	look.pagemap = look.memory = -1;
	look.mapping_count = 0;
	look.is_open = false;
	return !look.relies_on_swap || !has_swap();
}

int look_pagemap(void)
{
	return look.pagemap;
}

size_t look_pages_asked(void)
{
	return look.pages_asked;
}

/* Copying. */

/* As /proc/self/mem has it: also what the mapping doesn't allow to be read. Bytes; -1: no way. */
static long copy_forced(uintptr_t from, size_t bytes)
{
	if (look.memory < 0)
		look.memory = open_file("/proc/thread-self/mem");
	if (look.memory < 0)
		return -1;
	long n = raw_call(SYS_pread64, look.memory, look.windows->copy, bytes, from);
	return n > 0 ? n : 0;
}

/* Copies memory as if it were another process's: what can't be read ends the copy. Bytes; -1: no way. */
static long copy(uintptr_t from, size_t bytes, bool is_forced)
{
	struct iovec to = {.iov_base = look.windows->copy, .iov_len = bytes};
	struct iovec what = {.iov_base = (void *)from, .iov_len = bytes};

	if (is_forced || look.has_no_readv)
		return copy_forced(from, bytes);
	long n = raw_result(SYS_process_vm_readv, os_thread_id(), &to, 1, &what, 1, 0);
	if (n >= 0 || n == -EFAULT)
		return n >= 0 ? n : 0;
	look.has_no_readv = true;
	return copy_forced(from, bytes);
}

/* What somebody is to be told of. */
struct looking {
	const struct look_mapping *mapping;
	look_fn *fn;
	void *arg;
	bool counts_files; /* pages of files count as well as those that the process has written */
};

static bool copy_run(const struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	const uintptr_t window = (uintptr_t)look.windows->copy;

	while (lo < hi) {
		long n = copy(lo, hi - lo < LOOK_COPY_BYTES ? hi - lo : LOOK_COPY_BYTES,
		              !looking->mapping->is_readable);
		if (n < 0)
			return false;
		size_t bytes = (size_t)n & ~(OS_PAGE - 1);
		if (bytes > 0)
			looking->fn(window, window + bytes, lo, looking->arg);
		/* A page that can't be read is a guard, past the end of its file, or a device's. */
		lo += bytes ? bytes : OS_PAGE;
	}
	return true;
}

/* Pages. */

enum way { WAY_LEAVE, WAY_READ, WAY_COPY, WAY_NONE };

/* How a page may be read. */
static enum way way_of(const struct looking *looking, uint64_t categories)
{
	const struct look_mapping *mapping = looking->mapping;

	/* Nothing of the process's own. */
	if ((categories & PAGE_GUARD) || (!looking->counts_files && (categories & (PAGE_FILE | PAGE_ZERO))))
		return WAY_LEAVE;
	if (categories & PAGE_PRESENT) {
		if (mapping->kind == LOOK_SECRET)
			return mapping->is_readable ? WAY_READ : WAY_NONE;
		return mapping->is_readable && !(categories & PAGE_FILE) ? WAY_READ : WAY_COPY;
	}
	if (!(categories & PAGE_SWAPPED))
		return WAY_LEAVE;
	if (categories & PAGE_WRITTEN)
		return WAY_COPY;
	/* Swapped out, or a mark of userfaultfd's where no page is, which to read may never end. */
	look.relies_on_swap |= !look.has_swap;
	return look.has_swap ? WAY_NONE : WAY_LEAVE;
}

static bool look_at_run(const struct looking *looking, uintptr_t lo, uintptr_t hi, uint64_t categories)
{
	switch (way_of(looking, categories)) {
	case WAY_READ:
		looking->fn(lo, hi, lo, looking->arg);
		return true;
	case WAY_COPY:
		return copy_run(looking, lo, hi);
	case WAY_NONE:
		return false;
	case WAY_LEAVE:
		break;
	}
	return true;
}

enum answer { ANSWER_NONE, ANSWER_FAILED, ANSWER_DONE };

static long scan_once(struct pagemap_scan *scan, bool counts_files)
{
	uint64_t out = look.has_no_guards ? 0 : PAGE_GUARD;

	if (!counts_files)
		out |= PAGE_FILE | PAGE_ZERO;
	scan->category_inverted = scan->category_mask = out;
	long n = raw_result(SYS_ioctl, look.pagemap, PAGEMAP_SCAN, scan);
	if (n != -EINVAL || look.has_no_guards)
		return n;
	look.has_no_guards = true;
	return scan_once(scan, counts_files);
}

/* None: the kernel has no such call; nothing has happened. */
static enum answer scan_pages(const struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	struct page_region *regions = look.windows->regions;
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.vec = (uintptr_t)regions,
		.vec_len = REGION_COUNT,
		.end = hi,
		.category_anyof_mask = PAGE_PRESENT | PAGE_SWAPPED,
		.return_mask = PAGE_PRESENT | PAGE_SWAPPED | PAGE_WRITTEN | PAGE_FILE,
	};

	for (scan.start = lo; scan.start < hi; scan.start = scan.walk_end) {
		long n = scan_once(&scan, looking->counts_files);
		if (n < 0)
			return scan.start == lo ? ANSWER_NONE : ANSWER_FAILED;
		for (long i = 0; i < n; i++)
			if (!look_at_run(looking, regions[i].start, regions[i].end, regions[i].categories))
				return ANSWER_FAILED;
	}
	return ANSWER_DONE;
}

static uint64_t categories_of(uint64_t entry)
{
	return (entry & ENTRY_PRESENT ? PAGE_PRESENT : 0) | (entry & ENTRY_SWAPPED ? PAGE_SWAPPED : 0) |
	       (entry & ENTRY_FILE ? PAGE_FILE : 0) | (entry & ENTRY_GUARD ? PAGE_GUARD : 0) |
	       (entry & ENTRY_PROTECTED ? 0 : PAGE_WRITTEN);
}

/* Pages of one kind next to each other, found one by one. */
struct run {
	uintptr_t lo;
	uint64_t categories;
};

static bool run_goes_on(const struct looking *looking, struct run *run, uintptr_t at, uint64_t categories)
{
	if (categories == run->categories)
		return true;
	struct run ended = *run;
	*run = (struct run){at, categories};
	return at == ended.lo || look_at_run(looking, ended.lo, at, ended.categories);
}

/* None: the kernel doesn't tell. */
static enum answer read_entries(const struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	const uint64_t *entries = look.windows->entries;
	struct run run = {lo, 0};

	for (uintptr_t at = lo; at < hi;) {
		size_t left = (hi - at) / OS_PAGE, count = left < ENTRY_COUNT ? left : ENTRY_COUNT;
		long n = raw_call(SYS_pread64, look.pagemap, look.windows->entries, count * sizeof(entries[0]),
		                  at / OS_PAGE * sizeof(entries[0]));
		if (n < (long)sizeof(entries[0]))
			return at == lo ? ANSWER_NONE : ANSWER_FAILED;
		count = (size_t)n / sizeof(entries[0]);
		look.pages_asked += count;
		for (size_t i = 0; i < count; i++, at += OS_PAGE)
			if (!run_goes_on(looking, &run, at, categories_of(entries[i])))
				return ANSWER_FAILED;
	}
	return run_goes_on(looking, &run, hi, ~run.categories) ? ANSWER_DONE : ANSWER_FAILED;
}

/* What is in memory, ours or the file's. None: the kernel doesn't tell. */
static enum answer ask_core(const struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	unsigned char *in_core = look.windows->in_core;
	const uint64_t there = PAGE_PRESENT | (looking->mapping->is_file ? PAGE_FILE : 0);
	struct run run = {lo, 0};

	for (uintptr_t at = lo; at < hi;) {
		size_t left = (hi - at) / OS_PAGE, pages = left < CORE_PAGES ? left : CORE_PAGES;
		if (raw_call(SYS_mincore, at, pages * OS_PAGE, in_core) != 0)
			return at == lo ? ANSWER_NONE : ANSWER_FAILED;
		look.pages_asked += pages;
		for (size_t i = 0; i < pages; i++, at += OS_PAGE)
			if (!run_goes_on(looking, &run, at, in_core[i] & 1 ? there : 0))
				return ANSWER_FAILED;
	}
	return run_goes_on(looking, &run, hi, ~run.categories) ? ANSWER_DONE : ANSWER_FAILED;
}

/* By the page tables. */
static enum answer ask_tables(const struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	if (look.pagemap < 0)
		return ANSWER_NONE;
	if (!look.has_no_scan) {
		enum answer answer = scan_pages(looking, lo, hi);
		if (answer != ANSWER_NONE)
			return answer;
		look.has_no_scan = true;
	}
	return read_entries(looking, lo, hi);
}

static bool look_private(struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	enum answer answer = ask_tables(looking, lo, hi);

	if (answer != ANSWER_NONE || look.has_swap)
		return answer == ANSWER_DONE;
	/* Not in memory and not swapped out is not there. Of a file's pages it isn't known which were written. */
	look.relies_on_swap = looking->counts_files = true;
	return ask_core(looking, lo, hi) == ANSWER_DONE;
}

static bool look_shared(struct looking *looking, uintptr_t lo, uintptr_t hi)
{
	bool asks_core = looking->mapping->kind == LOOK_MEMORY && hi - lo <= CORE_MAX_BYTES;

	looking->counts_files = true;
	if (asks_core && ask_core(looking, lo, hi) == ANSWER_DONE)
		return true;
	enum answer answer = ask_tables(looking, lo, hi);
	return answer == ANSWER_NONE ? ask_core(looking, lo, hi) == ANSWER_DONE : answer == ANSWER_DONE;
}

bool look_pages(const struct look_mapping *mapping, uintptr_t lo, uintptr_t hi, look_fn *fn, void *arg)
{
	struct looking looking = {.mapping = mapping, .fn = fn, .arg = arg};
	bool is_in_memory = mapping->kind == LOOK_MEMORY || mapping->kind == LOOK_SECRET;

	if (lo >= hi || mapping->kind == LOOK_KERNELS)
		return true;
	if (mapping->is_shared)
		return (!is_in_memory && !mapping->is_writable) || look_shared(&looking, lo, hi);
	if (!look_private(&looking, lo, hi))
		return false;
	/* What others write to a memory file may show in a private view of it. */
	return !is_in_memory || look_shared(&looking, lo, hi);
}
