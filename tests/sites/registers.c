/*
 * registers.c: every register is the program's, on the way into a site and on the way out.
 *
 * call_with_all() fills all registers from `given` and calls the site, which notes in `inside` what it
 * finds, fills all registers from `returned`, also those that a callee must not change, and returns;
 * what is there then goes to `after`. Compilers do keep values in registers that the ABI gives to the
 * callee: where they see the callee, they know which of them it leaves alone. The very first call takes
 * a longer way through the library than the others, and allocation in the scope another one, so there
 * are calls of each kind.
 */
#include "sites.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registers {
	uint64_t general[16]; /* rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15 */
	uint8_t vector[16][32];
};

struct registers given, inside, returned, after;

enum { RSP = 7 };

#define GENERAL(X) \
	X("rax", "0") \
	X("rbx", "8") \
	X("rcx", "16") \
	X("rdx", "24") \
	X("rsi", "32") \
	X("rdi", "40") \
	X("rbp", "48") \
	X("r8", "64") \
	X("r9", "72") \
	X("r10", "80") \
	X("r11", "88") \
	X("r12", "96") \
	X("r13", "104") \
	X("r14", "112") \
	X("r15", "120")
#define VECTOR(X, size) \
	X("0", "128", size) \
	X("1", "160", size) \
	X("2", "192", size) \
	X("3", "224", size) \
	X("4", "256", size) \
	X("5", "288", size) \
	X("6", "320", size) \
	X("7", "352", size) \
	X("8", "384", size) \
	X("9", "416", size) \
	X("10", "448", size) \
	X("11", "480", size) \
	X("12", "512", size) \
	X("13", "544", size) \
	X("14", "576", size) \
	X("15", "608", size)

#define STORE_INSIDE(name, at) "mov %" name ", inside+" at "(%rip)\n"
#define LOAD_RETURNED(name, at) "mov returned+" at "(%rip), %" name "\n"
#define LOAD_GIVEN(name, at) "mov given+" at "(%rip), %" name "\n"
#define STORE_AFTER(name, at) "mov %" name ", after+" at "(%rip)\n"
#define V_STORE_INSIDE(n, at, size) "vmovdqu %" size "mm" n ", inside+" at "(%rip)\n"
#define V_LOAD_RETURNED(n, at, size) "vmovdqu returned+" at "(%rip), %" size "mm" n "\n"
#define V_LOAD_GIVEN(n, at, size) "vmovdqu given+" at "(%rip), %" size "mm" n "\n"
#define V_STORE_AFTER(n, at, size) "vmovdqu %" size "mm" n ", after+" at "(%rip)\n"

/* call_with_all saves what its caller wants back. The stack pointer at the call goes to after[RSP]. */
__asm__(
	".text\n.globl all_registers\n.type all_registers, @function\n.p2align 4\n"
	"all_registers: .cfi_startproc\n" GENERAL(STORE_INSIDE) "mov %rsp, inside+56(%rip)\n" VECTOR(
		V_STORE_INSIDE, "y") GENERAL(LOAD_RETURNED)
		VECTOR(V_LOAD_RETURNED,
               "y") "ret\n .cfi_endproc\n.size all_registers, .-all_registers\n"
					".globl call_with_all\n.type call_with_all, @function\n.p2align 4\n"
					"call_with_all:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n "
                    "push %r15\n sub $8, %rsp\n" GENERAL(LOAD_GIVEN) VECTOR(
						V_LOAD_GIVEN,
						"y") "mov %rsp, after+56(%rip)\n call all_registers\n" GENERAL(STORE_AFTER)
						VECTOR(V_STORE_AFTER, "y") "vzeroupper\n"
												   "add $8, %rsp\n pop %r15\n pop %r14\n pop "
                                                   "%r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
												   ".size call_with_all, .-call_with_all\n");

void call_with_all(void);

static void fill(struct registers *r, uint64_t seed)
{
	uint8_t *bytes = (uint8_t *)r;

	for (size_t i = 0; i < sizeof(*r); i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		bytes[i] = (uint8_t)(seed >> 56);
	}
}

static void check_same(const struct registers *a, const struct registers *b, const char *which)
{
	char text[80];

	for (int i = 0; i < 16; i++) {
		snprintf(text, sizeof(text), "%s, general register %d is the same", which, i);
		site_check(i == RSP || a->general[i] == b->general[i], text);
		snprintf(text, sizeof(text), "%s, vector register %d is the same", which, i);
		site_check(memcmp(a->vector[i], b->vector[i], 32) == 0, text);
	}
}

static void call_once(uint64_t seed)
{
	fill(&given, seed);
	fill(&returned, ~seed);
	call_with_all();
	check_same(&given, &inside, "on entry");
	check_same(&returned, &after, "on return");
	site_check(inside.general[RSP] + 8 == after.general[RSP], "the stack pointer is a call's");
}

static void need_avx(void)
{
	if (!__builtin_cpu_supports("avx"))
		site_skip("the processor has no AVX");
}

static void registers_survive_entry_and_exit(void)
{
	need_avx();
	for (uint64_t i = 0; i < 1000; i++)
		call_once(i);
	site_depth_is(0, "after the calls");
}

static void *call_in_a_thread(void *unused)
{
	call_once(7);
	return unused;
}

/* The first entry of a thread asks for its stack, and makes its heap. */
static void registers_survive_a_thread_s_first_entry(void)
{
	pthread_t thread;

	need_avx();
	for (int i = 0; i < 50; i++) {
		pthread_create(&thread, NULL, call_in_a_thread, NULL);
		pthread_join(thread, NULL);
	}
}

SITE void around(uint64_t seed, int blocks)
{
	void *first = malloc(100);

	for (int i = 0; i < blocks; i++)
		site_churn();
	call_once(seed);
	free(first);
	SITE_END();
}

/* Both are sites, so the inner scope's end finds blocks of the outer one, and the outer's its survivors. */
static void registers_survive_in_nested_scopes(void)
{
	need_avx();
	for (uint64_t i = 0; i < 100; i++)
		around(i, (int)i % 5);
	site_depth_is(0, "after the calls");
	site_kept_are_whole();
}

/* A filter that doesn't match, and a site that is open already, are ways of their own. */
static void registers_survive_where_no_scope_is_entered(void)
{
	need_avx();
	for (uint64_t i = 0; i < 100; i++)
		around(i, 0);
	site_depth_is(0, "after the calls");
}

const struct site_case site_cases[] = {
	{"registers_survive_entry_and_exit", registers_survive_entry_and_exit, "all_registers",
     "all_registers=1000"},
	{"registers_survive_a_thread_s_first_entry", registers_survive_a_thread_s_first_entry,
     "all_registers", "all_registers=50"},
	{"registers_survive_in_nested_scopes", registers_survive_in_nested_scopes,
     "around/nest,all_registers/nest", "around=100 all_registers=100"},
	{"registers_survive_where_no_scope_is_entered", registers_survive_where_no_scope_is_entered,
     "around,all_registers@site_churn", "around=100 all_registers@site_churn=0"},
	{0},
};
