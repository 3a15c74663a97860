/*
 * objects_regions.c: operations on regions, and what an end of one means for its blocks.
 */
#include "objects.h"
#include "pattern.h"
#include "random.h"
#include "shim/shim.h"

#include <stdlib.h>
#include <string.h>

#define NOBODY PROGRAM_THREADS /* took it, and has ended */
#define ROUNDED(size) (((size) + 15) / 16 * 16 + ((size) == 0) * 16)

static struct object *place(struct actor *actor, const struct op *op)
{
	return &actor->world->objects[op->other % WORLD_REGIONS];
}

/* The region of the operation, or NULL. */
static struct object *live(struct actor *actor, const struct op *op)
{
	struct object *object = place(actor, op);
	return object->region ? object : NULL;
}

/* --- ends of blocks --- */

/* The blocks that `ends` chooses leave the region. */
static void end_blocks(struct object *object, bool (*ends)(const struct held *, const void *),
                       const void *arg)
{
	struct world *world = object->world;
	struct held **link = &object->blocks;
	while (*link) {
		struct held *held = *link;
		if (!ends(held, arg)) {
			link = &held->next;
			continue;
		}
		*link = held->next;
		if (held->from_malloc && !held->is_ghost && (held->is_kept || object->fades)) {
			held->next = world->loose;
			world->loose = held;
		} else {
			held_forget(world, held);
		}
	}
}

static bool is_any(const struct held *held, const void *unused)
{
	(void)held;
	(void)unused;
	return true;
}

static bool is_late(const struct held *held, const void *level)
{
	return held->level > *(const unsigned *)level;
}

static bool is_ghost_of(const struct held *held, const void *thread)
{
	return held->is_ghost && held->thread == *(const unsigned *)thread;
}

static bool ends_with_reset(const struct held *held, const void *thread)
{
	return held->thread == *(const unsigned *)thread || held->thread == NOBODY;
}

static void make_ghosts(struct object *object)
{
	for (struct held *held = object->blocks; held; held = held->next)
		held->is_ghost = true;
}

static bool is_loose(const struct held *held, const void *object)
{
	return held->from_malloc && !held->is_ghost && (held->is_kept || ((const struct object *)object)->fades);
}

/* A reset, seen from the thread that does it. */
static void end_shared_blocks(struct object *object, unsigned thread)
{
	end_blocks(object, is_loose, object);
	end_blocks(object, ends_with_reset, &thread);
	make_ghosts(object);
}

/* The thread allocates from the region: now it takes notice of resets. */
static void notice(struct object *object, struct actor *actor)
{
	object_check(object);
	if (object->is_shared)
		end_blocks(object, is_ghost_of, &actor->id);
}

/* The region, or the thread's part of it; asking for that takes notice, too. */
static region_t *handle_for(struct actor *actor, struct object *object, const struct op *op)
{
	if (!op->named || !object->is_shared)
		return object->region;
	notice(object, actor);
	return region_local(object->region);
}

void objects_forget_thread(struct world *world, unsigned thread)
{
	for (unsigned i = 0; i < WORLD_REGIONS; i++) {
		end_blocks(&world->objects[i], is_ghost_of, &thread);
		for (struct held *held = world->objects[i].blocks; held; held = held->next)
			if (held->thread == thread)
				held->thread = NOBODY;
	}
}

/* --- calls at an end --- */

static void be_called(void *arg)
{
	struct call *call = arg;
	struct object *object = call->object;
	CHECK(object->world, object->call_count > 0 && call->number == object->call_count - 1,
	      "callback %u comes when %u are left", call->number, object->call_count);
	object->call_count--;
	if (object->blocks)
		shadow_check_ends(&object->world->shadow, &object->blocks->block);
}

static void all_were_called(struct object *object, unsigned left, const char *end)
{
	CHECK(object->world, object->call_count == left, "%s: %u callbacks are left, not %u", end,
	      object->call_count, left);
}

/* The region has ended, and those below it. */
static void ended(struct object *object, const char *end)
{
	all_were_called(object, 0, end);
	end_blocks(object, is_any, NULL);
	object->mark_count = 0;
	object->has_array = false;
}

static void end_children(struct object *parent, const char *end)
{
	for (unsigned i = 0; i < WORLD_REGIONS; i++) {
		struct object *child = &parent->world->objects[i];
		if (child->region && child->parent == parent) {
			end_children(child, end);
			ended(child, end);
			child->region = NULL;
		}
	}
}

/* --- making and ending --- */

static void note_region(struct world *world, struct object *object, region_t *region, enum region_fade fade)
{
	*object = (struct object){.world = world, .region = region, .pool = -1};
	object->fades = (world->forced_fade ? world->forced_fade : fade) == REGION_FADE_UNFREED;
}

static struct object *draw_parent(struct world *world, struct object *child, const struct op *op)
{
	struct object *parent = &world->objects[op->slot % WORLD_REGIONS];
	return op->variant % 3 == 0 && parent != child && parent->region ? parent : NULL;
}

bool do_create(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct object *object = place(actor, op);
	if (object->region)
		return false;
	struct object *parent = draw_parent(world, object, op);
	struct region_options options = {
		.name = op->named ? "named" : NULL,
		.fade = op->fade,
		.buffer_size = op->buffer_shift ? (size_t)1 << op->buffer_shift : 0,
		.buffer_count = op->buffer_count,
		.limit_bytes = (size_t)op->limit_kib << 10,
		.keep_bytes = op->variant % 5 ? 0 : 65536 * (op->variant % 7),
		.growth = op->variant % 4 ? 0 : 100 + op->variant,
		.shared = op->variant % 2,
		.parent = parent ? parent->region : NULL,
	};
	region_t *region = region_create(&options);
	CHECK(world, region, "region_create gives NULL");
	note_region(world, object, region, op->fade);
	object->is_shared = options.shared;
	object->parent = parent;
	atomic_fetch_add(&world->report->scopes, 1);
	return true;
}

bool do_destroy(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->pool >= 0)
		return false;
	object_check_tree(object);
	if (op->variant % 4 == 0)
		region_release(object->region);
	region_destroy(object->region);
	end_children(object, "destroy");
	ended(object, "destroy");
	object->region = NULL;
	return true;
}

bool do_reset(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object)
		return false;
	object_check_tree(object);
	region_reset(handle_for(actor, object, op));
	end_children(object, "reset");
	all_were_called(object, 0, "reset");
	if (object->is_shared)
		end_shared_blocks(object, actor->id);
	else
		ended(object, "reset");
	CHECK(actor->world, region_len(object->region) == 0, "after a reset the length is %zu",
	      region_len(object->region));
	return true;
}

/* --- blocks --- */

static struct held *hold(struct actor *actor, struct object *object, void *p, size_t size)
{
	CHECK(actor->world, p, "NULL for %zu bytes", size);
	CHECK(actor->world, (uintptr_t)p % 16 == 0, "%zu bytes at %p aren't aligned to 16", size, p);
	struct held *held = held_new(actor->world, actor, p, size);
	held->level = object->mark_count;
	held->next = object->blocks;
	object->blocks = held;
	atomic_fetch_add(&actor->world->report->region_blocks, 1);
	return held;
}

static void check_zero(struct actor *actor, const unsigned char *p, size_t size)
{
	for (size_t i = 0; p && i < size; i++)
		CHECK(actor->world, p[i] == 0, "calloc of %zu bytes isn't zero at %zu", size, i);
}

static void *copy_of_some_text(struct actor *actor, region_t *region, const struct op *op, size_t *size)
{
	char text[600];
	size_t length = op->size % (sizeof text - 1);
	memset(text, 'a' + op->variant % 26, length);
	text[length] = '\0';
	char *copy = op->variant % 3 == 0   ? region_strdup(region, text)
	             : op->variant % 3 == 1 ? region_strndup(region, text, length + op->variant % 2)
	                                    : region_printf(region, "%s", text);
	CHECK(actor->world, copy && strcmp(copy, text) == 0, "the copy of %zu bytes isn't one", length);
	*size = length + 1;
	return copy;
}

bool do_take(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	size_t size = op->size, align = (size_t)1 << op->align_shift;
	if (!object || !shadow_has_room(&actor->world->shadow, size))
		return false;
	region_t *region = handle_for(actor, object, op);
	void *p;
	notice(object, actor);
	switch (op->variant % 10) {
	case 0:
		p = region_calloc(region, 1 + op->variant % 3, size);
		size *= 1 + op->variant % 3;
		check_zero(actor, p, size);
		break;
	case 1:
		p = region_memalign(region, align, size);
		CHECK(actor->world, (uintptr_t)p % align == 0, "%p isn't aligned to %zu", p, align);
		break;
	case 2: p = copy_of_some_text(actor, region, op, &size); break;
	default: p = region_alloc(region, size); break;
	}
	hold(actor, object, p, size);
	return true;
}

static bool is_sure(const struct held *held, bool from_malloc)
{
	return !held->is_ghost && held->from_malloc == from_malloc;
}

/* The link to the number-th block of the sort, counted round; NULL: there is none. */
static struct held **pick(struct held **first, bool from_malloc, unsigned number)
{
	unsigned count = 0;
	for (struct held *held = *first; held; held = held->next)
		count += is_sure(held, from_malloc);
	if (count == 0)
		return NULL;
	number %= count;
	struct held **link = first;
	while (!is_sure(*link, from_malloc) || number-- > 0)
		link = &(*link)->next;
	return link;
}

bool do_resize(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || !shadow_has_room(&actor->world->shadow, op->size))
		return false;
	notice(object, actor);
	struct held **link = pick(&object->blocks, false, op->variant % 2 ? 0 : op->slot), *held;
	if (!link)
		return false;
	held = *link;
	size_t old_size = held->block.size, size = op->variant % 16 ? op->size : 0;
	size_t common = old_size < size ? old_size : size;
	uint64_t id = held->block.id;
	char *old = held->block.p;
	*link = held->next;
	unsigned level = held->level, thread = held->thread;
	held_drop(actor->world, held);
	char *p = region_realloc(handle_for(actor, object, op), old, old_size, size);
	if (size == 0) {
		CHECK(actor->world, !p, "realloc to nothing gives %p", (void *)p);
		return true;
	}
	CHECK(actor->world, p, "realloc from %zu to %zu bytes gives NULL", old_size, size);
	CHECK(actor->world, pattern_damage(p, 0, common, id) == PATTERN_INTACT,
	      "realloc from %zu to %zu bytes changes the first ones", old_size, size);
	held = hold(actor, object, p, size);
	if (p == old) { /* still where it was, and so in the other thread's part */
		held->level = level;
		held->thread = thread;
	}
	return true;
}

bool do_push(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->is_shared || object->mark_count > 0 ||
	    !shadow_has_room(&actor->world->shadow, op->size % 1000 * 8))
		return false;
	struct region_array *array = &object->array;
	if (!object->has_array)
		region_array_init(array, object->region, sizeof(uint32_t));
	object->has_array = true;
	for (uint32_t i = 0; i < op->size % 1000; i++)
		CHECK(actor->world, region_array_push(array, &(uint32_t){array->count * 2654435761u}), "no item");
	for (size_t i = 0; i < array->count; i++)
		CHECK(actor->world, *(uint32_t *)region_array_at(array, i) == (uint32_t)i * 2654435761u,
		      "item %zu of %zu has changed", i, array->count);
	if (op->variant % 4 == 0)
		region_array_free(array);
	return true;
}

/* --- marks --- */

bool do_mark(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->is_shared || object->mark_count == REGION_MARKS)
		return false;
	region_mark_t mark = region_mark(object->region);
	CHECK(actor->world, mark.serial, "no mark is given");
	object->marks_calls[object->mark_count] = object->call_count;
	object->marks[object->mark_count++] = mark;
	return true;
}

bool do_rewind(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->mark_count == 0)
		return false;
	unsigned to = op->slot % object->mark_count;
	size_t peak = region_peak(object->region);
	object_check(object);
	region_rewind(object->region, object->marks[to]);
	all_were_called(object, object->marks_calls[to], "rewind");
	end_blocks(object, is_late, &to);
	object->mark_count = to;
	object->has_array = false;
	CHECK(actor->world, region_peak(object->region) >= peak, "rewinding lowers the peak from %zu to %zu",
	      peak, region_peak(object->region));
	return true;
}

/* --- malloc inside --- */

struct within {
	struct actor *actor;
	struct object *object;
	const struct op *op;
	uint64_t rng; /* follows from the operation alone, so that it does the same in a smaller program */
};

static void *take_inside(struct within *within, size_t size, bool from_malloc)
{
	void *p = from_malloc ? shim_malloc(size) : region_alloc(within->object->region, size);
	return hold(within->actor, within->object, p, size);
}

static void allocate_inside(void *arg)
{
	struct within *within = arg;
	struct world *world = within->actor->world;
	unsigned count = within->op->variant % 12;
	for (unsigned i = 0; i < count; i++) {
		size_t size = within->op->size >> random_below(&within->rng, 8);
		if (!shadow_has_room(&world->shadow, size))
			return;
		bool from_malloc = !random_one_in(&within->rng, 4);
		struct held *held = take_inside(within, size, from_malloc);
		held->from_malloc = from_malloc;
		if (from_malloc && random_one_in(&within->rng, 6)) {
			held->is_kept = true;
			CHECK(world, region_keep(held->block.p) == held->block.p, "region_keep moves a block");
		} else if (from_malloc && random_one_in(&within->rng, 2)) {
			char *p = held->block.p;
			within->object->blocks = held->next;
			held_drop(world, held);
			shim_free(p);
		}
	}
}

bool do_within(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object)
		return false;
	struct within within = {actor, object, op, (uint64_t)op->variant << 16 | op->slot};
	notice(object, actor);
	region_within(object->region, allocate_inside, &within);
	return true;
}

bool do_free(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	struct held **link = object && op->variant % 2 ? pick(&object->blocks, true, op->slot)
	                                               : pick(&actor->world->loose, true, op->slot);
	if (!link)
		return false;
	struct held *held = *link;
	char *p = held->block.p;
	*link = held->next;
	held_drop(actor->world, held);
	shim_free(p);
	return true;
}

/* --- calls and questions --- */

bool do_on_end(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->call_count == REGION_CALLS)
		return false;
	struct call *call = &object->calls[object->call_count];
	*call = (struct call){object, object->call_count};
	object->call_count++;
	int result = region_on_end(handle_for(actor, object, op), be_called, call);
	CHECK(actor->world, result == 0, "no callback is taken");
	return true;
}

bool do_inquire(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct object *object = live(actor, op);
	if (!object)
		return false;
	size_t least = 0;
	for (struct held *held = object->blocks; held; held = held->next)
		if (!held->is_ghost && !held->from_malloc)
			least += ROUNDED(held->block.size);
	region_t *region = handle_for(actor, object, op);
	size_t len = region_len(region), peak = region_peak(region);
	CHECK(world, len >= least, "blocks of %zu bytes are a length of %zu", least, len);
	CHECK(world, peak >= len, "the peak is %zu, less than %zu", peak, len);
	CHECK(world, !region_contains(region, object), "the region contains what isn't its own");
	for (unsigned i = 0; i < WORLD_REGIONS; i++) {
		const struct object *other = &world->objects[i];
		if (other->region && other != object && other->blocks && !other->blocks->is_ghost)
			CHECK(world, !region_contains(region, other->blocks->block.p),
			      "the region contains another one's block");
	}
	return true;
}

/* --- pools --- */

static struct pool *pool_of(struct actor *actor, const struct op *op)
{
	return &actor->world->pools[op->variant % WORLD_POOLS];
}

bool do_acquire(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct object *object = place(actor, op);
	struct pool *pool = pool_of(actor, op);
	if (object->region)
		return false;
	region_t *region = region_pool_acquire(pool->pool, op->slot % POOL_KEYS);
	CHECK(world, region, "the pool gives NULL");
	note_region(world, object, region, REGION_FADE_NONE);
	object->pool = op->variant % WORLD_POOLS;
	object->key = op->slot % POOL_KEYS;
	pool->acquired++;
	CHECK(world, region_len(region) == 0 && region_peak(region) == 0, "a region of the pool isn't empty: %zu",
	      region_len(region));
	return true;
}

bool do_give(struct actor *actor, const struct op *op)
{
	struct object *object = live(actor, op);
	if (!object || object->pool < 0)
		return false;
	struct pool *pool = &actor->world->pools[object->pool];
	size_t peak = region_peak(object->region);
	if (peak >= pool->largest[object->key])
		pool->largest[object->key] = peak + 1;
	object_check_tree(object);
	region_pool_release(pool->pool, object->region);
	pool->released++;
	end_children(object, "release to the pool");
	ended(object, "release to the pool");
	object->region = NULL;
	return true;
}

bool do_expect(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	struct pool *pool = pool_of(actor, op);
	struct region_pool_stats stats;
	for (unsigned key = 0; key < POOL_KEYS; key++) {
		size_t expected = region_pool_expected(pool->pool, key), largest = pool->largest[key];
		CHECK(world, largest || !expected, "%zu bytes are expected of an unknown key", expected);
		CHECK(world, !largest || (expected && expected <= 2 * largest + 4096),
		      "%zu bytes are expected of a key that needed at most %zu", expected, largest);
	}
	region_pool_stats_read(pool->pool, &stats);
	CHECK(world, stats.acquired == pool->acquired && stats.released == pool->released,
	      "a pool counts %llu and %llu, not %llu and %llu", (unsigned long long)stats.acquired,
	      (unsigned long long)stats.released, (unsigned long long)pool->acquired,
	      (unsigned long long)pool->released);
	return true;
}

bool do_pool_trim(struct actor *actor, const struct op *op)
{
	struct region_pool_stats stats;
	region_pool_trim(pool_of(actor, op)->pool);
	region_pool_stats_read(pool_of(actor, op)->pool, &stats);
	CHECK(actor->world, stats.idle == 0 && stats.idle_bytes == 0, "after a trim %zu regions lie there",
	      stats.idle);
	return true;
}

/* --- the whole --- */

void objects_begin(struct world *world)
{
	for (unsigned i = 0; i < WORLD_POOLS; i++) {
		world->pools[i].pool = region_pool_create(&(struct region_pool_options){
			.idle_bytes = i ? 1 << 20 : 0, .percentile = i ? 50 : 0});
		CHECK(world, world->pools[i].pool, "region_pool_create gives NULL");
	}
	for (unsigned i = 0; i < WORLD_REGIONS; i++)
		world->objects[i].world = world;
}

void objects_end(struct world *world)
{
	struct actor *actor = &world->actors[0];
	for (unsigned i = 0; i < WORLD_POOLS; i++)
		do_expect(actor, &(struct op){.variant = (uint8_t)i});
	for (uint16_t i = 0; i < WORLD_REGIONS; i++) {
		do_give(actor, &(struct op){.other = i});
		do_destroy(actor, &(struct op){.other = i, .variant = 1});
	}
	for (unsigned i = 0; i < WORLD_POOLS; i++)
		region_pool_destroy(world->pools[i].pool);
	while (world->loose)
		do_free(actor, &(struct op){0});
}
