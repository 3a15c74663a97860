/*
 * forks.c: forks while other threads allocate, free and open scopes. The child, in which only the
 * forking thread is left, must be able to check and free the blocks it inherited, allocate, open scopes
 * and start threads of its own; a child that hangs is a finding.
 *
 * Not under ThreadSanitizer, which can't start threads in the child of a program with several.
 */
#include "stress.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 20
#define INHERITED_BLOCKS 100

static atomic_ullong fork_count;

static void allocate(struct worker *worker, unsigned count)
{
	void *own[32] = {0};
	for (unsigned i = 0; i < count; i++) {
		void **place = &own[random_below(&worker->rng, 32)];
		block_free(*place);
		*place = block_make(worker, block_random_size(worker, random_one_in(&worker->rng, 50) ? 18 : 10));
	}
	for (unsigned i = 0; i < 32; i++)
		block_free(own[i]);
}

static void allocate_in_scope(void *arg)
{
	allocate(arg, 200);
}

static void *thread_of_child(void *arg)
{
	struct worker *worker = arg;
	allocate(worker, 200);
	region_do(allocate_in_scope, worker);
	return NULL;
}

_Noreturn static void be_child(struct worker *worker, void **inherited)
{
	pthread_t thread;
	alarm(CHILD_SECONDS);
	for (unsigned i = 0; i < INHERITED_BLOCKS; i++)
		block_free(inherited[i]);
	allocate(worker, 200);
	region_do(allocate_in_scope, worker);
	if (pthread_create(&thread, NULL, thread_of_child, worker) != 0)
		stress_fail("no thread to be had in the child of a fork");
	pthread_join(thread, NULL);
	_exit(0);
}

static void fork_once(struct worker *worker, void **inherited)
{
	int status;
	pid_t child = fork();
	if (child < 0)
		stress_fail("fork: %s", strerror(errno));
	if (child == 0)
		be_child(worker, inherited);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			stress_fail("waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		stress_fail("the child of fork %llu hangs", (unsigned long long)fork_count);
	if (status != 0)
		stress_fail("the child of fork %llu ends with status %#x", (unsigned long long)fork_count, status);
	atomic_fetch_add(&fork_count, 1);
}

/* Some forks happen inside a scope: the child has it too. */
static void fork_again_and_again(void *arg)
{
	struct worker *worker = arg;
	void *inherited[INHERITED_BLOCKS];
	for (unsigned i = 0; i < INHERITED_BLOCKS; i++)
		inherited[i] = block_make(worker, block_random_size(worker, 13));
	for (unsigned i = 0; i < 5 && !atomic_load(&worker->stress->over); i++)
		fork_once(worker, inherited);
	for (unsigned i = 0; i < INHERITED_BLOCKS; i++)
		block_free(inherited[i]);
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		if (worker->id < 2 && random_one_in(&worker->rng, 2))
			fork_again_and_again(worker);
		else if (worker->id < 2)
			region_do(fork_again_and_again, worker);
		else if (random_one_in(&worker->rng, 2))
			allocate(worker, 500);
		else
			region_do(allocate_in_scope, worker);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("forks", 4, argc, argv);
	if (STRESS_UNDER_TSAN)
		return STRESS_EXIT_SKIPPED;
	stress_run(stress, work, NULL);
	return stress_end(stress, "forks", fork_count);
}
