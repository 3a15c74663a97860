/*
 * big_list.h: lists of big blocks that may be freed, by any thread, without the list being told.
 *
 * An entry says where a block lies and what its serial number is. The descriptor says the number as long as
 * the block lives; the next block there has another one, or none. So free() costs nothing, and what is
 * dead is found when the list is looked through.
 */
#ifndef LIBREGION_BIG_LIST_H
#define LIBREGION_BIG_LIST_H

#include "span.h"

struct big_ref {
	char *start;
	uint64_t serial;
	unsigned searches;      /* that the block has been through (waiting.h) */
	const char *scope_name; /* of the scope that has left it, once it waits */
};

struct big_list {
	struct big_ref *refs;
	size_t count, capacity;
};

/* Notes the block at p, if it is a big one. Without memory to note it, it isn't: it will have to be freed. */
void big_list_note(struct big_list *list, void *p);

/* Throws out what is dead. */
void big_list_compact(struct big_list *list);

/* Adds an entry of another list. False: no memory. */
bool big_list_add(struct big_list *list, const struct big_ref *ref);

/* A block of the list was moved by realloc(). */
void big_list_move(struct big_list *list, const void *from, void *to);

/* The block isn't to be found by any list any more. */
void big_list_forget(struct span *span);

/* The descriptor of a block that still lives, or NULL. */
struct span *big_list_find(const struct big_ref *ref);

#endif
