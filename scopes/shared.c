/*
 * shared.c: lanes of shared regions.
 *
 * A thread finds its lane in a small table of its own, by the shared region's number, or else in the list
 * of all lanes by its heap. A thread heap outlives its thread, and with it goes the lane: so there are no
 * more lanes than there were threads at once. The list only grows while the region lives.
 *
 * A reset changes the id and then takes away every lane's limit; a lane sets its limit and then looks at
 * the id (extent.c). So one of the two sees the other.
 *
 * A thread past its end has no heap; what it allocates are strays, under the lock.
 */
#include <errno.h>

#include "object.h"

static struct region_object *make_lane(struct region_object *shared, struct heap *heap)
{
	struct region_options given = {
		.name = shared->name, .fade = shared->policy.fade, .growth = shared->growth,
		.buffer_size = (size_t)1 << shared->policy.size_log2, .keep_bytes = shared->keep_bytes,
		.limit_bytes = shared->limit_bytes,
	};
	struct region_object *lane = object_make(&given, shared->has_inline ? REGION_CURSOR_VERSION : 0);

	if (!lane)
		return NULL;
	lane->owner = shared;
	lane->heap = heap;
	lane->generation = lane->within_generation = __atomic_load_n(&shared->at.id, __ATOMIC_ACQUIRE);
	lane->next = __atomic_load_n(&shared->lanes, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&shared->lanes, &lane->next, lane, true, __ATOMIC_SEQ_CST,
	                                    __ATOMIC_RELAXED))
		;
	return lane;
}

static struct region_object *first_lane(const struct region_object *shared)
{
	return __atomic_load_n(&shared->lanes, __ATOMIC_ACQUIRE);
}

static struct region_object *find_lane(struct region_object *shared, const struct heap *heap)
{
	struct region_object *lane = first_lane(shared);

	while (lane && lane->heap != heap)
		lane = lane->next;
	return lane;
}

static __attribute__((noinline)) struct region_object *lane_of_slow(struct region_object *shared)
{
	struct heap *heap = heap_make();
	struct thread *thread = heap ? scope_thread(heap) : NULL;
	struct region_object *lane;

	if (!heap)
		return NULL;
	lane = find_lane(shared, heap);
	if (!lane)
		lane = make_lane(shared, heap);
	if (thread && lane)
		thread->lanes[shared->number % THREAD_LANES] = (struct lane_place){shared->number, lane};
	return lane;
}

struct region_object *lane_of(struct region_object *shared)
{
	struct thread *thread = scope_thread(heap_self());

	if (__builtin_expect(thread != NULL, 1)) {
		const struct lane_place *place = &thread->lanes[shared->number % THREAD_LANES];
		if (__builtin_expect(place->number == shared->number && place->lane, 1))
			return place->lane;
	}
	return lane_of_slow(shared);
}

void lane_notice(struct region_object *lane)
{
	const struct region_object *shared = lane->owner;
	uint64_t generation;

	while ((generation = __atomic_load_n(&shared->at.id, __ATOMIC_ACQUIRE)) != lane->generation) {
		__atomic_store_n(&lane->generation, generation, __ATOMIC_RELEASE);
		OBJECT_SET(lane->at.id, lane->at.id + 1);
		/* What malloc() gives in there is still being used: it goes when the region is next entered. */
		if (!lane->within.thread) {
			within_reset(lane);
			lane->within_generation = generation;
		}
		extent_reset(lane, lane->keep_bytes);
	}
}

void lanes_reset(struct region_object *shared)
{
	object_settle(shared);
	__atomic_add_fetch(&shared->at.id, 1, __ATOMIC_SEQ_CST);
	for (struct region_object *lane = first_lane(shared); lane; lane = lane->next)
		__atomic_store_n(&lane->at.limit, NULL, __ATOMIC_SEQ_CST);
	extent_free_strays(shared);
}

size_t lanes_sum(const struct region_object *shared, size_t (*fn)(const struct region_object *))
{
	uint64_t generation = __atomic_load_n(&shared->at.id, __ATOMIC_ACQUIRE);
	size_t sum = 0;

	for (const struct region_object *lane = first_lane(shared); lane; lane = lane->next)
		if (__atomic_load_n(&lane->generation, __ATOMIC_ACQUIRE) == generation)
			sum += fn(lane);
	return sum;
}

region_t *region_local(region_t *region)
{
	return object_own(region, "region_local");
}
