/*
 * slabs.c: threads share blocks with counted references. A place holds one reference to a block; under
 * its lock a thread takes another for itself, reads the block, chains it to others, stores its location,
 * and lets go. So the last reference goes now here, now there, and chains end wherever they do.
 *
 * At the end every block has been let go, and none may be in use.
 */
#include "pattern.h"
#include "stress.h"

#include <stdlib.h>
#include <string.h>

#define PLACES 200

struct place {
	pthread_mutex_t lock;
	void *block;                   /* with one reference */
	struct region_slab_loc loc;    /* of it */
};

struct head {
	uint32_t size, id;
};

static struct {
	region_slabs_t *slabs[2];
	struct place places[2][PLACES];
	atomic_ullong added;
} shared;

static region_slabs_t *slabs_of(unsigned which)
{
	return shared.slabs[which];
}

static void *make(struct worker *worker, unsigned which)
{
	unsigned shift = random_one_in(&worker->rng, 100) ? 16 : 9;
	size_t size = sizeof(struct head) + random_scaled(&worker->rng, shift);
	struct head head = {(uint32_t)size, (uint32_t)random_next(&worker->rng)};
	char *block = region_slab_alloc(slabs_of(which), size);
	if (!block)
		stress_fail("NULL for %zu bytes", size);
	memcpy(block, &head, sizeof(head));
	pattern_fill(block, sizeof(head), size, head.id);
	worker->blocks++;
	worker->bytes += size;
	return block;
}

static void check(unsigned which, const char *block)
{
	struct head head;
	memcpy(&head, block, sizeof(head));
	if (head.size > region_slab_size(slabs_of(which), block))
		stress_fail("block at %p: its header has changed", (const void *)block);
	size_t at = pattern_damage(block, sizeof(head), head.size, head.id);
	if (at != PATTERN_INTACT)
		stress_fail("block at %p of %u bytes has changed at offset %zu", (const void *)block, head.size, at);
	if (!region_slab_owns(slabs_of(which), block + head.size - 1))
		stress_fail("block at %p isn't owned", (const void *)block);
}

static struct place *draw_place(struct worker *worker, unsigned which)
{
	return &shared.places[which][random_below(&worker->rng, PLACES)];
}

/* Puts a block in a place, with the caller's reference; lets go of what was there. */
static void put(struct worker *worker, unsigned which, void *block)
{
	struct place *place = draw_place(worker, which);
	pthread_mutex_lock(&place->lock);
	void *old = place->block;
	place->block = block;
	place->loc = region_slab_loc_of(slabs_of(which), block);
	pthread_mutex_unlock(&place->lock);
	if (old) {
		check(which, old);
		region_slab_dec_ref(slabs_of(which), old);
	}
}

/* A block with a reference for the caller, or NULL. */
static void *borrow(struct worker *worker, unsigned which)
{
	struct place *place = draw_place(worker, which);
	pthread_mutex_lock(&place->lock);
	void *block = place->block;
	if (block) {
		if (region_slab_ptr_of(slabs_of(which), place->loc) != block)
			stress_fail("a location leads elsewhere");
		region_slab_add_ref(slabs_of(which), block);
		atomic_fetch_add(&shared.added, 1);
	}
	pthread_mutex_unlock(&place->lock);
	return block;
}

/* Chains a new block to an old one: chains grow at their heads, so none is a ring. */
static void chain(struct worker *worker, unsigned which)
{
	void *block = make(worker, which), *next = borrow(worker, which);
	region_slab_set_next(slabs_of(which), block, next);
	if (next)
		region_slab_dec_ref(slabs_of(which), next);
	put(worker, which, block);
}

static void walk(struct worker *worker, unsigned which)
{
	void *block = borrow(worker, which);
	for (int i = 0; block && i < 20; i++) {
		check(which, block);
		void *next = region_slab_get_next(slabs_of(which), block);
		region_slab_dec_ref(slabs_of(which), block);
		block = next;
	}
	if (block)
		region_slab_dec_ref(slabs_of(which), block);
}

/* Takes the rest of a chain off. */
static void cut(struct worker *worker, unsigned which)
{
	void *block = borrow(worker, which);
	if (!block)
		return;
	region_slab_set_next(slabs_of(which), block, NULL);
	region_slab_dec_ref(slabs_of(which), block);
}

static void look(unsigned which)
{
	struct region_slab_stats stats;
	region_slab_stats_read(slabs_of(which), &stats);
	if (stats.dec_ref_zeroes > stats.allocs + 64 || stats.slab_frees > stats.slab_allocs + 64)
		stress_fail("statistics don't add up");
}

static void work(struct worker *worker)
{
	while (!atomic_load(&worker->stress->over)) {
		unsigned which = (unsigned)random_below(&worker->rng, 2);
		switch (random_below(&worker->rng, 12)) {
		case 0: look(which); break;
		case 1: cut(worker, which); break;
		case 2:
		case 3:
		case 4: walk(worker, which); break;
		case 5:
		case 6:
		case 7: chain(worker, which); break;
		default: put(worker, which, make(worker, which)); break;
		}
	}
}

static void end_slabs(unsigned which)
{
	struct region_slab_stats stats;
	for (unsigned i = 0; i < PLACES; i++)
		if (shared.places[which][i].block)
			region_slab_dec_ref(slabs_of(which), shared.places[which][i].block);
	region_slab_stats_read(slabs_of(which), &stats);
	if (stats.blocks_in_use != 0 || stats.allocs != stats.dec_ref_zeroes)
		stress_fail("%llu blocks are in use; %llu were made and %llu have ended",
		            (unsigned long long)stats.blocks_in_use, (unsigned long long)stats.allocs,
		            (unsigned long long)stats.dec_ref_zeroes);
	region_slab_destroy(slabs_of(which));
}

int main(int argc, char **argv)
{
	struct stress *stress = stress_begin("slabs", 4, argc, argv);
	shared.slabs[0] = region_slab_create(1, 1024, 2, NULL);
	shared.slabs[1] = region_slab_create(0, 0, 0, NULL);
	for (unsigned i = 0; i < 2 * PLACES; i++)
		pthread_mutex_init(&shared.places[i / PLACES][i % PLACES].lock, NULL);
	stress_run(stress, work, NULL);
	end_slabs(0);
	end_slabs(1);
	return stress_end(stress, "references added", shared.added);
}
