/*
 * extent.c: the bare half of a region as an object: where the next block comes from once the extent that
 * the header bumps in has no room for it.
 *
 *   1. the smallest gap with room;
 *   2. a buffer that reset has kept;
 *   3. a new buffer;
 *   4. over the byte limit, or out of memory for buffers: the general heap. Such a block is a stray.
 *
 * A long block is served there, and the header goes on bumping in its extent as long as that has room for
 * short ones. Otherwise the extent is changed, and what is left of it is a gap. Of too many gaps the
 * smallest is forgotten, until the next reset.
 *
 * Where there are marks, a granule is left out whenever the cursor is set: so no block that came before
 * the mark ends at the cursor, and none can grow or be given up across it.
 */
#include <string.h>

#include "object.h"

/* Less isn't worth a change of the extent. */
#define GAP_MIN_BYTES ((size_t)1024)

/* Blocks above this part of a buffer are long. */
#define LONG_PART 64

/* The newest buffer is such a part of what is held. */
#define HELD_PART 64

#define EMPTY_LOOKS 4

static size_t extent_bytes(struct extent extent)
{
	return (size_t)(extent.hi - extent.lo);
}

/* The header's limit must not come back after a reset of the shared region took it away. */
static void publish_limit(struct region_object *region)
{
	OBJECT_SET(region->at.limit, region->has_inline ? region->limit : NULL);
	if (!region->owner)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (OBJECT_GET(region->owner->at.id) != region->generation)
		OBJECT_SET(region->at.limit, NULL);
}

/* Goes on bumping there; the length stays. */
static void enter(struct region_object *region, struct extent extent)
{
	size_t len = object_len(region);

	object_note_peak(region);
	OBJECT_SET(region->at.cursor, extent.lo);
	OBJECT_SET(region->origin, (uintptr_t)extent.lo - len);
	region->limit = extent.hi;
	publish_limit(region);
}

/* Makes the length so much more, while the cursor stays. */
static void lengthen(struct region_object *region, size_t bytes)
{
	object_note_peak(region);
	OBJECT_SET(region->origin, region->origin - bytes);
}

static char *align_up(char *p, size_t align)
{
	return (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
}

/* Takes a block off the front of an extent, or NULL. */
static char *take(struct extent *extent, size_t bytes, size_t align)
{
	char *p = align_up(extent->lo, align);

	if (!extent->lo || p > extent->hi || (size_t)(extent->hi - p) < bytes)
		return NULL;
	extent->lo = p + bytes;
	return p;
}

static char *bump(struct region_object *region, size_t bytes, size_t align)
{
	struct extent extent = {region->at.cursor, region->limit};
	char *p = take(&extent, bytes, align);

	if (p)
		OBJECT_SET(region->at.cursor, extent.lo);
	return p;
}

/* Gaps. */

/* The smallest gap with room for so many bytes, or NULL. */
static struct extent *smallest_gap(struct region_object *region, size_t bytes)
{
	struct extent *best = NULL;

	for (struct extent *gap = region->gaps; gap < region->gaps + region->gap_count; gap++)
		if (extent_bytes(*gap) >= bytes && (!best || extent_bytes(*gap) < extent_bytes(*best)))
			best = gap;
	return best;
}

static struct extent take_gap(struct region_object *region, struct extent *gap)
{
	struct extent taken = *gap;

	*gap = region->gaps[--region->gap_count];
	return taken;
}

/* Puts an extent aside, if it is worth it; of too many the smallest is forgotten. */
static void park(struct region_object *region, struct extent extent)
{
	if (extent_bytes(extent) < GAP_MIN_BYTES)
		return;
	if (region->gap_count == OBJECT_GAPS) {
		struct extent *gap = smallest_gap(region, 0);
		if (extent_bytes(extent) > extent_bytes(*gap))
			*gap = extent;
		return;
	}
	region->gaps[region->gap_count++] = extent;
}

/* Buffers. */

static bool has_room(const struct span *span, size_t bytes)
{
	return (size_t)(span_end(span) - bare_begin(span)) >= bytes;
}

/* Where the list goes on behind the newest buffer: with those that are empty. */
static struct span **behind_newest(struct region_object *region)
{
	return region->newest ? &region->newest->next : &region->buffers;
}

static void insert(struct span **link, struct span *span)
{
	span->next = *link;
	*link = span;
}

/* Takes an empty buffer with room out of the list; only a few are looked at. NULL: none. */
static struct span *take_empty(struct span **link, size_t bytes)
{
	for (int i = 0; *link && i < EMPTY_LOOKS; i++, link = &(*link)->next)
		if (has_room(*link, bytes)) {
			struct span *span = *link;
			*link = span->next;
			return span;
		}
	return NULL;
}

static size_t held_by(const struct region_object *lane)
{
	return OBJECT_GET(lane->held_bytes) + within_held(lane);
}

/* What the other half holds counts, too, and what other lanes do. */
static size_t bytes_left(const struct region_object *region)
{
	size_t held = held_by(region);

	if (region->limit_bytes == SIZE_MAX)
		return SIZE_MAX;
	if (region->owner)
		held = lanes_sum(region->owner, held_by);
	return held < region->limit_bytes ? region->limit_bytes - held : 0;
}

/* Of the buffer after the next. Unless the program says how they grow, the newest is a small part of all. */
static size_t next_bytes(const struct region_object *region)
{
	size_t part = region->held_bytes / HELD_PART;

	if (region->growth)
		return region->next_bytes / 100 * region->growth;
	return part > region->next_bytes ? part : region->next_bytes;
}

static struct span *make_buffer(struct region_object *region, size_t bytes)
{
	size_t wanted = bytes + GRANULE_BYTES;
	bool grows = wanted <= region->next_bytes;
	struct span *span = NULL;

	if (grows)
		wanted = region->next_bytes;
	if (wanted <= bytes_left(region))
		span = bare_take(heap_make(), wanted, region, region->name);
	if (!span)
		return NULL;
	OBJECT_SET(region->held_bytes, region->held_bytes + span_bytes(span));
	size_t next = next_bytes(region);
	if (grows)
		region->next_bytes = next < OBJECT_BUFFER_MAX ? next : OBJECT_BUFFER_MAX;
	return span;
}

static void drop_buffer(struct region_object *region, struct span *span)
{
	OBJECT_SET(region->held_bytes, region->held_bytes - span_bytes(span));
	bare_put(heap_make(), span);
}

/* Of the empty buffers, drops those that would make it more than keep_bytes. */
static void trim(struct region_object *region, size_t keep_bytes)
{
	struct span **link = behind_newest(region);

	while (*link) {
		struct span *span = *link;
		if (span_bytes(span) <= keep_bytes) {
			keep_bytes -= span_bytes(span);
			link = &span->next;
			continue;
		}
		*link = span->next;
		drop_buffer(region, span);
	}
}

/* Blocks. */

/* A stray begins with a link, as long as its alignment. */
static void *alloc_stray(struct region_object *region, size_t bytes, size_t align)
{
	char *base = bytes + align < bytes ? NULL : heap_alloc_aligned(align, bytes + align);

	if (!base)
		return NULL;
	object_count_stray(region, bytes_left(region) < region->next_bytes);
	/* Of a shared region only threads past their end come here. */
	if (region->is_shared)
		lock_acquire(object_lock());
	*(void **)base = region->strays;
	region->strays = base;
	lengthen(region, bytes);
	if (region->is_shared)
		lock_release(object_lock());
	return base + align;
}

static void free_strays(struct region_object *region, const void *until)
{
	while (region->strays != until) {
		void *base = region->strays;
		region->strays = *(void **)base;
		heap_free(base, "region_reset");
	}
}

void extent_free_strays(struct region_object *shared)
{
	lock_acquire(object_lock());
	void *list = shared->strays;
	shared->strays = NULL;
	OBJECT_SET(shared->origin, 0);
	lock_release(object_lock());
	while (list) {
		void *base = list;
		list = *(void **)base;
		heap_free(base, "region_reset");
	}
}

/* A buffer with room, which isn't in the list any more, or not yet. NULL: over the limit, or no memory. */
static struct span *find_buffer(struct region_object *region, struct span **empty, size_t bytes)
{
	struct span *span = take_empty(empty, bytes);

	return span ? span : make_buffer(region, bytes);
}

static struct extent use_buffer(struct region_object *region, struct span **link, struct span *span)
{
	insert(link, span);
	region->newest = span;
	return (struct extent){bare_begin(span), span_end(span)};
}

static bool find_extent(struct region_object *region, size_t bytes, struct extent *extent)
{
	struct extent *gap = smallest_gap(region, bytes);
	struct span **behind = behind_newest(region), *span;

	if (gap) {
		*extent = take_gap(region, gap);
		return true;
	}
	span = find_buffer(region, behind, bytes);
	if (span)
		*extent = use_buffer(region, behind, span);
	return span != NULL;
}

static void *alloc_slow(struct region_object *region, size_t bytes, size_t align)
{
	struct extent old = {region->at.cursor, region->limit}, extent;
	size_t part = region->next_bytes / LONG_PART, fence = region->marks ? GRANULE_BYTES : 0;

	if (!find_extent(region, bytes + align - GRANULE_BYTES + fence, &extent))
		return alloc_stray(region, bytes, align);
	if (bytes > part && extent_bytes(old) >= part) {
		char *lo = extent.lo, *p = take(&extent, bytes, align);
		lengthen(region, (size_t)(extent.lo - lo));
		park(region, extent);
		return p;
	}
	extent.lo += fence;
	enter(region, extent);
	park(region, old);
	return bump(region, bytes, align);
}

/* Rounds a size up; 0: too big, so that there is room for a fence or the link of a stray. */
static size_t rounded(size_t size, size_t align)
{
	size_t bytes = (size + !size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);

	return bytes >= size && bytes <= PTRDIFF_MAX / 2 && align <= PTRDIFF_MAX / 4 ? bytes : 0;
}

void *extent_alloc(struct region_object *region, size_t size, size_t align)
{
	size_t bytes = rounded(size, align);
	void *p = bytes ? bump(region, bytes, align) : NULL;

	return p || !bytes ? p : alloc_slow(region, bytes, align);
}

void *extent_alloc_stray(struct region_object *region, size_t size, size_t align)
{
	size_t bytes = rounded(size, align);

	return bytes ? alloc_stray(region, bytes, align) : NULL;
}

/* The end. */

/* The header has nothing to bump in, and the length is `len`. */
static void leave(struct region_object *region, size_t len)
{
	region->limit = NULL;
	OBJECT_SET(region->at.limit, NULL);
	OBJECT_SET(region->at.cursor, NULL);
	OBJECT_SET(region->origin, 0 - len);
}

/* Of a region without blocks. What has the room comes first. */
void extent_prepare(struct region_object *region, size_t bytes, size_t count)
{
	struct span *span = find_buffer(region, &region->buffers, bytes);

	if (!span)
		return;
	enter(region, use_buffer(region, &region->buffers, span));
	for (size_t i = 1; i < count && (span = make_buffer(region, bytes)); i++)
		insert(behind_newest(region), span);
}

void extent_revive(struct region_object *region, size_t bytes)
{
	if ((size_t)(region->limit - region->at.cursor) >= bytes)
		publish_limit(region);
	else
		extent_prepare(region, bytes, 1);
}

/* Goes back to the first buffer. */
static void rewind_buffers(struct region_object *region)
{
	struct span *span = region->newest = region->buffers;

	OBJECT_SET(region->at.cursor, bare_begin(span));
	OBJECT_SET(region->origin, (uintptr_t)bare_begin(span));
	region->limit = span_end(span);
	publish_limit(region);
}

void extent_reset(struct region_object *region, size_t keep_bytes)
{
	region->total_bytes += object_len(region);
	region->gap_count = 0;
	OBJECT_SET(region->peak_bytes, 0);
	OBJECT_SET(region->at.high, NULL);
	if (region->strays || region->held_bytes > keep_bytes || !region->buffers) {
		leave(region, 0);
		free_strays(region, NULL);
		region->newest = NULL;
		trim(region, keep_bytes);
	}
	if (region->buffers)
		rewind_buffers(region);
}

/* Marks. */

void extent_mark(struct region_object *region, struct mark *mark)
{
	mark->at = (struct extent){region->at.cursor, region->limit};
	mark->len = object_len(region);
	/* The fence: no block ends at the cursor from now on. */
	bump(region, GRANULE_BYTES, GRANULE_BYTES);
	mark->newest = region->newest;
	mark->strays = region->strays;
	mark->gap_count = region->gap_count;
	memcpy(mark->gaps, region->gaps, region->gap_count * sizeof(mark->gaps[0]));
}

void extent_rewind(struct region_object *region, const struct mark *mark)
{
	free_strays(region, mark->strays);
	region->gap_count = mark->gap_count;
	memcpy(region->gaps, mark->gaps, mark->gap_count * sizeof(mark->gaps[0]));
	region->newest = mark->newest;
	leave(region, mark->len);
	enter(region, mark->at);
	if (region->held_bytes > region->keep_bytes)
		trim(region, region->keep_bytes);
}
