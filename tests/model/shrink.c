/*
 * shrink.c: makes a failing program small enough to be read.
 *
 * Deleting comes first, in chunks from half of the program down to single operations (delta debugging),
 * then a scope together with its leave; then the operations that remain are made plainer, one member at
 * a time. All of it is repeated until nothing helps any more. A program whose threads run freely fails
 * only now and then, so it gets several chances each time.
 */
#include "run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HANG_MS 5000
#define HANG_MS_KNOWN 500 /* once it is a hang that is looked for */
#define CHANCES_FREE_RUNNING 12

struct shrinking {
	struct program *program;
	struct report *report;
	struct outcome last; /* of the latest run that failed with the cause looked for */
	time_t deadline;
};

static time_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

static bool still_fails(struct shrinking *shrinking)
{
	int chances = shrinking->program->free_running ? CHANCES_FREE_RUNNING : 1;
	unsigned patience = shrinking->last.cause == SIGALRM ? HANG_MS_KNOWN : HANG_MS;
	while (chances-- > 0 && now() < shrinking->deadline) {
		struct outcome outcome =
			run_program(shrinking->program, shrinking->report, patience, true);
		if (outcome.cause == shrinking->last.cause) {
			shrinking->last = outcome;
			return true;
		}
	}
	return false;
}

static void swap_ops(struct program *program, struct op **ops, size_t *count)
{
	struct op *other_ops = *ops;
	size_t other_count = *count;
	*ops = program->ops;
	*count = program->count;
	program->ops = other_ops;
	program->count = other_count;
}

/* Tries the program without operations [from, from + count) and [second, second + count_second). */
static bool try_without(struct shrinking *shrinking, size_t from, size_t count, size_t second,
                        size_t count_second)
{
	struct program *program = shrinking->program;
	struct op *fewer = malloc((program->count + 1) * sizeof *fewer);
	if (!fewer)
		abort();
	size_t kept = 0;
	for (size_t i = 0; i < program->count; i++)
		if (i - from >= count && i - second >= count_second)
			fewer[kept++] = program->ops[i];
	swap_ops(program, &fewer, &kept);
	bool fails = still_fails(shrinking);
	if (!fails)
		swap_ops(program, &fewer, &kept);
	free(fewer);
	return fails;
}

static bool delete_chunks(struct shrinking *shrinking)
{
	bool helped = false;
	for (size_t chunk = shrinking->program->count / 2; chunk > 0; chunk /= 2)
		for (size_t end = shrinking->program->count; end > 0;) {
			size_t from = end > chunk ? end - chunk : 0;
			if (try_without(shrinking, from, end - from, 0, 0))
				helped = true;
			end = from;
			if (end > shrinking->program->count)
				end = shrinking->program->count;
		}
	return helped;
}

static bool opens(const struct op *op)
{
	return op->kind == OP_SCOPE || op->kind == OP_IGNORE;
}

/* The leave that goes with the scope at `at`, or the end. */
static size_t matching_leave(const struct program *program, size_t at)
{
	unsigned depth = 1;
	for (size_t i = at + 1; i < program->count; i++) {
		if (program->ops[i].thread != program->ops[at].thread)
			continue;
		depth += opens(&program->ops[i]);
		depth -= program->ops[i].kind == OP_LEAVE;
		if (depth == 0)
			return i;
	}
	return program->count;
}

static bool delete_scopes(struct shrinking *shrinking)
{
	struct program *program = shrinking->program;
	bool helped = false;
	for (size_t i = program->count; i-- > 0;)
		if (i < program->count && opens(&program->ops[i]) &&
		    try_without(shrinking, i, 1, matching_leave(program, i), 1))
			helped = true;
	return helped;
}

/* Replaces the operation at `at` if the program still fails. */
static bool try_op(struct shrinking *shrinking, size_t at, struct op op)
{
	struct op *place = &shrinking->program->ops[at];
	struct op before = *place;
	if (memcmp(&before, &op, sizeof op) == 0)
		return false;
	*place = op;
	if (still_fails(shrinking))
		return true;
	*place = before;
	return false;
}

static bool try_size(struct shrinking *shrinking, size_t at, uint32_t size)
{
	struct op plainer = shrinking->program->ops[at];
	plainer.size = size;
	return try_op(shrinking, at, plainer);
}

/* The smallest size that still fails, if failing is monotonous in it. */
static bool shrink_size(struct shrinking *shrinking, size_t at)
{
	const struct op *op = &shrinking->program->ops[at];
	uint32_t before = op->size;
	uint32_t passes = 0;
	if (op->size == 0 || try_size(shrinking, at, 0))
		return before != 0;
	while (op->size - passes > 1) {
		uint32_t middle = passes + (op->size - passes) / 2;
		if (!try_size(shrinking, at, middle))
			passes = middle;
	}
	return op->size != before;
}

#define TRY_MEMBER(member, value) \
	(plainer = shrinking->program->ops[at], plainer.member = (value), \
	 try_op(shrinking, at, plainer))

static bool make_plain(struct shrinking *shrinking, size_t at)
{
	struct op plainer;
	bool helped = shrink_size(shrinking, at);
	helped |= TRY_MEMBER(thread, 0);
	helped |= TRY_MEMBER(align_shift, 0);
	helped |= TRY_MEMBER(limit_kib, 0);
	helped |= TRY_MEMBER(buffer_shift, 0);
	helped |= TRY_MEMBER(buffer_count, 0);
	helped |= TRY_MEMBER(named, 0);
	helped |= TRY_MEMBER(fade, 1);
	if (plainer.kind == OP_SCOPE)
		helped |= TRY_MEMBER(variant, FORM_DO_WITH);
	return helped;
}

static bool make_all_plain(struct shrinking *shrinking)
{
	bool helped = false;
	for (size_t i = 0; i < shrinking->program->count; i++)
		helped |= make_plain(shrinking, i);
	return helped;
}

/* Moves the operations of one thread to another. */
static bool try_merge(struct shrinking *shrinking, unsigned from, unsigned to)
{
	struct program *program = shrinking->program;
	size_t bytes = program->count * sizeof *program->ops;
	struct op *before = malloc(bytes + 1);
	if (!before)
		abort();
	memcpy(before, program->ops, bytes);
	for (size_t i = 0; i < program->count; i++)
		if (program->ops[i].thread == from)
			program->ops[i].thread = (uint8_t)to;
	bool fails = still_fails(shrinking);
	if (!fails)
		memcpy(program->ops, before, bytes);
	free(before);
	return fails;
}

/* In turns is better than at once, one thread better than several. */
static void tame_threads(struct shrinking *shrinking)
{
	struct program *program = shrinking->program;
	bool free_running = program->free_running;
	program->free_running = false;
	if (free_running && !still_fails(shrinking))
		program->free_running = true;
	while (program->threads > 1) {
		program->threads--;
		if (!try_merge(shrinking, program->threads, program->threads - 1)) {
			program->threads++;
			return;
		}
	}
}

struct outcome shrink_program(struct program *program, struct report *report,
                              const struct outcome *found, unsigned seconds)
{
	struct shrinking shrinking = {program, report, *found, now() + (time_t)seconds};
	try_without(&shrinking, found->op_count, program->count - found->op_count, 0, 0);
	bool helped = true;
	while (helped && now() < shrinking.deadline) {
		helped = delete_chunks(&shrinking);
		helped |= delete_scopes(&shrinking);
		helped |= make_all_plain(&shrinking);
		tame_threads(&shrinking);
	}
	return shrinking.last;
}
