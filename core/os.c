/*
 * os.c: the system calls behind os.h, and the only place where memory is asked for.
 *
 * Everything goes through raw_call(): the system call with errno kept, because free() must not change it
 * and because malloc() is called before libc's own wrappers are safe to enter everywhere.
 */
#include "os.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "syscalls.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Above what programs number their descriptors from. */
#define KEPT_FD_MIN 200

/* In place of a descriptor, this process; since Linux 6.14. */
#define THIS_PROCESS (-10001)

/* For so few it isn't worth asking whether the kernel takes many at once. */
#define PURGE_MANY 4

static struct os {
	bool cannot_purge_many; /* the kernel has refused once; it isn't asked again */
	bool cannot_populate;
	char auxv_path[sizeof("/proc/self/auxv")]; /* here, where no page of strings is needed for it */
} os = {.auxv_path = "/proc/self/auxv"};

void *os_reserve(size_t bytes)
{
	long p = raw_call(SYS_mmap, NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	                  -1, 0L);

	return p == -1 ? NULL : (void *)p;
}

bool os_commit(void *p, size_t bytes)
{
	return raw_call(SYS_mprotect, p, bytes, PROT_READ | PROT_WRITE) == 0;
}

bool os_forbid(void *p, size_t bytes)
{
	return raw_call(SYS_mprotect, p, bytes, PROT_NONE) == 0;
}

bool os_purge(void *p, size_t bytes)
{
	return raw_call(SYS_madvise, p, bytes, MADV_DONTNEED) == 0;
}

static_assert(sizeof(struct os_extent) == sizeof(struct iovec) &&
              offsetof(struct os_extent, bytes) == offsetof(struct iovec, iov_len), "the kernel reads them");

/* A sandbox may end who makes a call that it doesn't know. */
static bool is_in_sandbox(void)
{
	return raw_call(SYS_prctl, PR_GET_SECCOMP) != 0;
}

/*
 * Since Linux 6.13 a process may do that to itself. It costs a quarter, because the processors' caches of
 * page tables are flushed once for all.
 */
static bool purge_many(const struct os_extent *extents, size_t count)
{
	size_t bytes = 0;

	if (count < PURGE_MANY || count > IOV_MAX || __atomic_load_n(&os.cannot_purge_many, __ATOMIC_RELAXED))
		return false;
	if (is_in_sandbox())
		return false;
	for (size_t i = 0; i < count; i++)
		bytes += extents[i].bytes;
	long done = raw_call(SYS_process_madvise, THIS_PROCESS, extents, count, MADV_DONTNEED, 0);
	if (done == -1)
		__atomic_store_n(&os.cannot_purge_many, true, __ATOMIC_RELAXED);
	return done == (long)bytes;
}

size_t os_purge_all(const struct os_extent *extents, size_t count)
{
	if (purge_many(extents, count))
		return count;
	for (size_t i = 0; i < count; i++)
		if (!os_purge(extents[i].start, extents[i].bytes))
			return i;
	return count;
}

void os_populate(void *p, size_t bytes)
{
	/* Since Linux 5.14. */
	if (!__atomic_load_n(&os.cannot_populate, __ATOMIC_RELAXED) &&
	    raw_call(SYS_madvise, p, bytes, MADV_POPULATE_WRITE) == -1)
		__atomic_store_n(&os.cannot_populate, true, __ATOMIC_RELAXED);
}

bool os_is_resident(const void *p, size_t bytes)
{
	unsigned char pages[512];

	if (is_in_sandbox())
		return false;
	for (size_t at = 0; at < bytes; at += sizeof(pages) * OS_PAGE) {
		size_t left = bytes - at < sizeof(pages) * OS_PAGE ? bytes - at : sizeof(pages) * OS_PAGE;
		if (raw_call(SYS_mincore, (const char *)p + at, left, pages) != 0)
			return false;
		for (size_t i = 0; i < left / OS_PAGE; i++)
			if (!(pages[i] & 1))
				return false;
	}
	return true;
}

bool os_fence(void *p, size_t bytes)
{
	return raw_call(SYS_mmap, p, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
	                -1, 0L) != -1;
}

enum os_move os_move(void *from, void *to, size_t bytes)
{
	if (raw_call(SYS_mremap, from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) != -1)
		return OS_MOVED;
	/* Refused if something is mapped there: what was there before, or what another thread has put there. */
	long again = raw_call(SYS_mmap, to, bytes, PROT_READ | PROT_WRITE,
	                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0L);
	return again == (long)to ? OS_NOT_MOVED : OS_MOVE_LOST;
}

bool os_renew(void *p, size_t bytes)
{
	return raw_call(SYS_mmap, p, bytes, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0L) != -1;
}

/* A decimal or hexadecimal number at *text, which moves past it. */
static size_t scan_number(const char **text, unsigned base)
{
	size_t value = 0;

	for (;; (*text)++) {
		unsigned c = (unsigned char)**text;
		unsigned digit = c >= 'a' ? c - 'a' + 10 : c - '0';

		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

/* A field of /proc/self/statm: 0 is the address space, 1 the resident set, both in bytes here. */
static size_t statm_bytes(unsigned field)
{
	char text[128];
	const char *at = text;
	size_t pages;

	text[os_read_file("/proc/self/statm", text, sizeof(text) - 1)] = '\0';
	do {
		pages = scan_number(&at, 10);
	} while (field-- > 0 && *at++ == ' ');
	return pages * OS_PAGE;
}

size_t os_reservable_bytes(size_t own_bytes)
{
	struct rlimit limit;

	if (raw_call(SYS_prlimit64, 0, RLIMIT_AS, NULL, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	size_t used = statm_bytes(0);
	used = used > own_bytes ? used - own_bytes : 0;
	return limit.rlim_cur > used ? (limit.rlim_cur - used) / 2 : 0;
}

int os_limit(int process, int resource, const void *limit, void *old)
{
	return (int)raw_result(SYS_prlimit64, process, resource, limit, old);
}

size_t os_resident_bytes(void)
{
	return statm_bytes(1);
}

/*
 * One line of /proc/self/maps starts "lo-hi perms". The file is read through a small window, since it
 * can be long and there is no heap to put it in.
 */
struct maps_reader {
	int fd;
	size_t at, filled;
	char window[1024];
};

static int maps_next_char(struct maps_reader *reader)
{
	if (reader->at == reader->filled) {
		long n = raw_call(SYS_read, reader->fd, reader->window, sizeof(reader->window));
		if (n <= 0)
			return -1;
		reader->filled = (size_t)n;
		reader->at = 0;
	}
	return (unsigned char)reader->window[reader->at++];
}

static bool maps_next_range(struct maps_reader *reader, uintptr_t *lo, uintptr_t *hi)
{
	char line[40];
	size_t n = 0;
	int c;

	while ((c = maps_next_char(reader)) != -1 && c != '\n')
		if (n < sizeof(line) - 1)
			line[n++] = (char)c;
	line[n] = '\0';
	const char *at = line;
	*lo = scan_number(&at, 16);
	if (*at++ != '-')
		return false;
	*hi = scan_number(&at, 16);
	return true;
}

/* The first mapping that holds an address, and the end of the one below it. */
static bool find_mapping(uintptr_t address, uintptr_t *lo, uintptr_t *hi, uintptr_t *below)
{
	struct maps_reader reader = {.fd = (int)raw_call(SYS_openat, AT_FDCWD, "/proc/self/maps",
	                                                 O_RDONLY | O_CLOEXEC)};
	bool found = false;

	if (reader.fd < 0)
		return false;
	for (*below = 0; !found && maps_next_range(&reader, lo, hi);) {
		found = address >= *lo && address < *hi;
		*below = found ? *below : *hi;
	}
	os_close(reader.fd);
	return found;
}

bool os_stack_bounds(uintptr_t *lo, uintptr_t *hi)
{
	bool is_initial = raw_call(SYS_gettid) == raw_call(SYS_getpid);
	/* What lies at the top of the stack: what exec left there, or the thread's control block. */
	uintptr_t anchor = is_initial ? (uintptr_t)getauxval(AT_RANDOM) : (uintptr_t)pthread_self();
	uintptr_t below;

	if (!anchor || !find_mapping(anchor, lo, hi, &below))
		return false;
	if (is_initial)
		*lo = below;
	else
		*hi = anchor;
	return true;
}

uint64_t os_random(void)
{
	uint64_t number = os_clock_ns();

	if (raw_call(SYS_getrandom, &number, sizeof(number), GRND_NONBLOCK) != sizeof(number))
		number ^= *(const uint64_t *)getauxval(AT_RANDOM) * 0x9e3779b97f4a7c15u;
	return number;
}

uint64_t os_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t os_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec used = {0};

	raw_call(SYS_clock_gettime, clock, &used);
	return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

uint64_t os_thread_cpu_ns(void)
{
	return cpu_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t os_process_cpu_ns(void)
{
	return cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void os_wait(const uint32_t *word, uint32_t value)
{
	raw_call(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void os_wake(const uint32_t *word)
{
	raw_call(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void os_wait_for(const uint32_t *word, uint32_t value, unsigned ms)
{
	struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	raw_call(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &limit, NULL, 0);
}

void os_wake_all(const uint32_t *word)
{
	raw_call(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void os_write(int fd, const char *text, size_t bytes)
{
	while (bytes > 0) {
		long n = raw_call(SYS_write, fd, text, bytes);
		if (n <= 0)
			return;
		text += n;
		bytes -= (size_t)n;
	}
}

int os_create(const char *path)
{
	return (int)raw_call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

int os_append(const char *path)
{
	return (int)raw_call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

void os_rename(const char *from, const char *to)
{
	raw_call(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Whoever has mapped a file that is there already may go on with it: it is replaced, not made shorter. */
static int create_log(const char *path)
{
	struct stat old;

	if (raw_call(SYS_lstat, path, &old) == 0 &&
	    (!S_ISREG(old.st_mode) || raw_call(SYS_unlink, path) != 0))
		return -1;
	return (int)raw_call(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
}

static int open_log(const char *path, uint64_t identity)
{
	int fd = (int)raw_call(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat now;

	if (fd < 0 || (raw_call(SYS_fstat, fd, &now) == 0 && now.st_ino == identity))
		return fd;
	os_close(fd);
	return -1;
}

/* The blocks are there before anybody writes to them: a full disk would be a SIGBUS. */
void *os_map_log(const char *path, size_t offset, size_t bytes, uint64_t *identity)
{
	int fd = offset == 0 ? create_log(path) : open_log(path, *identity);
	struct stat now;
	long p = -1;

	if (fd < 0)
		return NULL;
	if (raw_call(SYS_fstat, fd, &now) == 0 && raw_call(SYS_fallocate, fd, 0, offset, bytes) == 0)
		p = raw_call(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	*identity = now.st_ino;
	os_close(fd);
	return p == -1 ? NULL : (void *)p;
}

void os_close(int fd)
{
	raw_call(SYS_close, fd);
}

int os_keep_fd(int fd)
{
	long kept = raw_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, KEPT_FD_MIN);

	return kept < 0 ? fd : (int)kept;
}

size_t os_read_file(const char *path, char *out, size_t capacity)
{
	int fd = (int)raw_call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	size_t total = 0;

	if (fd < 0)
		return 0;
	while (total < capacity) {
		long n = raw_call(SYS_read, fd, out + total, capacity - total);
		if (n <= 0)
			break;
		total += (size_t)n;
	}
	os_close(fd);
	return total;
}

uint64_t os_block_signals(int but)
{
	uint64_t before = 0, all = ~(but ? UINT64_C(1) << (but - 1) : 0);

	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
	return before;
}

void os_unblock_signals(uint64_t mask)
{
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

/* getauxval() knows as well, and lies among code of libc that a small program has no other use for. */
bool os_is_secure(void)
{
	unsigned long words[64];
	size_t count = os_read_file(os.auxv_path, (char *)words, sizeof(words)) / sizeof(words[0]);

	for (size_t i = 0; i + 1 < count; i += 2)
		if (words[i] == AT_SECURE)
			return words[i + 1] != 0;
	return getauxval(AT_SECURE) != 0;
}

bool os_start_timer(int signal, uint64_t ms)
{
	struct timespec period = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
	struct itimerspec times = {.it_value = period, .it_interval = period};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
	int timer = 0;

	return raw_call(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0 &&
	       raw_call(SYS_timer_settime, timer, 0, &times, NULL) == 0;
}

int os_process_id(void)
{
	return (int)raw_call(SYS_getpid);
}

int os_thread_id(void)
{
	return (int)raw_call(SYS_gettid);
}

int os_parent_id(void)
{
	return (int)raw_call(SYS_getppid);
}

/* Files and code. */

const char *os_map_file(const char *path, size_t *bytes)
{
	int fd = (int)raw_call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long end = fd < 0 ? -1 : raw_call(SYS_lseek, fd, 0L, SEEK_END);
	long p = -1;

	/* Reserved with a page more, so that there is something behind a file of whole pages. */
	if (end > 0)
		p = raw_call(SYS_mmap, NULL, (size_t)end + OS_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
		             -1, 0L);
	if (p != -1 && raw_call(SYS_mmap, p, (size_t)end, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0L) == -1) {
		os_unmap_file((const char *)p, (size_t)end);
		p = -1;
	}
	if (fd >= 0)
		os_close(fd);
	*bytes = p == -1 ? 0 : (size_t)end;
	return p == -1 ? NULL : (const char *)p;
}

void *os_map_scratch(size_t bytes)
{
	long p = raw_call(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);

	return p == -1 ? NULL : (void *)p;
}

void os_unmap_file(const char *p, size_t bytes)
{
	raw_call(SYS_munmap, p, bytes + OS_PAGE);
}

void os_unmap(void *p, size_t bytes)
{
	raw_call(SYS_munmap, p, bytes);
}

#define NEAR_BYTES ((uintptr_t)1 << 30)
#define LOWEST_MAP ((uintptr_t)64 << 10)

/* In a gap between mappings, the place closest to lo..hi; 0: it is too small or too far away. */
static uintptr_t place_in_gap(uintptr_t from, uintptr_t to, uintptr_t lo, uintptr_t hi, size_t bytes)
{
	if (to <= from || to - from < bytes)
		return 0;
	uintptr_t place = from >= hi ? from : (to - bytes) & ~(OS_PAGE - 1);
	uintptr_t end = place + bytes;

	if (place >= hi)
		return end - lo < NEAR_BYTES ? place : 0;
	return end <= lo && hi - place < NEAR_BYTES ? place : 0;
}

void *os_map_near(uintptr_t lo, uintptr_t hi, size_t bytes)
{
	struct maps_reader reader = {.fd = (int)raw_call(SYS_openat, AT_FDCWD, "/proc/self/maps",
	                                                 O_RDONLY | O_CLOEXEC)};
	uintptr_t below = LOWEST_MAP, from, to;
	long p = -1;

	if (reader.fd < 0)
		return NULL;
	while (p == -1 && maps_next_range(&reader, &from, &to)) {
		uintptr_t place = place_in_gap(below, from, lo, hi, bytes);
		if (place)
			p = raw_call(SYS_mmap, place, bytes, PROT_READ | PROT_WRITE,
			             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0L);
		below = to > below ? to : below;
	}
	os_close(reader.fd);
	return p == -1 ? NULL : (void *)p;
}

bool os_seal_code(void *p, size_t bytes)
{
	return raw_call(SYS_mprotect, p, bytes, PROT_READ | PROT_EXEC) == 0;
}

int os_open_code(void)
{
	return (int)raw_call(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR | O_CLOEXEC);
}

bool os_write_code(int fd, uintptr_t to, const void *from, size_t bytes)
{
	return raw_call(SYS_pwrite64, fd, from, bytes, (long)to) == (long)bytes;
}
