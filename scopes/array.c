/*
 * array.c: arrays and texts in a region.
 *
 * Both are a block that grows: where it is, and by little, as long as it is the region's newest; else as a
 * copy, by half. What the old copy held stays until the region is reset. A text is the newest block from
 * its beginning, at the cursor, with no bytes yet. Each notes the region's id, which a reset changes: then
 * its memory is somebody else's, and adding to it is a misuse.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "object.h"

static bool is_current(const region_t *region, uint64_t id, const char *call)
{
	if (__builtin_expect(region_id_(region) == id && id != 0, 1))
		return true;
	report_misuse("%s(): region \"%s\" has been reset or ended since it was initialised", call, region->name);
	errno = EINVAL;
	return false;
}

/* The region that a block is to grow in: of a shared one, the thread's part. */
static region_t *part_of(region_t *region)
{
	region_t *part = region->is_shared ? region_local(region) : NULL;

	return part ? part : region;
}

static size_t to_granules(size_t bytes)
{
	return (bytes + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
}

/* Does the block end at the cursor? One of no bytes does, where it will begin. */
static bool is_newest(const region_t *region, const char *block, size_t capacity)
{
	return block && block + to_granules(capacity) == region->at.cursor;
}

/* Makes the newest block `bytes` long, if there is room. The limit may be NULL. */
static bool grow_newest(region_t *region, const char *block, size_t bytes)
{
	if ((uintptr_t)block + bytes > (uintptr_t)OBJECT_GET(region->at.limit))
		return false;
	OBJECT_SET(region->at.cursor, (char *)block + bytes);
	return true;
}

/* A larger block with what is in use of this one. The newest one's room serves it. */
static void *grow_copy(region_t *part, char *block, size_t used, size_t capacity, size_t bytes)
{
	char *cursor = part->at.cursor;
	/* A lane's cursor may be taken back meanwhile. */
	bool is_last = is_newest(part, block, capacity) && !part->owner;

	if (is_last)
		OBJECT_SET(part->at.cursor, block);
	void *grown = region_alloc(part, bytes);
	if (!grown && is_last)
		OBJECT_SET(part->at.cursor, cursor);
	return grown && used > 0 ? memmove(grown, block, used) : grown;
}

static size_t max(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t grown_by_little(size_t bytes, size_t unit)
{
	return (bytes + bytes / 8 + 128 + unit - 1) / unit * unit;
}

/*
 * Makes a block of `capacity` bytes, of which `used` are in use, at least `least` long, a multiple of `unit`:
 * the newest where it is, and by little, since it can grow again; others, and it at the end of a buffer, as a
 * copy. The capacity then; 0: nothing has changed.
 */
static size_t grow(region_t *region, void **block, size_t used, size_t capacity, size_t least, size_t unit)
{
	region_t *part = part_of(region);
	size_t bytes = max(least, grown_by_little(capacity, unit));

	if (least > PTRDIFF_MAX / 2) {
		errno = ENOMEM;
		return 0;
	}
	if (is_newest(part, *block, capacity)) {
		if (grow_newest(part, *block, to_granules(bytes)))
			return bytes;
		if (grow_newest(part, *block, to_granules(least)))
			return least;
	}
	bytes = max(bytes, capacity + capacity / 2);
	bytes -= bytes % unit;
	void *grown = grow_copy(part, *block, used, capacity, bytes);
	if (!grown)
		return 0;
	*block = grown;
	return bytes;
}

/* Arrays. */

int region_array_reserve(struct region_array *array, size_t capacity)
{
	size_t size = array->item_size, bytes;

	if (!is_current(array->region, array->id, "region_array_append"))
		return -1;
	if (capacity <= array->capacity)
		return 0;
	if (__builtin_mul_overflow(capacity, size, &bytes)) {
		errno = ENOMEM;
		return -1;
	}
	bytes = grow(array->region, &array->items, array->count * size, array->capacity * size, bytes, size);
	if (bytes == 0)
		return -1;
	array->capacity = bytes / size;
	return 0;
}

void *region_array_append(struct region_array *array, const void *items, size_t n)
{
	size_t count;

	if (__builtin_add_overflow(array->count, n, &count)) {
		errno = ENOMEM;
		return NULL;
	}
	if (region_array_reserve(array, count) != 0)
		return NULL;
	char *first = (char *)array->items + array->count * array->item_size;
	if (items && n > 0)
		memcpy(first, items, n * array->item_size);
	array->count = count;
	return first;
}

/* Texts. */

/* Room for n bytes more, and a 0. */
static bool reserve(struct region_text *text, size_t n)
{
	void *data = text->data;

	if (!is_current(text->region, text->id, "region_text_write"))
		return false;
	if (n < text->capacity - text->length)
		return true;
	if (n > PTRDIFF_MAX / 2) {
		errno = ENOMEM;
		return false;
	}
	size_t bytes = to_granules(text->length + 1 + n);
	bytes = grow(text->region, &data, text->length, text->capacity, bytes, GRANULE_BYTES);
	if (bytes == 0)
		return false;
	text->data = data;
	text->capacity = bytes;
	return true;
}

int region_text_write_slow(struct region_text *text, const void *data, size_t n)
{
	if (!reserve(text, n))
		return -1;
	if (n > 0)
		memcpy(text->data + text->length, data, n);
	text->length += n;
	return 0;
}

int region_text_printf(struct region_text *text, const char *format, ...)
{
	va_list args;

	if (!reserve(text, 0))
		return -1;
	size_t room = text->capacity - text->length;
	va_start(args, format);
	int n = vsnprintf(text->data + text->length, room, format, args);
	va_end(args);
	if (n < 0)
		return -1;
	if ((size_t)n >= room) {
		if (!reserve(text, (size_t)n))
			return -1;
		va_start(args, format);
		vsnprintf(text->data + text->length, (size_t)n + 1, format, args);
		va_end(args);
	}
	text->length += (size_t)n;
	return 0;
}

size_t region_text_read(struct region_text *text, void *data, size_t n)
{
	size_t left = text->length - text->read_at;

	n = n < left ? n : left;
	if (n > 0)
		memcpy(data, text->data + text->read_at, n);
	text->read_at += n;
	return n;
}

const char *region_text_string(struct region_text *text)
{
	if (!reserve(text, 0))
		return NULL;
	text->data[text->length] = '\0';
	return text->data;
}

void region_text_cut(struct region_text *text, size_t length)
{
	if (length < text->length)
		text->length = length;
	if (text->read_at > text->length)
		text->read_at = text->length;
}

/* The stream over a text. The text is the state: several streams, and direct calls, may be mixed. */

static ssize_t stream_read(void *text, char *data, size_t n)
{
	return (ssize_t)region_text_read(text, data, n);
}

/* Nothing written is an error to stdio. */
static ssize_t stream_write(void *text, const char *data, size_t n)
{
	return region_text_write(text, data, n) == 0 ? (ssize_t)n : 0;
}

/* Sets the place to read from; what is written goes to the end in any case. */
static int stream_seek(void *cookie, off64_t *offset, int whence)
{
	struct region_text *text = cookie;
	off64_t base = whence == SEEK_SET ? 0 : (off64_t)(whence == SEEK_CUR ? text->read_at : text->length), to;

	if (__builtin_add_overflow(base, *offset, &to) || to < 0 || to > (off64_t)text->length) {
		errno = EINVAL;
		return -1;
	}
	*offset = to;
	text->read_at = (size_t)to;
	return 0;
}

FILE *region_text_open(struct region_text *text, const char *mode)
{
	static const cookie_io_functions_t functions = {
		.read = stream_read, .write = stream_write, .seek = stream_seek,
	};

	if (mode[0] == 'w')
		region_text_cut(text, 0);
	return fopencookie(text, mode, functions);
}
