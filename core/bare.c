/*
 * bare.c: bare buffers come from the heap's cache of buffers as long as that has the size, and go back
 * there. Larger ones, and those of threads that have no heap, are spans of their own.
 */
#include "bare.h"

#include "buffer.h"
#include "report.h"

static struct span *take_cached(struct heap *heap, size_t bytes)
{
	unsigned size_log2 = buffer_size_log2(bytes);
	struct span *span = buffer_take_spare(heap, size_log2);

	return span ? span : buffer_make(heap, size_log2, 1);
}

struct span *bare_take(struct heap *heap, size_t bytes, void *owner, const char *name)
{
	bool is_cached = heap && bytes <= (size_t)1 << BUFFER_MAX_LOG2;
	struct span *span;

	if (bytes > PTRDIFF_MAX)
		return NULL;
	span = is_cached ? take_cached(heap, bytes)
	                 : span_alloc((bytes + SLICE_BYTES - 1) >> SLICE_SHIFT, 1, SPAN_BUFFER);
	if (!span)
		return NULL;
	span->is_cached = is_cached;
	span->reclaimer = name;
	span_set_region(span, owner);
	span_set_kind(span, SPAN_BARE);
	return span;
}

void bare_put(struct heap *heap, struct span *span)
{
	span_set_region(span, NULL);
	span->reclaimer = NULL;
	span_set_kind(span, SPAN_BUFFER);
	if (heap && span->is_cached)
		buffer_put(heap, span);
	else
		span_free(span, false);
}

void bare_misuse(const struct span *span, const void *p, const char *call)
{
	report_misuse("%s(%p): lies in \"%s\", whose blocks are not freed one by one", call, p, span->reclaimer);
}
