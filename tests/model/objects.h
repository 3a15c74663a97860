/*
 * objects.h: the model of regions as objects: shared regions, pools and slabs, and plain regions with them.
 *
 *     objects_program.c  what a program can do, and how it is drawn and printed
 *     objects_world.c    threads that take turns; blocks; the end
 *     objects_regions.c  operations on regions and pools
 *     objects_slabs.c    operations on slabs
 *
 * It is a second program for the machinery of model.c, run.c and shrink.c: it has a program_generate() and
 * a world_run() of its own. Its threads always take turns, so every run is exact, and so is what a thread
 * may see of a reset by another one: its blocks of a shared region stay as they are, *ghosts*, until it
 * next allocates from that region. Until then nobody else may be given their memory. (What happens when
 * nobody waits for anybody is tests/stress.)
 */
#ifndef TESTS_MODEL_OBJECTS_H
#define TESTS_MODEL_OBJECTS_H

#include "program.h"
#include "region.h"
#include "report.h"
#include "shadow.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* X(kind, weight). Numbers below are members of struct op. */
#define OBJECTS_MAP(X) \
	X(CREATE, 6)    /* region other = region_create(), plain or shared, maybe a child */ \
	X(DESTROY, 2)   /* region_destroy(region other), or after region_release() */ \
	X(RESET, 4)     /* region_reset() */ \
	X(TAKE, 50)     /* a block, by each function that gives one */ \
	X(RESIZE, 14)   /* region_realloc() */ \
	X(MARK, 4)      /* region_mark() */ \
	X(REWIND, 4)    /* region_rewind() to one of the marks */ \
	X(WITHIN, 6)    /* blocks of malloc in region_within(), some of them freed or kept */ \
	X(FREE, 10)     /* a block of malloc, in a region or faded */ \
	X(ON_END, 5)    /* region_on_end() */ \
	X(PUSH, 6)      /* items into the region's array */ \
	X(INQUIRE, 6)   /* length, capacity, peak, contains */ \
	X(ACQUIRE, 6)   /* region other = region_pool_acquire() */ \
	X(GIVE, 6)      /* region_pool_release() */ \
	X(EXPECT, 2)    /* region_pool_expected(), statistics */ \
	X(POOL_TRIM, 1) /* region_pool_trim() */ \
	X(SLAB_TAKE, 20) /* region_slab_alloc() */ \
	X(ADD_REF, 8)   /* region_slab_add_ref() */ \
	X(DEC_REF, 20)  /* region_slab_dec_ref() */ \
	X(SET_NEXT, 8)  /* region_slab_set_next(), to an older block or none */ \
	X(GET_NEXT, 5)  /* region_slab_get_next() */ \
	X(LOCATE, 5)    /* loc_of and ptr_of, owns, size, refs */ \
	X(SUCCEED, 1)   /* the thread ends, and a new one goes on */ \
	X(LOOK, 1)      /* check every block */ \
	X(TRIM_ALL, 1)  /* malloc_trim() */

enum objects_kind {
#define OBJECTS_ENUM(kind, weight) DO_##kind,
	OBJECTS_MAP(OBJECTS_ENUM)
#undef OBJECTS_ENUM
	OBJECTS_KINDS
};

#define WORLD_REGIONS 8
#define WORLD_POOLS 2
#define POOL_KEYS 4
#define WORLD_SLABS 2
#define SLAB_BLOCKS 128
#define REGION_MARKS 6
#define REGION_CALLS 16

/* A block of a region, or of malloc. */
struct held {
	struct block block; /* the shadow's part, first */
	struct held *next;  /* in its region, newest first, or among the loose ones */
	unsigned thread;    /* that took it */
	unsigned level;     /* marks that there were */
	bool from_malloc;   /* shim_free() takes it */
	bool is_kept;
	bool is_ghost;      /* ended, but its thread hasn't taken notice */
};

struct object;

struct call {
	struct object *object;
	unsigned number; /* counted from the first one */
};

/* A region. */
struct object {
	struct world *world;
	region_t *region;      /* NULL: the place is empty */
	struct object *parent;
	bool is_shared;
	bool fades;            /* malloc's blocks outlive its end */
	int pool;              /* that it came from, or -1 */
	uint64_t key;
	struct held *blocks;   /* ghosts, too */
	region_mark_t marks[REGION_MARKS];
	unsigned marks_calls[REGION_MARKS]; /* calls that there were */
	unsigned mark_count;
	struct call calls[REGION_CALLS];
	unsigned call_count;
	struct region_array array;
	bool has_array;
};

struct pool {
	region_pool_t *pool;
	uint64_t acquired, released;
	size_t largest[POOL_KEYS]; /* peak that was released; 0: none */
};

struct slab_block {
	struct block block; /* first */
	unsigned held;      /* references that the program has */
	unsigned chained;   /* references of blocks before it */
	struct slab_block *next;
	uint64_t age;
};

struct slabs {
	region_slabs_t *slabs;
	struct slab_block *blocks[SLAB_BLOCKS];
	struct region_slab_stats expected;
};

struct actor {
	struct world *world;
	unsigned id;
	size_t cursor;
	pthread_t thread, predecessor;
};

struct world {
	const struct program *program;
	struct report *report;
	struct shadow shadow;
	uint64_t rng; /* picks what to check */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t turn;        /* index of the operation whose turn it is */
	unsigned finished;  /* threads without operations left */
	struct actor actors[PROGRAM_THREADS];
	struct object objects[WORLD_REGIONS];
	struct held *loose; /* blocks of malloc that no region will end */
	struct pool pools[WORLD_POOLS];
	struct slabs slabs[WORLD_SLABS];
	enum region_fade forced_fade;
};

#define CHECK(world, condition, ...) REPORT_CHECK((world)->report, condition, __VA_ARGS__)

/* Runs the program in this process, which ends with REPORT_EXIT_FAILED when a check fails. */
void world_run(const struct program *program, struct report *report);

/* Notes a block that was just given, and fills it. */
struct held *held_new(struct world *world, struct actor *actor, void *p, size_t size);

/* Forgets it, whose memory may be gone; checks it before. */
void held_forget(struct world *world, struct held *held);
void held_drop(struct world *world, struct held *held);

/*
 * Are the blocks of a region as they were filled, and those of the regions below it? Asked before an end:
 * their memory may be gone after it.
 */
void object_check(const struct object *object);
void object_check_tree(const struct object *parent);

/* The operations; each says whether it could do anything. */
typedef bool objects_function(struct actor *actor, const struct op *op);
objects_function do_create, do_destroy, do_reset, do_take, do_resize, do_mark, do_rewind, do_within;
objects_function do_free, do_on_end, do_push, do_inquire, do_acquire, do_give, do_expect, do_pool_trim;
objects_function do_slab_take, do_add_ref, do_dec_ref, do_set_next, do_get_next, do_locate;

/* The thread has ended: who takes over its part of shared regions isn't known. */
void objects_forget_thread(struct world *world, unsigned thread);

/* Makes pools and slabs; ends everything, and compares statistics. */
void objects_begin(struct world *world);
void objects_end(struct world *world);
void slabs_begin(struct world *world);
void slabs_end(struct world *world);

#endif
