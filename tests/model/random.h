/*
 * random.h: the tests' own random numbers (splitmix64), so that a seed means the same program on every
 * machine and libc. All state is the caller's one uint64_t; distinct seeds give unrelated sequences,
 * consecutive ones too.
 */
#ifndef TESTS_MODEL_RANDOM_H
#define TESTS_MODEL_RANDOM_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* A number from 0 to limit - 1; the bias for limits far below 2^64 doesn't matter here. */
static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

/* True once in `n` times. */
static inline bool random_one_in(uint64_t *state, uint64_t n)
{
	return random_below(state, n) == 0;
}

/* 0 to 2^shift - 1, each power of two as likely as the next: most sizes are small, some are big. */
static inline uint64_t random_scaled(uint64_t *state, unsigned shift)
{
	return random_below(state, UINT64_C(1) << random_below(state, shift + 1));
}

/* A seed nobody chose. */
static inline uint64_t random_seed_of_the_clock(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t state = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return random_next(&state) >> 16; /* 48 bits: short enough to retype */
}

#endif
