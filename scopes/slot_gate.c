/*
 * slot_gate.c: what runs when a function that is a site is called, and when it returns.
 *
 * The common case, and nothing else: no site is open, a slot is free, a record is ready. What is compiled
 * here may run with any register holding something that is still needed. So this file is compiled for
 * general registers only, its functions save each register that they use, and anything more goes
 * through slot_with_vectors_saved.
 */
#include "scope_fast.h"
#include "slot.h"

bool slot_gate_enter(struct slot_arrival *arrival) SLOT_KEEPS_REGISTERS;
void slot_gate_exit(struct slot_departure *departure) SLOT_KEEPS_REGISTERS;

/* Where the compiler must not move accesses across: a signal may arrive on either side. */
#define signal_fence() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Does libregion itself make this call? It may be in the middle of anything. */
static bool is_ours(uintptr_t return_address)
{
	return return_address - slots.own_text_lo < slots.own_text_bytes;
}

static bool is_among(const struct site_callers *callers, uintptr_t return_address)
{
	for (; callers; callers = callers->next)
		if (return_address - callers->lo < callers->bytes)
			return true;
	return false;
}

/* May this call of a site that isn't for all of them be a scope? */
static bool is_wanted(const struct site_entry *site, uintptr_t return_address)
{
	if (site->callers && !is_among(site->callers, return_address))
		return false;
	if (site->is_of_libc && is_ours(return_address))
		return false;
	return !site->is_once || !__atomic_load_n(&site->is_spent, __ATOMIC_RELAXED);
}

/* A slot is open. Is this call to be looked at nevertheless? */
static bool is_worth_a_look(const struct site_entry *site, const struct slot *open, uintptr_t cfa,
                            uintptr_t return_address)
{
	/* The open one's function has jumped here: it is the same call. */
	if (return_address - (uintptr_t)slot_code < (uintptr_t)(slot_code_end - slot_code))
		return false;
	return site->may_nest || open->cfa <= cfa;
}

/* On another stack, if that is known by now. */
static bool is_elsewhere(const struct thread *thread, uintptr_t sp)
{
	return thread->has_asked_stack && sp - thread->stack_lo >= thread->stack_bytes;
}

bool slot_gate_enter(struct slot_arrival *arrival)
{
	struct site_entry *site = arrival->site;
	uintptr_t return_address = arrival->return_address, cfa = (uintptr_t)(arrival + 1);
	struct heap *heap = heap_self();
	struct thread *thread = heap->upper;

	arrival->go_on = site->resume;
	while (__builtin_expect(site->is_special, 0) && !is_wanted(site, return_address))
		if (!(site = site->otherwise))
			return false;
	if (__builtin_expect(!thread, 0))
		goto slow;
	if (__builtin_expect(thread->is_in_gate, 0))
		return false;
	if (__builtin_expect(thread->open_slot != &slots.none, 0)) {
		if (!is_worth_a_look(site, thread->open_slot, cfa, return_address))
			return false;
		goto slow;
	}
	thread->is_in_gate = true;
	signal_fence();
	struct slot *slot = thread->free_slots;
	struct scope *scope =
		slot && !site->is_once ? scope_enter_fast(heap, cfa - 1, cfa, site->options) : NULL;
	if (__builtin_expect(!scope, 0)) {
		thread->is_in_gate = false;
		if (is_elsewhere(thread, cfa))
			return false;
		goto slow;
	}
	scope->is_call = false;
	scope->serial = slot->serial = ++thread->last_serial;
	slot->scope = scope;
	slot->target = site->resume;
	slot->return_address = return_address;
	slot->cfa = cfa;
	thread->free_slots = slot->next;
	slot->next = &slots.none;
	thread->open_slot = slot;
	arrival->go_on = slot->code;
	signal_fence();
	thread->is_in_gate = false;
	return true;
slow:
	arrival->site = site;
	return slot_with_vectors_saved(slot_enter_slow, arrival);
}

void slot_gate_exit(struct slot_departure *departure)
{
	struct slot *slot = &slot_records[departure->number];
	struct heap *heap = heap_self();
	struct thread *thread = heap->upper;
	struct scope *scope = slot->scope;

	if (__builtin_expect(!thread || thread->open_slot != slot || thread->is_in_gate || !scope ||
	                         scope->serial != slot->serial,
	                     0)) {
		slot_with_vectors_saved(slot_exit_slow, departure);
		return;
	}
	thread->is_in_gate = true;
	signal_fence();
	if (__builtin_expect(!scope_leave_fast(scope), 0)) {
		slot_with_vectors_saved(slot_exit_slow, departure);
		return;
	}
	scope->serial = 0;
	thread->open_slot = slot->next;
	slot->next = thread->free_slots;
	thread->free_slots = slot;
	signal_fence();
	thread->is_in_gate = false;
}
