/*
 * objects_world.c: the threads of a program of objects.h, which take turns; what is done after each
 * operation and at the end.
 */
#include "objects.h"
#include "pattern.h"
#include "random.h"
#include "shim/shim.h"

#include <stdlib.h>
#include <string.h>

/* --- blocks --- */

struct held *held_new(struct world *world, struct actor *actor, void *p, size_t size)
{
	struct held *held = calloc(1, sizeof *held);
	if (!held)
		abort();
	held->block = (struct block){.p = p, .size = size, .requested = size, .usable = size};
	held->thread = actor->id;
	shadow_insert(&world->shadow, &held->block);
	pattern_fill(p, 0, size, held->block.id);
	return held;
}

void held_forget(struct world *world, struct held *held)
{
	shadow_remove(&world->shadow, &held->block);
	free(held);
}

void held_drop(struct world *world, struct held *held)
{
	shadow_check_contents(&world->shadow, &held->block);
	held_forget(world, held);
}

void object_check(const struct object *object)
{
	for (const struct held *held = object->blocks; held; held = held->next)
		shadow_check_contents(&object->world->shadow, &held->block);
}

void object_check_tree(const struct object *parent)
{
	const struct object *first = parent->world->objects;

	object_check(parent);
	for (const struct object *child = first; child < first + WORLD_REGIONS; child++)
		if (child->region && child->parent == parent)
			object_check_tree(child);
}

/* --- operations --- */

static bool do_look(struct actor *actor, const struct op *op)
{
	struct shadow *shadow = &actor->world->shadow;
	(void)op;
	for (size_t i = 0; i < shadow->count; i++)
		shadow_check_contents(shadow, shadow->sorted[i]);
	return true;
}

static bool do_trim_all(struct actor *actor, const struct op *op)
{
	(void)actor;
	(void)op;
	shim_trim(0);
	return true;
}

static bool perform(struct actor *actor, const struct op *op)
{
	static objects_function *const functions[OBJECTS_KINDS] = {
		[DO_CREATE] = do_create,       [DO_DESTROY] = do_destroy, [DO_RESET] = do_reset,
		[DO_TAKE] = do_take,           [DO_RESIZE] = do_resize,   [DO_MARK] = do_mark,
		[DO_REWIND] = do_rewind,       [DO_WITHIN] = do_within,   [DO_FREE] = do_free,
		[DO_ON_END] = do_on_end,       [DO_PUSH] = do_push,       [DO_INQUIRE] = do_inquire,
		[DO_ACQUIRE] = do_acquire,     [DO_GIVE] = do_give,       [DO_EXPECT] = do_expect,
		[DO_POOL_TRIM] = do_pool_trim, [DO_SLAB_TAKE] = do_slab_take,
		[DO_ADD_REF] = do_add_ref,     [DO_DEC_REF] = do_dec_ref, [DO_SET_NEXT] = do_set_next,
		[DO_GET_NEXT] = do_get_next,   [DO_LOCATE] = do_locate,   [DO_LOOK] = do_look,
		[DO_TRIM_ALL] = do_trim_all,
	};
	return functions[op->kind] && functions[op->kind](actor, op);
}

static void check_some_blocks(struct world *world)
{
	for (int i = 0; i < 3; i++) {
		struct block *any = shadow_pick(&world->shadow, random_next(&world->rng));
		if (any)
			shadow_check_ends(&world->shadow, any);
	}
}

/* --- turns --- */

static void wait_for_turn(struct world *world, size_t turn)
{
	pthread_mutex_lock(&world->lock);
	while (world->turn != turn)
		pthread_cond_wait(&world->changed, &world->lock);
	pthread_mutex_unlock(&world->lock);
}

static void end_turn(struct world *world)
{
	pthread_mutex_lock(&world->lock);
	world->turn++;
	pthread_cond_broadcast(&world->changed);
	pthread_mutex_unlock(&world->lock);
}

static void *act(void *arg);

static void start_thread(struct actor *actor)
{
	if (pthread_create(&actor->thread, NULL, act, actor) != 0)
		abort();
}

static void *succeed(void *arg)
{
	struct actor *actor = arg;
	pthread_join(actor->predecessor, NULL);
	objects_forget_thread(actor->world, actor->id);
	end_turn(actor->world);
	return act(actor);
}

/* The successor waits for this thread to be gone, and then ends the turn. */
static void hand_over(struct actor *actor)
{
	actor->predecessor = pthread_self();
	if (pthread_create(&actor->thread, NULL, succeed, actor) != 0)
		abort();
}

static void *act(void *arg)
{
	struct actor *actor = arg;
	struct world *world = actor->world;
	const struct program *program = world->program;
	while (actor->cursor < program->count) {
		size_t turn = actor->cursor++;
		const struct op *op = &program->ops[turn];
		if (op->thread != actor->id)
			continue;
		wait_for_turn(world, turn);
		world->report->current[actor->id] = (uint32_t)turn;
		if (op->kind == DO_SUCCEED && actor->id != 0) {
			hand_over(actor);
			return NULL;
		}
		if (perform(actor, op))
			atomic_fetch_add(&world->report->performed, 1);
		check_some_blocks(world);
		end_turn(world);
	}
	wait_for_turn(world, program->count);
	pthread_mutex_lock(&world->lock);
	world->finished++;
	pthread_cond_broadcast(&world->changed);
	pthread_mutex_unlock(&world->lock);
	return NULL;
}

/* --- the whole --- */

static enum region_fade fade_of_environment(void)
{
	const char *value = getenv("LIBREGION_FADE");
	if (!value)
		return REGION_FADE_DEFAULT;
	return strcmp(value, "none") == 0 ? REGION_FADE_NONE : REGION_FADE_UNFREED;
}

static void wait_for_all(struct world *world)
{
	pthread_mutex_lock(&world->lock);
	while (world->finished < world->program->threads)
		pthread_cond_wait(&world->changed, &world->lock);
	pthread_mutex_unlock(&world->lock);
	for (unsigned i = 1; i < world->program->threads; i++)
		pthread_join(world->actors[i].thread, NULL);
}

void world_run(const struct program *program, struct report *report)
{
	struct world *world = calloc(1, sizeof *world);
	if (!world)
		abort();
	world->program = program;
	world->report = report;
	world->rng = program->seed;
	world->forced_fade = fade_of_environment();
	pthread_mutex_init(&world->lock, NULL);
	pthread_cond_init(&world->changed, NULL);
	shadow_init(&world->shadow, report);
	objects_begin(world);
	slabs_begin(world);
	for (unsigned i = 0; i < program->threads; i++)
		world->actors[i] = (struct actor){.world = world, .id = i};
	for (unsigned i = 1; i < program->threads; i++)
		start_thread(&world->actors[i]);
	act(&world->actors[0]);
	wait_for_all(world);
	do_look(&world->actors[0], NULL);
	slabs_end(world);
	objects_end(world);
}
