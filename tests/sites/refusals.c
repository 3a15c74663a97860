/*
 * refusals.c: what can't be a site is refused in one line, with the reason, and its calls are plain
 * calls. What is written wrongly is said with its place. The program runs on in every case.
 */
#include "sites.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * bare: one byte, with no padding around it. back_branch: a loop back to its second instruction.
 * tight_loop: a jump that can't be widened among the first instructions. There is no padding near any.
 */
__asm__(
	".text\n.p2align 4\n"
	".globl bare\n.type bare, @function\nbare: ret\n.size bare, .-bare\n"
	".globl neighbour\n.type neighbour, @function\nneighbour: lea 1(%rdi), %rax\n ret\n"
	".size neighbour, .-neighbour\n"
	".fill 300, 1, 0xf8\n"
	".globl back_branch\n.type back_branch, @function\n"
	"back_branch: xor %eax, %eax\n1: add $3, %rax\n sub $1, %rdi\n jnz 1b\n ret\n"
	".size back_branch, .-back_branch\n"
	".fill 300, 1, 0xf8\n"
	".globl tight_loop\n.type tight_loop, @function\n"
	"tight_loop: mov %edi, %ecx\n jrcxz 2f\n lea 1(%rcx,%rcx), %rax\n ret\n2: mov $1, %eax\n ret\n"
	".size tight_loop, .-tight_loop\n"
	".fill 300, 1, 0xf8\n");

void bare(void);
long neighbour(long x);
long back_branch(long x);
long tight_loop(long x);

SITE long fine(long x)
{
	free(malloc(30));
	return x * 2;
}

static long resolved(long x)
{
	return x * 4;
}

__attribute__((used)) static long (*choose(void))(long)
{
	return resolved;
}

long chosen(long x) __attribute__((ifunc("choose")));

static const long some_data = 7;

static void call_all(void)
{
	jmp_buf here;

	for (long i = 1; i < 10; i++) {
		bare();
		printf("%ld %ld %ld %ld %ld\n", neighbour(i), back_branch(i), tight_loop(i), fine(i),
		       chosen(i));
	}
	printf("%d\n", setjmp(here));
	printf("%ld\n", some_data);
	site_depth_is(0, "after the calls");
}

#define MEMBER(name) \
	{ \
#name, (const void *)(name) \
	}

const struct site_symbol site_symbols[] = {
	MEMBER(fine),
	{"some_data", &some_data},
	MEMBER(bare),
	{0},
};

#define NOT_A_SITE(name, site, reason) \
	{ \
		name, call_all, site, site "=0", \
		{ \
			"site \"" site "\": " reason \
		} \
	}
#define BAD_SITE(name, text, place, reason) \
	{ \
		name, call_all, text, "fine=9", {"LIBREGION_SITES, character " place, reason}, .lines = 1 \
	}

const struct site_case site_cases[] = {
	NOT_A_SITE("too_short", "bare", ""),
	NOT_A_SITE("branch_into_the_first_instructions", "back_branch", ""),
	NOT_A_SITE("loop_instruction_among_the_first", "tight_loop", ""),
	NOT_A_SITE("chosen_at_load", "chosen", ""),
	NOT_A_SITE("no_such_function", "fnie", "no such function"),
	NOT_A_SITE("no_such_function_in_the_module", "libc.so.6:fine", "no such function"),
	NOT_A_SITE("misspelt_module", "libz_no.so:fine", "no"),
	NOT_A_SITE("offset_beyond_the_module", "%P+0x7fffffff0", ""),
	NOT_A_SITE("offset_of_data", "%P+%{some_data}", ""),
	NOT_A_SITE("another_build_id", "%P[0123456789abcdef]+%{fine}", ""),
	NOT_A_SITE("the_setjmp_family", "libc.so.6:_setjmp", ""),
	NOT_A_SITE("vfork_itself", "libc.so.6:vfork", ""),
	NOT_A_SITE("dlopen_looks_at_its_caller", "libc.so.6:dlopen", ""),
	NOT_A_SITE("the_program_s_start", "_start", ""),
	NOT_A_SITE("the_loader", "ld-linux-x86-64.so.2:_dl_debug_state", ""),
	NOT_A_SITE("libregion_itself", "libregion:region_do", ""),
	NOT_A_SITE("no_such_caller", "fine@nobody", ""),
	BAD_SITE("no_name", "fine,/nest", "6", "/nest"),
	BAD_SITE("no_function_after_the_module", "fine,libc:", "11", "libc:"),
	BAD_SITE("no_caller_after_the_at", "fine,neighbour@", "16", "neighbour@"),
	BAD_SITE("unknown_option", "fine,neighbour/nst", "16", "nst"),
	BAD_SITE("option_without_a_value", "fine,neighbour/fade", "16", "fade"),
	BAD_SITE("unknown_policy", "fine,neighbour/fade=nothing", "21", "nothing"),
	BAD_SITE("size_that_is_none", "fine,neighbour/limit_bytes=many", "28", "many"),
	BAD_SITE("offset_that_is_none", "fine,%P+0xzz", "", "0xzz"),
	{"one_refused_among_good_ones",
     call_all,
     "bare,fine,fnie,neighbour",
     "fine=9 bare=0 fnie=0",
     {"site \"bare\"", "site \"fnie\""}},
	{0},
};
