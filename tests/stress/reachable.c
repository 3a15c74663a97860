/*
 * reachable.c: every thread leaves lists behind in scopes of the policy `reachable`, with one pointer to
 * each: in a local, in static data, in thread-local data, in a block of the heap, in a mapping, in
 * another list, or with another thread. Much is left with no pointer at all, so that searches are made
 * all the time, while threads allocate, free, start and end. Nothing that has a pointer may be lost.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINKS_MOST 20u
#define PLACES 64
#define MAPPED_BYTES ((size_t)1 << 20)
#define MAGIC 0x5ca1ab1e0ddba11u

struct link {
	struct link *next, *child;
	uint64_t magic, size;
	unsigned char pattern[];
};

static struct link *in_data[STRESS_THREADS_MOST];
static _Thread_local struct link *in_tls;
static _Atomic(struct link *) handed_over[PLACES];
static atomic_ullong list_count;

/* What a scope is to leave, and where; the worker's own frames know nothing of it. */
struct order {
	struct worker *worker;
	struct link **place;
	struct link *child; /* which the list is to hold */
};

static void make_list(void *arg)
{
	struct order *order = arg;
	uint64_t *rng = &order->worker->rng;
	struct link *list = NULL;

	for (unsigned i = (unsigned)random_below(rng, LINKS_MOST) + 1; i > 0; i--) {
		size_t size = random_one_in(rng, 200) ? 100000 : 8 + random_below(rng, 300);
		struct link *link = shim_malloc(sizeof(*link) + size);

		*link = (struct link){.next = list, .magic = MAGIC, .size = size};
		memset(link->pattern, (int)(size & 0xff), size);
		list = link;
	}
	list->child = order->child;
	*order->place = list;
	order->worker->blocks++;
	order->place = NULL;
}

static __attribute__((noinline)) void
order_list(struct worker *worker, struct link **place, struct link *child)
{
	const struct region_options options = {.name = "reachable", .fade = REGION_FADE_REACHABLE};
	struct order order = {worker, place, child};

	region_do_with(&options, make_list, &order);
	atomic_fetch_add_explicit(&list_count, 1, memory_order_relaxed);
}

static void leave_garbage(struct worker *worker)
{
	struct link *garbage = NULL;

	order_list(worker, &garbage, NULL);
}

static void check(const struct link *link)
{
	if (link->magic != MAGIC || link->size > 100000)
		stress_fail("a block that has a pointer was lost: %p", (const void *)link);
	for (size_t i = 0; i < link->size; i += 37)
		if (link->pattern[i] != (link->size & 0xff))
			stress_fail("byte %zu of a block of %zu has changed", i, (size_t)link->size);
}

/* All of it, and the lists that it holds; then some are freed, and some are left to the next search. */
static void end_list(struct worker *worker, struct link *list)
{
	bool frees = random_one_in(&worker->rng, 2);

	while (list) {
		struct link *next = list->next;

		check(list);
		if (list->child)
			end_list(worker, list->child);
		if (frees)
			shim_free(list);
		list = next;
	}
}

static void test_place(struct worker *worker, struct link **place)
{
	end_list(worker, *place);
	*place = NULL;
	order_list(worker, place, NULL);
}

static void hand_over(struct worker *worker)
{
	struct link *list = NULL;

	order_list(worker, &list, NULL);
	list = atomic_exchange(&handed_over[random_below(&worker->rng, PLACES)], list);
	end_list(worker, list);
}

/* A list in a list in a list, of which only the last is known to anybody. */
static void nest(struct worker *worker)
{
	struct link *list = NULL;

	for (unsigned i = 0; i < 5; i++) {
		order_list(worker, &list, list);
		leave_garbage(worker);
	}
	end_list(worker, list);
}

static void *short_life(void *arg)
{
	struct worker worker = worker_make(arg, 1000, NULL);
	struct link *list = NULL;

	order_list(&worker, &list, NULL);
	for (int i = 0; i < 20; i++)
		leave_garbage(&worker);
	end_list(&worker, list);
	return NULL;
}

static void start_and_join(struct worker *worker)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, short_life, worker->stress) == 0)
		pthread_join(thread, NULL);
}

static void work(struct worker *worker)
{
	struct link *local = NULL, **in_heap = shim_calloc(1, sizeof(*in_heap));
	char *mapped = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct link **in_mapping = (struct link **)(void *)(mapped + MAPPED_BYTES / 2);

	while (!atomic_load(&worker->stress->over)) {
		switch (random_below(&worker->rng, 12)) {
		case 0: test_place(worker, &local); break;
		case 1: test_place(worker, &in_data[worker->id % STRESS_THREADS_MOST]); break;
		case 2: test_place(worker, &in_tls); break;
		case 3: test_place(worker, in_heap); break;
		case 4: test_place(worker, in_mapping); break;
		case 5: nest(worker); break;
		case 6: hand_over(worker); break;
		case 7:
			if (random_one_in(&worker->rng, 50))
				start_and_join(worker);
			break;
		default: leave_garbage(worker);
		}
	}
	end_list(worker, local);
	end_list(worker, in_tls);
	end_list(worker, *in_heap);
	end_list(worker, *in_mapping);
	shim_free(in_heap);
	munmap(mapped, MAPPED_BYTES);
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("reachable", 4, argc, argv);
	struct region_stats stats;

	/* Its own thread can't be stopped, so there are no searches. */
	if (STRESS_UNDER_TSAN)
		return STRESS_EXIT_SKIPPED;
	stress_run(stress, work, NULL);
	region_stats_read(&stats);
	if (stats.searches == 0)
		stress_fail("no search was made; %llu failed", (unsigned long long)stats.searches_failed);
	return stress_end(stress, "lists", list_count);
}
