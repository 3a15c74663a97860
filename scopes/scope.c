/*
 * scope.c: entering and leaving scopes, by whichever way.
 *
 * A scope ends by its call's return, by region_leave(), by an unwinder that passes region_do's frame (the
 * personality routine below), by a longjmp (shim/ announces it), or, if all that was missed, when the
 * thread next enters a scope or needs a new hole and finds that the frame is gone. In each case all
 * scopes inside it end first.
 *
 * What must hold: thread->top is the innermost open scope; heap->cursor, limit and inline_granules are
 * those of its region; frames fall from base to top.
 */
#include <errno.h>

#include "scope.h"
#include "scopes.h"

static uintptr_t this_stack_pointer(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}

/* Threads. */

bool scope_is_own_stack(struct thread *thread, uintptr_t sp)
{
	if (__builtin_expect(thread->stack_bytes == 0, 0)) {
		uintptr_t lo = 0, hi = UINTPTR_MAX;

		/* Where /proc is missing every stack counts as the thread's own. */
		if (!os_stack_bounds(sp, &lo, &hi))
			lo = 0, hi = UINTPTR_MAX;
		thread->stack_lo = lo;
		thread->stack_bytes = hi - lo;
	}
	return sp - thread->stack_lo < thread->stack_bytes;
}

/* The calling thread's record, made if need be; NULL where there can be none. */
static struct thread *this_thread(void)
{
	struct thread *thread = scope_thread(heap_self());

	return __builtin_expect(thread != NULL, 1) ? thread : scopes_first_use();
}

/* Opening. */

static struct scope *make_record(struct scope *outer)
{
	struct scope *scope = range_meta_alloc(sizeof(*scope));

	if (scope) {
		scope->thread = outer->thread;
		scope->outer = outer;
		outer->inner = scope;
	}
	return scope;
}

/* Saves the state of the current region, and makes the next record the top. NULL: out of memory. */
static inline struct scope *push(struct thread *thread, uintptr_t frame)
{
	struct scope *outer = thread->top;
	struct scope *scope = outer->inner;
	struct heap *heap = thread->heap;

	if (__builtin_expect(!scope, 0) && !(scope = make_record(outer)))
		return NULL;
	if (__builtin_expect(heap->popped_blocks != 0, 0))
		region_harvest(heap, &outer->region);
	outer->region.cursor = heap->cursor;
	outer->region.limit = heap->limit;
	scope->frame = frame;
	scope->serial = ++thread->last_serial;
	thread->top = scope;
	return scope;
}

static inline struct counters *counters_of(struct thread *thread, const char *name)
{
	struct counters *recent = thread->recent[(uintptr_t)name / 16 % 8];

	return recent && recent->name == name ? recent : stats_of(thread, name);
}

/* Makes a fresh scope's region the current one. */
static inline void start(struct thread *thread, struct scope *scope, const struct policy *policy)
{
	struct heap *heap = thread->heap;
	struct region *region = &scope->region;
	struct span *span = NULL;

	region->policy = policy;
	region->counters = counters_of(thread, policy->name);
	stats_add(&region->counters->stats.scopes_entered, 1);
	/* With a buffer at hand the first allocation is like any other. Survivors' holes come first. */
	if (!thread->partial && policy->limit_bytes == SIZE_MAX)
		span = buffer_take_spare(heap, policy->size_log2);
	if (span)
		stats_add(&region->counters->stats.buffers_reused, 1);
	heap->inline_granules = scope->inline_granules = 0;
	region_open(heap, region, span);
}

/* Closing. */

/* Last in first out. A call may allocate, add calls, and open scopes; those it leaves open end here. */
static __attribute__((noinline)) void run_exit_calls(struct thread *thread, struct scope *scope)
{
	while (scope->calls) {
		struct exit_call call = *scope->calls;

		heap_free(scope->calls, "region_on_exit");
		scope->calls = call.next;
		call.fn(call.arg);
		while (thread->top != scope)
			scope_end_top(thread);
	}
}

static inline bool is_untouched(const struct heap *heap, const struct scope *scope)
{
	const struct span *span = scope->region.buffers;

	return span && !span->next && heap->cursor == buffer_begin(span) && span->used_end == span->start;
}

/* Ends the top scope, and makes the one outside it current. */
static inline void pop(struct thread *thread)
{
	struct scope *scope = thread->top, *outer = scope->outer;
	struct heap *heap = thread->heap;

	if (__builtin_expect(scope->calls != NULL, 0))
		run_exit_calls(thread, scope);
	if (is_untouched(heap, scope)) {
		scope->region.buffers->region = NULL;
		if (__builtin_expect(heap->popped_blocks != 0, 0))
			region_harvest(heap, &scope->region);
		buffer_put(heap, scope->region.buffers);
	} else if (scope->inline_granules == 0) {
		region_close(thread, &scope->region);
	}
	scope->serial = 0;
	thread->top = outer;
	heap->cursor = outer->region.cursor;
	heap->limit = outer->region.limit;
	heap->inline_granules = outer->inline_granules;
}

__attribute__((cold, noinline)) void scope_end_top(struct thread *thread)
{
	struct scope *scope = thread->top;

	if (scope->inline_granules == 0)
		stats_add(&scope->region.counters->stats.scopes_abandoned, 1);
	pop(thread);
}

void scope_close_abandoned(struct thread *thread, uintptr_t sp)
{
	if (!scope_is_own_stack(thread, sp))
		return;
	while (thread->top->frame <= sp)
		scope_end_top(thread);
}

/* Ends an open scope, and everything inside it that hasn't been left. */
static inline void leave(struct thread *thread, struct scope *scope)
{
	while (__builtin_expect(thread->top != scope, 0))
		scope_end_top(thread);
	pop(thread);
}

/*
 * Opens a scope whose frame is `frame`, called with stack pointer `sp`. NULL: this is not a place for a
 * scope (no heap, another stack, out of memory), and the call goes on without one.
 */
static inline struct scope *enter(uintptr_t sp, uintptr_t frame, const struct policy *policy)
{
	struct thread *thread = this_thread();

	if (__builtin_expect(!thread || sp - thread->stack_lo >= thread->stack_bytes, 0))
		if (!thread || !scope_is_own_stack(thread, sp))
			return NULL;
	if (__builtin_expect(thread->top->frame <= sp, 0))
		scope_close_abandoned(thread, sp);
	/* A scope can't outlive the one around it. */
	struct scope *scope = push(thread, frame < thread->top->frame ? frame : thread->top->frame);
	if (__builtin_expect(scope != NULL, 1) && policy)
		start(thread, scope, policy);
	return scope;
}

struct scope *scope_enter_with(uintptr_t sp, uintptr_t frame, const struct region_options *given)
{
	struct scope *scope = options.disable ? NULL : enter(sp, frame, NULL);

	if (scope) {
		policy_set(&scope->own_policy, given);
		start(scope->thread, scope, &scope->own_policy);
	}
	return scope;
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
	struct thread *thread = scope_thread(heap_self());

	(void)version, (void)class, (void)exception, (void)context;
	if ((actions & SEARCH_PHASE) || !thread)
		return CONTINUE_UNWIND;
	struct scope *scope = thread->top;
	while (scope != &thread->base && !scope->is_call)
		scope = scope->outer;
	if (scope != &thread->base) {
		while (thread->top != scope)
			scope_end_top(thread);
		scope_end_top(thread);
	}
	return CONTINUE_UNWIND;
}

/* Names the personality in the unwind information of the function that it stands in. */
#if defined(__x86_64__) || defined(__aarch64__)
#define UNWIND_THROUGH __asm__ volatile(".cfi_personality 0x1b, scope_personality")
#else
#define UNWIND_THROUGH ((void)0)
#endif

/* The interface. */

void region_do(void (*fn)(void *), void *arg)
{
	uintptr_t frame = this_stack_pointer();

	UNWIND_THROUGH;
	struct scope *scope = enter(frame, frame, &default_policy);
	if (__builtin_expect(scope != NULL, 1))
		scope->is_call = true;
	fn(arg);
	if (__builtin_expect(scope != NULL, 1))
		leave(scope->thread, scope);
}

void region_do_with(const struct region_options *given, void (*fn)(void *), void *arg)
{
	uintptr_t frame = this_stack_pointer();

	UNWIND_THROUGH;
	struct scope *scope = scope_enter_with(frame, frame, given);
	if (scope)
		scope->is_call = true;
	fn(arg);
	if (scope)
		leave(scope->thread, scope);
}

void region_ignore(void (*fn)(void *), void *arg)
{
	uintptr_t frame = this_stack_pointer();

	UNWIND_THROUGH;
	struct scope *scope = enter(frame, frame, NULL);
	if (scope) {
		struct heap *heap = scope->thread->heap;

		scope->is_call = true;
		heap->inline_granules = scope->inline_granules = HEAP_DIRECT_GRANULES;
		heap->cursor = heap->limit = NULL;
		scope->region.buffers = NULL;
		scope->region.counters = scope->thread->base.region.counters;
	}
	fn(arg);
	if (scope)
		leave(scope->thread, scope);
}

void region_enter_with(struct region_scope *handle, const struct region_options *given)
{
	uintptr_t sp = this_stack_pointer(), at = (uintptr_t)handle;
	struct thread *thread = this_thread();
	bool is_on_stack = thread && scope_is_own_stack(thread, at) && at >= sp;
	struct scope *scope = scope_enter_with(sp, is_on_stack ? at : UINTPTR_MAX, given);

	*handle = (struct region_scope){.record = scope, .serial = scope ? scope->serial : 0};
	if (scope)
		scope->is_call = false;
}

void region_enter(struct region_scope *handle)
{
	region_enter_with(handle, NULL);
}

void region_leave(struct region_scope *handle)
{
	struct scope *scope = handle->record;

	if (!scope)
		return;
	if (scope->thread != scope_thread(heap_self()))
		report("region_leave(%p): the scope belongs to another thread; ignored", (void *)handle);
	else if (scope->serial != handle->serial)
		report("region_leave(%p): the scope has ended already; ignored", (void *)handle);
	else
		leave(scope->thread, scope);
}

int region_on_exit(void (*fn)(void *), void *arg)
{
	struct thread *thread = scope_thread(heap_self());
	struct exit_call *call;

	if (!thread || thread->top->inline_granules != 0) {
		errno = EINVAL;
		return -1;
	}
	call = heap_alloc(sizeof(*call));
	if (!call) {
		errno = ENOMEM;
		return -1;
	}
	*call = (struct exit_call){.fn = fn, .arg = arg, .next = thread->top->calls};
	thread->top->calls = call;
	return 0;
}

unsigned region_depth(void)
{
	struct thread *thread = scope_thread(heap_self());
	unsigned depth = 0;

	for (struct scope *scope = thread ? thread->top : NULL; scope && scope->inline_granules == 0; scope = scope->outer)
		depth++;
	return depth;
}

