/*
 * code_x86_64.c: rewriting code for x86-64, with the help of Zydis.
 *
 * Zydis is a disassembler library that allocates nothing. It is loaded when there are sites, so that
 * programs without any don't have it, and nothing but this file knows of it. It gets a namespace with a
 * libc of its own: dlopen would start the program's libc before its time, and without its arguments.
 *
 * What must hold for the bytes that are overwritten:
 *   - they begin with the function's first instruction (behind an endbr64, which stays);
 *   - nothing jumps to any of them but to the first: the function's own body is decoded for short jumps,
 *     and the whole text is searched, byte by byte, for what could be a long jump or call to there. Hits that
 *     aren't instructions cost a site now and then, and are rare: one in a million of bytes;
 *   - beyond the end of the function there is only padding: bytes that belong to no symbol, up to the next
 *     multiple of 16, that decode as no-operations or breakpoints.
 *
 * What is moved must mean the same elsewhere: operands relative to the instruction pointer and long
 * jumps get a new displacement, short ones become long. A call can't be moved as it is, because the
 * address that it pushes would lie where no unwinder knows its way: it becomes a push of the address that
 * it had and a jump, and only if there is no other way, because the processor then mispredicts the return.
 */
#include "code_x86_64.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <emmintrin.h>
#include <string.h>

#include "core/core.h"

#define PADDING_ALIGN 16u
#define FEW_BYTES ((size_t)64 << 10) /* from the first site of a text to its last */
#define BODY_BYTES 256u /* a short jump to the entry can't come from further away */

/* Reasons. */
#define WHY_SHORT "the function is too short, and there is no padding for a jump"
#define WHY_JUMPED_TO "there is a jump to its first instructions, and no padding for a hop"
#define WHY_CALL "it begins with an indirect call"
#define WHY_LOOP "it begins with a loop instruction or a transaction"
#define WHY_UNKNOWN "its first instructions can't be decoded"
#define WHY_BREAKPOINT "there is a breakpoint at its entry (a debugger?)"
#define WHY_OUTSIDE "the address isn't in code of the module"
#define WHY_INSIDE "the address is neither the beginning of a function nor a direct call"
#define WHY_MEMORY "there is no memory to look at the module's code"

static struct decoder {
	ZydisDecoder settings;
	__typeof__(ZydisDecoderDecodeInstruction) *decode;
	void *library;
} decoder;

const char *code_start(void)
{
	/* Through dlsym: a program that is linked statically must not come to need dlmopen. */
	__typeof__(dlmopen) *open = (__typeof__(dlmopen) *)(uintptr_t)dlsym(RTLD_DEFAULT, "dlmopen");
	void *library = open ? open(LM_ID_NEWLM, SITES_ZYDIS, RTLD_NOW | RTLD_LOCAL) : NULL;

	if (decoder.decode)
		return NULL;
	if (!library)
		return SITES_ZYDIS " can't be loaded";
	__typeof__(ZydisDecoderInit) *init =
		(__typeof__(ZydisDecoderInit) *)(uintptr_t)dlsym(library, "ZydisDecoderInit");
	__typeof__(ZydisDecoderDecodeInstruction) *decode =
		(__typeof__(ZydisDecoderDecodeInstruction) *)(uintptr_t)dlsym(
			library, "ZydisDecoderDecodeInstruction");
	if (!init || !decode ||
	    !ZYAN_SUCCESS(init(&decoder.settings, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return SITES_ZYDIS " isn't what it should be";
	decoder.decode = decode;
	decoder.library = library;
	return NULL;
}

void code_end(void)
{
	if (decoder.library)
		dlclose(decoder.library);
	decoder.library = NULL;
	decoder.decode = NULL;
}

/* Instructions. */

static enum instruction_kind kind_of_relative(const ZydisDecodedInstruction *in)
{
	switch (in->meta.category) {
	case ZYDIS_CATEGORY_UNCOND_BR:
		return JUMP;
	case ZYDIS_CATEGORY_CALL:
		return CALL;
	case ZYDIS_CATEGORY_COND_BR:
		/* 70 to 7f and 0f 80 to 0f 8f; the others count in rcx. */
		return (in->opcode & 0xf0) == 0x70 || (in->opcode & 0xf0) == 0x80 ? BRANCH : ODD;
	default:
		return ODD;
	}
}

static enum instruction_kind kind_of(const ZydisDecodedInstruction *in)
{
	bool is_call = in->meta.category == ZYDIS_CATEGORY_CALL;

	if (in->raw.imm[0].is_relative)
		return kind_of_relative(in);
	if (in->mnemonic == ZYDIS_MNEMONIC_INT3)
		return BREAKPOINT;
	if (is_call)
		return ODD_CALL;
	if (in->attributes & ZYDIS_ATTRIB_IS_RELATIVE)
		return RELATIVE_OPERAND;
	return in->mnemonic == ZYDIS_MNEMONIC_NOP ? PADDING : PLAIN;
}

struct instruction code_decode(uintptr_t at, uintptr_t end)
{
	ZydisDecodedInstruction in;
	size_t room = end - at < ZYDIS_MAX_INSTRUCTION_LENGTH ? end - at : ZYDIS_MAX_INSTRUCTION_LENGTH;

	if (at >= end ||
	    !ZYAN_SUCCESS(decoder.decode(&decoder.settings, NULL, (const void *)at, room, &in)))
		return (struct instruction){.kind = UNKNOWN, .bytes = 1};
	struct instruction result = {.kind = kind_of(&in), .bytes = in.length};
	result.is_last =
		in.meta.category == ZYDIS_CATEGORY_UNCOND_BR || in.meta.category == ZYDIS_CATEGORY_RET;
	uintptr_t next = at + in.length;
	if (in.raw.imm[0].is_relative)
		result.target = next + (uintptr_t)in.raw.imm[0].value.s;
	else if (result.kind == RELATIVE_OPERAND)
		result.target = next + (uintptr_t)in.raw.disp.value;
	result.operand_at = in.raw.disp.offset;
	result.condition = in.opcode & 15;
	return result;
}

/* Looking. */

static const char *why_not_moved(enum instruction_kind kind)
{
	switch (kind) {
	case BREAKPOINT:
		return WHY_BREAKPOINT;
	case ODD:
		return WHY_LOOP;
	case ODD_CALL:
		return WHY_CALL;
	case UNKNOWN:
		return WHY_UNKNOWN;
	default:
		return NULL;
	}
}

/* The first instructions, as far as they reach into `wanted` bytes. */
struct beginning {
	unsigned bytes;
	bool is_end; /* the last one of the function, in a way */
	bool has_call;
	const char *refusal;
};

static struct beginning look_at(const struct code_plan *plan, uintptr_t end, unsigned wanted)
{
	struct beginning result = {0};

	while (result.bytes < wanted && !result.is_end) {
		struct instruction in = code_decode(plan->from + result.bytes, end);
		result.refusal = why_not_moved(in.kind);
		if (result.refusal)
			return result;
		result.bytes += in.bytes;
		/* What comes back from a call comes back to where the call was. */
		result.has_call |= in.kind == CALL;
		result.is_end = in.is_last || in.kind == CALL;
	}
	return result;
}

/* Which bytes behind the entry does the function itself jump to? */
static void note_own_jumps(struct code_plan *plan, uintptr_t end)
{
	uintptr_t stop = plan->at + (plan->bytes ? plan->bytes : BODY_BYTES);

	if (stop > plan->from + BODY_BYTES)
		stop = plan->from + BODY_BYTES;
	for (uintptr_t at = plan->from; at < stop && at < end;) {
		struct instruction in = code_decode(at, end);
		uintptr_t behind = in.target - plan->from;
		bool jumps = in.kind == JUMP || in.kind == BRANCH || in.kind == ODD || in.kind == CALL;
		if (jumps && behind > 0 && behind < JUMP_BYTES)
			plan->targets |= 1u << behind;
		at += in.bytes;
	}
}

/* A bit for each byte of a text. */
struct bits {
	uint64_t *words;
	uintptr_t lo, hi;
};

static bool bits_has(const struct bits *bits, uintptr_t at)
{
	return at - bits->lo < bits->hi - bits->lo &&
	       bits->words[(at - bits->lo) / 64] >> (at - bits->lo) % 64 & 1;
}

static void bits_add(struct bits *bits, uintptr_t lo, uintptr_t hi)
{
	lo = lo < bits->lo ? bits->lo : lo;
	hi = hi > bits->hi ? bits->hi : hi;
	for (uintptr_t at = lo; at < hi;) {
		size_t bit = (at - bits->lo) % 64, count = 64 - bit < hi - at ? 64 - bit : hi - at;
		bits->words[(at - bits->lo) / 64] |= (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1)
		                                     << bit;
		at += count;
	}
}

static size_t bits_bytes(const struct elf_text *text)
{
	return ((text->hi - text->lo) / 64 + 1) * sizeof(uint64_t);
}

/* A pass over a text: the plans in it, and what is known of its bytes. */
struct pass {
	struct code_plan *plans;
	size_t count;
	const struct elf_text *text;
	uintptr_t lo, hi;   /* of all the bytes that might be overwritten */
	struct bits wanted; /* those bytes, but for the first of each plan */
	struct bits taken;  /* by functions */
	uintptr_t bias;
};

static bool is_in(const struct pass *pass, const struct code_plan *plan)
{
	return plan->from >= pass->text->lo && plan->from < pass->text->hi && !plan->refusal;
}

static __attribute__((cold, noinline)) void note_target(struct pass *pass, uintptr_t target,
                                                        uintptr_t from)
{
	for (size_t i = 0; i < pass->count; i++) {
		struct code_plan *plan = &pass->plans[i];
		uintptr_t behind = target - plan->from;
		/* A hit inside the bytes themselves is no jump. */
		if (behind > 0 && behind < JUMP_BYTES && from - plan->from >= plan->moved_bytes)
			plan->targets |= 1u << behind;
	}
}

/* What might be a long jump, branch or call at `at`. */
static inline void scan_at(struct pass *pass, const unsigned char *at)
{
	unsigned prefix = *at == 0x0f;
	int32_t distance;

	if (prefix && (at[1] & 0xf0) != 0x80)
		return;
	memcpy(&distance, at + 1 + prefix, sizeof(distance));
	uintptr_t target = (uintptr_t)at + 5 + prefix + (uintptr_t)(intptr_t)distance;
	if (target - pass->lo < pass->hi - pass->lo && bits_has(&pass->wanted, target))
		note_target(pass, target, (uintptr_t)at);
}

/* e8, e9 and 0f, from `at` on, sixteen bytes at a time. */
static void scan_opcodes(struct pass *pass, const unsigned char *at, const unsigned char *end)
{
	const __m128i even = _mm_set1_epi8((char)0xfe), call = _mm_set1_epi8((char)0xe8);
	const __m128i prefix = _mm_set1_epi8(0x0f);

	for (; at + 16 <= end; at += 16) {
		__m128i bytes = _mm_loadu_si128((const __m128i *)at);
		__m128i hits = _mm_or_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, even), call),
		                            _mm_cmpeq_epi8(bytes, prefix));
		for (unsigned mask = (unsigned)_mm_movemask_epi8(hits); mask; mask &= mask - 1)
			scan_at(pass, at + __builtin_ctz(mask));
	}
	for (; at < end; at++)
		if ((*at & 0xfe) == 0xe8 || *at == 0x0f)
			scan_at(pass, at);
}

/*
 * Which of the sixteen displacements at `at`, one at each byte, lead to where something might be overwritten?
 * `shift` makes a displacement at the first of every four bytes, to behind its four bytes, the distance from
 * pass->lo, as the least of signed numbers.
 */
static inline bool may_lead_there(const unsigned char *at, __m128i shift, __m128i limit)
{
	__m128i hits = _mm_setzero_si128();

	for (int i = 0; i < 4; i++) {
		__m128i distances = _mm_loadu_si128((const __m128i *)(at + i));
		__m128i places = _mm_add_epi32(distances, _mm_add_epi32(shift, _mm_set1_epi32(i)));
		hits = _mm_or_si128(hits, _mm_cmplt_epi32(places, limit));
	}
	return _mm_movemask_epi8(hits) != 0;
}

/*
 * For few sites nearly no displacement leads there, so that is asked first: there is no branch to mispredict
 * at each call of a text. The opcode of a displacement is one or two bytes before it.
 */
static void scan(struct pass *pass)
{
	const unsigned char *at = (const unsigned char *)pass->text->lo;
	const unsigned char *end = (const unsigned char *)pass->text->hi - 6;
	const __m128i limit = _mm_set1_epi32((int)(uint32_t)((pass->hi - pass->lo) + 0x80000000u));

	if (pass->hi - pass->lo > FEW_BYTES || end - at < 32) {
		scan_opcodes(pass, at, end);
		return;
	}
	scan_opcodes(pass, at, at + 1);
	for (; at + 32 <= end; at += 16) {
		uint32_t first = (uint32_t)((uintptr_t)at + 2 + 4 - pass->lo) + 0x80000000u;
		__m128i shift = _mm_add_epi32(_mm_set1_epi32((int)first), _mm_set_epi32(12, 8, 4, 0));
		if (__builtin_expect(may_lead_there(at + 2, shift, limit), 0))
			scan_opcodes(pass, at, at + 17);
	}
	scan_opcodes(pass, at, end);
}

/* Padding. */

static void note_function(void *context, const struct elf_function *function)
{
	struct pass *pass = context;
	uintptr_t lo = pass->bias + function->value;

	bits_add(&pass->taken, lo, lo + (function->bytes ? function->bytes : 1));
}

/* Bytes of padding at an address, up to the next multiple of PADDING_ALIGN. */
static unsigned padding_at(const struct pass *pass, uintptr_t at)
{
	uintptr_t end = (at + PADDING_ALIGN) & ~(uintptr_t)(PADDING_ALIGN - 1), next = at;

	while (next < end && next < pass->text->hi && !bits_has(&pass->taken, next)) {
		struct instruction in = code_decode(next, pass->text->hi);
		if (in.kind != PADDING && in.kind != BREAKPOINT)
			break;
		next += in.bytes;
	}
	/* One that goes on behind the end is no function's beginning either, but another's padding may be. */
	return (unsigned)((next < end ? next : end) - at);
}

/* Five bytes of padding that a short jump at the entry reaches; they are taken from then on. */
static uintptr_t find_padding(struct pass *pass, uintptr_t from)
{
	uintptr_t lo = from + HOP_BYTES - 128, hi = from + HOP_BYTES + 127;

	for (uintptr_t at = lo < pass->text->lo + 1 ? pass->text->lo + 1 : lo; at <= hi; at++) {
		/* Padding begins where a function ends. */
		if (bits_has(&pass->taken, at) || !bits_has(&pass->taken, at - 1))
			continue;
		if (padding_at(pass, at) < JUMP_BYTES)
			continue;
		bits_add(&pass->taken, at, at + JUMP_BYTES);
		return at;
	}
	return 0;
}

/* Choosing. */

#define BEHIND_FIRST(bytes) ((1u << (bytes)) - 2u)

/* Room for a jump where the function is, if it ends before that? */
static bool has_room(const struct pass *pass, const struct code_plan *plan,
                     const struct beginning *beginning)
{
	if (beginning->bytes >= JUMP_BYTES)
		return true;
	if (!beginning->is_end || plan->bytes > beginning->bytes + (plan->from - plan->at))
		return false;
	return beginning->bytes + padding_at(pass, plan->from + beginning->bytes) >= JUMP_BYTES;
}

static void choose(struct pass *pass, struct code_plan *plan)
{
	struct beginning whole = look_at(plan, pass->text->hi, JUMP_BYTES);
	struct beginning two = look_at(plan, pass->text->hi, HOP_BYTES);
	bool is_free = !(plan->targets & BEHIND_FIRST(JUMP_BYTES));
	bool fits = !whole.refusal && is_free && has_room(pass, plan, &whole);

	plan->moved_bytes = whole.bytes;
	plan->way = CODE_ENTRY;
	if (fits && !whole.has_call) {
		/* The padding behind it may be part of it now. */
		bits_add(&pass->taken, plan->from, plan->from + JUMP_BYTES);
		return;
	}
	bool may_hop = !two.refusal && !two.has_call && two.bytes >= HOP_BYTES &&
	               !(plan->targets & BEHIND_FIRST(HOP_BYTES));
	plan->padding = may_hop ? find_padding(pass, plan->from) : 0;
	if (plan->padding) {
		plan->way = CODE_HOP;
		plan->moved_bytes = two.bytes;
	} else if (!fits) {
		plan->way = CODE_REFUSED;
		plan->refusal = whole.refusal ? whole.refusal : is_free ? WHY_SHORT : WHY_JUMPED_TO;
	}
}

/* Is a plain jump in the first five bytes all that there is to it, as far as that can be seen alone? */
static bool is_simple(const struct code_plan *plan, uintptr_t end)
{
	struct beginning beginning = look_at(plan, end, JUMP_BYTES);

	return !beginning.refusal && !beginning.has_call && beginning.bytes >= JUMP_BYTES &&
	       !plan->targets;
}

/* Is this where an instruction begins, counted from where the function does? */
static bool is_instruction(const struct code_plan *plan, uintptr_t end)
{
	uintptr_t at = plan->start;

	while (at && at < plan->at)
		at += code_decode(at, end).bytes;
	return at == plan->at;
}

/* An offset is a call, or the beginning of a function. True: it is a call. */
static bool plan_call(struct code_plan *plan, uintptr_t end)
{
	struct instruction in = code_decode(plan->at, end);

	if (!plan->may_be_call || plan->start == plan->at)
		return false;
	if (in.kind != CALL || in.bytes != JUMP_BYTES || !is_instruction(plan, end)) {
		plan->refusal = WHY_INSIDE;
		return true;
	}
	plan->way = CODE_CALL;
	plan->from = plan->at;
	plan->moved_bytes = JUMP_BYTES;
	plan->target = in.target;
	return true;
}

static void begin_plan(const struct elf_module *module, struct code_plan *plan)
{
	static const unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
	const struct elf_text *text = elf_text_of(module, plan->at);

	plan->from = plan->at;
	plan->targets = 0;
	plan->refusal = text ? NULL : WHY_OUTSIDE;
	plan->way = CODE_REFUSED;
	if (!text || plan_call(plan, text->hi))
		return;
	if (text->hi - plan->at >= sizeof(endbr64) &&
	    memcmp((const void *)plan->at, endbr64, sizeof(endbr64)) == 0)
		plan->from += sizeof(endbr64);
	note_own_jumps(plan, text->hi);
	plan->moved_bytes = look_at(plan, text->hi, JUMP_BYTES).bytes;
}

static bool is_for_entries(const struct pass *pass, const struct code_plan *plan)
{
	return is_in(pass, plan) && plan->way != CODE_CALL;
}

/* The extent of what might be overwritten in a text; false: there is nothing. */
static bool measure(struct pass *pass)
{
	pass->lo = UINTPTR_MAX;
	pass->hi = 0;
	for (size_t i = 0; i < pass->count; i++) {
		uintptr_t from = pass->plans[i].from;
		if (!is_for_entries(pass, &pass->plans[i]))
			continue;
		pass->lo = from < pass->lo ? from : pass->lo;
		pass->hi = from + JUMP_BYTES > pass->hi ? from + JUMP_BYTES : pass->hi;
	}
	return pass->hi != 0;
}

static void find_ways(struct pass *pass, code_functions *functions, void *context)
{
	bool is_simple_all = true;

	for (size_t i = 0; i < pass->count; i++)
		if (is_for_entries(pass, &pass->plans[i]))
			bits_add(&pass->wanted, pass->plans[i].from + 1, pass->plans[i].from + JUMP_BYTES);
	scan(pass);
	for (size_t i = 0; i < pass->count; i++)
		if (is_for_entries(pass, &pass->plans[i]))
			is_simple_all &= is_simple(&pass->plans[i], pass->text->hi);
	if (!is_simple_all && functions)
		functions(context, note_function, pass);
	for (size_t i = 0; i < pass->count; i++)
		if (is_for_entries(pass, &pass->plans[i]))
			choose(pass, &pass->plans[i]);
}

static void refuse_all(struct pass *pass, const char *why)
{
	for (size_t i = 0; i < pass->count; i++)
		if (is_for_entries(pass, &pass->plans[i]))
			pass->plans[i].refusal = why;
}

void code_plan(const struct elf_module *module, struct code_plan *plans, size_t count,
               code_functions *functions, void *context)
{
	for (size_t i = 0; i < count; i++)
		begin_plan(module, &plans[i]);
	for (unsigned i = 0; i < module->text_count; i++) {
		struct pass pass = {
			.plans = plans, .count = count, .text = &module->texts[i], .bias = module->bias};
		size_t bytes = bits_bytes(pass.text);
		if (!measure(&pass))
			continue;
		char *scratch = os_map_scratch(2 * bytes);
		if (!scratch) {
			refuse_all(&pass, WHY_MEMORY);
			continue;
		}
		pass.wanted = (struct bits){(uint64_t *)(void *)scratch, pass.text->lo, pass.text->hi};
		pass.taken =
			(struct bits){(uint64_t *)(void *)(scratch + bytes), pass.text->lo, pass.text->hi};
		find_ways(&pass, functions, context);
		os_unmap(scratch, 2 * bytes);
	}
}
