/*
 * text.c: texts that grow by N writes of 36 bytes, as bench/string has them for malloc, with what each
 * allocator offers for the purpose. Forty texts are written one after the other in one extent. The unit is
 * a write.
 *
 *   freed      each text is given back when it is done, so the next one has its memory
 *   wholesale  texts are left to the end of the extent
 *   printf     freed; written by the allocator's kind of printf: a number and a word, ten bytes
 *   stream     freed; written through a FILE that is opened over it, and closed
 *
 *   heap       a buffer doubled by realloc; libregion in the general heap, others in theirs. Its
 *              stream is open_memstream
 *   none       the same in a scope
 *   region     region_text
 *   obstack    obstack_grow
 *   talloc     talloc_strndup_append_buffer
 *   pmr        a std::pmr::string over a monotonic_buffer_resource
 */
#include "bench.h"
#include "ways.h"

#include <stdio.h>
#include <string.h>

#define WRITE_BYTES 36
#define FIRST_BYTES 48
#define TEXTS 40

static const char piece[WRITE_BYTES + 1] = "thirty-six bytes, written many times";

#define FORMAT "%05zu %s\n" /* with a number of five digits and a word of three bytes */
#define FORMAT_BYTES 10
#define FORMAT_WORD "abc"

static void check(const char *text, size_t length)
{
	if (memcmp(text, piece, WRITE_BYTES) || memcmp(text + length - WRITE_BYTES, piece, WRITE_BYTES))
		bench_fail("a text was damaged while it grew");
}

static void check_printed(const char *text, size_t length, size_t writes)
{
	if (length != writes * FORMAT_BYTES || memcmp(text + length - 5, " abc\n", 5))
		bench_fail("a text was damaged while it was printed");
}

/* A text that is done, and how to give it back. */
struct text {
	char *data;
	size_t length;
	struct region_text region; /* if it is a region's */
};

/* ---- malloc ---------------------------------------------------------------------------------- */

WAY_INLINE struct text write_heap(size_t writes)
{
	size_t room = FIRST_BYTES, length = 0;
	char *text = malloc(room);

	for (size_t i = 0; i < writes; i++) {
		if (length + WRITE_BYTES > room)
			text = realloc(text, room *= 2);
		memcpy(text + length, piece, WRITE_BYTES);
		length += WRITE_BYTES;
	}
	return (struct text){.data = text, .length = length};
}

WAY_INLINE struct text print_heap(size_t writes)
{
	size_t room = FIRST_BYTES, length = 0;
	char *text = malloc(room);

	for (size_t i = 0; i < writes; i++) {
		int n = snprintf(text + length, room - length, FORMAT, i, FORMAT_WORD);
		if ((size_t)n >= room - length) {
			text = realloc(text, room *= 2);
			n = snprintf(text + length, room - length, FORMAT, i, FORMAT_WORD);
		}
		length += (size_t)n;
	}
	return (struct text){.data = text, .length = length};
}

WAY_INLINE void write_stream(FILE *stream, size_t writes)
{
	for (size_t i = 0; i < writes; i++)
		fwrite(piece, 1, WRITE_BYTES, stream);
	fclose(stream);
}

WAY_INLINE struct text stream_heap(size_t writes)
{
	struct text text;

	write_stream(open_memstream(&text.data, &text.length), writes);
	return text;
}

WAY_INLINE void free_heap(struct text text)
{
	free(text.data);
}

WAY_INLINE struct text write_none(size_t writes)
{
	return write_heap(writes);
}

/* ---- a region -------------------------------------------------------------------------------- */

WAY_INLINE struct text done_region(struct region_text text)
{
	return (struct text){text.data, text.length, text};
}

WAY_INLINE struct text write_region(size_t writes)
{
	struct region_text text;

	region_text_init(&text, ways_thread.region);
	for (size_t i = 0; i < writes; i++)
		region_text_write(&text, piece, WRITE_BYTES);
	return done_region(text);
}

WAY_INLINE struct text print_region(size_t writes)
{
	struct region_text text;

	region_text_init(&text, ways_thread.region);
	for (size_t i = 0; i < writes; i++)
		region_text_printf(&text, FORMAT, i, FORMAT_WORD);
	return done_region(text);
}

WAY_INLINE struct text stream_region(size_t writes)
{
	struct region_text text;

	region_text_init(&text, ways_thread.region);
	write_stream(region_text_open(&text, "w"), writes);
	return done_region(text);
}

WAY_INLINE void free_region(struct text text)
{
	region_text_free(&text.region);
}

/* ---- obstack --------------------------------------------------------------------------------- */

WAY_INLINE struct text done_obstack(void)
{
	size_t length = (size_t)obstack_object_size(&ways_thread.obstack);

	return (struct text){.data = obstack_finish(&ways_thread.obstack), .length = length};
}

WAY_INLINE struct text write_obstack(size_t writes)
{
	for (size_t i = 0; i < writes; i++)
		obstack_grow(&ways_thread.obstack, piece, WRITE_BYTES);
	return done_obstack();
}

WAY_INLINE struct text print_obstack(size_t writes)
{
	for (size_t i = 0; i < writes; i++)
		obstack_printf(&ways_thread.obstack, FORMAT, i, FORMAT_WORD);
	return done_obstack();
}

WAY_INLINE void free_obstack(struct text text)
{
	obstack_free(&ways_thread.obstack, text.data);
}

/* ---- talloc ---------------------------------------------------------------------------------- */

#ifdef BENCH_TALLOC
#define TEXT_TALLOC(X) X(talloc) X(tpool)

WAY_INLINE struct text write_talloc(size_t writes)
{
	char *text = talloc_strndup(ways_thread.talloc, piece, WRITE_BYTES);

	for (size_t i = 1; i < writes; i++)
		text = talloc_strndup_append_buffer(text, piece, WRITE_BYTES);
	return (struct text){.data = text, .length = writes * WRITE_BYTES};
}

WAY_INLINE struct text print_talloc(size_t writes)
{
	char *text = talloc_strdup(ways_thread.talloc, "");

	for (size_t i = 0; i < writes; i++)
		text = talloc_asprintf_append_buffer(text, FORMAT, i, FORMAT_WORD);
	return (struct text){.data = text, .length = writes * FORMAT_BYTES};
}

WAY_INLINE void free_talloc(struct text text)
{
	talloc_free(text.data);
}

WAY_INLINE struct text write_tpool(size_t writes)
{
	return write_talloc(writes);
}

WAY_INLINE struct text print_tpool(size_t writes)
{
	return print_talloc(writes);
}

WAY_INLINE void free_tpool(struct text text)
{
	free_talloc(text);
}
#else
#define TEXT_TALLOC(X)
#endif

/* ---- std::pmr::string ------------------------------------------------------------------------ */

#ifdef BENCH_PMR
#define TEXT_PMR(X) X(pmr)

/* In pmr.cc: calls look() with the text once it is written. */
void pmr_write(size_t writes, const char *text, size_t length, void (*look)(const char *, size_t));
#else
#define TEXT_PMR(X)
#endif

/* ---- passes ---------------------------------------------------------------------------------- */

/* X(way) for those that can free a text and can print one; and those that can leave it. */
#define FREED_WAYS(X) X(heap) X(region) X(obstack) TEXT_TALLOC(X)
#define LEFT_WAYS(X) X(none) X(region) X(obstack) TEXT_TALLOC(X)
#define STREAM_WAYS(X) X(heap) X(region)
#define TEXT_WAYS(X) X(heap) X(none) X(region) X(obstack) TEXT_TALLOC(X) TEXT_PMR(X)

#define DEFINE_PASS(kind, way, ...) \
	static void inside_##kind##_##way(void *job) \
	{ \
		size_t writes = *(size_t *)job; \
		for (int i = 0; i < TEXTS; i++) { \
			__VA_ARGS__ \
		} \
	} \
	static void pass_##kind##_##way(void *job, unsigned thread) \
	{ \
		(void)thread; \
		way_##way.extent(inside_##kind##_##way, job); \
	}
#define DEFINE_FREED(way) \
	DEFINE_PASS(freed, way, struct text text = write_##way(writes); check(text.data, text.length); \
	            free_##way(text);) \
	DEFINE_PASS(printf, way, struct text text = print_##way(writes); \
	            check_printed(text.data, text.length, writes); free_##way(text);)
#define DEFINE_LEFT(way) \
	DEFINE_PASS(wholesale, way, struct text text = write_##way(writes); check(text.data, text.length);)
#define DEFINE_STREAM(way) \
	DEFINE_PASS(stream, way, struct text text = stream_##way(writes); check(text.data, text.length); \
	            free_##way(text);)
FREED_WAYS(DEFINE_FREED)
LEFT_WAYS(DEFINE_LEFT)
STREAM_WAYS(DEFINE_STREAM)
#ifdef BENCH_PMR
DEFINE_PASS(wholesale, pmr, pmr_write(writes, piece, WRITE_BYTES, check);)
#endif

struct text_pass {
	const struct way *way;
	const char *kind;
	bench_pass *pass;
};

#define FREED_ENTRY(way) {&way_##way, "freed", pass_freed_##way}, {&way_##way, "printf", pass_printf_##way},
#define LEFT_ENTRY(way) {&way_##way, "wholesale", pass_wholesale_##way},
#define STREAM_ENTRY(way) {&way_##way, "stream", pass_stream_##way},
static const struct text_pass passes[] = {
	FREED_WAYS(FREED_ENTRY) LEFT_WAYS(LEFT_ENTRY) TEXT_PMR(LEFT_ENTRY) STREAM_WAYS(STREAM_ENTRY)
};

static const struct way *const text_ways[] = { TEXT_WAYS(WAY_ADDRESS) NULL };

static void measure(const struct text_pass *entry)
{
	static const size_t writes[] = { 2, 10, 100, 1000 };

	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
		size_t n = writes[i];
		bench_measure(&(struct bench_row){
			.way = entry->way, .kind = entry->kind, .n = n, .threads = 1,
			.units = (double)(n * TEXTS), .unit = "write",
		}, entry->pass, &n);
	}
}

int main(int argc, char **argv)
{
	bench_start(argc, argv, "text", text_ways);
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++)
		if (bench_selected(passes[i].way))
			measure(&passes[i]);
	return 0;
}
