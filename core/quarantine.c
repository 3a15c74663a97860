/*
 * quarantine.c: see quarantine.h.
 */
#include "quarantine.h"

#include "buffer.h"
#include "os.h"

static struct quarantine {
	struct lock lock;           /* guards all of it */
	struct span *first, *last;  /* the oldest first, linked through next */
	size_t bytes, most_bytes;
	bool has_let_go;
} quarantine;

void quarantine_set_bytes(size_t bytes)
{
	quarantine.most_bytes = bytes;
}

struct lock *quarantine_lock(void)
{
	return &quarantine.lock;
}

static char *page_up(char *p)
{
	return (char *)(((uintptr_t)p + OS_PAGE - 1) & ~(OS_PAGE - 1));
}

static char *page_down(char *p)
{
	return (char *)((uintptr_t)p & ~(OS_PAGE - 1));
}

bool quarantine_fence(struct span *span, char *lo, char *hi)
{
	const unsigned char *at = lo > span->start ? range_map_of(lo) : buffer_map(span);
	const unsigned char *end = range_map_of(hi);
	bool is_done = true;

	while (lo < hi) {
		const unsigned char *live = granule_next_live(at, end);
		char *to = live < end ? page_down(range_of_map(live)) : hi;
		if (lo < to)
			is_done &= os_fence(lo, (size_t)(to - lo));
		if (live >= end)
			break;
		at = live + granule_size(live);
		lo = page_up(range_of_map(at));
	}
	return is_done;
}

/* The buffer is one like any other again. */
static void release(struct span *span)
{
	/* What was fenced may not come back; then its addresses are lost. */
	if (!os_commit(span->start, span_bytes(span)))
		return;
	__atomic_store_n(&span->wait_hi, NULL, __ATOMIC_RELAXED);
	span_set_kind(span, SPAN_BUFFER);
	span->had_keeps = true;
	if (buffer_retire(span))
		return;
	buffer_clear(span);
	buffer_give_back(span);
}

/* Under the lock. */
static struct span *take_first(void)
{
	struct span *span = quarantine.first;

	if (!span)
		return NULL;
	quarantine.first = span->next;
	if (!quarantine.first)
		quarantine.last = NULL;
	quarantine.bytes -= span_bytes(span);
	return span;
}

static bool let_go(size_t most_bytes)
{
	lock_acquire(&quarantine.lock);
	struct span *span = quarantine.bytes > most_bytes ? take_first() : NULL;
	lock_release(&quarantine.lock);
	if (span)
		release(span);
	return span != NULL;
}

bool quarantine_put(struct span *span)
{
	bool has_let_go = false;

	lock_acquire(&quarantine.lock);
	span_set_region(span, NULL);
	span_set_kind(span, SPAN_QUARANTINED);
	span->next = NULL;
	*(quarantine.last ? &quarantine.last->next : &quarantine.first) = span;
	quarantine.last = span;
	quarantine.bytes += span_bytes(span);
	lock_release(&quarantine.lock);
	while (let_go(quarantine.most_bytes))
		has_let_go = true;
	return has_let_go && !__atomic_exchange_n(&quarantine.has_let_go, true, __ATOMIC_RELAXED);
}

bool quarantine_let_go(void)
{
	return let_go(0);
}
