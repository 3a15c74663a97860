/*
 * fading.c: what becomes of blocks at the end of a scope, beside N MiB of other heap.
 *
 * A request allocates 100 KB in blocks of 16 to 128 bytes. `freed`: it frees all of them. `left`: it frees
 * none of them in a scope, which is what the policy `reachable` searches for; malloc without scopes has to
 * free them. `survivor`: it frees all but one of 64 bytes, which is freed 10,000 requests later. The other
 * heap is a list of nodes full of pointers, which a search has to look at. The unit is a request.
 */
#include "bench.h"
#include "ways.h"

#include <stdlib.h>
#include <string.h>

#define REQUEST_BYTES 100000
#define REQUESTS 50
#define BLOCKS_MAX (REQUEST_BYTES / 16)
#define SURVIVORS 10000
#define NODE_BYTES 64

#define FADING_WAYS(X) X(heap) X(reachable) X(unfreed)

struct node {
	struct node *next, *others[NODE_BYTES / sizeof(void *) - 1];
};

static struct fading {
	bool frees, leaves_one;
	unsigned seed;
	size_t survivor;
	void **survivors;
	void **blocks;
} fading = {.seed = 1};

static unsigned draw(void)
{
	fading.seed ^= fading.seed << 13;
	fading.seed ^= fading.seed >> 17;
	fading.seed ^= fading.seed << 5;
	return fading.seed;
}

static void leave_survivor(void)
{
	void **place = &fading.survivors[fading.survivor++ % SURVIVORS];

	free(*place);
	*place = memset(malloc(64), 0, 64);
}

/* What is in the array is no reference: it is cleared, as a program's locals would be gone. */
static void request(void *unused)
{
	size_t count = 0;

	(void)unused;
	for (size_t bytes = 0; bytes < REQUEST_BYTES; count++) {
		size_t size = 16 + draw() % 113;
		char *p = malloc(size);

		*(void **)(void *)p = NULL;
		p[size - 1] = 1;
		fading.blocks[count] = p;
		bytes += size;
	}
	if (fading.leaves_one)
		leave_survivor();
	for (size_t i = 0; fading.frees && i < count; i++)
		free(fading.blocks[i]);
	memset(fading.blocks, 0, count * sizeof(*fading.blocks));
}

#define DEFINE_PASS(way) \
	static void requests_##way(void *job, unsigned thread) \
	{ \
		(void)thread; \
		for (int i = 0; i < REQUESTS; i++) \
			way_##way.extent(request, job); \
	}
FADING_WAYS(DEFINE_PASS)

static const struct way *const fading_ways[] = { FADING_WAYS(WAY_ADDRESS) NULL };

static struct node *make_heap(size_t mib)
{
	struct node *list = NULL;

	for (size_t i = 0; i < (mib << 20) / sizeof(struct node); i++) {
		struct node *node = malloc(sizeof(*node));

		node->next = list;
		for (size_t j = 0; j < sizeof(node->others) / sizeof(node->others[0]); j++)
			node->others[j] = j % 2 ? list : NULL;
		list = node;
	}
	return list;
}

static void free_heap(struct node *list)
{
	for (struct node *next; list; list = next) {
		next = list->next;
		free(list);
	}
}

static void measure(const struct way *way, const char *kind, bench_pass *pass)
{
	static const size_t heaps[] = { 1, 10, 100 };

	for (size_t i = 0; i < sizeof(heaps) / sizeof(*heaps); i++) {
		struct node *volatile other = make_heap(bench_capped(heaps[i]));

		bench_measure(&(struct bench_row){
			.way = way, .kind = kind, .n = heaps[i], .threads = 1,
			.units = REQUESTS, .unit = "request",
		}, pass, NULL);
		free_heap(other);
	}
}

static void measure_way(const struct way *way, bench_pass *pass)
{
	bool is_left = way == &way_reachable;

	fading.frees = true;
	measure(way, "freed", pass);
	/* Under `unfreed` nobody would ever free them. */
	fading.frees = !is_left;
	if (way != &way_unfreed)
		measure(way, "left", pass);
	fading.frees = fading.leaves_one = true;
	measure(way, "survivor", pass);
	fading.leaves_one = false;
}

#define MEASURE(way) \
	if (bench_selected(&way_##way)) \
		measure_way(&way_##way, requests_##way);

int main(int argc, char **argv)
{
	bench_start(argc, argv, "fading", fading_ways);
	fading.blocks = bench_array(BLOCKS_MAX, sizeof(*fading.blocks));
	fading.survivors = bench_array(SURVIVORS, sizeof(*fading.survivors));
	FADING_WAYS(MEASURE)
	return 0;
}
