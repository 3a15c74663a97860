/*
 * counted.c: slabs of counted blocks, without the interface: see counted.h.
 */
#include "counted.h"

#include <string.h>

/* So many dead records wait before the oldest is used again. */
#define RECORDS_KEPT 16

static struct counted_state {
	struct lock locks[COUNTED_LOCKS];
	uint32_t last;
	struct region_slabs *dead, *dead_last; /* oldest first; the first lock guards them */
	size_t dead_count;
} state;

const struct counted_slab counted_none;
static const struct size_class no_class = {.open = COUNTED_NONE};

struct lock *counted_lock(unsigned i)
{
	return &state.locks[i];
}

/* Records. */

/* Without any slab, so that all short ways end at counted_none. */
static void empty(struct region_slabs *record, struct lock *lock)
{
	*record = (struct region_slabs){.lock = lock, .classes = (struct size_class *)&no_class};
	for (unsigned i = 0; i < REGION_SLABS_NEAR_; i++)
		record->head.near[i] = &COUNTED_NONE->at;
}

struct region_slabs *counted_take_record(void)
{
	struct region_slabs *record = NULL;

	lock_acquire(&state.locks[0]);
	struct lock *lock = &state.locks[state.last++ % COUNTED_LOCKS];
	if (state.dead_count > RECORDS_KEPT) {
		record = state.dead;
		state.dead = record->next;
		state.dead_count--;
	}
	lock_release(&state.locks[0]);
	if (!record)
		record = range_meta_alloc(sizeof(*record));
	if (!record)
		return NULL;
	empty(record, lock);
	return record;
}

void counted_put_record(struct region_slabs *slabs)
{
	empty(slabs, slabs->lock);
	lock_acquire(&state.locks[0]);
	*(state.dead ? &state.dead_last->next : &state.dead) = slabs;
	state.dead_last = slabs;
	state.dead_count++;
	lock_release(&state.locks[0]);
}

/* Slabs that left under the lock, given back behind it. */
void counted_give_back(const struct region_slabs *slabs, struct counted_slab *list)
{
	for (struct counted_slab *slab = list, *next; slab; slab = next) {
		next = slab->next;
		if (slab->at.memory)
			slabs->backing.free(slab->at.memory, slab->bytes, slabs->backing.arg);
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
	return (uintptr_t)p >> slabs->head.shift;
}

struct counted_slab *counted_slab_at(const struct region_slabs *slabs, const void *p)
{
	uintptr_t part = part_of(slabs, p);

	for (size_t i = hash(slabs, part); slabs->table[i].slab; i = (i + 1) & (slabs->table_size - 1)) {
		struct counted_slab *slab = slabs->table[i].slab;
		if (slabs->table[i].part == part && (uintptr_t)p - (uintptr_t)slab->at.memory < slab->bytes)
			return slab;
	}
	return NULL;
}

static void set_near(struct region_slabs *slabs, uintptr_t part, struct counted_slab *slab)
{
	if (slabs->has_near)
		slabs->head.near[part % REGION_SLABS_NEAR_] = &slab->at;
}

struct region_counted_ *counted_find(struct region_slabs *slabs, const void *p, struct counted_slab **slab)
{
	*slab = counted_slab_at(slabs, p);
	if (!*slab)
		return NULL;
	set_near(slabs, part_of(slabs, p), *slab);
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
	slab->next = *open != COUNTED_NONE ? *open : NULL;
	if (slab->next)
		slab->next->prev = slab;
	*open = slab;
	slab->at.is_open = true;
}

static void class_remove(struct region_slabs *slabs, struct counted_slab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		slabs->classes[slab->class].open = slab->next ? slab->next : COUNTED_NONE;
	if (slab->next)
		slab->next->prev = slab->prev;
	slab->at.is_open = false;
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
	uintptr_t last = part_of(slabs, slab->at.memory + slab->bytes - 1);

	for (uintptr_t part = part_of(slabs, slab->at.memory); part <= last; part++)
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

/* The slab has no block in use, and is in no list any more. It is the caller's then. */
static void take_out(struct region_slabs *slabs, struct counted_slab *slab)
{
	uintptr_t last = part_of(slabs, slab->at.memory + slab->bytes - 1);
	struct place *place = &slabs->places[slab->place];

	for (uintptr_t part = part_of(slabs, slab->at.memory); part <= last; part++) {
		table_remove(slabs, part, slab);
		if (slabs->head.near[part % REGION_SLABS_NEAR_] == &slab->at)
			slabs->head.near[part % REGION_SLABS_NEAR_] = &COUNTED_NONE->at;
	}
	place->slab = NULL;
	place->next_free = slabs->free_place;
	slabs->free_place = slab->place + 1;
	if (slab->class < slabs->class_count)
		slabs->stats.classes -= --slabs->classes[slab->class].slab_count == 0;
	slabs->stats.slabs--;
	slabs->stats.slab_bytes -= slab->bytes;
	slabs->stats.blocks -= slab->block_count;
	slab->next = NULL;
}

/* A spare slab of that class, or with class_count of any. NULL: none. */
static struct counted_slab *take_spare(struct region_slabs *slabs, uint32_t class)
{
	for (struct counted_slab **link = &slabs->spare; *link; link = &(*link)->next)
		if ((*link)->class == class || class == slabs->class_count) {
			struct counted_slab *slab = *link;
			*link = slab->next;
			slabs->spare_count--;
			return slab;
		}
	return NULL;
}

/* An empty slab of some class, its memory for another one; NULL: there is none. */
static struct counted_slab *take_empty(struct region_slabs *slabs)
{
	struct counted_slab *slab = take_spare(slabs, slabs->class_count);

	for (uint32_t class = 0; !slab && class < slabs->class_count; class++) {
		struct counted_slab *first = slabs->classes[class].open;
		if (first == COUNTED_NONE || first->at.in_use > 0)
			continue;
		class_remove(slabs, first);
		slab = first;
	}
	if (slab)
		take_out(slabs, slab);
	return slab;
}

/* A slab that nobody knows yet; the lock is given up meanwhile. NULL: out of memory. */
static struct counted_slab *make_slab(struct region_slabs *slabs, uint32_t class, size_t bytes,
                                      size_t block_bytes)
{
	uint32_t count = (uint32_t)(bytes / block_bytes);
	struct counted_slab *slab, *empty = class < slabs->class_count ? take_empty(slabs) : NULL;
	char *memory = empty ? empty->at.memory : NULL;

	counted_give_up(slabs);
	heap_free(empty, "region_slab");
	slab = heap_alloc(sizeof(*slab) + count * sizeof(slab->blocks[0]));
	if (slab && !memory)
		memory = slabs->backing.alloc(bytes, slabs->backing.arg);
	if (slab)
		*slab = (struct counted_slab){
			.at = {memory, 0, count > 1 ? UINT64_MAX / block_bytes + 1 : 0, slab->blocks, 0, 0, 0},
			.bytes = bytes, .block_bytes = block_bytes, .block_count = count, .class = class,
		};
	counted_take(slabs);
	slabs->stats.slab_allocs += !empty && memory;
	slabs->stats.slab_alloc_errors += !memory;
	if (slab && memory && make_room(slabs, (bytes >> slabs->head.shift) + 2))
		return slab;
	slabs->stats.slab_frees += memory != NULL;
	counted_give_up(slabs);
	if (slab)
		counted_give_back(slabs, slab);
	else if (memory)
		slabs->backing.free(memory, bytes, slabs->backing.arg);
	counted_take(slabs);
	return NULL;
}

/* Blocks. */

static void *take_fresh(struct region_slabs *slabs, struct counted_slab *slab)
{
	slab->blocks[slab->fresh] = (struct region_counted_){.refs = 1};
	slab->at.used_bytes += slab->block_bytes;
	slab->at.in_use++;
	slabs->allocs++;
	slabs->fresh++;
	return counted_address(slab, slab->fresh++);
}

/* A slab of that class with a free block, or NULL. Full ones leave the list on the way. */
static struct counted_slab *find_open(struct region_slabs *slabs, uint32_t class)
{
	struct counted_slab *slab;

	while ((slab = slabs->classes[class].open) != COUNTED_NONE) {
		if (slab->at.first_free || slab->fresh < slab->block_count)
			return slab;
		class_remove(slabs, slab);
	}
	slab = take_spare(slabs, class);
	if (slab)
		class_add(slabs, slab);
	return slab;
}

void *counted_alloc(struct region_slabs *slabs, uint32_t class, size_t size)
{
	bool is_own = class == slabs->class_count;
	size_t bytes = is_own ? (size + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1) : slabs->slab_bytes;
	struct counted_slab *slab = is_own ? NULL : find_open(slabs, class);

	if (!slab) {
		slab = make_slab(slabs, class, bytes, is_own ? bytes : slabs->classes[class].block_bytes);
		if (!slab)
			return NULL;
		insert(slabs, slab);
	}
	return slab->at.first_free ? counted_pop(slabs, slab) : take_fresh(slabs, slab);
}

/* The last block of a slab has ended: it stays, is spare, or goes into the list. */
static void emptied(struct region_slabs *slabs, struct counted_slab *slab, struct counted_slab **gone)
{
	if (slab->at.is_open && !slab->next && !slab->prev)
		return;
	if (slab->at.is_open)
		class_remove(slabs, slab);
	if (slab->class < slabs->class_count && slabs->spare_count < slabs->spare_most) {
		slab->next = slabs->spare;
		slabs->spare = slab;
		slabs->spare_count++;
		return;
	}
	slabs->stats.slab_frees++;
	take_out(slabs, slab);
	slab->next = *gone;
	*gone = slab;
}

bool counted_unref(struct region_slabs *slabs, struct counted_slab *slab, struct region_counted_ *counted,
                   struct counted_slab **gone)
{
	bool has_ended = counted->refs == 1;

	while (counted) {
		if (counted->refs > 1) {
			counted->refs--;
			slabs->head.dec_refs++;
			break;
		}
		void *next = counted->next;
		counted->next = NULL;
		region_slab_end_(slabs, &slab->at, counted);
		if (!slab->at.is_open && slab->class < slabs->class_count)
			class_add(slabs, slab);
		if (slab->at.in_use == 0)
			emptied(slabs, slab, gone);
		counted = next ? counted_find(slabs, next, &slab) : NULL;
	}
	return has_ended;
}
