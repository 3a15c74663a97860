/*
 * stack.h: stacks of calls, taken and kept, for checks. Private to scopes/.
 *
 * A stack is a few code addresses, innermost first, without libregion's own. Each different one is kept
 * once, in libregion's own memory, and known by a number, which is never given back. What is to be known of
 * a block that a scope has reclaimed (where it was allocated, which scope, where that has ended) is kept
 * in the same table: an *ending*. So four bytes for each granule (range_note_of) tell all about a block.
 *
 * libunwind takes the stacks. It is loaded by its soname when the first scope is entered, into no namespace
 * that the program sees: linked, its _Unwind_RaiseException would come before libgcc's. Without it frame
 * pointers are followed, as far as there are any.
 *
 * Any thread may call anything here; the lock comes before that of the reservation only.
 */
#ifndef LIBREGION_STACK_H
#define LIBREGION_STACK_H

#include "scope.h"

#define STACK_FRAMES 48

/* Once, at start. False: no memory. */
bool stack_start(void);

/* Loads libunwind, if that hasn't been tried. Called where the program's own code calls, never in malloc. */
void stack_load(struct thread *thread);

/* The number of the calling thread's stack; 0: not known. */
uint32_t stack_here(struct thread *thread);

/* The calling thread's stack, taken and not kept: how many frames. */
size_t stack_take(struct thread *thread, uintptr_t *frames, size_t capacity);

/* The frames of a stack; 0: not known. */
size_t stack_frames(uint32_t number, const uintptr_t **frames);

/* Endings. */
struct stack_ending {
	uint32_t allocated, ended; /* stacks */
	const char *scope;         /* its name */
};
uint32_t stack_note_ending(const struct stack_ending *ending);

/* False: the number is that of a stack, or of nothing. */
bool stack_is_ending(uint32_t number, struct stack_ending *ending);

/* The stack that the block of a note was allocated by. */
uint32_t stack_of_note(uint32_t note);

/*
 * The calling thread's frame that an address lies in: an address in its function's code, and where the
 * frame ends. False: not known; libunwind isn't there, or not the place of a frame.
 */
struct stack_frame {
	uintptr_t code, end;
};
bool stack_frame_of(struct thread *thread, uintptr_t address, struct stack_frame *frame);

struct lock *stack_lock(void);

#endif
