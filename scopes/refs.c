/*
 * refs.c: region_slab_*(), the interface to slabs of counted blocks: see counted.h.
 *
 * Each call takes the lock, finds the block, does its work, and gives back behind the lock what is left over.
 */
#include <errno.h>
#include <string.h>

#include "counted.h"
#include "scopes.h"

#define BLOCK_BYTES_DEFAULT 64
#define SLAB_BYTES_DEFAULT ((size_t)1 << 20)
#define SLAB_BYTES_LEAST SLICE_BYTES
#define SLAB_BYTES_MOST ((size_t)1 << 30)
#define GROWTH_DEFAULT 1.25
#define GROWTH_LEAST 1.01

/* Spare slabs: so many bytes, but two at least, and no more than that. */
#define SPARE_BYTES ((size_t)1 << 20)
#define SPARE_MOST 16

static void *heap_backing_alloc(size_t bytes, void *unused)
{
	(void)unused;
	return heap_alloc(bytes);
}

static void heap_backing_free(void *p, size_t bytes, void *unused)
{
	(void)bytes, (void)unused;
	heap_free(p, "region_slab");
}

/* Setting up. */

/* Fills in the classes; how many there are, if there is room for them. */
static uint32_t set_classes(struct size_class *classes, size_t block_size, size_t slab_bytes, double growth)
{
	uint32_t count = 0;

	for (size_t bytes = block_size; bytes < slab_bytes; count++) {
		if (classes)
			classes[count] = (struct size_class){COUNTED_NONE, bytes, 0};
		double next = (double)bytes * growth;
		size_t rounded = ((size_t)next + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
		bytes = rounded > bytes ? rounded : bytes + GRANULE_BYTES;
	}
	if (classes)
		classes[count] = (struct size_class){COUNTED_NONE, slab_bytes, 0};
	return count + 1;
}

static void set_direct(struct region_slabs *slabs)
{
	uint32_t class = 0;

	for (uint32_t i = 0; i <= COUNTED_DIRECT_GRANULES; i++) {
		while (class < slabs->class_count && slabs->classes[class].block_bytes < i << GRANULE_SHIFT)
			class++;
		slabs->direct[i] = (uint16_t)class;
	}
}

static struct region_slabs *make(uint32_t class_count)
{
	struct region_slabs *slabs = scopes_start() ? counted_take_record() : NULL;

	if (!slabs)
		return NULL;
	slabs->table_size = 64;
	slabs->table = heap_alloc(slabs->table_size * sizeof(*slabs->table));
	struct size_class *classes = heap_alloc(class_count * sizeof(*classes));
	if (!slabs->table || !classes) {
		heap_free(slabs->table, "region_slab_create");
		heap_free(classes, "region_slab_create");
		counted_put_record(slabs);
		return NULL;
	}
	memset(slabs->table, 0, slabs->table_size * sizeof(*slabs->table));
	slabs->classes = classes;
	slabs->class_count = class_count;
	slabs->is_live = true;
	return slabs;
}

region_slabs_t *region_slab_create_for(unsigned version, size_t block_size, size_t slab_size, double growth,
                                       const struct region_slab_backing *backing)
{
	static const struct region_slab_backing heap_backing = {heap_backing_alloc, heap_backing_free, NULL};

	block_size = block_size ? (block_size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1) : BLOCK_BYTES_DEFAULT;
	slab_size = slab_size ? (slab_size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1) : SLAB_BYTES_DEFAULT;
	growth = growth != 0 ? growth : GROWTH_DEFAULT;
	if (block_size > slab_size || slab_size > SLAB_BYTES_MOST || !(growth >= GROWTH_LEAST) || growth > 1e6) {
		errno = EINVAL;
		return NULL;
	}
	struct region_slabs *slabs = make(set_classes(NULL, block_size, slab_size, growth));
	if (!slabs) {
		errno = ENOMEM;
		return NULL;
	}
	set_classes(slabs->classes, block_size, slab_size, growth);
	set_direct(slabs);
	/* Of the heap range there is a least, so that small slabs don't cost one each. */
	slabs->slab_bytes = backing || slab_size > SLAB_BYTES_LEAST ? slab_size : SLAB_BYTES_LEAST;
	slabs->head.shift = class_log2_floor(slabs->slab_bytes);
	slabs->has_near = version == REGION_SLABS_VERSION;
	slabs->backing = backing ? *backing : heap_backing;
	size_t spare = SPARE_BYTES / slabs->slab_bytes;
	slabs->spare_most = spare < 2 ? 2 : spare < SPARE_MOST ? (uint32_t)spare : SPARE_MOST;
	return slabs;
}

/* Every call. */

/* Takes the lock of slabs that haven't ended. */
static bool enter(struct region_slabs *slabs, const char *call)
{
	if (__builtin_expect(slabs->is_live, 1)) {
		counted_take(slabs);
		return true;
	}
	report_misuse("%s(): the slabs at %p have been destroyed", call, (void *)slabs);
	errno = EINVAL;
	return false;
}

static __attribute__((cold, noinline)) struct region_counted_ *
misused(const struct counted_slab *slab, const void *p, const char *call)
{
	if (slab)
		report_misuse("%s(%p): the block has no references left", call, p);
	else
		report_misuse("%s(%p): not a block of these slabs", call, p);
	errno = EINVAL;
	return NULL;
}

/* The block in use at p, with the lock held; NULL, and it is reported without. */
static struct region_counted_ *enter_block(struct region_slabs *slabs, const void *p,
                                           struct counted_slab **slab, const char *call)
{
	struct region_counted_ *counted;

	if (!enter(slabs, call))
		return NULL;
	counted = counted_find(slabs, p, slab);
	if (__builtin_expect(counted != NULL, 1))
		return counted;
	counted_give_up(slabs);
	return misused(*slab, p, call);
}

void region_slab_destroy(region_slabs_t *slabs)
{
	struct counted_slab *gone = NULL;

	if (!slabs || !enter(slabs, "region_slab_destroy"))
		return;
	slabs->is_live = false;
	for (uint32_t i = 0; i < slabs->place_count; i++)
		if (slabs->places[i].slab) {
			slabs->places[i].slab->next = gone;
			gone = slabs->places[i].slab;
		}
	counted_give_up(slabs);
	counted_give_back(slabs, gone);
	heap_free(slabs->places, "region_slab_destroy");
	heap_free(slabs->table, "region_slab_destroy");
	heap_free(slabs->classes, "region_slab_destroy");
	counted_put_record(slabs);
}

/* Blocks. */

static uint32_t class_for(const struct region_slabs *slabs, size_t size)
{
	uint32_t lo = 0, hi = slabs->class_count;

	if (size <= COUNTED_DIRECT_GRANULES << GRANULE_SHIFT)
		return slabs->direct[(size + GRANULE_BYTES - 1) >> GRANULE_SHIFT];
	while (lo < hi) {
		uint32_t middle = (lo + hi) / 2;
		if (slabs->classes[middle].block_bytes < size)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

static __attribute__((noinline)) void *alloc_slow(struct region_slabs *slabs, size_t size)
{
	void *p = NULL;

	if (!enter(slabs, "region_slab_alloc"))
		return NULL;
	uint32_t class = class_for(slabs, size);
	slabs->stats.too_big += class == slabs->class_count;
	if (size <= PTRDIFF_MAX)
		p = counted_alloc(slabs, class, size);
	slabs->allocs += !p;
	slabs->fails += !p;
	counted_give_up(slabs);
	if (!p)
		errno = ENOMEM;
	return p;
}

void *region_slab_alloc(region_slabs_t *slabs, size_t size)
{
	if (__libc_single_threaded && size <= COUNTED_DIRECT_GRANULES << GRANULE_SHIFT) {
		unsigned class = slabs->direct[(size + GRANULE_BYTES - 1) >> GRANULE_SHIFT];
		struct counted_slab *slab = slabs->classes[class].open;
		if (__builtin_expect(slab->at.first_free != 0, 1))
			return counted_pop(slabs, slab);
	}
	return alloc_slow(slabs, size);
}

static __attribute__((cold, noinline)) void too_many(const void *block, const char *call)
{
	report_misuse("%s(%p): the block has %u references, and can't have more", call, block, UINT32_MAX);
	errno = EINVAL;
}

/* False: it has as many as can be counted. */
static bool add_ref(struct region_slabs *slabs, struct region_counted_ *counted)
{
	if (counted->refs == UINT32_MAX)
		return false;
	counted->refs++;
	slabs->head.add_refs++;
	return true;
}

void region_slab_add_ref_slow(region_slabs_t *slabs, void *block)
{
	struct counted_slab *slab;
	struct region_counted_ *counted = enter_block(slabs, block, &slab, "region_slab_add_ref");

	if (!counted)
		return;
	bool is_counted = add_ref(slabs, counted);
	counted_give_up(slabs);
	if (!is_counted)
		too_many(block, "region_slab_add_ref");
}

int region_slab_dec_ref_slow(region_slabs_t *slabs, void *block)
{
	struct counted_slab *slab, *gone = NULL;
	struct region_counted_ *counted = enter_block(slabs, block, &slab, "region_slab_dec_ref");

	if (!counted)
		return 0;
	bool has_ended = counted_unref(slabs, slab, counted, &gone);
	counted_give_up(slabs);
	counted_give_back(slabs, gone);
	return has_ended;
}

int region_slab_owns(region_slabs_t *slabs, const void *p)
{
	struct counted_slab *slab;

	if (!enter(slabs, "region_slab_owns"))
		return 0;
	bool owns = counted_find(slabs, p, &slab) != NULL;
	counted_give_up(slabs);
	return owns;
}

size_t region_slab_size(region_slabs_t *slabs, const void *block)
{
	struct counted_slab *slab;

	if (!enter_block(slabs, block, &slab, "region_slab_size"))
		return 0;
	size_t bytes = slab->block_bytes;
	counted_give_up(slabs);
	return bytes;
}

unsigned region_slab_refs(region_slabs_t *slabs, const void *block)
{
	struct counted_slab *slab;
	struct region_counted_ *counted = enter_block(slabs, block, &slab, "region_slab_refs");

	if (!counted)
		return 0;
	unsigned refs = counted->refs;
	counted_give_up(slabs);
	return refs;
}

/* Chains. */

void region_slab_set_next(region_slabs_t *slabs, void *block, void *next)
{
	struct counted_slab *slab, *next_slab, *gone = NULL;
	struct region_counted_ *behind = NULL;
	struct region_counted_ *counted = enter_block(slabs, block, &slab, "region_slab_set_next");

	if (!counted)
		return;
	if (next && !(behind = counted_find(slabs, next, &next_slab))) {
		counted_give_up(slabs);
		misused(next_slab, next, "region_slab_set_next");
		return;
	}
	if (behind && !add_ref(slabs, behind)) {
		counted_give_up(slabs);
		too_many(next, "region_slab_set_next");
		return;
	}
	slabs->stats.set_nexts++;
	void *old = counted->next;
	counted->next = next;
	if (old && (behind = counted_find(slabs, old, &slab)))
		counted_unref(slabs, slab, behind, &gone);
	counted_give_up(slabs);
	counted_give_back(slabs, gone);
}

void *region_slab_get_next(region_slabs_t *slabs, void *block)
{
	struct counted_slab *slab;
	struct region_counted_ *behind = NULL;
	struct region_counted_ *counted = enter_block(slabs, block, &slab, "region_slab_get_next");

	if (!counted)
		return NULL;
	void *next = counted->next;
	if (next)
		behind = counted_find(slabs, next, &slab);
	bool is_counted = !behind || add_ref(slabs, behind);
	slabs->stats.get_nexts += is_counted;
	counted_give_up(slabs);
	if (is_counted)
		return next;
	too_many(next, "region_slab_get_next");
	return NULL;
}

/* Locations. */

struct region_slab_loc region_slab_loc_of(region_slabs_t *slabs, const void *p)
{
	struct region_slab_loc loc = {0};
	struct counted_slab *slab;

	if (!p || !enter_block(slabs, p, &slab, "region_slab_loc_of"))
		return loc;
	size_t block = counted_block_at(slab, p);
	size_t offset = (size_t)((const char *)p - counted_address(slab, block));
	/* Of a block beyond 4 GiB only the first can be named. */
	if (offset <= UINT32_MAX)
		loc = (struct region_slab_loc){
			.slab = slab->place + 1, .serial = slabs->places[slab->place].serial,
			.block = (uint32_t)block, .offset = (uint32_t)offset,
		};
	counted_give_up(slabs);
	return loc;
}

/* What a location names, if it is still there. */
static char *at_loc(const struct region_slabs *slabs, struct region_slab_loc loc)
{
	const struct place *place = &slabs->places[loc.slab - 1];

	if (loc.slab - 1 >= slabs->place_count || place->serial != loc.serial || !place->slab)
		return NULL;
	const struct counted_slab *slab = place->slab;
	if (loc.block >= slab->fresh || loc.offset >= slab->block_bytes || slab->blocks[loc.block].refs == 0)
		return NULL;
	return counted_address(slab, loc.block) + loc.offset;
}

void *region_slab_ptr_of(region_slabs_t *slabs, struct region_slab_loc loc)
{
	if (loc.slab == 0 || !enter(slabs, "region_slab_ptr_of"))
		return NULL;
	char *p = at_loc(slabs, loc);
	counted_give_up(slabs);
	return p;
}

void region_slab_stats_read(region_slabs_t *slabs, struct region_slab_stats *stats)
{
	*stats = (struct region_slab_stats){0};
	if (!enter(slabs, "region_slab_stats_read"))
		return;
	*stats = slabs->stats;
	stats->allocs = slabs->allocs;
	stats->add_refs = slabs->head.add_refs;
	stats->dec_refs = slabs->head.dec_refs;
	stats->dec_ref_zeroes = stats->pushed_free = slabs->head.ends;
	stats->popped_free = slabs->allocs - slabs->fails - slabs->fresh;
	stats->blocks_in_use = slabs->allocs - slabs->fails - slabs->head.ends;
	counted_give_up(slabs);
}
