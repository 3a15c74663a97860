/*
 * slot.c: slots beyond the common case: the pool, a thread's first call, frames that have been abandoned,
 * exceptions, longjmp, the end of threads, fork.
 *
 * A slot goes from the pool to a thread when the thread first needs one, stays with it, and comes back when
 * the thread ends. A thread rarely needs more than one: only sites that may nest have more than one open.
 */
#include "slot.h"

#include <cpuid.h>

#include "scope_fast.h"
#include "scopes.h"

struct slots slots = {.none = {.cfa = UINTPTR_MAX, .lone_number = SLOT_NOT_LONE}};

/* The processor. */

enum { XSAVE_HEADER_END = 576, XSAVE_OF_USE = 0xe7 }; /* x87, SSE, AVX, AVX-512 */

/*
 * What there is to save, and how much room it takes. Left out is what no call passes anything in: the
 * bounds registers, protection keys, and tiles, which are large.
 */
static bool measure_xsave(void)
{
	unsigned a, b, c, d, end = XSAVE_HEADER_END, mask;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return false;
	__asm__("xgetbv" : "=a"(mask), "=d"(d) : "c"(0));
	mask &= XSAVE_OF_USE;
	for (unsigned i = 2; i < 8; i++) {
		if (!(mask & 1u << i) || !__get_cpuid_count(13, i, &a, &b, &c, &d))
			continue;
		end = a + b > end ? a + b : end;
	}
	slot_xsave.area_bytes = end;
	slot_xsave.mask = mask;
	return true;
}

/* The pool. */

bool slot_start(bool has_llvm_unwinder)
{
	if (!measure_xsave())
		return false;
	slots.next = has_llvm_unwinder ? SLOT_POOL_COUNT : 0;
	slots.end = slots.next + SLOT_POOL_COUNT;
	return true;
}

static struct slot *take_fresh(void)
{
	if (slots.next == slots.end)
		return NULL;
	struct slot *slot = &slot_records[slots.next];
	slot->code = slot_code + (size_t)slots.next * SLOT_CODE_BYTES;
	slots.next++;
	return slot;
}

struct slot *slot_take(void)
{
	lock_acquire(&slots.lock);
	struct slot *slot = slots.free;
	if (slot)
		slots.free = slot->next;
	else
		slot = take_fresh();
	slots.failures += !slot;
	lock_release(&slots.lock);
	return slot;
}

/* One more slot for the thread. */
static bool take_slot(struct thread *thread)
{
	struct slot *slot = slot_take();

	if (!slot)
		return false;
	slot->owner = thread;
	slot->next = thread->free_slots;
	thread->free_slots = slot;
	thread->has_slots = true;
	return true;
}

/* All slots that there have been so far are from here to slot_records[slots.next]. */
static struct slot *first_slot(void)
{
	return &slot_records[slots.end - SLOT_POOL_COUNT];
}

static void give_back(struct slot *slot)
{
	slot->owner = NULL;
	slot->next = slots.free;
	slots.free = slot;
}

void slot_give_back(struct slot *first)
{
	lock_acquire(&slots.lock);
	for (struct slot *next; first; first = next) {
		next = first->next;
		first->lone_number = SLOT_NOT_LONE;
		give_back(first);
	}
	lock_release(&slots.lock);
}

static bool is_in_list(const struct slot *first, const struct slot *slot)
{
	while (first != slot && first != &slots.none)
		first = first->next;
	return first == slot;
}

/*
 * Where a handler has jumped out of the gate, a slot may be neither open nor ready nor free: what the thread
 * has and isn't open is free.
 */
static void find_free_slots(struct thread *thread)
{
	thread->free_slots = NULL;
	lock_acquire(&slots.lock);
	for (struct slot *slot = first_slot(); slot < &slot_records[slots.next]; slot++) {
		if (slot->owner != thread || is_in_list(thread->open_slot, slot))
			continue;
		slot->next = thread->free_slots;
		thread->free_slots = slot;
	}
	lock_release(&slots.lock);
}

/* The gate. */

/* What is ready is free while the gate is closed. */
static void close_gate(struct thread *thread)
{
	struct slot *slot = thread->ready_slot;

	thread->is_in_gate = true;
	if (!slot)
		return;
	thread->ready_slot = NULL;
	slot->next = thread->free_slots;
	thread->free_slots = slot;
}

/* A thread with nothing open has a slot ready. */
static void open_gate(struct thread *thread)
{
	struct slot *slot = thread->free_slots;

	if (thread->open_slot == &slots.none && slot) {
		thread->free_slots = slot->next;
		slot->next = &slots.none;
		slot->lone_number = slot_lone_number(thread, slot);
		thread->ready_slot = slot;
	}
	thread->is_in_gate = false;
}

/* Opening and closing. */

/* Ends a slot's scope, unless it has ended. */
static void end_scope(struct thread *thread, struct slot *slot, bool is_certain)
{
	struct scope *scope = slot->scope;

	slot->scope = NULL;
	if (!scope || scope->serial != (uintptr_t)slot)
		return;
	while (scope_top(thread->heap) != scope)
		scope_end_top(thread, is_certain);
	scope_end_top(thread, is_certain);
}

/* Takes back the slots whose frames end at `cfa` or below. */
static void close_below(struct thread *thread, uintptr_t cfa, bool is_certain)
{
	while (thread->open_slot->cfa <= cfa) {
		struct slot *slot = thread->open_slot;
		end_scope(thread, slot, is_certain);
		thread->open_slot = slot->next;
		slot->next = thread->free_slots;
		thread->free_slots = slot;
	}
}

/* The calling thread's record if `sp` is on its own stack, or NULL. */
static struct thread *thread_at(uintptr_t sp)
{
	struct scope *top = scope_top(heap_self());

	if (!top)
		top = scopes_first_use();
	if (!top || !scope_is_own_stack(top->thread, sp))
		return NULL;
	/* Where the stack isn't known, there is no telling when a frame is gone. */
	return top->thread->stack_bytes ? top->thread : NULL;
}

/* Has this site a call open already? A recursion is one scope. */
static bool is_open(const struct thread *thread, const struct site_entry *site)
{
	for (const struct slot *slot = thread->open_slot; slot != &slots.none; slot = slot->next)
		if (slot->target == site->resume)
			return true;
	return false;
}

static bool may_open(struct thread *thread, const struct site_entry *site)
{
	if (thread->open_slot == &slots.none)
		return true;
	return site->may_nest && !is_open(thread, site);
}

/* Is this the one call of a site that is for one call? */
static bool take_once(struct site_entry *site)
{
	return !site->is_once || !__atomic_exchange_n(&site->is_spent, 1, __ATOMIC_RELAXED);
}

static bool open_slot(struct thread *thread, struct site_entry *site, struct slot_arrival *arrival)
{
	uintptr_t cfa = (uintptr_t)(arrival + 1);

	close_below(thread, cfa, false);
	if (!may_open(thread, site) || (!thread->free_slots && !take_slot(thread)) || !take_once(site))
		return false;
	struct scope *scope = scope_enter_with(cfa - 1, cfa, site->options);
	if (!scope)
		return false;
	struct slot *slot = thread->free_slots;
	thread->free_slots = slot->next;
	scope->called = NULL;
	scope->serial = (uintptr_t)slot;
	/* Its options are constant: next time that is all to be compared. */
	scope->ready_for = site->options;
	*slot = (struct slot){
		.target = site->resume,
		.return_address = arrival->return_address,
		.cfa = cfa,
		.next = thread->open_slot,
		.scope = scope,
		.code = slot->code,
		.owner = thread,
		.lone_number = SLOT_NOT_LONE,
	};
	thread->open_slot = slot;
	arrival->go_on = slot->code;
	return true;
}

void slot_enter_slow(void *at)
{
	struct slot_arrival *arrival = at;
	struct site_entry *site = arrival->site;
	struct thread *thread = thread_at((uintptr_t)(arrival + 1));

	arrival->go_on = site->resume;
	/* The gate may have been closed by a signal's handler, and opened; it isn't in here. */
	if (!thread || thread->is_in_gate)
		return;
	close_gate(thread);
	arrival->is_scope = open_slot(thread, site, arrival);
	open_gate(thread);
}

void slot_exit_slow(void *at)
{
	struct slot_departure *departure = at;
	struct slot *slot = &slot_records[departure->number];
	struct scope *top = scope_top(heap_self());

	/* A thread that has lost its heap has no open slots, and no frames of functions either. */
	if (!top)
		return;
	struct thread *thread = top->thread;
	if (slot_is_watch(slot)) {
		slot_watched_returns(thread, slot);
		return;
	}
	close_gate(thread);
	/* What is inside hasn't returned. */
	close_below(thread, slot->cfa - 1, true);
	if (slot->scope && slot->scope->serial == (uintptr_t)slot) {
		slot->scope->serial = 0;
		thread->departure = (uintptr_t)departure;
		scope_leave(slot->scope);
	}
	if (thread->open_slot == slot) {
		slot->scope = NULL;
		close_below(thread, slot->cfa, true);
	}
	open_gate(thread);
}

/* Ways out that aren't a return. */

/*
 * The personality of the slots' code: see scope_personality. Unwinders come by innermost first, so the slot
 * is the innermost one above us that none has passed yet. It stays open: the unwinder has yet to read
 * its return address.
 */
int slot_personality(int version, int actions, uint64_t class, void *exception, void *context)
	__attribute__((visibility("hidden"), used));

int slot_personality(int version, int actions, uint64_t class, void *exception, void *context)
{
	enum { SEARCH_PHASE = 1, CONTINUE_UNWIND = 8 };
	struct thread *thread = scope_thread(heap_self());
	uintptr_t sp = scope_here();

	(void)version, (void)class, (void)exception, (void)context;
	if ((actions & SEARCH_PHASE) || !thread || !scope_is_own_stack(thread, sp))
		return CONTINUE_UNWIND;
	struct slot *slot = thread->open_slot;
	while (slot != &slots.none && (!slot->scope || slot->cfa <= sp))
		slot = slot->next;
	if (!slot_watched_is_passed(thread, sp, slot->cfa) && slot != &slots.none) {
		close_gate(thread);
		end_scope(thread, slot, true);
		open_gate(thread);
	}
	return CONTINUE_UNWIND;
}

/* A scope that the gate was entering or leaving when a handler interrupted it. */
static void take_off(struct thread *thread)
{
	if (!thread->moving)
		return;
	thread->moving->serial = 0;
	scope_pop(thread->heap, thread->moving);
	thread->moving = NULL;
}

void slot_before_longjmp(struct thread *thread, uintptr_t sp)
{
	/* A handler may be jumping out of the gate: then it mustn't stay closed. */
	bool was_in_gate =
		thread->is_in_gate ||
		(thread->has_slots && !thread->ready_slot && thread->open_slot == &slots.none);

	close_gate(thread);
	take_off(thread);
	close_below(thread, sp, true);
	if (was_in_gate)
		find_free_slots(thread);
	open_gate(thread);
}

/* Threads and processes. */

__attribute__((cold)) void slot_thread_begins(struct thread *thread)
{
	thread->open_slot = &slots.none;
	thread->is_in_gate = thread->has_slots = false;
}

__attribute__((cold)) void slot_thread_ends(struct thread *thread)
{
	close_gate(thread);
	if (thread->has_slots) {
		lock_acquire(&slots.lock);
		for (struct slot *slot = first_slot(); slot < &slot_records[slots.next]; slot++)
			if (slot->owner == thread)
				give_back(slot);
		lock_release(&slots.lock);
	}
	thread->open_slot = &slots.none;
	thread->free_slots = NULL;
}

void slot_before_fork(void)
{
	lock_before_fork(&slots.lock);
}

void slot_after_fork_in_parent(void)
{
	lock_after_fork_in_parent(&slots.lock);
}

/* The slots of threads that there aren't in the child are free. */
void slot_after_fork_in_child(void)
{
	struct thread *thread = scope_thread(heap_self());

	lock_after_fork_in_child(&slots.lock);
	if (slots.end == 0)
		return;
	slots.free = NULL;
	for (struct slot *slot = first_slot(); slot < &slot_records[slots.next]; slot++)
		if (!thread || slot->owner != thread)
			give_back(slot);
}
