/*
 * granule.c: the long form of sizes, and scans over the map in vectors of 32 bytes.
 *
 * Vectors are gcc's and clang's portable ones, which become SSE2, AVX2 or NEON. Scans load the map
 * while other threads may set bits in it: a load sees a byte from before or after, and either answer is
 * right at some moment during the scan.
 */
#include "granule.h"

#include <string.h>

#include "processor.h"

#define VECTOR_BYTES 32

typedef signed char vector __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned char lanes __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t words __attribute__((vector_size(VECTOR_BYTES)));

/*
 * What the thread sanitizer can't know is that a byte of a vector is loaded as a byte is: under it, loads
 * and stores are of single bytes, and a free that was seen happens before what follows.
 */
#if defined(__SANITIZE_THREAD__)
static void copy_bytes(void *to, const unsigned char *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)to)[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
}

void granule_zero(unsigned char *from, const unsigned char *end)
{
	for (; from < end; from++)
		__atomic_store_n(from, 0, __ATOMIC_RELAXED);
}
#else
#define copy_bytes memcpy

void granule_zero(unsigned char *from, const unsigned char *end)
{
	if (from < end)
		memset(from, 0, (size_t)(end - from));
}
#endif

static inline __attribute__((always_inline)) vector load(const unsigned char *at)
{
	vector v;

	copy_bytes(&v, at, sizeof(v));
	return v;
}

/* The last, incomplete vector of a range, the rest of it zero. */
static inline __attribute__((always_inline)) vector load_tail(const unsigned char *at, size_t bytes)
{
	vector v = {0};

	copy_bytes(&v, at, bytes);
	return v;
}

static inline __attribute__((always_inline)) bool any(vector mask)
{
	words w = (words)mask;

	return (w[0] | w[1] | w[2] | w[3]) != 0;
}

void granule_clear(unsigned char *head)
{
	if ((granule_load(head) & GRANULE_SIZE_MASK) == GRANULE_LONG)
		memset(head + 1, 0, GRANULE_LONG_BYTES);
	__atomic_store_n(head, 0, __ATOMIC_RELAXED);
}

/*
 * The thread may be stopped anywhere in here, and what the block holds be searched for pointers: so at no
 * time it has no head, nor a size between the two.
 */
void granule_resize(unsigned char *head, size_t granules)
{
	unsigned byte = granule_load(head);
	bool was_long = (byte & GRANULE_SIZE_MASK) == GRANULE_LONG, is_long = granules > GRANULE_SHORT_MAX;
	uint32_t sizes = is_long ? granule_size_word(granules) : 0;

	if (is_long)
		memcpy(head + 1, &sizes, sizeof(sizes));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(head, (unsigned char)((byte & GRANULE_FADED) | (is_long ? GRANULE_LONG : granules)),
	                 __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (was_long && !is_long)
		memset(head + 1, 0, GRANULE_LONG_BYTES);
}

unsigned granule_mark(unsigned char *head, unsigned bits)
{
	return __atomic_fetch_or(head, (unsigned char)bits, __ATOMIC_ACQ_REL);
}

/* Is the byte at `at` a size byte of a long block, and of which? */
static const unsigned char *long_head_before(const unsigned char *at, const unsigned char *first)
{
	for (unsigned i = 1; i <= GRANULE_LONG_BYTES && at - first >= (ptrdiff_t)i; i++)
		if ((granule_load(at - i) & GRANULE_SIZE_MASK) == GRANULE_LONG)
			return at - i;
	return NULL;
}

const unsigned char *granule_find_head(const unsigned char *byte, const unsigned char *first)
{
	const unsigned char *at = byte;

	/* Eight at once: there may be a long hole before it. */
	for (uint64_t eight; at - first >= (ptrdiff_t)sizeof(eight); at -= sizeof(eight)) {
		copy_bytes(&eight, at + 1 - sizeof(eight), sizeof(eight));
		if (eight)
			break;
	}
	while (at >= first && granule_load(at) == 0)
		at--;
	if (at < first)
		return NULL;
	const unsigned char *head = long_head_before(at, first);
	if (!head)
		head = at;
	return (size_t)(byte - head) < granule_size(head) ? head : NULL;
}

/* The first lane of a mask that is true, of which there is one. */
static inline __attribute__((always_inline)) size_t first_lane(vector mask)
{
	words w = (words)mask;
	size_t i = 0;

	while (w[i] == 0)
		i++;
	return i * sizeof(w[0]) + (size_t)__builtin_ctzl(w[i]) / 8;
}

/* Vectors that are looked at together, where there may be nothing for long. */
#define FIND_VECTORS 4u

static inline __attribute__((always_inline)) unsigned char *
find_live(const unsigned char *from, const unsigned char *end)
{
	for (; end - from >= (ptrdiff_t)(FIND_VECTORS * VECTOR_BYTES); from += FIND_VECTORS * VECTOR_BYTES) {
		vector live = {0};
		for (unsigned i = 0; i < FIND_VECTORS; i++)
			live |= load(from + i * VECTOR_BYTES) > 0;
		if (any(live))
			break;
	}
	for (; end - from >= VECTOR_BYTES; from += VECTOR_BYTES) {
		vector live = load(from) > 0;
		if (any(live))
			return (unsigned char *)from + first_lane(live);
	}
	while (from < end && !granule_is_live(granule_load(from)))
		from++;
	return (unsigned char *)from;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static unsigned char *find_live_avx2(const unsigned char *from,
                                                                     const unsigned char *end)
{
	return find_live(from, end);
}
#endif

static unsigned char *find_live_any(const unsigned char *from, const unsigned char *end)
{
	return find_live(from, end);
}

unsigned char *granule_next_live(const unsigned char *from, const unsigned char *end)
{
	/* Where blocks are packed, the next one begins here. */
	if (from < end && granule_is_live(granule_load(from)))
		return (unsigned char *)from;
#if defined(__x86_64__)
	if (processor_has_avx2())
		return find_live_avx2(from, end);
#endif
	return find_live_any(from, end);
}

/* The last one. */
static inline __attribute__((always_inline)) size_t last_lane(vector mask)
{
	words w = (words)mask;
	size_t i = VECTOR_BYTES / sizeof(w[0]) - 1;

	while (w[i] == 0)
		i--;
	return i * sizeof(w[0]) + 7 - (size_t)__builtin_clzl(w[i]) / 8;
}

static_assert(GRANULE_ROOM_LEAST >= VECTOR_BYTES, "it doesn't fit between two blocks of a vector");

/* Looks through gaps: `at` is where the present one begins, below `next` it is looked through. */
struct gaps {
	const unsigned char *at, *next, *end;
};

/*
 * Which blocks that live begin in the next vector, and how long the gap is before the first of them; if none
 * does, so far. From there on, gaps begin behind the last of them: those between are shorter than a vector.
 */
static inline __attribute__((always_inline)) vector next_gap(struct gaps *gaps, size_t *granules)
{
	const unsigned char *from = gaps->next;
	size_t left = (size_t)(gaps->end - from);
	vector live = (left < VECTOR_BYTES ? load_tail(from, left) : load(from)) > 0;

	gaps->next = left < VECTOR_BYTES ? gaps->end : from + VECTOR_BYTES;
	if (!any(live)) {
		*granules = (size_t)(gaps->next - gaps->at);
		return live;
	}
	const unsigned char *last = from + last_lane(live);
	*granules = (size_t)(from - gaps->at) + first_lane(live);
	gaps->at = last + granule_size(last);
	if (gaps->next < gaps->at)
		gaps->next = gaps->at;
	return live;
}

static inline __attribute__((always_inline)) unsigned char *
find_room(const unsigned char *from, const unsigned char *end, size_t wanted)
{
	struct gaps gaps = {.at = from, .next = from, .end = end};

	while (gaps.next < end) {
		size_t granules;
		from = gaps.at;
		next_gap(&gaps, &granules);
		if (granules >= wanted)
			return (unsigned char *)from;
	}
	return (unsigned char *)gaps.at;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static unsigned char *
find_room_avx2(const unsigned char *from, const unsigned char *end, size_t wanted)
{
	return find_room(from, end, wanted);
}
#endif

unsigned char *granule_next_room(const unsigned char *from, const unsigned char *end, size_t wanted)
{
	assert(wanted >= GRANULE_ROOM_LEAST);
#if defined(__x86_64__)
	if (processor_has_avx2())
		return find_room_avx2(from, end, wanted);
#endif
	return find_room(from, end, wanted);
}

/*
 * Neither nothing nor a short block that has faded? What is behind the head of a long one can't be told from
 * freed blocks, so its head isn't passed over either.
 */
static inline __attribute__((always_inline)) vector is_unsettled(vector v)
{
	return ((v < (signed char)GRANULE_FADED) & (v != 0)) | (v == (signed char)(GRANULE_FADED | GRANULE_LONG));
}

static inline __attribute__((always_inline)) unsigned char *
find_unsettled(const unsigned char *from, const unsigned char *end)
{
	while (end - from >= VECTOR_BYTES && !any(is_unsettled(load(from))))
		from += VECTOR_BYTES;
	return (unsigned char *)from;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static unsigned char *
find_unsettled_avx2(const unsigned char *from, const unsigned char *end)
{
	return find_unsettled(from, end);
}
#endif

unsigned char *granule_skip_settled(const unsigned char *from, const unsigned char *end)
{
#if defined(__x86_64__)
	if (processor_has_avx2())
		return find_unsettled_avx2(from, end);
#endif
	return find_unsettled(from, end);
}

bool granule_any_freed(const unsigned char *from, size_t bytes)
{
	vector v = bytes >= VECTOR_BYTES ? load(from) : load_tail(from, bytes);

	/* Size bytes of a long block look like freed heads to this: it errs towards yes. */
	return any(v < 0);
}

/* Adds up a vector of counts, without sign since they go beyond 127, in pairs of lanes. */
static inline __attribute__((always_inline)) words pairs_of(lanes counts)
{
	const uint64_t even = 0x00ff00ff00ff00ffu;
	words w = (words)counts;

	return (w & even) + (w >> 8 & even);
}

/* Adds up the pairs. */
static inline __attribute__((always_inline)) size_t sum_of_pairs(words pairs)
{
	const uint64_t even = 0x0000ffff0000ffffu;
	words fours = (pairs & even) + (pairs >> 16 & even);
	uint64_t folded = fours[0] + fours[1] + fours[2] + fours[3];

	return (uint32_t)folded + (folded >> 32);
}

static inline __attribute__((always_inline)) size_t sum(lanes counts)
{
	return sum_of_pairs(pairs_of(counts));
}

/* A lane counts to 255, and a sum of pairs to 65535: so many vectors at once. */
#define COUNT_VECTORS 254u

static inline __attribute__((always_inline)) struct granule_room
survey(const unsigned char *from, const unsigned char *end)
{
	struct granule_room room = {0};
	struct gaps gaps = {.at = from, .next = from, .end = end};

	while (gaps.next < end) {
		lanes blocks = {0};
		for (unsigned i = 0; i < COUNT_VECTORS && gaps.next < end; i++) {
			size_t granules;
			vector live = next_gap(&gaps, &granules);
			blocks -= (lanes)live;
			room.granules += any(live) && granules >= GRANULE_ROOM_LEAST ? granules : 0;
		}
		room.live += sum(blocks);
	}
	room.last = gaps.at;
	return room;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static struct granule_room survey_avx2(const unsigned char *from,
                                                                       const unsigned char *end)
{
	return survey(from, end);
}
#endif

struct granule_room granule_survey(const unsigned char *from, const unsigned char *end)
{
#if defined(__x86_64__)
	if (processor_has_avx2())
		return survey_avx2(from, end);
#endif
	return survey(from, end);
}

struct tally {
	lanes heads;
	vector live;
};

static inline __attribute__((always_inline)) struct tally tally(struct tally tally, vector v)
{
	/* A true lane of a comparison is -1. */
	tally.heads -= (lanes)((vector)((lanes)v + (lanes)v) > 0);
	tally.live |= v > 0;
	return tally;
}

static inline __attribute__((always_inline)) void add_up(struct granule_counts *counts, struct tally tally)
{
	counts->blocks += sum(tally.heads);
	counts->any_live |= any(tally.live);
}

static inline __attribute__((always_inline)) struct granule_counts
count(const unsigned char *from, const unsigned char *end)
{
	struct granule_counts counts = {0};

	while (from < end) {
		size_t left = (size_t)(end - from), vectors = left / VECTOR_BYTES;
		struct tally part = {0};

		vectors = vectors < COUNT_VECTORS ? vectors : COUNT_VECTORS;
		for (size_t i = 0; i < vectors; i++)
			part = tally(part, load(from + i * VECTOR_BYTES));
		from += vectors * VECTOR_BYTES;
		if (vectors < COUNT_VECTORS) {
			part = tally(part, load_tail(from, left % VECTOR_BYTES));
			from = end;
		}
		add_up(&counts, part);
	}
	return counts;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static struct granule_counts count_avx2(const unsigned char *from,
                                                                        const unsigned char *end)
{
	return count(from, end);
}
#endif

static struct granule_counts count_any(const unsigned char *from, const unsigned char *end)
{
	return count(from, end);
}

struct granule_counts granule_count(const unsigned char *from, const unsigned char *end)
{
#if defined(__x86_64__)
	if (processor_has_avx2())
		return count_avx2(from, end);
#endif
	return count_any(from, end);
}

/* Sizes up to GRANULE_SHORT_MAX of so many vectors add up in a lane, and so many such sums in a pair. */
#define SIZE_VECTORS 4u
#define SIZE_SUMS 128u

/* The granules of long blocks in a vector's worth of the map. */
static __attribute__((noinline)) size_t add_long(const unsigned char *from, size_t bytes)
{
	size_t granules = 0;

	for (size_t i = 0; i < bytes; i++)
		if (granule_load(from + i) == GRANULE_LONG)
			granules += granule_long_size(from + i);
	return granules;
}

/* What up to SIZE_SUMS times SIZE_VECTORS vectors add up to, in pairs. */
struct live_tally {
	words heads, freed, sizes;
	vector faded;
};

/* Up to SIZE_VECTORS vectors; returns where it has stopped. */
static inline __attribute__((always_inline)) const unsigned char *
tally_live(struct live_tally *tally, const unsigned char *from, const unsigned char *end,
           size_t *long_granules)
{
	lanes heads = {0}, sizes = {0}, freed = {0};

	for (unsigned i = 0; i < SIZE_VECTORS && from < end; i++) {
		size_t left = (size_t)(end - from), bytes = left < VECTOR_BYTES ? left : VECTOR_BYTES;
		vector v = bytes == VECTOR_BYTES ? load(from) : load_tail(from, bytes);
		vector fresh = (vector)((lanes)v + (lanes)v) > 0, live = (v > 0) & fresh;
		vector is_long = live & (v == (signed char)GRANULE_LONG);

		heads -= (lanes)live;
		freed -= (lanes)(fresh & ~live);
		sizes += (lanes)(v & live & ~is_long);
		tally->faded |= (v > 0) & ~live;
		if (__builtin_expect(any(is_long), 0))
			*long_granules += add_long(from, bytes);
		from += bytes;
	}
	tally->heads += pairs_of(heads);
	tally->freed += pairs_of(freed);
	tally->sizes += pairs_of(sizes);
	return from;
}

static inline __attribute__((always_inline)) struct granule_live
add_live(const unsigned char *from, const unsigned char *end)
{
	struct granule_live all = {0};
	vector faded = {0};

	while (from < end) {
		struct live_tally tally = {0};

		for (unsigned i = 0; i < SIZE_SUMS && from < end; i++)
			from = tally_live(&tally, from, end, &all.granules);
		all.blocks += sum_of_pairs(tally.heads);
		all.freed_blocks += sum_of_pairs(tally.freed);
		all.granules += sum_of_pairs(tally.sizes);
		faded |= tally.faded;
	}
	all.any_faded = any(faded);
	return all;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static struct granule_live add_live_avx2(const unsigned char *from,
                                                                         const unsigned char *end)
{
	return add_live(from, end);
}
#endif

static struct granule_live add_live_any(const unsigned char *from, const unsigned char *end)
{
	return add_live(from, end);
}

struct granule_live granule_add_live(const unsigned char *from, const unsigned char *end)
{
#if defined(__x86_64__)
	if (processor_has_avx2())
		return add_live_avx2(from, end);
#endif
	return add_live_any(from, end);
}

static inline __attribute__((always_inline)) bool
any_faded(const unsigned char *from, const unsigned char *end)
{
	vector faded = {0};

	for (; end - from >= (long)VECTOR_BYTES; from += VECTOR_BYTES)
		faded |= load(from) >= (signed char)GRANULE_FADED;
	if (from < end)
		faded |= load_tail(from, (size_t)(end - from)) >= (signed char)GRANULE_FADED;
	return any(faded);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static bool any_faded_avx2(const unsigned char *from,
                                                           const unsigned char *end)
{
	return any_faded(from, end);
}
#endif

bool granule_any_faded(const unsigned char *from, const unsigned char *end)
{
#if defined(__x86_64__)
	if (processor_has_avx2())
		return any_faded_avx2(from, end);
#endif
	return any_faded(from, end);
}
