/*
 * measure.c: runs a program once and says what it cost; `region compare` calls it for each run.
 *
 *     region-measure FD [NAME=VALUE | -NAME]... -- PROGRAM [ARGUMENT...]
 *
 * Writes one line to the descriptor FD: the wait status, then nanoseconds of CPU time (user, system) and of
 * wall time, the largest resident set in KiB, and page faults without and with input. The program doesn't get
 * FD; the variables are set, or unset, for the program only.
 *
 * It is a program of its own, and a small one, because a child starts with its parent's resident set counted
 * as its largest: of one started by an interpreter nothing below that would show.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static long long nanoseconds(struct timeval time)
{
	return time.tv_sec * 1000000000ll + time.tv_usec * 1000ll;
}

static void run(char **words)
{
	for (; *words && strcmp(*words, "--") != 0; words++) {
		if (**words == '-')
			unsetenv(*words + 1);
		else
			putenv(*words);
	}
	if (*words && words[1]) {
		execvp(words[1], words + 1);
		fprintf(stderr, "region: %s: %s\n", words[1], strerror(errno));
	}
	_exit(errno == ENOENT ? 127 : 126);
}

int main(int argc, char **argv)
{
	struct rusage usage;
	int fd = argc > 1 ? atoi(argv[1]) : -1, status;

	if (argc < 4 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return 2;
	long long start = nanoseconds_now();
	pid_t child = fork();
	if (child == 0)
		run(argv + 2);
	if (child < 0 || wait4(child, &status, 0, &usage) != child)
		return 1;
	long long wall = nanoseconds_now() - start;
	int written = dprintf(fd, "%d %lld %lld %lld %ld %ld %ld\n", status, nanoseconds(usage.ru_utime),
	                      nanoseconds(usage.ru_stime), wall, usage.ru_maxrss, usage.ru_minflt,
	                      usage.ru_majflt);
	return written < 0;
}
