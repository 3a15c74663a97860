/*
 * secure.c: a set-user-ID program must not take orders from the environment of whoever starts it. The
 * probe makes one of itself, which takes root, and a file system that honours the bit; else it is
 * skipped. Such programs can't be preloaded, so this one is linked.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

enum { NOBODY = 65534, EXIT_SKIPPED = 77, EXIT_NOT_RUN = 127 };

/* False: this user may not. */
static bool make_set_user_id_copy(const char *path)
{
	bool is_allowed;
	struct stat from;
	int in = open(probe_path(), O_RDONLY), out = open(path, O_WRONLY | O_CREAT | O_EXCL, 0700);
	CHECK(in >= 0 && out >= 0 && fstat(in, &from) == 0, "the program can be copied");
	CHECK(sendfile(out, in, NULL, (size_t)from.st_size) == from.st_size, "the copy is whole");
	is_allowed = fchown(out, NOBODY, NOBODY) == 0 && fchmod(out, 04755) == 0;
	close(in);
	close(out);
	return is_allowed;
}

static int run_copy(const char *path)
{
	int pid = fork();
	if (pid == 0) {
		setenv("LIBREGION_FOO", "1", 1);
		setenv("LIBREGION_DISABLE", "1", 1);
		setenv("LIBREGION_VERBOSE", "1", 1);
		setenv("LIBREGION_STATS", "1", 1);
		execl(path, "probe", "--inside", "options_are_ignored_in_set_user_id_programs", (char *)NULL);
		_exit(EXIT_NOT_RUN);
	}
	return probe_wait_child(pid, 10);
}

static void is_in_a_scope(void *unused)
{
	(void)unused;
	CHECK(region_depth() == 1, "LIBREGION_DISABLE is ignored");
}

static void options_are_ignored_in_set_user_id_programs(void)
{
	char directory[] = "/tmp/region-probe-XXXXXX", path[128];
	int status = EXIT_SKIPPED;
	if (getauxval(AT_SECURE)) {
		region_do(is_in_a_scope, NULL);
		return;
	}
	if (getenv("LIBREGION_DISABLE"))
		probe_skip("this file system ignores the set-user-ID bit");
	CHECK(mkdtemp(directory) && chmod(directory, 0755) == 0, "a directory is made");
	snprintf(path, sizeof(path), "%s/program", directory);
	if (make_set_user_id_copy(path))
		status = run_copy(path);
	unlink(path);
	rmdir(directory);
	if (status == EXIT_SKIPPED || status == EXIT_NOT_RUN)
		probe_skip("a set-user-ID program can't be made, or not be run, from here");
	CHECK(status == 0, "it ran with status %d", status);
}

const struct probe_case probe_cases[] = {
	{.name = "options_are_ignored_in_set_user_id_programs",
	 .run = options_are_ignored_in_set_user_id_programs},
	{0},
};
