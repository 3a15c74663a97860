/*
 * code_make_x86_64.c: writing what code_x86_64.c has planned.
 *
 * A stub is, at its start, what hands the site to slot_entry, and at STUB_CODE_BYTES the moved beginning
 * of the function, if there is one.
 */
#include "code_x86_64.h"

#include <assert.h>
#include <string.h>

#include "core/core.h"
#include "slot.h"

#define STUB_CODE_BYTES 32
#define PADDING_REACH 16

/* Where code is being written. */
struct writer {
	char *at;
	bool is_out_of_reach;
};

static void put(struct writer *writer, const void *bytes, size_t count)
{
	memcpy(writer->at, bytes, count);
	writer->at += count;
}

static void put_word(struct writer *writer, uintptr_t word)
{
	put(writer, &word, sizeof(word));
}

/* Four bytes that lead from where they end, and `behind` bytes more, to the target. */
static void put_distance(struct writer *writer, uintptr_t target, unsigned behind)
{
	intptr_t distance = (intptr_t)(target - ((uintptr_t)writer->at + 4 + behind));
	int32_t short_distance = (int32_t)distance;

	writer->is_out_of_reach |= distance != short_distance;
	put(writer, &short_distance, sizeof(short_distance));
}

static void put_jump(struct writer *writer, uintptr_t target)
{
	put(writer, "\xe9", 1);
	put_distance(writer, target, 0);
}

/* push of a word, and a jump by a word, both of which lie behind. */
static void put_push_and_jump(struct writer *writer, uintptr_t pushed, uintptr_t target)
{
	put(writer, "\xff\x35\x06\x00\x00\x00", 6);
	put(writer, "\xff\x25\x08\x00\x00\x00", 6);
	put_word(writer, pushed);
	put_word(writer, target);
}

static void put_moved(struct writer *writer, uintptr_t from, const struct instruction *in)
{
	char branch[2] = {0x0f, (char)(0x80 | in->condition)};

	switch (in->kind) {
	case JUMP:
		put_jump(writer, in->target);
		break;
	case BRANCH:
		put(writer, branch, 2);
		put_distance(writer, in->target, 0);
		break;
	case CALL:
		put_push_and_jump(writer, from + in->bytes, in->target);
		break;
	case RELATIVE_OPERAND:
		put(writer, (const void *)from, in->operand_at);
		put_distance(writer, in->target, in->bytes - in->operand_at - 4);
		put(writer, (const void *)(from + in->operand_at + 4), in->bytes - in->operand_at - 4);
		break;
	default:
		put(writer, (const void *)from, in->bytes);
	}
}

/* The instructions that are overwritten, and a jump to those that aren't. */
static void put_beginning(struct writer *writer, const struct code_plan *plan)
{
	struct instruction in = {0};

	for (unsigned done = 0; done < plan->moved_bytes; done += in.bytes) {
		in = code_decode(plan->from + done, plan->from + plan->moved_bytes);
		put_moved(writer, plan->from + done, &in);
	}
	if (!in.is_last && in.kind != CALL)
		put_jump(writer, plan->from + plan->moved_bytes);
}

void *code_make(const struct code_plan *plan, char *stub, const void *site, void (*arrival)(void))
{
	struct writer writer = {.at = stub};

	put_push_and_jump(&writer, (uintptr_t)site, (uintptr_t)arrival);
	if (plan->way == CODE_CALL)
		return (void *)plan->target;
	writer.at = stub + STUB_CODE_BYTES;
	put_beginning(&writer, plan);
	assert(writer.at <= stub + CODE_STUB_BYTES);
	return writer.is_out_of_reach ? NULL : stub + STUB_CODE_BYTES;
}

/* A jump or call, with its operation, at `at`. */
static bool write_jump(unsigned char operation, uintptr_t at, const char *target, int fd)
{
	int32_t distance = (int32_t)((uintptr_t)target - (at + JUMP_BYTES));
	unsigned char bytes[JUMP_BYTES] = {operation};

	memcpy(bytes + 1, &distance, sizeof(distance));
	return os_write_code(fd, at, bytes, sizeof(bytes));
}

bool code_write(const struct code_plan *plan, const char *stub, int fd)
{
	unsigned char hop[HOP_BYTES] = {0xeb, (unsigned char)(plan->padding - plan->from - HOP_BYTES)};

	switch (plan->way) {
	case CODE_ENTRY:
		return write_jump(0xe9, plan->from, stub, fd);
	case CODE_CALL:
		return write_jump(0xe8, plan->from, stub, fd);
	case CODE_HOP:
		return write_jump(0xe9, plan->padding, stub, fd) &&
		       os_write_code(fd, plan->from, hop, sizeof(hop));
	case CODE_REFUSED:
		break;
	}
	return false;
}

/* The loader's notice of new modules. */

/* The stub calls slot_with_vectors_saved(fn, NULL), which keeps every register. */
bool code_make_notifier(uintptr_t function, char *stub, void (*fn)(void *), int fd)
{
	static const unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
	const unsigned char *code = (const unsigned char *)function;
	struct writer writer = {.at = stub};

	if (memcmp(code, endbr64, sizeof(endbr64)) == 0)
		code += sizeof(endbr64);
	struct instruction behind = code_decode((uintptr_t)code + 1, (uintptr_t)code + PADDING_REACH);
	if (*code != 0xc3 || behind.kind != PADDING || behind.bytes < JUMP_BYTES - 1)
		return false;
	put(&writer, "\x50\x57\x56", 3); /* push rax, rdi, rsi */
	put(&writer, "\x48\xbf", 2);     /* mov rdi, fn */
	put_word(&writer, (uintptr_t)fn);
	put(&writer, "\x48\xb8", 2); /* mov rax, slot_with_vectors_saved */
	put_word(&writer, (uintptr_t)slot_with_vectors_saved);
	put(&writer, "\xff\xd0\x5e\x5f\x58\xc3", 6); /* call rax; pop rsi, rdi, rax; ret */
	return os_seal_code(stub, OS_PAGE) && write_jump(0xe9, (uintptr_t)code, stub, fd);
}
