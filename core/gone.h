/*
 * gone.h: memory that was given back after a scope had reclaimed blocks in it: which scope that was.
 *
 * A span's descriptor tells as long as there is one. Of those that have gone since, the last GONE_COUNT are
 * remembered, for the one line about a free that comes late. No lock: entries are words, and two of them that
 * are written at once may name the wrong scope. No addresses either: a search would take them for pointers.
 */
#ifndef LIBREGION_GONE_H
#define LIBREGION_GONE_H

#include "span.h"

#define GONE_COUNT 256u

void gone_note(const struct span *span, const char *scope_name);

/* The name of the scope that has last reclaimed what p, in the heap range, points to, or NULL. */
const char *gone_name_of(const void *p);

#endif
