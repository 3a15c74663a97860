/*
 * text.c: texts that grow by N writes of 36 bytes, as bench/string has them for malloc, with what each
 * allocator offers for the purpose. Forty texts are written one after the other in one extent, at whose
 * end they go. The unit is a write.
 *
 *   heap       a buffer doubled by realloc, and freed when the text is done; libregion in the general
 *              heap, others in theirs
 *   none       the same in a scope, and not freed
 *   region     region_text_write
 *   obstack    obstack_grow
 *   talloc     talloc_strndup_append_buffer
 *   pmr        a std::pmr::string over a monotonic_buffer_resource
 */
#include "bench.h"
#include "ways.h"

#include <string.h>

#define WRITE_BYTES 36
#define FIRST_BYTES 48
#define TEXTS 40

static const char piece[WRITE_BYTES + 1] = "thirty-six bytes, written many times";

static void check(const char *text, size_t length)
{
	if (memcmp(text, piece, WRITE_BYTES) || memcmp(text + length - WRITE_BYTES, piece, WRITE_BYTES))
		bench_fail("a text was damaged while it grew");
}

/* ---- malloc ---------------------------------------------------------------------------------- */

WAY_INLINE char *write_by_realloc(size_t writes)
{
	size_t room = FIRST_BYTES, length = 0;
	char *text = malloc(room);

	for (size_t i = 0; i < writes; i++) {
		if (length + WRITE_BYTES > room)
			text = realloc(text, room *= 2);
		memcpy(text + length, piece, WRITE_BYTES);
		length += WRITE_BYTES;
	}
	check(text, length);
	return text;
}

WAY_INLINE void write_heap(size_t writes)
{
	free(write_by_realloc(writes));
}

WAY_INLINE void write_none(size_t writes)
{
	write_by_realloc(writes);
}

/* ---- a region -------------------------------------------------------------------------------- */

WAY_INLINE void write_region(size_t writes)
{
	struct region_text text;

	region_text_init(&text, ways_thread.region);
	for (size_t i = 0; i < writes; i++)
		region_text_write(&text, piece, WRITE_BYTES);
	check(text.data, text.length);
}

/* ---- obstack --------------------------------------------------------------------------------- */

WAY_INLINE void write_obstack(size_t writes)
{
	for (size_t i = 0; i < writes; i++)
		obstack_grow(&ways_thread.obstack, piece, WRITE_BYTES);
	size_t length = (size_t)obstack_object_size(&ways_thread.obstack);
	check(obstack_finish(&ways_thread.obstack), length);
}

/* ---- talloc ---------------------------------------------------------------------------------- */

#ifdef BENCH_TALLOC
#define TEXT_TALLOC(X) X(talloc) X(tpool)

WAY_INLINE void write_talloc(size_t writes)
{
	char *text = talloc_strndup(ways_thread.talloc, piece, WRITE_BYTES);

	for (size_t i = 1; i < writes; i++)
		text = talloc_strndup_append_buffer(text, piece, WRITE_BYTES);
	check(text, writes * WRITE_BYTES);
}

WAY_INLINE void write_tpool(size_t writes)
{
	write_talloc(writes);
}
#else
#define TEXT_TALLOC(X)
#endif

/* ---- std::pmr::string ------------------------------------------------------------------------ */

#ifdef BENCH_PMR
#define TEXT_PMR(X) X(pmr)

/* In pmr.cc: calls look() with the text once it is written. */
void pmr_write(size_t writes, const char *text, size_t length, void (*look)(const char *, size_t));

WAY_INLINE void write_pmr(size_t writes)
{
	pmr_write(writes, piece, WRITE_BYTES, check);
}
#else
#define TEXT_PMR(X)
#endif

/* ---- passes ---------------------------------------------------------------------------------- */

#define TEXT_WAYS(X) X(heap) X(none) X(region) X(obstack) TEXT_TALLOC(X) TEXT_PMR(X)

#define DEFINE_PASS(way) \
	static void texts_inside_##way(void *writes) \
	{ \
		for (int i = 0; i < TEXTS; i++) \
			write_##way(*(size_t *)writes); \
	} \
	static void texts_##way(void *job, unsigned thread) \
	{ \
		(void)thread; \
		way_##way.extent(texts_inside_##way, job); \
	}
TEXT_WAYS(DEFINE_PASS)

static const struct way *const text_ways[] = { TEXT_WAYS(WAY_ADDRESS) NULL };

static void measure(const struct way *way, bench_pass *pass)
{
	static const size_t writes[] = { 2, 10, 100, 1000 };

	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
		size_t n = writes[i];
		bench_measure(&(struct bench_row){
			.way = way, .kind = "grow", .n = n, .threads = 1,
			.units = (double)(n * TEXTS), .unit = "write",
		}, pass, &n);
	}
}

#define MEASURE(way) \
	if (bench_selected(&way_##way)) \
		measure(&way_##way, texts_##way);

int main(int argc, char **argv)
{
	bench_start(argc, argv, "text", text_ways);
	TEXT_WAYS(MEASURE)
	return 0;
}
