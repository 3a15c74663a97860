/*
 * waiting.c: what a search stands on: the process's mappings and pages, lists of big blocks, the signal that
 * stops the world. That nothing reachable is ever missed is for the probes (hidden.c) and the model.
 */
#include <sys/mman.h>

#include "core/look.h"
#include "unit.h"

/* Mappings and pages. */

static int in_data = 1;

struct found {
	uintptr_t wanted;
	struct look_mapping mapping;
	size_t times, pages;
};

static bool find(const struct look_mapping *mapping, void *arg)
{
	struct found *found = arg;

	require(mapping->lo < mapping->hi, "%zx", (size_t)mapping->lo);
	if (found->wanted - mapping->lo >= mapping->hi - mapping->lo)
		return true;
	found->mapping = *mapping;
	found->times++;
	return true;
}

static struct found mapping_of(const void *p)
{
	struct found found = {.wanted = (uintptr_t)p};

	require(look_mappings(find, &found), "the mappings can be listed");
	require(found.times == 1, "%p is in %zu mappings", p, found.times);
	return found;
}

/* Counts pages, and those in which lies `wanted`. Those that are copied begin with their address. */
static void count_pages(uintptr_t lo, uintptr_t hi, uintptr_t at, void *arg)
{
	struct found *found = arg;

	found->pages += (hi - lo) / OS_PAGE;
	found->times += found->wanted >= at && found->wanted - at < hi - lo;
	for (uintptr_t p = lo; lo != at && p < hi; p += OS_PAGE)
		require(*(const uintptr_t *)p == 0 || *(const uintptr_t *)p == at + (p - lo), "a copy of %zx", at);
}

/* What is found in memory of ours, however long it is. */
static struct found pages_of(char *p, const char *wanted)
{
	struct found mapping = mapping_of(p), found = {.wanted = (uintptr_t)wanted};
	const struct look_mapping *m = &mapping.mapping;

	look_open();
	require(look_pages(m, m->lo, m->hi, count_pages, &found), "the kernel tells");
	require(look_close(), "nothing was swapped out");
	return found;
}

static char *map(size_t bytes, int protection, int flags)
{
	char *p = mmap(NULL, bytes, protection, flags | MAP_ANONYMOUS, -1, 0);

	require(p != MAP_FAILED, "%zu bytes", bytes);
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void touch(char *p)
{
	*(uintptr_t *)(void *)p = (uintptr_t)p;
}

Test(waiting, mappings_are_listed_with_what_they_allow)
{
	int local = 0;

	core_start(64 * MIB);
	require(look_start(), "no memory");
	struct found data = mapping_of(&in_data), stack = mapping_of(&local);
	require(data.mapping.is_writable && !data.mapping.is_shared, "data");
	require(data.mapping.is_file && data.mapping.kind == LOOK_ANY, "data");
	require(stack.mapping.is_readable && !stack.mapping.is_file, "the stack");
	struct found code = mapping_of((const void *)(uintptr_t)find);
	require(code.mapping.is_executable && !code.mapping.is_writable, "code");
	void *shared = mmap(NULL, MIB, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	require(mapping_of(shared).mapping.kind == LOOK_MEMORY, "shared memory");
	struct found heap = mapping_of(range.base + 32 * MIB);
	require(!heap.mapping.is_readable, "what is only reserved isn't readable");
}

Test(waiting, of_private_memory_only_written_pages_are_looked_at)
{
	static const int protections[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC};

	core_start(64 * MIB);
	require(look_start(), "no memory");
	for (size_t i = 0; i < 4; i++) {
		/* Between others, so that it is a mapping of its own. */
		char *p = map(18 * MIB, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE) + MIB;
		mprotect(p, 16 * MIB, PROT_READ | PROT_WRITE);
		touch(p + 5 * MIB);
		touch(p + 9 * MIB);
		mprotect(p, 16 * MIB, protections[i]);
		if (protections[i] == PROT_NONE)
			mprotect(p - MIB, MIB, PROT_READ), mprotect(p + 16 * MIB, MIB, PROT_READ);
		struct found found = pages_of(p, p + 9 * MIB);
		require(found.pages == 2 && found.times == 1, "%zu pages, protection %zu", found.pages, i);
	}
}

Test(waiting, shared_memory_is_looked_at_where_it_is_there)
{
	core_start(64 * MIB);
	require(look_start(), "no memory");
	char *p = map(32 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (size_t i = 0; i < 40; i++)
		touch(p + 20 * MIB + i * OS_PAGE);
	touch(p);
	mprotect(p, 32 * MIB, PROT_READ);
	struct found found = pages_of(p, p + 20 * MIB + 39 * OS_PAGE);
	require(found.pages >= 41 && found.pages < 1000 && found.times == 1, "%zu pages", found.pages);
}

Test(waiting, long_sparse_mappings_take_no_time)
{
	core_start(64 * MIB);
	require(look_start(), "no memory");
	char *p = map(64 * 1024 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE);
	touch(p + 5000 * MIB);
	struct found found = pages_of(p, p + 5000 * MIB);
	require(found.pages >= 1 && found.pages < 1000 && found.times == 1, "%zu pages", found.pages);
	/* Kernels from before PAGEMAP_SCAN have to be asked for each page. */
	if (look_pages_asked() > 0)
		cr_skip_test("this kernel tells of no runs of pages");
}

/* Lists of big blocks. */

Test(waiting, a_list_knows_big_blocks_until_they_are_freed)
{
	struct heap *heap = heap_start(64 * MIB);
	struct big_list list = {0};
	char *blocks[100];

	for (size_t i = 0; i < 100; i++) {
		blocks[i] = big_alloc(heap, 40000 + i * 100, GRANULE_BYTES);
		big_list_note(&list, blocks[i]);
	}
	require(list.count == 100, "%zu", list.count);
	for (size_t i = 0; i < 100; i += 2)
		big_free(heap, span_of(blocks[i]), blocks[i], "free");
	/* Blocks in the same places are others. */
	for (size_t i = 0; i < 100; i += 2)
		blocks[i] = big_alloc(heap, 40000 + i * 100, GRANULE_BYTES);
	big_list_compact(&list);
	require(list.count == 50, "%zu", list.count);
	for (size_t i = 0; i < 50; i++)
		require(big_list_find(&list.refs[i]) == span_of(blocks[2 * i + 1]), "block %zu", i);
	big_list_forget(span_of(blocks[1]));
	require(!big_list_find(&list.refs[0]), "it was to be forgotten");
}

Test(waiting, a_list_of_short_lived_blocks_does_not_grow)
{
	struct heap *heap = heap_start(64 * MIB);
	struct big_list list = {0};

	for (size_t i = 0; i < 10000; i++) {
		char *p = big_alloc(heap, 100000, GRANULE_BYTES);
		big_list_note(&list, p);
		big_free(heap, span_of(p), p, "free");
	}
	require(list.capacity < 100, "%zu", list.capacity);
}

/* Stopping. */

static volatile uint64_t counter;
static volatile int may_end;

static void *count(void *unused)
{
	while (!may_end)
		counter++;
	return unused;
}

Test(waiting, threads_stand_still_until_the_world_goes_on)
{
	pthread_t threads[5];
	size_t standing;
	int stops = 0;

	core_start(64 * MIB);
	for (size_t i = 0; i < 5; i++)
		require(pthread_create(&threads[i], NULL, count, NULL) == 0, "no thread");
	for (int round = 0; round < 50; round++) {
		require(world_prepare(), "round %d", round);
		enum world_result result = world_stop(33);
		/* On a machine that is busy enough some thread may come late. */
		if (result == WORLD_LATE)
			continue;
		require(result == WORLD_STOPPED, "round %d: %d, thread %d", round, result, world_culprit());
		stops++;
		world_threads(&standing);
		uint64_t before = counter;
		usleep(100);
		require(counter == before, "round %d", round);
		require(standing >= 5, "%zu", standing);
		world_go_on();
		while (counter == before)
			continue;
	}
	require(stops > 0, "no thread comes in time");
	may_end = 1;
	for (size_t i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
}
