/*
 * growing.c: what grows in a region: arrays, texts and streams over them; and REGION_AUTO.
 */
#define _GNU_SOURCE
#include "objects.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- arrays --- */

static void newest_array_grows_where_it_is(void)
{
	region_t *region = a_region();
	struct region_array array;
	region_array_init(&array, region, sizeof(int));
	for (int i = 0; i < 10000; i++)
		CHECK(*(int *)region_array_push(&array, &i) == i, "item %d is taken", i);
	CHECK(array.count == 10000 && array.capacity >= 10000, "counts: %zu", array.count);
	for (int i = 0; i < 10000; i++)
		CHECK(*(int *)region_array_at(&array, (size_t)i) == i, "item %d", i);
	CHECK(region_len(region) <= 3 * 10000 * sizeof(int), "little is left behind: %zu", region_len(region));
	for (int i = 9999; i >= 0; i--)
		CHECK(*(int *)region_array_pop(&array) == i, "item %d comes off", i);
	CHECK(!region_array_pop(&array) && array.count == 0, "nothing is left");
	region_destroy(region);
}

static void arrays_grow_side_by_side(void)
{
	enum { ARRAYS = 20, ITEMS = 3000 };
	struct item {
		unsigned a[3];
	};
	region_t *region = a_region();
	struct region_array arrays[ARRAYS];
	for (unsigned a = 0; a < ARRAYS; a++)
		region_array_init(&arrays[a], region, sizeof(struct item));
	for (unsigned i = 0; i < ITEMS; i++)
		for (unsigned a = 0; a < ARRAYS; a++) {
			struct item item = {{a, i, a ^ i}};
			CHECK(region_array_push(&arrays[a], &item), "item %u of array %u", i, a);
		}
	for (unsigned a = 0; a < ARRAYS; a++)
		for (unsigned i = 0; i < ITEMS; i++) {
			struct item *item = region_array_at(&arrays[a], i);
			CHECK(item->a[0] == a && item->a[1] == i && item->a[2] == (a ^ i), "item %u of %u", i, a);
		}
	CHECK(region_len(region) <= 4 * ARRAYS * ITEMS * sizeof(struct item), "outgrown parts: %zu",
	      region_len(region));
	region_destroy(region);
}

static void many_items_are_added_at_once(void)
{
	region_t *region = a_region();
	struct region_array array;
	short items[1000];
	for (int i = 0; i < 1000; i++)
		items[i] = (short)i;
	region_array_init(&array, region, sizeof(short));
	for (int i = 0; i < 100; i++) {
		short *first = region_array_append(&array, items, 1000);
		CHECK(first == region_array_at(&array, (size_t)i * 1000), "the first of them comes back");
		block_of(region, 10, 1);
	}
	for (size_t i = 0; i < 100000; i++)
		CHECK(*(short *)region_array_at(&array, i) == (short)(i % 1000), "item %zu", i);
	short *room = region_array_append(&array, NULL, 500);
	CHECK(room && array.count == 100500, "room is made: %zu", array.count);
	memset(room, 1, 1000);
	CHECK(region_array_append(&array, items, 0) && array.count == 100500, "none are none");
	region_destroy(region);
}

static void reserved_room_is_there(void)
{
	region_t *region = a_region();
	struct region_array array;
	region_array_init(&array, region, 24);
	CHECK(region_array_reserve(&array, 5000) == 0 && array.capacity >= 5000 && array.count == 0, "room");
	void *items = array.items;
	block_of(region, 100, 1);
	for (int i = 0; i < 5000; i++)
		CHECK(region_array_append(&array, NULL, 1), "it is taken");
	CHECK(array.items == items, "it didn't move");
	CHECK(region_array_reserve(&array, 10) == 0 && array.capacity >= 5000, "less is nothing");
	region_destroy(region);
}

static void arrays_too_large_fail_and_stay(void)
{
	region_t *region = a_region();
	struct region_array array;
	int item = 7;
	size_t most = probe_opaque_size(SIZE_MAX);
	region_array_init(&array, region, sizeof(int));
	region_array_push(&array, &item);
	struct region_array before = array;
	errno = 0;
	CHECK(!region_array_append(&array, NULL, most) && errno == ENOMEM, "SIZE_MAX more: errno %d", errno);
	errno = 0;
	CHECK(!region_array_append(&array, NULL, most / 4) && errno == ENOMEM, "their bytes: errno %d", errno);
	errno = 0;
	CHECK(region_array_reserve(&array, most / 2) == -1 && errno == ENOMEM, "reserve: errno %d", errno);
	CHECK(memcmp(&before, &array, sizeof(array)) == 0, "nothing has changed");
	CHECK(*(int *)region_array_at(&array, 0) == 7, "nor the item");
	region_destroy(region);
}

/* --- texts --- */

static void writes_add_up(void)
{
	static const char piece[] = "thirty-six bytes, written many times";
	region_t *region = a_region();
	struct region_text text, other;
	region_text_init(&text, region);
	region_text_init(&other, region);
	CHECK(strcmp(region_text_string(&text), "") == 0, "nothing is an empty string");
	for (int i = 0; i < 5000; i++) {
		CHECK(region_text_write(&text, piece, 36) == 0, "write %d", i);
		if (i % 3 == 0)
			CHECK(region_text_printf(&other, "%d,", i) >= 0, "printf %d", i);
	}
	CHECK(text.length == 5000 * 36, "length: %zu", text.length);
	const char *all = region_text_string(&text);
	CHECK(strlen(all) == 5000 * 36, "a 0 is behind");
	for (int i = 0; i < 5000; i++)
		CHECK(memcmp(all + i * 36, piece, 36) == 0, "write %d is there", i);
	CHECK(strncmp(region_text_string(&other), "0,3,6,9,12,", 11) == 0, "the other is its own");
	CHECK(region_text_write(&text, NULL, 0) == 0 && text.length == 5000 * 36, "nothing is nothing");
	region_destroy(region);
}

static void alone_a_text_leaves_nothing_behind(void)
{
	region_t *region = a_region();
	struct region_text text;
	region_text_init(&text, region);
	for (int i = 0; i < 100000; i++)
		region_text_write(&text, "0123456789", 10);
	CHECK(region_len(region) <= 4 * MIB, "outgrown buffers: %zu", region_len(region));
	region_destroy(region);
}

static void freed_texts_leave_their_memory_and_the_peak(void)
{
	region_t *region = a_region();
	struct region_text text;
	size_t len = region_len(region);
	for (int round = 0; round < 3; round++) {
		region_text_init(&text, region);
		for (int i = 0; i < 1000; i++)
			CHECK(region_text_write(&text, "0123456789", 10) == 0, "write %d", i);
		size_t most = region_len(region);
		CHECK(most >= len + 10000, "it counts: %zu", most);
		region_text_free(&text);
		CHECK(text.length == 0 && text.capacity == 0, "it is empty");
		CHECK(region_len(region) == len, "nothing is left: %zu", region_len(region));
		CHECK(region_peak(region) == most, "the peak stays: %zu, not %zu", region_peak(region), most);
		block_of(region, 50000, 1);
		len = region_len(region);
		CHECK(region_peak(region) >= len && region_peak(region) >= most, "and grows: %zu",
		      region_peak(region));
		/* Beyond any buffer: the length grows where the cursor doesn't. */
		region_text_write(&text, "0123456789", 10);
		most = region_len(region);
		region_text_free(&text);
		block_of(region, 20 * MIB, 2);
		CHECK(region_peak(region) == region_len(region), "no more than there was: %zu, not %zu",
		      region_peak(region), region_len(region));
		region_reset(region);
		CHECK(region_peak(region) == 0, "none after a reset: %zu", region_peak(region));
		len = 0;
	}
	region_destroy(region);
}

static void reads_give_what_was_written(void)
{
	region_t *region = a_region();
	struct region_text text;
	char piece[10];
	region_text_init(&text, region);
	CHECK(region_text_read(&text, piece, 10) == 0, "nothing is there");
	region_text_write(&text, "abc\0def", 7);
	CHECK(region_text_read(&text, piece, 2) == 2 && memcmp(piece, "ab", 2) == 0, "the first two");
	region_text_write(&text, "ghi", 3);
	CHECK(region_text_read(&text, piece, 10) == 8 && memcmp(piece, "c\0defghi", 8) == 0, "the rest");
	CHECK(region_text_read(&text, piece, 10) == 0, "no more");
	region_text_write(&text, "j", 1);
	CHECK(region_text_read(&text, piece, 10) == 1 && piece[0] == 'j', "and on");
	CHECK(text.length == 11, "it is all still there: %zu", text.length);
	region_destroy(region);
}

static void cutting_makes_it_shorter(void)
{
	region_t *region = a_region();
	struct region_text text;
	char piece[20];
	region_text_init(&text, region);
	region_text_printf(&text, "%s", "0123456789");
	region_text_read(&text, piece, 8);
	region_text_cut(&text, 20);
	CHECK(text.length == 10, "it isn't made longer: %zu", text.length);
	region_text_cut(&text, 5);
	CHECK(strcmp(region_text_string(&text), "01234") == 0, "it is cut");
	CHECK(region_text_read(&text, piece, 20) == 0, "what was read is read");
	region_text_write(&text, "ab", 2);
	CHECK(region_text_read(&text, piece, 20) == 2 && piece[0] == 'a', "what comes next is next");
	CHECK(strcmp(region_text_string(&text), "01234ab") == 0, "and at the end");
	region_text_cut(&text, 0);
	CHECK(strcmp(region_text_string(&text), "") == 0, "nothing is left");
	region_destroy(region);
}

static void text_too_large_fails_and_stays(void)
{
	region_t *region = a_region();
	struct region_text text;
	region_text_init(&text, region);
	region_text_write(&text, "text", 4);
	struct region_text before = text;
	errno = 0;
	CHECK(region_text_write(&text, "x", probe_opaque_size(SIZE_MAX - 2)) == -1 && errno == ENOMEM, "%d",
	      errno);
	CHECK(region_text_write(&text, "x", probe_opaque_size(PTRDIFF_MAX)) == -1, "%d", errno);
	CHECK(memcmp(&before, &text, sizeof(text)) == 0, "nothing has changed");
	region_destroy(region);
}

/* --- streams --- */

static void streams_write_at_the_end(void)
{
	region_t *region = a_region();
	struct region_text text;
	region_text_init(&text, region);
	region_text_write(&text, "before ", 7);
	FILE *stream = region_text_open(&text, "a");
	CHECK(stream, "it opens");
	for (int i = 0; i < 20000; i++)
		fprintf(stream, "line %d\n", i);
	CHECK(fflush(stream) == 0 && !ferror(stream), "no error");
	fputs("end", stream);
	CHECK(fclose(stream) == 0, "it closes");
	const char *all = region_text_string(&text);
	CHECK(strncmp(all, "before line 0\nline 1\n", 21) == 0, "it went behind what was there");
	CHECK(strcmp(all + text.length - 15, "\nline 19999\nend") == 0, "all of it: %s",
	      all + text.length - 15);
	stream = region_text_open(&text, "w");
	CHECK(stream && fputs("anew", stream) >= 0 && fclose(stream) == 0, "w");
	CHECK(strcmp(region_text_string(&text), "anew") == 0, "w empties it first: %s",
	      region_text_string(&text));
	region_destroy(region);
}

static void streams_read_on(void)
{
	region_t *region = a_region();
	struct region_text text;
	char line[100];
	int number = -1;
	region_text_init(&text, region);
	for (int i = 0; i < 5000; i++)
		region_text_printf(&text, "%d\n", i);
	CHECK(region_text_read(&text, line, 4) == 4, "0 and 1 are read before");
	FILE *stream = region_text_open(&text, "r");
	CHECK(stream, "it opens");
	for (int i = 2; i < 5000; i++)
		CHECK(fscanf(stream, "%d", &number) == 1 && number == i, "line %d: %d", i, number);
	CHECK(fgetc(stream) == '\n' && fgetc(stream) == EOF && feof(stream), "the end comes");
	CHECK(fclose(stream) == 0 && text.length > 20000, "the text stays");
	region_destroy(region);
}

static void streams_that_do_both(void)
{
	static const char *const modes[] = {"r+", "a+", "w+"};
	for (int i = 0; i < 3; i++) {
		region_t *region = a_region();
		struct region_text text;
		char word[20] = "";
		region_text_init(&text, region);
		FILE *stream = region_text_open(&text, modes[i]);
		CHECK(stream, "%s opens", modes[i]);
		CHECK(fputs("word ", stream) >= 0 && fflush(stream) == 0, "%s writes", modes[i]);
		CHECK(text.length == 5, "it is in the text: %zu", text.length);
		CHECK(fscanf(stream, "%19s", word) == 1 && strcmp(word, "word") == 0, "%s reads: '%s'", modes[i],
		      word);
		CHECK(fclose(stream) == 0, "%s closes", modes[i]);
		region_destroy(region);
	}
}

static void streams_reject_what_they_cannot(void)
{
	region_t *region = a_region();
	struct region_text text;
	region_text_init(&text, region);
	region_text_write(&text, "text", 4);
	errno = 0;
	CHECK(!region_text_open(&text, "x") && errno == EINVAL, "no such mode: errno %d", errno);
	FILE *stream = region_text_open(&text, "r");
	CHECK(fputs("no", stream) < 0 || fflush(stream) != 0, "r doesn't write");
	fclose(stream);
	stream = region_text_open(&text, "a");
	CHECK(fgetc(stream) == EOF && ferror(stream), "a doesn't read");
	fclose(stream);
	CHECK(text.length == 4, "nothing has changed: %zu", text.length);
	region_destroy(region);
}

/* --- REGION_AUTO --- */

static size_t freed_blocks(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks;
}

static int leave_by_return(size_t bytes)
{
	REGION_AUTO(char *, text, bytes);
	CHECK(text, "it serves");
	memset(text, 1, bytes);
	return text[bytes - 1];
}

static void auto_blocks_end_with_their_block(void)
{
	size_t before = 0;
	for (int i = 0; i < 1000; i++) {
		if (i == 10)
			before = freed_blocks();
		leave_by_return(100000);
		for (int j = 0; j < 3; j++) {
			REGION_AUTO(int *, numbers, 5000 * sizeof(int));
			numbers[4999] = j;
			if (j == 1)
				break;
		}
		{
			REGION_AUTO(char *, one, 50);
			REGION_AUTO(char *, other, 50);
			one[0] = other[0] = 1;
			if (i % 2)
				goto out;
		}
	out:;
	}
	CHECK(freed_blocks() < before + 100000, "all were freed: %zu, %zu", before, freed_blocks());
	REGION_AUTO(void *, none, probe_opaque_size(PTRDIFF_MAX));
	CHECK(!none, "NULL when there is no memory");
}

const struct probe_case probe_cases[] = {
	CASE(newest_array_grows_where_it_is),
	CASE(arrays_grow_side_by_side),
	CASE(many_items_are_added_at_once),
	CASE(reserved_room_is_there),
	CASE(arrays_too_large_fail_and_stay),
	CASE(writes_add_up),
	CASE(alone_a_text_leaves_nothing_behind),
	CASE(freed_texts_leave_their_memory_and_the_peak),
	CASE(reads_give_what_was_written),
	CASE(cutting_makes_it_shorter),
	CASE(text_too_large_fails_and_stays),
	CASE(streams_write_at_the_end),
	CASE(streams_read_on),
	CASE(streams_that_do_both),
	CASE(streams_reject_what_they_cannot),
	CASE(auto_blocks_end_with_their_block),
	{0},
};
