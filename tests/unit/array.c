/*
 * array.c: arrays and texts in a region: they hold what was added, and grow in place where they can.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "scopes/object.h"
#include "unit.h"

struct item {
	uint64_t a, b, c;
};

Test(array, items_stay_as_they_were_added)
{
	struct region_array array;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_array_init(&array, region, sizeof(struct item));
	for (uint64_t i = 0; i < 100000; i++) {
		struct item *item = region_array_push(&array, &(struct item){i, i + 1, i + 2});
		require(item && item->b == i + 1, "%zu", (size_t)i);
		/* Now and then another block is the newest. */
		if (i % 5000 == 0)
			memset(region_alloc(region, 100), 0xff, 100);
	}
	require(array.count == 100000, "%zu", array.count);
	for (uint64_t i = 0; i < 100000; i++) {
		const struct item *item = region_array_at(&array, i);
		require(item->a == i && item->c == i + 2, "%zu", (size_t)i);
	}
	for (uint64_t i = 100000; i-- > 0;)
		require(((struct item *)region_array_pop(&array))->a == i, "%zu", (size_t)i);
	require(region_array_pop(&array) == NULL, "not empty");
	region_destroy(region);
}

Test(array, the_newest_grows_in_place_and_holds_no_more_than_it_needs)
{
	struct region_array array;
	int first = 5;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_array_init(&array, region, sizeof(int));
	int *at = region_array_push(&array, &first);
	for (int i = 1; i < 10000; i++)
		region_array_push(&array, &i);
	require(array.items == at && *at == 5, "moved");
	require(region_len(region) < 2 * 10000 * sizeof(int), "%zu", region_len(region));
	require(region_array_reserve(&array, 50000) == 0 && array.capacity >= 50000, "%zu", array.capacity);
	require(array.items == at, "moved");
	for (size_t size = 1; size < 300; size++) {
		struct region_array other;
		region_t *fresh = region_create(NULL);
		region_array_init(&other, fresh, size);
		for (int i = 0; i < 100; i++)
			require(region_array_append(&other, NULL, 1) == region_array_at(&other, (size_t)i), "%zu", size);
		require((char *)other.items + ((other.capacity * size + 15) & ~(size_t)15) == fresh->at.cursor,
		        "items of %zu bytes moved", size);
		region_destroy(fresh);
	}
	errno = 0;
	require(region_array_reserve(&array, SIZE_MAX / 2) == -1 && errno == ENOMEM, "%d", errno);
	require(array.count == 10000, "%zu", array.count);
	region_destroy(region);
}

Test(array, after_a_reset_adding_is_a_misuse)
{
	struct capture capture;
	struct region_array array;
	struct region_text text;

	scopes_begin();
	region_t *region = region_create(&(struct region_options){.name = "stale"});
	region_array_init(&array, region, 1000);
	region_text_init(&text, region);
	region_array_push(&array, NULL);
	region_reset(region);
	capture_begin(&capture);
	void *item = region_array_append(&array, NULL, 10);
	int result = region_text_write(&text, "abc", 3);
	const char *lines = capture_end(&capture);
	require(item == NULL && result == -1 && count_lines(lines) == 2, "%s", lines);
	require(strstr(lines, "\"stale\" has been reset or ended"), "%s", lines);
	region_text_init(&text, region);
	require(region_text_write(&text, "abc", 3) == 0, "again");
	region_destroy(region);
}

Test(array, of_a_shared_region_in_any_thread)
{
	struct region_array array;

	scopes_begin();
	region_t *region = region_create(&(struct region_options){.shared = 1});
	region_array_init(&array, region, sizeof(size_t));
	for (size_t i = 0; i < 10000; i++)
		region_array_push(&array, &i);
	require(*(size_t *)region_array_at(&array, 9999) == 9999, "%zu", array.count);
	require(region_len(region) < 2 * 10000 * sizeof(size_t), "%zu", region_len(region));
	region_destroy(region);
}

Test(array, a_freed_one_is_empty_and_its_memory_serves)
{
	struct region_array array;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_alloc(region, 100);
	size_t before = region_len(region);
	region_array_init(&array, region, 24);
	region_array_append(&array, NULL, 1000);
	void *items = array.items;
	region_array_free(&array);
	require(region_len(region) == before && array.count == 0, "%zu", region_len(region));
	require(region_peak(region) >= before + 24000, "%zu", region_peak(region));
	require(region_array_append(&array, NULL, 1) == items, "elsewhere");
	/* Not the newest any more: it stays until the reset. */
	char *other = region_strdup(region, "other");
	region_array_free(&array);
	require(region_array_append(&array, NULL, 1) != items && strcmp(other, "other") == 0, "%s", other);
	region_reset(region);
	region_array_free(&array);
	require(array.id == region->at.id && region_len(region) == 0, "%zu", region_len(region));
	region_destroy(region);
}

/* Texts. */

Test(text, what_is_written_is_read)
{
	struct region_text text;
	char got[100];

	scopes_begin();
	region_t *region = region_create(NULL);
	region_text_init(&text, region);
	require(strcmp(region_text_string(&text), "") == 0, "%s", text.data);
	require(region_text_write(&text, "hello ", 6) == 0, "write");
	require(region_text_printf(&text, "%d %s", 42, "worlds") == 0, "printf");
	require(strcmp(region_text_string(&text), "hello 42 worlds") == 0, "%s", text.data);
	require(region_text_read(&text, got, 8) == 8 && memcmp(got, "hello 42", 8) == 0, "read");
	require(region_text_read(&text, got, 100) == 7 && memcmp(got, " worlds", 7) == 0, "the rest");
	require(region_text_read(&text, got, 100) == 0, "the end");
	region_text_cut(&text, 5);
	require(strcmp(region_text_string(&text), "hello") == 0 && text.read_at == 5, "%s", text.data);
	region_destroy(region);
}

Test(text, a_string_of_a_thousand_writes_stays_where_it_is)
{
	struct region_text text;
	size_t moves = 0;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_text_init(&text, region);
	for (int i = 0; i < 1000; i++) {
		const char *before = text.data;
		require(region_text_printf(&text, "%036d", i) == 0, "%d", i);
		moves += before && before != text.data;
	}
	require(moves == 0 && text.length == 36000, "%zu moves, %zu", moves, text.length);
	const char *string = region_text_string(&text);
	for (int i = 0; i < 1000; i++) {
		char wanted[40];
		snprintf(wanted, sizeof(wanted), "%036d", i);
		require(memcmp(string + i * 36, wanted, 36) == 0, "%d", i);
	}
	region_destroy(region);
}

Test(text, the_newest_takes_what_it_needs_and_gives_it_back)
{
	static const char piece[300];
	struct region_text text;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_alloc(region, 100);
	size_t before = region_len(region);
	for (size_t n = 1; n < 300; n++) {
		region_text_init(&text, region);
		const char *data = text.data;
		for (size_t i = 0; i < 100; i++) {
			require(region_text_write(&text, "x", 1) == 0, "%zu", n);
			require(region_text_write(&text, piece, n - 1) == 0, "%zu", n);
		}
		require(text.data == data && text.length == 100 * n, "moved, or %zu", text.length);
		require(region_len(region) - before <= 125 * n + 128, "%zu bytes for %zu", region_len(region),
		        100 * n);
		region_text_free(&text);
		require(region_len(region) == before && text.length == 0, "%zu", region_len(region));
	}
	require(region_peak(region) >= before + 29900, "%zu", region_peak(region));
	region_destroy(region);
}

Test(text, one_without_bytes_yields_to_other_blocks_and_to_marks)
{
	struct region_text text, other;

	scopes_begin();
	region_t *region = region_create(NULL);
	region_alloc(region, 100);
	region_text_init(&text, region);
	region_text_init(&other, region);
	char *block = region_strdup(region, "block");
	region_text_write(&text, "text", 4);
	region_text_write(&other, "other", 5);
	require(strcmp(region_text_string(&text), "text") == 0, "%s", text.data);
	require(strcmp(region_text_string(&other), "other") == 0, "%s", other.data);
	require(strcmp(block, "block") == 0, "%s", block);
	region_mark_t mark = region_mark(region);
	region_text_write(&other, ", after the mark", 16);
	region_text_free(&other);
	region_rewind(region, mark);
	require(strcmp(region_text_string(&text), "text") == 0, "%s", text.data);
	region_destroy(region);
}

Test(text, a_stream_over_it)
{
	struct region_text text;
	char line[100];

	scopes_begin();
	region_t *region = region_create(NULL);
	region_text_init(&text, region);
	FILE *out = region_text_open(&text, "w");
	for (int i = 0; i < 10000; i++)
		require(fprintf(out, "line %d\n", i) > 0, "%d", i);
	require(fclose(out) == 0, "fclose");
	FILE *in = region_text_open(&text, "r");
	for (int i = 0; i < 10000; i++) {
		require(fgets(line, sizeof(line), in) && atoi(line + 5) == i, "%d: %s", i, line);
	}
	require(!fgets(line, sizeof(line), in) && feof(in), "%s", line);
	require(fseek(in, 5, SEEK_SET) == 0 && fgetc(in) == '0', "seek");
	require(fseek(in, 0, SEEK_END) == 0 && fseek(in, LONG_MAX, SEEK_CUR) == -1, "beyond the end");
	require(fseek(in, -1, SEEK_SET) == -1 && fseek(in, 5, SEEK_SET) == 0 && fgetc(in) == '0', "as before");
	require(fclose(in) == 0, "fclose");
	FILE *more = region_text_open(&text, "a");
	fputs("end", more);
	fclose(more);
	require(strcmp(region_text_string(&text) + text.length - 9, "9999\nend") != 0, "?");
	require(strcmp(region_text_string(&text) + text.length - 8, "9999\nend") == 0, "%s", text.data);
	fclose(region_text_open(&text, "w"));
	require(text.length == 0, "%zu", text.length);
	region_destroy(region);
}
