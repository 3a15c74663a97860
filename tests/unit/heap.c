/*
 * heap.c: blocks that one thread allocates and another frees, what becomes of a thread's heap when it
 * ends, blocks with a span of their own, and frees that are none.
 */
#include <sys/wait.h>

#include "unit.h"

/* But for the spares of this thread. */
static size_t used_bytes(void)
{
	return span_pool_totals().used_bytes - heap_self()->big_spare_bytes;
}

static void add_used(const struct span *span, void *arg)
{
	*(size_t *)arg += span->kind == SPAN_SLAB ? slab_used(span) : 1;
}

/* In slabs of all heaps; blocks that are still on their way home count. */
static size_t blocks_in_use(void)
{
	size_t blocks = 0;

	span_for_each(add_used, &blocks);
	return blocks;
}

/* Frees that cross threads. */

#define BLOCKS 3000

struct parcel {
	void *blocks[BLOCKS];
	struct heap *heap; /* of the thread that had it */
	bool is_sent_early;
};

static void fill(struct parcel *parcel)
{
	uint64_t seed = 1;

	for (size_t i = 0; i < BLOCKS; i++) {
		size_t bytes = 1 + random_below(&seed, i % 50 ? 400 : CLASS_MAX_BYTES);
		parcel->blocks[i] = heap_alloc(bytes);
		memset(parcel->blocks[i], (int)i, bytes);
	}
}

static void *free_parcel(void *arg)
{
	struct parcel *parcel = arg;

	heap_make();
	for (size_t i = 0; i < BLOCKS; i++)
		heap_free(parcel->blocks[i], "free");
	heap_retire();
	return NULL;
}

static void *fill_parcel(void *arg)
{
	struct parcel *parcel = arg;

	parcel->heap = heap_make();
	fill(parcel);
	heap_retire();
	return NULL;
}

Test(heap, blocks_freed_by_another_thread_come_back_to_their_owner)
{
	static struct parcel parcel;
	struct heap *heap = heap_start(64 * MIB);

	fill(&parcel);
	run_thread(free_parcel, &parcel);
	require(heap->inbox != NULL, "they lie in the inbox");
	remote_drain(heap, false);
	require(heap->inbox == NULL, "it has been emptied");
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

Test(heap, an_allocation_that_needs_memory_takes_what_lies_in_the_inbox)
{
	struct heap *heap = heap_start(64 * MIB);
	struct parcel parcel = {0};
	size_t used = 0;

	for (int round = 0; round < 20; round++) {
		fill(&parcel);
		used = round == 1 ? used_bytes() : used;
		require(round < 2 || used_bytes() <= used + used / 4, "round %d: %zu", round, used_bytes());
		run_thread(free_parcel, &parcel);
	}
	remote_drain(heap, false);
}

static void *free_a_little(void *arg)
{
	struct parcel *parcel = arg;

	heap_make();
	for (size_t i = 0; i < 10; i++)
		heap_free(parcel->blocks[i], "free");
	parcel->is_sent_early = parcel->heap->inbox != NULL;
	for (size_t i = 10; i < 80; i++)
		heap_free(parcel->blocks[i], "free");
	return NULL;
}

Test(heap, frees_are_sent_in_batches_but_not_kept_for_long)
{
	static struct parcel parcel;

	parcel.heap = heap_start(64 * MIB);
	for (size_t i = 0; i < 80; i++)
		parcel.blocks[i] = heap_alloc(1024);
	run_thread(free_a_little, &parcel);
	require(!parcel.is_sent_early, "10 KiB are not worth a trip");
	require(parcel.heap->inbox != NULL, "80 KiB are");
}

/* More heaps than outboxes: each thread waits with its blocks until the main thread has freed them. */
#define THREADS 20

static pthread_barrier_t filled, freed;

static void *fill_and_drain(void *arg)
{
	void **blocks = arg;
	struct heap *heap = heap_make();
	size_t used = 0;

	for (size_t i = 0; i < 30; i++)
		blocks[i] = heap_alloc(100);
	const struct span *slab = span_of(blocks[0]);
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&freed);
	remote_drain(heap, false);
	used = slab_used(slab);
	heap_retire();
	return (void *)used;
}

Test(heap, frees_for_more_heaps_than_there_are_outboxes_all_arrive)
{
	static void *blocks[THREADS][30];
	pthread_t threads[THREADS];
	void *left;

	struct heap *heap = heap_start(64 * MIB);
	pthread_barrier_init(&filled, NULL, THREADS + 1);
	pthread_barrier_init(&freed, NULL, THREADS + 1);
	for (size_t i = 0; i < THREADS; i++)
		require(pthread_create(&threads[i], NULL, fill_and_drain, blocks[i]) == 0, "thread %zu", i);
	pthread_barrier_wait(&filled);
	for (size_t j = 0; j < 30; j++)
		for (size_t i = 0; i < THREADS; i++)
			heap_free(blocks[i][j], "free");
	remote_flush(heap);
	pthread_barrier_wait(&freed);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &left);
		require(left == NULL, "thread %zu: %zu blocks left", i, (size_t)left);
	}
}

/* Two threads that hand blocks to each other through a table, and free what they find there. */
struct exchange {
	void *slots[256];
	size_t damaged;
	uint64_t seed;
};

static void *exchange_blocks(void *arg)
{
	struct exchange *exchange = arg;
	uint64_t seed = __atomic_add_fetch(&exchange->seed, 1, __ATOMIC_RELAXED);

	heap_make();
	for (size_t i = 0; i < 60000; i++) {
		size_t bytes = 32 + random_below(&seed, 600);
		size_t *p = heap_alloc(bytes);
		p[2] = bytes;
		p[3] = ~bytes;
		p = __atomic_exchange_n(&exchange->slots[random_below(&seed, 256)], p, __ATOMIC_ACQ_REL);
		if (p && p[2] != ~p[3])
			__atomic_add_fetch(&exchange->damaged, 1, __ATOMIC_RELAXED);
		heap_free(p, "free");
	}
	heap_retire();
	return NULL;
}

Test(heap, threads_that_free_each_others_blocks_at_once_damage_none, .timeout = 20)
{
	static struct exchange exchange;
	pthread_t threads[2];

	heap_start(256 * MIB);
	for (size_t i = 0; i < 2; i++)
		require(pthread_create(&threads[i], NULL, exchange_blocks, &exchange) == 0, "thread %zu", i);
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < COUNT_OF(exchange.slots); i++)
		heap_free(exchange.slots[i], "free");
	remote_flush(heap_self());
	require(exchange.damaged == 0, "%zu", exchange.damaged);
	require(blocks_in_use() == 0, "%zu blocks are left", blocks_in_use());
}

/* Ends. */

Test(heap, a_new_thread_takes_over_the_heap_of_one_that_has_ended)
{
	static struct parcel first, second;

	heap_start(64 * MIB);
	run_thread(fill_parcel, &first);
	require(first.heap->state == HEAP_IDLE, "%d", first.heap->state);
	size_t used = used_bytes();
	for (size_t i = 0; i < BLOCKS; i++)
		require(heap_block_bytes(first.blocks[i], "test") > 0, "block %zu is gone", i);
	run_thread(fill_parcel, &second);
	require(second.heap == first.heap, "the same heap");
	require(used_bytes() < 2 * used, "%zu bytes after %zu", used_bytes(), used);
}

Test(heap, blocks_of_an_ended_thread_go_back_without_anybody_taking_its_heap_over)
{
	static struct parcel parcel;

	heap_start(64 * MIB);
	run_thread(fill_parcel, &parcel);
	for (size_t i = 0; i < BLOCKS; i++)
		heap_free(parcel.blocks[i], "free");
	remote_flush(heap_self());
	require(parcel.heap->inbox == NULL, "whoever posts drains");
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

Test(heap, an_ending_thread_sends_what_it_has_freed_and_drops_what_it_keeps)
{
	static struct parcel parcel;
	struct heap *heap = heap_start(64 * MIB);

	parcel.blocks[0] = heap_alloc(16);
	run_thread(free_parcel, &parcel);
	require(heap->inbox == parcel.blocks[0], "one small block");
	run_thread(fill_parcel, &parcel);
	run_thread(free_parcel, &parcel);
	remote_drain(heap, false);
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

/* Slabs of one that has ended. */

static void *fill_and_free_every_other(void *arg)
{
	struct parcel *parcel = arg;

	parcel->heap = heap_make();
	for (size_t i = 0; i < BLOCKS; i++)
		parcel->blocks[i] = heap_alloc(200);
	for (size_t i = 0; i < BLOCKS; i += 2)
		heap_free(parcel->blocks[i], "free");
	heap_retire();
	return NULL;
}

Test(heap, slabs_of_an_ended_thread_serve_those_that_live)
{
	static struct parcel parcel;

	struct heap *heap = heap_start(64 * MIB);
	run_thread(fill_and_free_every_other, &parcel);
	size_t used = used_bytes();
	for (size_t i = 0; i < BLOCKS; i += 2)
		parcel.blocks[i] = heap_alloc(200);
	require(used_bytes() == used, "%zu bytes, then %zu", used, used_bytes());
	for (size_t i = 0; i < BLOCKS; i += 2)
		require(span_of(parcel.blocks[i])->owner == heap, "block %zu", i);
	for (size_t i = 0; i < BLOCKS; i++)
		heap_free(parcel.blocks[i], "free");
	remote_flush(heap);
	remote_drain(heap, false);
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

Test(heap, frees_on_their_way_to_a_heap_that_has_lost_the_slab_arrive)
{
	static struct parcel parcel;

	struct heap *heap = heap_start(64 * MIB);
	run_thread(fill_and_free_every_other, &parcel);
	/* Collected, but not sent yet. */
	for (size_t i = 1; i < 100; i += 2)
		heap_free(parcel.blocks[i], "free");
	require(heap->collected_bytes > 0, "they wait");
	require(heap_adopt(heap, class_of(200)), "a slab that is meanwhile adopted");
	remote_flush(heap);
	remote_drain(heap, false);
	for (size_t i = 101; i < BLOCKS; i += 2)
		heap_free(parcel.blocks[i], "free");
	remote_flush(heap);
	remote_drain(heap, false);
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

Test(heap, of_more_threads_than_idle_heaps_may_keep_slabs_nothing_is_lost)
{
	static struct parcel parcels[30];

	struct heap *heap = heap_start(64 * MIB);
	for (size_t i = 0; i < 30; i++)
		run_thread(fill_and_free_every_other, &parcels[i]);
	for (size_t i = 0; i < 30; i++)
		for (size_t k = 1; k < BLOCKS; k += 2)
			heap_free(parcels[i].blocks[k], "free");
	remote_flush(heap);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

static void *free_without_a_heap(void *arg)
{
	struct parcel *parcel = arg;

	for (size_t i = 0; i < BLOCKS; i++)
		heap_free(parcel->blocks[i], "free");
	parcel->heap = heap_self();
	heap_retire();
	return NULL;
}

Test(heap, a_thread_that_only_frees_gets_a_heap_to_collect_in)
{
	static struct parcel parcel;

	struct heap *heap = heap_start(64 * MIB);
	fill(&parcel);
	run_thread(free_without_a_heap, &parcel);
	require(parcel.heap != &heap_none && parcel.heap != heap, "a heap of its own");
	remote_drain(heap, false);
	slab_trim(heap, false);
	require(used_bytes() == 0, "%zu bytes", used_bytes());
}

Test(heap, messages_that_were_written_to_are_reported_and_dropped)
{
	static struct parcel parcel;
	struct capture capture;

	struct heap *heap = heap_start(64 * MIB);
	fill(&parcel);
	run_thread(free_parcel, &parcel);
	require(heap->inbox != NULL, "there are messages");
	heap->inbox->mark = 0;
	capture_begin(&capture);
	remote_drain(heap, false);
	capture_end(&capture);
	require(count_lines(capture.text) == 1 && strstr(capture.text, "overwritten"), "%s", capture.text);
	require(heap_alloc(100) != NULL, "the heap goes on");
}

struct afterlife {
	void *kept;
	bool had_no_heap, could_free;
	size_t slabs_bytes;
};

static void *live_on(void *arg)
{
	struct afterlife *after = arg;

	heap_make();
	heap_retire();
	after->had_no_heap = heap_make() == NULL && heap_self() == &heap_dead;
	for (int i = 0; i < 20000; i++) {
		void *p = heap_alloc(1000);
		memset(p, 1, 1000);
		heap_free(p, "free");
	}
	after->slabs_bytes = used_bytes();
	after->kept = heap_alloc(50);
	memset(after->kept, 7, 50);
	void *big = heap_alloc(1 << 20);
	heap_free(big, "free");
	after->could_free = true;
	return NULL;
}

Test(heap, a_thread_past_its_end_allocates_and_frees_still)
{
	static struct afterlife after;

	heap_start(64 * MIB);
	run_thread(live_on, &after);
	require(after.had_no_heap && after.could_free, "it has only the shared heap");
	require(after.slabs_bytes <= 4 * SLICE_BYTES, "%zu bytes for one block", after.slabs_bytes);
	require(heap_block_bytes(after.kept, "test") == 64 && *(char *)after.kept == 7, "it outlives the thread");
	heap_free(after.kept, "free");
}

static void *wait_twice(void *arg)
{
	*(void **)arg = heap_alloc(100);
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&freed);
	return NULL;
}

static int child_after_fork(struct heap *lost, void *theirs)
{
	heap_after_fork_in_child();
	if (lost->state != HEAP_LOST)
		return 1;
	void *mine = heap_alloc(100);
	if (span_of(mine) == span_of(theirs))
		return 2;
	heap_free(theirs, "free");
	heap_free(mine, "free");
	remote_flush(heap_self());
	return 0;
}

Test(heap, a_forked_child_goes_on_and_leaves_the_other_threads_heaps_alone, .timeout = 10)
{
	pthread_t thread;
	void *theirs;
	int status = -1;

	struct heap *mine = heap_start(64 * MIB);
	pthread_barrier_init(&filled, NULL, 2);
	pthread_barrier_init(&freed, NULL, 2);
	require(pthread_create(&thread, NULL, wait_twice, &theirs) == 0, "no thread");
	pthread_barrier_wait(&filled);
	struct heap *other = span_of(theirs)->owner;
	require(other != mine, "a heap each");
	heap_before_fork();
	pid_t child = fork();
	if (child == 0)
		_exit(child_after_fork(other, theirs));
	heap_after_fork_in_parent();
	require(waitpid(child, &status, 0) == child && status == 0, "%x", (unsigned)status);
	require(other->state == HEAP_LIVE, "the parent's other thread");
	heap_free(heap_alloc(5000), "free");
	pthread_barrier_wait(&freed);
	pthread_join(thread, NULL);
}

/* Misuse. */

static void expect_report(void (*fn)(void *), void *p, const char *wanted)
{
	struct capture capture;

	capture_begin(&capture);
	fn(p);
	capture_end(&capture);
	require(count_lines(capture.text) == 1 && strstr(capture.text, wanted) &&
	        strncmp(capture.text, "libregion: ", 11) == 0, "%s, not %s", capture.text, wanted);
}

static void free_it(void *p)
{
	if (!heap_free_inline(heap_self(), p))
		heap_free(p, "free");
}

static void measure_it(void *p)
{
	require(heap_block_bytes(p, "measure") == 0, "%p", p);
}

Test(heap, frees_of_what_is_no_block_are_reported_and_change_nothing)
{
	int local;

	heap_start(64 * MIB);
	char *block = heap_alloc(1000), *big = heap_alloc(100000), *gone = heap_alloc(100000);
	struct span *slab = span_of(block);
	memset(block, 0, 1000);
	free_it(gone);
	expect_report(free_it, &local, "not allocated by libregion");
	expect_report(free_it, block + 16, "not the start of a block: it lies 16 bytes into one of 1024");
	expect_report(free_it, block + 8, "not the start of a block");
	char *behind = slab->start + (size_t)slab->extended * slab->block_bytes;
	expect_report(free_it, behind, "not the start of a block");
	expect_report(free_it, big + 16, "not the start of a block: it lies 16 bytes into one of 102400");
	expect_report(free_it, gone, "double free");
	require(slab_used(slab) == 1, "%u", slab_used(slab));
	free_it(block);
	expect_report(free_it, block, "double free of a block of 1024 bytes");
	require(slab_used(slab) == 0, "%u", slab_used(slab));
	heap_free(NULL, "free");
	free_it(big);
}

Test(heap, a_block_has_its_class_size_or_its_pages_and_anything_else_none)
{
	int local;

	heap_start(64 * MIB);
	for (size_t size = 1; size <= CLASS_MAX_BYTES; size = size * 5 / 4 + 1) {
		char *p = heap_alloc(size);
		require(serves(heap_block_bytes(p, "measure"), size), "%zu bytes", size);
		expect_report(measure_it, p + 1, "measure");
	}
	char *freed_block = heap_alloc(100), *big = heap_alloc(100000);
	heap_free(freed_block, "free");
	require(heap_block_bytes(big, "measure") == 25 * OS_PAGE, "%zu", heap_block_bytes(big, "measure"));
	expect_report(measure_it, freed_block, "measure");
	expect_report(measure_it, big + OS_PAGE, "measure");
	expect_report(measure_it, &local, "measure");
	require(heap_alloc(0) != NULL && heap_alloc(SIZE_MAX) == NULL, "the edges");
}

Test(heap, aligned_blocks_are_aligned_and_large_enough)
{
	heap_start(512 * MIB);
	for (size_t align = 1; align <= 4 * MIB; align *= 2)
		for (size_t size = 0; size < 200000; size = size * 3 + 1) {
			char *p = heap_alloc_aligned(align, size);

			require(p && (uintptr_t)p % align == 0, "%zu at %zu: %p", size, align, (void *)p);
			require(heap_block_bytes(p, "measure") >= size, "%zu at %zu", size, align);
			memset(p, 1, size);
			free_it(p);
		}
}
