/*
 * null.c: see null.h.
 */
#include "null.h"

#include "os.h"
#include "report.h"

static struct nulls {
	struct lock lock;
	struct span *first, *last; /* those with addresses to give */
	uint32_t span_count;
	bool is_off;
} nulls;

void null_set_on(bool is_on)
{
	nulls.is_off = !is_on;
}

struct lock *null_lock(void)
{
	return &nulls.lock;
}

static void list_add(struct span *span)
{
	span->next = NULL;
	span->prev = nulls.last;
	*(nulls.last ? &nulls.last->next : &nulls.first) = span;
	nulls.last = span;
}

static void list_remove(struct span *span)
{
	*(span->prev ? &span->prev->next : &nulls.first) = span->next;
	*(span->next ? &span->next->prev : &nulls.last) = span->prev;
}

static void make_span(void)
{
	struct span *span = nulls.span_count < NULL_SPANS_MAX ? span_alloc(1, 1, SPAN_NULL) : NULL;

	if (!span)
		return;
	if (!os_forbid(span->start, span_bytes(span))) {
		span_free(span, span->is_zero);
		return;
	}
	span->is_zero |= os_purge(span->start, span_bytes(span));
	span->has_map = true;
	nulls.span_count++;
	list_add(span);
}

static void drop_span(struct span *span)
{
	/* If the kernel won't have it back it stays as it is, to be used again. */
	if (!os_commit(span->start, span_bytes(span)))
		return;
	list_remove(span);
	nulls.span_count--;
	granule_zero(range_map_of(span->start), range_map_of(span->start) + NULL_COUNT);
	span_free(span, span->is_zero);
}

/* An address of a span that has one to give. */
static void *take(struct span *span)
{
	unsigned char *map = range_map_of(span->start);
	uint32_t at = span->null_next;

	while (map[at] == NULL_LIVE)
		at = (at + 1) % NULL_COUNT;
	__atomic_store_n(&map[at], NULL_LIVE, __ATOMIC_RELAXED);
	span->null_next = (at + 1) % NULL_COUNT;
	if (++span->null_live == NULL_COUNT)
		list_remove(span);
	return span->start + ((size_t)at << GRANULE_SHIFT);
}

void *null_alloc(void)
{
	void *p = NULL;

	if (nulls.is_off)
		return NULL;
	lock_acquire(&nulls.lock);
	if (!nulls.first)
		make_span();
	if (nulls.first)
		p = take(nulls.first);
	lock_release(&nulls.lock);
	return p;
}

static void put(struct span *span, unsigned char *head)
{
	__atomic_store_n(head, NULL_LIVE | GRANULE_FREED, __ATOMIC_RELAXED);
	if (span->null_live-- == NULL_COUNT)
		list_add(span);
	else if (span->null_live == 0 && nulls.first != nulls.last)
		drop_span(span);
}

void null_free(struct span *span, void *p, const char *call)
{
	lock_acquire(&nulls.lock);
	bool is_block = span_kind(span) == SPAN_NULL && null_is_block(p);
	if (is_block)
		put(span, range_map_of(p));
	lock_release(&nulls.lock);
	if (is_block)
		return;
	if ((uintptr_t)p % GRANULE_BYTES == 0 && (granule_load(range_map_of(p)) & GRANULE_FREED))
		report_misuse("%s(%p): double free of a block of 0 bytes", call, p);
	else
		report_misuse("%s(%p): not the start of a block: it lies among blocks of 0 bytes", call, p);
}
