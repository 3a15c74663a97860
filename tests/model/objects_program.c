/*
 * objects_program.c: makes programs of the operations of objects.h from seeds, and prints them.
 */
#include "objects.h"
#include "random.h"

#include <stdlib.h>

struct taste {
	unsigned weights[OBJECTS_KINDS];
	unsigned weight_sum;
	unsigned regions, slots;
	unsigned size_shift;
	unsigned run; /* operations in a row by one thread, on average */
};

static const unsigned base_weights[OBJECTS_KINDS] = {
#define OBJECTS_WEIGHT(kind, weight) [DO_##kind] = weight,
	OBJECTS_MAP(OBJECTS_WEIGHT)
#undef OBJECTS_WEIGHT
};

static const char *const names[OBJECTS_KINDS] = {
#define OBJECTS_NAME(kind, weight) [DO_##kind] = #kind,
	OBJECTS_MAP(OBJECTS_NAME)
#undef OBJECTS_NAME
};

const char *op_name(enum op_kind kind)
{
	return (unsigned)kind < OBJECTS_KINDS ? names[kind] : "?";
}

static bool is_of_slabs(int kind)
{
	return kind >= DO_SLAB_TAKE && kind <= DO_LOCATE;
}

/* A program is about regions, about slabs, or about both; a kind that isn't needed may be left out. */
static void draw_weights(struct taste *taste, uint64_t *rng)
{
	uint64_t about = random_below(rng, 4);
	for (int kind = 0; kind < OBJECTS_KINDS; kind++) {
		bool always = kind == DO_CREATE || kind == DO_TAKE || kind == DO_SLAB_TAKE || kind == DO_DEC_REF;
		unsigned times = !always && random_one_in(rng, 4) ? 0 : 1 + (unsigned)random_below(rng, 4);
		if ((about == 0 && is_of_slabs(kind)) || (about == 1 && !is_of_slabs(kind) && kind < DO_SUCCEED))
			times = 0;
		taste->weights[kind] = base_weights[kind] * times;
		taste->weight_sum += taste->weights[kind];
	}
}

static struct taste draw_taste(uint64_t *rng)
{
	static const unsigned shifts[] = {5, 7, 10, 10, 12, 13, 14, 16, 18, 20};
	struct taste taste = {0};
	draw_weights(&taste, rng);
	taste.regions = 1 + (unsigned)random_below(rng, WORLD_REGIONS);
	taste.slots = 1u << random_below(rng, 8);
	taste.size_shift = shifts[random_below(rng, sizeof shifts / sizeof *shifts)];
	taste.run = 1u << random_below(rng, 6);
	return taste;
}

static struct op draw_op(const struct taste *taste, uint64_t *rng, unsigned thread)
{
	static const uint8_t buffer_shifts[] = {0, 0, 16, 16, 17, 20};
	static const uint32_t limits[] = {0, 0, 0, 0, 64, 128, 256, 1024};
	struct op op = {.thread = (uint8_t)thread};
	unsigned left = (unsigned)random_below(rng, taste->weight_sum);
	while (left >= taste->weights[op.kind])
		left -= taste->weights[op.kind++];
	op.variant = (uint8_t)random_below(rng, 240); /* a multiple of every number of variants */
	op.fade = random_one_in(rng, 3) ? REGION_FADE_UNFREED : REGION_FADE_NONE;
	op.named = (uint8_t)random_below(rng, 2);
	op.align_shift = (uint8_t)random_below(rng, 14);
	op.buffer_shift = buffer_shifts[random_below(rng, sizeof buffer_shifts)];
	op.buffer_count = (uint8_t)random_below(rng, 3);
	op.limit_kib = limits[random_below(rng, sizeof limits / sizeof *limits)];
	op.slot = (uint16_t)random_below(rng, taste->slots);
	op.other = (uint16_t)random_below(rng, taste->regions);
	op.size = (uint32_t)random_scaled(rng, taste->size_shift);
	return op;
}

struct program program_generate(uint64_t seed, size_t count, unsigned threads)
{
	uint64_t rng = seed;
	struct program program = {.seed = seed, .count = count, .threads = threads};
	unsigned drawn = random_one_in(&rng, 3) ? 1 : 2 + (unsigned)random_below(&rng, PROGRAM_THREADS - 1);
	if (threads == 0)
		program.threads = drawn;
	struct taste taste = draw_taste(&rng);
	program.ops = calloc(count + 1, sizeof *program.ops);
	if (!program.ops)
		abort();
	unsigned thread = 0;
	for (size_t i = 0; i < count; i++) {
		if (random_one_in(&rng, taste.run))
			thread = (unsigned)random_below(&rng, program.threads);
		program.ops[i] = draw_op(&taste, &rng, thread);
	}
	return program;
}

/* What an operation is about: the kinds differ in which members they use, and all are shown. */
void program_print(FILE *out, const struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		const struct op *op = &program->ops[i];
		fprintf(out, "    t%u  %s r%u slot %u, %u bytes, variant %u, align %u, fade %u", op->thread,
		        op_name((enum op_kind)op->kind), op->other, op->slot, op->size, op->variant,
		        1u << op->align_shift, op->fade);
		if (op->kind == DO_CREATE)
			fprintf(out, ", buffer_size %u, buffer_count %u, limit %u KiB",
			        op->buffer_shift ? 1u << op->buffer_shift : 0, op->buffer_count, op->limit_kib);
		fputc('\n', out);
	}
}
