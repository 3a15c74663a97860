/*
 * shared_regions.c: threads allocate from the same shared regions at once, resize, ask, add callbacks, and
 * are within them; some are reset all the while by any thread, some only when nobody looks; and all of them
 * end now and then, and are made anew.
 *
 * What must hold: in a *wild* region, reset at any time, a block is whole until its thread next allocates
 * from that region, since a thread takes notice of a reset then and not before. In a *calm* one, which is
 * reset under the write lock only, all blocks are. Every callback is called once.
 */
#include "pattern.h"
#include "stress.h"

#include <stdlib.h>
#include <string.h>

#define WILD 2
#define CALM 2
#define REGIONS (WILD + CALM)
#define HELD_MOST 64
#define VISIT_OPERATIONS 300

static struct {
	pthread_rwlock_t lock; /* held for reading by whoever uses the regions */
	region_t *regions[REGIONS];
	atomic_ullong added, called; /* callbacks */
	atomic_ullong resets;
} shared = {.lock = PTHREAD_RWLOCK_INITIALIZER};

struct held {
	char *p;
	size_t size;
	uint64_t id;
};

/* What a thread holds while it has the lock. */
struct visit {
	struct worker *worker;
	region_t *local[REGIONS];
	struct held newest[WILD];
	struct held held[CALM][HELD_MOST];
	unsigned count[CALM];
};

static void make_regions(void)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct region_options options = {
			.name = i < WILD ? "wild" : "calm", .shared = 1,
			.buffer_size = i % 2 ? 65536 : 0, .keep_bytes = i % 2 ? 256 << 10 : 0,
		};
		shared.regions[i] = region_create(&options);
		if (!shared.regions[i])
			stress_fail("no region");
	}
}

static void destroy_regions(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		region_destroy(shared.regions[i]);
}

static void check(const struct held *held)
{
	size_t at = pattern_damage(held->p, 0, held->size, held->id);
	if (at != PATTERN_INTACT)
		stress_fail("block at %p of %zu bytes has changed at offset %zu", (void *)held->p, held->size, at);
}

static size_t draw_size(struct worker *worker)
{
	return 1 + random_scaled(&worker->rng, random_one_in(&worker->rng, 100) ? 18 : 10);
}

static struct held fill(struct worker *worker, void *p, size_t size)
{
	struct held held = {.p = p, .size = size, .id = random_next(&worker->rng)};
	if (!p)
		stress_fail("NULL for %zu bytes", size);
	pattern_fill(p, 0, size, held.id);
	worker->blocks++;
	worker->bytes += size;
	return held;
}

static void *take(struct visit *visit, unsigned i, size_t size)
{
	struct worker *worker = visit->worker;
	if (random_one_in(&worker->rng, 16))
		return region_memalign(shared.regions[i], 64, size);
	return region_alloc(random_one_in(&worker->rng, 4) ? shared.regions[i] : visit->local[i], size);
}

static void allocate_wild(struct visit *visit, unsigned i)
{
	size_t size = draw_size(visit->worker);
	if (visit->newest[i].p)
		check(&visit->newest[i]);
	visit->newest[i] = fill(visit->worker, take(visit, i, size), size);
}

static void allocate_calm(struct visit *visit, unsigned i)
{
	struct worker *worker = visit->worker;
	unsigned *count = &visit->count[i - WILD];
	size_t at = *count < HELD_MOST ? *count : random_below(&worker->rng, HELD_MOST);
	struct held *held = &visit->held[i - WILD][at];
	size_t size = draw_size(worker);
	if (*count < HELD_MOST)
		++*count;
	else
		check(held);
	*held = fill(worker, take(visit, i, size), size);
}

static void resize_calm(struct visit *visit, unsigned i)
{
	struct worker *worker = visit->worker;
	if (!visit->count[i - WILD])
		return;
	struct held *held = &visit->held[i - WILD][random_below(&worker->rng, visit->count[i - WILD])];
	struct held old = *held;
	size_t size = draw_size(worker);
	check(&old);
	old.p = region_realloc(shared.regions[i], held->p, held->size, size);
	if (!old.p)
		stress_fail("realloc: NULL for %zu bytes", size);
	old.size = size < old.size ? size : old.size;
	check(&old);
	*held = fill(worker, old.p, size);
}

static void ask(struct visit *visit, unsigned i)
{
	const region_t *region = shared.regions[i];
	size_t cap = region_cap(region), len = region_len(region), peak = region_peak(region);
	if (cap > (size_t)1 << 40 || len > (size_t)1 << 40 || peak > (size_t)1 << 40)
		stress_fail("%zu bytes in %zu, at most %zu", len, cap, peak);
	if (i >= WILD && visit->count[i - WILD] && !region_contains(region, visit->held[i - WILD][0].p))
		stress_fail("a region doesn't contain its block");
	if (region_contains(region, &shared))
		stress_fail("a region contains what isn't its own");
}

static void count_call(void *number)
{
	atomic_fetch_add((atomic_ullong *)number, 1);
}

static void add_callback(unsigned i)
{
	if (region_on_end(shared.regions[i], count_call, &shared.called) != 0)
		stress_fail("no callback is taken");
	atomic_fetch_add(&shared.added, 1);
}

/* In region_within(): blocks of malloc, half of them freed. */
static void churn(void *arg)
{
	struct worker *worker = arg;
	void *blocks[20];
	for (int i = 0; i < 20; i++)
		blocks[i] = block_make(worker, block_random_size(worker, 10));
	for (int i = 0; i < 20; i++) {
		block_check(blocks[i]);
		if (i % 2)
			block_free(blocks[i]);
	}
}

/* Entering it takes notice of resets, as allocating does. */
static void go_within(struct visit *visit, unsigned i)
{
	region_within(shared.regions[i], churn, visit->worker);
	if (i < WILD)
		visit->newest[i].p = NULL;
}

static void *one_short_life(void *visit_of_another)
{
	struct worker *worker = visit_of_another;
	struct visit visit = {.worker = worker};
	for (unsigned i = 0; i < REGIONS; i++)
		visit.local[i] = region_local(shared.regions[i]);
	for (unsigned i = 0; i < 50; i++)
		allocate_wild(&visit, i % WILD);
	return NULL;
}

/* A thread of its own, whose part somebody else takes over. */
static void live_shortly(struct worker *worker)
{
	struct worker other = worker_make(worker->stress, (unsigned)random_below(&worker->rng, 1000), NULL);
	pthread_t thread;
	if (pthread_create(&thread, NULL, one_short_life, &other) != 0)
		stress_fail("no more threads to be had");
	pthread_join(thread, NULL);
}

static void reset_wild(struct visit *visit, unsigned i)
{
	visit->newest[i].p = NULL;
	region_reset(shared.regions[i]);
	atomic_fetch_add(&shared.resets, 1);
}

static void operate(struct visit *visit)
{
	struct worker *worker = visit->worker;
	unsigned i = (unsigned)random_below(&worker->rng, REGIONS);
	bool is_wild = i < WILD;
	switch (random_below(&worker->rng, 100)) {
	case 0: ask(visit, i); break;
	case 1: add_callback(i); break;
	case 2: go_within(visit, i); break;
	case 3: is_wild ? reset_wild(visit, i) : resize_calm(visit, i); break;
	case 4:
		if (random_one_in(&worker->rng, 10))
			live_shortly(worker);
		break;
	default: is_wild ? allocate_wild(visit, i) : allocate_calm(visit, i); break;
	}
}

static void one_visit(struct worker *worker)
{
	struct visit visit = {.worker = worker};
	pthread_rwlock_rdlock(&shared.lock);
	for (unsigned i = 0; i < REGIONS; i++)
		visit.local[i] = region_local(shared.regions[i]);
	for (unsigned n = 0; n < VISIT_OPERATIONS; n++)
		operate(&visit);
	for (unsigned i = 0; i < CALM; i++)
		for (unsigned n = 0; n < visit.count[i]; n++)
			check(&visit.held[i][n]);
	pthread_rwlock_unlock(&shared.lock);
}

static void change_regions(struct worker *worker)
{
	pthread_rwlock_wrlock(&shared.lock);
	for (unsigned i = WILD; i < REGIONS; i++)
		region_reset(shared.regions[i]);
	if (random_one_in(&worker->rng, 4)) {
		destroy_regions();
		if (shared.added != shared.called)
			stress_fail("%llu callbacks were added, %llu called", (unsigned long long)shared.added,
			            (unsigned long long)shared.called);
		make_regions();
	}
	pthread_rwlock_unlock(&shared.lock);
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		one_visit(worker);
		if (random_one_in(&worker->rng, 8))
			change_regions(worker);
	}
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("shared_regions", 4, argc, argv);
	make_regions();
	stress_run(stress, work, NULL);
	destroy_regions();
	if (shared.added != shared.called)
		stress_fail("%llu callbacks were added, %llu called", (unsigned long long)shared.added,
		            (unsigned long long)shared.called);
	return stress_end(stress, "resets", shared.resets);
}
