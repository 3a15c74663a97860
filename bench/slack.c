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
 * own tables and slack at the ends of buffers count alike. It is told in the fourth extent, each with
 * other sizes: slack that was never touched would not be resident. Rows that end in -ends count only
 * that slack, where an interface tells it: bytes of buffers that hold no block, in percent of the
 * buffers.
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
#define EXTENTS 4

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
	size_t resident; /* bytes before the first one */
	void **blocks;
};

static void print(const char *kind, double percent)
{
	bench_print(&(struct bench_row){
		.way = now.way, .kind = kind, .n = now.mib, .threads = 1, .unit = "percent",
	}, percent);
}

/* Of a region's buffers, what isn't in blocks. The newest buffer counts: it is one of many. */
static void print_ends(void)
{
	char kind[32];
	double held = (double)region_cap(ways_thread.region);

	snprintf(kind, sizeof(kind), "%s-ends", now.mix->kind);
	print(kind, (held - (double)region_len(ways_thread.region)) / held * 100);
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

	if (extent->number == EXTENTS) {
		double taken = (double)(resident_bytes() - extent->resident);
		print(now.mix->kind, (taken / (double)bytes - 1) * 100);
		if (now.way == &way_region)
			print_ends();
	}
	for (size_t i = 0; now.way->release && i < count; i++)
		now.way->release(extent->blocks[i]);
}

static void measure(void)
{
	size_t most = now.mib * MIB / 8, room = most * sizeof(void *);
	struct extent extent = { .blocks = bench_array(most, sizeof(void *)) };

	memset(extent.blocks, 1, room / 16); /* blocks have 128 bytes or more on average */
	extent.resident = resident_bytes();
	for (extent.number = 1; extent.number <= EXTENTS; extent.number++)
		now.way->extent(one_extent, &extent);
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
