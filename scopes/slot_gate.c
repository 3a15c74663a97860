/*
 * slot_gate.c: what runs when a function that is a site is called, and when it returns.
 *
 * The common cases, and nothing else: a slot and a scope's record are ready; what the scope leaves behind is
 * little, and all of it has been freed. What is compiled here may run with any register holding something
 * that is still needed. So this file is compiled for general registers only, its functions save each register
 * that they use, and anything more goes through slot_with_vectors_saved. Each case is a function of its own,
 * so that the most common one saves the fewest. None returns a value: clang would save and restore its
 * register, too.
 */
#include <string.h>

#include "scope_fast.h"
#include "slot.h"

#define GATE __attribute__((noinline)) SLOT_KEEPS_REGISTERS
#define COLD_GATE __attribute__((cold)) GATE

void slot_gate_enter(void) SLOT_KEEPS_REGISTERS;
void slot_gate_enter_special(void) SLOT_KEEPS_REGISTERS;
void slot_gate_exit(void) SLOT_KEEPS_REGISTERS;

/* What the assembly has left on the stack, right above where it has called: no register is taken for it. */
#define ON_STACK(type) ((type *)__builtin_dwarf_cfa())

/* Where the compiler must not move accesses across: a signal may arrive on either side. */
#define signal_fence() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Entering. */

static inline void go_on_plainly(struct slot_arrival *arrival, const struct site_entry *site)
{
	arrival->go_on = site->resume;
}

/* On another stack, if that is known by now? Coroutines come by here often. */
static bool is_elsewhere(const struct thread *thread, uintptr_t sp)
{
	return thread->has_asked_stack && sp - thread->stack_lo >= thread->stack_bytes;
}

static COLD_GATE void enter_slow(struct slot_arrival *arrival)
{
	struct thread *thread = scope_thread(heap_self());

	if (thread && is_elsewhere(thread, (uintptr_t)arrival))
		go_on_plainly(arrival, arrival->site);
	else
		slot_with_vectors_saved(slot_enter_slow, arrival);
}

/* The record behind the top one, if it is ready for the site and nothing needs a closer look. */
static inline __attribute__((always_inline)) struct scope *
ready_scope(const struct thread *thread, const struct scope *outer, const struct site_entry *site,
            uintptr_t cfa)
{
	/* A handle may lie at the CFA itself. */
	uintptr_t sp = cfa - 1;

	if (__builtin_expect(sp - thread->stack_lo >= thread->stack_bytes || outer->frame <= sp ||
	                         outer->inner->ready_for != site->options,
	                     0))
		return NULL;
	return outer->inner;
}

/* What is rarely there to be counted isn't counted with the registers of those who mostly don't. */
static GATE void harvest(const struct scope *scope)
{
	region_harvest(scope->thread->heap, &scope->region);
}

/*
 * Around changes of which scope is the top one: should a handler that interrupts them jump away, the scope,
 * which is empty, is taken off.
 */
static inline void begin_move(struct thread *thread, struct scope *scope)
{
	signal_fence();
	thread->moving = scope;
	signal_fence();
}

static inline void end_move(struct thread *thread)
{
	signal_fence();
	thread->moving = NULL;
	signal_fence();
}

/* What scope_push() does first: what is taken off must find it. */
static inline void save_outer(const struct heap *heap, struct scope *outer)
{
	outer->region.cursor = heap->cursor;
	outer->region.limit = heap->limit;
}

/* Opens a scope and the slot for it, both of which are ready. */
static inline __attribute__((always_inline)) void open_slot(struct slot *slot, struct scope *scope,
                                                            struct slot_arrival *arrival,
                                                            const struct site_entry *site)
{
	struct thread *thread = scope->thread;

	slot->target = site->resume;
	slot->return_address = arrival->return_address;
	slot->cfa = (uintptr_t)(arrival + 1);
	slot->scope = scope;
	slot->lone_number = SLOT_NOT_LONE;
	arrival->go_on = slot->code;
	arrival->is_scope = true;
	if (__builtin_expect(thread->heap->popped_blocks != 0, 0))
		harvest(scope->outer);
	scope->serial = (uintptr_t)slot;
	save_outer(thread->heap, scope->outer);
	begin_move(thread, scope);
	scope_push(thread->heap, scope->outer, scope, (uintptr_t)(arrival + 1));
	end_move(thread);
	scope_count_entry(scope);
	thread->open_slot = slot;
}

/* Has this site a call open already? A recursion is one scope. */
static bool is_open(const struct thread *thread, const struct site_entry *site)
{
	for (const struct slot *slot = thread->open_slot; slot != &slots.none; slot = slot->next)
		if (slot->target == site->resume)
			return true;
	return false;
}

/* In a scope of another site. */
static GATE void enter_nested(struct slot_arrival *arrival)
{
	const struct site_entry *site = arrival->site;
	struct thread *thread = scope_thread(heap_self());
	struct slot *slot = thread->free_slots;
	struct scope *scope =
		ready_scope(thread, scope_top(thread->heap), site, (uintptr_t)(arrival + 1));

	if (is_open(thread, site)) {
		go_on_plainly(arrival, site);
	} else if (!slot || !scope) {
		enter_slow(arrival);
	} else {
		thread->is_in_gate = true;
		signal_fence();
		thread->free_slots = slot->next;
		slot->next = thread->open_slot;
		open_slot(slot, scope, arrival, site);
		signal_fence();
		thread->is_in_gate = false;
	}
}

/* No slot is ready: one is open, or the thread hasn't had any. */
static GATE void enter_more(struct slot_arrival *arrival)
{
	const struct site_entry *site = arrival->site;
	struct thread *thread = scope_thread(heap_self());
	uintptr_t from = arrival->return_address - (uintptr_t)slot_code;
	bool is_in_gate = thread->is_in_gate || (thread->open_slot == &slots.none && thread->has_slots);
	/* The open one's function has jumped here: it is the same call. (Not so with a frame that is watched.) */
	bool is_same_call = from < (uintptr_t)(slot_code_end - slot_code) &&
	                    !slot_is_watch(&slot_records[from / SLOT_CODE_BYTES]);

	if (is_in_gate || is_same_call)
		go_on_plainly(arrival, site);
	else if (thread->open_slot == &slots.none || thread->open_slot->cfa <= (uintptr_t)(arrival + 1))
		enter_slow(arrival);
	else if (site->may_nest)
		enter_nested(arrival);
	else
		go_on_plainly(arrival, site);
}

static inline __attribute__((always_inline)) void enter(struct slot_arrival *arrival,
                                                        const struct site_entry *site)
{
	struct thread *thread = scope_thread(heap_self());

	if (__builtin_expect(!thread, 0)) {
		enter_slow(arrival);
		return;
	}
	struct slot *slot = thread->ready_slot;
	if (__builtin_expect(!slot, 0)) {
		enter_more(arrival);
		return;
	}
	struct scope *scope =
		ready_scope(thread, scope_top(thread->heap), site, (uintptr_t)(arrival + 1));
	if (__builtin_expect(!scope, 0)) {
		enter_slow(arrival);
		return;
	}
	thread->ready_slot = NULL;
	signal_fence();
	open_slot(slot, scope, arrival, site);
}

/* Does libregion itself make this call? It may be in the middle of anything. */
static inline bool is_ours(uintptr_t return_address)
{
	return return_address - slots.own_text_lo < slots.own_text_bytes;
}

static inline bool is_among(const struct site_callers *callers, uintptr_t return_address)
{
	for (; callers; callers = callers->next)
		if (return_address - callers->lo < callers->bytes)
			return true;
	return false;
}

/* May this call of a site that isn't for all of them be a scope? */
static inline bool is_wanted(const struct site_entry *site, uintptr_t return_address)
{
	if (site->callers && !is_among(site->callers, return_address))
		return false;
	if (site->is_of_libc && is_ours(return_address))
		return false;
	return !site->is_once || !__atomic_load_n(&site->is_spent, __ATOMIC_RELAXED);
}

static GATE void enter_wanted(struct slot_arrival *arrival)
{
	const struct site_entry *site = arrival->site;

	if (site->is_once)
		enter_slow(arrival);
	else
		enter(arrival, site);
}

void slot_gate_enter_special(void)
{
	struct slot_arrival *arrival = ON_STACK(struct slot_arrival);
	struct site_entry *site = arrival->site;

	while (!is_wanted(site, arrival->return_address)) {
		if (!site->otherwise) {
			go_on_plainly(arrival, site);
			return;
		}
		arrival->site = site = site->otherwise;
	}
	enter_wanted(arrival);
}

void slot_gate_enter(void)
{
	struct slot_arrival *arrival = ON_STACK(struct slot_arrival);

	enter(arrival, arrival->site);
}

/* Leaving. */

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))
#define SMALL_MAP_BYTES 512
#define SMALL_MAP_LEAST 8

static inline uint64_t load_word(const unsigned char *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/* granule_count() for eight bytes. */
static inline void count_word(struct granule_counts *counts, uint64_t word)
{
	/* Adding lets each byte's bit 6 tell whether any of the lower ones is set, and bit 7 likewise. */
	uint64_t heads =
		((word & EACH_BYTE(0x3f)) + EACH_BYTE(0x3f)) & ~word & EACH_BYTE(GRANULE_FADED);
	uint64_t live = ((word & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f)) & ~word & EACH_BYTE(GRANULE_FREED);

	counts->blocks += (heads >> 6) * EACH_BYTE(1) >> 56;
	counts->any_live |= live != 0;
}

/* At least SMALL_MAP_LEAST bytes; the last word holds what is left over, without what has been counted. */
static inline struct granule_counts count_words(const unsigned char *from, const unsigned char *end)
{
	struct granule_counts counts = {0};

	for (; end - from >= 8; from += 8)
		count_word(&counts, load_word(from));
	if (from < end)
		count_word(&counts, load_word(end - 8) >> 8 * (8 - (end - from)));
	return counts;
}

static inline void erase_words(unsigned char *from, const unsigned char *end)
{
	const uint64_t zero = 0;

	memcpy((unsigned char *)end - 8, &zero, sizeof(zero));
	for (; end - from >= 8; from += 8)
		memcpy(from, &zero, sizeof(zero));
}

/* Ends the region of a scope whose blocks are few, and all of them freed. */
static GATE void close_small(struct scope *scope, bool *is_closed)
{
	struct thread *thread = scope->thread;
	struct heap *heap = thread->heap;

	*is_closed = false;
	if (scope_top(heap) != scope || scope->must_close || !scope->region.buffers)
		return;
	size_t map_bytes = (size_t)(range_map_of(heap->cursor) - range_map_of(scope->region.extent));
	if (map_bytes <= SMALL_MAP_BYTES && map_bytes >= SMALL_MAP_LEAST)
		*is_closed = region_close_by(thread, &scope->region, count_words, erase_words, false);
}

static COLD_GATE void exit_slow(struct slot_departure *departure)
{
	slot_with_vectors_saved(slot_exit_slow, departure);
}

void slot_gate_exit(void)
{
	struct slot_departure *departure = ON_STACK(struct slot_departure);
	struct slot *slot = &slot_records[departure->number];
	struct scope *scope = slot->scope;

	if (__builtin_expect(!scope || scope->serial != (uintptr_t)slot, 0)) {
		exit_slow(departure);
		return;
	}
	struct thread *thread = scope->thread;
	if (__builtin_expect(thread->open_slot != slot || thread->is_in_gate, 0)) {
		exit_slow(departure);
		return;
	}
	thread->is_in_gate = true;
	signal_fence();
	if (__builtin_expect(thread->heap->popped_blocks != 0, 0))
		harvest(scope_top(thread->heap));
	if (__builtin_expect(!scope_is_empty_top(scope), 0)) {
		bool is_closed;

		close_small(scope, &is_closed);
		if (!is_closed) {
			exit_slow(departure);
			return;
		}
	}
	begin_move(thread, scope);
	scope->serial = 0;
	scope_pop(thread->heap, scope);
	end_move(thread);
	scope_trace_exit(scope);
	thread->open_slot = slot->next;
	if (__builtin_expect(slot->next == &slots.none, 1)) {
		slot->lone_number = slot_lone_number(thread, slot);
		thread->ready_slot = slot;
	} else {
		slot->next = thread->free_slots;
		thread->free_slots = slot;
	}
	signal_fence();
	thread->is_in_gate = false;
}
