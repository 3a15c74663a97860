/*
 * life.c: start and end of the process and of threads, as scopes see them.
 */
#include "advise.h"
#include "check.h"
#include "counted.h"
#include "finding.h"
#include "guard.h"
#include "learn.h"
#include "object.h"
#include "pool.h"
#include "scopes.h"
#include "site.h"
#include "stack.h"

enum start_state { NOT_STARTED, STARTING, STARTED };

static struct life {
	int state;              /* enum start_state */
	heap_hook *birth_hook;  /* of the layer above */
} life;

struct scope *scopes_first_use(void)
{
	return scopes_start() && heap_make() ? scope_top(heap_self()) : NULL;
}

static void scopes_thread_begin(struct heap *heap);

static void under_pressure(void)
{
	pools_trim();
	check_gives_way();
}

static bool start(void)
{
	options_read();
	check_prepare();
	if (!range_init(options.heap_range_bytes))
		return false;
	report_set_fatal(options.on_error == 0);
	/* Who wants the program to run on wants so where it writes to a block of no bytes. */
	null_set_on(options.on_error == 0);
	harden_start((unsigned)options.harden);
	span_pool_set_decay_ms((uint32_t)options.decay_ms);
	buffer_set_cache_bytes(options.cache_bytes);
	track_set_mode((enum track_mode)options.track_writes);
	policy_start();
	stats_start();
	heap_set_birth_hook(scopes_thread_begin);
	heap_set_pressure_hook(under_pressure);
	check_start();
	learn_start();
	return true;
}

static __attribute__((cold, noinline)) bool start_slow(void)
{
	int expected = NOT_STARTED;

	/* There is one thread this early; if it comes by again from inside, there is nothing to be had. */
	if (!__atomic_compare_exchange_n(&life.state, &expected, STARTING, false, __ATOMIC_ACQUIRE,
	                                 __ATOMIC_ACQUIRE))
		return expected == STARTED;
	bool is_started = start();
	__atomic_store_n(&life.state, is_started ? STARTED : NOT_STARTED, __ATOMIC_RELEASE);
	return is_started;
}

bool scopes_start(void)
{
	return __atomic_load_n(&life.state, __ATOMIC_ACQUIRE) == STARTED || start_slow();
}

void scopes_start_signal(void)
{
	stats_start_signal();
}

void scopes_set_birth_hook(heap_hook *hook)
{
	life.birth_hook = hook;
}

static struct thread *make_thread(struct heap *heap)
{
	struct thread *thread = range_meta_alloc(sizeof(*thread));

	if (!thread)
		return NULL;
	thread->heap = heap;
	thread->base.thread = thread;
	thread->base.frame = UINTPTR_MAX;
	thread->base.region.policy = &policies.by_default;
	thread->base.region.counters = stats_of(thread, policies.by_default.name);
	thread->base.inner = &scope_no_record;
	return thread->base.region.counters ? thread : NULL;
}

static void begin_scopes(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (!thread)
		heap->upper = thread = make_thread(heap);
	if (!thread)
		return;
	heap->upper_top = &thread->base;
	thread->base.inline_granules = advise_inline_granules();
	heap_set_inline(heap, thread->base.inline_granules);
	thread->stack_bytes = 0;
	thread->has_asked_stack = false;
	slot_thread_begins(thread);
	check_thread_begins(thread);
	if (options.wrap_threads)
		scope_enter_with(scope_here(), UINTPTR_MAX,
		                 &(struct region_options){.name = "thread"});
}

/* A thread has got its heap. */
static void scopes_thread_begin(struct heap *heap)
{
	if (!options.disable)
		begin_scopes(heap);
	stats_thread_begins();
	if (life.birth_hook)
		life.birth_hook(heap);
}

/* Gives back what a thread keeps ready for scopes to come. */
static void trim_thread(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (!thread)
		return;
	for (struct scope *scope = scope_top(heap)->inner; scope != &scope_no_record; scope = scope->inner) {
		region_unprepare(thread, &scope->region);
		scope->ready = NULL;
		scope->ready_for = NULL;
	}
	if (thread->partial)
		region_settle_partial(thread);
	check_trim(thread);
	buffer_drop_spares(heap);
}

void scopes_thread_end(struct heap *heap)
{
	struct thread *thread = heap->upper;

	if (!thread)
		return;
	while (scope_top(heap) != &thread->base)
		scope_end_top(thread, true);
	advise_thread_ends(thread);
	slot_thread_ends(thread);
	check_thread_ends(thread);
	trim_thread(heap);
	if (reach_is_due())
		reach_search(thread, thread->base.region.counters);
	buffer_drop_spares(heap);
	stats_thread_ends(thread);
}

void scopes_trim(struct heap *heap)
{
	/* First: their buffers go to the thread's cache. */
	pools_trim();
	trim_thread(heap);
}

void scopes_shrink(void)
{
	size_t own = range_reserved_bytes();

	if (own == 0 || own <= os_reservable_bytes(own))
		return;
	/* A search that is under way keeps its tables. */
	if (lock_try(reach_lock())) {
		mark_forget();
		track_forget();
		lock_release(reach_lock());
	}
	range_shrink(os_reservable_bytes(own));
}

void scopes_finish(void)
{
	struct scope *top = scope_top(heap_self());

	if (top)
		region_count_open(top->thread);
	site_finish();
	advise_finish();
	stats_finish();
	check_finish();
}

/* The locks of checks, in their order. */
static struct lock *check_lock(unsigned i)
{
	struct lock *(*const locks[])(void) = {finding_lock, guard_lock, stack_lock, quarantine_lock};

	return i < sizeof(locks) / sizeof(locks[0]) ? locks[i]() : NULL;
}

bool scopes_before_fork(bool may_wait)
{
	lock_fork_begins(may_wait);
	lock_before_fork(advise_lock());
	lock_before_fork(reach_lock());
	lock_before_fork(learn_lock());
	for (unsigned i = 0; i < COUNTED_LOCKS; i++)
		lock_before_fork(counted_lock(i));
	lock_before_fork(pool_lock());
	lock_before_fork(object_lock());
	lock_before_fork(stats_lock());
	for (unsigned i = 0; check_lock(i); i++)
		lock_before_fork(check_lock(i));
	heap_before_fork();
	slot_before_fork();
	return lock_fork_has_all();
}

void scopes_after_fork_in_parent(void)
{
	slot_after_fork_in_parent();
	heap_after_fork_in_parent();
	for (unsigned i = 0; check_lock(i); i++)
		lock_after_fork_in_parent(check_lock(i));
	lock_after_fork_in_parent(stats_lock());
	lock_after_fork_in_parent(object_lock());
	lock_after_fork_in_parent(pool_lock());
	for (unsigned i = 0; i < COUNTED_LOCKS; i++)
		lock_after_fork_in_parent(counted_lock(i));
	lock_after_fork_in_parent(learn_lock());
	lock_after_fork_in_parent(reach_lock());
	lock_after_fork_in_parent(advise_lock());
	lock_fork_is_done();
}

void scopes_after_fork_in_child(void)
{
	advise_after_fork_in_child();
	slot_after_fork_in_child();
	heap_after_fork_in_child();
	for (unsigned i = 0; check_lock(i); i++)
		lock_after_fork_in_child(check_lock(i));
	check_after_fork_in_child();
	lock_after_fork_in_child(stats_lock());
	stats_after_fork_in_child();
	lock_after_fork_in_child(object_lock());
	lock_after_fork_in_child(pool_lock());
	for (unsigned i = 0; i < COUNTED_LOCKS; i++)
		lock_after_fork_in_child(counted_lock(i));
	lock_after_fork_in_child(learn_lock());
	learn_after_fork_in_child();
	lock_after_fork_in_child(reach_lock());
	lock_after_fork_in_child(advise_lock());
	lock_fork_is_done();
}
