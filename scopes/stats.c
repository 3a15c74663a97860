/*
 * stats.c: counter sets and their sums. stats_write.c writes them, stats_dump.c knows when.
 */
#include "stats.h"

#include <errno.h>
#include <string.h>

#include "scope.h"
#include "scopes.h"

struct stats_roots stats_roots;

struct lock *stats_lock(void)
{
	return &stats_roots.lock;
}

/* The set of a name in a list, made if need be; NULL: out of memory. */
static struct counters *set_in(struct counters **list, const char *name)
{
	struct counters *set;

	for (set = *list; set; set = set->next)
		if (set->name == name || strcmp(set->name, name) == 0)
			return set;
	set = range_meta_alloc(sizeof(*set));
	if (!set)
		return NULL;
	set->name = name;
	set->next = *list;
	__atomic_store_n(list, set, __ATOMIC_RELEASE);
	return set;
}

__attribute__((cold)) struct counters *stats_of(struct thread *thread, const char *name)
{
	struct counters *set = set_in(&thread->all_counters, name);

	/* Without memory for a set of its own, what the scope does counts for the default one. */
	return set ? set : thread->base.region.counters;
}

/* Sums. */

static void add_set(struct region_stats *sum, const struct counters *set)
{
	uint64_t peak = sum->peak_bytes, pause_ns = sum->longest_pause_ns;

#define ADD(member, unit, help) sum->member += __atomic_load_n(&set->stats.member, __ATOMIC_RELAXED);
	REGION_STATS_MAP(ADD)
#undef ADD
	/* Those that aren't sums. */
	sum->peak_bytes -= peak;
	if (sum->peak_bytes < peak)
		sum->peak_bytes = peak;
	sum->longest_pause_ns -= pause_ns;
	if (sum->longest_pause_ns < pause_ns)
		sum->longest_pause_ns = pause_ns;
}

/* Adds the sets of a list, all of them or those of one name; how many there were. */
static size_t add_list(struct region_stats *sum, struct counters *const *list, const char *name)
{
	size_t count = 0;

	for (const struct counters *set = __atomic_load_n(list, __ATOMIC_ACQUIRE); set; set = set->next)
		if (!name || strcmp(set->name, name) == 0) {
			add_set(sum, set);
			count++;
		}
	return count;
}

static size_t add_thread(struct region_stats *sum, const struct thread *thread, const char *name)
{
	return thread ? add_list(sum, &thread->all_counters, name) : 0;
}

__attribute__((cold)) void stats_thread_begins(void)
{
	__atomic_store_n(&stats_roots.heaps, heap_all(), __ATOMIC_RELEASE);
}

/* Most threads have no scopes; of theirs there is nothing to look names up for. */
static bool is_unused(const struct counters *set)
{
	const char *bytes = (const char *)&set->stats;

	return bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof(set->stats) - 1) == 0;
}

__attribute__((cold)) void stats_thread_ends(struct thread *thread)
{
	lock_acquire(&stats_roots.lock);
	for (struct counters *set = thread->all_counters; set; set = set->next) {
		if (is_unused(set))
			continue;
		struct counters *total = set_in(&stats_roots.ended, set->name);
		if (!total)
			continue;
		add_set(&total->stats, set);
		set->stats = (struct region_stats){0};
	}
	lock_release(&stats_roots.lock);
}

static void add_now(struct region_stats *sum)
{
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap)
		sum->cached_bytes += __atomic_load_n(&heap->spare_bytes, __ATOMIC_RELAXED);
	struct granule_live waiting = waiting_now();
	sum->waiting_blocks = waiting.blocks;
	sum->waiting_bytes = waiting.granules << GRANULE_SHIFT;
	sum->mapped_bytes = span_pool_totals().used_bytes;
	sum->resident_bytes = os_resident_bytes();
}

static size_t add_all(struct region_stats *sum, const char *name)
{
	size_t count;

	lock_acquire(&stats_roots.lock);
	count = add_list(sum, &stats_roots.ended, name);
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap)
		count += add_thread(sum, heap->upper, name);
	lock_release(&stats_roots.lock);
	return count;
}

void region_stats_read(struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	add_all(stats, NULL);
	add_now(stats);
	stats->late_frees = buffer_late_frees();
	struct granule_live gone = waiting_gone();
	stats->blocks_faded += gone.blocks;
	stats->bytes_faded += gone.granules << GRANULE_SHIFT;
}

void region_stats_read_thread(struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	add_thread(stats, scope_thread(heap_self()), NULL);
	add_now(stats);
}

int region_stats_read_scope(const char *name, struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	if (add_all(stats, name) == 0 || stats->scopes_entered == 0) {
		errno = ENOENT;
		return -1;
	}
	return 0;
}

/* What is open when the process ends. */

static void count_open(struct region *region)
{
	struct region_stats *stats = &region->counters->stats;
	size_t live_bytes = 0;

	for (struct span *span = region->buffers; span; span = span->next) {
		size_t blocks = granule_count(range_map_of(span->fresh_lo), range_map_of(span->fresh_hi)).blocks;
		struct buffer_fresh fresh = buffer_count_fresh(span);
		stats_add(&stats->blocks_allocated, blocks);
		stats_add(&stats->blocks_freed, blocks > fresh.blocks ? blocks - fresh.blocks : 0);
		live_bytes += fresh.bytes;
	}
	stats_add(&stats->bytes_allocated, region->bumped_bytes);
	stats_add(&stats->bytes_freed, region->bumped_bytes - region->kept_bytes - live_bytes);
	stats_max(&stats->peak_bytes, region->held_bytes);
}

__attribute__((cold)) void region_count_open(struct thread *thread)
{
	struct heap *heap = thread->heap;
	struct scope *scope = scope_top(heap);

	region_harvest(heap, &scope->region);
	scope->region.cursor = heap->cursor;
	for (; scope != &thread->base; scope = scope->outer)
		if (scope_is_open(scope)) {
			region_leave_hole(&scope->region, scope->region.cursor);
			count_open(&scope->region);
		}
}

void stats_read_heap(const struct heap *heap, struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	add_thread(stats, heap->upper, NULL);
}

/* Lists only ever get longer, at their head. */
static struct counters *ended_sets(void)
{
	return __atomic_load_n(&stats_roots.ended, __ATOMIC_ACQUIRE);
}

static struct counters *sets_of(const struct thread *thread)
{
	return thread ? __atomic_load_n(&thread->all_counters, __ATOMIC_ACQUIRE) : NULL;
}

/* Has a list that is looked at before `stop` a set of that name? */
static bool is_seen_before(const struct thread *stop, const char *name)
{
	struct region_stats unused = {0};

	if (add_list(&unused, &stats_roots.ended, name) > 0)
		return true;
	for (struct heap *heap = heap_all(); heap && heap->upper != stop; heap = heap->next_heap)
		if (add_thread(&unused, heap->upper, name) > 0)
			return true;
	return false;
}

static void each_entered(const char *name, stats_visit *visit, void *arg)
{
	struct region_stats sum;

	if (region_stats_read_scope(name, &sum) == 0)
		visit(arg, name, &sum);
}

void stats_each_name(stats_visit *visit, void *arg)
{
	int saved_errno = errno;

	for (struct counters *set = ended_sets(); set; set = set->next)
		each_entered(set->name, visit, arg);
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap) {
		struct thread *thread = heap->upper;
		for (struct counters *set = sets_of(thread); set; set = set->next)
			if (!is_seen_before(thread, set->name))
				each_entered(set->name, visit, arg);
	}
	errno = saved_errno;
}

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

const char *region_version(void)
{
	return STRING(REGION_VERSION_MAJOR) "." STRING(REGION_VERSION_MINOR) "." STRING(REGION_VERSION_PATCH);
}
