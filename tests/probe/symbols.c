/*
 * symbols.c: what the library replaces, all of it and nothing more, and that the parts that it
 * replaces work together: a block from any of them can be freed by any of them.
 *
 * A symbol left to libc is a block of libc's heap in our free, or a second heap in the process.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const char *const c_symbols[] = {
	"malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "memalign", "valloc",
	"pvalloc", "malloc_usable_size", "reallocarray", "free_sized", "free_aligned_sized", "cfree",
	"__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_free", "__libc_memalign",
	"__libc_valloc", "__libc_pvalloc", "__libc_cfree", "__posix_memalign",
};

static const char *const introspection_symbols[] = {
	"malloc_trim", "mallinfo", "mallinfo2", "mallopt", "malloc_stats", "malloc_info",
};

static const char *const cxx_symbols[] = {
	"_Znwm", "_Znam",                                       /* new, new[] */
	"_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t",           /* nothrow */
	"_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",         /* aligned */
	"_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t",
	"_ZdlPv", "_ZdaPv",                                     /* delete, delete[] */
	"_ZdlPvm", "_ZdaPvm",                                   /* sized */
	"_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t",       /* aligned */
	"_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t",     /* sized, aligned */
	"_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t",         /* nothrow */
	"_ZdlPvSt11align_val_tRKSt9nothrow_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t",
};

/* FIELD: replacing these is unsupported by glibc, and they call malloc anyway. */
static const char *const left_to_libc[] = {
	"strdup", "strndup", "realpath", "getline", "asprintf", "open_memstream", "fork", "vfork",
	"pthread_create", "pthread_exit", "dlopen", "dlsym", "dlclose", "exit", "abort", "sigaction",
	"mmap", "munmap", "sbrk", "memcpy", "memset",
};

static uintptr_t address_of(const char *name)
{
	void *address = dlsym(RTLD_DEFAULT, name);
	CHECK(address, "%s exists", name);
	return (uintptr_t)address;
}

static const char *home_of(const char *symbol)
{
	Dl_info found;
	CHECK(dladdr((void *)address_of(symbol), &found), "%s belongs to some object", symbol);
	return strdup(found.dli_fname);
}

static void all_come_from_the_library(const char *const *symbols, size_t count)
{
	const char *library = home_of("malloc");
	for (size_t i = 0; i < count; i++)
		CHECK(strcmp(home_of(symbols[i]), library) == 0, "%s is the library's", symbols[i]);
}

static void every_c_symbol_comes_from_the_library(void)
{
	all_come_from_the_library(c_symbols, COUNT_OF(c_symbols));
}

static void every_introspection_symbol_comes_from_the_library(void)
{
	all_come_from_the_library(introspection_symbols, COUNT_OF(introspection_symbols));
}

static void all_twenty_cxx_symbols_come_from_the_library(void)
{
	all_come_from_the_library(cxx_symbols, COUNT_OF(cxx_symbols));
	CHECK(COUNT_OF(cxx_symbols) == 20, "there are twenty");
}

static void nothing_else_of_libc_is_replaced(void)
{
	const char *library = home_of("malloc");
	for (size_t i = 0; i < COUNT_OF(left_to_libc); i++)
		CHECK(strcmp(home_of(left_to_libc[i]), library) != 0, "%s is libc's", left_to_libc[i]);
}

/* --- the twins under libc's own names --- */

static void *(*malloc_called(const char *name))(size_t)
{
	return (void *(*)(size_t))address_of(name);
}

static void (*free_called(const char *name))(void *)
{
	return (void (*)(void *))address_of(name);
}

static const char *const mallocs[] = {"malloc", "__libc_malloc", "valloc", "pvalloc",
                                      "__libc_valloc", "__libc_pvalloc", "_Znwm", "_Znam"};
static const char *const frees[] = {"free", "__libc_free", "cfree", "__libc_cfree", "_ZdlPv", "_ZdaPv"};

static void any_free_takes_a_block_of_any_malloc(void)
{
	for (size_t m = 0; m < COUNT_OF(mallocs); m++)
		for (size_t f = 0; f < COUNT_OF(frees); f++) {
			void *p = malloc_called(mallocs[m])(1000);
			CHECK(p && malloc_usable_size(p) >= 1000, "%s serves", mallocs[m]);
			probe_fill(p, 1000, 1);
			probe_verify(p, 1000, 1, mallocs[m]);
			errno = 4711;
			free_called(frees[f])(p);
			CHECK(errno == 4711, "%s keeps errno", frees[f]);
		}
	for (size_t f = 0; f < COUNT_OF(frees); f++)
		free_called(frees[f])(NULL);
	probe_heap_is_sound();
}

static void libc_calloc_is_zero(void)
{
	void *(*libc_calloc)(size_t, size_t) =
		(void *(*)(size_t, size_t))address_of("__libc_calloc");
	for (int i = 0; i < 100; i++) {
		char *p = libc_calloc(10, 100);
		CHECK(p && probe_is_zero(p, 1000), "__libc_calloc is zero");
		memset(p, 0xee, 1000);
		free(p);
	}
	errno = 0;
	CHECK(!libc_calloc(SIZE_MAX, 2) && errno == ENOMEM, "__libc_calloc sees the overflow");
}

static void libc_realloc_keeps_contents(void)
{
	void *(*libc_realloc)(void *, size_t) =
		(void *(*)(void *, size_t))address_of("__libc_realloc");
	void *p = libc_realloc(NULL, 100);
	CHECK(p, "__libc_realloc(NULL) allocates");
	probe_fill(p, 100, 2);
	p = libc_realloc(p, 100000);
	CHECK(p, "__libc_realloc grows");
	probe_verify(p, 100, 2, "__libc_realloc keeps the contents");
	CHECK(!libc_realloc(p, 0), "__libc_realloc(p, 0) frees");
}

static void libc_memalign_aligns(void)
{
	void *(*libc_memalign)(size_t, size_t) =
		(void *(*)(size_t, size_t))address_of("__libc_memalign");
	int (*libc_posix_memalign)(void **, size_t, size_t) =
		(int (*)(void **, size_t, size_t))address_of("__posix_memalign");
	void *p = libc_memalign(256, 100), *q = NULL;
	CHECK(p && (uintptr_t)p % 256 == 0, "__libc_memalign aligns");
	CHECK(libc_posix_memalign(&q, 512, 100) == 0 && (uintptr_t)q % 512 == 0,
	      "__posix_memalign aligns");
	CHECK(libc_posix_memalign(&q, 3, 100) == EINVAL, "__posix_memalign rejects 3");
	free(p);
	free(q);
}

/* A handle of the library itself must lead to the same functions. */
static void the_library_s_own_handle_leads_to_the_same_functions(void)
{
	void *handle = dlopen(getenv("REGION_LIBRARY"), RTLD_NOW);
	CHECK(handle, "the library in place can be opened by its path");
	CHECK(dlsym(handle, "malloc") == dlsym(RTLD_DEFAULT, "malloc"), "and is the same one");
	dlclose(handle);
	probe_heap_is_sound();
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(every_c_symbol_comes_from_the_library),
	CASE(every_introspection_symbol_comes_from_the_library),
	CASE(all_twenty_cxx_symbols_come_from_the_library),
	CASE(nothing_else_of_libc_is_replaced),
	CASE(any_free_takes_a_block_of_any_malloc),
	CASE(libc_calloc_is_zero),
	CASE(libc_realloc_keeps_contents),
	CASE(libc_memalign_aligns),
	CASE(the_library_s_own_handle_leads_to_the_same_functions),
	{0},
};
