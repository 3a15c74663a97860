/*
 * shadow.h: what the model knows of the blocks that live, in an array sorted by address.
 *
 * A block enters the array after the allocator has handed it out and leaves it before it is given back,
 * so two neighbours that overlap are always a finding, with many threads too. All of a block's usable
 * size counts. The lock guards the array and the members of blocks that say so; the rest of a block
 * belongs to the thread that holds it.
 */
#ifndef TESTS_MODEL_SHADOW_H
#define TESTS_MODEL_SHADOW_H

#include "report.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame;

struct block {
	char *p;
	uint64_t id;         /* seed of the pattern in it */
	size_t size;         /* bytes that hold the pattern */
	size_t requested;    /* bytes asked for; less than size once it was stretched */
	size_t usable;       /* malloc_usable_size() */
	size_t align;        /* asked for; 0: none */
	bool is_sized;       /* free_sized() and free_aligned_sized() may be told its size */
	bool is_unsure;      /* a foreign, open scope may or may not own it: don't ask */
	struct block **slot; /* where the thread that holds it keeps it, or NULL */
	struct frame *owner; /* the open scope whose end settles its fate, or NULL. Under the lock. */
};

struct shadow {
	struct report *report;
	pthread_mutex_t lock;
	struct block **sorted; /* by address */
	size_t count;
	size_t capacity;
	size_t live_bytes;
	uint64_t next_id;
};

void shadow_init(struct shadow *shadow, struct report *report);

/* Whether another `bytes` are within what one program may hold at once. */
bool shadow_has_room(struct shadow *shadow, size_t bytes);

/* Checks that the block overlaps no other one, and notes it; a new one (id 0) gets its id. */
void shadow_insert(struct shadow *shadow, struct block *block);

/* The block is about to be given back. It stays the caller's. */
void shadow_remove(struct shadow *shadow, struct block *block);

struct frame *shadow_owner(struct shadow *shadow, const struct block *block);

/* Checks that bytes from..to of the block still are what was written. */
void shadow_check_bytes(struct shadow *shadow, const struct block *block, size_t from, size_t to);

/* The same for all of it. */
void shadow_check_contents(struct shadow *shadow, const struct block *block);

/* The same for its ends: cheap enough to be done after every operation. */
void shadow_check_ends(struct shadow *shadow, const struct block *block);

/* A block picked by `at`, any number; NULL when there are none. The caller holds the lock. */
struct block *shadow_pick(struct shadow *shadow, uint64_t at);

#endif
