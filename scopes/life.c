/*
 * life.c: start and end of the process and of threads, as scopes see them.
 */
#include "scope.h"
#include "scopes.h"

struct scope *scopes_first_use(void)
{
	/* Before the shim has started us there is nothing to make a heap from. */
	return range.base && heap_make() ? scope_top(heap_self()) : NULL;
}

bool scopes_start(void)
{
	options_read();
	if (!range_init(options.heap_range_bytes))
		return false;
	report_set_fatal(options.on_error == 0);
	span_pool_set_decay_ms((uint32_t)options.decay_ms);
	buffer_set_cache_bytes(options.cache_bytes);
	policy_start();
	return true;
}

static struct thread *make_thread(struct heap *heap)
{
	struct thread *thread = range_meta_alloc(sizeof(*thread));

	if (!thread)
		return NULL;
	thread->heap = heap;
	thread->base.thread = thread;
	thread->base.frame = UINTPTR_MAX;
	thread->base.inline_granules = HEAP_DIRECT_GRANULES;
	thread->base.region.policy = &default_policy;
	thread->base.region.counters = stats_of(thread, default_policy.name);
	thread->base.inner = &scope_no_record;
	return thread->base.region.counters ? thread : NULL;
}

void scopes_thread_begin(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (options.disable)
		return;
	if (!thread)
		heap->upper = thread = make_thread(heap);
	if (!thread)
		return;
	heap->upper_top = &thread->base;
	thread->stack_bytes = 0;
	if (options.wrap_threads)
		scope_enter_with((uintptr_t)__builtin_frame_address(0), UINTPTR_MAX,
		                 &(struct region_options){.name = "thread"});
}

void scopes_thread_end(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (!thread)
		return;
	while (scope_top(heap) != &thread->base)
		scope_end_top(thread);
	scopes_trim(heap);
}

void scopes_trim(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (!thread)
		return;
	for (struct scope *scope = scope_top(heap)->inner; scope != &scope_no_record; scope = scope->inner) {
		region_unprepare(thread, &scope->region);
		scope->ready = NULL;
	}
	if (thread->partial)
		region_settle_partial(thread);
	buffer_drop_spares(heap);
}

void scopes_finish(void)
{
	stats_write();
}
