/*
 * object.h: regions as objects. Private to scopes/.
 *
 * An object has two halves. What region_alloc() gives lies in bare buffers (core/bare.h): the map knows
 * nothing of it, so the bump is a compare and a store, inlined from region_objects.h. What malloc() gives
 * inside region_within() lies in a region like that of a scope, whose record the object brings along: so
 * code that only knows malloc and free finds what it finds in any scope. Both halves have one lifetime,
 * one limit and one name.
 *
 * The bare half: one list of buffers, those with blocks in them first, up to the newest; behind it those
 * that a reset or rewinding has emptied. The header bumps in one extent, from cursor to limit. Other free
 * extents, the *gaps*, are kept aside, a few of them: a long block that doesn't fit is served from a gap,
 * and the shorter ones go on in the extent; the rest of a buffer serves somebody still. So finding room
 * costs the same however many buffers are full.
 *
 * The length is the cursor's distance from `origin`, which moves when the cursor leaps.
 *
 * A shared region bumps nowhere. Each thread heap has a *lane* of it: an object of its own, with shared
 * buffers for nobody. A reset changes the shared region's id and takes the lanes' limits away, so
 * each lane comes by region_alloc_slow(), sees that it is late, and resets itself. Only its own thread ever
 * touches a lane's buffers; therefore no lock, and nobody is given memory that another thread still bumps in.
 */
#ifndef LIBREGION_OBJECT_H
#define LIBREGION_OBJECT_H

#include "scope.h"

#define OBJECT_GAPS 8
#define OBJECT_BUFFER_MAX ((size_t)1 << BUFFER_MAX_LOG2)

struct extent {
	char *lo, *hi;
};

/* region_mark(): how to find back. */
struct mark {
	struct mark *older;
	uint64_t serial;
	struct extent at; /* cursor and limit */
	size_t len;
	struct span *newest;
	unsigned gap_count;
	struct extent gaps[OBJECT_GAPS];
	void *strays;
	struct exit_call *calls;
	struct region within; /* the other half, sealed */
};

enum object_state { OBJECT_LIVE, OBJECT_ENDING, OBJECT_RELEASED };

struct region_object {
	struct region_cursor at; /* the header knows it; its limit may be NULL to make that call */
	bool is_shared;
	bool has_inline;         /* the program knows this layout */
	uint8_t state;           /* enum object_state */
	char *limit;
	uintptr_t origin;        /* the cursor's distance from it is the length */
	struct span *buffers;    /* in the order of their use, */
	struct span *newest;     /* up to this one; NULL: none is in use */
	struct exit_call *calls;
	struct mark *marks;      /* newest first */
	void *strays;            /* blocks of the general heap, linked by their first word */
	struct region_object *children;
	size_t peak_bytes;       /* that has been noted */
	size_t held_bytes;       /* of all buffers */
	size_t next_bytes;       /* of the next buffer */
	size_t limit_bytes, keep_bytes;
	uint64_t number;         /* no two have the same */
	uint64_t generation;     /* of a lane: the shared region's id when it was last reset */
	uint64_t within_generation; /* likewise its other half */
	uint64_t total_bytes;    /* of all resets before */
	unsigned gap_count;
	struct extent gaps[OBJECT_GAPS];

	const char *name;
	unsigned growth;
	struct region_object *parent, *next_sibling, **link; /* link: what points to it */
	struct region_object *inner; /* a child that serves where the region is current further out */

	struct region_object *owner; /* of a lane: the shared region */
	struct region_object *lanes; /* of a shared region: all of them, linked by next */
	struct region_object *next;  /* lane, dead record, region in its pool */
	struct heap *heap;           /* of a lane: whose it is */

	struct region_pool *pool;    /* that it came from, and for which key */
	uint64_t key, idle_since_ms;

	size_t sealed_bytes, sealed_held_bytes; /* of the other half: what marks have put aside */
	size_t shown_bytes, shown_held_bytes;   /* of the other half of a lane: for other threads */
	struct counters *counters;   /* of the other half, in the thread that opened it last */
	const struct thread *counting;
	struct policy policy;        /* of the other half */
	struct scope within;         /* the other half; its thread is NULL unless it is open */
};

static_assert(offsetof(struct region_object, at) == 0, "the header knows the first words");

/*
 * Words of a lane that other threads read, or write: the limit that the header sees. Nobody relies on an
 * order between them.
 */
#define OBJECT_SET(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)
#define OBJECT_GET(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)

/* Bytes in the bare half. */
static inline size_t object_len(const struct region_object *region)
{
	return (uintptr_t)OBJECT_GET(region->at.cursor) - OBJECT_GET(region->origin);
}

/* Bytes of blocks in the other half, and of its buffers. Of a lane: when it was last left. */
static inline size_t within_len(const struct region_object *region)
{
	return region->owner ? OBJECT_GET(region->shown_bytes)
	                     : region->within.region.bumped_bytes + region->sealed_bytes;
}

static inline size_t within_held(const struct region_object *region)
{
	return region->owner ? OBJECT_GET(region->shown_held_bytes)
	                     : region->within.region.held_bytes + region->sealed_held_bytes;
}

/*
 * The largest length of both halves since the last reset. It is noted before the length falls, and before
 * what it is reckoned from changes; the header, when it takes the cursor back, notes the place.
 */
static inline size_t object_peak(const struct region_object *region)
{
	char *cursor = OBJECT_GET(region->at.cursor), *high = OBJECT_GET(region->at.high);
	size_t peak = OBJECT_GET(region->peak_bytes);
	size_t len = (uintptr_t)(high > cursor ? high : cursor) - OBJECT_GET(region->origin) + within_len(region);

	return peak > len ? peak : len;
}

static inline void object_note_peak(struct region_object *region)
{
	OBJECT_SET(region->peak_bytes, object_peak(region));
	OBJECT_SET(region->at.high, NULL);
}

/* object.c */

/*
 * The region that the calling thread allocates from: itself, or its lane. NULL, and it is reported, if it has
 * ended; errno says that, or that memory is out.
 */
struct region_object *object_own(struct region_object *region, const char *call);

/* The region, or of a lane its shared region; NULL, and it is reported, if it has ended or is just ending. */
struct region_object *object_whole(const struct region_object *region, const char *call);

/* A record without buffers; the parent may be NULL. NULL: out of memory. */
struct region_object *object_make(const struct region_options *given, unsigned cursor_version);

/* Ends all blocks, keeping buffers of up to so many bytes. */
void object_reset(struct region_object *region, size_t keep_bytes);

/* What comes first: children, calls, marks, the other half. */
void object_settle(struct region_object *region);

/* Gives all buffers back, and the record. */
void object_destroy(struct region_object *region);

/* Runs the calls of region_on_end() down to `until`. */
void object_run_calls(struct region_object *region, const struct exit_call *until);

/* Is it open in region_within(), or just being reset? Then false, and that is reported. */
bool object_may_be_reset(const struct region_object *region, const char *call);

/* A region that was just reset isn't to be used; it is again, with room for so many bytes in its extent. */
void object_lay_aside(struct region_object *region);
void object_revive(struct region_object *region, size_t bytes);

/* Counts a stray. */
void object_count_stray(const struct region_object *region, bool is_over_limit);

/* Guards the records, the tree, and the strays of shared regions. */
struct lock *object_lock(void);

/* shared.c: lanes. */

/* The calling thread's lane, made if need be. NULL: out of memory, or the thread is past its end. */
struct region_object *lane_of(struct region_object *shared);

/* Resets a lane if its shared region has been reset. */
void lane_notice(struct region_object *lane);

/* Makes all threads take notice of a reset. */
void lanes_reset(struct region_object *shared);

/* Sums over the lanes. */
size_t lanes_sum(const struct region_object *shared, size_t (*fn)(const struct region_object *lane));

/* within.c: the other half. */

/* Ends its blocks; they fade or are reclaimed. It isn't open. */
void within_reset(struct region_object *region);

/* Is it open, in a thread that there is still? */
bool within_is_open(const struct region_object *region);

void within_mark(struct region_object *region, struct mark *mark);
void within_rewind(struct region_object *region, const struct mark *mark);

/* extent.c: the bare half of a region that isn't a shared one. */

/* A block by the way that the header leaves. NULL: out of memory. */
void *extent_alloc(struct region_object *region, size_t size, size_t align);

/* Frees the strays of a shared region. */
void extent_free_strays(struct region_object *shared);

/* A block that is a stray. */
void *extent_alloc_stray(struct region_object *region, size_t size, size_t align);

/* Ends all blocks. Buffers of up to keep_bytes are kept, and the next block comes from them. */
void extent_reset(struct region_object *region, size_t keep_bytes);

/* Makes the first buffer ready, with `bytes` at least, and `count` - 1 more. */
void extent_prepare(struct region_object *region, size_t bytes, size_t count);

/* Lets the header bump again, in an extent of at least so many bytes. */
void extent_revive(struct region_object *region, size_t bytes);

/* Fills in a mark; goes back to one. */
void extent_mark(struct region_object *region, struct mark *mark);
void extent_rewind(struct region_object *region, const struct mark *mark);

#endif
