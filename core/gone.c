/*
 * gone.c: see gone.h.
 */
#include "gone.h"

static struct gone {
	unsigned next;
	struct {
		uint32_t slice, slices;
		const char *scope_name;
	} entries[GONE_COUNT];
} gone;

static uint32_t slice_of(const void *p)
{
	return (uint32_t)(range_offset(p) >> SLICE_SHIFT);
}

void gone_note(const struct span *span, const char *scope_name)
{
	unsigned i = __atomic_fetch_add(&gone.next, 1, __ATOMIC_RELAXED) % GONE_COUNT;

	__atomic_store_n(&gone.entries[i].slice, slice_of(span->start), __ATOMIC_RELAXED);
	__atomic_store_n(&gone.entries[i].slices, span->slices, __ATOMIC_RELAXED);
	__atomic_store_n(&gone.entries[i].scope_name, scope_name, __ATOMIC_RELAXED);
}

const char *gone_name_of(const void *p)
{
	unsigned next = __atomic_load_n(&gone.next, __ATOMIC_RELAXED);

	/* The last one first. */
	for (unsigned n = 1; n <= GONE_COUNT; n++) {
		unsigned i = (next - n) % GONE_COUNT;
		uint32_t slice = __atomic_load_n(&gone.entries[i].slice, __ATOMIC_RELAXED);
		const char *name = __atomic_load_n(&gone.entries[i].scope_name, __ATOMIC_RELAXED);
		if (slice_of(p) - slice < __atomic_load_n(&gone.entries[i].slices, __ATOMIC_RELAXED) && name)
			return name;
	}
	return NULL;
}
