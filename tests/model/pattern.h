/*
 * pattern.h: fills a block with bytes that follow from its id and the offset, and finds the first one
 * that has changed. A block shifted by some bytes, another block's bytes and zeroed or poisoned memory
 * all differ from what is expected.
 */
#ifndef TESTS_MODEL_PATTERN_H
#define TESTS_MODEL_PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PATTERN_INTACT SIZE_MAX

static inline uint64_t pattern_word(uint64_t id, size_t offset)
{
	return id * 0x9e3779b97f4a7c15u + (offset / 8) * 0xbf58476d1ce4e5b9u + 0x5bd1e995u;
}

static inline unsigned char pattern_byte(uint64_t id, size_t offset)
{
	uint64_t word = pattern_word(id, offset);
	return ((const unsigned char *)&word)[offset % 8];
}

/* Writes the bytes from `from` up to, not including, `to`. */
static inline void pattern_fill(void *block, size_t from, size_t to, uint64_t id)
{
	unsigned char *bytes = (unsigned char *)block;
	for (; from < to && from % 8 != 0; from++)
		bytes[from] = pattern_byte(id, from);
	for (; to - from >= 8 && from < to; from += 8) {
		uint64_t word = pattern_word(id, from);
		memcpy(bytes + from, &word, sizeof word);
	}
	for (; from < to; from++)
		bytes[from] = pattern_byte(id, from);
}

/* The offset of the first byte that isn't the pattern's, or PATTERN_INTACT. */
static inline size_t pattern_damage(const void *block, size_t from, size_t to, uint64_t id)
{
	const unsigned char *bytes = (const unsigned char *)block;
	for (; from < to; from++) {
		uint64_t word;
		while (from % 8 == 0 && to - from >= 8) {
			memcpy(&word, bytes + from, sizeof word);
			if (word != pattern_word(id, from))
				break;
			from += 8;
		}
		if (from < to && bytes[from] != pattern_byte(id, from))
			return from;
	}
	return PATTERN_INTACT;
}

#endif
