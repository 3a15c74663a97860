/*
 * class.c: size classes are pure arithmetic, so all of them and every size are looked at.
 */
#include "unit.h"

Test(class, a_class_serves_its_own_size_and_not_a_byte_more)
{
	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		size_t bytes = class_bytes(class);

		require(class_of(bytes) == class, "class %u: %zu bytes", class, bytes);
		if (class + 1 < CLASS_COUNT)
			require(class_of(bytes + 1) == class + 1, "class %u: %zu bytes and one", class, bytes);
	}
	require(class_bytes(CLASS_COUNT - 1) == CLASS_MAX_BYTES, "%zu", class_bytes(CLASS_COUNT - 1));
}

Test(class, block_sizes_grow_and_are_multiples_of_a_granule)
{
	size_t last = 0;

	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		size_t bytes = class_bytes(class);

		require(bytes > last, "class %u: %zu bytes after %zu", class, bytes, last);
		require(bytes % GRANULE_BYTES == 0, "class %u: %zu bytes", class, bytes);
		last = bytes;
	}
}

/* The bytes by which a block may be larger than what was asked for. */
static size_t most_waste(size_t bytes)
{
	if (bytes <= 128)
		return GRANULE_BYTES - 1;
	return bytes <= 8192 ? bytes / 8 : bytes / 4;
}

Test(class, every_size_fits_and_wastes_no_more_than_promised)
{
	unsigned last = 0;

	for (size_t bytes = 1; bytes <= CLASS_MAX_BYTES; bytes++) {
		unsigned class = class_of(bytes);

		require(class == last || class == last + 1, "%zu bytes: class %u after %u", bytes, class, last);
		require(class_bytes(class) >= bytes, "%zu bytes: a block has %zu", bytes, class_bytes(class));
		require(class_bytes(class) - bytes <= most_waste(bytes), "%zu bytes: a block has %zu", bytes,
		        class_bytes(class));
		last = class;
	}
	require(last == CLASS_COUNT - 1, "%u", last);
}

/* Blocks start at multiples of their size from a slice on. */
static unsigned naive_aligned_class(size_t align, size_t bytes)
{
	unsigned class = 0;

	while (class < CLASS_COUNT && (class_bytes(class) < bytes || class_bytes(class) % align != 0))
		class++;
	return class;
}

Test(class, a_coarse_class_stands_in_for_the_alignment_of_its_neighbours)
{
	for (unsigned class = 0; class < CLASS_COUNT; class++) {
		size_t bytes = class_bytes(class), coarse_bytes = class_bytes(class_coarse(class));
		size_t align = bytes & -bytes;

		require(coarse_bytes >= bytes && coarse_bytes % align == 0, "class %u: %zu for %zu", class,
		        coarse_bytes, bytes);
		require(coarse_bytes <= bytes * 8 / 5, "class %u: %zu for %zu", class, coarse_bytes, bytes);
		require(class_coarse(class_coarse(class)) == class_coarse(class), "class %u", class);
	}
}

Test(class, an_aligned_block_takes_the_smallest_class_that_is_aligned)
{
	for (size_t align = 1; align <= 2 * CLASS_MAX_BYTES; align *= 2)
		for (size_t bytes = 1; bytes <= CLASS_MAX_BYTES + 1; bytes += bytes < 2048 ? 1 : 61) {
			unsigned class = class_of_aligned(align, bytes), naive = naive_aligned_class(align, bytes);

			require(class == naive, "%zu bytes at %zu: class %u, not %u", bytes, align, class, naive);
		}
}
