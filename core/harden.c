/*
 * harden.c: see harden.h.
 */
#include "harden.h"

#include <string.h>

#include "big.h"
#include "report.h"
#include "sleep.h"

struct harden harden;

/* What Linux allows if nobody has said otherwise. */
#define MAPPINGS_MAX 65530u
/* Each guard makes two of one, and all guards together leave half of them to the program. */
#define GUARD_SHARE 4u

/* Of classes of which a page has few blocks, so many are put on the free list at once, to be shuffled. */
#define EXTENSION_MIN 8u

/* The freed blocks of a thread, first in, first out. */
struct quarantine {
	uint32_t first, count;
	size_t bytes;
	void *blocks[QUARANTINE_COUNT];
};

static uint32_t mappings_max(void)
{
	char text[32];
	uint32_t n = 0;

	text[os_read_file("/proc/sys/vm/max_map_count", text, sizeof(text) - 1)] = '\0';
	for (const char *at = text; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (uint32_t)(*at - '0');
	return n > 0 ? n : MAPPINGS_MAX;
}

__attribute__((cold)) void harden_start(unsigned level)
{
	harden.level = level;
	if (level > 0)
		harden.secret = os_random();
	if (level > 1)
		harden.guard_max = mappings_max() / GUARD_SHARE;
}

/* Fences. */

/* What only this process can know of an address. Its lowest byte isn't 0: that is what strings end in. */
static uint64_t code_of(const void *p)
{
	uint64_t code = ((uintptr_t)p ^ harden.secret) * 0x9e3779b97f4a7c15u;

	code = (code ^ code >> 32) * 0xbf58476d1ce4e5b9u;
	return (code ^ code >> 29) | 1;
}

static uint64_t *last_word(const struct span *slab, const void *p)
{
	return (uint64_t *)((char *)p + slab->block_bytes) - 1;
}

/* The last word of a block in use has the number of bytes behind its size in bits 8 to 23. */
#define BEHIND_SHIFT 8
#define BEHIND_MASK ((uint64_t)0xffff << BEHIND_SHIFT)

static_assert(CLASS_MAX_BYTES <= BEHIND_MASK >> BEHIND_SHIFT, "that number fits");

static uint64_t word_in_use(const void *p, size_t behind)
{
	return code_of(p) ^ (uint64_t)behind << BEHIND_SHIFT;
}

static uint64_t word_held(const void *p)
{
	return ~code_of(p);
}

/* Any thread may read it, and does to see what became of a block beside its own. */
static uint64_t load_last(const struct span *slab, const void *p)
{
	return __atomic_load_n(last_word(slab, p), __ATOMIC_ACQUIRE);
}

static void store_last(const struct span *slab, void *p, uint64_t word)
{
	__atomic_store_n(last_word(slab, p), word, __ATOMIC_RELEASE);
}

bool harden_is_held(const struct span *slab, const void *p)
{
	return load_last(slab, p) == word_held(p);
}

/* The bytes behind a block's size, of a block in use; 0: the word doesn't say that it is. */
static size_t behind_of(const struct span *slab, const void *p, uint64_t word)
{
	uint64_t difference = word ^ code_of(p);
	size_t behind = difference >> BEHIND_SHIFT;
	bool is_said = (difference & ~BEHIND_MASK) == 0 && behind >= FENCE_WORD_BYTES;

	return is_said && behind < slab->block_bytes ? behind : 0;
}

static unsigned char fill_of(const void *p)
{
	return (unsigned char)code_of(p);
}

/* The bytes right behind a block's size that are its fence's, if there are so many. */
static size_t fill_bytes(size_t room)
{
	return room < FENCE_FILL_BYTES ? room : FENCE_FILL_BYTES;
}

static bool is_filled(const char *from, size_t bytes, unsigned char with)
{
	uint64_t pattern = with * 0x0101010101010101u, word;

	for (; bytes >= sizeof(word); from += sizeof(word), bytes -= sizeof(word)) {
		memcpy(&word, from, sizeof(word));
		if (word != pattern)
			return false;
	}
	while (bytes > 0)
		if ((unsigned char)from[--bytes] != with)
			return false;
	return true;
}

static void fence(const struct span *slab, char *p, size_t bytes)
{
	size_t behind = slab->block_bytes - bytes;

	memset(p + bytes, fill_of(p), fill_bytes(behind - FENCE_WORD_BYTES));
	store_last(slab, p, word_in_use(p, behind));
}

static size_t slab_bytes(const struct span *slab, const char *p)
{
	size_t behind = behind_of(slab, p, load_last(slab, p));
	size_t bytes = slab->block_bytes - behind;

	if (behind == 0)
		return 0;
	return is_filled(p + bytes, fill_bytes(behind - FENCE_WORD_BYTES), fill_of(p)) ? bytes : 0;
}

static size_t big_fill_bytes(const struct span *span)
{
	return fill_bytes(big_page_round(span->bytes) - span->bytes);
}

void harden_fence_big(struct span *span)
{
	memset(span->start + span->bytes, fill_of(span->start), big_fill_bytes(span));
}

static size_t big_bytes(const struct span *span)
{
	bool is_whole = is_filled(span->start + span->bytes, big_fill_bytes(span), fill_of(span->start));

	return is_whole ? span->bytes : 0;
}

size_t harden_bytes(const struct span *span, const void *p)
{
	return span_kind(span) == SPAN_BIG ? big_bytes(span) : slab_bytes(span, p);
}

void harden_report(const struct span *span, const void *p, const char *call)
{
	size_t most = span_kind(span) == SPAN_BIG ? span->bytes : span->block_bytes - FENCE_WORD_BYTES;

	report_misuse("%s(%p): there was a write behind the end of this block, of at most %zu bytes", call, p,
	              most);
}

/* Zero. */

static bool is_zero(const char *from, size_t bytes)
{
	uint64_t all = 0;

	for (size_t i = 0; i < bytes; i += sizeof(all)) {
		uint64_t word;
		memcpy(&word, from + i, sizeof(word));
		all |= word;
	}
	return all == 0;
}

uint32_t harden_extension(const struct span *slab, uint32_t count)
{
	uint32_t left = slab->capacity - slab->extended;
	uint32_t least = left < EXTENSION_MIN ? left : EXTENSION_MIN;

	return count < least ? least : count;
}

void harden_clear(const struct span *slab, char *from, size_t bytes)
{
	if (!slab->is_zero)
		memset(from, 0, bytes);
}

void harden_shuffle(unsigned char *order, uint32_t count, const void *p)
{
	uint64_t state = code_of(p);

	assert(count <= HARDEN_ORDER_MAX);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t j = (uint32_t)((state >> 33) % (i + 1));

		order[i] = order[j];
		order[j] = (unsigned char)i;
		state = state * 6364136223846793005u + 1442695040888963407u;
	}
}

/* Guards. */

static char *guard_of(const struct span *span)
{
	return span->start + big_page_round(span->bytes);
}

static size_t guard_bytes(const struct span *span)
{
	return (size_t)(span_end(span) - guard_of(span));
}

static bool may_guard(void)
{
	if (__atomic_add_fetch(&harden.guards, 1, __ATOMIC_RELAXED) <= harden.guard_max)
		return true;
	__atomic_sub_fetch(&harden.guards, 1, __ATOMIC_RELAXED);
	if (!__atomic_exchange_n(&harden.has_said_so, true, __ATOMIC_RELAXED))
		report("LIBREGION_HARDEN: %u big blocks have a guard page; with more, too few of the mappings that "
		       "vm.max_map_count allows would be left: others go without",
		       harden.guard_max);
	return false;
}

static void set_guarded(struct span *span, bool is_guarded)
{
	/* A search may stop this thread between two of these stores. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&span->is_guarded, is_guarded, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void forget_guard(void)
{
	__atomic_sub_fetch(&harden.guards, 1, __ATOMIC_RELAXED);
}

static void guard(struct span *span)
{
	if (guard_bytes(span) == 0 || !may_guard())
		return;
	set_guarded(span, true);
	if (os_forbid(guard_of(span), guard_bytes(span)))
		return;
	set_guarded(span, false);
	forget_guard();
}

bool harden_lower(struct span *span)
{
	if (!span->is_guarded)
		return true;
	if (!os_commit(guard_of(span), guard_bytes(span)))
		return false;
	set_guarded(span, false);
	forget_guard();
	return true;
}

void harden_raise(struct span *span, size_t bytes)
{
	span->bytes = bytes;
	harden_fence_big(span);
	if (harden_is_strict())
		guard(span);
}

/* Handing out. */

static void *open_in_slab(struct span *slab, char *p, size_t bytes)
{
	struct free_block *block = (struct free_block *)p;

	if (harden_is_strict()) {
		if (!is_zero(p + sizeof(*block), slab->block_bytes - sizeof(*block))) {
			report_misuse("malloc: a free block of %u bytes at %p has been overwritten",
			              slab->block_bytes, (void *)p);
			return NULL;
		}
		block->next = NULL;
	}
	fence(slab, p, bytes);
	return p;
}

static void *open_big(struct span *span, size_t bytes)
{
	if (harden_is_strict() && !span->is_zero)
		span->is_zero = os_purge(span->start, span_bytes(span));
	harden_raise(span, bytes);
	return span->start;
}

void *harden_open(void *p, size_t bytes)
{
	struct span *span = span_of(p);

	return span_kind(span) == SPAN_BIG ? open_big(span, bytes) : open_in_slab(span, p, bytes);
}

bool harden_refit(const struct span *span, void *p, size_t old_bytes, size_t size)
{
	if (span_kind(span) == SPAN_BIG)
		return false;
	/* A faded block of a buffer. */
	if (span_kind(span) != SPAN_SLAB)
		return size <= old_bytes && size >= old_bytes / 2;
	if (size > span->block_bytes - FENCE_WORD_BYTES || size < span->block_bytes / 4)
		return false;
	fence(span, p, size);
	return true;
}

/* Quarantine. */

/* The block of a slab has been in quarantine. */
static void let_out_block(struct span *slab, char *p)
{
	if (!is_zero(p, slab->block_bytes - FENCE_WORD_BYTES) || !harden_is_held(slab, p)) {
		report_misuse("free: a block of %u bytes at %p, freed before, has been written to since",
		              slab->block_bytes, (void *)p);
		return;
	}
	((struct free_block *)p)->mark = heap_freed_mark(p);
	store_last(slab, p, 0);
	heap_give_back(slab, p);
}

/* So has a big one, or it couldn't go there. */
static void let_out_big(struct span *span)
{
	bool is_clean = span->is_zero, was_guarded = span->is_guarded;

	/* If the kernel doesn't give access any more, the memory can't be used again. */
	if (span->was_moved)
		is_clean = os_renew(span->start, span_bytes(span));
	else if (was_guarded && !os_commit(span->start, span_bytes(span)))
		return;
	if (was_guarded)
		forget_guard();
	span_free(span, is_clean);
}

static void let_out(void *p)
{
	struct span *span = span_of(p);

	if (span_kind(span) == SPAN_SLAB)
		let_out_block(span, p);
	else
		let_out_big(span);
}

/* What a block in quarantine has of memory. */
static size_t held_bytes(const void *p)
{
	const struct span *span = span_of(p);

	return span_kind(span) == SPAN_SLAB ? span->block_bytes : 0;
}

static void let_out_oldest(struct quarantine *held)
{
	void *p = held->blocks[held->first];

	held->first = (held->first + 1) % QUARANTINE_COUNT;
	held->count--;
	held->bytes -= held_bytes(p);
	let_out(p);
}

static struct quarantine *quarantine_of(struct heap *heap)
{
	if (heap->state != HEAP_LIVE)
		return NULL;
	if (!heap->quarantine)
		heap->quarantine = range_meta_alloc(sizeof(*heap->quarantine));
	return heap->quarantine;
}

static void hold(struct heap *heap, void *p)
{
	struct quarantine *held = quarantine_of(heap);

	if (!held) {
		let_out(p);
		return;
	}
	while (held->count == QUARANTINE_COUNT || (held->count > 0 && held->bytes > QUARANTINE_BYTES))
		let_out_oldest(held);
	held->blocks[(held->first + held->count) % QUARANTINE_COUNT] = p;
	held->count++;
	held->bytes += held_bytes(p);
}

__attribute__((cold)) void harden_flush(struct heap *heap)
{
	while (heap->quarantine && heap->quarantine->count > 0)
		let_out_oldest(heap->quarantine);
}

/* Neighbours. */

/* Is the block as it should be, as far as can be told beside it, by the thread that owns the slab? */
static bool is_whole(const struct span *slab, const char *p)
{
	const struct free_block *block = (const struct free_block *)p;
	uint64_t word = load_last(slab, p);

	if (word == word_held(p) || behind_of(slab, p, word) > 0)
		return true;
	if (word != 0)
		return false;
	size_t looked_at = fill_bytes(slab->block_bytes - FENCE_BLOCK_MIN);
	return (block->mark == heap_freed_mark(p) || sleep_has(slab, p)) &&
	       is_zero(p + slab->block_bytes - FENCE_WORD_BYTES - looked_at, looked_at);
}

/*
 * What is written before a block, or far behind its end, is written to its neighbours. Only the thread that
 * hands out the slab's blocks can look: nobody makes a free one another one meanwhile.
 */
static void look_at_neighbours(const struct heap *heap, const struct span *slab, const char *p,
                               const char *call)
{
	const char *end = slab->start + (size_t)slab->extended * slab->block_bytes;
	const char *before = p - slab->block_bytes, *after = p + slab->block_bytes;

	if (__atomic_load_n(&slab->owner, __ATOMIC_RELAXED) != heap)
		return;
	if (p > slab->start && !is_whole(slab, before))
		report_misuse("%s(%p): the block before it, at %p, has been overwritten", call, (const void *)p,
		              (const void *)before);
	if (after < end && !is_whole(slab, after))
		report_misuse("%s(%p): the block behind it, at %p, has been overwritten", call, (const void *)p,
		              (const void *)after);
}

/* Freeing. */

void harden_free(struct heap *heap, struct span *slab, void *p, const char *call)
{
	if (slab_bytes(slab, p) == 0) {
		harden_report(slab, p, call);
		return;
	}
	if (!harden_is_strict()) {
		heap_give_back(slab, p);
		return;
	}
	look_at_neighbours(heap, slab, p, call);
	memset(p, 0, slab->block_bytes - FENCE_WORD_BYTES);
	store_last(slab, p, word_held(p));
	hold(heap, p);
}

bool harden_free_big(struct heap *heap, struct span *span, const char *call)
{
	if (big_bytes(span) == 0) {
		harden_report(span, span->start, call);
		return true;
	}
	if (!harden_is_strict())
		return false;
	__atomic_store_n(&span->serial, 0, __ATOMIC_RELAXED);
	span_set_kind(span, SPAN_SPARE);
	span->is_zero = os_purge(span->start, span_bytes(span));
	if (span->is_guarded)
		os_forbid(span->start, (size_t)(guard_of(span) - span->start));
	hold(heap, span->start);
	return true;
}
