/*
 * range.c: reserving the heap range and committing its lanes.
 *
 * The reservation is PROT_NONE, because vm.overcommit_memory=2 ignores MAP_NORESERVE, and each lane is
 * committed in steps that grow with it: adjacent steps merge into one mapping, so a large heap costs as
 * few mappings as a small one.
 */
#include "range.h"

#include <assert.h>

#include "os.h"
#include "span.h"

struct range range;

#define COMMIT_MAX_BYTES ((size_t)64 << 20)
/* Small, so that in a small program a wild write misses what is committed, and shows. */
#define HEAP_STEP_BYTES ((size_t)256 << 10)
#define META_ALIGN ((size_t)64)
#define RANGE_ALIGN ((size_t)2 << 20)

static size_t round_up(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

static size_t notes_bytes(size_t heap_bytes)
{
	return (heap_bytes >> GRANULE_SHIFT) * sizeof(*range.notes);
}

static void size_lanes(struct lane *lanes, size_t heap_bytes)
{
	size_t slices = heap_bytes >> SLICE_SHIFT;

	lanes[LANE_HEAP].reserved_bytes = heap_bytes;
	lanes[LANE_MAP].reserved_bytes = heap_bytes >> GRANULE_SHIFT;
	lanes[LANE_SLICES].reserved_bytes = round_up(slices * sizeof(uint32_t), OS_PAGE);
	lanes[LANE_SPANS].reserved_bytes = round_up((slices + 1) * sizeof(struct span), OS_PAGE);
	lanes[LANE_NOTES].reserved_bytes = range.wants_notes ? notes_bytes(heap_bytes) : 0;
	lanes[LANE_META].reserved_bytes = round_up((heap_bytes >> 7) + (1 << 20), OS_PAGE);
}

static size_t reserved_by(const struct lane *lanes)
{
	size_t total = 0;

	for (unsigned i = 0; i < LANE_COUNT; i++)
		total += lanes[i].reserved_bytes;
	return total;
}

static bool reserve(size_t heap_bytes)
{
	size_lanes(range.lanes, heap_bytes);
	size_t total = RANGE_ALIGN + reserved_by(range.lanes);
	if (total > os_reservable_bytes(0))
		return false;
	char *at = os_reserve(total);
	if (!at)
		return false;
	at = (char *)round_up((uintptr_t)at, RANGE_ALIGN);
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		range.lanes[i].base = at;
		at += range.lanes[i].reserved_bytes;
	}
	return true;
}

/* The bytes by which a lane should grow to hold `bytes`: a share of what it has, within its limits. */
static size_t commit_step(const struct lane *lane, size_t missing, size_t min_step)
{
	size_t left = lane->reserved_bytes - lane->committed_bytes;
	size_t step = lane->committed_bytes / 2;

	step = step < COMMIT_MAX_BYTES ? step : COMMIT_MAX_BYTES;
	step = round_up(step < min_step ? min_step : step, min_step);
	step = step < missing ? missing : step;
	return step < left ? step : left;
}

/* Makes the first `bytes` of a lane usable, in steps of at least min_step. False: out of memory. */
static bool lane_commit(unsigned index, size_t bytes, size_t min_step)
{
	struct lane *lane = &range.lanes[index];

	if (bytes > lane->reserved_bytes)
		return false;
	if (bytes <= lane->committed_bytes)
		return true;
	size_t missing = round_up(bytes - lane->committed_bytes, OS_PAGE);
	size_t step = commit_step(lane, missing, min_step);
	char *end = lane->base + lane->committed_bytes;
	/* When memory is short a generous step may fail where the least one doesn't. */
	if (!os_commit(end, step)) {
		step = missing;
		if (!os_commit(end, step))
			return false;
	}
	lane->committed_bytes += step;
	return true;
}

static_assert((RANGE_MAX_BYTES >> SLICE_SHIFT) * sizeof(struct span) <= UINT32_MAX,
              "the slice table holds distances between descriptors");

static size_t power_of_two_below(size_t n)
{
	return (size_t)1 << (63 - __builtin_clzl(n));
}

void range_want_notes(void)
{
	range.wants_notes = true;
}

__attribute__((cold)) bool range_init(size_t wanted_bytes)
{
	size_t bytes = power_of_two_below(wanted_bytes);

	assert(bytes >= RANGE_MIN_BYTES && bytes <= RANGE_MAX_BYTES);
	while (!reserve(bytes)) {
		bytes /= 2;
		if (bytes < RANGE_MIN_BYTES)
			return false;
	}
	range.base = range.lanes[LANE_HEAP].base;
	range.map = (unsigned char *)range.lanes[LANE_MAP].base;
	range.map_bias = (uintptr_t)range.map - ((uintptr_t)range.base >> GRANULE_SHIFT);
	range.slices = (uint32_t *)range.lanes[LANE_SLICES].base;
	range.spans = (struct span *)range.lanes[LANE_SPANS].base;
	range.notes = range.wants_notes ? (uint32_t *)range.lanes[LANE_NOTES].base : NULL;
	return lane_commit(LANE_SPANS, sizeof(struct span), OS_PAGE);
}

size_t range_reserved_bytes(void)
{
	lock_acquire(&range.lock);
	size_t bytes = reserved_by(range.lanes);
	lock_release(&range.lock);
	return bytes;
}

/* What is committed stays. */
static void lane_shrink(struct lane *lane, size_t bytes)
{
	size_t keep = round_up(bytes > lane->committed_bytes ? bytes : lane->committed_bytes, OS_PAGE);

	if (keep >= lane->reserved_bytes)
		return;
	os_unmap(lane->base + keep, lane->reserved_bytes - keep);
	lane->reserved_bytes = keep;
}

void range_shrink(size_t bytes)
{
	struct lane lanes[LANE_COUNT];
	size_t heap_bytes = RANGE_MAX_BYTES;

	do {
		heap_bytes /= 2;
		size_lanes(lanes, heap_bytes);
	} while (heap_bytes > RANGE_MIN_BYTES && reserved_by(lanes) > bytes);
	lock_acquire(&range.lock);
	for (unsigned i = 0; i < LANE_COUNT; i++)
		lane_shrink(&range.lanes[i], lanes[i].reserved_bytes);
	lock_release(&range.lock);
}

bool range_grow(size_t bytes)
{
	struct lane *heap = &range.lanes[LANE_HEAP];
	bool done;

	lock_acquire(&range.lock);
	done = lane_commit(LANE_HEAP, bytes, HEAP_STEP_BYTES) &&
	       lane_commit(LANE_MAP, heap->committed_bytes >> GRANULE_SHIFT, OS_PAGE) &&
	       lane_commit(LANE_SLICES, (heap->committed_bytes >> SLICE_SHIFT) * sizeof(uint32_t), OS_PAGE) &&
	       (!range.notes || lane_commit(LANE_NOTES, notes_bytes(heap->committed_bytes), OS_PAGE));
	/* What is published is described: map, slice table and notes reach at least as far. */
	if (done)
		__atomic_store_n(&range.granules, heap->committed_bytes >> GRANULE_SHIFT, __ATOMIC_RELEASE);
	lock_release(&range.lock);
	return done;
}

bool range_commit_spans(size_t count)
{
	lock_acquire(&range.lock);
	bool done = lane_commit(LANE_SPANS, count * sizeof(struct span), 4 * OS_PAGE);
	lock_release(&range.lock);
	return done;
}

void *range_meta_alloc(size_t bytes)
{
	void *p = NULL;

	bytes = round_up(bytes, META_ALIGN);
	lock_acquire(&range.lock);
	if (lane_commit(LANE_META, range.meta_used + bytes, 16 * OS_PAGE)) {
		p = range.lanes[LANE_META].base + range.meta_used;
		range.meta_used += bytes;
	}
	lock_release(&range.lock);
	return p;
}
