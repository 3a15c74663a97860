/*
 * heap.c: the life of thread heaps, frees that cross threads, and the general heap's entry points.
 *
 * A free of another heap's block goes into an outbox of the freeing thread and travels from there in
 * batches, one compare-and-swap each (snmalloc's batching). What arrives lies in the inbox until the
 * owner needs memory; where the owner has ended, whoever posts takes it back on the owner's behalf.
 *
 * A thread past its end (heap_dead) allocates from one shared heap under a lock.
 */
#include "heap.h"

#include "bare.h"
#include "big.h"
#include "buffer.h"
#include "os.h"
#include "report.h"
#include "slab.h"
#include "waiting.h"

#define OUTBOX_MAX_BYTES ((size_t)16 << 10)

__thread struct heap *heap_tls = &heap_none;
struct heap heap_none = {.state = HEAP_NONE};
struct heap heap_dead = {.state = HEAP_NONE};

static struct heaps {
	struct lock lock;
	struct heap *all;
	struct heap *idle;
	heap_hook *birth_hook;
	void (*pressure_hook)(void);
	struct lock shared_lock;
	struct heap *shared; /* for threads past their end */
} heaps;

void heap_set_birth_hook(heap_hook *hook)
{
	heaps.birth_hook = hook;
}

void heap_set_pressure_hook(void (*hook)(void))
{
	heaps.pressure_hook = hook;
}

struct heap *heap_all(void)
{
	return __atomic_load_n(&heaps.all, __ATOMIC_ACQUIRE);
}

static struct heap *heap_create(enum heap_state state)
{
	struct heap *heap = range_meta_alloc(sizeof(*heap));

	if (!heap)
		return NULL;
	for (size_t i = 0; i < HEAP_DIRECT_GRANULES; i++)
		heap->direct[i] = &range.spans[0];
	heap->state = state;
	lock_acquire(&heaps.lock);
	heap->next_heap = heaps.all;
	__atomic_store_n(&heaps.all, heap, __ATOMIC_RELEASE);
	lock_release(&heaps.lock);
	return heap;
}

static struct heap *take_idle(void)
{
	lock_acquire(&heaps.lock);
	struct heap *heap = heaps.idle;
	if (heap) {
		heaps.idle = heap->next_idle;
		__atomic_store_n(&heap->state, HEAP_LIVE, __ATOMIC_RELAXED);
	}
	lock_release(&heaps.lock);
	return heap;
}

struct heap *heap_make(void)
{
	if (heap_tls != &heap_none)
		return heap_tls == &heap_dead ? NULL : heap_tls;
	struct heap *heap = take_idle();
	if (!heap)
		heap = heap_create(HEAP_LIVE);
	if (!heap)
		return NULL;
	heap_set_inline(heap, HEAP_DIRECT_GRANULES);
	heap_tls = heap;
	if (heaps.birth_hook)
		heaps.birth_hook(heap);
	return heap;
}

void heap_retire(void)
{
	struct heap *heap = heap_tls;

	heap_tls = &heap_dead;
	if (heap == &heap_none || heap == &heap_dead)
		return;
	assert(heap->cursor == heap->limit);
	heap->inline_granules = 0;
	buffer_drop_spares(heap);
	big_drop_spares(heap);
	heap_flush(heap);
	lock_acquire(&heaps.lock);
	__atomic_store_n(&heap->state, HEAP_IDLE, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	heap_drain(heap);
	slab_trim(heap, false);
	heap->next_idle = heaps.idle;
	heaps.idle = heap;
	lock_release(&heaps.lock);
}

void heap_trim(void)
{
	struct heap *own = heap_tls;

	if (own->state == HEAP_LIVE) {
		big_drop_spares(own);
		heap_flush(own);
		heap_drain(own);
		slab_trim(own, true);
	}
	lock_acquire(&heaps.lock);
	for (struct heap *heap = heaps.idle; heap; heap = heap->next_idle) {
		heap_drain(heap);
		slab_trim(heap, true);
	}
	lock_release(&heaps.lock);
}

/* Fork. */

void heap_before_fork(void)
{
	lock_before_fork(waiting_lock());
	lock_before_fork(&heaps.shared_lock);
	lock_before_fork(&heaps.lock);
	lock_before_fork(buffer_lock());
	lock_before_fork(span_pool_lock());
	lock_before_fork(&range.lock);
}

static void after_fork(void (*unlock)(struct lock *))
{
	unlock(&range.lock);
	unlock(span_pool_lock());
	unlock(buffer_lock());
	unlock(&heaps.lock);
	unlock(&heaps.shared_lock);
	unlock(waiting_lock());
}

void heap_after_fork_in_parent(void)
{
	after_fork(lock_after_fork_in_parent);
}

void heap_after_fork_in_child(void)
{
	bool was_threaded = false;

	for (struct heap *heap = heaps.all; heap; heap = heap->next_heap)
		if (heap->state == HEAP_LIVE && heap != heap_tls) {
			heap->state = HEAP_LOST;
			was_threaded = true;
		}
	/*
	 * A thread that posted while the pages were copied may have left a link on a page that was copied
	 * before it was written. What is in an inbox then can't be trusted, and is leaked.
	 */
	for (struct heap *heap = heaps.all; was_threaded && heap; heap = heap->next_heap)
		heap->inbox = NULL;
	after_fork(lock_after_fork_in_child);
}

/* Frees that cross threads. */

void heap_post(struct heap *to, struct free_block *head, struct free_block *tail)
{
	struct free_block *first = __atomic_load_n(&to->inbox, __ATOMIC_RELAXED);

	do {
		tail->next = first;
	} while (!__atomic_compare_exchange_n(&to->inbox, &first, head, true, __ATOMIC_RELEASE,
	                                      __ATOMIC_RELAXED));
}

void heap_drain(struct heap *heap)
{
	if (!__atomic_load_n(&heap->inbox, __ATOMIC_RELAXED))
		return;
	struct free_block *block = __atomic_exchange_n(&heap->inbox, NULL, __ATOMIC_ACQUIRE);
	while (block) {
		struct free_block *next = block->next;
		slab_free(heap, span_of(block), block);
		block = next;
	}
}

/* Takes back what lies in the inbox of a heap whose thread has ended. */
static void drain_idle(struct heap *heap)
{
	lock_acquire(&heaps.lock);
	if (heap->state == HEAP_IDLE)
		heap_drain(heap);
	lock_release(&heaps.lock);
}

static void outbox_send(struct outbox *outbox)
{
	struct heap *to = outbox->to;

	if (!outbox->head)
		return;
	heap_post(to, outbox->head, outbox->tail);
	outbox->head = NULL;
	outbox->bytes = 0;
	/* Either we see that its thread has ended, or the thread, ending, sees what we have left. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&to->state, __ATOMIC_RELAXED) == HEAP_IDLE)
		drain_idle(to);
}

void heap_flush(struct heap *heap)
{
	for (unsigned i = 0; i < HEAP_OUTBOXES; i++)
		outbox_send(&heap->outboxes[i]);
}

static void free_remote(struct heap *heap, struct span *slab, struct free_block *block)
{
	struct heap *to = slab->owner;

	if (heap->state != HEAP_LIVE) {
		struct outbox single = {.to = to, .head = block, .tail = block};
		outbox_send(&single);
		return;
	}
	struct outbox *outbox = &heap->outboxes[(uintptr_t)to / sizeof(struct heap) % HEAP_OUTBOXES];
	if (outbox->to != to) {
		outbox_send(outbox);
		outbox->to = to;
	}
	block->next = outbox->head;
	if (!outbox->head)
		outbox->tail = block;
	outbox->head = block;
	outbox->bytes += slab->block_bytes;
	if (outbox->bytes >= OUTBOX_MAX_BYTES)
		outbox_send(outbox);
}

/* The slow half of free(). */

/* Is p the start of a block that has been on the free list? Exact also while blocks of the slab sleep. */
static bool is_slab_block(const struct span *slab, const void *p)
{
	size_t offset = (size_t)((const char *)p - slab->start);
	size_t extended = __atomic_load_n(&slab->extended, __ATOMIC_RELAXED);

	return offset % slab->block_bytes == 0 && offset / slab->block_bytes < extended;
}

static bool is_freed(const struct span *slab, const void *p)
{
	return ((const struct free_block *)p)->mark == heap_freed_mark(p) || slab_block_sleeps(slab, p);
}

static void free_in_slab(struct span *slab, void *p, const char *call)
{
	struct heap *heap = heap_self();

	if (!is_slab_block(slab, p)) {
		report_misuse("%s(%p): not the start of a block: it lies %zu bytes into one of %u", call, p,
		              (size_t)((char *)p - slab->start) % slab->block_bytes, slab->block_bytes);
		return;
	}
	if (is_freed(slab, p)) {
		report_misuse("%s(%p): double free of a block of %u bytes", call, p, slab->block_bytes);
		return;
	}
	((struct free_block *)p)->mark = heap_freed_mark(p);
	if (slab->owner == heap)
		slab_free(heap, slab, p);
	else
		free_remote(heap, slab, p);
}

static void report_spare(const struct span *span, void *p, const char *call)
{
	if (p == span->start)
		report_misuse("%s(%p): double free of a block of %zu bytes", call, p, span->bytes);
	else
		report_misuse("%s(%p): lies in a block of %zu bytes that was freed", call, p, span->bytes);
}

void heap_free(void *p, const char *call)
{
	if (!p)
		return;
	if (!range_has(p)) {
		report_misuse("%s(%p): not allocated by libregion", call, p);
		return;
	}
	struct span *span = span_of(p);
	enum span_kind kind = span_kind(span);
	if (kind == SPAN_SLAB)
		free_in_slab(span, p, call);
	else if (kind == SPAN_BIG)
		big_free(heap_self(), span, p, call);
	else if (kind == SPAN_BUFFER || kind == SPAN_RETIRED || kind == SPAN_WAITING)
		buffer_free(heap_self(), span, p, call);
	else if (kind == SPAN_SPARE)
		report_spare(span, p, call);
	else if (kind == SPAN_BARE)
		bare_misuse(span, p, call);
	else
		buffer_free_gone(p, call);
}

static size_t slab_block_bytes(const struct span *slab, const void *p)
{
	return is_slab_block(slab, p) && !is_freed(slab, p) ? slab->block_bytes : 0;
}

static size_t buffer_block_bytes(const void *p)
{
	const unsigned char *head = range_map_of(p);
	bool is_block = granule_is_live(granule_load(head)) && (uintptr_t)p % GRANULE_BYTES == 0;

	return is_block ? granule_size(head) << GRANULE_SHIFT : 0;
}

size_t heap_block_bytes(const void *p, const char *call)
{
	struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	enum span_kind kind = span_kind(span);
	size_t bytes = 0;

	if (kind == SPAN_SLAB)
		bytes = slab_block_bytes(span, p);
	else if (kind == SPAN_BIG)
		bytes = p == span->start ? span->bytes : 0;
	else if (kind == SPAN_BUFFER || kind == SPAN_RETIRED || kind == SPAN_WAITING)
		bytes = buffer_block_bytes(p);
	if (bytes == 0)
		report_misuse("%s(%p): not the start of a block in use", call, p);
	return bytes;
}

/* The slow half of malloc(). */

static void *alloc_shared(unsigned class)
{
	void *block = NULL;

	lock_acquire(&heaps.shared_lock);
	if (!heaps.shared)
		heaps.shared = heap_create(HEAP_SHARED);
	if (heaps.shared)
		block = slab_alloc(heaps.shared, class);
	lock_release(&heaps.shared_lock);
	return block;
}

static void *alloc_class(unsigned class)
{
	struct heap *heap = heap_make();

	return heap ? slab_alloc(heap, class) : alloc_shared(class);
}

static void *alloc_once(size_t align, size_t bytes)
{
	unsigned class = CLASS_COUNT;

	bytes += !bytes;
	if (align > GRANULE_BYTES)
		class = slab_aligned_class(align, bytes);
	else if (bytes <= CLASS_MAX_BYTES)
		class = class_of(bytes);
	return class < CLASS_COUNT ? alloc_class(class) : big_alloc(heap_self(), bytes, align);
}

/* Before memory is said to be out, everything that is kept ready is let go. */
static __attribute__((cold, noinline)) void *alloc_at_last(size_t align, size_t bytes)
{
	if (bytes > PTRDIFF_MAX)
		return NULL;
	if (heaps.pressure_hook)
		heaps.pressure_hook();
	heap_trim();
	if (heap_tls->state == HEAP_LIVE)
		buffer_drop_spares(heap_tls);
	buffer_sweep_retired();
	return alloc_once(align, bytes);
}

void *heap_alloc_aligned(size_t align, size_t bytes)
{
	void *p = alloc_once(align, bytes);

	return __builtin_expect(p != NULL, 1) ? p : alloc_at_last(align, bytes);
}

void *heap_alloc(size_t bytes)
{
	return heap_alloc_aligned(GRANULE_BYTES, bytes);
}
