/*
 * class.h: size classes of the general heap.
 *
 * Steps of 16 bytes to 128, then 8 classes for each doubling to 8 KiB (at most 12.5 % waste), then 4
 * for each doubling to CLASS_MAX_BYTES (25 %, but of blocks whose tails lie on pages nobody touches).
 * Pure arithmetic: there is no table to keep in cache, and no branch that random sizes make the processor
 * guess wrong. Every class is a multiple of a granule, and class_of(class_bytes(c)) == c, which tests/unit
 * proves for all of them.
 */
#ifndef LIBREGION_CLASS_H
#define LIBREGION_CLASS_H

#include <stddef.h>

#define CLASS_COUNT 64u
#define CLASS_MAX_BYTES ((size_t)32768)

#define CLASS_FINE_MAX ((size_t)128)    /* below: one class for each 16 bytes */
#define CLASS_FINE_COUNT 8u
#define CLASS_MIDDLE_MAX ((size_t)8192) /* below: eight for each doubling; above: four */
#define CLASS_MIDDLE_COUNT 48u
#define CLASS_UPPER_FIRST (CLASS_FINE_COUNT + CLASS_MIDDLE_COUNT)

static inline unsigned class_log2_floor(size_t n)
{
	return 63u ^ (unsigned)__builtin_clzl(n); /* the same as 63 minus that, and one instruction */
}

/* The class that serves `bytes`, from 1 to CLASS_MAX_BYTES. */
static inline unsigned class_of(size_t bytes)
{
	size_t last = bytes - 1;
	/* The first doubling goes on with the steps of what lies below it. */
	unsigned log2 = class_log2_floor(last | CLASS_FINE_MAX);
	unsigned class = 8 * log2 + (unsigned)(last >> (log2 - 3)) - 8 * 7;
	/* Eight for each doubling all the way; above CLASS_MIDDLE_MAX every other one is left out. */
	unsigned halved = (class + CLASS_UPPER_FIRST) / 2;

	return class < halved ? class : halved;
}

/* The bytes of a block of a class. */
static inline size_t class_bytes(unsigned class)
{
	if (class < CLASS_FINE_COUNT)
		return ((size_t)class + 1) << 4;
	class -= CLASS_FINE_COUNT;
	if (class < CLASS_MIDDLE_COUNT)
		return ((size_t)class % 8 + 9) << (class / 8 + 4);
	class -= CLASS_MIDDLE_COUNT;
	return ((size_t)class % 4 + 5) << (class / 4 + 11);
}

/*
 * The smallest class whose blocks hold `bytes` and start at multiples of `align`, a power of two;
 * CLASS_COUNT: none. `bytes` isn't 0.
 *
 * Between two powers of two classes go in steps of a power of two. A step of `align` or more makes every
 * class there a multiple of it; a smaller one has a class at every multiple of `align`, and the rounded bytes
 * are one.
 */
static inline unsigned class_of_aligned(size_t align, size_t bytes)
{
	size_t rounded = (bytes + align - 1) & ~(align - 1);

	return rounded - 1 < CLASS_MAX_BYTES && rounded >= bytes ? class_of(rounded) : CLASS_COUNT;
}

/*
 * The class that stands in for this one in a heap that has few blocks of either: of four between powers of
 * two the largest, of two below CLASS_FINE_MAX. The smallest have none, nor those above CLASS_MIDDLE_MAX,
 * of which each block has pages of its own. Its blocks lie at multiples of every alignment that this one's
 * lie at.
 */
static inline unsigned class_coarse(unsigned class)
{
	if (class < CLASS_FINE_COUNT / 2 || class >= CLASS_UPPER_FIRST)
		return class;
	return class | (class < CLASS_FINE_COUNT ? 1 : 3);
}

#endif
