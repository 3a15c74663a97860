/*
 * block.c: blocks of regions as objects: what region_alloc() leaves, and its kin.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "object.h"

static __attribute__((noinline)) void *alloc(region_t *given, size_t size, size_t align, const char *call)
{
	struct region_object *region = object_own(given, call);
	void *p = NULL;

	if (region)
		p = extent_alloc(region, size, align);
	/* A thread past its end has no lane. */
	else if (given->is_shared && heap_self() == &heap_dead)
		p = extent_alloc_stray(given, size, align);
	else
		return NULL;
	if (!p)
		errno = ENOMEM;
	return p;
}

void *region_alloc_slow(region_t *region, size_t size)
{
	struct region_object *lane = region->is_shared ? lane_of(region) : NULL;

	/* The bump that the header has, in the lane; what it leaves comes here again. */
	if (__builtin_expect(lane != NULL, 1))
		return region_alloc(lane, size);
	return alloc(region, size, GRANULE_BYTES, "region_alloc");
}

void *region_calloc(region_t *region, size_t count, size_t size)
{
	size_t total;
	void *p;

	if (__builtin_mul_overflow(count, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	p = region_alloc(region, total);
	return p ? memset(p, 0, total) : NULL;
}

void *region_memalign(region_t *region, size_t align, size_t size)
{
	if (align == 0 || (align & (align - 1)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	return alloc(region, size, align < GRANULE_BYTES ? GRANULE_BYTES : align, "region_memalign");
}

/* Resizing. */

/* Is this a block of the region? Strays can't be told, and are taken for its own. */
static bool is_own(const struct region_object *region, const void *p, size_t old_size)
{
	const struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	const struct region_object *owner = bare_owner(span);

	if (span_kind(span) != SPAN_BARE)
		return span_kind(span) != SPAN_NONE && (region->strays || region->owner);
	if (owner != region && (!owner || !owner->owner || owner->owner != region->owner))
		return false;
	return (uintptr_t)p % GRANULE_BYTES == 0 && (size_t)(span_end(span) - (const char *)p) >= old_size;
}

static size_t to_granules(size_t size)
{
	return (size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
}

/* Moves the cursor behind the newest block to where the block ends with its new size, if there is room. */
static inline bool resize_newest(struct region_object *region, char *p, size_t size)
{
	if (size > (size_t)(region->limit - p) || to_granules(size) > (size_t)(region->limit - p))
		return false;
	object_note_peak(region);
	OBJECT_SET(region->at.cursor, p + to_granules(size));
	return true;
}

/*
 * The common case: the newest block, in the newest buffer of a region that is being bumped in (a limit says
 * so). Both ends are looked at, since the size may be wrong.
 */
static bool is_last(const struct region_object *region, const char *p, size_t old_size)
{
	const struct span *span = region->newest;
	const char *end = p + to_granules(old_size + !old_size);

	return OBJECT_GET(region->at.limit) && end == region->at.cursor && span && p > span->start &&
	       end <= span_end(span);
}

static __attribute__((noinline)) void *
realloc_slow(region_t *given, void *block, size_t old_size, size_t size)
{
	struct region_object *region = object_own(given, "region_realloc");
	char *p = block;

	if (!region)
		return NULL;
	if (!p)
		return region_alloc(region, size);
	if (!is_own(region, p, old_size)) {
		report_misuse("region_realloc(%p, %zu): no block of that size of region \"%s\"", block, old_size,
		              region->name);
		errno = EINVAL;
		return NULL;
	}
	bool is_newest = p + to_granules(old_size + !old_size) == region->at.cursor && region->limit >= p;
	if (is_newest && resize_newest(region, p, size))
		return size ? p : NULL;
	if (size <= old_size)
		return size ? p : NULL;
	void *copy = region_alloc(region, size);
	return copy ? memcpy(copy, p, old_size) : NULL;
}

void *region_realloc(region_t *region, void *p, size_t old_size, size_t size)
{
	if (is_last(region, p, old_size) && resize_newest(region, p, size))
		return size ? p : NULL;
	return realloc_slow(region, p, old_size, size);
}

/* Copies. */

void *region_memdup(region_t *region, const void *p, size_t n)
{
	void *copy = region_alloc(region, n);

	return copy && n > 0 ? memcpy(copy, p, n) : copy;
}

char *region_strdup(region_t *region, const char *text)
{
	return region_memdup(region, text, strlen(text) + 1);
}

char *region_strndup(region_t *region, const char *text, size_t n)
{
	size_t length = strnlen(text, n);
	char *copy = region_alloc(region, length + 1);

	if (!copy)
		return NULL;
	copy[length] = '\0';
	return memcpy(copy, text, length);
}

char *region_vprintf(region_t *region, const char *format, va_list args)
{
	char small[256], *text;
	va_list again;

	va_copy(again, args);
	int length = vsnprintf(small, sizeof(small), format, again);
	va_end(again);
	if (length < 0)
		return NULL;
	text = region_alloc(region, (size_t)length + 1);
	if (!text)
		return NULL;
	if ((size_t)length < sizeof(small))
		return memcpy(text, small, (size_t)length + 1);
	vsnprintf(text, (size_t)length + 1, format, args);
	return text;
}

char *region_printf(region_t *region, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text = region_vprintf(region, format, args);
	va_end(args);
	return text;
}

void *region_copy_out_bytes(const void *p, size_t size)
{
	void *copy = heap_alloc(size);

	if (!copy)
		errno = ENOMEM;
	return copy && size > 0 ? memcpy(copy, p, size) : copy;
}
