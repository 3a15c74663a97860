/*
 * plugin.c: a library that the program `modules` loads late. Its constructor calls a site.
 */
#include <stdlib.h>

long plugin_work(long x);
long plugin_total(void);

static struct {
	long constructed;
} plugin;

__attribute__((noinline, visibility("default"))) long plugin_work(long x)
{
	void *volatile block = malloc(64);

	free(block);
	return x * 6;
}

__attribute__((visibility("default"))) long plugin_total(void)
{
	return plugin.constructed;
}

__attribute__((constructor)) static void construct(void)
{
	for (long i = 0; i < 4; i++)
		plugin.constructed += plugin_work(i);
}
