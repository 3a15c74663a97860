/*
 * json.c: recursive descent over the text, one function for each production.
 *
 * A function that fails sets parser->error once and returns NULL or false; what it had allocated hangs
 * in the tree by then, or is freed by it, so that json_parse() can free all with one call.
 */
#include "json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 200

struct parser {
	const char *start;
	const char *at;
	const char *error;
	unsigned depth;
};

static struct json *parse_value(struct parser *parser);

static void *fail(struct parser *parser, const char *error)
{
	if (parser->error == NULL)
		parser->error = error;
	return NULL;
}

static void skip_space(struct parser *parser)
{
	while (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\r' || *parser->at == '\t')
		parser->at++;
}

static bool accept(struct parser *parser, char c)
{
	skip_space(parser);
	if (*parser->at != c)
		return false;
	parser->at++;
	return true;
}

static struct json *new_node(struct parser *parser, enum json_type type)
{
	struct json *node = calloc(1, sizeof *node);

	if (node == NULL)
		return fail(parser, "out of memory");
	node->type = type;
	return node;
}

/* Four hexadecimal digits; UINT32_MAX when they aren't. */
static uint32_t parse_hex4(struct parser *parser)
{
	uint32_t value = 0;

	for (int i = 0; i < 4; i++, parser->at++) {
		char c = *parser->at;
		if (c >= '0' && c <= '9')
			value = value * 16 + (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			value = value * 16 + (uint32_t)((c | 32) - 'a' + 10);
		else
			return UINT32_MAX;
	}
	return value;
}

/* What follows \u: one unit of UTF-16, or a pair of surrogates. */
static uint32_t parse_escaped_rune(struct parser *parser)
{
	uint32_t high = parse_hex4(parser);

	if (high < 0xd800 || high > 0xdfff)
		return high;
	if (high > 0xdbff || parser->at[0] != '\\' || parser->at[1] != 'u')
		return UINT32_MAX;
	parser->at += 2;
	uint32_t low = parse_hex4(parser);
	if (low < 0xdc00 || low > 0xdfff)
		return UINT32_MAX;
	return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static char *put_utf8(char *out, uint32_t rune)
{
	if (rune < 0x80) {
		*out++ = (char)rune;
		return out;
	}
	if (rune < 0x800) {
		*out++ = (char)(0xc0 | rune >> 6);
	} else {
		if (rune < 0x10000) {
			*out++ = (char)(0xe0 | rune >> 12);
		} else {
			*out++ = (char)(0xf0 | rune >> 18);
			*out++ = (char)(0x80 | (rune >> 12 & 63));
		}
		*out++ = (char)(0x80 | (rune >> 6 & 63));
	}
	*out++ = (char)(0x80 | (rune & 63));
	return out;
}

/* The character after a backslash, written to `out`; NULL when there is no such escape. */
static char *parse_escape(struct parser *parser, char *out)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	char c = *parser->at++;

	if (c == 'u') {
		uint32_t rune = parse_escaped_rune(parser);
		/* Strings end with a zero byte here, so there can't be one inside. */
		return rune == UINT32_MAX || rune == 0 ? NULL : put_utf8(out, rune);
	}
	const char *name = c == 0 ? NULL : strchr(names, c);
	if (name == NULL)
		return NULL;
	*out++ = values[name - names];
	return out;
}

/* Bytes to the closing quote: no less than the string takes, as an escape is longer than what it means. */
static size_t string_length(const char *at)
{
	const char *end = at;

	while (*end != '"' && *end != 0)
		end += end[0] == '\\' && end[1] != 0 ? 2 : 1;
	return (size_t)(end - at);
}

static char *parse_string(struct parser *parser)
{
	if (!accept(parser, '"'))
		return fail(parser, "expected a string");
	char *text = malloc(string_length(parser->at) + 1), *out = text;
	if (text == NULL)
		return fail(parser, "out of memory");

	while (out != NULL && (unsigned char)*parser->at >= ' ' && *parser->at != '"') {
		if (*parser->at != '\\') {
			*out++ = *parser->at++;
		} else {
			parser->at++;
			out = parse_escape(parser, out);
		}
	}
	if (out == NULL || *parser->at != '"') {
		free(text);
		return fail(parser, out == NULL ? "bad escape" : "string without an end");
	}
	parser->at++;
	*out = 0;
	return text;
}

static struct json *parse_string_value(struct parser *parser)
{
	struct json *node = new_node(parser, JSON_STRING);

	if (node != NULL)
		node->text = parse_string(parser);
	return node;
}

static const char *skip_digits(const char *at)
{
	while (*at >= '0' && *at <= '9')
		at++;
	return at;
}

/* The end of the number at `at` by the grammar, which strtod() is laxer than; NULL when it is none. */
static const char *number_end(const char *at)
{
	at += *at == '-';
	const char *whole = at;
	at = skip_digits(at);
	if (at == whole || (*whole == '0' && at > whole + 1))
		return NULL;
	if (*at == '.') {
		const char *fraction = at + 1;
		at = skip_digits(fraction);
		if (at == fraction)
			return NULL;
	}
	if ((*at | 32) == 'e') {
		const char *exponent = at + 1;
		exponent += *exponent == '-' || *exponent == '+';
		at = skip_digits(exponent);
		if (at == exponent)
			return NULL;
	}
	return at;
}

static struct json *parse_number(struct parser *parser)
{
	const char *end = number_end(parser->at);

	if (end == NULL)
		return fail(parser, "expected a value");
	struct json *node = new_node(parser, JSON_NUMBER);
	if (node != NULL)
		node->number = strtod(parser->at, NULL);
	parser->at = end;
	return node;
}

static struct json *parse_word(struct parser *parser)
{
	static const struct {
		const char *word;
		enum json_type type;
		bool boolean;
	} words[] = {
		{"null", JSON_NULL, false}, {"true", JSON_BOOL, true}, {"false", JSON_BOOL, false}};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		size_t length = strlen(words[i].word);
		if (strncmp(parser->at, words[i].word, length) != 0)
			continue;
		parser->at += length;
		struct json *node = new_node(parser, words[i].type);
		if (node != NULL)
			node->boolean = words[i].boolean;
		return node;
	}
	return fail(parser, "expected a value");
}

/* One element or, with its key, one member. */
static struct json *parse_item(struct parser *parser, bool has_key)
{
	char *key = has_key ? parse_string(parser) : NULL;

	if (has_key && key != NULL && !accept(parser, ':'))
		fail(parser, "expected a colon");
	struct json *node = parser->error == NULL ? parse_value(parser) : NULL;
	if (node == NULL)
		free(key);
	else
		node->key = key;
	return node;
}

static struct json *parse_items(struct parser *parser, enum json_type type, char closing)
{
	struct json *node = new_node(parser, type);

	parser->at++;
	if (node == NULL || accept(parser, closing))
		return node;
	struct json **last = &node->first;
	do {
		*last = parse_item(parser, type == JSON_OBJECT);
		if (parser->error != NULL)
			return node;
		last = &(*last)->next;
	} while (accept(parser, ','));
	if (!accept(parser, closing))
		fail(parser, "expected a comma or the end");
	return node;
}

static struct json *parse_value(struct parser *parser)
{
	struct json *node;

	if (++parser->depth > DEPTH_MAX)
		return fail(parser, "nested too deep");
	skip_space(parser);
	switch (*parser->at) {
	case '{':
		node = parse_items(parser, JSON_OBJECT, '}');
		break;
	case '[':
		node = parse_items(parser, JSON_ARRAY, ']');
		break;
	case '"':
		node = parse_string_value(parser);
		break;
	case 'n':
	case 't':
	case 'f':
		node = parse_word(parser);
		break;
	default:
		node = parse_number(parser);
	}
	parser->depth--;
	return node;
}

struct json *json_parse(const char *document, const char **error, size_t *offset)
{
	struct parser parser = {.start = document, .at = document};
	struct json *tree = parse_value(&parser);

	skip_space(&parser);
	if (parser.error == NULL && *parser.at != 0)
		fail(&parser, "something after the document");
	if (parser.error == NULL)
		return tree;
	*error = parser.error;
	*offset = (size_t)(parser.at - parser.start);
	json_free(tree);
	return NULL;
}

void json_free(struct json *tree)
{
	while (tree != NULL) {
		struct json *next = tree->next;
		json_free(tree->first);
		free(tree->text);
		free(tree->key);
		free(tree);
		tree = next;
	}
}

const struct json *json_member(const struct json *object, const char *key)
{
	if (object == NULL || object->type != JSON_OBJECT)
		return NULL;
	for (const struct json *member = object->first; member != NULL; member = member->next)
		if (strcmp(member->key, key) == 0)
			return member;
	return NULL;
}
