/*
 * slack.c: how much memory blocks take, in percent of what was asked for.
 *
 *   small     blocks of 8 to 511 bytes, each size equally likely
 *   bimodal   nine of ten blocks have 16 to 64 bytes, the tenth 8 to 24 KiB, an eighth to three
 *             eighths of a small buffer: whoever goes on to a new buffer when a block doesn't fit, and
 *             forgets the old one, leaves a lot at its end (29 % with go-arena, 4 % for the small ones)
 *
 * Rows of a kind as it is tell the resident memory: blocks are written from end to end, and what the
 * process has gained then is compared with what was asked for. So headers, rounding, the allocator's
 * own tables and slack at the ends of buffers count alike. Ways that fill buffers do so in four extents,
 * each with other sizes, before it is told, because slack that was never touched isn't resident. Heaps
 * have one extent: what they keep of earlier ones, until their own clocks say so, is another matter.
 *
 * Rows that end in -ends count only that slack, where an interface tells it: bytes that are in no block,
 * in percent of the buffers, which all have 64 KiB; the mean over the MiBs. In rows that end in -held
 * buffers grow as they do by default, so that most of it is what the newest buffer will be used for yet.
 *
 * Every figure is that of a process of its own, forked for it. n is how many MiB are asked for.
 */
#include "bench.h"
#include "ways.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define EXTENTS 4 /* of ways that fill buffers */

struct mix {
	const char *kind;
	size_t (*draw)(uint64_t *random);
};

static size_t draw_small(uint64_t *random)
{
	return bench_between(random, 8, 511);
}

static size_t draw_bimodal(uint64_t *random)
{
	if (bench_between(random, 0, 9))
		return bench_between(random, 16, 64);
	return bench_between(random, 8 << 10, 24 << 10);
}

static const struct mix mixes[] = { { "small", draw_small }, { "bimodal", draw_bimodal } };

static size_t resident_bytes(void)
{
	char text[128];
	size_t pages = 0;
	int fd = open("/proc/self/statm", O_RDONLY);
	ssize_t length = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[length < 0 ? 0 : length] = '\0';
	if (sscanf(text, "%*u %zu", &pages) != 1)
		bench_fail("/proc/self/statm says nothing");
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static struct {
	const struct way *way;
	const struct mix *mix;
	size_t mib;
} now;

struct extent {
	unsigned number; /* from 1; also the seed */
	unsigned last;
	size_t resident; /* bytes before the first one */
	void **blocks;
};

static void print(const char *kind, double percent)
{
	bench_print(&(struct bench_row){
		.way = now.way, .kind = kind, .n = now.mib, .threads = 1, .unit = "percent",
	}, percent);
}

/* What isn't in blocks of the buffers that a region holds, in percent. */
static double unused_percent(const region_t *region)
{
	double held = (double)region_cap(region);

	return (held - (double)region_len(region)) / held * 100;
}

/* Fills a new region and prints the mean, over the MiBs, of what isn't in blocks of its buffers. */
static void print_unused(const char *suffix, unsigned growth)
{
	struct region_options options = { .buffer_size = BUMP_BUFFER, .growth = growth };
	region_t *region = region_create(&options);
	uint64_t random = 7;
	double sum = 0;
	char kind[32];

	for (size_t mib = 1; mib <= now.mib; mib++) {
		for (size_t asked = 0; asked < MIB;) {
			size_t size = now.mix->draw(&random);
			bench_see(region_alloc(region, size));
			asked += size;
		}
		sum += unused_percent(region);
	}
	region_destroy(region);
	snprintf(kind, sizeof(kind), "%s-%s", now.mix->kind, suffix);
	print(kind, sum / (double)now.mib);
}

/* Allocates; how many blocks. */
static size_t fill(uint64_t random, size_t bytes, void **blocks)
{
	size_t count = 0;

	for (size_t asked = 0; asked < bytes; count++) {
		size_t size = now.mix->draw(&random);
		blocks[count] = memset(now.way->alloc(size), 1, size);
		asked += size;
	}
	return count;
}

static void one_extent(void *arg)
{
	struct extent *extent = arg;
	size_t bytes = now.mib * MIB, count = fill(extent->number, bytes, extent->blocks);

	if (extent->number == extent->last) {
		double taken = (double)(resident_bytes() - extent->resident);
		print(now.mix->kind, (taken / (double)bytes - 1) * 100);
	}
	for (size_t i = 0; now.way->release && i < count; i++)
		now.way->release(extent->blocks[i]);
}

static void measure(void)
{
	size_t most = now.mib * MIB / 8, room = most * sizeof(void *);
	struct extent extent = { .blocks = bench_array(most, sizeof(void *)) };
	bool is_heap = now.way == &way_heap || now.way == &way_arena || now.way == &way_miheap;

	extent.last = is_heap ? 1 : EXTENTS;
	memset(extent.blocks, 1, room / 16); /* blocks have 128 bytes or more on average */
	extent.resident = resident_bytes();
	for (extent.number = 1; extent.number <= extent.last; extent.number++)
		now.way->extent(one_extent, &extent);
	if (now.way == &way_region) {
		print_unused("ends", 100);
		print_unused("held", 0);
	}
}

static void measure_in_child(void)
{
	int status;
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		measure();
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		bench_fail("a child that measures ends badly");
}

static const struct way *const slack_ways[] = { WAYS(WAY_ADDRESS) NULL };

int main(int argc, char **argv)
{
	bench_start(argc, argv, "slack", slack_ways);
	now.mib = bench_capped(1 << 20) < 1 << 20 ? 1 : 64;
	for (size_t m = 0; m < sizeof(mixes) / sizeof(*mixes); m++)
		for (const struct way *const *way = slack_ways; *way; way++)
			if (bench_selected(*way)) {
				now.way = *way;
				now.mix = &mixes[m];
				measure_in_child();
			}
	return 0;
}
