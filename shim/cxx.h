/*
 * cxx.h: what C++'s operators new do beyond malloc: when memory is short they run the new-handler, and
 * throw in the end, or give NULL if they are of the nothrow kind.
 */
#ifndef LIBREGION_CXX_H
#define LIBREGION_CXX_H

#include <stdbool.h>
#include <stddef.h>

/* The slow half of every operator new. `align` is at least 16. */
void *cxx_new_slow(size_t size, size_t align, bool may_throw);

#endif
