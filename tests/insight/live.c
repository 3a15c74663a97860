/*
 * live.c: a program to be looked at while it runs.
 *
 *     live [WHAT=VALUE]...     in turns:
 *
 *     scopes=COUNT    so many scopes "request", one a millisecond, each with 10 blocks of 96 bytes, 4 of
 *                     them freed
 *     tidy=COUNT      the same with all blocks freed: the scopes need no slow half of malloc
 *     empty=COUNT     scopes that allocate nothing
 *     search=COUNT    leaves 3 of 10 blocks of 1000 bytes reachable, so many times, and searches for them
 *     storm=COUNT     four threads that each send themselves SIGUSR2, so often
 *     rush=MS         four threads that enter scopes and allocate as fast as they can
 *     plain=MS        allocates outside of scopes: more and more, then nothing
 *     idle=MS         waits; prints how often it was interrupted
 *     child=COUNT     `scopes` in a child, and waits for it
 *     stale=FOLDER    children find an old file FOLDER/PID.json
 *     ready=1         prints "ready"
 *     small_stack=1   signals come on a stack of 8 KiB from here on
 *     in_scope=MS     waits inside a scope "open" of a thread that has 3 blocks in it
 */
#define REGION_OPTIONAL
#include "region.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct region_options request = {.name = "request", .fade = REGION_FADE_UNFREED};

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void ten_blocks_four_freed(void *keep)
{
	char **blocks = keep;

	for (int i = 0; i < 10; i++)
		blocks[i] = memset(malloc(96), i, 96);
	for (int i = 0; i < 4; i++)
		free(blocks[i]);
}

static void one_request(void)
{
	char *blocks[10];

	region_do_with(&request, ten_blocks_four_freed, blocks);
	for (int i = 4; i < 10; i++)
		free(blocks[i]);
}

static void scopes(long count)
{
	while (count-- > 0) {
		one_request();
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void ten_blocks_all_freed(void *blocks)
{
	ten_blocks_four_freed(blocks);
	for (int i = 4; i < 10; i++)
		free(((char **)blocks)[i]);
}

static void nothing(void *unused)
{
	(void)unused;
}

static void empty(long count)
{
	while (count-- > 0)
		region_do_with(&request, nothing, NULL);
}

static void tidy(long count)
{
	char *blocks[10];

	while (count-- > 0) {
		region_do_with(&request, ten_blocks_all_freed, blocks);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

char *volatile reachable[1000][3]; /* seen by whoever looks at memory */
static size_t reachable_count;

static void leave_three(void *unused)
{
	(void)unused;
	for (int i = 0; i < 10; i++) {
		char *p = memset(malloc(1000), i, 1000);
		if (i < 3)
			reachable[reachable_count][i] = p;
	}
	reachable_count++;
}

static void search(long count)
{
	static const struct region_options leaving = {.name = "leaving", .fade = REGION_FADE_REACHABLE};

	while (count-- > 0 && reachable_count < 1000)
		region_do_with(&leaving, leave_three, NULL);
	malloc_trim(0);
}

static void in_four_threads(void *(*run)(void *), long *number)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, run, number) != 0)
			exit(3);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

static void *send_signals(void *count)
{
	for (long n = *(long *)count; n > 0; n--) {
		one_request();
		raise(SIGUSR2);
	}
	return NULL;
}

static void *rush_along(void *until)
{
	for (unsigned n = 0; now_ms() < *(long *)until; n++) {
		one_request();
		char *p = malloc(n % 5000), *q = malloc(100000 + n % 100000);
		free(p);
		free(q);
	}
	return NULL;
}

static void rush(long ms)
{
	long until = now_ms() + ms;

	in_four_threads(rush_along, &until);
}

static void plain(long ms)
{
	long until = now_ms() + ms;
	char *last = NULL;

	for (size_t n = 1; now_ms() < until; n = n % 1000 + 1) {
		char **p = malloc(n * 100);

		memset(p, 0, n * 100);
		*p = last;
		last = (char *)p;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	for (char *next; last; last = next) {
		next = *(char **)last;
		free(last);
	}
}

static void idle(long ms)
{
	long until = now_ms() + ms, left;
	int interrupted = 0;

	while ((left = until - now_ms()) > 0)
		interrupted += nanosleep(&(struct timespec){.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000},
		                         NULL) != 0;
	printf("interrupted %d times\n", interrupted);
	fflush(stdout);
}

static void wait_in_scope(void *ms)
{
	char *blocks[3];

	for (int i = 0; i < 3; i++)
		blocks[i] = memset(malloc(1000), i, 1000);
	idle(*(long *)ms);
	for (int i = 0; i < 3; i++)
		free(blocks[i]);
}

static void small_stack(void)
{
	enum { PAGE = 4096, BYTES = 8192 };
	char *p = mmap(NULL, PAGE + BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = {.ss_sp = p + PAGE, .ss_size = BYTES};

	if (p == MAP_FAILED || mprotect(p + PAGE, BYTES, PROT_READ | PROT_WRITE) != 0 ||
	    sigaltstack(&stack, NULL) != 0)
		exit(3);
}

static void leave_stale_file(const char *folder)
{
	char path[4096];
	FILE *file;

	if (!folder)
		return;
	snprintf(path, sizeof(path), "%s/%d.json", folder, (int)getpid());
	file = fopen(path, "w");
	if (!file || fputs("stale", file) == EOF || fclose(file) != 0)
		exit(5);
}

static void child(long count, const char *stale)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		leave_stale_file(stale);
		scopes(count);
		exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		exit(4);
}

int main(int argc, char **argv)
{
	const char *stale = NULL;

	for (int i = 1; i < argc; i++) {
		const char *what = strtok(argv[i], "="), *text = strtok(NULL, "");
		long number = text ? atol(text) : 0;

		if (strcmp(what, "scopes") == 0)
			scopes(number);
		else if (strcmp(what, "rush") == 0)
			rush(number);
		else if (strcmp(what, "plain") == 0)
			plain(number);
		else if (strcmp(what, "idle") == 0)
			idle(number);
		else if (strcmp(what, "child") == 0)
			child(number, stale);
		else if (strcmp(what, "stale") == 0)
			stale = text;
		else if (strcmp(what, "tidy") == 0)
			tidy(number);
		else if (strcmp(what, "empty") == 0)
			empty(number);
		else if (strcmp(what, "search") == 0)
			search(number);
		else if (strcmp(what, "storm") == 0)
			in_four_threads(send_signals, &number);
		else if (strcmp(what, "small_stack") == 0)
			small_stack();
		else if (strcmp(what, "in_scope") == 0)
			region_do_with(&(struct region_options){.name = "open"}, wait_in_scope, &number);
		else if (puts("ready") == EOF || fflush(stdout) != 0)
			return 3;
	}
	return 0;
}
