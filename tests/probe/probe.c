/*
 * probe.c: what cases use while they run. Nothing here allocates, or keeps stdio buffers: the process
 * may be in a forked child, out of memory, or inside a scope.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_FAILED = 1, EXIT_SKIPPED = 77 };

/* One write for one line, so that lines of several threads don't mix. */
static void say(int fd, const char *prefix, const char *format, va_list arguments)
{
	char line[1024];
	int used = snprintf(line, sizeof(line), "%s", prefix);
	int rest = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
	size_t length = strlen(line);
	(void)rest;
	line[length++] = '\n';
	if (write(fd, line, length) < 0)
		_exit(EXIT_FAILED);
}

void probe_fail(const char *file, int line, const char *condition, const char *format, ...)
{
	const char *slash = strrchr(file, '/');
	char prefix[512];
	va_list arguments;
	snprintf(prefix, sizeof(prefix), "probe: %s:%d: not so: %s: ", slash ? slash + 1 : file, line,
	         condition);
	va_start(arguments, format);
	say(STDERR_FILENO, prefix, format, arguments);
	va_end(arguments);
	_exit(EXIT_FAILED);
}

void probe_skip(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(STDERR_FILENO, "probe: skipped: ", format, arguments);
	va_end(arguments);
	_exit(EXIT_SKIPPED);
}

void probe_expect(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(STDOUT_FILENO, "", format, arguments);
	va_end(arguments);
}

long probe_count(long by_default)
{
	const char *count = getenv("PROBE_COUNT");
	return count ? atol(count) : by_default;
}

const char *probe_path(void)
{
	return (const char *)getauxval(AT_EXECFN);
}

static bool same_file(const char *one, const char *other)
{
	struct stat a, b;
	return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Does the malloc that every library calls lie in the program itself? */
static bool is_in_program(const Dl_info *found)
{
	static const char here;
	Dl_info own;
	return dladdr(&here, &own) && own.dli_fbase == found->dli_fbase;
}

void probe_prove_form(enum probe_form form)
{
	const char *library = getenv("REGION_LIBRARY");
	Dl_info found;
	if (getenv("PROBE_ANY_MALLOC"))
		return;
	CHECK(library, "REGION_LIBRARY names the library to prove");
	CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &found), "malloc belongs to some object");
	if (form == PROBE_STATIC)
		CHECK(is_in_program(&found), "malloc is the program's, not %s's", found.dli_fname);
	else if (form == PROBE_PLAIN)
		CHECK(!same_file(found.dli_fname, library), "malloc is libc's: %s", found.dli_fname);
	else
		CHECK(same_file(found.dli_fname, library), "malloc is the library's, not %s's",
		      found.dli_fname);
}

/*
 * The pattern has rows of 256 bytes. A row counts up by 7 from a first byte that depends on the seed and
 * on the row, so each row is a window into one table, and memcpy and memcmp do the work.
 */
enum { ROW = 256, INVERSE_OF_7 = 183 };
#define SEVENS_4(i) (unsigned char)((i) * 7), (unsigned char)((i) * 7 + 7), \
	(unsigned char)((i) * 7 + 14), (unsigned char)((i) * 7 + 21)
#define SEVENS_16(i) SEVENS_4(i), SEVENS_4((i) + 4), SEVENS_4((i) + 8), SEVENS_4((i) + 12)
#define SEVENS_64(i) SEVENS_16(i), SEVENS_16((i) + 16), SEVENS_16((i) + 32), SEVENS_16((i) + 48)
#define SEVENS_256 SEVENS_64(0), SEVENS_64(64), SEVENS_64(128), SEVENS_64(192)
static const unsigned char sevens[2 * ROW] = {SEVENS_256, SEVENS_256};

static const unsigned char *row_of(size_t place, unsigned seed)
{
	unsigned first = seed * 31 + (unsigned)(place / ROW) + 1;
	return &sevens[first * INVERSE_OF_7 % ROW];
}

static size_t row_length(size_t place, size_t size)
{
	return size - place < ROW ? size - place : ROW;
}

void probe_fill(void *p, size_t size, unsigned seed)
{
	for (size_t place = 0; place < size; place += ROW)
		memcpy((char *)p + place, row_of(place, seed), row_length(place, size));
}

void probe_verify(const void *p, size_t size, unsigned seed, const char *rule)
{
	for (size_t place = 0; place < size; place += ROW) {
		const void *row = (const char *)p + place;
		CHECK(memcmp(row, row_of(place, seed), row_length(place, size)) == 0,
		      "%s: the bytes from %zu of %zu at %p", rule, place, size, p);
	}
}

bool probe_is_zero(const void *p, size_t size)
{
	const unsigned char *bytes = p;
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

size_t probe_resident(void)
{
	char text[128] = "";
	size_t pages = 0;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, sizeof(text) - 1);
	close(fd);
	CHECK(length > 0 && sscanf(text, "%*u %zu", &pages) == 1, "/proc tells the resident size");
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

void *probe_block(size_t size, unsigned seed)
{
	void *p = malloc(size);
	CHECK(p, "malloc(%zu) serves", size);
	CHECK((uintptr_t)p % 16 == 0, "malloc(%zu) aligns to 16: %p", size, p);
	probe_fill(p, size, seed);
	return p;
}

void probe_unblock(void *p, size_t size, unsigned seed)
{
	probe_verify(p, size, seed, "a block keeps its contents until it is freed");
	free(p);
}

void probe_heap_is_sound(void)
{
	enum { COUNT = 1000 };
	static const size_t sizes[] = {0, 1, 16, 24, 48, 100, 256, 1000, 5000, 20000};
	static void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = probe_block(sizes[i % 10], i);
	for (unsigned i = 0; i < COUNT; i++)
		probe_unblock(blocks[i], sizes[i % 10], i);
	probe_unblock(probe_block(3 << 20, 5), 3 << 20, 5);
}

unsigned probe_random(unsigned *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

double probe_seconds_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int probe_wait_child(int pid, int seconds)
{
	double end = probe_seconds_now() + seconds;
	int status;
	pid_t got;
	while ((got = waitpid(pid, &status, WNOHANG)) == 0 && probe_seconds_now() < end)
		usleep(200);
	if (got == 0)
		kill(pid, SIGKILL);
	CHECK(got == pid, "child %d ends within %d s", pid, seconds);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
