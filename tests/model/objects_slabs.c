/*
 * objects_slabs.c: operations on slabs. A block has references that the program holds, and references of
 * blocks that are chained to it; it ends with the last of both. Only older blocks are chained, so that there
 * are no rings, which would live for ever.
 */
#include "objects.h"
#include "pattern.h"

#include <stdlib.h>
#include <string.h>

static struct slabs *slabs_of(struct actor *actor, const struct op *op)
{
	return &actor->world->slabs[op->align_shift % WORLD_SLABS];
}

static struct slab_block **place(struct actor *actor, const struct op *op)
{
	return &slabs_of(actor, op)->blocks[op->slot % SLAB_BLOCKS];
}

/* A pointer into the block: any will do. */
static char *somewhere(const struct slab_block *block, const struct op *op)
{
	return block->block.p + (op->variant % 2 && block->block.size ? op->size % block->block.size : 0);
}

static void check_refs(struct actor *actor, struct slabs *slabs, const struct slab_block *block)
{
	unsigned refs = region_slab_refs(slabs->slabs, block->block.p);
	CHECK(actor->world, refs == block->held + block->chained, "a block has %u references, not %u", refs,
	      block->held + block->chained);
}

bool do_slab_take(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block **at = place(actor, op);
	size_t size = op->size;
	if (*at || !shadow_has_room(&world->shadow, 2 * size))
		return false;
	char *p = region_slab_alloc(slabs->slabs, size);
	CHECK(world, p, "NULL for %zu bytes of a slab", size);
	CHECK(world, (uintptr_t)p % 16 == 0, "a slab's block isn't aligned: %p", (void *)p);
	struct slab_block *block = calloc(1, sizeof *block);
	if (!block)
		abort();
	block->block = (struct block){.p = p, .size = size, .requested = size};
	block->block.usable = region_slab_size(slabs->slabs, p);
	CHECK(world, block->block.usable >= size, "%zu bytes of a slab are %zu", size, block->block.usable);
	block->held = 1;
	shadow_insert(&world->shadow, &block->block);
	block->age = block->block.id;
	pattern_fill(p, 0, size, block->block.id);
	*at = block;
	slabs->expected.allocs++;
	slabs->expected.blocks_in_use++;
	check_refs(actor, slabs, block);
	atomic_fetch_add(&world->report->heap_blocks, 1);
	return true;
}

bool do_add_ref(struct actor *actor, const struct op *op)
{
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block *block = *place(actor, op);
	if (!block)
		return false;
	region_slab_add_ref(slabs->slabs, somewhere(block, op));
	block->held++;
	slabs->expected.add_refs++;
	check_refs(actor, slabs, block);
	return true;
}

/* The last reference has gone: the block has ended, and what it was chained to has one less. */
static void settle(struct actor *actor, struct slabs *slabs, struct slab_block *block)
{
	while (block && block->held + block->chained == 0) {
		struct slab_block *next = block->next;
		CHECK(actor->world, !region_slab_owns(slabs->slabs, block->block.p), "an ended block is owned");
		for (unsigned i = 0; i < SLAB_BLOCKS; i++)
			if (slabs->blocks[i] == block)
				slabs->blocks[i] = NULL;
		shadow_remove(&actor->world->shadow, &block->block);
		free(block);
		slabs->expected.dec_ref_zeroes++;
		slabs->expected.blocks_in_use--;
		if (next) {
			next->chained--;
			slabs->expected.dec_refs++;
		}
		block = next;
	}
	if (block)
		check_refs(actor, slabs, block);
}

bool do_dec_ref(struct actor *actor, const struct op *op)
{
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block *block = *place(actor, op);
	if (!block || block->held == 0)
		return false;
	shadow_check_contents(&actor->world->shadow, &block->block);
	block->held--;
	slabs->expected.dec_refs++;
	int has_ended = region_slab_dec_ref(slabs->slabs, somewhere(block, op));
	CHECK(actor->world, has_ended == (block->held + block->chained == 0),
	      "with %u references left dec_ref says %d", block->held + block->chained, has_ended);
	settle(actor, slabs, block);
	return true;
}

bool do_set_next(struct actor *actor, const struct op *op)
{
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block *block = *place(actor, op), *next = NULL;
	if (!block)
		return false;
	if (op->variant % 4)
		next = slabs->blocks[op->size % SLAB_BLOCKS];
	if (next && (next->age >= block->age || next == block->next))
		return false;
	struct slab_block *last = block->next;
	region_slab_set_next(slabs->slabs, somewhere(block, op), next ? next->block.p : NULL);
	block->next = next;
	slabs->expected.set_nexts++;
	if (next) {
		next->chained++;
		slabs->expected.add_refs++;
	}
	if (last) {
		last->chained--;
		slabs->expected.dec_refs++;
		settle(actor, slabs, last);
	}
	/* Not before: what ends with the last one may have referred to the next, too. */
	if (next)
		check_refs(actor, slabs, next);
	return true;
}

bool do_get_next(struct actor *actor, const struct op *op)
{
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block *block = *place(actor, op);
	if (!block)
		return false;
	void *next = region_slab_get_next(slabs->slabs, somewhere(block, op));
	slabs->expected.get_nexts++;
	CHECK(actor->world, next == (block->next ? block->next->block.p : NULL), "get_next gives %p", next);
	if (next) {
		block->next->held++;
		slabs->expected.add_refs++;
		check_refs(actor, slabs, block->next);
	}
	return true;
}

bool do_locate(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct slabs *slabs = slabs_of(actor, op);
	struct slab_block *block = *place(actor, op);
	if (!block)
		return false;
	char *p = somewhere(block, op);
	struct region_slab_loc loc = region_slab_loc_of(slabs->slabs, p);
	CHECK(world, region_slab_ptr_of(slabs->slabs, loc) == p, "a location leads elsewhere");
	CHECK(world, region_slab_owns(slabs->slabs, p) == 1, "a block isn't owned");
	CHECK(world, region_slab_size(slabs->slabs, p) == block->block.usable, "a block has another size");
	CHECK(world, !region_slab_owns(world->slabs[(op->align_shift + 1) % WORLD_SLABS].slabs, p),
	      "a block is owned twice");
	check_refs(actor, slabs, block);
	return true;
}

/* --- the whole --- */

void slabs_begin(struct world *world)
{
	static const double growths[] = {0, 2, 1.1, 1.5};
	uint64_t seed = world->program->seed;
	for (unsigned i = 0; i < WORLD_SLABS; i++, seed /= 4) {
		size_t least = seed % 3 ? (size_t)1 << seed % 8 : 0, slab = seed % 5 ? (size_t)1024 << seed % 7 : 0;
		world->slabs[i].slabs = region_slab_create(least, slab, growths[seed % 4], NULL);
		CHECK(world, world->slabs[i].slabs, "region_slab_create gives NULL");
	}
}

static void compare(struct world *world, const struct slabs *slabs)
{
	struct region_slab_stats stats;
	region_slab_stats_read(slabs->slabs, &stats);
#define COMPARE(member) \
	CHECK(world, stats.member == slabs->expected.member, "slabs count %llu " #member ", not %llu", \
	      (unsigned long long)stats.member, (unsigned long long)slabs->expected.member)
	COMPARE(allocs);
	COMPARE(add_refs);
	COMPARE(dec_refs);
	COMPARE(dec_ref_zeroes);
	COMPARE(set_nexts);
	COMPARE(get_nexts);
	COMPARE(blocks_in_use);
#undef COMPARE
	CHECK(world, stats.slabs == stats.slab_allocs - stats.slab_frees, "slabs don't add up: %llu",
	      (unsigned long long)stats.slabs);
}

void slabs_end(struct world *world)
{
	struct actor *actor = &world->actors[0];
	for (uint8_t i = 0; i < WORLD_SLABS; i++) {
		compare(world, &world->slabs[i]);
		for (uint16_t slot = 0; slot < SLAB_BLOCKS; slot++)
			while (do_dec_ref(actor, &(struct op){.align_shift = i, .slot = slot}))
				continue;
		CHECK(world, world->slabs[i].expected.blocks_in_use == 0, "the model has lost a block");
		compare(world, &world->slabs[i]);
		region_slab_destroy(world->slabs[i].slabs);
	}
}
