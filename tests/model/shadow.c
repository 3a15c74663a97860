/*
 * shadow.c: the sorted array of live blocks, and the checks of what is in them.
 */
#include "shadow.h"

#include "pattern.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIVE_BYTES_MOST ((size_t)48 << 20)
#define END_BYTES ((size_t)512)

void report_failure(struct report *report, const char *format, ...)
{
	const char *none = NULL;
	if (!atomic_compare_exchange_strong(&report->failure, &none, format))
		for (;;)
			pause(); /* another thread was first, and ends the process */
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(report->text, sizeof report->text, format, arguments);
	va_end(arguments);
	_exit(REPORT_EXIT_FAILED);
}

void shadow_init(struct shadow *shadow, struct report *report)
{
	*shadow = (struct shadow){.report = report, .next_id = 1};
	pthread_mutex_init(&shadow->lock, NULL);
}

bool shadow_has_room(struct shadow *shadow, size_t bytes)
{
	pthread_mutex_lock(&shadow->lock);
	bool room = shadow->live_bytes + bytes <= LIVE_BYTES_MOST;
	pthread_mutex_unlock(&shadow->lock);
	return room;
}

/* Index of the first block at or above p. */
static size_t position_of(const struct shadow *shadow, const char *p)
{
	size_t low = 0;
	size_t high = shadow->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (shadow->sorted[middle]->p < p)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Where the block ends; an empty one too has an address of its own. */
static const char *end_of(const struct block *block)
{
	return block->p + (block->usable ? block->usable : 1);
}

static void check_apart(struct shadow *shadow, const struct block *low, const struct block *high)
{
	REPORT_CHECK(shadow->report, end_of(low) <= high->p,
	             "overlap: block %llu at %p with %zu usable bytes, and block %llu at %p with %zu",
	             (unsigned long long)low->id, (void *)low->p, low->usable,
	             (unsigned long long)high->id, (void *)high->p, high->usable);
}

static void make_room_for_one(struct shadow *shadow)
{
	if (shadow->count < shadow->capacity)
		return;
	shadow->capacity = shadow->capacity ? 2 * shadow->capacity : 256;
	shadow->sorted = realloc(shadow->sorted, shadow->capacity * sizeof *shadow->sorted);
	if (!shadow->sorted)
		abort();
}

void shadow_insert(struct shadow *shadow, struct block *block)
{
	pthread_mutex_lock(&shadow->lock);
	if (block->id == 0)
		block->id = shadow->next_id++;
	make_room_for_one(shadow);
	size_t at = position_of(shadow, block->p);
	if (at > 0)
		check_apart(shadow, shadow->sorted[at - 1], block);
	if (at < shadow->count)
		check_apart(shadow, block, shadow->sorted[at]);
	memmove(shadow->sorted + at + 1, shadow->sorted + at,
	        (shadow->count - at) * sizeof *shadow->sorted);
	shadow->sorted[at] = block;
	shadow->count++;
	shadow->live_bytes += block->usable;
	pthread_mutex_unlock(&shadow->lock);
}

void shadow_remove(struct shadow *shadow, struct block *block)
{
	pthread_mutex_lock(&shadow->lock);
	size_t at = position_of(shadow, block->p);
	shadow->count--;
	memmove(shadow->sorted + at, shadow->sorted + at + 1,
	        (shadow->count - at) * sizeof *shadow->sorted);
	shadow->live_bytes -= block->usable;
	pthread_mutex_unlock(&shadow->lock);
}

struct frame *shadow_owner(struct shadow *shadow, const struct block *block)
{
	pthread_mutex_lock(&shadow->lock);
	struct frame *owner = block->owner;
	pthread_mutex_unlock(&shadow->lock);
	return owner;
}

void shadow_check_bytes(struct shadow *shadow, const struct block *block, size_t from, size_t to)
{
	size_t at = pattern_damage(block->p, from, to, block->id);
	if (at == PATTERN_INTACT)
		return;
	report_failure(shadow->report,
	               "damage: block %llu at %p, %zu bytes, of %zu asked for, has changed at offset %zu",
	               (unsigned long long)block->id, (void *)block->p, block->size, block->requested,
	               at);
}

void shadow_check_contents(struct shadow *shadow, const struct block *block)
{
	shadow_check_bytes(shadow, block, 0, block->size);
}

void shadow_check_ends(struct shadow *shadow, const struct block *block)
{
	size_t head = block->size < END_BYTES ? block->size : END_BYTES;
	size_t tail = block->size < 2 * END_BYTES ? head : block->size - END_BYTES;
	shadow_check_bytes(shadow, block, 0, head);
	shadow_check_bytes(shadow, block, tail, block->size);
}

struct block *shadow_pick(struct shadow *shadow, uint64_t at)
{
	return shadow->count ? shadow->sorted[at % shadow->count] : NULL;
}
