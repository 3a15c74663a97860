/*
 * report.h: one line on stderr for one thing that is wrong.
 *
 * A line begins "libregion: " and says what was wrong, what was expected and what happens now. Formats
 * are limited to %s %c %d %u %zu %llu %p, for which vsnprintf doesn't allocate.
 */
#ifndef LIBREGION_REPORT_H
#define LIBREGION_REPORT_H

#include <stdbool.h>

/* Writes one line: "libregion: ", the text, a newline. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/*
 * A misuse of the heap that would end in corruption if it went on: one line that ends "; aborting", and
 * abort(); after report_set_fatal(false) one that ends "; ignored", and the caller carries on as if the
 * call hadn't been made.
 */
void report_misuse(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
void report_set_fatal(bool is_fatal);

#endif
