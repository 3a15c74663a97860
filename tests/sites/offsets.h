/*
 * offsets.h: sites of a stripped program; see offsets.c.
 */
#ifndef SITES_OFFSETS_H
#define SITES_OFFSETS_H

#include <stdbool.h>

/* The stripped copy that is to be run in the program's place, or NULL. */
const char *offsets_program(void);

/* A list of sites with offsets in the place of names. */
char *offsets_of(const char *sites);

#endif
