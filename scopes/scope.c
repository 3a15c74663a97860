/*
 * scope.c: entering and leaving scopes, by whichever way.
 *
 * A scope ends by its call's return, by region_leave(), by an unwinder that passes region_do's frame (the
 * personality routine below), by a longjmp (shim/ announces it), or, if all that was missed, when the
 * thread next enters a scope or needs a new hole and finds that the frame is gone. In each case all
 * scopes inside it end first.
 *
 * What must hold: heap->upper_top is the innermost open scope; heap->cursor, limit and what it serves
 * inline are those of its region; frames fall from base to top.
 */
#include <errno.h>

#include "check.h"
#include "learn.h"
#include "scope.h"
#include "scope_fast.h"
#include "scopes.h"
#include "stack.h"

/* Threads. */

/* Where the stack is isn't known without /proc: then every place counts as its own, and no frame as left. */
static __attribute__((cold, noinline)) void ask_stack(struct thread *thread)
{
	uintptr_t lo, hi;

	thread->has_asked_stack = true;
	if (!os_stack_bounds(&lo, &hi))
		return;
	thread->stack_lo = lo;
	thread->stack_bytes = hi - lo;
}

bool scope_is_own_stack(struct thread *thread, uintptr_t sp)
{
	if (__builtin_expect(!thread->has_asked_stack, 0))
		ask_stack(thread);
	return thread->stack_bytes == 0 || sp - thread->stack_lo < thread->stack_bytes;
}

/* Opening. */

struct scope scope_no_record;

static struct scope *make_record(struct scope *outer)
{
	struct scope *scope = range_meta_alloc(sizeof(*scope));

	if (!scope)
		return NULL;
	scope->thread = outer->thread;
	scope->outer = outer;
	scope->inner = &scope_no_record;
	outer->inner = scope;
	return scope;
}

/* Makes a record fit the options. */
static void prepare(struct scope *scope, const struct region_options *given)
{
	const struct policy *policy = &policies.by_default;

	region_unprepare(scope->thread, &scope->region);
	scope->ready_for = NULL;
	if (given) {
		scope->given = *given;
		policy_set(&scope->own_policy, given);
		policy = &scope->own_policy;
	}
	region_prepare(scope->thread, &scope->region, policy);
	scope->ready = policy;
}

/* The record behind the thread's top one, fit for the options; NULL: this is not a place for a scope. */
static struct scope *next_record(uintptr_t sp, const struct region_options *given)
{
	struct scope *outer = scope_top(heap_self());

	if (!outer)
		outer = scopes_first_use();
	if (!outer)
		return NULL;
	if (check_is_on())
		stack_load(outer->thread);
	scope_close_abandoned(outer->thread, sp, false);
	outer = scope_top(outer->thread->heap);
	struct scope *scope = outer->inner != &scope_no_record ? outer->inner : make_record(outer);
	if (scope && !scope_is_ready(scope, given))
		prepare(scope, given);
	return scope;
}

/* Where nothing is ready yet, or frames have been abandoned. */
static __attribute__((cold, noinline)) struct scope *
enter_slow(uintptr_t sp, uintptr_t frame, const struct region_options *given, const void *called)
{
	struct learn_scope *known = learning.is_active ? learn_find(learn_key(given, called)) : NULL;

	if (known && learn_is_off(known, scope_thread(heap_self())))
		return NULL;
	struct scope *scope = next_record(sp, given);

	if (!scope || !scope_is_own_stack(scope->thread, sp))
		return NULL;
	if (scope->thread->stack_bytes == 0)
		frame = UINTPTR_MAX;
	region_harvest(scope->thread->heap, &scope->outer->region);
	scope_push(scope->thread->heap, scope->outer, scope, scope_frame_in(scope->outer, frame));
	scope_count_entry(scope);
	if (check_is_on())
		check_opened(scope);
	if (known)
		learn_opened(scope, known);
	return scope;
}

/*
 * Opens a scope whose frame is `frame`, called with stack pointer `sp`. NULL: this is not a place for a
 * scope (no heap, another stack, out of memory, switched off), and the call goes on without one. `called`:
 * the function that is called in it, or NULL.
 */
static inline __attribute__((always_inline)) struct scope *
enter(uintptr_t sp, uintptr_t frame, const struct region_options *given, const void *called)
{
	struct scope *scope = scope_enter_fast(heap_self(), sp, frame, given);

	return __builtin_expect(scope != NULL, 1) ? scope : enter_slow(sp, frame, given, called);
}

struct scope *scope_enter_with(uintptr_t sp, uintptr_t frame, const struct region_options *given)
{
	return enter(sp, frame, given, NULL);
}

/* Closing. */

/* Last in first out. A call may allocate, add calls, and open scopes; those it leaves open end here. */
static void run_exit_calls(struct thread *thread, struct scope *scope)
{
	while (scope->calls) {
		struct exit_call call = *scope->calls;

		heap_free(scope->calls, "region_on_exit");
		scope->calls = call.next;
		call.fn(call.arg);
		while (scope_top(thread->heap) != scope)
			scope_end_top(thread, true);
	}
}

/* Ends the top scope, whatever has happened in it. */
static __attribute__((noinline)) void close_top(struct thread *thread, bool is_certain)
{
	struct scope *scope = scope_top(thread->heap);
	bool is_open = scope_is_open(scope);

	scope->serial = 0;
	thread->left_frame = scope->frame;
	thread->left_call = scope->called != NULL;
	/* From here on it isn't abandoned any more: what the calls allocate must not end it again. */
	scope->frame = UINTPTR_MAX;
	run_exit_calls(thread, scope);
	if (scope->is_lasting) {
		within_suspend(thread, scope);
	} else if (is_open) {
		learn_closing(thread, scope);
		region_close(thread, &scope->region, is_certain);
		region_prepare(thread, &scope->region, scope->region.policy);
	} else if (scope->region.buffers && !scope->region.buffers->had_keeps) {
		scope->region.limit = span_end(scope->region.buffers);
	} else {
		/* How long the hole was that lay ready for a scope isn't known any more. */
		region_unprepare(thread, &scope->region);
		scope->ready = NULL;
	}
	scope->inline_granules = 0;
	scope->must_close = scope->had_calls = false;
	scope_pop(thread->heap, scope);
	if (is_open)
		scope_trace_exit(scope);
	if (is_open && learning.is_on)
		learn_closed(thread, scope);
	if (check_is_on())
		check_closed(thread, scope);
}

__attribute__((cold, noinline)) void scope_end_top(struct thread *thread, bool is_certain)
{
	struct scope *scope = scope_top(thread->heap);

	if (scope_is_open(scope))
		stats_add(&scope->region.counters->stats.scopes_abandoned, 1);
	close_top(thread, is_certain);
}

void scope_close_abandoned(struct thread *thread, uintptr_t sp, bool is_certain)
{
	if (!scope_is_own_stack(thread, sp))
		return;
	while (scope_top(thread->heap)->frame <= sp)
		scope_end_top(thread, is_certain);
}

void scope_leave_lasting(struct scope *scope)
{
	struct thread *thread = scope->thread;

	/* What is inside it hasn't been left. */
	while (scope_top(thread->heap) != scope)
		scope_end_top(thread, true);
	close_top(thread, true);
}

/* Is a search due? */
static __attribute__((noinline)) bool leave_slow(struct scope *scope)
{
	struct thread *thread = scope->thread;

	stats_tick();
	/* What is inside it hasn't been left. */
	while (scope_top(thread->heap) != scope)
		scope_end_top(thread, true);
	bool is_simple = !scope->must_close && scope->region.buffers;
	if (is_simple && region_close_quick(thread, &scope->region)) {
		scope->serial = 0;
		scope_pop(thread->heap, scope);
		scope_trace_exit(scope);
		return false;
	}
	close_top(thread, true);
	return reach_is_due();
}

/* Ends an open scope, and everything inside it. */
static inline __attribute__((always_inline)) void leave(struct scope *scope)
{
	struct heap *heap = scope->thread->heap;

	region_harvest(heap, &scope_top(heap)->region);
	if (__builtin_expect(scope_leave_fast(scope), 1))
		return;
	if (leave_slow(scope))
		reach_search(scope->thread, scope->region.counters);
}

void scope_leave(struct scope *scope)
{
	leave(scope);
}

/* Unwinding. */

/*
 * The personality of region_do and its like: an unwinder (exceptions, pthread_exit, cancellation) calls
 * it for each frame of theirs, innermost first, in its search phase and in its cleanup phase. There is
 * nothing to land on: the scope is closed, and unwinding goes on. It doesn't touch the unwinder's
 * context, whose layout belongs to whichever unwinder calls.
 */
int scope_personality(int version, int actions, uint64_t class, void *exception, void *context)
	__attribute__((visibility("hidden"), used));

int scope_personality(int version, int actions, uint64_t class, void *exception, void *context)
{
	enum { SEARCH_PHASE = 1, CONTINUE_UNWIND = 8 };
	struct scope *scope = scope_top(heap_self());

	(void)version, (void)class, (void)exception, (void)context;
	if ((actions & SEARCH_PHASE) || !scope)
		return CONTINUE_UNWIND;
	struct thread *thread = scope->thread;
	/* On another stack no call of ours has opened a scope. */
	if (!scope_is_own_stack(thread, scope_here()))
		return CONTINUE_UNWIND;
	while (scope != &thread->base && !scope->called)
		scope = scope->outer;
	if (scope == &thread->base)
		return CONTINUE_UNWIND;
	while (scope_top(thread->heap) != scope)
		scope_end_top(thread, true);
	scope_end_top(thread, true);
	if (reach_is_due())
		reach_search(thread, scope->region.counters);
	return CONTINUE_UNWIND;
}

/* The interface. */

static inline __attribute__((always_inline)) void
call_in_scope(struct scope *scope, void (*fn)(void *), void *arg)
{
	if (__builtin_expect(scope == NULL, 0)) {
		fn(arg);
		return;
	}
	scope->called = (const void *)(uintptr_t)fn;
	fn(arg);
	leave(scope);
}

void region_do(void (*fn)(void *), void *arg)
{
	uintptr_t frame = scope_here();

	SCOPE_UNWIND_THROUGH;
	call_in_scope(enter(frame, frame, NULL, (const void *)(uintptr_t)fn), fn, arg);
}

void region_do_with(const struct region_options *given, void (*fn)(void *), void *arg)
{
	uintptr_t frame = scope_here();

	SCOPE_UNWIND_THROUGH;
	call_in_scope(enter(frame, frame, given, (const void *)(uintptr_t)fn), fn, arg);
}

void region_ignore(void (*fn)(void *), void *arg)
{
	uintptr_t frame = scope_here();

	SCOPE_UNWIND_THROUGH;
	struct scope *scope = next_record(frame, NULL);
	if (scope) {
		struct heap *heap = scope->thread->heap;

		/* On another stack there is no telling when its frame is gone: it ends with the scope around it. */
		bool is_own = scope_is_own_stack(scope->thread, frame);
		region_harvest(heap, &scope->outer->region);
		scope_push(heap, scope->outer, scope, scope_frame_in(scope->outer, is_own ? frame : UINTPTR_MAX));
		scope->inline_granules = scope->thread->base.inline_granules;
		heap_set_inline(heap, scope->inline_granules);
		heap->cursor = heap->limit = NULL;
		scope->must_close = true;
		if (check_is_on())
			check_opened(scope);
	}
	call_in_scope(scope, fn, arg);
}

void region_enter_with(struct region_scope *handle, const struct region_options *given)
{
	uintptr_t sp = scope_here(), at = (uintptr_t)handle;
	struct scope *outer = scope_top(heap_self());

	if (!outer)
		outer = scopes_first_use();
	/* Asked with sp first: whose answer is kept is the stack's. */
	bool is_on_stack = outer && at >= sp && scope_is_own_stack(outer->thread, sp) &&
	                   scope_is_own_stack(outer->thread, at);
	struct scope *scope = enter(sp, is_on_stack ? at : UINTPTR_MAX, given, NULL);

	*handle = (struct region_scope){.record = scope};
	if (scope) {
		scope->called = NULL;
		handle->serial = scope->serial = ++scope->thread->last_serial;
	}
}

void region_enter(struct region_scope *handle)
{
	region_enter_with(handle, NULL);
}

void region_leave(struct region_scope *handle)
{
	struct scope *scope = handle->record, *top = scope_top(heap_self());

	if (!scope)
		return;
	if (!top || scope->thread != top->thread) {
		report("region_leave(%p): the scope belongs to another thread; ignored", (void *)handle);
	} else if (scope->serial != handle->serial) {
		report("region_leave(%p): the scope has ended already; ignored", (void *)handle);
	} else {
		scope->serial = 0;
		leave(scope);
	}
}

int region_on_exit(void (*fn)(void *), void *arg)
{
	struct scope *scope = scope_top(heap_self());
	struct exit_call *call;

	if (!scope || !scope_is_open(scope)) {
		errno = EINVAL;
		return -1;
	}
	call = heap_alloc(sizeof(*call));
	if (!call) {
		errno = ENOMEM;
		return -1;
	}
	*call = (struct exit_call){.fn = fn, .arg = arg, .next = scope->calls};
	scope->calls = call;
	scope->must_close = scope->had_calls = true;
	return 0;
}

unsigned region_depth(void)
{
	unsigned depth = 0;

	for (struct scope *scope = scope_top(heap_self()); scope && scope_is_open(scope); scope = scope->outer)
		depth++;
	return depth;
}
