/*
 * json.h: a parser for JSON (RFC 8259) that builds a tree the way most C programs do: one malloc() for
 * each node, one for each string, and a walk of free() to be rid of it.
 */
#ifndef DEMO_JSON_H
#define DEMO_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_type type;
	bool boolean;
	double number;
	char *text;         /* of a string, in UTF-8 and ended by a zero byte */
	char *key;          /* of a member of an object, else NULL */
	struct json *first; /* element or member */
	struct json *next;  /* beside this one in the same array or object */
};

/*
 * The tree of the document, which ends with a zero byte. NULL when it isn't JSON or memory runs out;
 * *error then says why and *offset where, and nothing stays allocated.
 */
struct json *json_parse(const char *document, const char **error, size_t *offset);

void json_free(struct json *tree);

/* The member of an object that has this key; NULL when there is none, or `object` is NULL or isn't one. */
const struct json *json_member(const struct json *object, const char *key);

#endif
