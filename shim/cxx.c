/*
 * cxx.c: new-handlers and bad_alloc, without linking the C++ library.
 *
 * Both are found by name when memory has run out: a program without a C++ library can't be here, and
 * one that loads it late, with dlopen, is served like any other.
 */
#include "cxx.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/core.h"
#include "shim.h"

typedef void new_handler(void);
typedef new_handler *get_new_handler(void);
typedef void throw_bad_alloc(void);

static void *symbol(const char *name)
{
	return dlsym(RTLD_DEFAULT, name);
}

static new_handler *current_handler(void)
{
	get_new_handler *get = (get_new_handler *)(uintptr_t)symbol("_ZSt15get_new_handlerv");

	return get ? get() : NULL;
}

static void throw_or_abort(size_t size)
{
	throw_bad_alloc *throw = (throw_bad_alloc *)(uintptr_t)symbol("_ZSt17__throw_bad_allocv");

	if (throw)
		throw();
	report("operator new(%zu): out of memory, and no C++ library in sight to throw bad_alloc", size);
	abort();
}

__attribute__((noinline)) void *cxx_new_slow(size_t size, size_t align, bool may_throw)
{
	for (;;) {
		void *p = shim_memalign(align, size);
		if (p)
			return p;
		/* A handler that throws does so through a nothrow new as well: our callers can't catch it. */
		new_handler *handler = current_handler();
		if (!handler)
			break;
		handler();
	}
	if (may_throw)
		throw_or_abort(size);
	return NULL;
}
