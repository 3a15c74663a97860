/*
 * heap.c: the life of thread heaps, and the general heap's entry points.
 *
 * Adoption: the next new thread takes an idle heap over with its slabs, which is good for who inherits its
 * predecessor's blocks. Until then any thread adopts slabs from it before it makes new ones. Few idle heaps
 * keep their slabs, so that they are quickly looked through; those of more become slabs of one heap that is
 * no thread's, the orphanage. So the owner of a slab changes, always under the heaps' lock, and from an idle
 * heap to another.
 *
 * A thread past its end (heap_dead) allocates from one shared heap under a lock.
 */
#include "heap.h"

#include "bare.h"
#include "big.h"
#include "buffer.h"
#include "harden.h"
#include "null.h"
#include "os.h"
#include "remote.h"
#include "report.h"
#include "sleep.h"
#include "waiting.h"

/* Heaps whose threads have ended, and which keep their slabs. */
#define IDLE_MAX 8

/* Of the threads without a heap that free blocks of others, one in so many frees gets one, to collect in. */
#define BARE_FREES 16

__thread struct heap *heap_tls = &heap_none;
struct heap heap_none = {.state = HEAP_NONE};
struct heap heap_dead = {.state = HEAP_NONE};

static struct heaps {
	struct lock lock;
	struct heap *all;
	struct heap *idle;   /* with slabs, the last one first */
	struct heap *shells; /* idle without */
	uint32_t idle_count;
	heap_hook *birth_hook;
	void (*pressure_hook)(void);
	struct lock shared_lock;
	struct heap *shared; /* for threads past their end */
	struct heap *orphanage;
	uint32_t bare_frees;   /* of blocks of others, by threads without a heap */
	uint32_t trims;        /* calls of heap_trim() */
	uint64_t idle_classes; /* a bit for each class that idle heaps may have a slab of */
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
	slab_share_classes(heap);
	heap->state = state;
	lock_acquire(&heaps.lock);
	heap->next_heap = heaps.all;
	__atomic_store_n(&heaps.all, heap, __ATOMIC_RELEASE);
	lock_release(&heaps.lock);
	return heap;
}

/* Under the lock. */
static void set_idle_classes(uint64_t classes)
{
	__atomic_store_n(&heaps.idle_classes, classes, __ATOMIC_RELAXED);
}

static bool adopt_from(struct heap *idle, struct heap *heap, unsigned class)
{
	struct span *slab = idle ? idle->queues[class].first : NULL;

	if (slab)
		slab_move(idle, heap, slab);
	return slab != NULL;
}

void heap_note_idle_class(unsigned class)
{
	set_idle_classes(heaps.idle_classes | (uint64_t)1 << class);
}

bool heap_adopt(struct heap *heap, unsigned class)
{
	uint64_t bit = (uint64_t)1 << class;

	/* Unlocked, as a hint. */
	if (!(__atomic_load_n(&heaps.idle_classes, __ATOMIC_RELAXED) & bit))
		return false;
	lock_acquire(&heaps.lock);
	bool is_adopted = adopt_from(heaps.orphanage, heap, class);
	for (struct heap *idle = heaps.idle; idle && !is_adopted; idle = idle->next_idle)
		is_adopted = adopt_from(idle, heap, class);
	if (!is_adopted)
		set_idle_classes(heaps.idle_classes & ~bit);
	lock_release(&heaps.lock);
	return is_adopted;
}

static struct heap *take_idle(void)
{
	lock_acquire(&heaps.lock);
	struct heap **list = heaps.idle ? &heaps.idle : &heaps.shells, *heap = *list;
	if (heap) {
		*list = heap->next_idle;
		heaps.idle_count -= list == &heaps.idle;
		__atomic_store_n(&heap->state, HEAP_LIVE, __ATOMIC_RELAXED);
	}
	lock_release(&heaps.lock);
	return heap;
}

/* Puts a heap whose thread has ended where it belongs, under the lock. */
static void put_idle(struct heap *heap)
{
	bool is_shell = heaps.idle_count == IDLE_MAX && heaps.orphanage;
	struct heap **list = is_shell ? &heaps.shells : &heaps.idle;
	uint64_t classes = 0;

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		classes |= (uint64_t)(heap->queues[class].first != NULL) << class;
		if (is_shell)
			slab_move_queue(heap, heaps.orphanage, class);
	}
	set_idle_classes(heaps.idle_classes | classes);
	heaps.idle_count += !is_shell;
	heap->next_idle = *list;
	*list = heap;
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
	heap_set_inline(heap, harden_inline_granules());
	heap->trims = __atomic_load_n(&heaps.trims, __ATOMIC_RELAXED);
	heap_tls = heap;
	if (heaps.birth_hook)
		heaps.birth_hook(heap);
	return heap;
}

/* Should two threads do this at once, one of the heaps stays unused. */
static void make_orphanage(void)
{
	struct heap *heap = heap_create(HEAP_IDLE), *none = NULL;

	if (heap)
		__atomic_compare_exchange_n(&heaps.orphanage, &none, heap, false, __ATOMIC_RELEASE,
		                            __ATOMIC_RELAXED);
}

void heap_retire(void)
{
	struct heap *heap = heap_tls;

	harden_flush(heap);
	heap_tls = &heap_dead;
	if (heap == &heap_none || heap == &heap_dead)
		return;
	assert(heap->cursor == heap->limit);
	heap->inline_granules = 0;
	buffer_drop_spares(heap);
	big_drop_spares(heap);
	remote_flush(heap);
	if (!__atomic_load_n(&heaps.orphanage, __ATOMIC_RELAXED))
		make_orphanage();
	lock_acquire(&heaps.lock);
	__atomic_store_n(&heap->state, HEAP_IDLE, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	remote_drain(heap, true);
	slab_trim(heap, false);
	put_idle(heap);
	lock_release(&heaps.lock);
}

void heap_drain_idle(struct heap *heap)
{
	lock_acquire(&heaps.lock);
	if (heap->state == HEAP_IDLE)
		remote_drain(heap, true);
	lock_release(&heaps.lock);
}

static void trim_idle(struct heap *heap)
{
	if (heap) {
		remote_drain(heap, true);
		slab_trim(heap, true);
	}
}

static __attribute__((cold, noinline)) void trim_own(struct heap *heap, uint32_t trims)
{
	heap->trims = trims;
	big_drop_spares(heap);
	harden_flush(heap);
	remote_flush(heap);
	remote_drain(heap, false);
	slab_trim(heap, true);
}

/* Nobody but a thread may touch its slabs, and what it is at just now can't be told: so it is left a note. */
void heap_follow_trims(struct heap *heap)
{
	uint32_t trims = __atomic_load_n(&heaps.trims, __ATOMIC_RELAXED);

	if (__builtin_expect(heap->trims != trims, 0) && heap == heap_tls) {
		trim_own(heap, trims);
		span_pool_decay(true);
	}
}

void heap_trim(void)
{
	uint32_t trims = __atomic_add_fetch(&heaps.trims, 1, __ATOMIC_RELAXED);

	if (heap_tls->state == HEAP_LIVE)
		trim_own(heap_tls, trims);
	lock_acquire(&heaps.lock);
	for (struct heap *heap = heaps.shells; heap; heap = heap->next_idle)
		trim_idle(heap);
	for (struct heap *heap = heaps.idle; heap; heap = heap->next_idle)
		trim_idle(heap);
	trim_idle(heaps.orphanage);
	lock_release(&heaps.lock);
}

/* Fork. */

void heap_before_fork(void)
{
	lock_before_fork(waiting_lock());
	lock_before_fork(&heaps.shared_lock);
	lock_before_fork(&heaps.lock);
	lock_before_fork(null_lock());
	lock_before_fork(buffer_lock());
	lock_before_fork(span_pool_lock());
	lock_before_fork(&range.lock);
}

static void after_fork(void (*unlock)(struct lock *))
{
	unlock(&range.lock);
	unlock(span_pool_lock());
	unlock(buffer_lock());
	unlock(null_lock());
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
	return ((const struct free_block *)p)->mark == heap_freed_mark(p) || sleep_has(slab, p) ||
	       (harden_is_strict() && harden_is_held(slab, p));
}

/* May p be freed? The same questions as the inlined path asks, and those that it leaves, exactly. */
static bool is_freeable(const struct span *slab, void *p, const char *call)
{
	size_t granule = range_granule_at(p);

	if (granule < HOT_LOAD(range.granules) && slab_is_block(slab, granule) &&
	    ((struct free_block *)p)->mark != heap_freed_mark(p))
		return true;
	if (!is_slab_block(slab, p)) {
		report_misuse("%s(%p): not the start of a block: it lies %zu bytes into one of %u", call, p,
		              (size_t)((char *)p - slab->start) % slab->block_bytes, slab->block_bytes);
		return false;
	}
	if (is_freed(slab, p)) {
		report_misuse("%s(%p): double free of a block of %u bytes", call, p, slab->block_bytes);
		return false;
	}
	return true;
}

/* The thread's heap, if it has one, or has reason to get one. */
static struct heap *heap_for_remote_free(void)
{
	struct heap *heap = heap_self();

	if (heap == &heap_none && __atomic_add_fetch(&heaps.bare_frees, 1, __ATOMIC_RELAXED) % BARE_FREES == 0)
		heap = heap_make();
	return heap && heap->state == HEAP_LIVE ? heap : NULL;
}

static void free_remote(struct span *slab, struct free_block *block)
{
	struct heap *heap = heap_for_remote_free();

	if (heap)
		remote_free(heap, slab, block);
	else
		remote_free_bare(slab, block);
}

void heap_give_back(struct span *slab, void *p)
{
	struct heap *heap = heap_self();

	((struct free_block *)p)->mark = heap_freed_mark(p);
	if (__atomic_load_n(&slab->owner, __ATOMIC_RELAXED) == heap)
		heap_push_free(heap, slab, p);
	else
		free_remote(slab, p);
}

static void free_in_slab(struct span *slab, void *p, const char *call)
{
	if (!is_freeable(slab, p, call))
		return;
	if (harden_is_on())
		harden_free(heap_self(), slab, p, call);
	else
		heap_give_back(slab, p);
}

static void report_spare(const struct span *span, void *p, const char *call)
{
	if (span->bytes == 0)
		buffer_free_gone(p, call); /* it was a slab */
	else if (p == span->start)
		report_misuse("%s(%p): double free of a block of %zu bytes", call, p, span->bytes);
	else
		report_misuse("%s(%p): lies in a block of %zu bytes that was freed", call, p, span->bytes);
}

/* One whose blocks the granule map tells. */
static bool is_buffer(enum span_kind kind)
{
	return kind == SPAN_BUFFER || kind == SPAN_RETIRED || kind == SPAN_WAITING || kind == SPAN_QUARANTINED;
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
	else if (is_buffer(kind))
		buffer_free(heap_self(), span, p, call);
	else if (kind == SPAN_SPARE)
		report_spare(span, p, call);
	else if (kind == SPAN_NULL)
		null_free(span, p, call);
	else if (kind == SPAN_BARE)
		bare_misuse(span, p, call);
	else
		buffer_free_gone(p, call);
}

static size_t slab_block_bytes(const struct span *slab, const void *p)
{
	if (!is_slab_block(slab, p) || is_freed(slab, p))
		return 0;
	return harden_is_on() ? harden_bytes(slab, p) : slab->block_bytes;
}

static size_t buffer_block_bytes(const void *p)
{
	const unsigned char *head = range_map_of(p);
	bool is_block = granule_is_live(granule_load(head)) && (uintptr_t)p % GRANULE_BYTES == 0;

	return is_block ? granule_size(head) << GRANULE_SHIFT : 0;
}

/* Bytes of the block at p; 0: it has none, or there is none. */
static size_t bytes_of(const void *p)
{
	struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	enum span_kind kind = span_kind(span);
	size_t bytes = 0;

	if (kind == SPAN_SLAB)
		bytes = slab_block_bytes(span, p);
	else if (kind == SPAN_BIG)
		bytes = p != span->start ? 0 : harden_is_on() ? harden_bytes(span, p) : span->bytes;
	else if (is_buffer(kind))
		bytes = buffer_block_bytes(p);
	return bytes;
}

/* Has a block in use of the hardened general heap been asked for? */
static bool is_fenced(const void *p)
{
	const struct span *span = range_has(p) ? span_of(p) : &range.spans[0];

	if (span_kind(span) == SPAN_BIG)
		return p == span->start;
	return span_kind(span) == SPAN_SLAB && is_slab_block(span, p) && !is_freed(span, p);
}

size_t heap_block_bytes(const void *p, const char *call)
{
	size_t bytes = bytes_of(p);

	if (bytes > 0 || null_has(p))
		return bytes;
	if (harden_is_on() && is_fenced(p))
		harden_report(span_of(p), p, call);
	else
		report_misuse("%s(%p): not the start of a block in use", call, p);
	return 0;
}

void heap_free_sized(void *p, size_t size, const char *call)
{
	size_t bytes = p ? bytes_of(p) : 0;

	/* Who asked for nothing, aligned, has a byte. */
	bool is_wrong = harden_is_on() && is_fenced(p) ? bytes != size + !size : bytes < size;
	if (is_wrong && (bytes > 0 || null_has(p)))
		report_misuse("%s(%p, %zu): the block has only %zu bytes", call, p, size, bytes);
	else
		heap_free(p, call);
}

/* The slow half of malloc(). */

static void *alloc_shared(unsigned class)
{
	void *block = NULL;

	lock_acquire(&heaps.shared_lock);
	if (!heaps.shared)
		heaps.shared = heap_create(HEAP_SHARED);
	if (heaps.shared)
		block = slab_alloc(heaps.shared, heaps.shared->serving[class]);
	lock_release(&heaps.shared_lock);
	return block;
}

static void *alloc_class(unsigned class)
{
	struct heap *heap = heap_make();
	/* Where nothing is served inline, this is the way of each block. */
	void *block = heap && harden_is_on() ? heap_alloc_of_class(heap, class) : NULL;

	if (block)
		return block;
	return heap ? slab_alloc(heap, heap->serving[class]) : alloc_shared(class);
}

static void *alloc_any(size_t align, size_t bytes)
{
	size_t slab_bytes = harden_slab_bytes(bytes);
	unsigned class = CLASS_COUNT;

	if (bytes <= CLASS_MAX_BYTES && slab_bytes <= CLASS_MAX_BYTES)
		class = align > GRANULE_BYTES ? class_of_aligned(align, slab_bytes) : class_of(slab_bytes);
	return class < CLASS_COUNT ? alloc_class(class) : big_alloc(heap_self(), bytes, align);
}

static void *alloc_once(size_t align, size_t bytes)
{
	void *p = bytes == 0 && align <= GRANULE_BYTES ? null_alloc() : NULL, *block;

	if (p)
		return p;
	bytes += !bytes;
	do {
		block = p = alloc_any(align, bytes);
		if (harden_is_on() && block)
			p = harden_open(block, bytes);
	} while (block && !p);
	return p;
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
