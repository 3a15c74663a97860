/*
 * learn_site.c: the call sites of a watched scope; see learn.h.
 *
 * A site's key is the return address of malloc, and, where blocks of one site are told apart by size, their
 * granules above it. The table of a scope is open addressing that only grows; who adds claims an empty
 * slot by its key.
 *
 * While a call is sampled its blocks are noted in a table of the thread's, by their address: a block that
 * comes to lie where another did replaces it, because that one was freed.
 */
#include "learn.h"
#include "scopes.h"

#define SITES 1024u
#define SITES_MAX (SITES / 4 * 3)
#define SAMPLES_MAX (LEARN_SLOTS / 2)
#define STRIDE_MAX 256u
#define PENDING_MAX 4096u
#define KEY_BITS 48

/* A block that lived when its scope ended, of which a search tells whether it is garbage. */
struct pending {
	char *block;
	struct learn_site *site;
	struct learn_scope *known;
};

static struct waiting_samples {
	uint32_t count;
	struct pending *list;
} waiting; /* under learning.lock */

static inline size_t hash(uintptr_t key, unsigned bits)
{
	return (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits));
}

static_assert(SITES == 1u << 10 && LEARN_SLOTS == 1u << 12, "hashes have as many bits");

/* Claims the slot, or sees that another thread has done so for the same key. */
static bool claim(struct learn_scope *known, struct learn_site *site, uintptr_t key)
{
	uintptr_t expected = 0;

	if (__atomic_compare_exchange_n(&site->key, &expected, key, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		learn_count(&known->site_count, 1);
		return true;
	}
	return expected == key;
}

struct learn_site *learn_site_of(struct learn_scope *known, uintptr_t key, bool make)
{
	for (size_t i = hash(key, 10);; i = (i + 1) % SITES) {
		struct learn_site *site = &known->sites[i];
		uintptr_t found = __atomic_load_n(&site->key, __ATOMIC_ACQUIRE);

		if (found == key)
			return site;
		if (found != 0)
			continue;
		if (!make || learn_get(&known->site_count) >= SITES_MAX)
			return NULL;
		if (claim(known, site, key))
			return site;
	}
}

static inline unsigned verdict_of(const struct learn_site *site)
{
	return __atomic_load_n(&site->verdict, __ATOMIC_RELAXED);
}

/* The site that decides on a block of that many granules, from that caller. */
static inline struct learn_site *
site_for(struct learn_scope *known, uintptr_t caller, size_t granules, bool make)
{
	struct learn_site *site = learn_site_of(known, caller, make);

	if (site && verdict_of(site) == LEARN_BY_SIZE)
		site = learn_site_of(known, caller | granules << KEY_BITS, make);
	return site;
}

/* Sampling. */

bool learn_sample_begins(struct thread *thread, struct scope *scope)
{
	if (!thread->samples)
		thread->samples = range_meta_alloc(LEARN_SLOTS * sizeof(*thread->samples));
	if (!thread->samples)
		return false;
	thread->sampled = scope;
	thread->sample_count = thread->sample_skip = 0;
	return true;
}

/* Its place among the samples, or the place for it. */
static struct learn_sample *sample_of(struct thread *thread, const char *block)
{
	size_t i = hash((uintptr_t)block, 12);

	while (thread->samples[i].block && thread->samples[i].block != block)
		i = (i + 1) % LEARN_SLOTS;
	return &thread->samples[i];
}

static void note_size(struct learn_site *site, size_t granules)
{
	unsigned least = __atomic_load_n(&site->least_granules, __ATOMIC_RELAXED);

	if (least == 0 || granules < least)
		__atomic_store_n(&site->least_granules, (uint8_t)(granules < UINT8_MAX ? granules : UINT8_MAX),
		                 __ATOMIC_RELAXED);
	if (granules > __atomic_load_n(&site->most_granules, __ATOMIC_RELAXED))
		__atomic_store_n(&site->most_granules, (uint16_t)(granules < UINT16_MAX ? granules : UINT16_MAX),
		                 __ATOMIC_RELAXED);
}

static void note(struct thread *thread, struct learn_scope *known, char *block, uintptr_t caller)
{
	size_t granules = granule_size(range_map_of(block));

	if (thread->sample_skip-- > 0)
		return;
	thread->sample_skip = learn_get(&known->stride) - 1;
	if (thread->sample_count == SAMPLES_MAX) {
		thread->sample_skip = UINT32_MAX;
		if (learn_get(&known->stride) < STRIDE_MAX)
			learn_set(&known->stride, learn_get(&known->stride) * 2);
		return;
	}
	struct learn_site *site = site_for(known, caller, granules, true);
	if (!site)
		return;
	struct learn_sample *sample = sample_of(thread, block);
	thread->sample_count += !sample->block;
	*sample = (struct learn_sample){.block = block, .site = site};
	learn_count(&site->blocks, 1);
	learn_count(&known->blocks, 1);
	__atomic_fetch_add(&known->granules, granules, __ATOMIC_RELAXED);
	note_size(site, granules);
}

static void count_survivor(struct learn_scope *known, struct learn_site *site, const char *block)
{
	learn_count(&site->survived, 1);
	learn_count(&known->survived, 1);
	__atomic_fetch_add(&known->survived_granules, granule_size(range_map_of(block)), __ATOMIC_RELAXED);
}

/* As if it had not been noted. */
static void uncount(struct learn_scope *known, struct learn_site *site)
{
	learn_count(&site->blocks, -1);
	learn_count(&known->blocks, -1);
}

/* Under the lock. */
static bool add_pending(const struct learn_sample *sample, struct learn_scope *known)
{
	if (!waiting.list)
		waiting.list = range_meta_alloc(PENDING_MAX * sizeof(*waiting.list));
	if (!waiting.list || waiting.count == PENDING_MAX)
		return false;
	waiting.list[waiting.count++] =
		(struct pending){.block = sample->block, .site = sample->site, .known = known};
	learn_count(&known->pending, 1);
	return true;
}

void learn_sample_ends(struct thread *thread, struct learn_scope *known, bool waits)
{
	bool has_lock = waits && lock_try(&learning.lock);

	for (size_t i = 0; i < LEARN_SLOTS && thread->sample_count > 0; i++) {
		struct learn_sample *sample = &thread->samples[i];
		if (!sample->block)
			continue;
		bool is_live = granule_is_live(granule_load(range_map_of(sample->block)));
		if (is_live && !waits)
			count_survivor(known, sample->site, sample->block);
		else if (is_live && !(has_lock && add_pending(sample, known)))
			uncount(known, sample->site);
		sample->block = NULL;
		thread->sample_count--;
	}
	if (has_lock)
		lock_release(&learning.lock);
	thread->sampled = NULL;
}

/* What was freed since its scope has ended has survived it. False: nobody knows yet. */
static bool resolve(const struct pending *pending)
{
	const unsigned char *head = range_map_of(pending->block);
	bool is_live = granule_is_live(granule_load(head));

	const struct span *span = span_of(pending->block);

	/* In a buffer that the search was about? */
	if (is_live && (span_kind(span) != SPAN_WAITING || span->is_full))
		return false;
	if (!is_live || mark_is_reached(head)) {
		count_survivor(pending->known, pending->site, pending->block);
	} else {
		learn_count(&pending->site->garbage, 1);
		learn_count(&pending->known->garbage, 1);
	}
	learn_count(&pending->known->pending, -1);
	return true;
}

void learn_resolve_pending(void)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < waiting.count; i++)
		if (!resolve(&waiting.list[i]))
			waiting.list[left++] = waiting.list[i];
	waiting.count = left;
}

/* Serving. */

static inline void *bump(struct heap *heap, size_t bytes)
{
	char *p = heap->cursor, *end = p + bytes;

	if (bytes > GRANULE_SHORT_MAX * GRANULE_BYTES || (uintptr_t)end > (uintptr_t)heap->limit || !p)
		return NULL;
	heap->cursor = end;
	heap_prefetch(end);
	heap_prefetch(range_map_of(p) + HEAP_LINE_BYTES);
	granule_set_short(range_map_of(p), bytes >> GRANULE_SHIFT);
	return p;
}

static __attribute__((noinline)) void *alloc_from_region(size_t size)
{
	return scopes_alloc(size, GRANULE_BYTES);
}

static __attribute__((noinline)) void *alloc_learned(struct heap *heap, struct scope *scope, size_t size)
{
	void *p = heap_alloc_class(heap, size);

	if (!p)
		p = heap_alloc(size);
	if (p)
		stats_add(&scope->region.counters->stats.heap_learned, 1);
	return p;
}

static __attribute__((noinline)) void *
alloc_sampled(struct thread *thread, struct scope *scope, size_t size, uintptr_t caller)
{
	char *p = alloc_from_region(size);
	struct span *span = p ? span_of(p) : NULL;

	/* Not what the general heap has served after all, nor if an abandoned scope was closed on the way. */
	if (p && thread->sampled == scope && span_kind(span) == SPAN_BUFFER)
		note(thread, scope->learn, p, caller);
	return p;
}

void *scopes_alloc_watched(size_t size, uintptr_t caller)
{
	struct heap *heap = heap_self();
	struct scope *scope = scope_top(heap);
	size_t bytes = (size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);

	if (__builtin_expect(size - 1 >= scope->region.policy->max_block_bytes, 0))
		return alloc_from_region(size);
	if (__builtin_expect(scope->thread->sampled == scope, 0))
		return alloc_sampled(scope->thread, scope, size, caller);
	if (bytes >> GRANULE_SHIFT <= learn_get(&scope->learn->most_granules)) {
		const struct learn_site *site = site_for(scope->learn, caller, bytes >> GRANULE_SHIFT, false);
		if (site && verdict_of(site) == LEARN_HEAP)
			return alloc_learned(heap, scope, size);
	}
	void *p = bump(heap, bytes);
	return __builtin_expect(p != NULL, 1) ? p : alloc_from_region(size);
}
