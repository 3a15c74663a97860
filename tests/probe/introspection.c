/*
 * introspection.c: mallinfo and its family tell the truth, roughly, about our heap; and memory that
 * was freed goes back to the system, on request and by itself.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

#define MB ((size_t)1 << 20)

static void **make_blocks(size_t count, size_t size)
{
	void **blocks = malloc(count * sizeof(*blocks));
	for (size_t i = 0; i < count; i++) {
		blocks[i] = malloc(size);
		CHECK(blocks[i], "malloc(%zu) serves", size);
		memset(blocks[i], 0x5a, size);
	}
	return blocks;
}

static void free_blocks(void **blocks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(blocks[i]);
	free(blocks);
}

static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
}

static void mallinfo2_follows(size_t count, size_t size)
{
	size_t before = in_use(), rise;
	void **blocks = make_blocks(count, size);
	rise = in_use() - before;
	CHECK(rise >= count * size, "%zu blocks of %zu show in mallinfo2: %zu", count, size, rise);
	CHECK(rise < count * size * 3 / 2, "%zu blocks of %zu show as no more than that: %zu", count,
	      size, rise);
	free_blocks(blocks, count);
	CHECK(in_use() < before + count * size / 4, "mallinfo2 falls when they are freed: %zu left",
	      in_use() - before);
}

static void mallinfo2_rises_and_falls_with_small_blocks(void)
{
	mallinfo2_follows(100000, 128);
}

static void mallinfo2_rises_and_falls_with_big_blocks(void)
{
	mallinfo2_follows(20, MB);
}

static void mallinfo_says_what_mallinfo2_says(void)
{
	void **blocks = make_blocks(1000, 1000);
	struct mallinfo2 wide = mallinfo2();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	struct mallinfo narrow = mallinfo();
#pragma GCC diagnostic pop
	CHECK((unsigned)narrow.uordblks == (unsigned)wide.uordblks, "mallinfo().uordblks agrees");
	CHECK((unsigned)narrow.arena == (unsigned)wide.arena, "mallinfo().arena agrees");
	CHECK(wide.arena + wide.hblkhd >= 1000000, "the heap is no smaller than what is in it");
	free_blocks(blocks, 1000);
}

/* Reads what a function writes to a stream in memory. */
static char *written_by_malloc_info(size_t *length)
{
	char *text = NULL;
	FILE *stream = open_memstream(&text, length);
	CHECK(stream && malloc_info(0, stream) == 0, "malloc_info(0) answers 0");
	fclose(stream);
	return text;
}

/*
 * One tag "<name ...>", "</name>" or "<name .../>" at p; keeps the open ones on a stack. Returns what
 * follows the tag.
 */
static const char *check_tag(const char *p, char open[][32], int *depth)
{
	char name[32] = "";
	const char *end = strchr(p, '>');
	CHECK(end, "a tag ends: %.20s", p);
	CHECK(sscanf(p[1] == '/' ? p + 2 : p + 1, "%31[A-Za-z_?!-]", name) == 1, "a tag has a name");
	if (p[1] == '/') {
		CHECK(*depth > 0 && strcmp(open[--*depth], name) == 0, "</%s> closes what is open", name);
	} else if (end[-1] != '/' && p[1] != '?') {
		CHECK(*depth < 8, "tags don't nest deeply");
		strcpy(open[(*depth)++], name);
	}
	return end + 1;
}

static void malloc_info_writes_well_formed_xml(void)
{
	size_t length = 0;
	char *text = written_by_malloc_info(&length), open[8][32];
	const char *p = text;
	int depth = 0, tags = 0;
	CHECK(strncmp(text, "<malloc", 7) == 0, "malloc_info writes a malloc element");
	for (; (p = strchr(p, '<')); tags++)
		p = check_tag(p, open, &depth);
	CHECK(depth == 0 && tags >= 3, "every element is closed, and there are some");
	free(text);
}

static void malloc_info_rejects_options(void)
{
	CHECK(malloc_info(1, stderr) != 0, "malloc_info knows no options");
}

static void malloc_info_fails_on_a_bad_stream_without_harm(void)
{
	FILE *full = fopen("/dev/full", "w");
	CHECK(full, "/dev/full opens");
	malloc_info(0, full);
	fclose(full);
	probe_heap_is_sound();
}

static void malloc_stats_writes_to_stderr(void)
{
	malloc_stats();
}

/* --- giving memory back --- */

static size_t resident_over(size_t before)
{
	size_t now = probe_resident();
	return now > before ? now - before : 0;
}

static void malloc_trim_answers_whether_it_gave_back(void)
{
	int answer;
	free_blocks(make_blocks(32000, 1000), 32000);
	answer = malloc_trim(0);
	CHECK(answer == 0 || answer == 1, "malloc_trim answers 0 or 1, not %d", answer);
	CHECK(malloc_trim(0) == 0, "a second malloc_trim has nothing to give back");
	probe_heap_is_sound();
}

static void trim_after(size_t count, size_t size)
{
	size_t before = probe_resident();
	free_blocks(make_blocks(count, size), count);
	malloc_trim(0);
	CHECK(resident_over(before) < 8 * MB, "malloc_trim gives %zu MB in blocks of %zu back: %zu kept",
	      count * size / MB, size, resident_over(before));
}

static void malloc_trim_gives_small_blocks_back(void)
{
	trim_after(500000, 128);
}

static void malloc_trim_gives_medium_blocks_back(void)
{
	trim_after(3000, 20000);
}

static void malloc_trim_gives_big_blocks_back(void)
{
	trim_after(16, 4 * MB);
}

/* One block in 50 stays: most pages are free, no slab is. */
static void malloc_trim_gives_holes_back(void)
{
	enum { COUNT = 60000, SIZE = 1000, KEPT_IN = 50 };
	size_t before = probe_resident();
	void **blocks = make_blocks(COUNT, SIZE);
	for (size_t i = 0; i < COUNT; i++)
		if (i % KEPT_IN)
			free(blocks[i]);
	malloc_trim(0);
	CHECK(resident_over(before) < 16 * MB, "of 60 MB with one page in 12 in use, %zu MB stay",
	      resident_over(before) / MB);
	for (size_t i = 0; i < COUNT; i += KEPT_IN)
		CHECK(((unsigned char *)blocks[i])[SIZE - 1] == 0x5a, "malloc_trim leaves blocks alone");
	probe_heap_is_sound();
}

/*
 * The system refuses to take locked pages back. That must show neither in errno, nor in a calloc that
 * takes them for fresh.
 */
static void locked_memory_that_is_freed_does_no_harm(void)
{
	static const size_t sizes[] = {100000, MB, 5 * MB};
	for (int i = 0; i < 3; i++) {
		char *p = malloc(sizes[i]);
		memset(p, 0xee, sizes[i]);
		if (mlock(p, sizes[i]) != 0)
			probe_skip("memory can't be locked here: %s", strerror(errno));
		errno = 4711;
		free(p);
		CHECK(errno == 4711, "free keeps errno, not %d", errno);
		malloc_trim(0);
		p = calloc(1, sizes[i]);
		CHECK(p && probe_is_zero(p, sizes[i]), "calloc of what was locked is zero");
		munlock(p, sizes[i]);
		free(p);
	}
}

static void program_that_locks_all_its_memory_works(void)
{
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		probe_skip("memory can't be locked here: %s", strerror(errno));
	probe_heap_is_sound();
	for (size_t size = 1000; size < 8 * MB; size *= 2) {
		char *p = memset(malloc(size), 0xee, size);
		free(probe_opaque(p));
		malloc_trim(0);
		p = calloc(1, size);
		CHECK(p && probe_is_zero(p, size), "calloc(1, %zu) is zero", size);
		free(p);
	}
}

/* --- back to the system, by itself: the program does nothing at all after its frees --- */

enum { SPIKE_BLOCKS = 240000 };

/* Blocks of 16 to 1024 bytes freed in random order, as after a load spike: how much stays resident. */
static size_t percent_left_after_a_spike(size_t kept)
{
	static void *blocks[SPIKE_BLOCKS];
	size_t before = probe_resident(), bytes = 0;
	unsigned state = 1;
	for (size_t i = 0; i < SPIKE_BLOCKS; i++) {
		size_t size = 16 + probe_random(&state) % 1009, other = probe_random(&state) % (i + 1);
		blocks[i] = blocks[other];
		blocks[other] = memset(malloc(size), 0x5a, size);
		bytes += size;
	}
	for (size_t i = kept; i < SPIKE_BLOCKS; i++)
		free(blocks[i]);
	size_t left = resident_over(before) * 100 / bytes;
	for (size_t i = 0; i < kept; i++)
		free(blocks[i]);
	return left;
}

static void freed_memory_goes_back_by_itself(void)
{
	size_t percent = percent_left_after_a_spike(0);
	CHECK(percent < 15, "%zu percent are left", percent);
}

static void holes_go_back_by_themselves(void)
{
	size_t percent = percent_left_after_a_spike(SPIKE_BLOCKS / 20);
	CHECK(percent < 50, "%zu percent are left", percent);
}

static void big_blocks_go_back_by_themselves(void)
{
	size_t before = probe_resident();
	void **blocks[6];
	size_t sizes[6], count = 0;
	for (size_t size = 40000; size < 16 * MB; size *= 3, count++)
		blocks[count] = make_blocks(32 * MB / size, sizes[count] = size);
	while (count-- > 0)
		free_blocks(blocks[count], 32 * MB / sizes[count]);
	CHECK(resident_over(before) < 20 * MB, "%zu MB are left", resident_over(before) / MB);
}

/* What goes up and down all the time isn't given back each time. */
static void memory_that_is_wanted_again_stays(void)
{
	struct rusage usage;
	long faults[8];
	for (int round = 0; round < 8; round++) {
		free_blocks(make_blocks(60000, 1000), 60000);
		getrusage(RUSAGE_SELF, &usage);
		faults[round] = usage.ru_minflt;
	}
	CHECK(faults[7] - faults[3] < faults[0], "%ld faults at first, then %ld",
	      faults[0], faults[7] - faults[3]);
}

/* Freed memory of one size serves another size: 16 sizes of 24 MB each in far less than their sum. */
static void freed_memory_serves_other_sizes(void)
{
	size_t before = probe_resident();
	for (size_t size = 16; size <= 512 << 10; size *= 2)
		free_blocks(make_blocks(24 * MB / size, size), 24 * MB / size);
	CHECK(resident_over(before) < 128 * MB, "memory moves between sizes: %zu MB",
	      resident_over(before) / MB);
}

/* MALLOC_PERTURB_ and glibc's tunables fill blocks: that is glibc's own tool, and slow. */
static void glibc_s_own_settings_are_ignored(void)
{
	for (size_t size = 4096; size < 4 * MB; size *= 2) {
		unsigned char *p = malloc(size);
		CHECK(p[100] != 0x5a || p[size / 2] != 0x5a, "a fresh block isn't filled");
		memset(p, 1, size);
		probe_opaque(p);
		free(p);
	}
	probe_heap_is_sound();
}

/* An empty program's heap, its share of the library included. */
static void empty_program_stays_small(void)
{
	free(probe_block(1, 1));
	CHECK(probe_resident() < 6 * MB, "an empty program is small: %zu KB", probe_resident() >> 10);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(mallinfo2_rises_and_falls_with_small_blocks),
	CASE(mallinfo2_rises_and_falls_with_big_blocks),
	CASE(mallinfo_says_what_mallinfo2_says),
	CASE(malloc_info_writes_well_formed_xml),
	CASE(malloc_info_rejects_options),
	CASE(malloc_info_fails_on_a_bad_stream_without_harm),
	{.name = "malloc_stats_writes_to_stderr", .run = malloc_stats_writes_to_stderr,
	 .says = {"bytes"}, .lines = PROBE_ANY_LINES},
	CASE(malloc_trim_answers_whether_it_gave_back),
	CASE(malloc_trim_gives_small_blocks_back),
	CASE(malloc_trim_gives_medium_blocks_back),
	CASE(malloc_trim_gives_big_blocks_back),
	CASE(malloc_trim_gives_holes_back),
	CASE(locked_memory_that_is_freed_does_no_harm),
	{.name = "program_that_locks_all_its_memory_works",
	 .run = program_that_locks_all_its_memory_works, .environment = "LIBREGION_HEAP_RANGE=64M"},
	CASE(freed_memory_goes_back_by_itself),
	CASE(holes_go_back_by_themselves),
	CASE(big_blocks_go_back_by_themselves),
	CASE(memory_that_is_wanted_again_stays),
	CASE(freed_memory_serves_other_sizes),
	{.name = "glibc_s_own_settings_are_ignored", .run = glibc_s_own_settings_are_ignored,
	 .environment = "MALLOC_PERTURB_=165 MALLOC_ARENA_MAX=1 MALLOC_TOP_PAD_=1000000 "
	                "GLIBC_TUNABLES=glibc.malloc.perturb=165"},
	CASE(empty_program_stays_small),
	{0},
};
