/*
 * measure.c: runs a program and appends what it cost to a file, as one line of CPU seconds (user and
 * system) and its largest resident set in KiB.
 *
 *     measure FILE [NAME=VALUE...] PROGRAM [ARGUMENT...]
 *
 * The variables are set for the program only: this process isn't run under the malloc that it
 * measures. It is small because a child starts with its parent's resident set counted as its largest.
 * The exit status is the program's.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(char **arguments)
{
	for (; arguments[0] != NULL && strchr(arguments[0], '=') != NULL; arguments++)
		putenv(arguments[0]);
	if (arguments[0] != NULL)
		execvp(arguments[0], arguments);
	perror("measure: can't run the program");
	_exit(127);
}

static double seconds(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	struct rusage usage;
	int status;

	if (argc < 3)
		return 2;
	pid_t child = fork();
	if (child == 0)
		run(argv + 2);
	if (child < 0 || wait4(child, &status, 0, &usage) != child) {
		perror("measure");
		return 126;
	}
	FILE *file = fopen(argv[1], "a");
	if (file == NULL ||
	    fprintf(file, "%.6f %ld\n", seconds(usage.ru_utime) + seconds(usage.ru_stime),
	            usage.ru_maxrss) < 0 ||
	    fclose(file) != 0) {
		perror("measure: can't write the result");
		return 126;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
