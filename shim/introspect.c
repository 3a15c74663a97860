/*
 * introspect.c: mallinfo2, malloc_stats and malloc_info, from a walk over all spans; mallopt.
 *
 * The walk reads counters that other threads change, so sums are exact only when they are still.
 */
#include "introspect.h"

#include <errno.h>

#include "core/core.h"

struct usage {
	size_t block_bytes; /* in blocks handed out; of buffers, up to where they are used */
	size_t big_bytes, big_count;
	size_t slab_count, buffer_count;
	struct span_totals totals;
};

static void add_span(const struct span *span, void *arg)
{
	struct usage *usage = arg;

	if (span->kind == SPAN_SLAB) {
		usage->block_bytes += (size_t)slab_used(span) * span->block_bytes;
		usage->slab_count++;
	} else if (span->kind == SPAN_BIG) {
		usage->block_bytes += span->bytes;
		usage->big_bytes += span->bytes;
		usage->big_count++;
	} else {
		usage->block_bytes += (size_t)(span->used_end - span->start);
		usage->buffer_count++;
	}
}

static struct usage usage_now(void)
{
	struct usage usage = {0};

	span_for_each(add_span, &usage);
	usage.totals = span_pool_totals();
	return usage;
}

struct mallinfo2 introspect_mallinfo2(void)
{
	struct usage usage = usage_now();
	size_t held = usage.totals.used_bytes + usage.totals.dirty_bytes;

	return (struct mallinfo2){
		.arena = held - usage.big_bytes,
		.hblks = usage.big_count,
		.hblkhd = usage.big_bytes,
		.uordblks = usage.block_bytes - usage.big_bytes,
		.fordblks = held > usage.block_bytes ? held - usage.block_bytes : 0,
		.keepcost = usage.totals.dirty_bytes,
	};
}

void introspect_stats(void)
{
	struct usage usage = usage_now();

	report("%zu bytes in blocks: %zu slabs, %zu big blocks, %zu buffers in %zu bytes of spans; "
	       "%zu bytes to give back",
	       usage.block_bytes, usage.slab_count, usage.big_count, usage.buffer_count,
	       usage.totals.used_bytes, usage.totals.dirty_bytes);
}

int introspect_info(int options, FILE *stream)
{
	struct usage usage = usage_now();

	if (options != 0) {
		errno = EINVAL;
		return -1;
	}
	int n = fprintf(stream,
	                "<malloc version=\"libregion-1\">\n"
	                "<slabs count=\"%zu\"/>\n"
	                "<big count=\"%zu\" size=\"%zu\"/>\n"
	                "<buffers count=\"%zu\"/>\n"
	                "<system type=\"current\" size=\"%zu\"/>\n"
	                "<total type=\"used\" size=\"%zu\"/>\n"
	                "<total type=\"dirty\" size=\"%zu\"/>\n"
	                "</malloc>\n",
	                usage.slab_count, usage.big_count, usage.big_bytes, usage.buffer_count,
	                usage.totals.used_bytes, usage.block_bytes, usage.totals.dirty_bytes);
	return n < 0 ? -1 : 0;
}

/*
 * glibc's parameters say how its own heap should use arenas, thresholds and padding. Here they have no
 * meaning and no effect, but a program that checks the answer has asked for nothing that fails: what glibc
 * would accept is accepted.
 */
int introspect_mallopt(int parameter, int value)
{
	enum { LARGEST_MXFAST = 20 * sizeof(size_t), LARGEST_MMAP_THRESHOLD = 32 << 20 };

	switch (parameter) {
	case M_MXFAST:
		return value >= 0 && value <= LARGEST_MXFAST;
	case M_MMAP_THRESHOLD:
		return value >= 0 && value <= LARGEST_MMAP_THRESHOLD;
	case M_TRIM_THRESHOLD:
	case M_TOP_PAD:
	case M_MMAP_MAX:
	case M_CHECK_ACTION:
	case M_PERTURB:
	case M_ARENA_TEST:
	case M_ARENA_MAX:
		return 1;
	default:
		return 0;
	}
}
