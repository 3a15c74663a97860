/*
 * inspect.c: where a process keeps its statistics, for `region top` to read from outside.
 *
 * The reader asks nothing of the process, which need not have been started in any special way: it looks
 * through /proc/PID/maps for a file with our note, which leads to `inspect` below, and that to the
 * counters, all of them read through /proc/PID/mem. So the note is in a loaded section, where strip
 * leaves it, and `inspect` says how everything is laid out: the reader of one version reads processes of
 * another.
 *
 * Every word has 64 bits. The offsets are those of members in the structures named.
 */
#include "scope.h"

#define INSPECT_VERSION 1

struct inspect {
	uint64_t version;
	const struct stats_roots *roots; /* pointers to the first heap, and to the first set of ended threads */
	uint64_t heap_next, heap_upper, heap_top, heap_spare;  /* struct heap */
	uint64_t thread_counters, thread_base;                 /* struct thread */
	uint64_t counters_stats, counters_name, counters_next; /* struct counters */
	uint64_t scope_outer, scope_name, scope_inline;        /* struct scope */
	uint64_t member_count;
	const char *members; /* names of statistics, each with a NUL behind it, as struct region_stats has them */
};

#define NAME(member, unit, help) #member "\0"
#define ONE(member, unit, help) +1

extern const struct inspect inspect __attribute__((visibility("hidden")));

const struct inspect inspect __attribute__((used)) = {
	.version = INSPECT_VERSION,
	.roots = &stats_roots,
	.heap_next = offsetof(struct heap, next_heap),
	.heap_upper = offsetof(struct heap, upper),
	.heap_top = offsetof(struct heap, upper_top),
	.heap_spare = offsetof(struct heap, spare_bytes),
	.thread_counters = offsetof(struct thread, all_counters),
	.thread_base = offsetof(struct thread, base),
	.counters_stats = offsetof(struct counters, stats),
	.counters_name = offsetof(struct counters, name),
	.counters_next = offsetof(struct counters, next),
	.scope_outer = offsetof(struct scope, outer),
	.scope_name = offsetof(struct scope, region.name),
	.scope_inline = offsetof(struct scope, inline_granules),
	.member_count = 0 REGION_STATS_MAP(ONE),
	.members = REGION_STATS_MAP(NAME),
};

/* The note: how far it is from here to there. */
__asm__(".pushsection .note.libregion, \"a\", \"note\"\n"
        "\t.balign 4\n"
        "\t.4byte 2f - 1f, 4f - 3f, 1\n"
        "1:\t.asciz \"libregion\"\n"
        "2:\t.balign 4\n"
        "3:\t.8byte inspect - 3b\n"
        "4:\t.balign 4\n"
        "\t.popsection\n");
