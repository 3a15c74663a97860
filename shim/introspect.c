/*
 * introspect.c: mallinfo2, malloc_stats and malloc_info, from a walk over all spans; mallopt.
 *
 * What glibc's words mean here: its main arena is everything but big blocks, and these are what it would
 * have mapped. A block counts with all its bytes, as with glibc. Blocks that threads have freed for others
 * and not handed over yet, and those in quarantine, count as in use, and so do buffers of region_alloc(),
 * whole: nothing is known of their blocks.
 *
 * The walk reads what other threads change, so sums are exact only when they are still. Nothing is counted
 * where blocks are handed out and freed.
 */
#include "introspect.h"

#include <errno.h>

#include "core/core.h"

struct usage {
	size_t block_bytes;                /* in blocks handed out */
	size_t big_bytes, big_count;
	size_t free_bytes, free_count;     /* in free blocks of slabs */
	size_t class_free[CLASS_COUNT];    /* of them */
	struct span_totals totals;
};

static void add_slab(struct usage *usage, const struct span *slab)
{
	size_t used = slab_used(slab), left = slab->capacity - used;

	usage->block_bytes += used * slab->block_bytes;
	usage->free_bytes += left * slab->block_bytes;
	usage->free_count += left;
	usage->class_free[slab->class] += left;
}

/* What lives in a buffer is said by the map. */
static size_t live_bytes(const struct span *buffer)
{
	const unsigned char *at = buffer_map(buffer), *end = buffer_map_end(buffer);
	size_t granules = 0;

	for (; (at = granule_next_live(at, end)) < end; at += granule_size(at))
		granules += granule_size(at);
	return granules << GRANULE_SHIFT;
}

static void add_span(const struct span *span, void *arg)
{
	struct usage *usage = arg;

	switch (span_kind(span)) {
	case SPAN_SLAB:
		if (span->block_bytes > 0)
			add_slab(usage, span);
		break;
	case SPAN_BIG:
		usage->block_bytes += span->bytes;
		usage->big_bytes += span->bytes;
		usage->big_count++;
		break;
	case SPAN_BARE:
		usage->block_bytes += span_bytes(span);
		break;
	case SPAN_BUFFER:
	case SPAN_RETIRED:
	case SPAN_WAITING:
		usage->block_bytes += live_bytes(span);
		break;
	default:
		break;
	}
}

static struct usage usage_now(void)
{
	struct usage usage = {0};

	span_for_each(add_span, &usage);
	usage.totals = span_pool_totals();
	return usage;
}

/* What the system has given, and not got back. */
static size_t held_bytes(const struct usage *usage)
{
	size_t held = usage->totals.used_bytes + usage->totals.dirty_bytes;

	return held > usage->block_bytes ? held : usage->block_bytes;
}

struct mallinfo2 introspect_mallinfo2(void)
{
	struct usage usage = usage_now();
	size_t held = held_bytes(&usage);

	return (struct mallinfo2){
		.arena = held - usage.big_bytes,
		.ordblks = usage.free_count,
		.hblks = usage.big_count,
		.hblkhd = usage.big_bytes,
		.uordblks = usage.block_bytes - usage.big_bytes,
		.fordblks = held - usage.block_bytes,
		.keepcost = usage.totals.dirty_bytes,
	};
}

/* In glibc's form, which programs read. It has no figure for the most that was mapped at a time. */
void introspect_stats(void)
{
	struct usage usage = usage_now();
	size_t held = held_bytes(&usage);
	char text[512];
	int n = snprintf(text, sizeof(text),
	                 "Arena 0:\n"
	                 "system bytes     = %10zu\n"
	                 "in use bytes     = %10zu\n"
	                 "Total (incl. mmap):\n"
	                 "system bytes     = %10zu\n"
	                 "in use bytes     = %10zu\n"
	                 "mmap regions     = %10zu\n"
	                 "mmap bytes       = %10zu\n",
	                 held - usage.big_bytes, usage.block_bytes - usage.big_bytes, held,
	                 usage.block_bytes, usage.big_count, usage.big_bytes);

	os_write(2, text, n < 0 ? 0 : (size_t)n);
}

/* The free blocks of each class that has some, in glibc's words: of sizes from the class below to its own. */
static void print_sizes(const struct usage *usage, FILE *stream)
{
	fputs("<sizes>\n", stream);
	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		size_t count = usage->class_free[class], most = class_bytes(class);
		size_t least = class > 0 ? class_bytes(class - 1) + 1 : 1;
		if (count > 0)
			fprintf(stream, "  <size from=\"%zu\" to=\"%zu\" total=\"%zu\" count=\"%zu\"/>\n", least, most,
			        most * count, count);
	}
	fputs("</sizes>\n", stream);
}

/* Of glibc's one arena, or with big blocks. */
static void print_totals(const struct usage *usage, bool with_big, FILE *stream)
{
	size_t big = with_big ? 0 : usage->big_bytes, most = usage->totals.most_bytes - big;

	fprintf(stream,
	        "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
	        "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n",
	        usage->free_count, usage->free_bytes);
	if (with_big)
		fprintf(stream, "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n", usage->big_count,
		        usage->big_bytes);
	fprintf(stream,
	        "<system type=\"current\" size=\"%zu\"/>\n"
	        "<system type=\"max\" size=\"%zu\"/>\n"
	        "<aspace type=\"total\" size=\"%zu\"/>\n"
	        "<aspace type=\"mprotect\" size=\"%zu\"/>\n",
	        held_bytes(usage) - big, most, most, most);
}

int introspect_info(int options, FILE *stream)
{
	struct usage usage = usage_now();

	if (options != 0) {
		errno = EINVAL;
		return -1;
	}
	fputs("<malloc version=\"1\">\n<heap nr=\"0\">\n", stream);
	print_sizes(&usage, stream);
	print_totals(&usage, false, stream);
	fputs("</heap>\n", stream);
	print_totals(&usage, true, stream);
	fputs("</malloc>\n", stream);
	return ferror(stream) ? -1 : 0;
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
