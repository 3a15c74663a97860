/*
 * scope.h: what a thread knows about its scopes and their regions. Private to scopes/.
 *
 * A thread's scopes form a list from `base`, which stands for "outside every scope" and never closes, to
 * the top one, which the thread heap points to. Records of closed scopes stay in the list behind the top
 * to be used again, so that entering costs no allocation. They lie outside of the stack: a frame that
 * longjmp has abandoned must not take the list with it.
 *
 * A closed record is *ready* for a policy: its region is set up, with an empty buffer if the thread had
 * one. Entering it is a matter of a dozen stores, and so is leaving it if nothing is left in the buffer.
 *
 * The region of the top scope is the current one, and its cursor and limit are in the thread heap. All
 * others have theirs in their own record; a ready one too.
 *
 * A scope's frame is the address that the stack pointer is below as long as the scope's call hasn't
 * been left. Scopes are entered on the thread's own stack only, where frames nest, so a frame below
 * the stack pointer has been abandoned, and its scope ends.
 */
#ifndef LIBREGION_SCOPE_H
#define LIBREGION_SCOPE_H

#include "core/core.h"
#include "options.h"
#include "region.h"
#include "stats.h"

/* How a region is run. */
struct policy {
	const char *name;
	enum region_fade fade;
	unsigned size_log2;   /* of buffers */
	size_t buffer_count;
	size_t limit_bytes;   /* SIZE_MAX: none */
	size_t max_block_bytes;
};

struct region {
	struct span *buffers;    /* all it holds; the first is the one with the cursor */
	char *cursor, *limit;    /* while another region is current */
	char *extent;            /* where the cursor started in the current hole */
	const struct policy *policy;
	struct counters *counters;
	const char *name;        /* the policy's, for tracers */
	struct span *sweep;      /* the next buffer to look for holes in, or NULL */
	size_t held_bytes;       /* of its buffers */
	size_t unswept_bytes;    /* bumped since it last looked for holes in its other buffers */
	size_t bumped_bytes;     /* in holes left so far */
	size_t kept_bytes;       /* of blocks that region_keep() has marked */
	bool was_prepared;       /* its first buffer was there when it was opened */
};

/* region_on_exit(). */
struct exit_call {
	void (*fn)(void *);
	void *arg;
	struct exit_call *next;
};

struct scope {
	struct region region;
	struct thread *thread;
	struct scope *outer, *inner; /* inner: the record to use next, even if it isn't open */
	uintptr_t frame;
	size_t inline_granules;      /* of the heap while this scope is the top one */
	const struct policy *ready;  /* what the record was last made ready for; NULL: nothing yet */
	const struct region_options *ready_for; /* of a site: constant options that it is ready for; or NULL */
	const void *called;          /* the function that region_do and its like call: an unwinder passes it */
	struct learn_scope *learn;   /* while its allocations are watched (learn.h), or NULL */
	bool had_calls;              /* region_on_exit() was called in it, since it was opened */
	bool must_close;             /* more has happened than its first buffer's cursor tells */
	bool is_lasting;             /* its region outlives it: see object.h */
	uint64_t serial;             /* of this use of the record by a handle; 0: none */
	struct exit_call *calls;
	struct big_list bigs;        /* `reachable`: blocks of the general heap that end with it */
	struct region_options given; /* what own_policy was made from */
	struct policy own_policy;    /* if it was given options */
};

static_assert(offsetof(struct scope, region) == 0, "a region's address is its scope's");

/* The calling thread's part of a shared region; see object.h. */
#define THREAD_LANES 8u

struct lane_place {
	uint64_t number; /* of the shared region */
	struct region_object *lane;
};

struct thread {
	struct heap *heap;
	struct span *partial;     /* a buffer with survivors and room, kept for the next scope */
	bool has_faded;           /* the last scope that closed left survivors */
	/* LIBREGION_CHECK: see check.h. */
	struct span *checked;     /* where the next scope that is checked goes on */
	uintptr_t left_frame;     /* of the scope that is being closed */
	bool left_call;           /* it was the call of a function */
	uintptr_t departure;      /* where a site's function has left its result; 0: it hasn't returned */
	bool is_in_check;         /* what is allocated is libregion's own doing, and nobody's scope's */
	void *fault_stack;        /* an alternate stack of ours */
	unsigned fault_depth;     /* handlers of a touch that have been called */
	void *fault_context;
	uintptr_t fault_frame;
	uintptr_t stack_lo;       /* the thread's own stack */
	size_t stack_bytes;       /* 0: not known */
	bool has_asked_stack;     /* that it isn't known is the answer */
	uint64_t last_serial;
	struct counters *all_counters;
	struct slot *open_slot;   /* of sites (slot.h): the innermost call that is a scope */
	struct slot *ready_slot;  /* for the next call that may be one without more ado, or NULL */
	struct slot *free_slots;
	struct slot *watch_slots; /* slot_watch.c: of frames that are watched, and those not in use */
	struct slot *watch_free;
	struct scope *sampled;    /* learn.h: the open scope whose blocks are noted, or NULL */
	struct learn_sample *samples;
	uint32_t sample_count, sample_skip;
	struct advise_thread *sampler; /* advise.h; NULL: nothing of this thread has been counted */
	struct scope *moving;     /* empty, and just being made the top one, or the one around it */
	bool has_slots;           /* open, ready or free */
	bool is_in_gate;          /* between a site's function and its caller, for longer than a moment */
	struct lane_place lanes[THREAD_LANES];
	struct scope base;
};

/* An address in the frame of the function that asks. */
static inline __attribute__((always_inline)) uintptr_t scope_here(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}

/* The innermost scope of the heap's thread, or NULL: it has no heap (yet, or any more). */
static inline struct scope *scope_top(const struct heap *heap)
{
	return heap->upper_top;
}

static inline bool scope_is_open(const struct scope *scope)
{
	return scope && (scope->inline_granules & ~HEAP_WATCHED) == 0;
}

/* The thread's record, or NULL likewise. */
static inline struct thread *scope_thread(struct heap *heap)
{
	return heap->upper;
}

extern struct policies {
	struct policy by_default; /* what the environment says; constant after start */
	struct policy nobody;     /* that no record is ready for */
	/* What records are ready for that need no closer look: the former, or the latter (learn.h). Atomic. */
	const struct policy *quick;
} policies __attribute__((visibility("hidden")));

/* policy.c: what given options ask for: over the process's default, and LIBREGION_FADE over both. */
void policy_start(void);
void policy_set(struct policy *policy, const struct region_options *given);

/* region.c */

/*
 * Does the general heap serve, because it is hardened? Under `unfreed` nobody can tell: a block stays valid
 * until it is freed, wherever it is. Other policies reclaim, for which a block has to be in the region.
 */
static inline bool region_is_sheltered(const struct region *region)
{
	return harden_is_on() && region->policy->fade == REGION_FADE_UNFREED;
}

/* A region leaves the hole with its cursor: bytes are counted, its buffer knows how far it is used. */
void region_leave_hole(struct region *region, char *cursor);

/* Sets up a region that isn't current, with an empty buffer if there is one at hand. */
void region_prepare(struct thread *thread, struct region *region, const struct policy *policy);

/* Gives the buffer of a prepared region back, if it has one. */
void region_unprepare(struct thread *thread, struct region *region);

/*
 * Ends the current region: its blocks fade or are reclaimed, its buffers go back. Unless `may_reclaim` they
 * fade under every policy.
 */
void region_close(struct thread *thread, struct region *region, bool may_reclaim);

/*
 * The same for the common case, a region whose blocks all lie in the buffer that it was prepared with: if
 * none survives, it is as it was prepared. False: nothing has happened.
 */
bool region_close_quick(struct thread *thread, struct region *region);

/* Gives up the buffer that the thread keeps for the next scope's survivors. */
void region_settle_partial(struct thread *thread);

/* A block for the thread's current region, by the slow path; or from the general heap. */
void *region_serve(struct thread *thread, size_t size, size_t align);

/* Adds the blocks that were freed as the newest since the last time to the current region's counters. */
static inline void region_harvest(struct heap *heap, const struct region *region)
{
	struct region_stats *stats = &region->counters->stats;
	uint64_t blocks = heap->popped_blocks, bytes = heap->popped_bytes;

	if (__builtin_expect(blocks == 0, 1))
		return;
	stats_add(&stats->blocks_allocated, blocks);
	stats_add(&stats->bytes_allocated, bytes);
	stats_add(&stats->blocks_freed, blocks);
	stats_add(&stats->bytes_freed, bytes);
	heap->popped_blocks = 0;
	heap->popped_bytes = 0;
}

/* stats.c: counts what the thread's open scopes have done so far, where the process ends inside them. */
void region_count_open(struct thread *thread);

/* reach.c */

/* Can searches be made, or is `reachable` `unfreed` just now? */
bool reach_is_on(void);

/* Does so much wait that a search is due? */
bool reach_is_due(void);

/*
 * Makes a search, if no other thread is at it. Called from as high on the stack as can be: what lies below
 * the caller's frame doesn't keep a block.
 */
void reach_search(struct thread *thread, struct counters *counters) __attribute__((visibility("hidden")));

struct lock *reach_lock(void);

/* life.c: the outermost scope of a thread that enters its first one before it has allocated. */
struct scope *scopes_first_use(void);

/*
 * Names scope_personality() in the unwind information of the function that it stands in: the scope that
 * this function has opened ends when an unwinder passes it.
 */
#if defined(__x86_64__) || defined(__aarch64__)
#define SCOPE_UNWIND_THROUGH __asm__ volatile(".cfi_personality 0x1b, scope_personality")
#else
#define SCOPE_UNWIND_THROUGH ((void)0)
#endif

/* scope.c */

/* What stands behind the last record: never ready. */
extern struct scope scope_no_record __attribute__((visibility("hidden")));

/* Opens a scope; frame and the pointer sp as in scope.h's essay. NULL: not a place for a scope. */
struct scope *scope_enter_with(uintptr_t sp, uintptr_t frame, const struct region_options *given);

/*
 * Ends the top scope, which has been left without region_leave(). Where that is only guessed, from where
 * the stack pointer is, nothing is reclaimed: blocks may have come to the region since it was left.
 */
void scope_end_top(struct thread *thread, bool is_certain);

/* Ends the scopes whose frames are below sp, if that is on the thread's own stack. */
void scope_close_abandoned(struct thread *thread, uintptr_t sp, bool is_certain);

/* Ends an open scope, and everything inside it. */
void scope_leave(struct scope *scope);
/* within.c: takes the record of an open scope that is a region's out again; its thread is left to pop(). */
void within_suspend(struct thread *thread, struct scope *scope);

/* Ends an open scope that is a region's, and everything inside it; the region stays. */
void scope_leave_lasting(struct scope *scope);

/* Is sp on the thread's own stack? */
bool scope_is_own_stack(struct thread *thread, uintptr_t sp);

#endif
