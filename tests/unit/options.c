/*
 * options.c: what the environment may say, and what is said about what it may not.
 */
#include <stdlib.h>

#include "unit.h"

/* Reads the environment with one more variable in it, which is gone afterwards. */
static const char *read_with(const char *name, const char *value, struct capture *capture)
{
	setenv(name, value, 1);
	capture_begin(capture);
	options_read();
	capture_end(capture);
	unsetenv(name);
	return capture->text;
}

Test(options, without_an_environment_every_option_has_its_default)
{
	struct capture capture;

	require(!*read_with("SOMETHING_ELSE", "1", &capture), "%s", capture.text);
#define IS_DEFAULT_CHOICE(member, value) require(options.member == (value), #member);
#define IS_DEFAULT_SIZE(member, value) require(options.member == (value), #member);
#define IS_DEFAULT_COUNT(member, value) require(options.member == (value), #member);
#define IS_DEFAULT_SWITCH(member, value) require(options.member == (value), #member);
#define IS_DEFAULT_TEXT(member, value) require(options.member[0] == (value), #member);
#define IS_DEFAULT_LIST(member, value) require(options.member == (value), #member);
#define IS_DEFAULT(member, name, type, value, ...) IS_DEFAULT_##type(member, value)
	OPTIONS_MAP(IS_DEFAULT)
}

static const struct accepted {
	const char *name, *text;
	const uint64_t *value;
	uint64_t wanted;
} accepted[] = {
	{"LIBREGION_BUFFER_SIZE", "65536", &options.buffer_bytes, 65536},
	{"LIBREGION_BUFFER_SIZE", "128k", &options.buffer_bytes, 128 << 10},
	{"LIBREGION_BUFFER_SIZE", "128K", &options.buffer_bytes, 128 << 10},
	{"LIBREGION_BUFFER_SIZE", "1M", &options.buffer_bytes, 1 << 20},
	{"LIBREGION_BUFFER_SIZE", "1m", &options.buffer_bytes, 1 << 20},
	{"LIBREGION_BUFFER_SIZE", "64KiB", &options.buffer_bytes, 64 << 10},
	{"LIBREGION_BUFFER_SIZE", "64kB", &options.buffer_bytes, 64 << 10},
	{"LIBREGION_BUFFER_SIZE", "64kb", &options.buffer_bytes, 64 << 10},
	{"LIBREGION_BUFFER_SIZE", "16M", &options.buffer_bytes, 16 << 20},
	{"LIBREGION_HEAP_RANGE", "3G", &options.heap_range_bytes, (uint64_t)3 << 30},
	{"LIBREGION_HEAP_RANGE", "1T", &options.heap_range_bytes, (uint64_t)1 << 40},
	{"LIBREGION_LIMIT", "0", &options.limit_bytes, 0},
	{"LIBREGION_BUFFER_CACHE", "0k", &options.cache_bytes, 0},
	{"LIBREGION_BUFFER_COUNT", "1024", &options.buffer_count, 1024},
	{"LIBREGION_MAX_BLOCK", "16", &options.max_block_bytes, 16},
	{"LIBREGION_DECAY", "007", &options.decay_ms, 7},
	{"LIBREGION_FADE", "default", &options.fade, REGION_FADE_DEFAULT},
	{"LIBREGION_FADE", "unfreed", &options.fade, REGION_FADE_UNFREED},
	{"LIBREGION_FADE", "reachable", &options.fade, REGION_FADE_REACHABLE},
	{"LIBREGION_FADE", "none", &options.fade, REGION_FADE_NONE},
	{"LIBREGION_ON_ERROR", "abort", &options.on_error, 0},
	{"LIBREGION_ON_ERROR", "report", &options.on_error, 1},
	{"LIBREGION_DISABLE", "1", &options.disable, 1},
	{"LIBREGION_DISABLE", "yes", &options.disable, 1},
	{"LIBREGION_DISABLE", "on", &options.disable, 1},
	{"LIBREGION_DISABLE", "true", &options.disable, 1},
	{"LIBREGION_DISABLE", "0", &options.disable, 0},
	{"LIBREGION_DISABLE", "no", &options.disable, 0},
	{"LIBREGION_DISABLE", "off", &options.disable, 0},
	{"LIBREGION_DISABLE", "false", &options.disable, 0},
};

Test(options, values_are_understood_in_all_their_forms)
{
	for (size_t i = 0; i < COUNT_OF(accepted); i++) {
		const struct accepted *row = &accepted[i];
		struct capture capture;

		read_with(row->name, row->text, &capture);
		require(!*capture.text, "%s=%s: %s", row->name, row->text, capture.text);
		require(*row->value == row->wanted, "%s=%s: %zu", row->name, row->text, (size_t)*row->value);
	}
}

static const struct refused {
	const char *name, *text;
	const uint64_t *value;
	uint64_t by_default;
	const char *report;
} refused[] = {
	{"LIBREGION_BUFFER_SIZE", "", &options.buffer_bytes, 256 << 10, "expected 64k to 16M; using 256k"},
	{"LIBREGION_BUFFER_SIZE", "big", &options.buffer_bytes, 256 << 10, "expected 64k to 16M; using 256k"},
	{"LIBREGION_BUFFER_SIZE", "-1", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", " 64k", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "64k ", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "64kk", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "64x", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "65535", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "17M", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "17179869184G", &options.buffer_bytes, 256 << 10, "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "18014398509482048k", &options.buffer_bytes, 256 << 10,
	 "expected 64k to 16M"},
	{"LIBREGION_BUFFER_SIZE", "18446744073709617152", &options.buffer_bytes, 256 << 10,
	 "expected 64k to 16M"},
	{"LIBREGION_HEAP_RANGE", "15M", &options.heap_range_bytes, (uint64_t)1 << 40,
	 "expected 16M to 1T; using 1T"},
	{"LIBREGION_BUFFER_COUNT", "0", &options.buffer_count, 1, "expected 1 to 1024; using 1"},
	{"LIBREGION_BUFFER_COUNT", "1k", &options.buffer_count, 1, "expected 1 to 1024; using 1"},
	{"LIBREGION_FADE", "nothing", &options.fade, 0, "expected default unfreed reachable none; using default"},
	{"LIBREGION_FADE", "non", &options.fade, 0, "expected default unfreed reachable none; using default"},
	{"LIBREGION_FADE", "unfreed none", &options.fade, 0, "expected default unfreed reachable none"},
	{"LIBREGION_DISABLE", "2", &options.disable, 0,
	 "expected 1 or 0, yes or no, on or off, true or false; using 0"},
	{"LIBREGION_DISABLE", "", &options.disable, 0, "expected 1 or 0"},
};

Test(options, what_is_not_understood_is_reported_once_and_the_default_holds)
{
	for (size_t i = 0; i < COUNT_OF(refused); i++) {
		const struct refused *row = &refused[i];
		struct capture capture;

		read_with(row->name, row->text, &capture);
		require(count_lines(capture.text) == 1, "%s=%s: %s", row->name, row->text, capture.text);
		require(strncmp(capture.text, "libregion: LIBREGION_", 21) == 0, "%s", capture.text);
		require(strstr(capture.text, row->name) && strstr(capture.text, row->text), "%s", capture.text);
		require(strstr(capture.text, row->report), "%s=%s: %s", row->name, row->text, capture.text);
		require(*row->value == row->by_default, "%s=%s: %zu", row->name, row->text, (size_t)*row->value);
	}
}

Test(options, a_name_that_is_none_of_ours_is_reported_if_it_looks_like_one)
{
	struct capture capture;

	read_with("LIBREGION_FADES", "none", &capture);
	require(strstr(capture.text, "LIBREGION_FADES=none: no such option"), "%s", capture.text);
	require(options.fade == 0, "%zu", (size_t)options.fade);
	read_with("LIBREGION_FAD", "none", &capture);
	require(strstr(capture.text, "LIBREGION_FAD=none: no such option"), "%s", capture.text);
	require(!*read_with("MY_LIBREGION_FADE", "none", &capture), "%s", capture.text);
	require(options.fade == 0, "%zu", (size_t)options.fade);
}

Test(options, a_text_is_taken_as_it_is_up_to_its_room)
{
	char text[OPTION_TEXT_BYTES + 1];
	struct capture capture;

	memset(text, 'x', sizeof(text));
	text[OPTION_TEXT_BYTES - 1] = '\0';
	require(!*read_with("LIBREGION_STATS", text, &capture), "%s", capture.text);
	require(strcmp(options.stats, text) == 0, "%s", options.stats);
	require(!*read_with("LIBREGION_STATS", "some/file b=%p.json", &capture), "%s", capture.text);
	require(strcmp(options.stats, "some/file b=%p.json") == 0, "%s", options.stats);
	memset(text, 'y', sizeof(text));
	text[OPTION_TEXT_BYTES] = '\0';
	read_with("LIBREGION_STATS", text, &capture);
	require(strstr(capture.text, "LIBREGION_STATS=yyy") && strstr(capture.text, "not understood"), "%s",
	        capture.text);
	require(strcmp(options.stats, "some/file b=%p.json") == 0, "%s", options.stats);
}

static const char *printed(bool with_help, struct capture *capture)
{
	capture_begin(capture);
	options_print(with_help);
	return capture_end(capture);
}

Test(options, the_table_shows_the_values_in_force_as_the_environment_takes_them)
{
	struct capture capture;

	setenv("LIBREGION_BUFFER_SIZE", "524288", 1);
	setenv("LIBREGION_FADE", "none", 1);
	setenv("LIBREGION_DECAY", "1024", 1);
	setenv("LIBREGION_LIMIT", "1025", 1);
	setenv("LIBREGION_STATS", "json", 1);
	options_read();
	printed(false, &capture);
	const char *const lines[] = {"BUFFER_SIZE=512k\n", "FADE=none\n", "DECAY=1024\n", "LIMIT=1025\n",
	                             "STATS=json\n", "HEAP_RANGE=1T\n", "ON_ERROR=abort\n", "DISABLE=0\n"};
	for (size_t i = 0; i < COUNT_OF(lines); i++)
		require(strstr(capture.text, lines[i]), "%s isn't in %s", lines[i], capture.text);
}

Test(options, the_table_with_help_says_what_each_option_is_for_and_takes)
{
	struct capture capture;

	options_read();
	printed(true, &capture);
#define IS_THERE(member, name, type, value, least, most, words, help) \
	require(strstr(capture.text, "libregion: LIBREGION_" name "=") && strstr(capture.text, help), name);
	OPTIONS_MAP(IS_THERE)
	require(strstr(capture.text, "takes 64k to 16M\n"), "%s", capture.text);
	require(strstr(capture.text, "takes 0 to 3600000\n"), "%s", capture.text);
	require(strstr(capture.text, "takes default unfreed reachable none\n"), "%s", capture.text);
	require(strstr(capture.text, "takes 1 or 0, yes or no"), "%s", capture.text);
}
