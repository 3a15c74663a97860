/*
 * server.c: a server whose sessions move from thread to thread, after P. Larson and M. Krishnan,
 * "Memory allocation for long-running server applications" (ISMM 1998).
 *
 * Each thread has an array of blocks of random sizes; a step frees one at random and puts another
 * in its place. After some steps the thread starts a successor, hands the array over, and ends. So
 * every block is freed by another thread than its own sooner or later, and threads keep coming and
 * going. The main thread fills the arrays at first and shuffles blocks between them.
 */
#include "workloads.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

enum { BLOCKS = 5000, MIN_BYTES = 8, MAX_BYTES = 1000, GENERATIONS = 20 };

struct sessions {
	void **blocks;
	size_t count;
	size_t steps; /* of one thread */
	unsigned generations;
	uint64_t random;
	sem_t *over;
};

static void serve(struct sessions *sessions)
{
	for (size_t i = 0; i < sessions->steps; i++) {
		void **place = &sessions->blocks[random_below(&sessions->random, sessions->count)];

		block_free(*place);
		*place = block_make(random_between(&sessions->random, MIN_BYTES, MAX_BYTES));
	}
}

static void *be_a_generation(void *arg);

static void start_generation(struct sessions *sessions)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, be_a_generation, sessions) != 0)
		bench_fail("no more threads");
	pthread_detach(thread);
}

static void *be_a_generation(void *arg)
{
	struct sessions *sessions = arg;

	serve(sessions);
	if (--sessions->generations > 0)
		start_generation(sessions);
	else
		sem_post(sessions->over);
	return NULL;
}

static void fill_and_shuffle(void **blocks, size_t count)
{
	uint64_t random = random_seed(1);

	for (size_t i = 0; i < count; i++)
		blocks[i] = block_make(random_between(&random, MIN_BYTES, MAX_BYTES));
	for (size_t i = count - 1; i > 0; i--) {
		size_t other = random_below(&random, i + 1);
		void *p = blocks[i];
		blocks[i] = blocks[other];
		blocks[other] = p;
	}
}

static void run(void)
{
	unsigned threads = general_threads();
	size_t each = general_live(BLOCKS);
	void **blocks = bench_array(each * threads, sizeof(*blocks));
	struct sessions sessions[GENERAL_MAX_THREADS];
	sem_t over;

	sem_init(&over, 0, 0);
	fill_and_shuffle(blocks, each * threads);
	for (unsigned i = 0; i < threads; i++) {
		sessions[i] = (struct sessions){
			.blocks = blocks + i * each, .count = each, .steps = general_times(20000),
			.generations = GENERATIONS, .random = random_seed(i + 2), .over = &over,
		};
		start_generation(&sessions[i]);
	}
	for (unsigned i = 0; i < threads; i++)
		while (sem_wait(&over) != 0)
			;
	for (size_t i = 0; i < each * threads; i++)
		block_free(blocks[i]);
}

const struct workload workload_server = {
	.name = "server", .about = "sessions handed from thread to thread", .run = run,
};
