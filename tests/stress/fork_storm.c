/*
 * fork_storm.c: thousands of forks while threads allocate; the children allocate, free what they have
 * inherited, and start threads.
 *
 *     fork_storm [--forks N] [--threads N] [--handlers]
 *
 * A plain program for any malloc: run it with the library preloaded (scripts/fork-storm does). The main
 * thread forks, some children at a time; with --handlers it sends signals to the allocating threads
 * instead, and these fork in their handlers, all at once, wherever they are: in malloc, in free. A child
 * that was made inside a heap call ends at once, since no malloc can be called there. All others do all
 * their work. (glibc's own malloc doesn't survive this: it waits in fork for who waits for it.)
 *
 * Whatever hangs is killed by its alarm, and is a failure. Prints one line and ends with status 0.
 */
#define REGION_OPTIONAL
#include "region.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MOST = 16, SLOTS = 256, INHERITED = 300, CHILDREN_AT_ONCE = 6 };
enum { CHILD_SECONDS = 60, ALL_SECONDS = 3600 };

static struct {
	unsigned long forks;
	unsigned threads;
	bool handlers;
	atomic_bool over;
	_Atomic(char *) slots[SLOTS]; /* strings that threads hand each other */
	char *inherited[INHERITED];   /* made before the first thread, freed by each child */
	sem_t handled;
} storm = { .forks = 10000, .threads = 4 };

/* Whether this thread is in a call of the heap, for its handler to know. */
static __thread volatile sig_atomic_t in_heap;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "fork_storm: FAILED: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* ---- allocating ------------------------------------------------------------------------------ */

static size_t random_below(uint64_t *state, size_t n)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407U;
	return (size_t)((*state >> 33) % n);
}

/* A string of `length` letters, the first of which tells all others. */
static char *make_string(size_t length)
{
	char *text, letter = (char)('a' + length % 26);

	in_heap = 1;
	text = malloc(length + 1);
	in_heap = 0;
	if (!text)
		fail("malloc");
	memset(text, letter, length);
	text[length] = '\0';
	return text;
}

static void free_string(char *text)
{
	if (!text)
		return;
	size_t length = strlen(text);
	if (length == 0 || text[0] != (char)('a' + length % 26) || text[length / 2] != text[0])
		fail("a string has changed");
	in_heap = 1;
	free(text);
	in_heap = 0;
}

static char *grow_string(char *text, size_t more)
{
	size_t length = strlen(text) + more;

	in_heap = 1;
	text = realloc(text, length + 1);
	in_heap = 0;
	if (!text)
		fail("realloc");
	memset(text, 'a' + (int)(length % 26), length);
	text[length] = '\0';
	return text;
}

static void allocate_some(void *state)
{
	for (int i = 0; i < 100; i++) {
		size_t length = 1 + random_below(state, random_below(state, 50) ? 600 : 200000);
		char *text = make_string(length);

		if (length % 3 == 0)
			text = grow_string(text, length);
		free_string(atomic_exchange(&storm.slots[random_below(state, SLOTS)], text));
	}
}

/* Entering a scope and leaving it is the heap's work, too. */
static void allocate_in_scope(void *state)
{
	in_heap = 0;
	allocate_some(state);
	in_heap = 1;
}

/* Outside of scopes and, where the malloc has them, in them. */
static void allocate(uint64_t *state)
{
	if (random_below(state, 2)) {
		allocate_some(state);
		return;
	}
	struct region_options options = { .fade = REGION_FADE_UNFREED };

	in_heap = 1;
	region_do_with(&options, allocate_in_scope, state);
	in_heap = 0;
}

static void *keep_allocating(void *number)
{
	uint64_t state = (uintptr_t)number + 1;

	while (!atomic_load(&storm.over))
		allocate(&state);
	return NULL;
}

/* ---- children -------------------------------------------------------------------------------- */

static void *allocate_in_child(void *number)
{
	uint64_t state = (uintptr_t)number + 100;

	for (int i = 0; i < 5; i++)
		allocate(&state);
	return NULL;
}

/*
 * What other threads had just put into the slots is left alone: fork doesn't copy all pages at one
 * moment, so the pointer may be there and its string not yet.
 */
static _Noreturn void be_a_child(void)
{
	pthread_t threads[2];

	alarm(CHILD_SECONDS);
	for (int i = 0; i < INHERITED; i++)
		free_string(storm.inherited[i]);
	for (int i = 0; i < SLOTS; i++)
		atomic_store(&storm.slots[i], NULL);
	allocate_in_child(NULL);
	for (uintptr_t i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, allocate_in_child, (void *)(i + 1)) != 0)
			fail("pthread_create in a child");
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static void reap(void)
{
	int status;

	while (wait(&status) < 0)
		if (errno != EINTR)
			fail("wait");
	if (status != 0) {
		fprintf(stderr, "fork_storm: FAILED: a child ends with status %#x%s\n", (unsigned)status,
		        WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ": it hangs" : "");
		_exit(1);
	}
}

static void fork_from_here(void)
{
	for (unsigned long i = 0; i < storm.forks; i++) {
		int pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0)
			be_a_child();
		if (i >= CHILDREN_AT_ONCE)
			reap();
	}
	for (unsigned long i = 0; i < CHILDREN_AT_ONCE && i < storm.forks; i++)
		reap();
}

/* ---- forks in handlers ----------------------------------------------------------------------- */

/* Waits for its own child only: other handlers wait for theirs. */
static void fork_in_handler(int signal_number)
{
	int saved = errno, status = 0, pid = fork();

	(void)signal_number;
	if (pid == 0) {
		if (in_heap)
			_exit(0);
		be_a_child();
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || status != 0) {
		static const char text[] = "fork_storm: FAILED: a child of a handler\n";
		_exit(write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 2 : 1);
	}
	errno = saved;
	sem_post(&storm.handled);
}

static void fork_from_handlers(const pthread_t *threads)
{
	struct sigaction action = { .sa_handler = fork_in_handler, .sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	for (unsigned long i = 0; i < storm.forks; i++) {
		if (pthread_kill(threads[i % storm.threads], SIGUSR1) != 0)
			fail("pthread_kill");
		if (i % storm.threads != storm.threads - 1 && i != storm.forks - 1)
			continue;
		for (unsigned long k = 0; k <= i % storm.threads; k++)
			while (sem_wait(&storm.handled) != 0)
				;
	}
}

/* ---- main ------------------------------------------------------------------------------------ */

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value == 0) {
		fprintf(stderr, "fork_storm: %s is no number\n", text);
		exit(2);
	}
	return value;
}

static void read_arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{"forks", 1, NULL, 'f'}, {"threads", 1, NULL, 't'}, {"handlers", 0, NULL, 'h'}, {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'f': storm.forks = number(optarg); break;
		case 't': storm.threads = (unsigned)number(optarg); break;
		case 'h': storm.handlers = true; break;
		default: exit(2);
		}
	if (storm.threads > THREADS_MOST)
		storm.threads = THREADS_MOST;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS_MOST];
	time_t begin = time(NULL);

	read_arguments(argc, argv);
	alarm(ALL_SECONDS);
	sem_init(&storm.handled, 0, 0);
	for (size_t i = 0; i < INHERITED; i++)
		storm.inherited[i] = make_string(1 + i * i % 5000);
	for (uintptr_t i = 0; i < storm.threads; i++)
		if (pthread_create(&threads[i], NULL, keep_allocating, (void *)i) != 0)
			fail("pthread_create");
	if (storm.handlers)
		fork_from_handlers(threads);
	else
		fork_from_here();
	atomic_store(&storm.over, true);
	for (unsigned i = 0; i < storm.threads; i++)
		pthread_join(threads[i], NULL);
	printf("fork_storm: %lu forks%s, %u threads, %ld s%s\n", storm.forks,
	       storm.handlers ? " in handlers" : "", storm.threads, (long)(time(NULL) - begin),
	       region_version ? "" : ", not with libregion");
	return 0;
}
