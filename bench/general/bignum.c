/*
 * bignum.c: arithmetic on numbers of a few digits, each result a block of its own that lives for an
 * operation or two. So programs for large integers allocate, as the factoring program "cfrac" that
 * malloc papers have used since D. Grunwald and B. Zorn (1993): millions of blocks of some ten
 * bytes, few at once.
 *
 * Here the numbers are the convergents p/q of the continued fraction of e, which is 2; 1, 2, 1, 1,
 * 4, 1, 1, 6, … They are worked out until they have DIGITS digits, and again from the start. A
 * prime's remainder, kept beside, proves them.
 */
#include "workloads.h"

#include <stdlib.h>
#include <string.h>

enum { DIGITS = 12, PRIME = 65521 };

/* Digits of 16 bits, lowest first. */
struct number {
	uint16_t length;
	uint16_t digits[];
};

static struct number *number_new(size_t length)
{
	struct number *number = malloc(sizeof(*number) + length * sizeof(number->digits[0]));

	if (!number)
		bench_fail("out of memory");
	number->length = (uint16_t)length;
	return number;
}

static struct number *from_small(uint16_t value)
{
	struct number *number = number_new(1);

	number->digits[0] = value;
	return number;
}

/* The number as it is, or a shorter copy where the highest digit is 0. */
static struct number *trimmed(struct number *number)
{
	struct number *copy;

	if (number->length == 1 || number->digits[number->length - 1] != 0)
		return number;
	copy = number_new(number->length - 1U);
	memcpy(copy->digits, number->digits, copy->length * sizeof(copy->digits[0]));
	free(number);
	return copy;
}

static struct number *product(const struct number *a, uint16_t factor)
{
	struct number *result = number_new(a->length + 1U);
	uint32_t carry = 0;

	for (size_t i = 0; i < a->length; i++, carry >>= 16) {
		carry += (uint32_t)a->digits[i] * factor;
		result->digits[i] = (uint16_t)carry;
	}
	result->digits[a->length] = (uint16_t)carry;
	return trimmed(result);
}

static struct number *sum(const struct number *a, const struct number *b)
{
	size_t length = a->length > b->length ? a->length : b->length;
	struct number *result = number_new(length + 1);
	uint32_t carry = 0;

	for (size_t i = 0; i < length; i++, carry >>= 16) {
		carry += (i < a->length ? a->digits[i] : 0U) + (i < b->length ? b->digits[i] : 0U);
		result->digits[i] = (uint16_t)carry;
	}
	result->digits[length] = (uint16_t)carry;
	return trimmed(result);
}

static uint32_t remainder_of(const struct number *a)
{
	uint64_t rest = 0;

	for (size_t i = a->length; i-- > 0;)
		rest = ((rest << 16) + a->digits[i]) % PRIME;
	return (uint32_t)rest;
}

/* A sequence x(k) = a(k) x(k-1) + x(k-2): the numerators or the denominators. */
struct convergent {
	struct number *last, *before;
	uint32_t last_rest, before_rest;
};

static struct convergent start_with(uint16_t last, uint16_t before)
{
	return (struct convergent){from_small(last), from_small(before), last, before};
}

static void step(struct convergent *c, uint16_t factor)
{
	struct number *multiple = product(c->last, factor);
	struct number *next = sum(multiple, c->before);
	uint32_t rest = (uint32_t)(((uint64_t)factor * c->last_rest + c->before_rest) % PRIME);

	free(multiple);
	free(c->before);
	*c = (struct convergent){next, c->last, rest, c->last_rest};
}

static void finish(struct convergent *c)
{
	if (remainder_of(c->last) != c->last_rest)
		bench_fail("a number is wrong");
	free(c->last);
	free(c->before);
}

static uint16_t quotient(unsigned k)
{
	return k % 3 == 2 ? (uint16_t)(2 * (k / 3 + 1)) : 1;
}

static void run(void)
{
	for (size_t i = general_times(10000); i > 0; i--) {
		struct convergent p = start_with(2, 1), q = start_with(1, 0);

		for (unsigned k = 1; p.last->length < DIGITS; k++) {
			step(&p, quotient(k));
			step(&q, quotient(k));
		}
		finish(&p);
		finish(&q);
	}
}

const struct workload workload_bignum = {
	.name = "bignum", .about = "small blocks that live for an operation or two", .threads = 1, .run = run,
};
