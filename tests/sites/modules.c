/*
 * modules.c: sites in libraries that are loaded while the program runs, unloaded, and loaded again.
 *
 * The library's constructor makes four calls of the site, which prove that it was there before them.
 */
#define _GNU_SOURCE
#include "sites.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

SITE long own_site(long x)
{
	free(malloc(70));
	return x + 1;
}

static void *load(const char *name, int flags)
{
	void *library = dlopen(site_path_beside(name), flags);

	site_check(library != NULL, "the library can be loaded");
	return library;
}

static void use(void *library, int calls)
{
	long (*work)(long) = (long (*)(long))dlsym(library, "plugin_work");
	long (*total)(void) = (long (*)(void))dlsym(library, "plugin_total");

	for (long i = 0; i < calls; i++)
		printf("%ld\n", work(i));
	printf("total %ld\n", total());
}

static void loaded_late(void)
{
	use(load("libsites_plugin.so", RTLD_NOW), 10);
	printf("%ld\n", own_site(1));
	site_depth_is(0, "after the calls");
}

static void loaded_again_and_again(void)
{
	for (int i = 0; i < 20; i++) {
		void *library = load("libsites_plugin.so", i % 2 ? RTLD_NOW : RTLD_LAZY);
		use(library, i);
		site_check(dlclose(library) == 0, "the library can be unloaded");
		printf("%ld\n", own_site(i));
	}
	site_check(!dlopen(site_path_beside("libsites_plugin.so"), RTLD_NOW | RTLD_NOLOAD),
	           "it is unloaded");
}

static void two_libraries_with_the_same_site(void)
{
	use(load("libsites_plugin.so", RTLD_NOW | RTLD_LOCAL), 5);
	use(load("libsites_plugin2.so", RTLD_NOW | RTLD_LOCAL), 5);
}

SITE long loads_inside(void)
{
	void *library;

	site_churn();
	library = load("libsites_plugin2.so", RTLD_NOW);
	use(library, 3);
	dlclose(library);
	site_churn();
	return 1;
}

static void loaded_inside_a_site(void)
{
	for (int i = 0; i < 5; i++)
		printf("%ld\n", loads_inside());
	site_depth_is(0, "after the site");
	site_kept_are_whole();
}

static struct {
	volatile int stop, begun;
} callers;

static void *call_own_site(void *unused)
{
	(void)unused;
	own_site(0);
	__atomic_fetch_add(&callers.begun, 1, __ATOMIC_RELAXED);
	while (!callers.stop)
		own_site(0);
	return NULL;
}

/* Loading changes code while other threads run, though not theirs. */
static void loaded_while_threads_call_sites(void)
{
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, call_own_site, NULL);
	while (callers.begun < 3)
		sched_yield();
	loaded_again_and_again();
	callers.stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void *loads_in_a_thread(void *unused)
{
	use(load("libsites_plugin.so", RTLD_NOW), 6);
	return unused;
}

static void loaded_by_another_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, loads_in_a_thread, NULL);
	pthread_join(thread, NULL);
	use(load("libsites_plugin.so", RTLD_NOW), 6);
}

#define WORK "libsites_plugin.so:plugin_work"

const struct site_case site_cases[] = {
	{"loaded_late", loaded_late, WORK ",own_site", WORK "=14 own_site=1"},
	{"loaded_late_named_without_its_module", loaded_late, "plugin_work", "plugin_work=14"},
	{"loaded_again_and_again", loaded_again_and_again, WORK ",own_site", WORK "=270 own_site=20"},
	{"only_the_library_that_is_named", two_libraries_with_the_same_site,
     "libsites_plugin2:plugin_total", "libsites_plugin2:plugin_total=1"},
	{"loaded_inside_a_site", loaded_inside_a_site, "loads_inside,libsites_plugin2.so:plugin_total",
     "loads_inside=5"},
	{"loaded_while_threads_call_sites", loaded_while_threads_call_sites, WORK ",own_site",
     WORK "=270 own_site>20"},
	{"loaded_by_another_thread", loaded_by_another_thread, WORK, WORK "=16"},
	{"never_loaded",
     loaded_late,
     "libnever.so:plugin_work",
     "libnever.so:plugin_work=0",
     {"site \"libnever.so:plugin_work\": "}},
	{0},
};
