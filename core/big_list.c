/*
 * big_list.c: see big_list.h. Lists grow by doubling in libregion's own memory, after the dead have been
 * thrown out; what they have outgrown isn't used again.
 */
#include "big_list.h"

#include <string.h>

#define FIRST_CAPACITY 32

static struct big_lists {
	uint64_t last_serial;
} big_lists;

struct span *big_list_find(const struct big_ref *ref)
{
	struct span *span = span_of(ref->start);
	bool is_it = span_kind(span) == SPAN_BIG && span->start == ref->start &&
	             __atomic_load_n(&span->serial, __ATOMIC_RELAXED) == ref->serial;

	return is_it ? span : NULL;
}

void big_list_compact(struct big_list *list)
{
	size_t kept = 0;

	for (size_t i = 0; i < list->count; i++)
		if (big_list_find(&list->refs[i]))
			list->refs[kept++] = list->refs[i];
	list->count = kept;
}

static bool make_room(struct big_list *list)
{
	if (list->count < list->capacity)
		return true;
	big_list_compact(list);
	if (list->count < list->capacity / 2)
		return true;
	size_t capacity = list->capacity ? list->capacity * 2 : FIRST_CAPACITY;
	struct big_ref *refs = range_meta_alloc(capacity * sizeof(*refs));
	if (!refs)
		return list->count < list->capacity;
	if (list->count > 0)
		memcpy(refs, list->refs, list->count * sizeof(*refs));
	list->refs = refs;
	list->capacity = capacity;
	return true;
}

bool big_list_add(struct big_list *list, const struct big_ref *ref)
{
	if (!make_room(list))
		return false;
	list->refs[list->count++] = *ref;
	return true;
}

void big_list_note(struct big_list *list, void *p)
{
	struct span *span = span_of(p);

	if (span_kind(span) != SPAN_BIG)
		return;
	uint64_t serial = __atomic_add_fetch(&big_lists.last_serial, 1, __ATOMIC_RELAXED);
	if (big_list_add(list, &(struct big_ref){.start = p, .serial = serial}))
		__atomic_store_n(&span->serial, serial, __ATOMIC_RELAXED);
}

void big_list_move(struct big_list *list, const void *from, void *to)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->refs[i].start == from && !big_list_find(&list->refs[i])) {
			list->refs[i].serial = 0;
			big_list_note(list, to);
			return;
		}
}

void big_list_forget(struct span *span)
{
	__atomic_store_n(&span->serial, 0, __ATOMIC_RELAXED);
}
