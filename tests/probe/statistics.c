/*
 * statistics.c: the numbers are right, and LIBREGION_STATS writes them in each of its forms, well
 * formed enough for other programs to read.
 */
#define _GNU_SOURCE
#include "scoped.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

static const struct region_options unfreed = {.name = "leaving", .fade = REGION_FADE_UNFREED};
static const struct region_options none = {.name = "reclaiming", .fade = REGION_FADE_NONE};

/* Ten blocks of 96 bytes, none of them the newest when it is freed; four are freed. */
static void *blocks[10];

static void ten_blocks_four_freed(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < 10; i++)
		blocks[i] = probe_block(96, i);
	for (unsigned i = 0; i < 4; i++)
		probe_unblock(blocks[i], 96, i);
}

static void is(uint64_t value, uint64_t wanted, const char *what)
{
	CHECK(value == wanted, "%s: %zu, not %zu", what, (size_t)value, (size_t)wanted);
}

static void check_ten_and_four(const struct region_stats *stats, uint64_t scopes)
{
	is(stats->scopes_entered, scopes, "scopes entered");
	is(stats->blocks_allocated, 10 * scopes, "blocks allocated");
	is(stats->bytes_allocated, 960 * scopes, "bytes allocated");
	is(stats->blocks_freed, 4 * scopes, "blocks freed");
	is(stats->bytes_freed, 384 * scopes, "bytes freed");
	CHECK(stats->peak_bytes >= 65536, "a scope held at least a buffer: %zu", (size_t)stats->peak_bytes);
}

static void faded_blocks_are_counted(void)
{
	struct region_stats stats;
	for (int i = 0; i < 5; i++)
		region_do_with(&unfreed, ten_blocks_four_freed, NULL);
	CHECK(region_stats_read_scope("leaving", &stats) == 0, "the name is known");
	check_ten_and_four(&stats, 5);
	is(stats.blocks_faded, 30, "blocks faded");
	is(stats.bytes_faded, 2880, "bytes faded");
	is(stats.blocks_reclaimed, 0, "blocks reclaimed");
}

static void reclaimed_blocks_are_counted(void)
{
	struct region_stats stats;
	for (int i = 0; i < 5; i++)
		region_do_with(&none, ten_blocks_four_freed, NULL);
	CHECK(region_stats_read_scope("reclaiming", &stats) == 0, "the name is known");
	check_ten_and_four(&stats, 5);
	is(stats.blocks_reclaimed, 30, "blocks reclaimed");
	is(stats.bytes_reclaimed, 2880, "bytes reclaimed");
	is(stats.blocks_faded, 0, "blocks faded");
}

static void totals_are_sums_over_scopes(void)
{
	struct region_stats all;
	region_do_with(&unfreed, ten_blocks_four_freed, NULL);
	region_do_with(&none, ten_blocks_four_freed, NULL);
	region_do(ten_blocks_four_freed, NULL);
	region_stats_read(&all);
	check_ten_and_four(&all, 3);
	is(all.blocks_faded + all.waiting_blocks, 12, "blocks faded");
	is(all.blocks_reclaimed, 6, "blocks reclaimed");
	CHECK(all.resident_bytes > 0 && all.mapped_bytes >= 65536, "memory of the process shows");
}

static void *use_a_scope(void *unused)
{
	struct region_stats mine;
	region_do_with(&unfreed, ten_blocks_four_freed, unused);
	region_stats_read_thread(&mine);
	check_ten_and_four(&mine, 1);
	return unused;
}

static void threads_have_statistics_of_their_own(void)
{
	struct region_stats stats;
	for (int i = 0; i < 3; i++) {
		pthread_t thread;
		CHECK(pthread_create(&thread, NULL, use_a_scope, NULL) == 0, "a thread starts");
		pthread_join(thread, NULL);
		if (i == 0) {
			region_stats_read_thread(&stats);
			is(stats.scopes_entered, 0, "scopes that this thread entered");
		}
	}
	region_stats_read(&stats);
	check_ten_and_four(&stats, 3);
}

static void unknown_names_are_enoent(void)
{
	struct region_stats stats;
	region_do_with(&unfreed, ten_blocks_four_freed, NULL);
	errno = 0;
	CHECK(region_stats_read_scope("never entered", &stats) == -1 && errno == ENOENT, "ENOENT");
}

/* Names count by their text, not by where it lies. */
static void names_are_compared_by_their_text(void)
{
	static char copy[] = "leaving";
	struct region_options options = {.name = copy, .fade = REGION_FADE_UNFREED};
	struct region_stats stats;
	region_do_with(&unfreed, ten_blocks_four_freed, NULL);
	region_do_with(&options, ten_blocks_four_freed, NULL);
	CHECK(region_stats_read_scope("leaving", &stats) == 0, "the name is known");
	check_ten_and_four(&stats, 2);
}

static void free_the_newest(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		free(probe_block(96, 1));
}

static void newest_blocks_freed_at_once_are_counted(void)
{
	struct region_stats stats;
	region_do_with(&unfreed, free_the_newest, NULL);
	CHECK(region_stats_read_scope("leaving", &stats) == 0, "the name is known");
	is(stats.blocks_allocated, 1000, "blocks allocated");
	is(stats.blocks_freed, 1000, "blocks freed");
	is(stats.bytes_allocated, 96000, "bytes allocated");
	is(stats.bytes_freed, 96000, "bytes freed");
	is(stats.blocks_faded, 0, "blocks faded");
}

static void *late;

static void leave_late(void *unused)
{
	(void)unused;
	late = probe_block(96, 1);
	probe_block(96, 2);
}

static void late_frees_are_counted(void)
{
	struct region_stats stats;
	region_do_with(&none, leave_late, NULL);
	free(late);
	region_stats_read(&stats);
	is(stats.late_frees, 1, "late frees");
}

static void buffers_are_counted(void)
{
	struct region_stats stats;
	for (int i = 0; i < 10; i++)
		region_do_with(&none, ten_blocks_four_freed, NULL);
	CHECK(region_stats_read_scope("reclaiming", &stats) == 0, "the name is known");
	CHECK(stats.buffers_made >= 1 && stats.buffers_made <= 2, "one buffer does: %zu",
	      (size_t)stats.buffers_made);
	CHECK(stats.buffers_reused + stats.buffers_partial >= 9, "and is used again: %zu",
	      (size_t)stats.buffers_reused);
}

/* --- what LIBREGION_STATS writes at exit --- */

static void leave_some_statistics(void)
{
	struct region_options odd = {.name = "odd \"name\" \\ with\ttabs", .fade = REGION_FADE_NONE};
	region_do_with(&unfreed, ten_blocks_four_freed, NULL);
	region_do_with(&none, ten_blocks_four_freed, NULL);
	region_do_with(&odd, ten_blocks_four_freed, NULL);
}

static const char *skip_space(const char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

/* A JSON text, as RFC 8259 has it but for numbers' fractions: what follows the value at p, or NULL. */
static const char *json_value(const char *p);

static const char *json_string(const char *p)
{
	if (*p++ != '"')
		return NULL;
	for (; *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p == '\\' && !strchr("\"\\/bfnrtu", *++p))
			return NULL;
	}
	return p + 1;
}

static const char *json_members(const char *p, char close, bool has_names)
{
	p = skip_space(p + 1);
	if (*p == close)
		return p + 1;
	for (;; p++) {
		if (has_names) {
			p = json_string(skip_space(p));
			p = p ? skip_space(p) : NULL;
			if (!p || *p++ != ':')
				return NULL;
		}
		p = json_value(p);
		if (!p || (*p != ',' && *p != close))
			return NULL;
		if (*p == close)
			return p + 1;
	}
}

static const char *json_value(const char *p)
{
	static const char *const words[] = {"true", "false", "null"};
	const char *end = NULL;
	p = skip_space(p);
	if (*p == '{' || *p == '[')
		end = json_members(p, *p == '{' ? '}' : ']', *p == '{');
	else if (*p == '"')
		end = json_string(p);
	else if (isdigit((unsigned char)*p))
		end = p + strspn(p, "0123456789");
	for (int i = 0; i < 3; i++)
		if (strncmp(p, words[i], strlen(words[i])) == 0)
			end = p + strlen(words[i]);
	return end ? skip_space(end) : NULL;
}

static const char *json_is_well_formed(const char *said)
{
	const char *end = json_value(said);
	if (!end || *end)
		return "it isn't one JSON value";
	if (!strstr(said, "\"leaving\"") || !strstr(said, "\"blocks_faded\": 6"))
		return "the scope 'leaving' and its six faded blocks are missing";
	if (!strstr(said, "odd \\\"name\\\" \\\\"))
		return "the odd name isn't escaped";
	return NULL;
}

/* --- Prometheus: "name{labels} number", "# HELP name ...", "# TYPE name kind" --- */

static size_t name_length(const char *p)
{
	return strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:");
}

static const char *labels_end(const char *p)
{
	for (p++; *p != '}'; p++) {
		p += name_length(p);
		if (p[0] != '=' || p[1] != '"')
			return NULL;
		for (p += 2; *p != '"'; p++) {
			if (*p == '\n' || *p == '\0')
				return NULL;
			if (*p == '\\' && !strchr("\"\\n", *++p))
				return NULL;
		}
		if (p[1] != ',' && p[1] != '}')
			return NULL;
		if (p[1] == '}')
			return p + 2;
	}
	return p + 1;
}

/* The metric's name at the start of a line, or NULL if the line is malformed. */
static const char *metric_of(const char *line, size_t *length)
{
	const char *name = line, *p;
	if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0) {
		name = line + 7;
		*length = name_length(name);
		return *length && name[*length] == ' ' ? name : NULL;
	}
	*length = name_length(name);
	p = name + *length;
	if (*p == '{')
		p = labels_end(p);
	if (!*length || !p || *p++ != ' ' || !isdigit((unsigned char)*p))
		return NULL;
	p += strspn(p, "0123456789.e+-");
	return *p == '\n' ? name : NULL;
}

static bool was_seen_before(const char *said, const char *line, const char *name, size_t length)
{
	for (; said < line; said = strchr(said, '\n') + 1) {
		size_t other_length;
		const char *other = metric_of(said, &other_length);
		if (other && other_length == length && memcmp(other, name, length) == 0)
			return true;
	}
	return false;
}

/* All lines of one metric stand together: the format wants it, and some readers insist. */
static const char *prometheus_is_well_formed(const char *said)
{
	const char *last = "";
	size_t last_length = 0;
	for (const char *line = said; *line; line = strchr(line, '\n') + 1) {
		size_t length;
		const char *name = metric_of(line, &length);
		if (!name || !strchr(line, '\n'))
			return "a line is malformed";
		if ((length != last_length || memcmp(name, last, length) != 0) &&
		    was_seen_before(said, line, name, length))
			return "the lines of one metric don't stand together";
		last = name;
		last_length = length;
	}
	return strstr(said, "scope=\"leaving\"") ? NULL : "the scope 'leaving' is missing";
}

static const char *text_is_ours(const char *said)
{
	for (const char *line = said; *line; line = strchr(line, '\n') + 1)
		if (strncmp(line, "libregion: ", 11) != 0)
			return "a line doesn't begin 'libregion: '";
	return NULL;
}

/* --- to a file --- */

static void remove_directory(const char *directory)
{
	DIR *entries = opendir(directory);
	struct dirent *entry;
	char path[4096];
	while (entries && (entry = readdir(entries))) {
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		unlink(path);
	}
	if (entries)
		closedir(entries);
	rmdir(directory);
}

static char file_text[1 << 16];

static void read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t length;
	CHECK(file, "%s is there", path);
	length = fread(file_text, 1, sizeof(file_text) - 1, file);
	file_text[length] = '\0';
	fclose(file);
}

/* Starts this program's case `leaves_some_statistics` with its statistics going to a file. */
static void statistics_into(const char *file_name, char *path, size_t capacity)
{
	char option[4096], directory[] = "/tmp/region-probe-XXXXXX";
	int pid;
	CHECK(mkdtemp(directory), "a directory is made");
	snprintf(option, sizeof(option), "%s/%s", directory, file_name);
	pid = fork();
	if (pid == 0) {
		setenv("LIBREGION_STATS", option, 1);
		execl(probe_path(), "probe", "--inside", "leaves_some_statistics", (char *)NULL);
		_exit(127);
	}
	CHECK(probe_wait_child(pid, 10) == 0, "the program runs");
	snprintf(path, capacity, "%s/%d%s", directory, pid, strchr(file_name, '.'));
	read_file(path);
	remove_directory(directory);
}

static void statistics_go_to_a_file_with_the_process_id(void)
{
	char path[4096];
	statistics_into("%p.json", path, sizeof(path));
	CHECK(!json_is_well_formed(file_text), "%s: %s", path, json_is_well_formed(file_text));
	statistics_into("%p.prom", path, sizeof(path));
	CHECK(!prometheus_is_well_formed(file_text), "%s: %s", path, prometheus_is_well_formed(file_text));
	statistics_into("%p.txt", path, sizeof(path));
	CHECK(!text_is_ours(file_text), "%s: %s", path, text_is_ours(file_text));
}

#define CASE(name_) {.name = #name_, .run = name_}

/* Under `none` blocks are counted only where somebody asked for statistics. */
#define COUNTED(name_) {.name = #name_, .run = name_, .environment = "LIBREGION_STATS=/dev/null"}
#define WRITTEN(name_, form_, judge_) \
	{.name = #name_, .run = leave_some_statistics, .environment = "LIBREGION_STATS=" form_, \
	 .lines = PROBE_ANY_LINES, .judge = judge_}

const struct probe_case probe_cases[] = {
	CASE(faded_blocks_are_counted),
	COUNTED(reclaimed_blocks_are_counted),
	COUNTED(totals_are_sums_over_scopes),
	CASE(threads_have_statistics_of_their_own),
	CASE(unknown_names_are_enoent),
	CASE(names_are_compared_by_their_text),
	CASE(newest_blocks_freed_at_once_are_counted),
	{.name = "late_frees_are_counted", .run = late_frees_are_counted, .lines = 1,
	 .says = {"reclaiming"}},
	CASE(buffers_are_counted),
	{.name = "leaves_some_statistics", .run = leave_some_statistics},
	WRITTEN(statistics_as_text, "1", text_is_ours),
	WRITTEN(statistics_as_json, "json", json_is_well_formed),
	WRITTEN(statistics_as_prometheus, "prometheus", prometheus_is_well_formed),
	CASE(statistics_go_to_a_file_with_the_process_id),
	{.name = "statistics_to_a_file_that_cannot_be_written", .run = leave_some_statistics,
	 .environment = "LIBREGION_STATS=/there-is-no-such-directory/file", .lines = 1,
	 .says = {"/there-is-no-such-directory/file"}},
	{0},
};
