/*
 * site_spec.c: parsing lists of sites.
 *
 * The text is cut up where it lies: each piece is ended by a NUL in place of the mark behind it. A copy of
 * each site as it was written goes into reports.
 */
#include "site_spec.h"

#include <string.h>

#include "core/core.h"
#include "options.h"

#define OPTIONS_TEXT "expected name, fade, buffer_size, buffer_count, limit_bytes, nest or once"
#define SHORTEST_BUILD_ID 8

struct parser {
	const char *source;
	unsigned line;     /* 0: not a file */
	const char *start; /* of the line, or of the list */
	struct site_spec *spec;
	bool has_failed;
};

static void fail(struct parser *parser, const char *at, const char *what)
{
	unsigned column = (unsigned)(at - parser->start) + 1;

	if (parser->has_failed)
		return;
	parser->has_failed = true;
	if (parser->line)
		report("%s, line %u, character %u: %s; the site \"%s\" is ignored", parser->source,
		       parser->line, column, what, parser->spec->text);
	else
		report("%s, character %u: %s; the site \"%s\" is ignored", parser->source, column, what,
		       parser->spec->text);
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts `text` at the first of these marks: what is behind it, or NULL if there is none. */
static char *cut(char *text, const char *marks)
{
	char *at = text + strcspn(text, marks);

	if (!*at)
		return NULL;
	*at = '\0';
	return at + 1;
}

/* Options. */

static void parse_fade(struct parser *parser, const char *value)
{
	struct region_options *given = &parser->spec->options;

	if (strcmp(value, "unfreed") == 0)
		given->fade = REGION_FADE_UNFREED;
	else if (strcmp(value, "reachable") == 0)
		given->fade = REGION_FADE_REACHABLE;
	else if (strcmp(value, "none") == 0)
		given->fade = REGION_FADE_NONE;
	else
		fail(parser, value, "not a fade policy; expected unfreed, reachable or none");
}

static size_t parse_size(struct parser *parser, const char *value, bool has_suffix)
{
	uint64_t number = 0;

	if (!options_parse_number(value, has_suffix, &number) || number == 0)
		fail(parser, value,
		     has_suffix ? "not a size; expected a number with k, M, G or T" : "not a number");
	return (size_t)number;
}

static void parse_flag(struct parser *parser, const char *name)
{
	if (strcmp(name, "nest") == 0)
		parser->spec->may_nest = true;
	else if (strcmp(name, "once") == 0)
		parser->spec->is_once = true;
	else
		fail(parser, name, "not an option of sites, or without its value; " OPTIONS_TEXT);
}

static void parse_option(struct parser *parser, char *option)
{
	struct region_options *given = &parser->spec->options;
	char *value = cut(option, "=");

	if (!value)
		parse_flag(parser, option);
	else if (strcmp(option, "name") == 0 && *value)
		given->name = value;
	else if (strcmp(option, "fade") == 0)
		parse_fade(parser, value);
	else if (strcmp(option, "buffer_size") == 0)
		given->buffer_size = parse_size(parser, value, true);
	else if (strcmp(option, "buffer_count") == 0)
		given->buffer_count = parse_size(parser, value, false);
	else if (strcmp(option, "limit_bytes") == 0)
		given->limit_bytes = parse_size(parser, value, true);
	else
		fail(parser, option, "not an option of sites; " OPTIONS_TEXT);
}

/* Places. */

static void parse_offset(struct parser *parser, const char *text)
{
	uintptr_t offset = 0;

	if (!is_hex(*text))
		fail(parser, text, "expected hexadecimal digits");
	for (const char *at = text; *at; at++) {
		unsigned digit =
			(unsigned char)*at <= '9' ? (unsigned)*at - '0' : ((unsigned)*at | 0x20) - 'a' + 10;
		if (!is_hex(*at) || at - text > 15)
			fail(parser, at, "expected at most 16 hexadecimal digits");
		offset = offset << 4 | (digit & 15);
	}
	parser->spec->offset = offset;
}

static void parse_build_id(struct parser *parser, char *text)
{
	size_t length = strcspn(text, "]");

	parser->spec->build_id = text;
	if (strspn(text, "0123456789abcdef") < length || length < SHORTEST_BUILD_ID ||
	    text[length] == '\0')
		fail(parser, text, "expected at least 8 digits of a build-id, in lower case, and \"]\"");
	else if (text[length + 1] != '\0')
		fail(parser, text + length + 1, "expected \"+0x\" and an offset behind the build-id");
	else
		text[length] = '\0';
}

static void check_name(struct parser *parser, const char *name, const char *what)
{
	size_t length = strcspn(name, " \t*?[]()<>\"'");

	if (!*name)
		fail(parser, name, what);
	else if (name[length])
		fail(parser, name + length,
		     "this character isn't part of a function's name (as symbols have it)");
}

/* The last "+0x" is what counts: a path may have one, too. */
static char *find_offset(char *text)
{
	char *found = NULL;

	for (char *at = strstr(text, "+0x"); at; at = strstr(at + 1, "+0x"))
		found = at;
	return found;
}

static void parse_place(struct parser *parser, char *text)
{
	struct site_spec *spec = parser->spec;
	char *offset = find_offset(text), *behind;

	if (offset) {
		*offset = '\0';
		parse_offset(parser, offset + 3);
		behind = cut(text, "[");
		if (behind)
			parse_build_id(parser, behind);
		if (!*text)
			fail(parser, text, "expected a module before \"+0x\"");
		spec->module = text;
		return;
	}
	behind = cut(text, ":");
	if (behind && !*text)
		fail(parser, text, "expected a module before \":\"");
	if (behind)
		spec->module = text;
	spec->function.text = behind ? behind : text;
	check_name(parser, spec->function.text, "expected a function");
}

/* A path of the module has slashes of its own: options begin behind the place. */
static char *find_options(char *text)
{
	char *colon = strchr(text, ':'), *offset = find_offset(text);

	return strchr(offset ? offset : colon ? colon : text, '/');
}

static char *copy_of(const char *text, size_t length)
{
	char *copy = range_meta_alloc(length + 1);

	if (copy)
		memcpy(copy, text, length);
	return copy;
}

static void parse_site(struct parser *parser, char *text)
{
	struct site_spec *spec = parser->spec;
	char *option = find_options(text), *caller;

	if (option)
		*option++ = '\0';
	spec->options.name = copy_of(text, strlen(text));
	caller = cut(text, "@");
	if (caller) {
		spec->caller.text = caller;
		check_name(parser, caller, "expected a function behind \"@\"");
	}
	parse_place(parser, text);
	while (option) {
		char *next = cut(option, "/");
		parse_option(parser, option);
		option = next;
	}
}

/* Lists. */

static struct site_spec *make_spec(const char *text)
{
	struct site_spec *spec = range_meta_alloc(sizeof(*spec));
	size_t length = strlen(text);

	if (!spec)
		return NULL;
	*spec = (struct site_spec){
		.text = copy_of(text, length),
		.module = "",
		.build_id = "",
		.function = {.text = "", .spec = spec},
		.caller = {.text = "", .spec = spec, .is_caller = true},
		.options = {.fade = REGION_FADE_UNFREED},
	};
	return spec->text ? spec : NULL;
}

static char *trim(char *text)
{
	size_t length;

	while (is_space(*text))
		text++;
	for (length = strlen(text); length > 0 && is_space(text[length - 1]); length--)
		text[length - 1] = '\0';
	return text;
}

struct site_spec **site_spec_read(struct site_spec **last, const char *source, char *text,
                                  bool is_file)
{
	struct parser parser = {.source = source, .line = is_file, .start = text};

	for (char *next; text; text = next, parser.line += is_file) {
		next = cut(text, is_file ? "\n" : ",");
		if (is_file) {
			parser.start = text;
			cut(text, "#");
		}
		text = trim(text);
		if (!*text)
			continue;
		parser.spec = make_spec(text);
		parser.has_failed = false;
		if (!parser.spec)
			return last;
		parse_site(&parser, text);
		if (parser.has_failed)
			continue;
		*last = parser.spec;
		last = &parser.spec->next;
	}
	return last;
}
