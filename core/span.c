/*
 * span.c: the pool of slices.
 *
 * Free runs hang in bins by length: one bin for each length to 16 slices, then four for each doubling.
 * Each bin list belongs to one of two states, dirty or clean. Runs coalesce with neighbours of their
 * own state only, so that what is known to read as zero stays known. What has never been used lies
 * behind the frontier.
 *
 * Giving back needs no thread and no clock that ticks: what is free and dirty may be a share of what is in
 * use (allowance), and the free that goes beyond gives back what is too much. Should such memory be wanted
 * again soon, as much more is allowed for some time, so that a program which goes up and down pays for one
 * of its cycles, not for all. What is within the allowance goes by its age.
 *
 * Every operation may need up to SPARE_SPANS new descriptors; they are set aside before anything is
 * changed, so that no operation fails half-way.
 */
#include "span.h"

#include <string.h>

#include "os.h"

#define EXACT_BINS 16u
#define BIN_COUNT 128u
#define SPARE_SPANS 3u
#define SEARCH_LIMIT 16
#define PURGE_RUNS_AT_ONCE 64

/* Dirty slices allowed beside a share of those in use, at a decay time of a second; and beyond, to begin. */
#define ALLOWED_SLICES ((size_t)4 << (20 - SLICE_SHIFT))
#define SHED_STEP_SLICES ((size_t)2 << (20 - SLICE_SHIFT))

enum { CLEAN, DIRTY, STATE_COUNT };

static struct span_pool {
	struct lock lock;
	struct span *bins[STATE_COUNT][BIN_COUNT];
	uint64_t bin_masks[STATE_COUNT][BIN_COUNT / 64]; /* which bins aren't empty */
	struct span *spare;         /* unused descriptors, linked through next */
	uint32_t spare_count;
	uint32_t span_count;        /* descriptors ever used, with number 0 */
	size_t frontier;            /* slices ever used */
	size_t dirty_slices;
	size_t free_slices;
	size_t shed_slices;         /* given back as too much not long ago, and not wanted since */
	size_t regretted_slices;    /* that is allowed, because it was wanted again */
	uint32_t decay_ms;
	uint32_t epoch;             /* counts looks for old runs */
	uint64_t next_decay_ms;     /* written under the lock */
} pool = {.span_count = 1, .decay_ms = 1000};

static unsigned bin_of(size_t slices)
{
	if (slices <= EXACT_BINS)
		return (unsigned)slices - 1;
	unsigned log2 = 63u - (unsigned)__builtin_clzl(slices);
	return EXACT_BINS + (log2 - 4) * 4 + ((unsigned)(slices >> (log2 - 2)) & 3);
}

static unsigned state_of(const struct span *run)
{
	return span_kind(run) == SPAN_FREE_DIRTY ? DIRTY : CLEAN;
}

static size_t first_slice(const struct span *span)
{
	return range_offset(span->start) >> SLICE_SHIFT;
}

/* What slices lead to that belong to no span. */
static struct span *nobody(void)
{
	return &range.spans[0];
}

static struct span *span_at(size_t slice)
{
	return slice < pool.frontier ? span_at_slice(slice) : nobody();
}

static void set_slice(size_t slice, const struct span *span)
{
	uint32_t distance = (uint32_t)((const char *)span - (const char *)range.spans);

	__atomic_store_n(&range.slices[slice], distance, __ATOMIC_RELAXED);
}

/* Makes all slices of a span lead to `to`. */
static void set_slices(const struct span *span, const struct span *to)
{
	for (size_t i = 0; i < span->slices; i++)
		set_slice(first_slice(span) + i, to);
}

/* Descriptors. */

static bool set_spares_aside(void)
{
	while (pool.spare_count < SPARE_SPANS) {
		if (!range_commit_spans((size_t)pool.span_count + 1))
			return false;
		struct span *span = &range.spans[pool.span_count];
		pool.span_count++;
		span->next = pool.spare;
		pool.spare = span;
		pool.spare_count++;
	}
	return true;
}

/* All else is zero, but for what late frees may be looking at. */
static void init_descriptor(struct span *span, char *start, size_t slices, enum span_kind kind)
{
	const size_t behind_kind = offsetof(struct span, kind) + sizeof(span->kind);

	memset(span, 0, offsetof(struct span, kind));
	memset((char *)span + behind_kind, 0, offsetof(struct span, live) - behind_kind);
	span->start = start;
	span->slices = (uint32_t)slices;
	span_set_kind(span, kind);
}

static struct span *take_descriptor(char *start, size_t slices, enum span_kind kind)
{
	struct span *span = pool.spare;

	assert(span != NULL);
	pool.spare = span->next;
	pool.spare_count--;
	init_descriptor(span, start, slices, kind);
	return span;
}

static void put_descriptor(struct span *span)
{
	span_set_kind(span, SPAN_NONE);
	span->owner = NULL;
	span->next = pool.spare;
	pool.spare = span;
	pool.spare_count++;
}

/* Free runs. */

static void bin_add(struct span *run)
{
	unsigned state = state_of(run), bin = bin_of(run->slices);
	struct span **head = &pool.bins[state][bin];

	run->prev = NULL;
	run->next = *head;
	if (*head)
		(*head)->prev = run;
	*head = run;
	pool.bin_masks[state][bin / 64] |= (uint64_t)1 << (bin % 64);
	pool.free_slices += run->slices;
	pool.dirty_slices += state == DIRTY ? run->slices : 0;
	set_slice(first_slice(run), run);
	set_slice(first_slice(run) + run->slices - 1, run);
}

static void bin_remove(struct span *run)
{
	unsigned state = state_of(run), bin = bin_of(run->slices);
	struct span **head = &pool.bins[state][bin];

	if (run->prev)
		run->prev->next = run->next;
	else
		*head = run->next;
	if (run->next)
		run->next->prev = run->prev;
	if (!*head)
		pool.bin_masks[state][bin / 64] &= ~((uint64_t)1 << (bin % 64));
	pool.free_slices -= run->slices;
	pool.dirty_slices -= state == DIRTY ? run->slices : 0;
	set_slice(first_slice(run), nobody());
	set_slice(first_slice(run) + run->slices - 1, nobody());
}

/*
 * Takes in a neighbouring run. The age of what comes out is between the two, as their lengths are: a
 * little memory freed beside much that is old doesn't make all of it young.
 */
static void run_absorb(struct span *run, struct span *other)
{
	uint64_t slices = (uint64_t)run->slices + other->slices;
	uint32_t younger_ms = run->stamp_ms - other->stamp_ms;

	bin_remove(other);
	run->stamp_ms = other->stamp_ms + (uint32_t)((uint64_t)younger_ms * run->slices / slices);
	run->slices = (uint32_t)slices;
	run->has_map |= other->has_map;
	put_descriptor(other);
}

/* Makes a descriptor that is in no list a free run, merged with its neighbours of the same state. */
static void run_insert(struct span *run, enum span_kind kind, uint32_t stamp_ms)
{
	struct span *before = first_slice(run) > 0 ? span_at(first_slice(run) - 1) : nobody();
	struct span *after = span_at(first_slice(run) + run->slices);

	span_set_kind(run, kind);
	run->stamp_ms = stamp_ms;
	if (span_kind(before) == kind) {
		run->start = before->start;
		run_absorb(run, before);
	}
	if (span_kind(after) == kind)
		run_absorb(run, after);
	bin_add(run);
}

/* Cuts the slices from `keep` on off a run that is in no list, and makes them a free run. */
static void run_cut_tail(struct span *span, size_t keep, enum span_kind kind)
{
	if (keep == span->slices)
		return;
	struct span *tail = take_descriptor(span->start + (keep << SLICE_SHIFT), span->slices - keep, kind);
	tail->has_map = span->has_map;
	span->slices = (uint32_t)keep;
	run_insert(tail, kind, span->stamp_ms);
}

/* Of the first runs of a list, the shortest that has at least `slices`, the lowest of these; or NULL. */
static struct span *run_fitting(struct span *run, size_t slices)
{
	struct span *best = NULL;

	for (int looks = 0; run && looks < SEARCH_LIMIT; looks++, run = run->next)
		if (run->slices >= slices && (!best || run->slices < best->slices ||
		                              (run->slices == best->slices && run->start < best->start)))
			best = run;
	return best;
}

/* The first run of a list that has at least `slices`, or NULL. */
static struct span *run_at_last(struct span *run, size_t slices)
{
	while (run && run->slices < slices)
		run = run->next;
	return run;
}

/* A run of a state that has at least `slices`, and few more if that is easily told; or NULL. */
static struct span *run_find(unsigned state, size_t slices)
{
	unsigned bin = bin_of(slices), first = bin;
	struct span *run = run_fitting(pool.bins[state][bin], slices);

	/* Any run of a bin above is long enough. */
	for (bin++; !run && bin < BIN_COUNT; bin = (bin | 63) + 1) {
		uint64_t mask = pool.bin_masks[state][bin / 64] >> (bin % 64);
		if (mask)
			run = run_fitting(pool.bins[state][bin + (unsigned)__builtin_ctzl(mask)], slices);
	}
	return run ? run : run_at_last(pool.bins[state][first], slices);
}

/* A run behind the frontier, which moves. */
static struct span *frontier_take(size_t slices)
{
	if (!range_grow((pool.frontier + slices) << SLICE_SHIFT))
		return NULL;
	char *start = range.base + (pool.frontier << SLICE_SHIFT);
	pool.frontier += slices;
	return take_descriptor(start, slices, SPAN_FREE_CLEAN);
}

/* Clean memory is wanted: had what was shed stayed, there would be dirty memory to be had. */
static void regret(size_t slices)
{
	if (slices > pool.shed_slices)
		slices = pool.shed_slices;
	pool.shed_slices -= slices;
	pool.regretted_slices += 2 * slices;
}

/* A run in no list, of at least `slices`, dirty before clean before never used. */
static struct span *run_take(size_t slices)
{
	struct span *run = run_find(DIRTY, slices);

	if (!run) {
		run = run_find(CLEAN, slices);
		regret(slices);
	}
	if (!run)
		return frontier_take(slices);
	bin_remove(run);
	return run;
}

/* Slices from a run's start to the first address in it that is a multiple of `align_slices` slices. */
static size_t slices_to_align(const struct span *run, size_t align_slices)
{
	return -((uintptr_t)run->start >> SLICE_SHIFT) & (align_slices - 1);
}

/* Cuts the slices before `skip` off a run that is in no list, and makes them a free run. */
static struct span *run_cut_head(struct span *run, size_t skip)
{
	if (skip == 0)
		return run;
	char *start = run->start + (skip << SLICE_SHIFT);
	struct span *rest = take_descriptor(start, run->slices - skip, span_kind(run));
	rest->stamp_ms = run->stamp_ms;
	rest->has_map = run->has_map;
	run->slices = (uint32_t)skip;
	run_insert(run, span_kind(run), run->stamp_ms);
	return rest;
}

/* Makes a span of a run that is in no list and long enough. */
static struct span *cut_span(struct span *span, size_t slices, size_t align_slices, enum span_kind kind)
{
	span = run_cut_head(span, slices_to_align(span, align_slices));
	run_cut_tail(span, slices, span_kind(span));
	bool has_map = span->has_map, is_zero = span_kind(span) == SPAN_FREE_CLEAN;
	init_descriptor(span, span->start, slices, kind);
	span->has_map = has_map;
	span->is_zero = is_zero;
	set_slices(span, span);
	return span;
}

void span_recycle(struct span *span, enum span_kind kind)
{
	bool has_map = span->has_map;

	init_descriptor(span, span->start, span->slices, kind);
	span->has_map = has_map;
}

static struct span *pool_take(size_t slices, size_t align_slices, enum span_kind kind)
{
	struct span *span = set_spares_aside() ? run_take(slices + align_slices - 1) : NULL;

	return span ? cut_span(span, slices, align_slices, kind) : NULL;
}

#define MOST_SLICES (RANGE_MAX_BYTES >> SLICE_SHIFT)

struct span *span_alloc_dirty(size_t slices, size_t align_slices, enum span_kind kind)
{
	if (slices > MOST_SLICES || align_slices > MOST_SLICES)
		return NULL;
	lock_acquire(&pool.lock);
	struct span *run = set_spares_aside() ? run_find(DIRTY, slices + align_slices - 1) : NULL;
	if (run) {
		bin_remove(run);
		run = cut_span(run, slices, align_slices, kind);
	}
	lock_release(&pool.lock);
	return run;
}

struct span *span_alloc(size_t slices, size_t align_slices, enum span_kind kind)
{
	assert(slices > 0 && (align_slices & (align_slices - 1)) == 0);
	if (slices > MOST_SLICES || align_slices > MOST_SLICES)
		return NULL;
	lock_acquire(&pool.lock);
	struct span *span = pool_take(slices, align_slices, kind);
	bool is_split = !span && pool.dirty_slices > 0;
	lock_release(&pool.lock);
	/* The range is used up, but dirty and clean neighbours together may be long enough. */
	if (is_split && span_pool_decay(true) > 0) {
		lock_acquire(&pool.lock);
		span = pool_take(slices, align_slices, kind);
		lock_release(&pool.lock);
	}
	return span;
}

/*
 * Gives back a run that is in no list, and puts it in one. No slice leads to it, so nobody can want it while
 * the lock isn't held. Bytes; 0: the kernel won't take the pages, which the program may have locked.
 */
static size_t purge_run(struct span *run, uint32_t now_ms)
{
	size_t bytes = span_bytes(run);

	lock_release(&pool.lock);
	bool is_purged = os_purge(run->start, bytes);
	if (is_purged && run->has_map && os_purge(range_map_of(run->start), bytes >> GRANULE_SHIFT))
		run->has_map = false;
	lock_acquire(&pool.lock);
	run_insert(run, is_purged ? SPAN_FREE_CLEAN : SPAN_FREE_DIRTY, now_ms);
	return is_purged ? bytes : 0;
}

/* Giving back what is too much. */

static size_t allowance(void)
{
	size_t used_slices = pool.frontier - pool.free_slices;

	return (ALLOWED_SLICES + used_slices / 4) * pool.decay_ms / 1000 + pool.regretted_slices;
}

/* A dirty run of the bin with the longest. */
static struct span *longest_dirty_run(void)
{
	for (unsigned i = BIN_COUNT / 64; i-- > 0;) {
		uint64_t mask = pool.bin_masks[DIRTY][i];
		if (mask)
			return pool.bins[DIRTY][i * 64 + 63 - (unsigned)__builtin_clzl(mask)];
	}
	return NULL;
}

static __attribute__((cold, noinline)) void shed(void)
{
	uint32_t now_ms = (uint32_t)os_clock_ms();

	lock_acquire(&pool.lock);
	for (size_t allowed = allowance(); pool.dirty_slices > allowed && set_spares_aside();) {
		size_t too_many = pool.dirty_slices - allowed;
		struct span *run = longest_dirty_run();
		bin_remove(run);
		if (run->slices > too_many)
			run_cut_tail(run, too_many, SPAN_FREE_DIRTY);
		size_t bytes = purge_run(run, now_ms);
		if (bytes == 0)
			break;
		pool.shed_slices += bytes >> SLICE_SHIFT;
	}
	lock_release(&pool.lock);
}

static void tick(uint64_t now_ms)
{
	if (now_ms >= __atomic_load_n(&pool.next_decay_ms, __ATOMIC_RELAXED))
		span_pool_decay(false);
}

void span_pool_tick(void)
{
	tick(os_clock_ms());
}

uint32_t span_pool_epoch(void)
{
	return __atomic_load_n(&pool.epoch, __ATOMIC_RELAXED);
}

void span_free(struct span *span, bool is_clean)
{
	uint64_t now_ms = os_clock_ms();

	lock_acquire(&pool.lock);
	span->owner = NULL;
	set_slices(span, nobody());
	run_insert(span, is_clean ? SPAN_FREE_CLEAN : SPAN_FREE_DIRTY, (uint32_t)now_ms);
	bool is_too_much = pool.dirty_slices > allowance() + SHED_STEP_SLICES;
	lock_release(&pool.lock);
	if (is_too_much)
		shed();
	tick(now_ms);
}

bool span_extend(struct span *span, size_t slices, bool *is_clean)
{
	size_t missing = slices - span->slices;
	size_t end = first_slice(span) + span->slices;
	struct span *after = NULL;

	assert(slices > span->slices);
	lock_acquire(&pool.lock);
	if (set_spares_aside()) {
		struct span *next = span_at(end);
		if (end == pool.frontier) {
			after = frontier_take(missing);
		} else if ((span_kind(next) == SPAN_FREE_CLEAN || span_kind(next) == SPAN_FREE_DIRTY) &&
		           next->slices >= missing) {
			after = next;
			bin_remove(after);
		}
	}
	if (after) {
		*is_clean = span_kind(after) == SPAN_FREE_CLEAN;
		run_cut_tail(after, missing, span_kind(after));
		span->slices = (uint32_t)slices;
		span->has_map |= after->has_map;
		put_descriptor(after);
		set_slices(span, span);
	}
	lock_release(&pool.lock);
	return after != NULL;
}

void span_shorten(struct span *span, size_t slices)
{
	assert(slices > 0 && slices < span->slices);
	lock_acquire(&pool.lock);
	if (set_spares_aside()) {
		span->stamp_ms = (uint32_t)os_clock_ms();
		for (size_t i = slices; i < span->slices; i++)
			set_slice(first_slice(span) + i, nobody());
		run_cut_tail(span, slices, SPAN_FREE_DIRTY);
	}
	lock_release(&pool.lock);
}

/* Giving back by age. */

/* Takes a dirty run older than `age_ms` out of the pool, or NULL. */
static struct span *take_old_run(uint32_t now_ms, uint32_t age_ms)
{
	for (unsigned bin = 0; bin < BIN_COUNT; bin++)
		for (struct span *run = pool.bins[DIRTY][bin]; run; run = run->next)
			if (now_ms - run->stamp_ms >= age_ms) {
				bin_remove(run);
				return run;
			}
	return NULL;
}

size_t span_pool_decay(bool all)
{
	uint64_t now_ms = os_clock_ms();
	size_t bytes = 0;

	lock_acquire(&pool.lock);
	__atomic_store_n(&pool.next_decay_ms, now_ms + pool.decay_ms / 4 + 1, __ATOMIC_RELAXED);
	pool.shed_slices -= pool.shed_slices / 4;
	pool.regretted_slices -= pool.regretted_slices / 16;
	__atomic_store_n(&pool.epoch, pool.epoch + 1, __ATOMIC_RELAXED);
	for (int i = 0; all || i < PURGE_RUNS_AT_ONCE; i++) {
		struct span *run = take_old_run((uint32_t)now_ms, all ? 0 : pool.decay_ms);
		if (!run)
			break;
		size_t purged = purge_run(run, (uint32_t)now_ms);
		if (purged == 0)
			break;
		bytes += purged;
	}
	lock_release(&pool.lock);
	return bytes;
}

void span_pool_set_decay_ms(uint32_t ms)
{
	pool.decay_ms = ms;
}

struct span_totals span_pool_totals(void)
{
	lock_acquire(&pool.lock);
	struct span_totals totals = {
		.used_bytes = (pool.frontier - pool.free_slices) << SLICE_SHIFT,
		.dirty_bytes = pool.dirty_slices << SLICE_SHIFT,
		.most_bytes = pool.frontier << SLICE_SHIFT,
	};
	lock_release(&pool.lock);
	return totals;
}

void span_for_each_locked(void (*fn)(const struct span *span, void *arg), void *arg)
{
	for (size_t slice = 0; slice < pool.frontier;) {
		const struct span *span = span_at(slice);
		if (span_kind(span) > SPAN_SPARE)
			fn(span, arg);
		slice += span->slices ? span->slices : 1;
	}
}

void span_for_each(void (*fn)(const struct span *span, void *arg), void *arg)
{
	lock_acquire(&pool.lock);
	span_for_each_locked(fn, arg);
	lock_release(&pool.lock);
}

struct lock *span_pool_lock(void)
{
	return &pool.lock;
}
