/*
 * advise_stack.c: which calls are on the stack when an allocation is sampled, and when they end. See
 * advise.h.
 *
 * Unwinding goes from malloc's caller outwards, to a frame whose return is hooked already: it and all that
 * are further out are known. What has been found on the way becomes frames, outermost first. Frames that
 * could not be hooked are taken for the same as before if they are where they were, and return to where
 * they did.
 *
 * Where code is met that there is no unwinding through (a compiler at run time has made it, mostly), the
 * frames found so far hang on the innermost known one that is further out. The frame which returns into
 * such code is never hooked: garbage collectors look for what they know at its return address.
 *
 * Recursion makes no frames: one that returns to where one of the last few further out does is left out.
 * What is asked is whether a block outlives the outermost call of a function, because that would be the
 * scope; and a deep recursion would take all slots.
 */
#include <link.h>
#include <unwind.h>

#include "advise.h"
#include "slot.h"

/* Recursions through so many functions are seen as such. */
#define CYCLE_MAX 4

/* Frames made ready at a time. */
#define FRAMES_AT_ONCE 64

/* What unwinding may take of the stack. */
#define ROOM_BYTES ((uintptr_t)16 << 10)

struct walk {
	struct advise_found *found;
	unsigned count;
	struct advise_frame *known;  /* the innermost that is further out than what was found; or NULL */
	struct advise_frame *joined; /* where what was found meets what is known */
	bool is_whole;               /* it has come to that, or to the outermost frame */
};

/* Frames in and out of use. */

static bool make_spares(void)
{
	struct advise_frame *frames = range_meta_alloc(FRAMES_AT_ONCE * sizeof(*frames));

	for (unsigned i = 0; frames && i < FRAMES_AT_ONCE; i++) {
		frames[i].next = advise.spare_frames;
		advise.spare_frames = &frames[i];
	}
	return frames;
}

static struct advise_frame *take_frame(const struct advise_found *found, struct advise_frame *outer)
{
	if (!advise.spare_frames && !make_spares())
		return NULL;
	struct advise_frame *frame = advise.spare_frames;
	advise.spare_frames = frame->next;
	*frame = (struct advise_frame){
		.outer = outer,
		.cfa = found->cfa,
		.return_address = found->return_address,
		.number = ++advise.frames,
		.references = 1,
	};
	if (outer)
		outer->references++;
	return frame;
}

void advise_drop_frame(struct advise_frame *frame)
{
	while (frame && --frame->references == 0) {
		struct advise_frame *outer = frame->outer;
		frame->next = advise.spare_frames;
		advise.spare_frames = frame;
		frame = outer;
	}
}

/* Ends. */

void advise_end_frames(struct thread *thread, uintptr_t sp)
{
	struct advise_thread *sampler = thread->sampler;
	struct heap *heap = thread->heap;

	while (sampler && sampler->top && sampler->top->cfa <= sp) {
		struct advise_frame *frame = sampler->top;
		frame->blocks = heap->sample_blocks;
		frame->bytes = advise_bytes(heap);
		sampler->top = frame->outer;
		frame->next = sampler->ended;
		sampler->ended = frame;
		__atomic_store_n(&frame->has_ended, true, __ATOMIC_RELEASE);
	}
}

void advise_write_ends(struct advise_thread *sampler)
{
	while (sampler->ended) {
		struct advise_frame *frame = sampler->ended;
		struct advise_frame_end *record = advise_record(ADVISE_FRAME_END, sizeof(*record));
		if (record) {
			record->number = frame->number;
			record->blocks = frame->blocks;
			record->bytes = frame->bytes;
			advise_record_done();
		}
		sampler->ended = frame->next;
		advise_drop_frame(frame);
	}
}

/* Unwinding. */

/* The innermost known frame that isn't further in than `cfa`; and those to come are further out. */
static struct advise_frame *known_from(struct walk *walk, uintptr_t cfa)
{
	while (walk->known && walk->known->cfa < cfa)
		walk->known = walk->known->outer;
	return walk->known;
}

/* Is the frame that was found last one that is known, though it isn't hooked? */
static struct advise_frame *known_unhooked(struct walk *walk, const struct advise_found *last)
{
	struct advise_frame *known = known_from(walk, last->cfa);
	bool is_same = known && !known->is_hooked && known->cfa == last->cfa &&
	               known->return_address == last->return_address;

	return is_same ? known : NULL;
}

/*
 * What there is to know of the frame that was found last, now that the one around it is there. True:
 * enough.
 */
static bool complete(struct walk *walk, uintptr_t cfa, uintptr_t return_address)
{
	struct advise_found *last = &walk->found[walk->count - 1];
	const struct slot *slot = slot_of_code(return_address);

	last->cfa = cfa;
	last->return_address = return_address;
	walk->joined = slot && slot_is_watch(slot) ? slot->watched : known_unhooked(walk, last);
	if (!walk->joined)
		return false;
	walk->count--;
	walk->is_whole = true;
	return true;
}

static bool is_own(uintptr_t pc)
{
	return pc - slots.own_text_lo < slots.own_text_bytes;
}

/* The unwinder calls it once more, with 0, behind a frame that says it is the outermost. */
static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *argument)
{
	struct walk *walk = argument;
	int is_exact = 0;
	uintptr_t pc = _Unwind_GetIPInfo(context, &is_exact);

	/* What has led here from malloc's caller is libregion's. */
	if (walk->count == 0 && is_own(pc))
		return _URC_NO_REASON;
	if (walk->count > 0 && complete(walk, pc ? _Unwind_GetCFA(context) : UINTPTR_MAX, pc))
		return _URC_NORMAL_STOP;
	walk->is_whole = pc == 0;
	/*
	 * A signal has come in between, and what is further out is in the middle of anything; or an unwinder
	 * has.
	 */
	if (pc == 0 || is_exact || walk->count == ADVISE_DEPTH || slot_of_code(pc))
		return _URC_NORMAL_STOP;
	walk->found[walk->count++] = (struct advise_found){.pc = pc, .cfa = UINTPTR_MAX, .may_hook = true};
	return _URC_NO_REASON;
}

/* The last one is code that the unwinder doesn't understand. */
static void end_at_strange_code(struct walk *walk)
{
	if (--walk->count == 0)
		return;
	struct advise_found *last = &walk->found[walk->count - 1];
	last->may_hook = false;
	walk->joined = known_from(walk, last->cfa + 1);
	walk->is_whole = true;
}

static void unwind(struct walk *walk)
{
	if (_Unwind_Backtrace(visit, walk) == _URC_END_OF_STACK && !walk->is_whole && walk->count > 0)
		end_at_strange_code(walk);
}

/* Making frames of what was found. */

static bool is_recursion(const struct advise_frame *outer, uintptr_t return_address)
{
	for (unsigned i = 0; outer && i < CYCLE_MAX; i++, outer = outer->outer)
		if (outer->return_address == return_address)
			return true;
	return false;
}

static void write_frame(const struct advise_frame *frame, uintptr_t pc, int thread_id)
{
	advise_note_module(pc);
	struct advise_frame_record *record = advise_record(ADVISE_FRAME, sizeof(*record));
	if (!record)
		return;
	record->number = frame->number;
	record->outer = frame->outer ? frame->outer->number : 0;
	record->pc = pc;
	record->thread = (uint32_t)thread_id;
	record->flags = (frame->is_hooked ? 0 : ADVISE_UNHOOKED) | (frame->outer ? 0 : ADVISE_OUTERMOST);
	record->cfa = frame->cfa;
	advise_record_done();
}

static bool push_frame(struct thread *thread, const struct advise_found *found)
{
	struct advise_thread *sampler = thread->sampler;
	struct advise_frame *frame = take_frame(found, sampler->top);

	if (!frame)
		return false;
	sampler->top = frame;
	bool is_outermost = found->cfa == UINTPTR_MAX;
	frame->is_hooked = !is_outermost && found->may_hook && options.advise_hooks && slot_watch(thread, frame);
	if (!frame->is_hooked && !is_outermost)
		advise_header()->unhooked++;
	sampler->hooked += frame->is_hooked;
	write_frame(frame, found->pc, sampler->thread_id);
	return true;
}

/* A stack that a thread's frames nest on. */
static bool is_good_stack(struct thread *thread, uintptr_t sp)
{
	return scope_is_own_stack(thread, sp) && thread->stack_bytes != 0 && sp - thread->stack_lo > ROOM_BYTES;
}

struct advise_frame *advise_take_stack(struct thread *thread, uintptr_t *pc)
{
	struct advise_thread *sampler = thread->sampler;
	struct walk walk = {.found = sampler->found};
	uintptr_t sp = scope_here();

	if (!is_good_stack(thread, sp))
		return NULL;
	advise_end_frames(thread, sp);
	slot_sweep(thread, sp, false);
	walk.known = sampler->top;
	walk.found[0].pc = 0;
	unwind(&walk);
	*pc = walk.found[0].pc;
	if (!walk.is_whole)
		return NULL;
	/* Known frames that are further in than what was met are there no more. */
	while (sampler->top && sampler->top != walk.joined)
		advise_end_frames(thread, sampler->top->cfa);
	for (unsigned i = walk.count; i-- > 0;)
		if (!is_recursion(sampler->top, walk.found[i].return_address) &&
		    !push_frame(thread, &walk.found[i]))
			return NULL;
	return sampler->top;
}
