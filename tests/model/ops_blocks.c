/*
 * ops_blocks.c: allocates, reallocates and frees as the program says, and checks each answer.
 *
 * Which heap serves a block in a scope is the library's choice (it may be too big, or the scope over its
 * limit), so a new block's owner is asked for once, and is then held to: a block of the general heap or
 * of an outer scope never moves into the current one, wherever it is reallocated.
 */
#include "actor.h"
#include "pattern.h"
#include "random.h"
#include "shim/shim.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MALLOC_ALIGN 16
#define PAGE_BYTES ((size_t)4096)
#define SMALL_BYTES 1024 /* a region without a limit serves these itself */
#define ERRNO_UNTOUCHED 0x7777

/* --- owners --- */

/* A scope that may end at this very moment, since another thread runs it. */
static bool is_elsewhere(const struct actor *actor, const struct frame *frame)
{
	return frame && frame->actor != actor && !actor_is_alone(actor);
}

void block_check_owner(struct actor *actor, const struct block *block)
{
	struct frame *owner = shadow_owner(&actor->world->shadow, block);
	int owns = region_owns(block->p);
	if (block->is_unsure)
		return;
	CHECK(actor, owns == (owner && owner == actor_scope(actor)),
	      "region_owns(%p) is %d; block %llu is %s", (void *)block->p, owns,
	      (unsigned long long)block->id, owner ? owner->name : "on the general heap");
	if (is_elsewhere(actor, owner))
		return;
	const char *name = region_name_of(block->p);
	CHECK(actor, owner ? name && !strcmp(name, owner->name) : !name,
	      "region_name_of(%p) is %s; block %llu is %s", (void *)block->p, name ? name : "NULL",
	      (unsigned long long)block->id, owner ? owner->name : "on the general heap");
}

/* The scope that the library put the block at p into: `candidate`, or NULL for the general heap. */
static struct frame *owner_of_new(struct actor *actor, const char *p, struct frame *candidate)
{
	const char *name = region_name_of(p);
	if (!name)
		return NULL;
	CHECK(actor, candidate && !strcmp(name, candidate->name),
	      "region_name_of(%p) is %s for a block that belongs to %s", (const void *)p, name,
	      candidate ? candidate->name : "the general heap");
	return candidate;
}

static void note_served(struct actor *actor, const struct block *block)
{
	struct world *world = actor->world;
	struct frame *scope = actor_scope(actor);
	if (block->owner) {
		atomic_fetch_add(&world->report->region_blocks, 1);
		return;
	}
	atomic_fetch_add(&world->report->heap_blocks, 1);
	if (!scope)
		return;
	atomic_fetch_add(&world->expected.blocks_declined, 1);
	CHECK(actor, scope->limited || block->requested > SMALL_BYTES || block->align > MALLOC_ALIGN,
	      "the region didn't serve %zu bytes, and has no limit", block->requested);
}

/* --- allocation --- */

static void check_placement(struct actor *actor, const struct block *block)
{
	size_t align = block->align > MALLOC_ALIGN ? block->align : MALLOC_ALIGN;
	CHECK(actor, (uintptr_t)block->p % align == 0, "misaligned: %p for %zu bytes aligned to %zu",
	      (void *)block->p, block->requested, align);
	CHECK(actor, block->usable >= block->requested, "malloc_usable_size(%p) is %zu of %zu",
	      (void *)block->p, block->usable, block->requested);
}

static void put_into_slot(struct actor *actor, unsigned slot, struct block *block)
{
	actor->slots[slot] = block;
	block->slot = &actor->slots[slot];
}

static struct block *take_from_slot(struct actor *actor, unsigned slot)
{
	struct block *block = actor->slots[slot];
	if (block) {
		actor->slots[slot] = NULL;
		block->slot = NULL;
	}
	return block;
}

/* Notes and checks a new block that may belong to `candidate`; its bytes aren't touched yet. */
static struct block *adopt(struct actor *actor, void *p, size_t size, size_t align,
                           struct frame *candidate)
{
	CHECK(actor, p, "NULL for %zu bytes", size);
	struct block *block = calloc(1, sizeof *block);
	if (!block)
		abort();
	*block = (struct block){.p = p, .size = size, .requested = size, .align = align};
	block->usable = shim_usable_size(p);
	block->is_sized = true;
	block->owner = owner_of_new(actor, block->p, candidate);
	check_placement(actor, block);
	shadow_insert(&actor->world->shadow, block);
	block_check_owner(actor, block);
	return block;
}

static bool allocated(struct actor *actor, unsigned slot, void *p, size_t size, size_t align)
{
	struct block *block = adopt(actor, p, size, align, actor_scope(actor));
	note_served(actor, block);
	pattern_fill(block->p, 0, size, block->id);
	put_into_slot(actor, slot, block);
	return true;
}

static bool can_allocate(struct actor *actor, const struct op *op, size_t size)
{
	return !actor->slots[op->slot] && shadow_has_room(&actor->world->shadow, size);
}

bool op_malloc(struct actor *actor, const struct op *op)
{
	if (!can_allocate(actor, op, op->size))
		return false;
	return allocated(actor, op->slot, shim_malloc(op->size), op->size, 0);
}

bool op_calloc(struct actor *actor, const struct op *op)
{
	size_t size = op->size;
	if (!can_allocate(actor, op, size))
		return false;
	size_t count = op->variant % 2 && size % 8 == 0 ? 8 : 1;
	char *p = shim_calloc(count, size / count);
	for (size_t i = 0; p && i < size; i++)
		CHECK(actor, p[i] == 0, "calloc: byte %zu of %zu at %p isn't zero", i, size, (void *)p);
	return allocated(actor, op->slot, p, size, 0);
}

static void *aligned_by_posix(struct actor *actor, size_t align, size_t size)
{
	void *p = NULL;
	if (align < sizeof p)
		align = sizeof p;
	int error = shim_posix_memalign(&p, align, size);
	CHECK(actor, error == 0, "posix_memalign(%zu, %zu) is %d", align, size, error);
	return p;
}

bool op_aligned(struct actor *actor, const struct op *op)
{
	size_t size = op->size;
	size_t align = (size_t)1 << op->align_shift;
	if (!can_allocate(actor, op, size + align + PAGE_BYTES))
		return false;
	switch (op->variant % 5) {
	case 0: return allocated(actor, op->slot, shim_aligned_alloc(align, size), size, align);
	case 1: allocated(actor, op->slot, shim_memalign(align, size), size, align); break;
	case 2: allocated(actor, op->slot, aligned_by_posix(actor, align, size), size, align); break;
	case 3: allocated(actor, op->slot, shim_valloc(size), size, PAGE_BYTES); break;
	case 4:
		size = (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
		allocated(actor, op->slot, shim_pvalloc(op->size), size, PAGE_BYTES);
		break;
	}
	actor->slots[op->slot]->is_sized = false;
	return true;
}

bool op_huge(struct actor *actor, const struct op *op)
{
	struct block *block = actor->slots[op->slot];
	void *p = NULL;
	errno = 0;
	switch (op->variant % 4) {
	case 0: p = shim_malloc((size_t)PTRDIFF_MAX + 1); break;
	case 1: p = shim_calloc(SIZE_MAX / 2, 3); break;
	case 2: p = shim_realloc(block ? block->p : NULL, (size_t)PTRDIFF_MAX + 1); break;
	case 3: p = shim_aligned_alloc(64, SIZE_MAX - 63); break;
	}
	CHECK(actor, !p && errno == ENOMEM, "a huge request (%u) gives %p, errno %d", op->variant % 4, p,
	      errno);
	if (block)
		shadow_check_contents(&actor->world->shadow, block);
	return true;
}

/* --- free --- */

static void call_free(struct block *block, unsigned variant)
{
	bool sized = variant % 4 == 1 && block->is_sized;
	if (sized && block->align == 0)
		shim_free_sized(block->p, block->requested);
	else if (sized)
		shim_free_aligned_sized(block->p, block->align, block->requested);
	else
		shim_free(block->p);
}

void block_free(struct actor *actor, struct block *block, unsigned variant)
{
	shadow_check_contents(&actor->world->shadow, block);
	block_check_owner(actor, block);
	shadow_remove(&actor->world->shadow, block);
	errno = ERRNO_UNTOUCHED;
	call_free(block, variant);
	CHECK(actor, errno == ERRNO_UNTOUCHED, "free(%p) changes errno to %d", (void *)block->p, errno);
	CHECK(actor, !region_owns(block->p), "region_owns(%p) after it was freed", (void *)block->p);
	free(block);
}

bool op_free(struct actor *actor, const struct op *op)
{
	struct block *block = take_from_slot(actor, op->slot);
	if (!block) {
		shim_free(NULL);
		return false;
	}
	block_free(actor, block, op->variant);
	return true;
}

/* --- realloc --- */

static void *call_realloc(char *p, size_t size, unsigned variant)
{
	if (variant % 8 == 1 && size % 4 == 0)
		return shim_reallocarray(p, 4, size / 4);
	return shim_realloc(p, size);
}

static void realloc_to_nothing(struct actor *actor, struct block *block)
{
	take_from_slot(actor, (unsigned)(block->slot - actor->slots));
	shadow_remove(&actor->world->shadow, block);
	void *p = shim_realloc(block->p, 0);
	CHECK(actor, !p, "realloc(%p, 0) frees, and gives %p", (void *)block->p, p);
	free(block);
}

static void reallocate(struct actor *actor, struct block *block, size_t size, unsigned variant)
{
	struct shadow *shadow = &actor->world->shadow;
	size_t common = size < block->size ? size : block->size;
	struct frame *owner = shadow_owner(shadow, block);
	shadow_remove(shadow, block);
	char *p = call_realloc(block->p, size, variant);
	CHECK(actor, p, "realloc: NULL for %zu bytes", size);
	if (is_elsewhere(actor, owner))
		block->is_unsure = true; /* in place or moved: that scope may have ended meanwhile */
	block->owner = block->is_unsure ? NULL : owner_of_new(actor, p, owner);
	if (p != block->p && owner && owner->actor == actor && !block->owner)
		atomic_fetch_add(&actor->world->expected.blocks_declined, 1);
	block->p = p;
	block->size = block->requested = size;
	block->usable = shim_usable_size(p);
	block->align = 0;
	block->is_sized = true;
	check_placement(actor, block);
	shadow_insert(shadow, block);
	shadow_check_bytes(shadow, block, 0, common);
	block_check_owner(actor, block);
	pattern_fill(block->p, common, size, block->id);
}

bool op_realloc(struct actor *actor, const struct op *op)
{
	struct block *block = actor->slots[op->slot];
	size_t size = op->variant % 16 ? op->size : 0;
	if (!shadow_has_room(&actor->world->shadow, size))
		return false;
	if (!block)
		return allocated(actor, op->slot, call_realloc(NULL, size, op->variant), size, 0);
	shadow_check_contents(&actor->world->shadow, block);
	block_check_owner(actor, block);
	if (size == 0)
		realloc_to_nothing(actor, block);
	else
		reallocate(actor, block, size, op->variant);
	return true;
}

/* --- the rest --- */

bool op_stretch(struct actor *actor, const struct op *op)
{
	struct block *block = actor->slots[op->slot];
	if (!block)
		return false;
	size_t usable = shim_usable_size(block->p);
	CHECK(actor, usable == block->usable, "malloc_usable_size(%p) goes from %zu to %zu",
	      (void *)block->p, block->usable, usable);
	pattern_fill(block->p, block->size, usable, block->id);
	block->size = usable;
	return true;
}

/* A kept block has faded from then on: it is no scope's any more. */
bool op_keep(struct actor *actor, const struct op *op)
{
	struct shadow *shadow = &actor->world->shadow;
	struct block *block = actor->slots[op->slot];
	CHECK(actor, region_keep(NULL) == NULL, "region_keep(NULL) isn't NULL");
	if (!block)
		return false;
	void *p = region_keep(block->p);
	CHECK(actor, p == block->p, "region_keep(%p) gives %p", (void *)block->p, p);
	pthread_mutex_lock(&shadow->lock);
	bool own = block->owner && block->owner->actor == actor;
	block->owner = NULL;
	pthread_mutex_unlock(&shadow->lock);
	if (own) /* another thread's isn't counted, since no thread counts for another */
		atomic_fetch_add(&actor->world->expected.blocks_faded, 1);
	block_check_owner(actor, block);
	return true;
}

bool op_copy_out(struct actor *actor, const struct op *op)
{
	struct block *source = actor->slots[op->other];
	if (!source || !can_allocate(actor, op, source->usable))
		return false;
	struct block *copy = adopt(actor, region_copy_out(source->p), source->usable, 0, NULL);
	copy->is_sized = false;
	size_t at = pattern_damage(copy->p, 0, source->size, source->id);
	CHECK(actor, at == PATTERN_INTACT, "region_copy_out: byte %zu of %zu differs", at, source->size);
	pattern_fill(copy->p, 0, copy->size, copy->id);
	put_into_slot(actor, op->slot, copy);
	return true;
}

bool op_ask(struct actor *actor, const struct op *op)
{
	struct block *block = actor->slots[op->slot];
	const void *foreign[] = {
		NULL, &block, actor, "text", &errno, (void *)UINTPTR_MAX, (void *)8,
	};
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
		CHECK(actor, !region_owns(foreign[i]), "region_owns(%p), a foreign pointer", foreign[i]);
		CHECK(actor, !region_name_of(foreign[i]), "region_name_of(%p), a foreign pointer", foreign[i]);
	}
	if (!block)
		return false;
	block_check_owner(actor, block);
	const char *inside = block->p + (block->size ? op->other % block->size : 0);
	struct frame *owner = shadow_owner(&actor->world->shadow, block);
	CHECK(actor, block->is_unsure || region_owns(inside) == (owner && owner == actor_scope(actor)),
	      "region_owns(%p) is %d, inside block %llu at %p", (const void *)inside, region_owns(inside),
	      (unsigned long long)block->id, (void *)block->p);
	return true;
}

bool op_sweep(struct actor *actor, const struct op *op)
{
	(void)op;
	for (unsigned i = 0; i < PROGRAM_SLOTS; i++)
		if (actor->slots[i]) {
			shadow_check_contents(&actor->world->shadow, actor->slots[i]);
			block_check_owner(actor, actor->slots[i]);
		}
	return true;
}

bool op_trim(struct actor *actor, const struct op *op)
{
	(void)actor;
	shim_trim(op->size);
	return true;
}

/* --- from thread to thread --- */

bool op_hand(struct actor *actor, const struct op *op)
{
	struct block *block = actor->slots[op->slot];
	struct inbox *inbox = &actor->world->actors[op->other % actor->world->program->threads].inbox;
	if (!block)
		return false;
	/* whoever hands out a block that the end of a scope would reclaim must keep it first */
	struct frame *owner = shadow_owner(&actor->world->shadow, block);
	if (owner && owner->actor == actor && owner->reclaims)
		op_keep(actor, op);
	pthread_mutex_lock(&actor->world->shadow.lock);
	bool fits = inbox->count < INBOX_BLOCKS;
	if (fits)
		inbox->blocks[inbox->count++] = take_from_slot(actor, op->slot);
	pthread_mutex_unlock(&actor->world->shadow.lock);
	return fits;
}

bool op_take(struct actor *actor, const struct op *op)
{
	if (actor->slots[op->slot])
		return false;
	pthread_mutex_lock(&actor->world->shadow.lock);
	struct block *block = actor->inbox.count ? actor->inbox.blocks[--actor->inbox.count] : NULL;
	if (block)
		put_into_slot(actor, op->slot, block);
	pthread_mutex_unlock(&actor->world->shadow.lock);
	if (!block)
		return false;
	shadow_check_contents(&actor->world->shadow, block);
	return true;
}
