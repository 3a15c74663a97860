/*
 * learn.h: learning which call sites' blocks outlive their scopes. Private to scopes/.
 *
 *     learn.c        scopes: which are watched, which are switched off, and what is concluded
 *     learn_site.c   call sites of a scope: sampling their blocks, and serving them while it is watched
 *
 * A block that outlives its scope costs more than one of the general heap ever would. So a scope that keeps
 * leaving blocks is *watched*: in some of its calls, one after another at first, each block is noted with
 * the call site that has asked for it, the return address of malloc. At the end of the call the granule
 * map tells which of them live; under `reachable` a search tells later which of those were garbage. Call
 * sites whose blocks mostly survive are *learned*: from then on the general heap serves them. Now and then a
 * call is sampled again, with all of its blocks in the scope, so that what has changed is unlearned.
 *
 * Where a site's blocks survive in part (a wrapper such as xmalloc is one site for all), the site is taken
 * apart by size. Blocks that a search has reclaimed are never learned, nor is a scope that has any switched
 * off: the general heap would keep them for ever.
 *
 * A scope most of whose blocks survive serves nobody: it is switched off, its calls are plain ones, and it
 * is tried again after a number of calls that doubles each time.
 *
 * What it costs: a scope that leaves nothing is never seen here. A watched one is opened the slow way, and
 * its blocks take the slow path (HEAP_WATCHED), but for those that are shorter than any of a learned site.
 * Records and sites are read without a lock and never removed; who concludes holds one, which nobody waits
 * for.
 */
#ifndef LIBREGION_LEARN_H
#define LIBREGION_LEARN_H

#include "scope.h"

enum learn_verdict { LEARN_REGION, LEARN_HEAP, LEARN_BY_SIZE };

struct learn_site {
	uintptr_t key;    /* the return address; above its 48 bits the granules, if it is for one size; 0: none */
	uint32_t blocks;  /* that were sampled since the last conclusion, */
	uint32_t survived;
	uint32_t garbage; /* and that a search has reclaimed */
	uint8_t verdict;  /* enum learn_verdict */
	uint8_t least_granules; /* of its blocks, the shortest and the longest */
	uint16_t most_granules;
};

enum learn_state { LEARN_QUIET, LEARN_WATCHED, LEARN_OFF };

/* What is known of a scope that has left blocks. */
struct learn_scope {
	const void *key;     /* the scope's name, or the function of region_do(); NULL: none */
	const char *name;
	struct learn_site *sites;
	uint32_t state;      /* enum learn_state */
	uint32_t left;       /* QUIET: calls that have left something, */
	uint32_t patience;   /* and how many it takes to be watched */
	int32_t samples_due; /* WATCHED: calls to sample, one after another */
	int32_t until;       /* and calls to the next one after those */
	uint32_t gap;
	uint32_t open;       /* samples under way */
	uint32_t pending;    /* blocks that wait for a search */
	uint32_t stride;     /* one in so many blocks is noted */
	int32_t rest;        /* OFF: calls until it is tried again */
	uint32_t longest_rest;
	uint32_t site_count;
	uint32_t learned;        /* sites */
	uint32_t least_granules, most_granules; /* of their blocks */
	uint32_t blocks, survived, garbage; /* sampled since the last conclusion */
	uint64_t granules, survived_granules;
	bool is_function;
	bool has_calls;      /* region_on_exit() is used in it: it must be a scope */
};

/* Blocks of the call that a thread is sampling. */
#define LEARN_SLOTS 4096u

struct learn_sample {
	char *block;
	struct learn_site *site;
};

#define LEARN_SCOPES 256u

extern struct learning {
	bool is_on;        /* by the options */
	bool is_active;    /* some scope is or was watched */
	uint32_t functions; /* of region_do() that are */
	struct lock lock;
	uint32_t count;
	struct learn_scope scopes[LEARN_SCOPES]; /* open addressing by their keys */
} learning __attribute__((visibility("hidden")));

void learn_start(void);

/* What a scope is known by. */
static inline const void *learn_key(const struct region_options *given, const void *called)
{
	if (given && given->name)
		return given->name;
	return called ? called : policies.by_default.name;
}

/* The record of a scope, or NULL. */
struct learn_scope *learn_find(const void *key);

/* Is the scope that is about to be entered switched off? Counts the call. */
bool learn_is_off(struct learn_scope *known, struct thread *thread);

/* A scope has been opened that there is a record of. */
void learn_opened(struct scope *scope, struct learn_scope *known);

/* An open scope is about to end its region, and has done so and isn't the top one any more. */
void learn_closing(struct thread *thread, struct scope *scope);
void learn_closed(struct thread *thread, struct scope *scope);

/* A search has been made, and nothing has come of it yet. */
void learn_searched(void);

struct lock *learn_lock(void);
void learn_after_fork_in_child(void);

/* learn_site.c */

/* The site of a key; NULL: it isn't known, or, if it is to be made, there is no room. */
struct learn_site *learn_site_of(struct learn_scope *known, uintptr_t key, bool make);

/* Begins to note a call's blocks. False: there is no memory for it. */
bool learn_sample_begins(struct thread *thread, struct scope *scope);

/* Counts the blocks that were noted, as far as their fate is known now: under the policy `reachable` what
 * lives waits for a search, if it `waits`. */
void learn_sample_ends(struct thread *thread, struct learn_scope *known, bool waits);

/* Under the lock, after a search: counts blocks that have waited for it. */
void learn_resolve_pending(void);

/* Counts a sampled block's fate. */
static inline void learn_count(uint32_t *counter, int n)
{
	__atomic_fetch_add(counter, (uint32_t)n, __ATOMIC_RELAXED);
}

static inline uint32_t learn_get(const uint32_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline void learn_set(uint32_t *counter, uint32_t n)
{
	__atomic_store_n(counter, n, __ATOMIC_RELAXED);
}

#endif
