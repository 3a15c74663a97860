/*
 * gone.c: see gone.h.
 */
#include "gone.h"

static struct gone {
	unsigned next;
	struct {
		const char *lo, *hi, *scope_name;
	} entries[GONE_COUNT];
} gone;

void gone_note(const char *lo, const char *hi, const char *scope_name)
{
	unsigned i = __atomic_fetch_add(&gone.next, 1, __ATOMIC_RELAXED) % GONE_COUNT;

	__atomic_store_n(&gone.entries[i].lo, lo, __ATOMIC_RELAXED);
	__atomic_store_n(&gone.entries[i].hi, hi, __ATOMIC_RELAXED);
	__atomic_store_n(&gone.entries[i].scope_name, scope_name, __ATOMIC_RELAXED);
}

const char *gone_name_of(const char *p)
{
	unsigned next = __atomic_load_n(&gone.next, __ATOMIC_RELAXED);

	/* The last one first. */
	for (unsigned n = 1; n <= GONE_COUNT; n++) {
		unsigned i = (next - n) % GONE_COUNT;
		const char *name = __atomic_load_n(&gone.entries[i].scope_name, __ATOMIC_RELAXED);
		if (p >= __atomic_load_n(&gone.entries[i].lo, __ATOMIC_RELAXED) &&
		    p < __atomic_load_n(&gone.entries[i].hi, __ATOMIC_RELAXED) && name)
			return name;
	}
	return "?";
}
