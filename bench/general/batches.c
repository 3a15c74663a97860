/*
 * batches.c: batches of blocks of all sizes to 1000 bytes, freed partly in the order in which they
 * were made and partly in the opposite one, with some left for later: what MicroQuill says its
 * benchmarks for SmartHeap do ("sh6bench"; with threads that free what others made, "sh8bench").
 *
 * A batch is a run of blocks of one size. Small sizes have more of them. Every third batch is freed
 * last block first, every third first block first; the third kind waits in a list until it is long.
 * With threads, it is left in a mailbox for the next thread instead, who frees it.
 */
#include "workloads.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MIN_BYTES = 8, MAX_BYTES = 1000, BATCH_BYTES = 8192, WAITING = 64 };

struct batch {
	struct batch *next;
	size_t count;
	void *blocks[];
};

struct mailboxes {
	_Atomic(struct batch *) boxes[GENERAL_MAX_THREADS];
	unsigned threads;
	size_t rounds;
};

static struct batch *make(size_t size)
{
	size_t count = BATCH_BYTES / size + 2;
	struct batch *batch = malloc(sizeof(*batch) + count * sizeof(batch->blocks[0]));

	if (!batch)
		bench_fail("out of memory");
	batch->count = count;
	for (size_t i = 0; i < count; i++)
		batch->blocks[i] = block_make(size);
	return batch;
}

static void free_first_first(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		block_free(batch->blocks[i]);
	free(batch);
}

static void free_last_first(struct batch *batch)
{
	for (size_t i = batch->count; i > 0; i--)
		block_free(batch->blocks[i - 1]);
	free(batch);
}

static void free_list(struct batch *batch)
{
	while (batch) {
		struct batch *next = batch->next;
		free_first_first(batch);
		batch = next;
	}
}

/* Frees what is there for this thread and leaves the list for the next one. */
static void send(struct mailboxes *mail, unsigned thread, struct batch *list)
{
	free_list(atomic_exchange(&mail->boxes[thread], NULL));
	free_list(atomic_exchange(&mail->boxes[(thread + 1) % mail->threads], list));
}

static void work(void *arg, unsigned thread)
{
	struct mailboxes *mail = arg;
	struct batch *list = NULL;
	size_t number = 0, waiting = 0;

	for (size_t round = 0; round < mail->rounds; round++)
		for (size_t size = MIN_BYTES; size <= MAX_BYTES; size += 1 + size / 16, number++) {
			struct batch *batch = make(size);

			if (number % 3 == 0) {
				free_last_first(batch);
			} else if (number % 3 == 1) {
				free_first_first(batch);
			} else {
				batch->next = list;
				list = batch;
				waiting++;
			}
			if (waiting == WAITING) {
				send(mail, thread, list);
				list = NULL;
				waiting = 0;
			}
		}
	send(mail, thread, list);
}

static void work_in_threads(unsigned threads, size_t rounds)
{
	static struct mailboxes mail;

	mail.threads = threads;
	mail.rounds = rounds;
	if (threads == 1)
		work(&mail, 0);
	else
		general_run_threads(threads, work, &mail);
	for (unsigned i = 0; i < threads; i++)
		free_list(atomic_exchange(&mail.boxes[i], NULL));
}

static void run(void)
{
	work_in_threads(1, general_times(400));
}

static void run_mt(void)
{
	work_in_threads(general_threads(), general_times(100));
}

const struct workload workload_batches = {
	.name = "batches", .about = "batches freed in both orders, some of them late", .threads = 1, .run = run,
};
const struct workload workload_batches_mt = {
	.name = "batches-mt", .about = "the same, with the late ones freed by another thread", .run = run_mt,
};
