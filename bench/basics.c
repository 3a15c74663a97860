/*
 * basics.c: what all programs here need of bench.h, whatever they measure. It needs nothing but libc:
 * where the figure is what is resident, other libraries would be part of it.
 */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *program = "bench";

void bench_name_program(const char *name)
{
	program = name;
}

void bench_fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", program, what);
	exit(1);
}

void *bench_array(size_t count, size_t size)
{
	size_t bytes = count * size + 1; /* none is none too few for mmap */
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_fail("out of memory");
	return p;
}

void bench_array_free(void *array, size_t count, size_t size)
{
	munmap(array, count * size + 1);
}

void bench_print_malloc(void)
{
	Dl_info info;
	void *symbol = dlsym(RTLD_DEFAULT, "malloc");
	const char *file = dladdr(symbol, &info) ? info.dli_fname : "?";
	const char *slash = strrchr(file, '/');

	printf("# malloc from %s\n", slash ? slash + 1 : file);
}
