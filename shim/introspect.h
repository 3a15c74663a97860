/*
 * introspect.h: what the heap says of itself through glibc's interfaces.
 */
#ifndef LIBREGION_INTROSPECT_H
#define LIBREGION_INTROSPECT_H

#include <malloc.h>
#include <stdio.h>

struct mallinfo2 introspect_mallinfo2(void);
void introspect_stats(void);
int introspect_info(int options, FILE *stream);
int introspect_mallopt(int parameter, int value);

#endif
