/*
 * report.c: lines on stderr, written with one system call so that lines of several threads don't mix.
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os.h"

#define REPORT_PREFIX "libregion: "
#define REPORT_BYTES 512

static bool report_carries_on;

/* The longest ending is "; aborting\n". */
#define ENDING_BYTES 16

static __attribute__((format(printf, 1, 0))) void
write_line(const char *format, va_list args, const char *ending)
{
	char line[REPORT_BYTES] = REPORT_PREFIX;
	const size_t prefix = sizeof(REPORT_PREFIX) - 1;
	const size_t room = sizeof(line) - prefix - ENDING_BYTES;
	int wanted = vsnprintf(line + prefix, room, format, args);
	size_t n = prefix + (wanted < 0 ? 0 : (size_t)wanted < room ? (size_t)wanted : room - 1);
	size_t length = strlen(ending);

	memcpy(line + n, ending, length);
	os_write(2, line, n + length);
}

void report(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(format, args, "\n");
	va_end(args);
}

void report_misuse(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(format, args, report_carries_on ? "; ignored\n" : "; aborting\n");
	va_end(args);
	if (!report_carries_on)
		abort();
}

void report_set_fatal(bool is_fatal)
{
	report_carries_on = !is_fatal;
}
