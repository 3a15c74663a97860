/*
 * slot_watch.c: seeing frames return that are on the stack already: those of sampled allocations
 * (advise.h).
 *
 * The word with the frame's return address is overwritten with that of a slot, behind its call: where the
 * function of a call that is a scope returns to as well. From there on all is as for such a call: the
 * return comes by slot_exit, every register is kept, and unwinders find the true return address in the
 * slot's record. The processor's prediction of returns is out of step for the frames that are further out,
 * which costs some misses; a shadow stack would not agree, so where there is one nothing is watched.
 *
 * A thread's watched slots are a list, innermost first, of its own; those that aren't in use, another. A
 * frame that an unwinder or a longjmp has passed leaves a slot that nobody returns by. One that merely
 * lies below the stack pointer may come back where a program copies pieces of its stack to and fro, as
 * some coroutines do: its slot is stale, and isn't used again before the thread has ended.
 */
#include "slot.h"

#include "advise.h"

#define WORD_BYTES sizeof(uintptr_t)

/* The shadow stack's pointer: the instruction does nothing where there is none. */
static bool has_shadow_stack(void)
{
	uint64_t pointer = 0;

	__asm__("rdsspq %0" : "+r"(pointer));
	return pointer != 0;
}

static uintptr_t *return_word(uintptr_t cfa)
{
	return (uintptr_t *)(cfa - WORD_BYTES);
}

static uintptr_t return_into(const struct slot *slot)
{
	return (uintptr_t)slot->code + SLOT_RETURN;
}

static struct slot *take(struct thread *thread)
{
	struct slot *slot = thread->watch_free;

	/* Stale ones come last. */
	if (!slot || slot->lone_number == SLOT_STALE)
		return slot_take();
	thread->watch_free = slot->next;
	return slot;
}

bool slot_watch(struct thread *thread, struct advise_frame *frame)
{
	struct slot *slot;

	if (*return_word(frame->cfa) != frame->return_address || has_shadow_stack() || !(slot = take(thread)))
		return false;
	*slot = (struct slot){
		.watched = frame,
		.return_address = frame->return_address,
		.cfa = frame->cfa,
		.next = thread->watch_slots,
		.code = slot->code,
		.lone_number = SLOT_WATCH,
	};
	thread->watch_slots = slot;
	*return_word(frame->cfa) = return_into(slot);
	return true;
}

struct slot *slot_of_code(uintptr_t pc)
{
	size_t offset = pc - (uintptr_t)slot_code;

	return offset < (size_t)(slot_code_end - slot_code) ? &slot_records[offset / SLOT_CODE_BYTES] : NULL;
}

/* Among those not in use, stale ones are at the end. */
static void put(struct thread *thread, struct slot *slot, bool is_stale)
{
	struct slot **at = &thread->watch_free;

	while (is_stale && *at)
		at = &(*at)->next;
	slot->watched = NULL;
	slot->lone_number = is_stale ? SLOT_STALE : SLOT_WATCH;
	slot->next = *at;
	*at = slot;
}

void slot_sweep(struct thread *thread, uintptr_t sp, bool is_certain)
{
	while (thread->watch_slots && thread->watch_slots->cfa <= sp) {
		struct slot *slot = thread->watch_slots;
		thread->watch_slots = slot->next;
		put(thread, slot, !is_certain && slot->watched);
	}
}

void slot_unwatch(struct thread *thread, uintptr_t sp)
{
	slot_sweep(thread, sp, true);
	while (thread->watch_slots) {
		struct slot *slot = thread->watch_slots;
		if (*return_word(slot->cfa) == return_into(slot))
			*return_word(slot->cfa) = slot->return_address;
		thread->watch_slots = slot->next;
		put(thread, slot, false);
	}
}

void slot_watched_returns(struct thread *thread, struct slot *slot)
{
	/* A frame that was thought abandoned has no more to say. */
	if (!slot->watched)
		return;
	thread->sampler->is_ending = true;
	advise_end_frames(thread, slot->cfa);
	slot->watched = NULL;
	slot_sweep(thread, slot->cfa, false);
	thread->sampler->is_ending = false;
}

bool slot_watched_is_passed(struct thread *thread, uintptr_t sp, uintptr_t before)
{
	struct slot *slot = thread->watch_slots;

	while (slot && (slot->cfa <= sp || !slot->watched))
		slot = slot->next;
	if (!slot || slot->cfa >= before)
		return false;
	/* The slot stays: the unwinder has yet to read its return address. */
	thread->sampler->is_ending = true;
	advise_end_frames(thread, slot->cfa);
	slot->watched = NULL;
	thread->sampler->is_ending = false;
	return true;
}
