/*
 * debuggee.c: a program that stands still inside two sites, for debuggers to look at; see `debuggers`.
 *
 *     debuggee abort    ends by abort()
 *     debuggee wait     says so, and waits for its standard input to end
 *     debuggee count    prints how many frames libunwind sees, if it is there
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__clang__)
#define SITE __attribute__((noinline, used))
#else
#define SITE __attribute__((noipa, used))
#endif

/* The names that libunwind's header gives its functions for a program's own stack. */
static void count_frames(void)
{
	void *library = dlopen("libunwind.so.8", RTLD_NOW);
	long cursor[512], context[512];
	int frames = 1;

	if (!library) {
		printf("-1\n");
		return;
	}
	int (*get_context)(void *) = (int (*)(void *))(uintptr_t)dlsym(library, "_Ux86_64_getcontext");
	int (*begin)(void *, void *) = (int (*)(void *, void *))(uintptr_t)dlsym(library, "_ULx86_64_init_local");
	int (*step)(void *) = (int (*)(void *))(uintptr_t)dlsym(library, "_ULx86_64_step");
	get_context(context);
	begin(cursor, context);
	while (frames < 64 && step(cursor) > 0)
		frames++;
	printf("%d\n", frames);
}

SITE int stand_still(const char *how)
{
	char byte;

	if (strcmp(how, "abort") == 0)
		abort();
	if (strcmp(how, "count") == 0)
		count_frames();
	else if (puts("waiting") >= 0 && fflush(stdout) == 0)
		return (int)read(STDIN_FILENO, &byte, 1);
	return 0;
}

SITE int in_between(const char *how)
{
	char *copy = strdup(how);
	int result = stand_still(copy);

	free(copy);
	return result;
}

SITE int outermost(const char *how)
{
	int result = in_between(how) + 1;

	__asm__ volatile("" : "+r"(result));
	return result;
}

int main(int argc, char **argv)
{
	return outermost(argc > 1 ? argv[1] : "count") - 1;
}
