/*
 * actors.c: the threads of a program: whose turn it is, how one ends, and how the program ends.
 *
 * Turns are numbers: the index of an operation, then one more for each thread in which it closes what is
 * still open. Whoever ends a turn wakes the thread of the next one, unless that is itself.
 *
 * A thread that respawns starts its successor and then exits in the middle of whatever scopes it is in.
 * The successor waits for it to be gone, and goes on with the same actor.
 */
#include "actor.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

/* --- turns --- */

/* The thread whose turn number `turn` is; NULL after the last one. */
static struct actor *actor_of_turn(struct world *world, size_t turn)
{
	const struct program *program = world->program;
	if (turn < program->count)
		return &world->actors[program->ops[turn].thread];
	size_t closing = turn - program->count;
	return closing < program->threads ? &world->actors[closing] : NULL;
}

static void end_turn(struct actor *actor)
{
	if (!actor->has_turn || !actor_is_alone(actor))
		return;
	size_t turn = atomic_fetch_add(&actor->world->turn, 1) + 1;
	struct actor *next = actor_of_turn(actor->world, turn);
	actor->has_turn = next == actor;
	if (next && next != actor)
		sem_post(&next->turn);
}

static void wait_for_turn(struct actor *actor)
{
	if (actor->has_turn || !actor_is_alone(actor))
		return;
	while (sem_wait(&actor->turn) != 0)
		continue;
	actor->has_turn = true;
}

const struct op *actor_next(struct actor *actor)
{
	const struct program *program = actor->world->program;
	if (actor->is_closing)
		return NULL;
	end_turn(actor);
	while (actor->cursor < program->count && program->ops[actor->cursor].thread != actor->id)
		actor->cursor++;
	wait_for_turn(actor);
	actor->world->report->current[actor->id] = (uint32_t)actor->cursor;
	actor->is_closing = actor->cursor == program->count;
	return actor->is_closing ? NULL : &program->ops[actor->cursor++];
}

/* --- operations --- */

static bool perform(struct actor *actor, const struct op *op)
{
	static op_function *const functions[OP_KINDS] = {
		[OP_MALLOC] = op_malloc,   [OP_CALLOC] = op_calloc,     [OP_ALIGNED] = op_aligned,
		[OP_HUGE] = op_huge,       [OP_REALLOC] = op_realloc,   [OP_FREE] = op_free,
		[OP_STRETCH] = op_stretch, [OP_KEEP] = op_keep,         [OP_COPY_OUT] = op_copy_out,
		[OP_ASK] = op_ask,         [OP_SCOPE] = op_scope,       [OP_IGNORE] = op_scope,
		[OP_JUMP] = op_jump,       [OP_ON_EXIT] = op_on_exit,   [OP_HAND] = op_hand,
		[OP_TAKE] = op_take,       [OP_RESPAWN] = op_respawn,   [OP_SWEEP] = op_sweep,
		[OP_STATS] = op_stats,     [OP_TRIM] = op_trim,
	};
	return functions[op->kind] && functions[op->kind](actor, op);
}

/* After each operation: one of the thread's blocks, and one of anybody's, must be what they were. */
static void check_some_blocks(struct actor *actor)
{
	struct shadow *shadow = &actor->world->shadow;
	struct block *mine = actor->slots[random_below(&actor->rng, PROGRAM_SLOTS)];
	if (mine) {
		shadow_check_ends(shadow, mine);
		block_check_owner(actor, mine);
	}
	if (!actor_is_alone(actor))
		return;
	struct block *any = shadow_pick(shadow, random_next(&actor->rng));
	if (any)
		shadow_check_ends(shadow, any);
}

void actor_interpret(struct actor *actor)
{
	unsigned depth = actor->depth;
	const struct op *op;
	while ((op = actor_next(actor))) {
		if (op->kind == OP_LEAVE && depth > 0)
			break;
		if (perform(actor, op))
			atomic_fetch_add(&actor->world->report->performed, 1);
		check_some_blocks(actor);
	}
}

/* --- threads --- */

static void *run_actor(void *arg)
{
	struct actor *actor = arg;
	actor_interpret(actor);
	end_turn(actor);
	sem_post(&actor->finished);
	return NULL;
}

static void start_thread(struct actor *actor, void *(*fn)(void *))
{
	if (pthread_create(&actor->thread, NULL, fn, actor) != 0)
		abort();
}

static void *run_successor(void *arg)
{
	struct actor *actor = arg;
	pthread_join(actor->predecessor, NULL);
	frames_ended_with_thread(actor);
	check_some_blocks(actor);
	return run_actor(actor);
}

bool op_respawn(struct actor *actor, const struct op *op)
{
	(void)op;
	if (actor->id == 0)
		return false; /* the main thread */
	for (unsigned i = 0; i < actor->depth; i++)
		frame_ends(&actor->frames[i]);
	actor->predecessor = pthread_self();
	start_thread(actor, run_successor);
	pthread_exit(NULL);
}

/* --- the whole --- */

static void actor_init(struct world *world, unsigned id)
{
	struct actor *actor = &world->actors[id];
	actor->world = world;
	actor->id = id;
	actor->rng = world->program->seed + id;
	for (unsigned i = 0; i < ACTOR_FRAMES; i++)
		actor->frames[i].actor = actor;
	sem_init(&actor->turn, 0, 0);
	sem_init(&actor->finished, 0, 0);
}

static enum region_fade fade_of_environment(void)
{
	const char *value = getenv("LIBREGION_FADE");
	if (!value)
		return REGION_FADE_DEFAULT;
	if (strcmp(value, "reachable") == 0)
		return REGION_FADE_REACHABLE;
	return strcmp(value, "none") == 0 ? REGION_FADE_NONE : REGION_FADE_UNFREED;
}

static struct world *world_new(const struct program *program, struct report *report)
{
	struct world *world = calloc(1, sizeof *world);
	if (!world)
		abort();
	world->program = program;
	world->report = report;
	world->forced_fade = fade_of_environment();
	world->regions_decline = getenv("LIBREGION_LIMIT") || getenv("LIBREGION_MAX_BLOCK") ||
	                         getenv("LIBREGION_HEAP_RANGE") || getenv("LIBREGION_LEARN_AFTER");
	world->is_hardened = getenv("LIBREGION_HARDEN");
	world->counts_reclaimed = getenv("LIBREGION_STATS");
	shadow_init(&world->shadow, report);
	for (unsigned i = 0; i < program->threads; i++)
		actor_init(world, i);
	sem_post(&actor_of_turn(world, 0)->turn);
	return world;
}

/* All scopes have ended, all threads but this one too: what is left must be intact, and be freeable. */
static void free_what_is_left(struct world *world)
{
	struct shadow *shadow = &world->shadow;
	bool all = world->program->seed % 4 != 0;
	for (size_t i = 0; i < shadow->count; i++)
		shadow_check_contents(shadow, shadow->sorted[i]);
	while (all && shadow->count > 0)
		block_free(&world->actors[0], shadow->sorted[shadow->count - 1], 0);
}

void world_run(const struct program *program, struct report *report)
{
	struct world *world = world_new(program, report);
	for (unsigned i = 1; i < program->threads; i++)
		start_thread(&world->actors[i], run_actor);
	run_actor(&world->actors[0]);
	for (unsigned i = 1; i < program->threads; i++) {
		sem_wait(&world->actors[i].finished);
		pthread_join(world->actors[i].thread, NULL);
	}
	free_what_is_left(world);
	world_check_stats(world);
}
