/*
 * ops_scopes.c: opens and ends scopes in every way there is, and settles what that means for blocks.
 *
 * A frame is pushed before the library enters the scope and popped after it has left it. In between the
 * program's next operations run, inside the call. A jump leaves frames without any of their code running;
 * the library then ends their scopes when the thread next enters one, so the landing enters an empty
 * scope before the model looks at anything.
 */
#include "actor.h"
#include "pattern.h"
#include "random.h"
#include "shim/life.h"
#include "shim/shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEPTHS(t) {t "d0", t "d1", t "d2", t "d3", t "d4", t "d5", t "d6", t "d7", t "d8", t "d9", \
                   t "d10", t "d11"}

/* Unlike in two open scopes, so that a name says which one. */
static const char *const scope_names[PROGRAM_THREADS][ACTOR_FRAMES] = {
	DEPTHS("t0"), DEPTHS("t1"), DEPTHS("t2"), DEPTHS("t3"),
};

/* --- frames --- */

static enum region_fade fade_of_op(const struct world *world, const struct op *op)
{
	if (world->forced_fade != REGION_FADE_DEFAULT)
		return world->forced_fade;
	bool is_said = scope_form_has_options(op->variant) && op->fade != REGION_FADE_DEFAULT;
	return is_said ? (enum region_fade)op->fade : REGION_FADE_UNFREED;
}

static struct frame *push_frame(struct actor *actor, const struct op *op)
{
	struct frame *frame = &actor->frames[actor->depth];
	bool has_options = op->kind == OP_SCOPE && scope_form_has_options(op->variant);
	frame->op = op;
	frame->ignores = op->kind == OP_IGNORE;
	frame->name = has_options && op->named ? scope_names[actor->id][actor->depth] : "scope";
	enum region_fade fade = fade_of_op(actor->world, op);
	frame->reclaims = !frame->ignores && fade == REGION_FADE_NONE;
	frame->limited = actor->world->regions_decline || (has_options && op->limit_kib) ||
	                 (actor->world->is_hardened && fade == REGION_FADE_UNFREED);
	frame->pending_calls = 0;
	actor->depth++;
	return frame;
}

/* What will be reclaimed leaves the shadow now: other threads may get the memory before this one returns. */
void frame_ends(struct frame *frame)
{
	struct actor *actor = frame->actor;
	struct shadow *shadow = &actor->world->shadow;
	for (unsigned i = 0; i < PROGRAM_SLOTS; i++) {
		struct block *block = actor->slots[i];
		if (!block || shadow_owner(shadow, block) != frame)
			continue;
		shadow_check_contents(shadow, block);
		if (frame->reclaims)
			shadow_remove(shadow, block);
	}
}

/* What fades is an ordinary block from now on. Returns how many did, whoever holds them. */
static unsigned fade_blocks(struct shadow *shadow, const struct frame *frame)
{
	unsigned faded = 0;
	pthread_mutex_lock(&shadow->lock);
	for (size_t i = 0; i < shadow->count; i++) {
		struct block *block = shadow->sorted[i];
		if (block->owner == frame) {
			block->owner = NULL;
			faded++;
		}
	}
	pthread_mutex_unlock(&shadow->lock);
	return faded;
}

/* What was reclaimed is not in the shadow any more; the thread itself held it all. */
static unsigned drop_blocks(struct actor *actor, const struct frame *frame)
{
	unsigned dropped = 0;
	for (unsigned i = 0; i < PROGRAM_SLOTS; i++) {
		struct block *block = actor->slots[i];
		if (!block || shadow_owner(&actor->world->shadow, block) != frame)
			continue;
		free(block);
		actor->slots[i] = NULL;
		dropped++;
	}
	return dropped;
}

void frame_ended(struct actor *actor, bool was_abandoned)
{
	struct expected *expected = &actor->world->expected;
	struct frame *frame = &actor->frames[--actor->depth];
	if (frame->ignores)
		return;
	CHECK(actor, frame->pending_calls == 0, "%u region_on_exit() callbacks were not called",
	      frame->pending_calls);
	atomic_fetch_add(&expected->blocks_faded, fade_blocks(&actor->world->shadow, frame));
	atomic_fetch_add(&expected->blocks_reclaimed, drop_blocks(actor, frame));
	if (was_abandoned)
		atomic_fetch_add(&expected->scopes_abandoned, 1);
}

void frames_ended_with_thread(struct actor *actor)
{
	while (actor->depth > 0)
		frame_ended(actor, true);
}

/* --- ways in --- */

static unsigned expected_depth(const struct actor *actor)
{
	unsigned depth = 0;
	for (unsigned i = actor->depth; i > 0 && !actor->frames[i - 1].ignores; i--)
		depth++;
	return depth;
}

static void check_depth(struct actor *actor)
{
	unsigned depth = region_depth();
	CHECK(actor, depth == expected_depth(actor), "region_depth() is %u instead of %u", depth,
	      expected_depth(actor));
}

static void count_scope(struct actor *actor)
{
	atomic_fetch_add(&actor->world->expected.scopes_entered, 1);
	atomic_fetch_add(&actor->world->report->scopes, 1);
}

/* What happens in the scope or ignore: the program's operations until it is left. */
static void inside(void *arg)
{
	struct frame *frame = arg;
	if (!frame->ignores)
		count_scope(frame->actor);
	check_depth(frame->actor);
	actor_interpret(frame->actor);
	frame_ends(frame);
}

static struct region_options options_of(const struct frame *frame)
{
	const struct op *op = frame->op;
	return (struct region_options){
		.name = op->named ? frame->name : NULL,
		.fade = (enum region_fade)op->fade,
		.buffer_size = op->buffer_shift ? (size_t)1 << op->buffer_shift : 0,
		.buffer_count = op->buffer_count,
		.limit_bytes = (size_t)op->limit_kib * 1024,
	};
}

/* The library may not look at the options once enter has returned. */
static void enter_with_short_lived_options(struct region_scope *scope, const struct frame *frame)
{
	struct region_options options = options_of(frame);
	region_enter_with(scope, &options);
	memset(&options, 0xa5, sizeof options);
	__asm__ volatile("" : : "r"(&options) : "memory"); /* the compiler may not drop the memset */
}

static void run_in_handle(struct frame *frame, bool with_options)
{
	struct region_scope scope;
	if (with_options)
		enter_with_short_lived_options(&scope, frame);
	else
		region_enter(&scope);
	inside(frame);
	region_leave(&scope);
}

static void run_in_block(struct frame *frame)
{
	struct region_options options = options_of(frame);
	REGION_SCOPE_WITH(.name = options.name, .fade = options.fade, .buffer_size = options.buffer_size,
	                  .buffer_count = options.buffer_count, .limit_bytes = options.limit_bytes)
		inside(frame);
}

/*
 * The scope's own frame lies well below its caller's, since an abandoned scope is known by a later one
 * whose frame lies above it. Now and then the gap is as wide as real programs' stacks are deep.
 */
__attribute__((noinline)) static void run_in_scope(struct frame *frame)
{
	char gap[(size_t)1024 << frame->op->other % 9];
	__asm__ volatile("" : : "r"(gap) : "memory");
	if (frame->ignores) {
		region_ignore(inside, frame);
		return;
	}
	struct region_options options = options_of(frame);
	switch ((enum scope_form)frame->op->variant) {
	case FORM_DO: region_do(inside, frame); break;
	case FORM_DO_WITH: region_do_with(&options, inside, frame); break;
	case FORM_HANDLE: run_in_handle(frame, true); break;
	case FORM_HANDLE_PLAIN: run_in_handle(frame, false); break;
	case FORM_BLOCK: run_in_block(frame); break;
	case FORM_HANDLE_HEAP:
		enter_with_short_lived_options(&frame->handle, frame);
		inside(frame);
		region_leave(&frame->handle);
		break;
	case FORMS: abort();
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

/* A jump left this frame and those above it. */
static void landed(struct actor *actor, const struct frame *frame)
{
	region_do(nothing, NULL);
	count_scope(actor);
	while (&actor->frames[actor->depth] != frame)
		frame_ended(actor, true);
}

bool op_scope(struct actor *actor, const struct op *op)
{
	if (actor->depth == ACTOR_FRAMES)
		return false;
	struct frame *frame = push_frame(actor, op);
	if (setjmp(frame->landing) == 0) {
		run_in_scope(frame);
		frame_ended(actor, false);
	} else {
		landed(actor, frame);
	}
	check_depth(actor);
	return true;
}

/* --- ways out --- */

/* Under the preload longjmp() announces itself; here the model does, where that is possible. */
#if defined(__x86_64__)
#define JUMPS_ARE_ANNOUNCED true
#else
#define JUMPS_ARE_ANNOUNCED false
#endif

/* Would a scope whose handle isn't on the stack stay open, since no scope around it ends? */
static bool jump_leaves_one_open(const struct actor *actor, unsigned target)
{
	const struct frame *frame = &actor->frames[target];
	const struct frame *end = &actor->frames[actor->depth];
	while (frame < end && frame->ignores)
		frame++;
	return frame < end && frame->op->variant == FORM_HANDLE_HEAP;
}

bool op_jump(struct actor *actor, const struct op *op)
{
	if (actor->depth == 0)
		return false;
	unsigned target = actor->depth - 1 - op->other % actor->depth;
	if (jump_leaves_one_open(actor, target))
		return false;
	bool is_announced = JUMPS_ARE_ANNOUNCED && op->other & 1;
	for (unsigned i = target; i < actor->depth; i++) {
		/* Where the library has to find out by itself, nothing is reclaimed. */
		actor->frames[i].reclaims &= is_announced;
		frame_ends(&actor->frames[i]);
	}
	if (is_announced)
		life_before_longjmp(actor->frames[target].landing);
	longjmp(actor->frames[target].landing, 1);
}

/* Some block of the ending scope must still be what it was. */
static void check_one_block_of(struct frame *frame)
{
	struct actor *actor = frame->actor;
	unsigned start = (unsigned)random_below(&actor->rng, PROGRAM_SLOTS);
	for (unsigned i = 0; i < PROGRAM_SLOTS; i++) {
		struct block *block = actor->slots[(start + i) % PROGRAM_SLOTS];
		if (block && shadow_owner(&actor->world->shadow, block) == frame) {
			shadow_check_contents(&actor->world->shadow, block);
			return;
		}
	}
}

static void allocate_and_free(struct actor *actor)
{
	struct block block = {.p = shim_malloc(100), .size = 100, .requested = 100};
	CHECK(actor, block.p, "NULL for 100 bytes in a region_on_exit() callback");
	if (!region_name_of(block.p))
		atomic_fetch_add(&actor->world->expected.blocks_declined, 1);
	block.usable = shim_usable_size(block.p);
	shadow_insert(&actor->world->shadow, &block);
	pattern_fill(block.p, 0, block.size, block.id);
	shadow_check_contents(&actor->world->shadow, &block);
	shadow_remove(&actor->world->shadow, &block);
	shim_free(block.p);
}

static void scope_exits(void *arg)
{
	struct exit_call *call = arg;
	struct frame *frame = call->frame;
	struct actor *actor = frame->actor;
	CHECK(actor, call->number + 1 == frame->pending_calls,
	      "region_on_exit() callback %u is called while %u are pending", call->number,
	      frame->pending_calls);
	for (struct frame *inner = frame + 1; inner < &actor->frames[actor->depth]; inner++)
		CHECK(actor, inner->pending_calls == 0, "an outer scope ends before an inner one");
	frame->pending_calls--;
	check_one_block_of(frame);
	if (call->allocates)
		allocate_and_free(actor);
}

bool op_on_exit(struct actor *actor, const struct op *op)
{
	struct frame *frame = actor_scope(actor);
	if (!frame) {
		errno = 0;
		int result = region_on_exit(nothing, NULL);
		CHECK(actor, result == -1 && errno == EINVAL, "region_on_exit() outside is %d", result);
		return true;
	}
	if (frame->pending_calls == FRAME_CALLS)
		return false;
	struct exit_call *call = &frame->calls[frame->pending_calls];
	*call = (struct exit_call){.frame = frame, .number = frame->pending_calls};
	call->allocates = op->variant % 2;
	int result = region_on_exit(scope_exits, call);
	CHECK(actor, result == 0, "region_on_exit() is %d", result);
	frame->pending_calls++;
	return true;
}

/* --- statistics --- */

#define CHECK_TOTAL(world, stats, member) \
	REPORT_CHECK((world)->report, (stats).member == (world)->expected.member, \
	             "statistics: " #member " is %llu, and was %llu", (unsigned long long)(stats).member, \
	             (unsigned long long)(world)->expected.member)

static void check_balance(struct world *world, const struct region_stats *stats)
{
	uint64_t ended = stats->blocks_freed + stats->blocks_faded + stats->blocks_reclaimed +
	                 stats->waiting_blocks;
	REPORT_CHECK(world->report, stats->blocks_allocated == ended,
	             "statistics: %llu blocks, but %llu freed, %llu faded, %llu reclaimed and %llu waiting",
	             (unsigned long long)stats->blocks_allocated, (unsigned long long)stats->blocks_freed,
	             (unsigned long long)stats->blocks_faded, (unsigned long long)stats->blocks_reclaimed,
	             (unsigned long long)stats->waiting_blocks);
}

void world_check_stats(struct world *world)
{
	struct region_stats stats;
	region_stats_read(&stats);
	CHECK_TOTAL(world, stats, scopes_entered);
	CHECK_TOTAL(world, stats, scopes_abandoned);
	check_balance(world, &stats);
	if (world->program->free_running)
		return; /* who came first, a free or the end of the scope? */
	/* What a search would find, since the shadow has pointers to all that lives. */
	stats.blocks_faded += stats.waiting_blocks;
	CHECK_TOTAL(world, stats, blocks_faded);
	if (world->counts_reclaimed)
		CHECK_TOTAL(world, stats, blocks_reclaimed);
	unsigned long long declined = stats.heap_too_big + stats.heap_over_limit + stats.heap_no_buffer +
	                              stats.heap_hardened + stats.heap_other_stack + stats.heap_learned;
	REPORT_CHECK(world->report, declined == world->expected.blocks_declined,
	             "statistics: heap_too_big and so on sum to %llu instead of %llu", declined,
	             (unsigned long long)world->expected.blocks_declined);
}

bool op_stats(struct actor *actor, const struct op *op)
{
	struct world *world = actor->world;
	(void)op;
	if (!actor_is_alone(actor))
		return false;
	for (unsigned i = 0; i < world->program->threads; i++)
		if (world->actors[i].depth > 0)
			return false;
	world_check_stats(world);
	return true;
}
