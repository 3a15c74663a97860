/*
 * escapes.c: LIBREGION_CHECK=1: what a `none` scope leaves and is still pointed to is named, with the place
 * that holds the pointer; a correct program is left alone.
 *
 * Blocks that are to escape are allocated by functions of their own, since escapes of one kind are told
 * once: a kind is a scope, a stack that has allocated the block, and a sort of place.
 */
#define _GNU_SOURCE
#include "checked.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- five places --- */

static void *volatile in_data[4];
static __thread void *volatile in_tls;
static void **in_library;
static struct box {
	long unused[2];
	void *volatile held;
} *box;

static NOINLINE void to_data(void) { in_data[2] = make(32); }
static NOINLINE void to_library(void) { *in_library = make(48); }
static NOINLINE void to_tls(void) { in_tls = make(64); }
static NOINLINE void to_box(void) { box->held = make(80); }
static NOINLINE void to_stack(void **out) { *out = make(96); }

static void plant(void *out)
{
	to_data();
	to_library();
	to_tls();
	to_box();
	to_stack(out);
	free(make(112));
	make(128);
}

/* The same, mended: the scope frees, keeps or takes back what it has handed out. */
static void plant_none(void *out)
{
	plant(out);
	free(in_data[2]);
	in_data[2] = NULL;
	*in_library = NULL;
	region_keep(in_tls);
	free(box->held);
	box->held = NULL;
	*(void **)out = NULL;
}

static void load_library(void)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s", probe_path());
	char *slash = strrchr(path, '/');
	snprintf(slash ? slash + 1 : path, 64, "libprobe_late.so");
	void *library = dlopen(path, RTLD_NOW);
	CHECK(library, "%s", dlerror());
	uintptr_t *(*data)(void) = (uintptr_t * (*)(void))(uintptr_t)dlsym(library, "late_data");
	in_library = (void **)data();
}

static NOINLINE void have_a_local(void (*fn)(void *))
{
	void *local[8] = {0};
	region_do_with(&planted, fn, probe_opaque(&local[3]));
	CHECK(!local[3] || *(char *)local[3] == 7, "what escapes is kept");
}

static NOINLINE void run_five(void (*fn)(void *))
{
	load_library();
	/* The first scope has libunwind loaded. */
	region_do(free, NULL);
	box = calloc(1, sizeof(*box));
	have_a_local(fn);
}

static void check_kept(void)
{
	CHECK(*(char *)in_data[2] == 7 && *(char *)*in_library == 7 && *(char *)in_tls == 7 &&
	      *(char *)box->held == 7, "what escapes is kept");
	free(in_data[2]);
	free(in_tls);
}

static void five_escapes_are_named(void)
{
	run_five(plant);
	check_kept();
}

static const char *judge_five(const char *said)
{
	static const char *const texts[] = {
		"a block of 32 bytes", "by global in_data+0x10 (probe_escapes",
		"a block of 48 bytes", "by global data_place+0x190 (libprobe_late.so+0x",
		"a block of 64 bytes", "by thread-local in_tls+0x0 (probe_escapes",
		"a block of 80 bytes", "by a block of 32 bytes of the general heap, ", "+0x10\n",
		"a block of 96 bytes", "in a frame of have_a_local+0x",
		"#1 to_data+0x", "#1 to_library+0x", "#1 to_tls+0x", "#1 to_box+0x", "#1 to_stack+0x",
		"that block was allocated at:\nlibregion:     #0 run_five+0x",
		"scope ended at:\nlibregion:     #0 have_a_local+0x",
		"5 blocks of 320 bytes in all were still pointed to, 0 late frees",
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strstr(said, texts[i]))
			return texts[i];
	return count_is(said, "which scope \"planted\" leaves", 5);
}

/* --- JSON --- */

static char *read_findings(void)
{
	static char text[1 << 18], path[4096];
	snprintf(path, sizeof(path), "%s", probe_path());
	char *slash = strrchr(path, '/');
	snprintf(slash ? slash + 1 : path, 64, "escapes.%d.json", (int)getpid());
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0, "the file is there: %s", path);
	ssize_t length = read(fd, text, sizeof(text) - 1);
	text[length < 0 ? 0 : length] = '\0';
	close(fd);
	unlink(path);
	return text;
}

/* Brackets match, outside of strings, and there is nothing behind the last. */
static bool is_object(const char *at, const char *end)
{
	char open[64];
	size_t depth = 0;
	bool is_string = false;

	for (; at < end; at++) {
		if (is_string && *at == '\\')
			at++;
		else if (*at == '"')
			is_string = !is_string;
		else if (!is_string && (*at == '{' || *at == '['))
			open[depth++ % sizeof(open)] = *at == '{' ? '}' : ']';
		else if (!is_string && (*at == '}' || *at == ']') && (depth == 0 || open[--depth] != *at))
			return false;
		if (depth == 0 && at + 1 < end)
			return false;
	}
	return depth == 0 && !is_string;
}

static void five_escapes_are_objects(void)
{
	static const char *const texts[] = {
		"\"held_by\": {\"place\": \"global\", \"address\"", "\"symbol\": \"in_data\", \"symbol_offset\": 16",
		"\"symbol\": \"data_place\", \"symbol_offset\": 400, \"module\": \"libprobe_late.so\"",
		"\"place\": \"thread-local\"", "\"symbol\": \"in_tls\"",
		"\"place\": \"heap block\"", "\"offset\": 16, \"allocated\": [{\"address\"",
		"\"place\": \"stack\"", "\"symbol\": \"have_a_local\"",
		"\"scope\": \"planted\"", "\"bytes\": 96, \"blocks\": 1",
	};
	run_five(plant);
	char *text = read_findings();
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		CHECK(strstr(text, texts[i]), "%s in %s", texts[i], text);
	int lines = 0;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++)
		CHECK(is_object(line, end), "a line is an object: %.*s", (int)(end - line), line);
	CHECK(lines == 5, "there are %d lines", lines);
}

/* --- correct programs --- */

static void corrected_program_is_silent(void)
{
	run_five(plant_none);
	CHECK(*(char *)in_tls == 7, "what was kept is there");
	free(in_tls);
}

/* Words that are left over on the stack of a thread that has gone deeper before. */
static NOINLINE void fill_stack(void *p)
{
	void *volatile words[200];
	for (int i = 0; i < 200; i++)
		words[i] = p;
	probe_opaque((void *)words);
}

static void leave_and_fill(void *unused)
{
	fill_stack(make(64));
	(void)unused;
}

static NOINLINE void call_deeper(int depth)
{
	char room[512];
	probe_opaque(room);
	if (depth > 0)
		call_deeper(depth - 1);
	else
		region_do_with(&planted, leave_and_fill, NULL);
	probe_opaque(room);
}

static void leftover_words_are_no_escapes(void)
{
	for (int i = 0; i < 50; i++) {
		call_deeper(i % 8);
		region_do_with(&planted, leave_and_fill, NULL);
		free(make(100));
	}
}

/* They lie above the handle, where callers' frames are. */
static NOINLINE void have_a_block(void)
{
	struct {
		struct region_scope scope;
		void *volatile dead[4];
	} variables;
	region_enter_with(&variables.scope, &planted);
	for (int i = 0; i < 4; i++)
		variables.dead[i] = make(64);
	region_leave(&variables.scope);
	probe_opaque(&variables);
}

static void dead_variables_of_a_block_are_no_escapes(void)
{
	for (int i = 0; i < 10; i++)
		have_a_block();
}

static void what_nothing_points_to_is_reclaimed(void)
{
	struct region_stats stats;
	for (int i = 0; i < 100; i++)
		region_do_with(&planted, leave_and_fill, NULL);
	CHECK(region_stats_read_scope("planted", &stats) == 0, "the scope has statistics");
	CHECK(stats.blocks_reclaimed == 100 && stats.blocks_faded == 0 && stats.blocks_allocated == 100,
	      "%d reclaimed, %d faded", (int)stats.blocks_reclaimed, (int)stats.blocks_faded);
}

static void leave_much(void *unused)
{
	for (int i = 0; i < 1000; i++)
		make(1000);
	(void)unused;
}

static void memory_stays_flat(void)
{
	for (int i = 0; i < 100; i++)
		region_do_with(&planted, leave_much, NULL);
	size_t before = probe_resident();
	for (int i = 0; i < 300; i++)
		region_do_with(&planted, leave_much, NULL);
	CHECK(probe_resident() < before + ((size_t)24 << 20), "%zu KB more", (probe_resident() - before) >> 10);
}

/* --- kinds --- */

static void *held[1000];

static NOINLINE void hold_one(int i) { held[i] = make(40); }

static void hold_ten(void *from)
{
	for (int i = 0; i < 10; i++)
		hold_one((int)(intptr_t)from + i);
}

static void a_kind_is_told_once(void)
{
	for (int i = 0; i < 100; i++)
		region_do_with(&planted, hold_ten, (void *)(intptr_t)(i * 10));
	for (int i = 0; i < 1000; i++) {
		CHECK(*(char *)held[i] == 7, "all are kept");
		free(held[i]);
	}
}

static const char *judge_once(const char *said)
{
	if (!strstr(said, "with 9 more of its kind, 480 bytes in all"))
		return "doesn't say how many more there are at this end";
	if (!strstr(said, "1000 blocks of 48000 bytes in all were still pointed to, 0 late frees"))
		return "doesn't count all, or what is kept can't be freed";
	return count_is(said, "leaves, is still pointed to", 1);
}

struct node {
	struct node *next;
	char room[40];
};

static void hold_list(void *unused)
{
	struct node *list = NULL;
	for (int i = 0; i < 500; i++) {
		struct node *node = make(sizeof(*node));
		node->next = list;
		list = node;
	}
	held[0] = list;
	(void)unused;
}

static void lists_are_followed(void)
{
	region_do_with(&planted, hold_list, NULL);
	int length = 0;
	for (struct node *node = held[0]; node; node = node->next)
		length++;
	CHECK(length == 500, "the list is whole: %d", length);
}

static NOINLINE void inner_to_outer(void *box_of_outer)
{
	((void **)box_of_outer)[2] = make(64);
}

static void outer_gives_its_block(void *unused)
{
	void **own = make(48);
	region_do_with(&planted, inner_to_outer, own);
	(void)unused;
}

static void blocks_of_outer_scopes_hold(void)
{
	static const struct region_options outer = {.name = "outer", .fade = REGION_FADE_NONE};
	region_do_with(&outer, outer_gives_its_block, NULL);
}

/* --- ways out --- */

static jmp_buf out;

static void hold_and_jump(void *unused)
{
	held[0] = make(64);
	(void)unused;
	longjmp(out, 1);
}

static void escapes_by_longjmp(void)
{
	if (setjmp(out) == 0)
		region_do_with(&planted, hold_and_jump, NULL);
	CHECK(*(char *)held[0] == 7, "it is kept");
}

static void hold_and_exit(void *unused)
{
	held[0] = make(64);
	(void)unused;
	pthread_exit(NULL);
}

static void *exit_in_scope(void *unused)
{
	region_do_with(&planted, hold_and_exit, NULL);
	return unused;
}

static void escapes_by_pthread_exit(void)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, exit_in_scope, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
	CHECK(*(char *)held[0] == 7, "it is kept");
}

/* --- other threads --- */

static sem_t is_ready, may_go_on, is_held;
static void *volatile passed;
static volatile bool may_stop;

static NOINLINE void hold_on_stack(void)
{
	void *volatile local[4] = {0};
	while (sem_wait(&may_go_on) != 0)
		continue;
	local[1] = passed;
	passed = NULL;
	sem_post(&is_held);
	while (sem_wait(&may_go_on) != 0)
		continue;
	CHECK(*(char *)local[1] == 7, "it is kept");
}

static void *run_on_stack(void *unused)
{
	sem_post(&is_ready);
	hold_on_stack();
	return unused;
}

static void *run_in_tls(void *unused)
{
	sem_post(&is_ready);
	while (sem_wait(&may_go_on) != 0)
		continue;
	in_tls = passed;
	passed = NULL;
	sem_post(&is_held);
	while (sem_wait(&may_go_on) != 0)
		continue;
	CHECK(*(char *)in_tls == 7, "it is kept");
	return unused;
}

static NOINLINE void hold_in_register(void)
{
	sem_post(&is_ready);
	while (!passed)
		continue;
	void *p = passed;
	passed = NULL;
#if defined(__x86_64__)
	__asm__ volatile("mov %0, %%r12\n\tmov $0, %0\n\tmovl $1, (%1)\n1:\tcmpb $0, (%2)\n\tje 1b\n\t"
	                 "mov %%r12, %0\n"
	                 : "+&r"(p) : "r"(&held[900]), "r"(&may_stop) : "r12", "memory");
#endif
	CHECK(*(char *)p == 7, "it is kept");
}

static void *run_in_register(void *unused)
{
	hold_in_register();
	return unused;
}

static void pass_and_wait(void *unused)
{
	passed = make(64);
	sem_post(&may_go_on);
	while (sem_wait(&is_held) != 0)
		continue;
	(void)unused;
}

static void pass_and_spin(void *unused)
{
	passed = make(64);
	while (!*(void *volatile *)&held[900])
		continue;
	(void)unused;
}

static void hold_in_thread(void *(*run)(void *), void (*pass)(void *))
{
	pthread_t thread;
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	sem_init(&is_held, 0, 0);
	CHECK(pthread_create(&thread, NULL, run, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	region_do_with(&planted, pass, NULL);
	may_stop = true;
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
}

static void stack_of_another_thread(void) { hold_in_thread(run_on_stack, pass_and_wait); }
static void tls_of_another_thread(void) { hold_in_thread(run_in_tls, pass_and_wait); }

static void register_of_another_thread(void)
{
#if !defined(__x86_64__)
	probe_skip("not written for this processor");
#endif
	hold_in_thread(run_in_register, pass_and_spin);
}

static void *run_five_in_thread(void *unused)
{
	run_five(plant);
	return unused;
}

static void five_escapes_in_a_thread(void)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, run_five_in_thread, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void *run_many(void *from)
{
	for (int i = 0; i < 20; i++)
		region_do_with(&planted, hold_ten, from);
	return NULL;
}

static void threads_check_at_once(void)
{
	pthread_t threads[4];
	for (intptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, run_many, (void *)(i * 10)) == 0, "a thread starts");
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 40; i++)
		CHECK(*(char *)held[i] == 7, "what escapes is kept");
}

#define CASE(function) .name = #function, .run = (function), .environment = CHECKED

const struct probe_case probe_cases[] = {
	{CASE(five_escapes_are_named), .lines = PROBE_ANY_LINES, .judge = judge_five},
	{.name = "five_escapes_are_objects", .run = five_escapes_are_objects, .lines = PROBE_ANY_LINES,
	 .environment = CHECKED " LIBREGION_CHECK_FILE=@escapes.%p.json"},
	{CASE(five_escapes_in_a_thread), .lines = PROBE_ANY_LINES, .judge = judge_five},
	{CASE(corrected_program_is_silent)},
	{CASE(leftover_words_are_no_escapes)},
	{CASE(dead_variables_of_a_block_are_no_escapes)},
	{CASE(what_nothing_points_to_is_reclaimed)},
	{CASE(memory_stays_flat)},
	{CASE(a_kind_is_told_once), .lines = PROBE_ANY_LINES, .judge = judge_once},
	{CASE(lists_are_followed), .lines = PROBE_ANY_LINES,
	 .says = {"by global held+0x0", "of the same scope, which is still pointed to itself", "500 blocks"}},
	{CASE(blocks_of_outer_scopes_hold), .lines = PROBE_ANY_LINES,
	 .says = {PLANTED, "by a block of 48 bytes of scope \"outer\"", "+0x10\n", "#0 make+0x"}},
	{CASE(escapes_by_longjmp), .lines = PROBE_ANY_LINES, .says = {PLANTED, "by global held+0x0"}},
	{CASE(escapes_by_pthread_exit), .lines = PROBE_ANY_LINES, .says = {PLANTED, "by global held+0x0"}},
	{CASE(stack_of_another_thread), .lines = PROBE_ANY_LINES,
	 .says = {PLANTED, "by the stack of thread ", "in a frame of hold_on_stack+0x"}},
	{CASE(tls_of_another_thread), .lines = PROBE_ANY_LINES, .says = {PLANTED, "by thread-local in_tls+0x0"}},
	{CASE(register_of_another_thread), .lines = PROBE_ANY_LINES,
	 .says = {PLANTED, "by a register of thread ", ", in hold_in_register+0x"}},
	{CASE(threads_check_at_once), .lines = PROBE_ANY_LINES, .says = {PLANTED}},
	{.name = "without_libunwind_it_says_so", .run = five_escapes_are_named, .lines = PROBE_ANY_LINES,
	 .environment = CHECKED " LD_LIBRARY_PATH=@no-libunwind",
	 .says = {"libunwind.so.8 isn't there: stacks follow frame pointers", "by global in_data+0x10",
	          "by thread-local in_tls+0x0", "allocated at"}},
	{0},
};
