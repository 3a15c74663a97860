/*
 * learn.c: scopes that leave blocks: when they are watched, what is concluded from it, and when they are
 * switched off. See learn.h, which has the idea.
 *
 * A record goes from QUIET to WATCHED when its scope has left something `patience` times, and back when
 * nothing is learned from that, with twice the patience. While it is WATCHED calls are sampled: DENSE of them
 * one after another, then a conclusion; where something was learned, one after `gap` calls, the gap
 * doubling as long as nothing changes. OFF ends after `rest` calls; then it is WATCHED anew.
 *
 * Conclusions need the lock. Whoever doesn't get it leaves them to the next one.
 */
#include "learn.h"

#include "check.h"
#include "scopes.h"

#define SCOPES LEARN_SCOPES
#define SCOPES_MAX (SCOPES / 4 * 3)
#define DENSE 8
#define GAP_FIRST 64u
#define GAP_LAST 4096u
#define REST_FIRST 1000u
#define REST_LAST (1u << 20)
#define PATIENCE_LAST (1u << 16)
#define SITES 1024u

/* What a conclusion about a site needs, and about a scope. */
#define SITE_BLOCKS 4u
#define SCOPE_BLOCKS 32u

/* Of a site whose blocks survive to so many percent no size is left out. */
#define WHOLE_SHARE 75u

struct learning learning;

struct lock *learn_lock(void)
{
	return &learning.lock;
}

void learn_start(void)
{
	/* Where every block has to be seen by somebody else, or the general heap serves anyway. */
	learning.is_on = options.learn > 0 && !check_is_on() && !harden_is_on() && !options.advise[0];
	policies.quick = &policies.by_default;
}

/* Records. */

static struct learn_scope *slot_of(const void *key)
{
	size_t i = (size_t)((uintptr_t)key * UINT64_C(0x9e3779b97f4a7c15) >> 56);

	for (;; i = (i + 1) % SCOPES) {
		const void *found = __atomic_load_n(&learning.scopes[i].key, __ATOMIC_ACQUIRE);
		if (found == key || !found)
			return &learning.scopes[i];
	}
}

struct learn_scope *learn_find(const void *key)
{
	struct learn_scope *known = slot_of(key);

	return __atomic_load_n(&known->key, __ATOMIC_ACQUIRE) ? known : NULL;
}

static const void *key_of(const struct scope *scope)
{
	const char *name = scope->region.policy->name;

	return scope->called && name == policies.by_default.name ? scope->called : (const void *)name;
}

/* Under the lock. NULL: there are too many. */
static struct learn_scope *make(const struct scope *scope)
{
	struct learn_scope *known = slot_of(key_of(scope));

	if (known->key)
		return known;
	if (learning.count == SCOPES_MAX)
		return NULL;
	learning.count++;
	known->name = scope->region.policy->name;
	known->is_function = key_of(scope) == scope->called;
	known->patience = (uint32_t)options.learn_after;
	known->stride = 1;
	known->longest_rest = REST_FIRST;
	__atomic_store_n(&known->key, key_of(scope), __ATOMIC_RELEASE);
	return known;
}

/* States. */

/* While functions are watched or off, no record is ready for a call that tells nothing but its function. */
static void set_state(struct learn_scope *known, enum learn_state state)
{
	bool was_known = known->state != LEARN_QUIET, is_known = state != LEARN_QUIET;

	if (known->is_function && was_known != is_known)
		learning.functions += is_known ? 1u : -1u;
	learn_set(&known->state, state);
	__atomic_store_n(&policies.quick, learning.functions > 0 ? &policies.nobody : &policies.by_default,
	                 __ATOMIC_RELAXED);
	if (is_known)
		__atomic_store_n(&learning.is_active, true, __ATOMIC_RELAXED);
}

static void sample_densely(struct learn_scope *known)
{
	__atomic_store_n(&known->samples_due, DENSE, __ATOMIC_RELAXED);
}

static void watch(struct learn_scope *known)
{
	if (!known->sites)
		known->sites = range_meta_alloc(SITES * sizeof(*known->sites));
	if (!known->sites)
		return;
	learn_set(&known->left, 0);
	known->gap = GAP_FIRST;
	__atomic_store_n(&known->until, (int32_t)GAP_FIRST, __ATOMIC_RELAXED);
	sample_densely(known);
	set_state(known, LEARN_WATCHED);
}

static void forget_counts(struct learn_scope *known)
{
	learn_set(&known->blocks, 0);
	learn_set(&known->survived, 0);
	learn_set(&known->garbage, 0);
	__atomic_store_n(&known->granules, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&known->survived_granules, 0, __ATOMIC_RELAXED);
}

/* Conclusions, all under the lock. */

static unsigned share(uint64_t part, uint64_t all)
{
	return all == 0 ? 0 : (unsigned)(part * 100 / all);
}

static enum learn_verdict judge_site(const struct learn_site *site)
{
	bool is_of_size = site->key >> 48;
	unsigned survived = share(learn_get(&site->survived), learn_get(&site->blocks));
	uint64_t least = options.learn;

	/* Nobody would ever free the others. */
	if (learn_get(&site->garbage) > 0)
		return LEARN_REGION;
	/* Not back and forth. */
	if (site->verdict == LEARN_HEAP)
		return survived >= least / 2 && learn_get(&site->survived) > 0 ? LEARN_HEAP : LEARN_REGION;
	if (survived >= (is_of_size ? least : WHOLE_SHARE))
		return LEARN_HEAP;
	return !is_of_size && learn_get(&site->survived) >= SITE_BLOCKS ? LEARN_BY_SIZE : LEARN_REGION;
}

static void report_site(const struct learn_scope *known, const struct learn_site *site)
{
	void *caller = (void *)(site->key & (((uintptr_t)1 << 48) - 1));
	unsigned survived = share(learn_get(&site->survived), learn_get(&site->blocks));
	bool is_learned = site->verdict == LEARN_HEAP;

	if (options.verbose && site->verdict != LEARN_BY_SIZE)
		report("scope \"%s\" (%p): %u%% of the blocks asked for at %p, of %zu bytes or more, outlive it: "
		       "they come from %s",
		       known->name, (void *)(uintptr_t)known->key, survived, caller,
		       (size_t)site->least_granules * GRANULE_BYTES,
		       is_learned ? "the general heap" : "the scope again");
}

/* Has anything changed? */
static bool conclude_site(const struct learn_scope *known, struct learn_site *site)
{
	uint32_t blocks = learn_get(&site->blocks), survived = learn_get(&site->survived);
	enum learn_verdict before = site->verdict;

	if (before == LEARN_BY_SIZE || blocks < SITE_BLOCKS)
		return false;
	enum learn_verdict verdict = judge_site(site);
	__atomic_store_n(&site->verdict, (uint8_t)verdict, __ATOMIC_RELAXED);
	if (verdict != before)
		report_site(known, site);
	/* A few survivors among many wait for more of them. */
	if (verdict == before && survived > 0 && survived < SITE_BLOCKS && verdict == LEARN_REGION)
		return false;
	learn_set(&site->blocks, 0);
	learn_set(&site->survived, 0);
	learn_set(&site->garbage, 0);
	return verdict != before;
}

/* Is what was learned in doubt? */
static bool is_doubtful(const struct learn_site *site)
{
	return site->verdict == LEARN_HEAP && learn_get(&site->blocks) > 0 && learn_get(&site->survived) == 0;
}

static bool conclude_sites(struct learn_scope *known, bool *is_in_doubt)
{
	bool has_changed = false;
	uint32_t learned = 0, least = UINT8_MAX, most = 0;

	for (size_t i = 0; i < SITES; i++) {
		struct learn_site *site = &known->sites[i];
		if (!__atomic_load_n(&site->key, __ATOMIC_ACQUIRE))
			continue;
		has_changed |= conclude_site(known, site);
		*is_in_doubt |= is_doubtful(site);
		if (site->verdict != LEARN_HEAP)
			continue;
		learned++;
		least = site->least_granules < least ? site->least_granules : least;
		most = site->most_granules > most ? site->most_granules : most;
	}
	learn_set(&known->least_granules, least < GRANULE_SHORT_MAX ? least : GRANULE_SHORT_MAX);
	learn_set(&known->most_granules, most);
	learn_set(&known->learned, learned);
	return has_changed;
}

/* Does so much outlive the scope that it is of no use? */
static bool is_useless(const struct learn_scope *known)
{
	uint32_t blocks = learn_get(&known->blocks);
	unsigned of_blocks = share(learn_get(&known->survived), blocks);
	unsigned of_bytes = share(known->survived_granules, known->granules);

	if (options.learn_off == 0 || known->has_calls || blocks < SCOPE_BLOCKS || learn_get(&known->garbage) > 0)
		return false;
	return of_blocks >= options.learn_off || of_bytes >= options.learn_off;
}

static void switch_off(struct learn_scope *known)
{
	if (options.verbose)
		report("scope \"%s\" (%p): %u%% of its blocks and %u%% of its bytes outlive it: it is switched off "
		       "for %u calls",
		       known->name, (void *)(uintptr_t)known->key,
		       share(learn_get(&known->survived), learn_get(&known->blocks)),
		       share(known->survived_granules, known->granules), known->longest_rest);
	__atomic_store_n(&known->rest, (int32_t)known->longest_rest, __ATOMIC_RELAXED);
	known->longest_rest = known->longest_rest < REST_LAST / 2 ? known->longest_rest * 2 : REST_LAST;
	set_state(known, LEARN_OFF);
}

/* Nothing was learned: it takes twice as much until it is watched again. */
static void give_up(struct learn_scope *known)
{
	known->patience = known->patience < PATIENCE_LAST / 2 ? known->patience * 2 : PATIENCE_LAST;
	set_state(known, LEARN_QUIET);
}

static void conclude(struct learn_scope *known)
{
	bool is_in_doubt = false;

	if (is_useless(known)) {
		switch_off(known);
		forget_counts(known);
		return;
	}
	bool has_changed = conclude_sites(known, &is_in_doubt);
	forget_counts(known);
	known->longest_rest = REST_FIRST;
	if (has_changed || is_in_doubt) {
		known->gap = GAP_FIRST;
		sample_densely(known);
	} else if (learn_get(&known->learned) > 0) {
		known->gap = known->gap < GAP_LAST ? known->gap * 2 : GAP_LAST;
	} else {
		give_up(known);
	}
	__atomic_store_n(&known->until, (int32_t)known->gap, __ATOMIC_RELAXED);
}

/* Are the samples taken, and the fate of all their blocks known? */
static bool is_ripe(const struct learn_scope *known)
{
	return learn_get(&known->state) == LEARN_WATCHED && learn_get(&known->open) == 0 &&
	       learn_get(&known->pending) == 0 && learn_get(&known->blocks) > 0 &&
	       __atomic_load_n(&known->samples_due, __ATOMIC_RELAXED) <= 0;
}

void learn_searched(void)
{
	if (!learning.is_active || !lock_try(&learning.lock))
		return;
	learn_resolve_pending();
	for (size_t i = 0; i < SCOPES; i++)
		if (learning.scopes[i].key && is_ripe(&learning.scopes[i]))
			conclude(&learning.scopes[i]);
	lock_release(&learning.lock);
}

/* Entering. */

bool learn_is_off(struct learn_scope *known, struct thread *thread)
{
	/* Inside another scope its blocks would be that one's, which may reclaim them. */
	if (learn_get(&known->state) != LEARN_OFF || (thread && scope_is_open(scope_top(thread->heap))))
		return false;
	if (thread)
		stats_add(&stats_of(thread, known->name)->stats.scopes_off, 1);
	if (__atomic_sub_fetch(&known->rest, 1, __ATOMIC_RELAXED) <= 0 && lock_try(&learning.lock)) {
		if (known->state == LEARN_OFF)
			watch(known);
		lock_release(&learning.lock);
	}
	return true;
}

/* Is this call to be sampled? */
static bool is_due(struct learn_scope *known)
{
	int32_t due = __atomic_load_n(&known->samples_due, __ATOMIC_RELAXED);

	if (due > 0)
		return __atomic_fetch_sub(&known->samples_due, 1, __ATOMIC_RELAXED) > 0;
	/* Nothing new before the last ones are known. */
	if (learn_get(&known->pending) > 0 || __atomic_sub_fetch(&known->until, 1, __ATOMIC_RELAXED) > 0)
		return false;
	__atomic_store_n(&known->until, (int32_t)known->gap, __ATOMIC_RELAXED);
	return true;
}

void learn_opened(struct scope *scope, struct learn_scope *known)
{
	struct thread *thread = scope->thread;

	if (learn_get(&known->state) != LEARN_WATCHED || scope->region.policy->fade == REGION_FADE_NONE)
		return;
	bool is_sample = !thread->sampled && is_due(known) && learn_sample_begins(thread, scope);
	if (!is_sample && learn_get(&known->learned) == 0)
		return;
	if (is_sample)
		learn_count(&known->open, 1);
	scope->learn = known;
	scope->inline_granules = HEAP_WATCHED;
	scope->must_close = true;
	heap_set_watched(thread->heap, scope, is_sample ? 0 : learn_get(&known->least_granules) - 1);
}

/* Leaving. */

static bool is_dense(const struct learn_scope *known)
{
	return __atomic_load_n(&known->samples_due, __ATOMIC_RELAXED) > 0;
}

void learn_closing(struct thread *thread, struct scope *scope)
{
	struct learn_scope *known = scope->learn;

	if (thread->sampled != scope)
		return;
	known->has_calls |= scope->had_calls;
	learn_sample_ends(thread, known, scope->region.policy->fade == REGION_FADE_REACHABLE && reach_is_on());
	learn_count(&known->open, -1);
	if (is_ripe(known) && lock_try(&learning.lock)) {
		if (is_ripe(known))
			conclude(known);
		lock_release(&learning.lock);
	} else if (learn_get(&known->blocks) == 0 && !is_dense(known)) {
		/* It has allocated nothing: another call may. */
		__atomic_store_n(&known->samples_due, 1, __ATOMIC_RELAXED);
	}
}

/* The scope has left something. */
static void note_left(struct scope *scope)
{
	struct learn_scope *known = learn_find(key_of(scope));

	if (known && (known->state != LEARN_QUIET || learn_get(&known->left) + 1 < known->patience)) {
		learn_set(&known->left, learn_get(&known->left) + 1);
		return;
	}
	if (!lock_try(&learning.lock))
		return;
	known = make(scope);
	if (known && known->state == LEARN_QUIET && ++known->left >= known->patience)
		watch(known);
	lock_release(&learning.lock);
}

/* The next call is to come by learn_opened(), if there is anything to know about it. */
static void unready(struct scope *scope)
{
	bool is_nameless = scope->region.policy->name == policies.by_default.name;
	const struct learn_scope *known = learn_find(key_of(scope));

	if ((known && known->state != LEARN_QUIET) || (is_nameless && learning.functions > 0)) {
		scope->ready = NULL;
		scope->ready_for = NULL;
	}
}

void learn_closed(struct thread *thread, struct scope *scope)
{
	struct scope *outer = scope->outer;

	if (scope->learn) {
		scope->learn = NULL;
		while (outer && outer->inline_granules != HEAP_WATCHED)
			outer = outer->outer;
		thread->heap->watched = outer;
	}
	if (thread->has_faded && scope->region.policy->fade != REGION_FADE_NONE)
		note_left(scope);
	if (learning.is_active)
		unready(scope);
}

/* In the child of a fork: samples of threads that aren't there will never end. */
void learn_after_fork_in_child(void)
{
	const struct thread *thread = scope_thread(heap_self());

	for (size_t i = 0; i < SCOPES; i++)
		learning.scopes[i].open = thread && thread->sampled && thread->sampled->learn == &learning.scopes[i];
}
