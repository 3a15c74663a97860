/*
 * reach.c: the fade policy `reachable`: when what waits is searched for, and what comes of it.
 *
 * Buffers whose unfreed blocks wait pile up until they hold more than the bound: LIBREGION_WAIT_BYTES, or a
 * share (LIBREGION_WAIT_SHARE) of what the last search has looked at, whichever is more. So the cost of
 * a reclaimed byte is bounded, and so is the memory that waits. A search stops the world, searches for
 * pointers into what waits (core/waiting.h), lets the world go on, and reclaims what wasn't found.
 *
 * Where a search can't be made (a thread blocks the signal, /proc isn't there) all waits on, and it is tried
 * again when as much has come to wait once more. After TRIES in a row what waits fades, and for some time
 * `reachable` is `unfreed`, before the next try.
 *
 * One thread searches at a time; others go on leaving buffers. The lock comes before all others.
 */
#include <setjmp.h>

#include "learn.h"
#include "scopes.h"
#include "trace.h"

#define TRIES 3u
#define FIRST_REST_MS 1000u
#define LONGEST_REST_MS 60000u

static struct reach {
	struct lock lock;
	size_t bound_bytes;    /* 0: not set yet */
	uint64_t rest_until_ms;
	uint32_t rest_ms;      /* the last rest; 0: none since a search went well */
	uint32_t failures;     /* in a row */
	bool has_reported;
	enum track_state told; /* what LIBREGION_VERBOSE has said of write tracking */
} reach;

struct lock *reach_lock(void)
{
	return &reach.lock;
}

bool reach_is_on(void)
{
	uint64_t until_ms = __atomic_load_n(&reach.rest_until_ms, __ATOMIC_RELAXED);

	return until_ms == 0 || os_clock_ms() >= until_ms;
}

static void report_failure(const struct search *result)
{
	static const char *const reasons[] = {
		[WORLD_STOPPED] = "the process's memory can't be read",
		[WORLD_NO_LIST] = "its threads can't be listed (/proc/self/task)",
		[WORLD_NO_ROOM] = "it has too many threads",
		[WORLD_NO_MEMORY] = "out of memory",
		[WORLD_NO_SIGNAL] = "no handler can be set for the signal; see LIBREGION_STOP_SIGNAL",
		[WORLD_NO_QUEUE] = "the signal can't be sent; see RLIMIT_SIGPENDING",
		[WORLD_BLOCKED] = "a thread blocks the signal; see LIBREGION_STOP_SIGNAL",
		[WORLD_BUSY] = "a thread sleeps in the kernel",
		[WORLD_LATE] = "a thread didn't stop in time",
	};

	if (!__atomic_exchange_n(&reach.has_reported, true, __ATOMIC_RELAXED))
		report("fade policy \"reachable\": %s (thread %d); what isn't freed fades meanwhile",
		       reasons[result->stop], result->culprit);
}

/* Is it to be tried again soon? */
static bool note_failure(const struct search *result)
{
	if (++reach.failures < TRIES)
		return true;
	reach.rest_ms = reach.rest_ms == 0 ? FIRST_REST_MS : reach.rest_ms * 2;
	reach.rest_ms = reach.rest_ms < LONGEST_REST_MS ? reach.rest_ms : LONGEST_REST_MS;
	__atomic_store_n(&reach.rest_until_ms, os_clock_ms() + reach.rest_ms, __ATOMIC_RELAXED);
	report_failure(result);
	return false;
}

static void note_success(const struct search *result)
{
	size_t share = result->bytes / 100 * options.wait_share;

	reach.rest_ms = reach.failures = 0;
	__atomic_store_n(&reach.rest_until_ms, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&reach.bound_bytes, share > options.wait_bytes ? share : options.wait_bytes,
	                 __ATOMIC_RELAXED);
}

static void count_settled(struct counters *counters, const struct settled *settled)
{
	struct region_stats *stats = &counters->stats;
	size_t faded_bytes = settled->faded_granules << GRANULE_SHIFT;

	stats_add(&stats->blocks_reclaimed, settled->reclaimed_blocks);
	stats_add(&stats->bytes_reclaimed, settled->reclaimed_granules << GRANULE_SHIFT);
	stats_add(&stats->blocks_faded, settled->faded_blocks);
	stats_add(&stats->bytes_faded, faded_bytes);
	if (settled->faded_blocks > 0)
		TRACE_3(fade, counters->name, settled->faded_blocks, faded_bytes);
}

static void count_search(struct region_stats *stats, const struct search *result)
{
	stats_add(result->is_done ? &stats->searches : &stats->searches_failed, 1);
	stats_add(&stats->searched_bytes, result->bytes);
	stats_add(&stats->pause_ns, result->pause_ns);
	stats_max(&stats->longest_pause_ns, result->pause_ns);
}

/* For LIBREGION_VERBOSE: what searches read. */
static void tell_tracking(void)
{
	static const char *const states[] = {
		[TRACK_IS_OFF] = "all memory, each time",
		[TRACK_IS_ON] = "of the heap only pages that were written since the last one (PAGEMAP_SCAN)",
		[TRACK_IS_DENIED] = "all memory, each time: the kernel doesn't allow to track writes (userfaultfd)",
	};
	enum track_state state = track_state();

	if (!options.verbose || state == reach.told)
		return;
	reach.told = state;
	report("fade policy \"reachable\": searches read %s", states[state]);
}

/* The lock is held. */
static void search(struct thread *thread, struct counters *counters, uintptr_t sp)
{
	struct span *list = waiting_take();
	size_t reclaimed_granules = 0, faded_granules = 0;

	if (!list && !waiting_has_bigs())
		return;
	struct search result = waiting_search(list, sp, (int)options.stop_signal, 8u >> options.pointer_align);
	count_search(&counters->stats, &result);
	tell_tracking();
	if (result.is_done) {
		note_success(&result);
	} else if (note_failure(&result)) {
		waiting_put_back(list);
		return;
	}
	if (result.is_done)
		learn_searched();
	for (struct span *span = list, *next; span; span = next) {
		next = span->next;
		struct counters *of_name = stats_of(thread, span->wait_name);
		struct settled settled = waiting_settle(span, result.is_done);
		count_settled(of_name, &settled);
		reclaimed_granules += settled.reclaimed_granules;
		faded_granules += settled.faded_granules;
		if (settled.span == SETTLED_EMPTY)
			buffer_put(thread->heap, span);
	}
	stats_add(&counters->stats.big_reclaimed, waiting_settle_bigs(result.is_done));
	TRACE_4(sweep, result.bytes, result.pause_ns, reclaimed_granules << GRANULE_SHIFT,
	        faded_granules << GRANULE_SHIFT);
}

bool reach_is_due(void)
{
	size_t bound = __atomic_load_n(&reach.bound_bytes, __ATOMIC_RELAXED);

	return waiting_bytes() > (bound ? bound : options.wait_bytes);
}

void reach_search_at(struct thread *thread, struct counters *counters, uintptr_t sp)
	__attribute__((visibility("hidden"), used));

void reach_search_at(struct thread *thread, struct counters *counters, uintptr_t sp)
{
	/* Who comes second leaves it to the first. */
	if (!lock_try(&reach.lock))
		return;
	search(thread, counters, sp);
	lock_release(&reach.lock);
}

/*
 * The registers that the program wants kept are put on the stack, and where they lie is the border between
 * what is the program's and what is ours. In C there would be slots in frames that nobody has written to,
 * which hold what the scope has left there.
 */
#if defined(__x86_64__)
__asm__(".text\n\t.align 16\n\t.globl reach_search\n\t.hidden reach_search\n"
        "\t.type reach_search, @function\nreach_search:\n\t.cfi_startproc\n"
        "\tpushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n"
        "\tpushq $0\n\t.cfi_adjust_cfa_offset 56\n"
        "\tmovq %rsp, %rdx\n\tcall reach_search_at\n"
        "\taddq $56, %rsp\n\t.cfi_adjust_cfa_offset -56\n\tret\n"
        "\t.cfi_endproc\n\t.size reach_search, . - reach_search\n");
#else
__attribute__((noinline)) void reach_search(struct thread *thread, struct counters *counters)
{
	jmp_buf registers;

	__builtin_unwind_init();
	setjmp(registers);
	reach_search_at(thread, counters, (uintptr_t)&registers);
}
#endif

void scopes_search(struct heap *heap)
{
	struct thread *thread = heap->upper;

	/* What the first one finds may have been found by what is gone at the next. */
	for (int i = 0; thread && i < WAITING_SEARCHES; i++)
		reach_search(thread, thread->base.region.counters);
}
