/*
 * actor.h: performs a program's operations, one actor for each of its threads.
 *
 *     actors.c      threads: who is next, a thread's end, the end of the program
 *     ops_blocks.c  operations on blocks
 *     ops_scopes.c  operations on scopes, and what the end of one means for the blocks
 *
 * A scope that the program opens is a frame here, and a call: the operations up to the matching leave
 * are performed inside it, so that region_do() and its kin see the nesting they are made for.
 *
 * In turns, an actor holds the turn from when it fetches an operation until it asks for the next one.
 * Then everything is exact. When threads run freely, what another thread's scope does at this moment is
 * unknown; the few checks that would depend on it are left out.
 */
#ifndef TESTS_MODEL_ACTOR_H
#define TESTS_MODEL_ACTOR_H

#include "program.h"
#include "region.h"
#include "report.h"
#include "shadow.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#define ACTOR_FRAMES 12 /* nested scopes and ignores */
#define FRAME_CALLS 8   /* region_on_exit() in one scope */
#define INBOX_BLOCKS 32

struct exit_call {
	struct frame *frame;
	unsigned number; /* counted from the first one of its scope */
	bool allocates;
};

/* An open scope, or the extent of a region_ignore(). */
struct frame {
	struct actor *actor;
	const struct op *op;
	const char *name; /* what region_name_of() says of its blocks */
	bool ignores;
	bool reclaims;   /* effective fade policy is none */
	bool limited;    /* its region may decline a small block */
	struct region_scope handle; /* for FORM_HANDLE_HEAP */
	unsigned pending_calls;     /* region_on_exit() callbacks still to come */
	struct exit_call calls[FRAME_CALLS];
	jmp_buf landing; /* where a jump out of this frame arrives */
};

struct inbox {
	struct block *blocks[INBOX_BLOCKS];
	unsigned count; /* both under the shadow's lock */
};

struct actor {
	struct world *world;
	unsigned id;
	size_t cursor;  /* of the next operation to look at */
	bool has_turn;  /* while threads take turns */
	bool is_closing; /* no operations are left */
	uint64_t rng;   /* picks what to check */
	unsigned depth; /* frames in use */
	struct frame frames[ACTOR_FRAMES];
	struct block *slots[PROGRAM_SLOTS];
	struct inbox inbox;
	pthread_t thread;
	pthread_t predecessor; /* of a respawned thread */
	sem_t turn;
	sem_t finished;
};

/* What the statistics have to say; atomic because threads add up. */
struct expected {
	atomic_ullong scopes_entered;
	atomic_ullong scopes_abandoned;
	atomic_ullong blocks_faded;
	atomic_ullong blocks_reclaimed;
	atomic_ullong blocks_declined; /* by a scope's region, served by the general heap */
};

struct world {
	const struct program *program;
	struct report *report;
	struct shadow shadow;
	struct expected expected;
	enum region_fade forced_fade; /* LIBREGION_FADE, or REGION_FADE_DEFAULT */
	bool regions_decline;         /* an option makes regions decline small blocks too */
	bool is_hardened;             /* then the general heap serves scopes that fade whatever is unfreed */
	bool counts_reclaimed;        /* only when statistics were asked for */
	atomic_size_t turn;           /* index of the operation whose turn it is */
	struct actor actors[PROGRAM_THREADS];
};

#define CHECK(actor, condition, ...) \
	REPORT_CHECK((actor)->world->report, condition, __VA_ARGS__)

/* Runs the program in this process, which ends with REPORT_EXIT_FAILED when a check fails. */
void world_run(const struct program *program, struct report *report);

/* The actor's next operation; NULL: there are none left, everything open is to be closed. */
const struct op *actor_next(struct actor *actor);

/* Performs operations until the innermost frame's leave, or the end. */
void actor_interpret(struct actor *actor);

/* Whether what other threads do is known at this moment. */
static inline bool actor_is_alone(const struct actor *actor)
{
	return !actor->world->program->free_running;
}

/* The innermost scope, or NULL: outside every scope, or ignored. */
static inline struct frame *actor_scope(struct actor *actor)
{
	struct frame *top = actor->depth ? &actor->frames[actor->depth - 1] : NULL;
	return top && !top->ignores ? top : NULL;
}

/* The operations; each says whether it could do anything. */
typedef bool op_function(struct actor *actor, const struct op *op);
op_function op_malloc, op_calloc, op_aligned, op_huge, op_realloc, op_free, op_stretch;
op_function op_keep, op_copy_out, op_ask, op_sweep, op_trim, op_hand, op_take;
op_function op_scope, op_jump, op_on_exit, op_stats, op_respawn;

/* Checks what region_owns() and region_name_of() say of a block. */
void block_check_owner(struct actor *actor, const struct block *block);

/* Checks the contents and gives the block back, by the function that `variant` says. */
void block_free(struct actor *actor, struct block *block, unsigned variant);

/* Checks the blocks of a scope that is about to end. */
void frame_ends(struct frame *frame);

/* Takes the innermost frame off and settles what becomes of its blocks. */
void frame_ended(struct actor *actor, bool was_abandoned);

/* The same for every frame, after the thread ended inside of them. */
void frames_ended_with_thread(struct actor *actor);

/* At the end of the program, when no scope is open. */
void world_check_stats(struct world *world);

#endif
