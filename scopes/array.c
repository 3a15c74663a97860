/*
 * array.c: arrays and texts in a region.
 *
 * Both are a block that grows: where it is, as long as it is the region's newest, else as a copy half as
 * large again, so that a copy is paid for by as many additions. What the old copy held stays until the
 * region is reset. Each notes the region's generation: after a reset its memory is somebody else's, and
 * adding to it is a misuse.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "object.h"

#define FIRST_BYTES 64

/* Resets of the region so far; those of a lane's shared region count. */
static uint64_t generation_of(const struct region_object *region)
{
	return __atomic_load_n(&(region->owner ? region->owner : region)->generation, __ATOMIC_ACQUIRE);
}

static bool is_current(const region_t *region, uint64_t generation, const char *call)
{
	if (__builtin_expect(region->at.id != 0 && generation_of(region) == generation, 1))
		return true;
	report_misuse("%s(): region \"%s\" has been reset since it was initialised", call, region->name);
	errno = EINVAL;
	return false;
}

/* The region that a block is to grow in: of a shared one, the thread's part. */
static region_t *part_of(region_t *region)
{
	region_t *part = region->is_shared ? region_local(region) : NULL;

	return part ? part : region;
}

/*
 * Makes a block of `used` bytes hold at least `wanted`, and more where that is free or saves copies: the
 * new capacity, or 0 and nothing has changed.
 */
static size_t grow(region_t *region, void **block, size_t used, size_t capacity, size_t wanted)
{
	size_t roomy = capacity + capacity / 2;
	region_t *part = part_of(region);

	roomy = roomy < FIRST_BYTES ? FIRST_BYTES : roomy;
	roomy = (roomy < wanted ? wanted : roomy) + GRANULE_BYTES - 1;
	roomy &= ~(GRANULE_BYTES - 1);
	if (roomy < wanted)
		return 0;
	/* No more is copied than is used; a block that moves leaves what is behind that. */
	bool is_newest = *block && (char *)*block + capacity == part->at.cursor;
	void *grown = region_realloc(part, *block, is_newest ? capacity : used, roomy);
	if (!grown)
		return 0;
	*block = grown;
	return roomy;
}

/* Arrays. */

void region_array_init(struct region_array *array, region_t *region, size_t item_size)
{
	*array = (struct region_array){
		.region = region, .item_size = item_size + !item_size, .generation = generation_of(region),
	};
}

int region_array_reserve(struct region_array *array, size_t capacity)
{
	size_t wanted, old_bytes = array->capacity * array->item_size;

	if (!is_current(array->region, array->generation, "region_array_append"))
		return -1;
	if (capacity <= array->capacity)
		return 0;
	if (__builtin_mul_overflow(capacity, array->item_size, &wanted)) {
		errno = ENOMEM;
		return -1;
	}
	/* A block is whole granules, a capacity whole items. */
	old_bytes = (old_bytes + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
	size_t bytes = grow(array->region, &array->items, array->count * array->item_size, old_bytes, wanted);
	if (bytes == 0)
		return -1;
	array->capacity = bytes / array->item_size;
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

void region_text_init(struct region_text *text, region_t *region)
{
	*text = (struct region_text){.region = region, .generation = generation_of(region)};
}

/* Room for n bytes more, and a 0. */
static bool reserve(struct region_text *text, size_t n)
{
	size_t wanted, capacity;
	void *data = text->data;

	if (!is_current(text->region, text->generation, "region_text_write"))
		return false;
	if (n < text->capacity - text->length)
		return true;
	if (__builtin_add_overflow(text->length + 1, n, &wanted)) {
		errno = ENOMEM;
		return false;
	}
	capacity = grow(text->region, &data, text->length, text->capacity, wanted);
	if (capacity == 0)
		return false;
	text->data = data;
	text->capacity = capacity;
	return true;
}

int region_text_write(struct region_text *text, const void *data, size_t n)
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
	off64_t base = whence == SEEK_SET ? 0 : (off64_t)(whence == SEEK_CUR ? text->read_at : text->length);

	if (base + *offset < 0 || base + *offset > (off64_t)text->length) {
		errno = EINVAL;
		return -1;
	}
	*offset += base;
	text->read_at = (size_t)*offset;
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
