/*
 * string.c: strings that grow by N writes of 36 bytes, as in the measurements of Go's runtime.free.
 *
 * A full buffer is doubled, either by hand (allocate, copy, free the outgrown one) or by
 * realloc. Forty strings are built one after the other in one extent, and each is freed when it
 * is done. The unit is a write.
 */
#include "bench.h"
#include "ways.h"

#include <string.h>

#define WRITE_BYTES 36
#define FIRST_BYTES 48
#define STRINGS 40

#define STRING_WAYS(X) X(heap) X(unfreed) X(none)

struct string {
	char *text;
	size_t length, room;
};

static const char piece[WRITE_BYTES + 1] = "thirty-six bytes, written many times";

static void *double_by_copy(struct string *string)
{
	char *text = malloc(string->room * 2);

	memcpy(text, string->text, string->length);
	free(string->text);
	return text;
}

static void *double_by_realloc(struct string *string)
{
	return realloc(string->text, string->room * 2);
}

WAY_INLINE void append(struct string *string, void *(*grow)(struct string *))
{
	if (string->length + WRITE_BYTES > string->room) {
		string->text = grow(string);
		string->room *= 2;
	}
	memcpy(string->text + string->length, piece, WRITE_BYTES);
	string->length += WRITE_BYTES;
}

WAY_INLINE void build(size_t writes, void *(*grow)(struct string *))
{
	struct string string = { .text = malloc(FIRST_BYTES), .room = FIRST_BYTES };

	for (size_t i = 0; i < writes; i++)
		append(&string, grow);
	if (memcmp(string.text, piece, WRITE_BYTES) ||
	    memcmp(string.text + string.length - WRITE_BYTES, piece, WRITE_BYTES))
		bench_fail("a string was damaged while it grew");
	free(string.text);
}

static void copying(void *writes)
{
	for (int i = 0; i < STRINGS; i++)
		build(*(size_t *)writes, double_by_copy);
}

static void reallocating(void *writes)
{
	for (int i = 0; i < STRINGS; i++)
		build(*(size_t *)writes, double_by_realloc);
}

#define DEFINE_PASSES(way) WAY_PASS(way, copying) WAY_PASS(way, reallocating)
STRING_WAYS(DEFINE_PASSES)

static const struct way *const string_ways[] = { STRING_WAYS(WAY_ADDRESS) NULL };

static void measure(const struct way *way, const char *kind, bench_pass *pass)
{
	static const size_t writes[] = { 2, 10, 100, 1000 };

	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
		size_t n = writes[i];
		bench_measure(&(struct bench_row){
			.way = way, .kind = kind, .n = n, .threads = 1,
			.units = (double)(n * STRINGS), .unit = "write",
		}, pass, &n);
	}
}

#define MEASURE(way) \
	if (bench_selected(&way_##way)) { \
		measure(&way_##way, "copy", copying_##way); \
		measure(&way_##way, "realloc", reallocating_##way); \
	}

int main(int argc, char **argv)
{
	bench_start(argc, argv, "string", string_ways);
	STRING_WAYS(MEASURE)
	return 0;
}
