/*
 * slot.h: the calls of sites that are scopes, each with a slot. Private to scopes/.
 *
 * A site's function, when it is called, arrives at slot_entry. If the call becomes a
 * scope, it gets a slot: a few instructions of code from which the function is called, so that it returns
 * there, and a record that remembers where it is to return to after that.
 *
 *     slot_fast_x86_64.c   what runs on each call, if it is as simple as it mostly is
 *     slot_gate.c          what is still simple enough for general registers only
 *     slot.c               the rest: the pool, first calls, frames that have been abandoned, unwinding, fork
 *     slot_x86_64.S        the code of the slots
 *
 * A thread's open slots are a list, innermost first, whose frames (CFA: the stack pointer before the call
 * pushed the return address) rise. A slot is open for as long as the frame of its function is there, even
 * if its scope has ended: its record holds the address that the function is to return to. It is taken
 * back when the function returns, or once something is met that shows that its frame is gone.
 *
 * The gate: while `is_in_gate` is set, the thread is in here. A signal handler that interrupts it, and what
 * is called from in here, run functions of sites as plain calls. A thread with nothing open has a slot
 * ready for its next call; that it hasn't, although it has slots, means the same for a moment. Should the
 * handler not return, slot_before_longjmp() clears up.
 *
 * slot_watch.c uses slots for something else, to see returns of frames that were there before; they are
 * lists of their own, and belong to no thread.
 *
 * A scope that a slot has opened has the slot's address as its serial number, until it ends.
 *
 * Slots are taken on the thread's own stack only. In a coroutine or on a signal's stack a site is a plain
 * call.
 */
#ifndef LIBREGION_SLOT_H
#define LIBREGION_SLOT_H

#include "scope.h"
#include "slot_layout.h"

/* Return addresses that a call of a site must have to become a scope. */
struct site_callers {
	const struct site_callers *next;
	uintptr_t lo;
	size_t bytes;
};

/* The part of a site that its calls need. */
struct site_entry {
	void *resume; /* the moved first instructions, or the target of a call */
	const struct region_options *options;
	const struct site_callers *callers; /* NULL: any */
	bool may_nest;                      /* in a scope of another site, too */
	bool is_once;                       /* the first call only */
	bool is_of_libc;                    /* libregion itself might call it */
	bool is_special;                    /* any of callers, is_once, is_of_libc */
	uint32_t is_spent;                  /* is_once, and there has been one */
	struct site_entry *otherwise; /* another site of the same function, for calls that it leaves */
};

struct slot {
	union {
		void *target;                 /* site_entry.resume */
		struct advise_frame *watched; /* slot_watch.c; NULL: it has ended */
	};
	uintptr_t return_address;
	uintptr_t cfa;       /* the stack pointer once the function has returned */
	struct slot *next;   /* the next open slot outwards, or the next free one */
	struct scope *scope; /* NULL: it has ended, in a way that nobody returns from */
	void *code;
	struct thread *owner; /* the thread that has it, open or not; NULL: it is in the pool */
	uint64_t lone_number; /* its number if no slot and no scope is open further out, else one of these */
};

#define SLOT_NOT_LONE UINT64_MAX
#define SLOT_WATCH (UINT64_MAX - 1) /* not of a call that is a scope, but to see a frame return */
#define SLOT_STALE (UINT64_MAX - 2) /* such a one, not in use; its frame was abandoned, it seems */

static inline bool slot_is_watch(const struct slot *slot)
{
	return slot->lone_number - SLOT_STALE < 2;
}

static_assert(sizeof(struct slot) == SLOT_RECORD_BYTES, "the slots' code counts in these");
static_assert(offsetof(struct slot, target) == SLOT_TARGET, "the slots' code reads it");
static_assert(offsetof(struct slot, return_address) == SLOT_RETURN_ADDRESS,
              "the slots' code reads it");

/* What slot_entry finds on the stack. */
struct slot_arrival {
	uint64_t is_scope; /* out: go on from a slot, without the return address; in: 0 */
	union {
		struct site_entry *site; /* in */
		void *go_on;             /* out: where to jump to */
	};
	uintptr_t return_address;
	/* here is the CFA */
};

/* What slot_exit finds on the stack. */
struct slot_departure {
	uint64_t returned; /* what the function has left in the register for results */
	uint64_t number;
	uintptr_t return_address;
	/* here is the CFA */
};

/* Of a function that keeps every register. */
#define SLOT_KEEPS_REGISTERS __attribute__((no_caller_saved_registers))

/* In slot_x86_64.S. */
extern struct slot slot_records[2 * SLOT_POOL_COUNT] __attribute__((visibility("hidden")));
extern char slot_code[] __attribute__((visibility("hidden")));
extern char slot_code_end[] __attribute__((visibility("hidden")));
extern struct slot_xsave {
	uint32_t area_bytes;
	uint32_t mask;
} slot_xsave __attribute__((visibility("hidden")));

/* Calls fn(arg), keeping every register. */
void slot_with_vectors_saved(void (*fn)(void *), void *arg) SLOT_KEEPS_REGISTERS;

/* In slot_fast_x86_64.c, for code to jump to; none is a function that could be called. */
void slot_entry(void) __attribute__((visibility("hidden")));
void slot_entry_special(void) __attribute__((visibility("hidden"))); /* for sites that are */
void slot_exit(void) __attribute__((visibility("hidden")));

extern struct slots {
	struct slot none;      /* the end of every list of open slots: a frame that is never gone */
	uintptr_t own_text_lo; /* where libregion's own code is */
	size_t own_text_bytes;
	struct slot *free;  /* those that no thread has */
	uint32_t next, end; /* the numbers of those that nobody has had yet */
	uint64_t failures;  /* calls that were no scopes because there was no slot */
	struct lock lock;   /* guards the above; last in the order of locks */
} slots __attribute__((visibility("hidden")));

static inline uint64_t slot_number(const struct slot *slot)
{
	return (uint64_t)(slot - slot_records);
}

/*
 * What lone_number is for a slot with nothing open further out. The fast way out (slot_fast_x86_64.c) leaves
 * a heap that serves from slabs inline, which isn't wanted while allocations are sampled.
 */
static inline uint64_t slot_lone_number(const struct thread *thread, const struct slot *slot)
{
	bool is_sampled = thread->base.inline_granules != HEAP_DIRECT_GRANULES;

	return is_sampled ? SLOT_NOT_LONE : slot_number(slot);
}

/* Makes the slots ready, before the first site is. False: this processor can't. */
bool slot_start(bool has_llvm_unwinder);

/* The slow halves of the gate. */
void slot_enter_slow(void *arrival);
void slot_exit_slow(void *departure);

/* A thread begins, and ends. */
void slot_thread_begins(struct thread *thread);
void slot_thread_ends(struct thread *thread);

/* A longjmp of this thread is about to set its stack pointer to sp, on its own stack. */
void slot_before_longjmp(struct thread *thread, uintptr_t sp);

/* One slot from the pool; NULL: there is none left. Gives a list of them back. */
struct slot *slot_take(void);
void slot_give_back(struct slot *first);

/* slot_watch.c, all of it for the calling thread, on its own stack. */

/* Lets the return of a frame come by. False: it can't. */
bool slot_watch(struct thread *thread, struct advise_frame *frame);

/* The slot whose code that is, or NULL. */
struct slot *slot_of_code(uintptr_t pc);

/*
 * Takes back the slots of frames that lie below `sp`: are they gone for certain, or does it only look so?
 */
void slot_sweep(struct thread *thread, uintptr_t sp, bool is_certain);

/* Takes back all of them: frames above `sp` return to their callers again. */
void slot_unwatch(struct thread *thread, uintptr_t sp);

/* A watched frame returns by its slot. */
void slot_watched_returns(struct thread *thread, struct slot *slot);

/* An unwinder passes a slot above `sp`: is it the innermost watched one, and further in than `before`? */
bool slot_watched_is_passed(struct thread *thread, uintptr_t sp, uintptr_t before);

/* Around fork(); see core/lock.h. */
void slot_before_fork(void);
void slot_after_fork_in_parent(void);
void slot_after_fork_in_child(void);

#endif
