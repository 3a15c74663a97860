/*
 * spend.c: a program that costs what it is told to; `region compare` is to find out.
 *
 *     spend [WHAT=VALUE]...     in turns:
 *
 *     touch=MIB    writes to so much memory
 *     spin=MS      takes so much CPU time
 *     sleep=MS     takes so much wall time
 *     print=TEXT   on standard output
 *     show=NAME    prints a variable of the environment
 *     copy=1       copies standard input to standard output
 *     work=COUNT   calls a function that allocates and frees, so often
 *     status=N     ends with this status
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void touch(size_t mib)
{
	char *p = malloc(mib << 20);

	if (p)
		memset(p, 1, mib << 20);
	free(p);
}

static void spin(long ms)
{
	while (clock() < ms * (CLOCKS_PER_SEC / 1000))
		;
}

static void copy(void)
{
	for (int c; (c = getchar()) != EOF;)
		putchar(c);
}

/* One request: ten blocks, one of which stays. */
__attribute__((noinline, used)) void spend_work(char **last)
{
	char *blocks[10];

	for (int i = 0; i < 10; i++)
		blocks[i] = calloc(1, 100);
	free(*last);
	*last = blocks[0];
	for (int i = 1; i < 10; i++)
		free(blocks[i]);
}

static void work(long count)
{
	char *last = NULL;

	while (count-- > 0)
		spend_work(&last);
	free(last);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *what = strtok(argv[i], "="), *text = strtok(NULL, "");
		long number = text ? atol(text) : 0;

		if (!text)
			return 2;
		if (strcmp(what, "touch") == 0)
			touch((size_t)number);
		else if (strcmp(what, "spin") == 0)
			spin(number);
		else if (strcmp(what, "sleep") == 0)
			usleep((useconds_t)number * 1000);
		else if (strcmp(what, "print") == 0)
			puts(text);
		else if (strcmp(what, "show") == 0)
			puts(getenv(text) ? getenv(text) : "");
		else if (strcmp(what, "copy") == 0)
			copy();
		else if (strcmp(what, "work") == 0)
			work(number);
		else
			return (int)number;
	}
	return 0;
}
