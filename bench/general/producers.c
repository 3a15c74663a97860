/*
 * producers.c: threads that only allocate and threads that only free, after C. Lever and D.
 * Boreham, "Malloc() performance in a multithreaded Linux environment" (USENIX 2000).
 *
 * Half of the threads fill batches, the other half empties them; between the two is a queue of a
 * few batches, and whoever finds it full or empty sleeps. A batch is a block itself and goes the
 * same way.
 */
#include "workloads.h"

#include <pthread.h>
#include <stdlib.h>

enum { BATCH = 500, QUEUE = 32, MIN_BYTES = 16, DOUBLINGS = 6 };

struct batch {
	void *blocks[BATCH];
};

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t room, work;
	struct batch *batches[QUEUE];
	size_t first, count;
	size_t batches_each; /* that one thread puts in, or takes out */
};

static void put(struct queue *queue, struct batch *batch)
{
	pthread_mutex_lock(&queue->lock);
	while (queue->count == QUEUE)
		pthread_cond_wait(&queue->room, &queue->lock);
	queue->batches[(queue->first + queue->count++) % QUEUE] = batch;
	pthread_cond_signal(&queue->work);
	pthread_mutex_unlock(&queue->lock);
}

static struct batch *take(struct queue *queue)
{
	struct batch *batch;

	pthread_mutex_lock(&queue->lock);
	while (queue->count == 0)
		pthread_cond_wait(&queue->work, &queue->lock);
	batch = queue->batches[queue->first];
	queue->first = (queue->first + 1) % QUEUE;
	queue->count--;
	pthread_cond_signal(&queue->room);
	pthread_mutex_unlock(&queue->lock);
	return batch;
}

static void produce(struct queue *queue, unsigned thread)
{
	uint64_t random = random_seed(thread + 1);

	for (size_t i = 0; i < queue->batches_each; i++) {
		struct batch *batch = malloc(sizeof(*batch));

		if (!batch)
			bench_fail("out of memory");
		for (size_t k = 0; k < BATCH; k++)
			batch->blocks[k] = block_make(random_pareto(&random, MIN_BYTES, DOUBLINGS));
		put(queue, batch);
	}
}

static void consume(struct queue *queue)
{
	for (size_t i = 0; i < queue->batches_each; i++) {
		struct batch *batch = take(queue);

		for (size_t k = 0; k < BATCH; k++)
			block_free(batch->blocks[k]);
		free(batch);
	}
}

static void produce_or_consume(void *queue, unsigned thread)
{
	if (thread % 2 == 0)
		produce(queue, thread);
	else
		consume(queue);
}

static void run(void)
{
	struct queue queue = {
		.lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER,
		.work = PTHREAD_COND_INITIALIZER, .batches_each = general_times(2500),
	};

	general_run_threads(general_threads() / 2 * 2, produce_or_consume, &queue);
}

const struct workload workload_producers = {
	.name = "producers", .about = "half of the threads allocate, the other half frees", .run = run,
};
