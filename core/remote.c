/*
 * remote.c: see remote.h.
 *
 * What arrives lies in the inbox until the owner needs memory; where the owner has ended, whoever posts takes
 * it back on the owner's behalf. The owner of a slab may have changed while a message was under way
 * (heap_adopt): who drains an inbox sends such a message on.
 */
#include "remote.h"

#include "report.h"
#include "slab.h"

/* What a thread collects before it sends all of it. */
#define COLLECT_MAX_BYTES ((size_t)64 << 10)

#define FIRST_SHIFT 14
#define LINK_SHIFT 28
#define FIELD_MASK (((uintptr_t)1 << FIRST_SHIFT) - 1)
#define NO_LINK (UINTPTR_MAX >> LINK_SHIFT)

static_assert(RANGE_MAX_BYTES >> GRANULE_SHIFT <= NO_LINK + 1, "a link holds the number of any granule");
static_assert(SLAB_MAX_BYTES >> GRANULE_SHIFT <= FIELD_MASK + 1, "a field holds the number of any block");

/* Messages, by their last blocks. */

static uintptr_t link_to(const struct free_block *last)
{
	return last ? range_offset(last) >> GRANULE_SHIFT : NO_LINK;
}

static void set_link(struct free_block *last, const struct free_block *next)
{
	uintptr_t word = (uintptr_t)last->next & (((uintptr_t)1 << LINK_SHIFT) - 1);

	last->next = (struct free_block *)(word | link_to(next) << LINK_SHIFT);
}

static struct free_block *follow_link(uintptr_t word)
{
	uintptr_t granule = word >> LINK_SHIFT;

	return granule == NO_LINK ? NULL : (struct free_block *)(range.base + (granule << GRANULE_SHIFT));
}

/* Makes a message of a bundle. */
static struct free_block *seal(const struct span *slab, const struct free_block *first,
                               struct free_block *last, uint32_t count)
{
	uintptr_t from_start = (uintptr_t)((const char *)first - slab->start) >> GRANULE_SHIFT;

	last->next = (struct free_block *)(NO_LINK << LINK_SHIFT | from_start << FIRST_SHIFT | count);
	return last;
}

/* Sending. */

static void put_into_inbox(struct heap *to, struct free_block *head, struct free_block *tail)
{
	struct free_block *first = __atomic_load_n(&to->inbox, __ATOMIC_RELAXED);

	do {
		set_link(tail, first);
	} while (!__atomic_compare_exchange_n(&to->inbox, &first, head, true, __ATOMIC_RELEASE,
	                                      __ATOMIC_RELAXED));
}

static void post(struct heap *to, struct free_block *head, struct free_block *tail)
{
	put_into_inbox(to, head, tail);
	/* Either we see that its thread has ended, or the thread, ending, sees what we have left. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&to->state, __ATOMIC_RELAXED) == HEAP_IDLE)
		heap_drain_idle(to);
}

static void outbox_send(struct outbox *outbox)
{
	if (outbox->head)
		post(outbox->to, outbox->head, outbox->tail);
	outbox->head = NULL;
}

/* Makes room for another bundle. */
static void bundle_send(struct heap *heap, struct bundle *bundle)
{
	struct free_block *message = seal(bundle->slab, bundle->first, bundle->last, bundle->count);
	struct heap *to = __atomic_load_n(&bundle->slab->owner, __ATOMIC_RELAXED);
	struct outbox *outbox = &heap->outboxes[(uintptr_t)to / sizeof(struct heap) % HEAP_OUTBOXES];

	bundle->slab = NULL;
	if (outbox->to != to) {
		outbox_send(outbox);
		outbox->to = to;
	}
	if (outbox->head)
		set_link(message, outbox->head);
	else
		outbox->tail = message;
	outbox->head = message;
}

void remote_flush(struct heap *heap)
{
	if (heap->collected_bytes == 0)
		return;
	for (unsigned i = 0; i < HEAP_BUNDLES; i++)
		if (heap->bundles[i].slab)
			bundle_send(heap, &heap->bundles[i]);
	for (unsigned i = 0; i < HEAP_OUTBOXES; i++)
		outbox_send(&heap->outboxes[i]);
	heap->collected_bytes = 0;
}

void remote_free(struct heap *heap, struct span *slab, struct free_block *block)
{
	struct bundle *bundle = &heap->bundles[(uintptr_t)slab / sizeof(*slab) % HEAP_BUNDLES];

	if (bundle->slab != slab) {
		if (bundle->slab)
			bundle_send(heap, bundle);
		*bundle = (struct bundle){.slab = slab, .last = block};
	}
	block->next = bundle->first;
	bundle->first = block;
	bundle->count++;
	heap->collected_bytes += slab->block_bytes;
	if (heap->collected_bytes >= COLLECT_MAX_BYTES)
		remote_flush(heap);
}

void remote_free_bare(struct span *slab, struct free_block *block)
{
	struct free_block *message = seal(slab, block, block, 1);

	post(__atomic_load_n(&slab->owner, __ATOMIC_RELAXED), message, message);
}

/* Receiving. */

/* Is there a message, as it was sent? A program may have written to its blocks. */
static bool is_sound(const struct free_block *last)
{
	return range_has(last) && span_kind(span_of(last)) == SPAN_SLAB && last->mark == heap_freed_mark(last);
}

/* Gives a message's blocks to their slab, or sends it on. */
static void deliver(struct heap *heap, struct free_block *last, uintptr_t word, bool is_locked)
{
	struct span *slab = span_of(last);
	struct heap *owner = __atomic_load_n(&slab->owner, __ATOMIC_RELAXED);
	char *first = slab->start + ((word >> FIRST_SHIFT & FIELD_MASK) << GRANULE_SHIFT);

	if (owner == heap || (is_locked && owner->state == HEAP_IDLE)) {
		if (is_locked)
			heap_note_idle_class(slab->class);
		slab_free(owner, slab, (struct free_block *)first, last, (uint32_t)(word & FIELD_MASK));
	} else if (is_locked) {
		put_into_inbox(owner, last, last);
	} else {
		post(owner, last, last);
	}
}

void remote_drain(struct heap *heap, bool is_locked)
{
	if (!__atomic_load_n(&heap->inbox, __ATOMIC_RELAXED))
		return;
	struct free_block *last = __atomic_exchange_n(&heap->inbox, NULL, __ATOMIC_ACQUIRE);
	while (last) {
		if (!is_sound(last)) {
			/* What comes behind is lost. With a lock held nothing is said: abort() may run anything. */
			if (!is_locked)
				report_misuse("malloc: a block at %p has been overwritten since it was freed",
				              (void *)last);
			return;
		}
		uintptr_t word = (uintptr_t)last->next;
		deliver(heap, last, word, is_locked);
		last = follow_link(word);
	}
}
