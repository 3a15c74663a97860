/*
 * program.c: makes programs from seeds, and prints them.
 *
 * Each program first draws its taste: the weight of each kind of operation (some kinds don't occur at
 * all), how many slots are in use, how big blocks get. Uniform choices over everything would make all
 * programs alike; what breaks allocators is the lopsided ones.
 */
#include "program.h"

#include "random.h"
#include "region.h"

#include <stdlib.h>

struct taste {
	unsigned weights[OP_KINDS];
	unsigned weight_sum;
	unsigned slots;
	unsigned size_shift;  /* sizes are below 1 << size_shift */
	uint32_t common_size; /* of half the blocks in programs that have one; else 0 */
	unsigned run;         /* operations in a row by one thread, on average */
};

static const unsigned base_weights[OP_KINDS] = {
#define OP_WEIGHT(kind, weight) [OP_##kind] = weight,
	OP_MAP(OP_WEIGHT)
#undef OP_WEIGHT
};

const char *op_name(enum op_kind kind)
{
	static const char *const names[OP_KINDS] = {
#define OP_NAME(kind, weight) [OP_##kind] = #kind,
		OP_MAP(OP_NAME)
#undef OP_NAME
	};
	return names[kind];
}

bool scope_form_has_options(unsigned form)
{
	return form != FORM_DO && form != FORM_HANDLE_PLAIN;
}

static void draw_weights(struct taste *taste, uint64_t *rng)
{
	taste->weight_sum = 0;
	for (int kind = 0; kind < OP_KINDS; kind++) {
		bool always = kind == OP_MALLOC || kind == OP_FREE || kind == OP_LEAVE;
		unsigned times = !always && random_one_in(rng, 4) ? 0 : 1 + (unsigned)random_below(rng, 4);
		taste->weights[kind] = base_weights[kind] * times;
		taste->weight_sum += taste->weights[kind];
	}
}

static struct taste draw_taste(uint64_t *rng, bool free_running)
{
	static const unsigned slots[] = {4, 16, 64, 256, PROGRAM_SLOTS};
	static const unsigned shifts[] = {5, 7, 10, 10, 12, 13, 14, 16, 18, 21};

	struct taste taste = {0};
	draw_weights(&taste, rng);
	taste.slots = slots[random_below(rng, sizeof slots / sizeof *slots)];
	taste.size_shift = shifts[random_below(rng, sizeof shifts / sizeof *shifts)];
	if (random_one_in(rng, 3))
		taste.common_size = (uint32_t)random_scaled(rng, taste.size_shift);
	taste.run = free_running ? 1 : 1u << random_below(rng, 6);
	return taste;
}

static enum op_kind draw_kind(const struct taste *taste, uint64_t *rng)
{
	unsigned left = (unsigned)random_below(rng, taste->weight_sum);
	int kind = 0;
	while (left >= taste->weights[kind])
		left -= taste->weights[kind++];
	return (enum op_kind)kind;
}

static uint32_t draw_size(const struct taste *taste, uint64_t *rng)
{
	if (taste->common_size && random_one_in(rng, 2))
		return taste->common_size;
	/* half of them close below a power of two: where size classes and markers change */
	uint32_t size = (uint32_t)random_scaled(rng, taste->size_shift);
	if (random_one_in(rng, 4))
		size = (1u << random_below(rng, taste->size_shift + 1)) - (uint32_t)random_below(rng, 3) + 1;
	return size;
}

static struct op draw_op(const struct taste *taste, uint64_t *rng, unsigned thread, unsigned threads)
{
	static const uint8_t buffer_shifts[] = {0, 0, 16, 16, 17, 20};
	static const uint32_t limits[] = {0, 0, 0, 1, 64, 128, 256, 1024};
	static const uint8_t fades[] = {
		REGION_FADE_DEFAULT, REGION_FADE_REACHABLE, REGION_FADE_UNFREED,
		REGION_FADE_NONE, REGION_FADE_NONE, REGION_FADE_NONE,
	};

	struct op op = {0};
	op.kind = (uint8_t)draw_kind(taste, rng);
	op.thread = (uint8_t)thread;
	op.variant = (uint8_t)random_below(rng, 240); /* a multiple of every number of variants */
	op.fade = fades[random_below(rng, sizeof fades)];
	op.named = !random_one_in(rng, 4);
	op.align_shift = (uint8_t)random_below(rng, random_one_in(rng, 8) ? 21 : 13);
	op.buffer_shift = buffer_shifts[random_below(rng, sizeof buffer_shifts)];
	op.buffer_count = (uint8_t)random_below(rng, 4);
	op.slot = (uint16_t)random_below(rng, taste->slots);
	op.other = (uint16_t)random_below(rng, op.kind == OP_HAND ? threads : taste->slots);
	op.limit_kib = limits[random_below(rng, sizeof limits / sizeof *limits)];
	op.size = draw_size(taste, rng);
	if (op.kind == OP_SCOPE)
		op.variant %= FORMS;
	return op;
}

struct program program_generate(uint64_t seed, size_t count, unsigned threads)
{
	uint64_t rng = seed;
	struct program program = {.seed = seed, .count = count, .threads = threads};
	unsigned drawn = random_one_in(&rng, 2) ? 1 : 2 + (unsigned)random_below(&rng, PROGRAM_THREADS - 1);
	if (threads == 0)
		program.threads = drawn;
	program.free_running = random_one_in(&rng, 2) && program.threads > 1;

	struct taste taste = draw_taste(&rng, program.free_running);
	program.ops = calloc(count + 1, sizeof *program.ops);
	if (!program.ops)
		abort();
	unsigned thread = 0;
	for (size_t i = 0; i < count; i++) {
		if (random_one_in(&rng, taste.run))
			thread = (unsigned)random_below(&rng, program.threads);
		program.ops[i] = draw_op(&taste, &rng, thread, program.threads);
	}
	return program;
}

static void print_scope(FILE *out, const struct op *op)
{
	static const char *const forms[FORMS] = {
		[FORM_DO] = "region_do",
		[FORM_DO_WITH] = "region_do_with",
		[FORM_HANDLE] = "region_enter_with",
		[FORM_HANDLE_PLAIN] = "region_enter",
		[FORM_BLOCK] = "REGION_SCOPE_WITH",
		[FORM_HANDLE_HEAP] = "region_enter_with, handle not on the stack,",
	};
	static const char *const fades[] = {"default", "unfreed", "reachable", "none"};

	fprintf(out, "%s", forms[op->variant]);
	if (!scope_form_has_options(op->variant))
		return;
	fprintf(out, " fade=%s%s", fades[op->fade], op->named ? " named" : "");
	if (op->buffer_shift)
		fprintf(out, " buffer_size=%u", 1u << op->buffer_shift);
	if (op->buffer_count)
		fprintf(out, " buffer_count=%u", op->buffer_count);
	if (op->limit_kib)
		fprintf(out, " limit_bytes=%u", op->limit_kib * 1024);
}

static void print_aligned(FILE *out, const struct op *op)
{
	static const char *const names[] = {"aligned_alloc", "memalign", "posix_memalign", "valloc", "pvalloc"};
	unsigned which = op->variant % 5;
	if (which < 3)
		fprintf(out, "s%u = %s(%u, %u)", op->slot, names[which], 1u << op->align_shift, op->size);
	else
		fprintf(out, "s%u = %s(%u)", op->slot, names[which], op->size);
}

static void print_op(FILE *out, const struct op *op)
{
	switch ((enum op_kind)op->kind) {
	case OP_MALLOC: fprintf(out, "s%u = malloc(%u)", op->slot, op->size); break;
	case OP_CALLOC: fprintf(out, "s%u = calloc of %u bytes", op->slot, op->size); break;
	case OP_ALIGNED: print_aligned(out, op); break;
	case OP_HUGE: fprintf(out, "huge request, variant %u, s%u", op->variant % 4, op->slot); break;
	case OP_REALLOC:
		fprintf(out, "s%u = realloc%s(s%u, %u)", op->slot, op->variant % 8 == 1 ? "array" : "",
		        op->slot, op->variant % 16 ? op->size : 0);
		break;
	case OP_FREE: fprintf(out, "free(s%u), variant %u", op->slot, op->variant % 4); break;
	case OP_STRETCH: fprintf(out, "use all of malloc_usable_size(s%u)", op->slot); break;
	case OP_KEEP: fprintf(out, "region_keep(s%u)", op->slot); break;
	case OP_COPY_OUT: fprintf(out, "s%u = region_copy_out(s%u)", op->slot, op->other); break;
	case OP_ASK: fprintf(out, "ask about pointers, and s%u", op->slot); break;
	case OP_SCOPE: print_scope(out, op); break;
	case OP_IGNORE: fprintf(out, "region_ignore"); break;
	case OP_LEAVE: fprintf(out, "leave"); break;
	case OP_JUMP: fprintf(out, "longjmp out of scopes (1 + %u modulo depth)", op->other); break;
	case OP_ON_EXIT: fprintf(out, "region_on_exit, variant %u", op->variant % 2); break;
	case OP_HAND: fprintf(out, "hand s%u to t%u", op->slot, op->other); break;
	case OP_TAKE: fprintf(out, "s%u = take", op->slot); break;
	case OP_RESPAWN: fprintf(out, "pthread_exit, and a new thread"); break;
	case OP_SWEEP: fprintf(out, "check all blocks"); break;
	case OP_STATS: fprintf(out, "region_stats_read"); break;
	case OP_TRIM: fprintf(out, "malloc_trim"); break;
	case OP_KINDS: break;
	}
}

void program_print(FILE *out, const struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		fprintf(out, "    t%u  ", program->ops[i].thread);
		print_op(out, &program->ops[i]);
		fputc('\n', out);
	}
}
