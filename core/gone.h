/*
 * gone.h: memory that was given back after a scope had reclaimed blocks in it: which scope that was.
 *
 * A span's descriptor tells as long as there is one. Of those that have gone since, the last GONE_COUNT are
 * remembered, for the one line about a free that comes late. No lock: entries are words, and two of them that
 * are written at once may name the wrong scope.
 */
#ifndef LIBREGION_GONE_H
#define LIBREGION_GONE_H

#include <stddef.h>

#define GONE_COUNT 256u

void gone_note(const char *lo, const char *hi, const char *scope_name);

/* The scope's name, or "?". */
const char *gone_name_of(const char *p);

#endif
