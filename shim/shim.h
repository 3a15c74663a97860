/*
 * shim.h: the prefixed twins of libc's allocation functions.
 *
 * shim_malloc() and its family hold all the logic; exports.c gives them libc's names with bodies of one
 * line. Programs that must not replace malloc (unit tests, the model, sanitizer builds) link the twins
 * and call them by these names. Semantics, errors and thread rules are those of glibc's functions of
 * the same name.
 */
#ifndef LIBREGION_SHIM_H
#define LIBREGION_SHIM_H

#include <stddef.h>

void *shim_malloc(size_t size);
void *shim_calloc(size_t count, size_t size);
void *shim_realloc(void *p, size_t size);
void *shim_reallocarray(void *p, size_t count, size_t size);
void shim_free(void *p);
void shim_free_sized(void *p, size_t size);
void shim_free_aligned_sized(void *p, size_t align, size_t size);

void *shim_aligned_alloc(size_t align, size_t size);
void *shim_memalign(size_t align, size_t size);
int shim_posix_memalign(void **out, size_t align, size_t size);
void *shim_valloc(size_t size);
void *shim_pvalloc(size_t size);

size_t shim_usable_size(const void *p);
int shim_trim(size_t pad_bytes);

#endif
