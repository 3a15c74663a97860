/*
 * code.c: what code is taken for when its entry is to be rewritten, and what it does afterwards.
 *
 * The functions are bytes, so that it is certain what they begin with. They lie in memory that plays a
 * module's text; each has a symbol, and padding behind it.
 */
#define _GNU_SOURCE
#include "unit.h"

#include "scopes/code.h"
#include "scopes/slot.h"

#define TEXT_BYTES ((size_t)4096)
#define FUNCTION_BYTES 64 /* from one to the next */

#define NOP8 "\x0f\x1f\x84\x00\x00\x00\x00\x00"

struct text {
	struct elf_module module;
	char *bytes;
	size_t count;
	size_t sizes[TEXT_BYTES / FUNCTION_BYTES];
};

static void begin_text(struct text *text)
{
	scopes_begin();
	require(code_start() == NULL, "%s", code_start());
	text->bytes = os_map_near((uintptr_t)begin_text, (uintptr_t)begin_text + 1, TEXT_BYTES);
	require(text->bytes, "no memory");
	memset(text->bytes, 0xcc, TEXT_BYTES);
	text->module = (struct elf_module){
		.bias = (uintptr_t)text->bytes,
		.texts = {{(uintptr_t)text->bytes, (uintptr_t)text->bytes + TEXT_BYTES}},
		.text_count = 1,
	};
	text->count = 0;
}

/* A function, with `padding` bytes of no-operations behind it and something else after that. */
static uintptr_t add_function(struct text *text, const char *code, size_t bytes, size_t padding)
{
	char *at = text->bytes + text->count * FUNCTION_BYTES;

	memset(at, 0xf4, FUNCTION_BYTES); /* hlt */
	memcpy(at, code, bytes);
	memset(at + bytes, 0x90, padding);
	text->sizes[text->count++] = bytes;
	return (uintptr_t)at;
}

static void each_function(void *context, elf_visitor *visitor, void *visitor_context)
{
	const struct text *text = context;

	for (size_t i = 0; i < text->count; i++)
		visitor(visitor_context, &(struct elf_function){.name = "f",
		                                                .value = i * FUNCTION_BYTES,
		                                                .bytes = text->sizes[i]});
}

#define CODE(text) text, sizeof(text) - 1

static struct code_plan plan_one(struct text *text, const char *code, size_t bytes, size_t padding)
{
	struct code_plan plan = {.bytes = bytes};

	plan.at = add_function(text, code, bytes, padding);
	code_plan(&text->module, &plan, 1, each_function, text);
	return plan;
}

Test(code, entries_are_rewritten_where_that_is_safe)
{
	static const struct row {
		const char *what, *code;
		size_t bytes, padding;
		enum code_way way;
		unsigned moved;
	} rows[] = {
		{"push; mov; sub", CODE("\x55\x48\x89\xe5\x48\x83\xec\x10\xc9\xc3"), 0, CODE_ENTRY, 8},
		{"endbr64 stays", CODE("\xf3\x0f\x1e\xfa\xb8\x01\x00\x00\x00\xc3"), 0, CODE_ENTRY, 5},
		{"padding behind a short one", CODE("\x89\xf8\xc3"), 8, CODE_ENTRY, 3},
		{"a short one without", CODE("\x89\xf8\xc3"), 0, CODE_REFUSED, 3},
		{"ret", CODE("\xc3"), 15, CODE_ENTRY, 1},
		{"a jump as the first", CODE("\xeb\x02\x90\x90\x31\xc0\xc3"), 0, CODE_REFUSED, 2},
		{"a loop back into it", CODE("\xff\xcf\x75\xfc\x31\xc0\x90\xc3"), 0, CODE_ENTRY, 6},
		{"a loop back behind the first", CODE("\x31\xc0\xff\xcf\x75\xfc\x90\x90\xc3"), 7, CODE_HOP,
	     2},
		{"and no padding", CODE("\x31\xc0\xff\xcf\x75\xfc\x90\x90\xc3"), 0, CODE_REFUSED, 6},
		{"a loop to its second byte", CODE("\x90\x31\xc0\xff\xcf\x75\xfa\x90\xc3"), 7, CODE_REFUSED,
	     5},
		{"a call hops", CODE("\x48\x83\xec\x08\xe8\x10\x00\x00\x00\xc3"), 6, CODE_HOP, 4},
		{"or is made a push and a jump", CODE("\x48\x83\xec\x08\xe8\x10\x00\x00\x00\xc3"), 0,
	     CODE_ENTRY, 9},
		{"jrcxz", CODE("\xe3\x05\x90\x90\x90\x90\x90\xc3"), 0, CODE_REFUSED, 0},
		{"a breakpoint", CODE("\xcc\x48\x89\xe5\x48\x83\xec\x10\xc3"), 0, CODE_REFUSED, 0},
		{"no instruction", CODE("\x06\x48\x89\xe5\x48\x83\xec\x10\xc3"), 0, CODE_REFUSED, 0},
	};
	struct text text;

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		begin_text(&text);
		struct code_plan plan = plan_one(&text, rows[i].code, rows[i].bytes, rows[i].padding);
		require(plan.way == rows[i].way, "%s: way %d, %s", rows[i].what, plan.way,
		        plan.refusal ? plan.refusal : "");
		require((plan.way == CODE_REFUSED) == (plan.refusal != NULL), "%s", rows[i].what);
		require(plan.way == CODE_REFUSED || plan.moved_bytes == rows[i].moved, "%s: %u bytes",
		        rows[i].what, plan.moved_bytes);
	}
}

Test(code, a_long_jump_from_anywhere_in_the_text_is_seen)
{
	static const char plain[] = "\x55\x48\x89\xe5\x48\x83\xec\x10\xc9\xc3";
	static const unsigned char operations[][2] = {{0xe8}, {0xe9}, {0x0f, 0x84}};
	struct text text;

	for (size_t i = 0; i < COUNT_OF(operations); i++)
		for (int32_t behind = 0; behind < 7; behind++) {
			begin_text(&text);
			struct code_plan plan = {.at = add_function(&text, plain, sizeof(plain) - 1, 0),
			                         .bytes = 10};
			unsigned prefix = operations[i][1] != 0;
			char *from = text.bytes + 1001 + 7 * behind;
			int32_t distance =
				(int32_t)((intptr_t)plan.at + behind - ((intptr_t)from + 5 + (intptr_t)prefix));
			memcpy(from, operations[i], 1 + prefix);
			memcpy(from + 1 + prefix, &distance, sizeof(distance));
			code_plan(&text.module, &plan, 1, each_function, &text);
			bool is_harmless = behind == 0 || behind >= 5;
			require((plan.way == CODE_ENTRY) == is_harmless, "%d bytes behind, %02x: %d", behind,
			        operations[i][0], plan.way);
		}
}

Test(code, a_long_jump_is_seen_at_each_place_of_the_text)
{
	static const char plain[] = "\x55\x48\x89\xe5\x48\x83\xec\x10\xc9\xc3";
	static const unsigned char operations[][2] = {{0xe8}, {0xe9}, {0x0f, 0x8f}};
	struct text text;

	begin_text(&text);
	add_function(&text, plain, sizeof(plain) - 1, 0);
	for (size_t i = 0; i < 2 * (TEXT_BYTES - 6); i++) {
		size_t place = i / 2, behind = i % 2 ? 2 : 20;
		const unsigned char *operation = operations[place % COUNT_OF(operations)];
		unsigned prefix = operation[1] != 0;
		char *from = text.bytes + place, *at = text.bytes + (place < 2000 ? 3000 : 1000);
		struct code_plan plan = {.at = (uintptr_t)at, .bytes = 10};

		memset(text.bytes, 0xf4, TEXT_BYTES);
		memcpy(at, plain, sizeof(plain) - 1);
		int32_t distance = (int32_t)(at + behind - (from + 5 + prefix));
		memcpy(from, operation, 1 + prefix);
		memcpy(from + 1 + prefix, &distance, sizeof(distance));
		code_plan(&text.module, &plan, 1, each_function, &text);
		require(plan.way == (behind == 2 ? CODE_REFUSED : CODE_ENTRY), "%02x at %zu: %d", operation[0],
		        place, plan.way);
	}
}

Test(code, padding_is_given_to_one_only)
{
	/* Both need the seven bytes between them. */
	static const char back[] = "\x31\xc0\xff\xcf\x75\xfc\x90\x90\xc3";
	struct text text;
	struct code_plan plans[2] = {{.bytes = 9}, {.bytes = 9}};

	begin_text(&text);
	plans[0].at = add_function(&text, back, 9, 7);
	plans[1].at = add_function(&text, back, 9, 0);
	code_plan(&text.module, plans, 2, each_function, &text);
	require(plans[0].way == CODE_HOP && plans[1].way == CODE_REFUSED, "%d %d", plans[0].way,
	        plans[1].way);
	require(plans[0].padding == plans[0].at + 9, "%zx", (size_t)(plans[0].padding - plans[0].at));
}

Test(code, an_offset_is_a_function_or_a_call)
{
	static const char caller[] = "\x55\xe8\x01\x00\x00\x00\xc3\x31\xc0\xe8\xe8\xe8\x00\x00\xc3";
	struct text text;

	for (unsigned offset = 0; offset < 15; offset++) {
		begin_text(&text);
		uintptr_t start = add_function(&text, caller, sizeof(caller) - 1, 0);
		struct code_plan plan = {.at = start + offset, .may_be_call = true, .start = start};
		code_plan(&text.module, &plan, 1, each_function, &text);
		enum code_way way = offset == 0                  ? CODE_ENTRY
		                    : offset == 1 || offset == 9 ? CODE_CALL
		                                                 : CODE_REFUSED;
		require(plan.way == way, "+%u: %d", offset, plan.way);
	}
}

/* What is left of a function by its moved instructions and the rest of it must do what it did. */
Test(code, moved_instructions_do_the_same)
{
	static const struct row {
		const char *what, *code;
		size_t bytes;
		long arg, result;
	} rows[] = {
		{"mov; ret", CODE("\x48\x89\xf8\x48\x83\xc0\x07\xc3"), 5, 12},
		{"an operand relative to rip", CODE("\x48\x8b\x05\x01\x00\x00\x00\xc3\x2a\0\0\0\0\0\0\0"),
	     0, 42},
		{"an operand before an immediate",
	     CODE("\x80\x3d\x07\x00\x00\x00\x2a\x0f\x94\xc0\x0f\xb6\xc0\xc3\x2a"), 0, 1},
		{"lea relative to rip",
	     CODE("\x48\x8d\x05\xf9\xff\xff\xff\x48\x2b\x04\x24\x48\x31\xc0\xc3"), 0, 0},
		{"a short branch taken", CODE("\x31\xc0\x85\xff\x74\x03\x83\xc0\x05\xc3"), 0, 0},
		{"and not taken", CODE("\x31\xc0\x85\xff\x74\x03\x83\xc0\x05\xc3"), 1, 5},
		{"a short jump", CODE("\x31\xc0\x66\x90\xeb\x02\x0f\x0b\x83\xc0\x03\xc3"), 0, 3},
		{"a call",
	     CODE("\x48\x83\xec\x08\xe8\x05\x00\x00\x00\x48\x83\xc4\x08\xc3\xb8\x09\x00\x00\x00\xc3"),
	     0, 9},
		{"a loop to the entry", CODE("\xff\xcf\x75\xfc\x8d\x47\x04\xc3"), 3, 4},
	};
	struct text text;
	static uint64_t site;

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		begin_text(&text);
		struct code_plan plan = plan_one(&text, rows[i].code, rows[i].bytes, 0);
		char *stub =
			os_map_near((uintptr_t)text.bytes, (uintptr_t)text.bytes + TEXT_BYTES, OS_PAGE);
		require(stub && plan.way == CODE_ENTRY, "%s: %d", rows[i].what, plan.way);
		long (*resume)(long) = (long (*)(long))(uintptr_t)code_make(&plan, stub, &site, slot_entry);
		require(resume && os_seal_code(stub, OS_PAGE) && os_seal_code(text.bytes, TEXT_BYTES), "%s",
		        rows[i].what);
		long result = resume(rows[i].arg);
		require(result == rows[i].result, "%s: %ld", rows[i].what, result);
	}
}

/* The module that this test is. */

static int find_program(struct dl_phdr_info *info, size_t size, void *context)
{
	static char path[ELF_PATH_BYTES];

	(void)size;
	elf_module_set(context, info, true, path);
	return 1;
}

__attribute__((noinline, used)) static int a_static_function(int x)
{
	__asm__ volatile("" : "+r"(x));
	return x;
}

struct found {
	uintptr_t at;
	size_t bytes;
};

static void find_static(void *context, const struct elf_function *function)
{
	struct found *found = context;

	if (strcmp(function->name, "a_static_function") == 0)
		*found = (struct found){function->value, function->bytes};
}

Test(code, functions_of_a_module_are_found)
{
	struct elf_module module;
	struct found found = {0};
	uintptr_t address = (uintptr_t)a_static_function;

	dl_iterate_phdr(find_program, &module);
	require(elf_each_function(&module, ELF_SYMTAB, find_static, &found), "no .symtab");
	require(module.bias + found.at == address, "%zx", (size_t)found.at);
	require(elf_text_of(&module, address) && !elf_text_of(&module, (uintptr_t)&found), "texts");
	require(elf_function_start(&module, address + found.bytes - 1) == address, "%zx",
	        (size_t)(elf_function_start(&module, address) - module.bias));
	require(elf_has_section(&module, ".text") && !elf_has_section(&module, ".txet"), "sections");
	require(module.build_id_bytes == 0 || module.build_id_bytes >= 8, "%zu", module.build_id_bytes);
	elf_module_close(&module);
}
