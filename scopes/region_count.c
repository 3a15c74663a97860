/*
 * region_count.c: counting what open scopes have done so far, where the process ends inside them. Nothing
 * is changed but the counters: other threads may run on, and so may functions that the process still has to
 * call.
 */
#include "scope.h"

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

void region_count_open(struct thread *thread)
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
