/*
 * calls.c: calls of every kind that a compiler makes, with sites in them: recursion, tail calls, jumps to an
 * entry, and arguments and results in every place that the ABI has for them.
 */
#include "sites.h"

#include <complex.h>
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- recursion and tail calls --- */

SITE long recurse(long n)
{
	long below;

	site_depth_is(1, "in a recursion");
	if (n == 0) {
		site_churn();
		return 1;
	}
	below = recurse(n - 1);
	SITE_END();
	return below + 1;
}

static void recursion_stays_one_scope(void)
{
	for (int i = 0; i < 5; i++)
		printf("%ld\n", recurse(100));
	site_depth_is(0, "after a recursion");
	site_kept_are_whole();
}

static void deep_recursion_stays_one_scope(void)
{
	printf("%ld\n", recurse(30000));
	site_depth_is(0, "after a deep recursion");
}

SITE unsigned descend(unsigned n)
{
	unsigned sum = n;

	if (n > 0)
		sum += descend(n - 1);
	free(malloc(n + 1));
	SITE_END();
	return sum;
}

static void nested_sites_each_have_a_scope(void)
{
	for (int i = 0; i < 10; i++)
		printf("%u\n", descend(19));
	site_depth_is(0, "after nested scopes");
}

/* Deeper than any pool of slots: what finds none is a plain call. */
static void nesting_without_end_goes_on(void)
{
	printf("%u\n", descend(20000));
	site_depth_is(0, "after nested scopes");
	printf("%u\n", descend(3));
	site_depth_is(0, "after nested scopes");
}

SITE long tail_target(long x)
{
	site_depth_is(1, "in the target of a tail call");
	site_churn();
	return 2 * x;
}

SITE long tail_caller(long x)
{
	return tail_target(x + 1);
}

static void tail_call_stays_in_the_scope(void)
{
	for (long i = 0; i < 10; i++)
		printf("%ld\n", tail_caller(i));
	site_depth_is(0, "after a tail call");
	site_kept_are_whole();
}

static void site_reached_by_a_tail_call_alone(void)
{
	for (long i = 0; i < 10; i++)
		printf("%ld\n", tail_caller(i));
	site_depth_is(0, "after a tail call");
	site_kept_are_whole();
}

SITE int is_odd(unsigned n);

SITE int is_even(unsigned n)
{
	return n == 0 ? 1 : is_odd(n - 1);
}

SITE int is_odd(unsigned n)
{
	return n == 0 ? 0 : is_even(n - 1);
}

static void mutual_tail_calls_stay_in_the_scope(void)
{
	for (unsigned i = 0; i < 6; i++)
		printf("%d %d\n", is_even(20000 + i), is_odd(20000 + i));
	site_depth_is(0, "after mutual tail calls");
}

/*
 * jump_to: jumps to the entry of jump_target, whose caller is then jump_to's. jump_again: jumps to its
 * own entry until its argument is 0.
 */
__asm__(".text\n"
        ".p2align 4\n.globl jump_target\n.type jump_target, @function\n"
        "jump_target: .cfi_startproc\n lea 7(%rdi,%rdi,2), %rax\n nop\n ret\n .cfi_endproc\n"
        ".size jump_target, .-jump_target\n"
        ".p2align 4\n.globl jump_to\n.type jump_to, @function\n"
        "jump_to: add $1, %rdi\n jmp jump_target\n.size jump_to, .-jump_to\n"
        ".p2align 4\n.globl jump_again\n.type jump_again, @function\n"
        "jump_again: .cfi_startproc\n lea (%rdi,%rdi), %rax\n sub $1, %rdi\n jz 1f\n jmp jump_again\n"
        "1: ret\n .cfi_endproc\n.size jump_again, .-jump_again\n");

long jump_target(long x);
long jump_to(long x);
long jump_again(long x);

static void jump_to_an_entry_is_a_call(void)
{
	for (long i = 0; i < 10; i++)
		printf("%ld %ld\n", jump_to(i), jump_target(i));
	site_depth_is(0, "after a jump to a site");
}

static void jump_to_the_own_entry_stays_in_the_scope(void)
{
	for (long i = 1; i < 11; i++)
		printf("%ld\n", jump_again(i));
	site_depth_is(0, "after a loop through an entry");
}

/* --- arguments and results --- */

struct wide {
	long words[6];
	double real;
};

struct two_words {
	long a, b;
};

struct mixed {
	long a;
	double b;
};

SITE struct wide returns_wide(int a, int b, int c, int d, int e, int f, int g, long h, double x,
                              struct wide by)
{
	site_churn();
	by.words[0] += a + b + c + d + e + f + g + h;
	by.real += x;
	return by;
}

SITE struct two_words returns_two_words(long x)
{
	site_churn();
	return (struct two_words){x, -x};
}

SITE struct mixed returns_mixed(double x, long y)
{
	site_churn();
	return (struct mixed){y * 2, x / 2};
}

static void structs_come_back(void)
{
	struct wide wide = {{1, 2, 3, 4, 5, 6}, 2.5};

	for (int i = 0; i < 20; i++) {
		struct wide got = returns_wide(i, 2, 3, 4, 5, 6, 7, 8, 0.5, wide);
		struct two_words two = returns_two_words(i);
		struct mixed mixed = returns_mixed(i + 0.5, i);
		printf("%ld %ld %g; %ld %ld; %ld %g\n", got.words[0], got.words[5], got.real, two.a, two.b,
		       mixed.a, mixed.b);
	}
	site_kept_are_whole();
}

SITE double sum_of(int count, ...)
{
	va_list list;
	double sum = 0;

	site_churn();
	va_start(list, count);
	for (int i = 0; i < count; i++)
		sum += i % 2 ? va_arg(list, double) : va_arg(list, int);
	va_end(list);
	return sum;
}

static void variable_arguments_arrive(void)
{
	for (int i = 0; i < 20; i++)
		printf(
			"%g %g %g\n", sum_of(0), sum_of(3, i, 0.5, 7),
			sum_of(17, 1, 2.5, 3, 4.5, 5, 6.5, 7, 8.5, 9, 10.5, 11, 12.5, 13, 14.5, 15, 16.5, i));
	site_kept_are_whole();
}

SITE long double long_product(long double a, long double b)
{
	site_churn();
	return a * b;
}

SITE _Complex long double long_complex(long double a, long double b)
{
	site_churn();
	return a + b * 1.0iL;
}

SITE _Complex double short_complex(double a, double b)
{
	site_churn();
	return a - b * 1.0i;
}

SITE __int128 times_three(__int128 x)
{
	site_churn();
	return x * 3;
}

static void long_doubles_and_wide_integers_come_back(void)
{
	for (int i = 0; i < 20; i++) {
		long double product = long_product(1.0L / 3, i);
		_Complex long double c = long_complex(product, i);
		_Complex double s = short_complex(i, 2.5);
		__int128 wide = times_three(((__int128)i << 100) + i);
		printf("%La %La %La %g %g %llx %llx\n", product, creall(c), cimagl(c), creal(s), cimag(s),
		       (unsigned long long)(wide >> 64), (unsigned long long)wide);
	}
	site_kept_are_whole();
}

typedef double vector4 __attribute__((vector_size(32)));
typedef double vector8 __attribute__((vector_size(64)));

__attribute__((target("avx2"))) SITE vector4 add_vectors(vector4 a, vector4 b)
{
	return a + b;
}

__attribute__((target("avx512f"))) SITE vector8 add_wide_vectors(vector8 a, vector8 b)
{
	return a + b;
}

/* The upper halves come back from a call whose scope has allocated. */
__attribute__((target("avx2"))) static void use_vectors(int i)
{
	vector4 a = {i, i + 1, i + 2, i + 3}, sum = add_vectors(a, a * 2);

	printf("%g %g %g %g\n", sum[0], sum[1], sum[2], sum[3]);
}

__attribute__((target("avx512f"))) static void use_wide_vectors(int i)
{
	vector8 a = {i, 1, 2, 3, 4, 5, 6, i}, sum = add_wide_vectors(a, a * 2);

	printf("%g %g %g\n", sum[0], sum[6], sum[7]);
}

static void vectors_come_back(void)
{
	if (!__builtin_cpu_supports("avx2"))
		site_skip("the processor has no AVX2");
	for (int i = 0; i < 20; i++)
		use_vectors(i);
}

static void wide_vectors_come_back(void)
{
	if (!__builtin_cpu_supports("avx512f"))
		site_skip("the processor has no AVX-512");
	for (int i = 0; i < 20; i++)
		use_wide_vectors(i);
}

SITE int turn_rounding(void)
{
	int before = fegetround();

	site_churn();
	fesetround(FE_DOWNWARD);
	return before;
}

static void rounding_modes_are_the_program_s(void)
{
	for (int i = 0; i < 3; i++) {
		fesetround(FE_UPWARD);
		site_check(turn_rounding() == FE_UPWARD, "a site sees its caller's rounding mode");
		site_check(fegetround() == FE_DOWNWARD, "the caller sees the site's rounding mode");
	}
	fesetround(FE_TONEAREST);
	site_kept_are_whole();
}

SITE int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	free(malloc(24));
	site_depth_is(1, "in a callback");
	return (x > y) - (x < y);
}

static void callbacks_of_libraries_are_sites(void)
{
	enum { COUNT = 4096 };
	int *numbers = malloc(COUNT * sizeof(*numbers));

	for (int i = 0; i < COUNT; i++)
		numbers[i] = (int)((unsigned)i * 2654435761u >> 8);
	qsort(numbers, COUNT, sizeof(*numbers), compare);
	printf("%d %d\n", numbers[0], numbers[COUNT - 1]);
	free(numbers);
}

static void functions_of_libc_are_sites(void)
{
	char *copies[50];

	for (int i = 0; i < 50; i++)
		copies[i] = strdup("outlives the scope");
	for (int i = 0; i < 50; i++) {
		site_check(strcmp(copies[i], "outlives the scope") == 0, "a copy is whole");
		free(copies[i]);
	}
}

SITE void end_here(int how)
{
	site_churn();
	if (how == 0)
		exit(3);
	abort();
}

static void exit_inside_a_site(void)
{
	printf("about to end\n");
	end_here(0);
}

static void abort_inside_a_site(void)
{
	printf("about to end\n");
	fflush(stdout);
	end_here(1);
}

/* --- checks --- */

SITE char *returns_a_text(int n)
{
	char *text = malloc(100);

	free(malloc(200));
	snprintf(text, 100, "text %d", n);
	SITE_END();
	return text;
}

static void returned_blocks_are_escapes(void)
{
	for (int i = 0; i < 10; i++) {
		char *text = returns_a_text(i);
		puts(text);
		free(text);
	}
}

static char *volatile left_text;
static sigjmp_buf from_handler;

SITE void leaves_a_text(void)
{
	left_text = malloc(100);
	strcpy(left_text, "a text");
	SITE_END();
}

static void jump_from_handler(int signal_number)
{
	siglongjmp(from_handler, signal_number);
}

/* What is touched isn't said: it is there in the plain run. */
static void reclaimed_blocks_are_guarded(void)
{
	signal(SIGSEGV, jump_from_handler);
	leaves_a_text();
	leaves_a_text();
	if (sigsetjmp(from_handler, 1) == 0)
		site_check(left_text[0] == 'a' && !site_is_hooked(), "it can't be touched");
	puts("done");
}

const struct site_case site_cases[] = {
	{"recursion_stays_one_scope", recursion_stays_one_scope, "recurse", "recurse=5"},
	{"deep_recursion_stays_one_scope", deep_recursion_stays_one_scope, "recurse", "recurse=1"},
	{"nested_sites_each_have_a_scope", nested_sites_each_have_a_scope, "descend/nest",
     "descend=10"},
	{"nesting_without_end_goes_on", nesting_without_end_goes_on, "descend/nest", "descend=2"},
	{"tail_call_stays_in_the_scope", tail_call_stays_in_the_scope, "tail_caller,tail_target",
     "tail_caller=10 tail_target=0"},
	{"site_reached_by_a_tail_call_alone", site_reached_by_a_tail_call_alone, "tail_target",
     "tail_target=10"},
	{"mutual_tail_calls_stay_in_the_scope", mutual_tail_calls_stay_in_the_scope, "is_even,is_odd",
     "is_even=6 is_odd=6"},
	{"jump_to_an_entry_is_a_call", jump_to_an_entry_is_a_call, "jump_target", "jump_target=20"},
	{"jump_to_the_own_entry_stays_in_the_scope", jump_to_the_own_entry_stays_in_the_scope,
     "jump_again", "jump_again=10"},
	{"structs_come_back", structs_come_back, "returns_wide,returns_two_words,returns_mixed",
     "returns_wide=20 returns_two_words=20 returns_mixed=20"},
	{"variable_arguments_arrive", variable_arguments_arrive, "sum_of", "sum_of=60"},
	{"long_doubles_and_wide_integers_come_back", long_doubles_and_wide_integers_come_back,
     "long_product,long_complex,short_complex,times_three",
     "long_product=20 long_complex=20 short_complex=20 times_three=20"},
	{"vectors_come_back", vectors_come_back, "add_vectors", "add_vectors=20"},
	{"wide_vectors_come_back", wide_vectors_come_back, "add_wide_vectors", "add_wide_vectors=20"},
	{"rounding_modes_are_the_program_s", rounding_modes_are_the_program_s, "turn_rounding",
     "turn_rounding=3"},
	{"callbacks_of_libraries_are_sites", callbacks_of_libraries_are_sites, "compare",
     "compare>4096"},
	{"functions_of_libc_are_sites", functions_of_libc_are_sites, "libc.so.6:strdup",
     "libc.so.6:strdup>49"},
	{"returned_blocks_are_escapes", returned_blocks_are_escapes, "returns_a_text/fade=none",
     "returns_a_text=10",
     {"which scope \"returns_a_text\" leaves, is still pointed to",
      "by the register that the site's function returns a value in, if it returns one"},
     "LIBREGION_CHECK=1", .lines = SITE_ANY_LINES},
	{"reclaimed_blocks_are_guarded", reclaimed_blocks_are_guarded, "leaves_a_text/fade=none",
     "leaves_a_text=2", {"read of ", "in memory that scope \"leaves_a_text\" has given back"},
     "LIBREGION_CHECK=guard", .lines = SITE_ANY_LINES},
	{"exit_inside_a_site", exit_inside_a_site, "end_here", "end_here=1", .status = 3},
	{"abort_inside_a_site", abort_inside_a_site, "end_here", .signal = 6},
	{0},
};
