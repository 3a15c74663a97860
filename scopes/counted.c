/*
 * counted.c: slabs of counted blocks, without the interface: see counted.h.
 */
#include "counted.h"

#include <string.h>


static struct counted_state {
	struct lock locks[COUNTED_LOCKS];
	uint32_t last;
} state;

struct lock *counted_lock(unsigned i)
{
	return &state.locks[i];
}

struct lock *counted_next_lock(void)
{
	return counted_lock(__atomic_fetch_add(&state.last, 1, __ATOMIC_RELAXED) % COUNTED_LOCKS);
}

/* Slabs that left under the lock, given back behind it. */
void counted_give_back(const struct region_slabs *slabs, struct counted_slab *list)
{
	for (struct counted_slab *slab = list, *next; slab; slab = next) {
		next = slab->next;
		if (slab->memory)
			slabs->backing.free(slab->memory, slab->bytes, slabs->backing.arg);
		heap_free(slab, "region_slab");
	}
}

/* From an address to its slab. */

static size_t hash(const struct region_slabs *slabs, uintptr_t part)
{
	return (size_t)(part * 0x9e3779b97f4a7c15u >> 20) & (slabs->table_size - 1);
}

static void table_add(struct region_slabs *slabs, uintptr_t part, struct counted_slab *slab)
{
	size_t i = hash(slabs, part);

	while (slabs->table[i].slab)
		i = (i + 1) & (slabs->table_size - 1);
	slabs->table[i] = (struct entry){part, slab};
	slabs->table_used++;
}

/* Takes an entry out, and moves those behind it that would not be found any more (Knuth's algorithm R). */
static void table_remove(struct region_slabs *slabs, uintptr_t part, const struct counted_slab *slab)
{
	size_t mask = slabs->table_size - 1, hole = hash(slabs, part);

	while (slabs->table[hole].slab != slab || slabs->table[hole].part != part)
		hole = (hole + 1) & mask;
	for (size_t i = (hole + 1) & mask; slabs->table[i].slab; i = (i + 1) & mask) {
		size_t home = hash(slabs, slabs->table[i].part);
		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		slabs->table[hole] = slabs->table[i];
		hole = i;
	}
	slabs->table[hole] = (struct entry){0, NULL};
	slabs->table_used--;
}

static uintptr_t part_of(const struct region_slabs *slabs, const void *p)
{
	return (uintptr_t)p >> slabs->part_shift;
}

struct counted_slab *counted_slab_at(const struct region_slabs *slabs, const void *p)
{
	uintptr_t part = part_of(slabs, p);

	for (size_t i = hash(slabs, part); slabs->table[i].slab; i = (i + 1) & (slabs->table_size - 1)) {
		struct counted_slab *slab = slabs->table[i].slab;
		if (slabs->table[i].part == part && (uintptr_t)p - (uintptr_t)slab->memory < slab->bytes)
			return slab;
	}
	return NULL;
}

/* The block in use that p lies in, or NULL. */
struct counted *counted_find(const struct region_slabs *slabs, const void *p, struct counted_slab **slab)
{
	*slab = counted_slab_at(slabs, p);
	if (!*slab)
		return NULL;
	size_t block = counted_block_at(*slab, p);
	return block < (*slab)->fresh && (*slab)->blocks[block].refs > 0 ? &(*slab)->blocks[block] : NULL;
}

/* Room for more. The lock is given up meanwhile where there isn't; false: out of memory. */

static bool table_grow(struct region_slabs *slabs)
{
	size_t size = slabs->table_size * 2, old_size = slabs->table_size;
	struct entry *old = slabs->table, *table;

	counted_give_up(slabs);
	table = heap_alloc(size * sizeof(*table));
	if (table)
		memset(table, 0, size * sizeof(*table));
	counted_take(slabs);
	/* Somebody else has been here? */
	if (!table || slabs->table_size != old_size) {
		old = table;
	} else {
		slabs->table = table;
		slabs->table_size = size;
		slabs->table_used = 0;
		for (size_t i = 0; i < old_size; i++)
			if (old[i].slab)
				table_add(slabs, old[i].part, old[i].slab);
	}
	counted_give_up(slabs);
	heap_free(old, "region_slab");
	counted_take(slabs);
	return table != NULL;
}

static bool places_grow(struct region_slabs *slabs)
{
	uint32_t capacity = slabs->place_capacity * 2 + 8, old_capacity = slabs->place_capacity;
	struct place *places, *old = slabs->places;

	counted_give_up(slabs);
	places = heap_alloc(capacity * sizeof(*places));
	counted_take(slabs);
	if (!places || slabs->place_capacity != old_capacity) {
		old = places;
	} else {
		if (old)
			memcpy(places, old, slabs->place_count * sizeof(*places));
		slabs->places = places;
		slabs->place_capacity = capacity;
	}
	counted_give_up(slabs);
	heap_free(old, "region_slab");
	counted_take(slabs);
	return places != NULL;
}

static bool make_room(struct region_slabs *slabs, size_t parts)
{
	while (slabs->table_used + parts > slabs->table_size / 2)
		if (!table_grow(slabs))
			return false;
	while (!slabs->free_place && slabs->place_count == slabs->place_capacity)
		if (!places_grow(slabs))
			return false;
	return true;
}

/* Slabs come and go. */

static void class_add(struct region_slabs *slabs, struct counted_slab *slab)
{
	struct counted_slab **open = &slabs->classes[slab->class].open;

	slab->prev = NULL;
	slab->next = *open;
	if (slab->next)
		slab->next->prev = slab;
	*open = slab;
}

static void class_remove(struct region_slabs *slabs, struct counted_slab *slab)
{
	*(slab->prev ? &slab->prev->next : &slabs->classes[slab->class].open) = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
}

static uint32_t take_place(struct region_slabs *slabs)
{
	uint32_t place = slabs->free_place ? slabs->free_place - 1 : slabs->place_count++;

	if (slabs->free_place)
		slabs->free_place = slabs->places[place].next_free;
	else
		slabs->places[place] = (struct place){.serial = 0};
	return place;
}

static void insert(struct region_slabs *slabs, struct counted_slab *slab)
{
	uintptr_t last = part_of(slabs, slab->memory + slab->bytes - 1);

	for (uintptr_t part = part_of(slabs, slab->memory); part <= last; part++)
		table_add(slabs, part, slab);
	slab->place = take_place(slabs);
	slabs->places[slab->place].slab = slab;
	slabs->places[slab->place].serial++;
	if (slab->class < slabs->class_count) {
		class_add(slabs, slab);
		slabs->stats.classes += slabs->classes[slab->class].slab_count++ == 0;
	}
	slabs->stats.slabs++;
	slabs->stats.slab_bytes += slab->bytes;
	slabs->stats.blocks += slab->block_count;
}

/* The slab has no block in use, and is in its class's list. It is the caller's then. */
static void take_out(struct region_slabs *slabs, struct counted_slab *slab)
{
	uintptr_t last = part_of(slabs, slab->memory + slab->bytes - 1);
	struct place *place = &slabs->places[slab->place];

	for (uintptr_t part = part_of(slabs, slab->memory); part <= last; part++)
		table_remove(slabs, part, slab);
	place->slab = NULL;
	place->next_free = slabs->free_place;
	slabs->free_place = slab->place + 1;
	if (slab->class < slabs->class_count) {
		class_remove(slabs, slab);
		slabs->stats.classes -= --slabs->classes[slab->class].slab_count == 0;
	}
	slabs->stats.slabs--;
	slabs->stats.slab_bytes -= slab->bytes;
	slabs->stats.blocks -= slab->block_count;
}

/* The empty slab of some class, its memory for another one; NULL: there is none. */
static struct counted_slab *take_empty(struct region_slabs *slabs)
{
	for (uint32_t class = 0; class < slabs->class_count; class++) {
		struct counted_slab *slab = slabs->classes[class].open;
		if (!slab || slab->in_use > 0)
			continue;
		take_out(slabs, slab);
		slab->next = NULL;
		return slab;
	}
	return NULL;
}

/* A slab that nobody knows yet; the lock is given up meanwhile. NULL: out of memory. */
static struct counted_slab *make_slab(struct region_slabs *slabs, uint32_t class, size_t bytes,
                                      size_t block_bytes)
{
	uint32_t count = (uint32_t)(bytes / block_bytes);
	struct counted_slab *slab, *empty = class < slabs->class_count ? take_empty(slabs) : NULL;
	char *memory = empty ? empty->memory : NULL;

	counted_give_up(slabs);
	heap_free(empty, "region_slab");
	slab = heap_alloc(sizeof(*slab) + count * sizeof(slab->blocks[0]));
	if (slab && !memory)
		memory = slabs->backing.alloc(bytes, slabs->backing.arg);
	if (slab)
		*slab = (struct counted_slab){
			.memory = memory, .bytes = bytes, .block_bytes = block_bytes, .block_count = count,
			.class = class, .reciprocal = count > 1 ? UINT64_MAX / block_bytes + 1 : 0,
		};
	counted_take(slabs);
	slabs->stats.slab_allocs += !empty && memory;
	slabs->stats.slab_alloc_errors += !memory;
	if (slab && memory && make_room(slabs, (bytes >> slabs->part_shift) + 2))
		return slab;
	counted_give_up(slabs);
	if (slab)
		counted_give_back(slabs, slab);
	else if (memory)
		slabs->backing.free(memory, bytes, slabs->backing.arg);
	counted_take(slabs);
	return NULL;
}

/* Blocks. */

static void *pop_block(struct region_slabs *slabs, struct counted_slab *slab)
{
	uint32_t block = slab->first_free ? slab->first_free - 1 : slab->fresh++;

	if (slab->first_free) {
		slab->first_free = slab->blocks[block].next_free;
		slabs->stats.popped_free++;
	}
	slab->blocks[block] = (struct counted){.refs = 1};
	slab->in_use++;
	slabs->stats.blocks_in_use++;
	if (slab->in_use == slab->block_count && slab->class < slabs->class_count)
		class_remove(slabs, slab);
	return counted_address(slab, block);
}

void *counted_alloc(struct region_slabs *slabs, uint32_t class, size_t size)
{
	bool is_own = class == slabs->class_count;
	size_t bytes = is_own ? (size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1) : slabs->slab_bytes;
	struct counted_slab *slab = is_own ? NULL : slabs->classes[class].open;

	if (!slab) {
		slab = make_slab(slabs, class, bytes, is_own ? bytes : slabs->classes[class].block_bytes);
		if (!slab)
			return NULL;
		insert(slabs, slab);
	}
	return pop_block(slabs, slab);
}

/* A block has lost its last reference; its slab, if it is to be given back, goes into the list. */
static void push_block(struct region_slabs *slabs, struct counted_slab *slab, struct counted *counted,
                       struct counted_slab **gone)
{
	counted->next_free = slab->first_free;
	slab->first_free = (uint32_t)(counted - slab->blocks) + 1;
	slabs->stats.pushed_free++;
	slabs->stats.blocks_in_use--;
	if (slab->in_use-- == slab->block_count && slab->class < slabs->class_count)
		class_add(slabs, slab);
	bool is_only = slab->class < slabs->class_count && !slab->next && !slab->prev;
	if (slab->in_use > 0 || is_only)
		return;
	slabs->stats.slab_frees++;
	take_out(slabs, slab);
	slab->next = *gone;
	*gone = slab;
}

/* Takes a reference off, and off what a block that ends is chained to. Has the first one ended? */
bool counted_unref(struct region_slabs *slabs, struct counted_slab *slab, struct counted *counted,
                  struct counted_slab **gone)
{
	bool has_ended = counted->refs == 1;

	while (counted) {
		slabs->stats.dec_refs++;
		if (--counted->refs > 0)
			break;
		slabs->stats.dec_ref_zeroes++;
		void *next = counted->next;
		push_block(slabs, slab, counted, gone);
		counted = next ? counted_find(slabs, next, &slab) : NULL;
	}
	return has_ended;
}
