/*
 * mark.c: see mark.h.
 *
 * Most words are no pointers into waiting buffers, and vectors tell so in a few instructions: a word,
 * without its tag, minus the lowest waiting address is smaller than the distance to the highest one. Then
 * a byte for each slice says whether it belongs to a waiting buffer. Only then the granule map is read.
 *
 * What is to be followed lies on a stack of ranges, depth first. If it ever overflows, everything reached
 * is followed once more. Of a long big block only the pages that are there are worth reading, and to ask for
 * them takes the window that the caller may be reading from: so those are queued, for the caller to look at
 * when nothing else is being read. The queue is linked through their own bits, of which they need but one.
 */
#include "mark.h"

#include <string.h>

#include "big.h"
#include "buffer.h"
#include "os.h"
#include "processor.h"

/* Any memory may be read here, whatever a sanitizer thinks of it. */
#define ANY_MEMORY __attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined")))

#define ADDRESS_MASK (((uint64_t)1 << 48) - 1)
#define GROUP_BYTES 64
#define STEP_BYTES ((size_t)4096)
#define STACK_DEPTH 8192
#define BITS_SHIFT 3
#define HOLES_MAX 1024
#define COMMIT_BYTES ((size_t)1 << 20)

/* What the table of slices says. */
#define SLICE_IN_QUESTION 1u
#define SLICE_OF_INTEREST 2u

typedef uint64_t words __attribute__((vector_size(32), may_alias, aligned(1)));
typedef uint64_t unaligned __attribute__((may_alias, aligned(1)));

struct extent {
	uintptr_t lo, hi;
};

static struct mark {
	struct marking {
		uintptr_t lo, bytes;       /* of all that is in question or of interest: pointers lie within */
		unsigned char *slices;     /* for each slice: are its blocks in question, or of interest? */
		unsigned char *bits;       /* for each granule: reached */
		unsigned char *doubts;     /* and by nothing certain */
		size_t slices_committed, bits_committed, doubts_committed, slices_reserved, bits_reserved;
		size_t align;
		size_t bytes_seen;
		bool was_hit;              /* a word was of interest */
		bool is_doubtful;          /* what is reached now, is by nothing certain */
		const struct span *queue;  /* of long big blocks that were reached */
		const struct span *slab;   /* what mark_words is looking at */
		uintptr_t moved;           /* where it lies, minus where it is read */
		mark_hook *hook;
		size_t depth;
		bool has_overflown, has_failed;
		size_t hole_count;
		struct extent holes[HOLES_MAX]; /* lowest first */
		struct extent stack[STACK_DEPTH];
	} *now;
} mark;

/* Tables. */

/* What a long big block has in place of bits. */
struct queued {
	uint64_t bits;
	const struct span *next;
};

static struct marking *made(void)
{
	if (!mark.now)
		mark.now = range_meta_alloc(sizeof(*mark.now));
	return mark.now;
}

static bool reserve(void)
{
	struct marking *now = made();
	size_t heap_bytes = range.lanes[LANE_HEAP].reserved_bytes;

	if (!now)
		return false;
	/* One more than there are: one past the end of the last one is looked up, too. */
	now->slices_reserved = ((heap_bytes >> SLICE_SHIFT) + OS_PAGE) & ~(OS_PAGE - 1);
	now->bits_reserved = heap_bytes >> (GRANULE_SHIFT + BITS_SHIFT);
	now->slices = os_reserve(now->slices_reserved + 2 * now->bits_reserved);
	now->bits = now->slices + now->slices_reserved;
	now->doubts = now->bits + now->bits_reserved;
	return now->slices != NULL;
}

/* Makes the first `bytes` of a table usable. */
static bool commit(unsigned char *table, size_t *committed, size_t reserved, size_t bytes)
{
	if (bytes <= *committed)
		return true;
	size_t goal = (bytes + COMMIT_BYTES - 1) & ~(COMMIT_BYTES - 1);
	goal = goal < reserved ? goal : reserved;
	if (!os_commit(table + *committed, goal - *committed))
		return false;
	*committed = goal;
	return true;
}

bool mark_start(void)
{
	return (mark.now && mark.now->slices) || reserve();
}

void mark_forget(void)
{
	struct marking *now = mark.now;

	if (!now || !now->slices)
		return;
	os_unmap(now->slices, now->slices_reserved + 2 * now->bits_reserved);
	now->slices = now->bits = now->doubts = NULL;
	now->slices_committed = now->bits_committed = now->doubts_committed = 0;
}

bool mark_begin(size_t align)
{
	struct marking *now = mark.now;

	if (!commit(now->slices, &now->slices_committed, now->slices_reserved,
	            (range.granules >> (SLICE_SHIFT - GRANULE_SHIFT)) + 1) ||
	    !commit(now->bits, &now->bits_committed, now->bits_reserved, range.granules >> BITS_SHIFT) ||
	    !commit(now->doubts, &now->doubts_committed, now->bits_reserved, range.granules >> BITS_SHIFT))
		return false;
	now->align = align;
	now->lo = now->bytes = now->bytes_seen = now->depth = 0;
	now->has_overflown = now->has_failed = now->is_doubtful = false;
	now->hole_count = 0;
	now->queue = NULL;
	return true;
}

static size_t slice_of(const struct span *span)
{
	return range_offset(span->start) >> SLICE_SHIFT;
}

static unsigned char *bits_of(const struct span *span)
{
	return mark.now->bits + (range_offset(span->start) >> (GRANULE_SHIFT + BITS_SHIFT));
}

static size_t bits_bytes(const struct span *span)
{
	return span_bytes(span) >> (GRANULE_SHIFT + BITS_SHIFT);
}

static void add_slices(struct marking *now, const struct span *span, unsigned char value)
{
	uintptr_t lo = (uintptr_t)span->start, hi = (uintptr_t)span_end(span);
	uintptr_t end = now->lo + now->bytes;

	/* One past the end of the last block counts. */
	now->lo = now->bytes && now->lo < lo ? now->lo : lo;
	now->bytes = (end > hi + 1 ? end : hi + 1) - now->lo;
	memset(now->slices + slice_of(span), value, span->slices);
}

void mark_add_interest(const struct span *span)
{
	add_slices(mark.now, span, SLICE_OF_INTEREST);
}

void mark_forget_interest(void)
{
	struct marking *now = mark.now;

	memset(now->slices + ((now->lo - (uintptr_t)range.base) >> SLICE_SHIFT), 0, now->bytes >> SLICE_SHIFT);
}

void mark_add(struct span *span)
{
	add_slices(mark.now, span, SLICE_IN_QUESTION);
	size_t bytes = span_kind(span) == SPAN_BIG ? sizeof(struct queued) : bits_bytes(span);
	memset(bits_of(span), 0, bytes);
	memset(bits_of(span) + (mark.now->doubts - mark.now->bits), 0, bytes);
}

bool mark_has(const struct span *span)
{
	return mark.now->slices[slice_of(span)] & SLICE_IN_QUESTION;
}

void mark_tables(uintptr_t *lo, uintptr_t *hi)
{
	*lo = (uintptr_t)mark.now->slices;
	*hi = *lo + mark.now->slices_reserved + 2 * mark.now->bits_reserved;
}

void mark_remove(struct span *span)
{
	memset(mark.now->slices + slice_of(span), 0, span->slices);
}

bool mark_is_reached(const unsigned char *head)
{
	size_t granule = (size_t)(head - range.map);

	return mark.now->bits[granule >> BITS_SHIFT] >> (granule & 7) & 1;
}

bool mark_is_doubtful(const unsigned char *head)
{
	size_t granule = (size_t)(head - range.map);

	return mark.now->doubts[granule >> BITS_SHIFT] >> (granule & 7) & 1;
}

void mark_doubt(void)
{
	mark.now->is_doubtful = true;
}

bool mark_has_reached(const struct span *span)
{
	const unsigned char *bits = bits_of(span);
	uint64_t any = 0;

	for (size_t i = 0; i < bits_bytes(span); i += sizeof(any)) {
		uint64_t word;
		memcpy(&word, bits + i, sizeof(word));
		any |= word;
	}
	return any != 0;
}

size_t mark_bytes(void)
{
	return mark.now->bytes_seen;
}

void mark_set_hook(mark_hook *hook)
{
	mark.now->hook = hook;
}

/* Memory of ours that the program has protected. */

void mark_add_hole(uintptr_t lo, uintptr_t hi)
{
	struct marking *now = mark.now;

	if (now->hole_count < HOLES_MAX)
		now->holes[now->hole_count++] = (struct extent){lo, hi};
	else
		now->has_failed = true;
}

static bool has_hole(const struct marking *now, uintptr_t lo, uintptr_t hi)
{
	size_t from = 0, to = now->hole_count;

	while (from < to) {
		size_t middle = (from + to) / 2;

		if (now->holes[middle].hi > lo)
			to = middle;
		else
			from = middle + 1;
	}
	return from < now->hole_count && now->holes[from].lo < hi;
}

bool mark_has_hole(const struct span *span)
{
	return has_hole(mark.now, (uintptr_t)span->start, (uintptr_t)big_end(span));
}

bool mark_needs_care(const struct span *span)
{
	return span_bytes(span) > MARK_DENSE_BYTES || mark_has_hole(span);
}

bool mark_has_failed(void)
{
	return mark.now->has_failed;
}

/* Reaching. */

static void push(struct marking *now, uintptr_t lo, uintptr_t hi)
{
	if (now->depth == STACK_DEPTH) {
		now->has_overflown = true;
		return;
	}
	now->stack[now->depth++] = (struct extent){lo, hi};
}

/* The head of the live block that p points into, or NULL. The first block may be all there is, and long. */
static const unsigned char *head_at(const struct span *span, const char *p)
{
	if (span_kind(span) == SPAN_BIG)
		return range_map_of(span->start);
	if (p < buffer_begin(span))
		return NULL;
	const unsigned char *first = buffer_map(span), *byte = range_map_of(p);
	if (granule_is_live(granule_load(first)) && (size_t)(byte - first) < granule_size(first))
		return first;
	return buffer_find(span, p);
}

static void enqueue(struct marking *now, const struct span *span)
{
	((struct queued *)(void *)bits_of(span))->next = now->queue;
	now->queue = span;
}

const struct span *mark_next_queued(void)
{
	const struct span *span = mark.now->queue;

	if (span)
		mark.now->queue = ((struct queued *)(void *)bits_of(span))->next;
	return span;
}

static void push_block(struct marking *now, const unsigned char *head, bool is_again)
{
	char *p = range_of_map(head);
	const struct span *span = span_of(p);

	if (span_kind(span) != SPAN_BIG)
		push(now, (uintptr_t)p, (uintptr_t)p + (granule_size(head) << GRANULE_SHIFT));
	else if (!mark_needs_care(span))
		push(now, (uintptr_t)p, (uintptr_t)big_end(span));
	else if (!is_again)
		enqueue(now, span);
}

/* Does a live block begin there? */
static bool is_head(const struct marking *now, uintptr_t p)
{
	bool is_in_question = now->slices[(p - (uintptr_t)range.base) >> SLICE_SHIFT] & SLICE_IN_QUESTION;

	return is_in_question && granule_is_live(granule_load(range_map_of((const void *)p)));
}

static void reach(struct marking *now, uintptr_t p, uintptr_t at)
{
	size_t offset = p - (uintptr_t)range.base;

	if (p - now->lo >= now->bytes - 1 || !(now->slices[offset >> SLICE_SHIFT] & SLICE_IN_QUESTION))
		return;
	const unsigned char *head = head_at(span_of((void *)p), (const char *)p);
	if (!head || (granule_load(head) & GRANULE_FADED))
		return;
	size_t granule = (size_t)(head - range.map);
	unsigned char bit = (unsigned char)(1u << (granule & 7));
	if (now->bits[granule >> BITS_SHIFT] & bit)
		return;
	now->bits[granule >> BITS_SHIFT] |= bit;
	if (now->is_doubtful)
		now->doubts[granule >> BITS_SHIFT] |= bit;
	push_block(now, head, false);
	if (now->hook)
		now->hook(head, at);
}

/* Is this place in a free block of a slab? */
static ANY_MEMORY bool is_free(const struct span *slab, uintptr_t at)
{
	uintptr_t start = (uintptr_t)slab->start;
	uintptr_t block = at - (at - start) % slab->block_bytes;

	return *(const unaligned *)block == heap_freed_mark((const void *)block);
}

static void reach_from(struct marking *now, uint64_t word, uintptr_t at)
{
	uintptr_t p = word & ADDRESS_MASK;
	size_t offset = p - (uintptr_t)range.base;
	bool may_be_end = p % GRANULE_BYTES == 0 && p > now->lo;

	if (!now->slices[offset >> SLICE_SHIFT] && !(may_be_end && now->slices[(offset - 1) >> SLICE_SHIFT]))
		return;
	if (now->slab && is_free(now->slab, at))
		return;
	now->was_hit = true;
	reach(now, p, at + now->moved);
	/* Who is told what points to a block isn't told of its neighbour's pointers. */
	if (may_be_end && !(now->hook && is_head(now, p)))
		reach(now, p - 1, at + now->moved);
}

/* Looks at words from lo to hi, which is a multiple of them. */
static inline ANY_MEMORY __attribute__((always_inline)) void
scan_words(struct marking *now, uintptr_t lo, uintptr_t hi)
{
	for (; lo < hi; lo += sizeof(uint64_t)) {
		uint64_t word = *(const unaligned *)lo;
		if ((word & ADDRESS_MASK) - now->lo < now->bytes)
			reach_from(now, word, lo);
	}
}

static inline ANY_MEMORY __attribute__((always_inline)) void
scan(struct marking *now, uintptr_t lo, uintptr_t hi)
{
	const words mask = {ADDRESS_MASK, ADDRESS_MASK, ADDRESS_MASK, ADDRESS_MASK};
	const words least = {now->lo, now->lo, now->lo, now->lo};
	const words bytes = {now->bytes, now->bytes, now->bytes, now->bytes};

	for (; hi - lo >= GROUP_BYTES; lo += GROUP_BYTES) {
		const words *at = (const words *)lo;
		words hits = (words)((at[0] & mask) - least < bytes) | (words)((at[1] & mask) - least < bytes);
		if (__builtin_expect((hits[0] | hits[1] | hits[2] | hits[3]) != 0, 0))
			scan_words(now, lo, lo + GROUP_BYTES);
	}
	scan_words(now, lo, hi);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static ANY_MEMORY void
scan_avx2(struct marking *now, uintptr_t lo, uintptr_t hi)
{
	scan(now, lo, hi);
}
#endif

static ANY_MEMORY void scan_any(struct marking *now, uintptr_t lo, uintptr_t hi)
{
	scan(now, lo, hi);
}

/* Words at each place that a pointer may have. */
static void scan_step(struct marking *now, uintptr_t lo, uintptr_t hi, uintptr_t readable_hi)
{
	for (size_t shift = 0; shift < sizeof(uint64_t); shift += now->align) {
		uintptr_t from = lo + shift, to = hi + shift <= readable_hi ? hi + shift : hi + shift - 8;

		if (from >= to)
			continue;
#if defined(__x86_64__)
		if (processor_has_avx2()) {
			scan_avx2(now, from, to);
			continue;
		}
#endif
		scan_any(now, from, to);
	}
}

/* Follows until the stack is as deep as it was. */
static void follow(struct marking *now)
{
	while (now->depth > 0) {
		struct extent top = now->stack[--now->depth];
		uintptr_t hi = top.hi - top.lo > STEP_BYTES ? top.lo + STEP_BYTES : top.hi;
		if (has_hole(now, top.lo, top.hi)) {
			now->has_failed = true;
			continue;
		}
		if (hi < top.hi)
			push(now, hi, top.hi);
		now->bytes_seen += hi - top.lo;
		scan_step(now, top.lo, hi, top.hi);
	}
}

bool mark_words(uintptr_t lo, uintptr_t hi, const struct span *slab, uintptr_t at)
{
	struct marking *now = mark.now;
	bool was_hit = false;

	lo = (lo + 7) & ~(uintptr_t)7;
	hi &= ~(uintptr_t)7;
	/* Who reads around holes gives pages between them. */
	if (has_hole(now, lo, hi)) {
		now->has_failed = true;
		return false;
	}
	for (uintptr_t step; lo < hi; lo = step) {
		step = hi - lo > STEP_BYTES ? lo + STEP_BYTES : hi;
		now->slab = slab;
		now->moved = at - lo;
		at += step - lo;
		now->bytes_seen += step - lo;
		now->was_hit = false;
		scan_step(now, lo, step, hi);
		was_hit |= now->was_hit;
		now->slab = NULL;
		now->moved = 0;
		follow(now);
	}
	return was_hit;
}

bool mark_overflown(void)
{
	bool has_overflown = mark.now->has_overflown;

	mark.now->has_overflown = false;
	return has_overflown;
}

void mark_again(const unsigned char *head)
{
	if (!mark_is_reached(head))
		return;
	push_block(mark.now, head, true);
	follow(mark.now);
}
