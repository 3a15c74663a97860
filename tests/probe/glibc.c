/*
 * glibc.c: what the glibc manual and glibc's own tests hold beside the rules for single blocks: tuning and
 * statistics calls, parts of libc that live on malloc, and free where the kernel refuses things. The
 * rules are those that are published; blocks.c, aligned.c, fork.c and others have the rest of them.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <glob.h>
#include <malloc.h>
#include <obstack.h>
#include <pthread.h>
#include <regex.h>
#include <search.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <wchar.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

static int stop;

static void start(pthread_t *threads, int count, void *(*body)(void *))
{
	for (int i = 0; i < count; i++)
		CHECK(pthread_create(&threads[i], NULL, body, (void *)(intptr_t)i) == 0, "a thread starts");
}

static void stop_and_join(pthread_t *threads, int count)
{
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void *keep_allocating(void *which)
{
	unsigned state = 77 + (unsigned)(intptr_t)which;
	while (!stopped()) {
		size_t size = probe_random(&state) % (probe_random(&state) % 20 ? 2000 : 200000);
		probe_unblock(probe_block(size, state), size, state);
	}
	return NULL;
}

/* --- mallopt, malloc_stats, and the calls that look at the whole heap --- */

/* Programs check that it worked. What glibc would do has no meaning here, so there is nothing to fail. */
static void mallopt_accepts_what_glibc_knows(void)
{
	static const int known[] = {M_MXFAST,  M_TRIM_THRESHOLD, M_TOP_PAD,    M_MMAP_THRESHOLD, M_MMAP_MAX,
	                            M_PERTURB, M_CHECK_ACTION,   M_ARENA_TEST, M_ARENA_MAX};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		CHECK(mallopt(known[i], 1) == 1, "mallopt(%d) is accepted", known[i]);
	CHECK(mallopt(4711, 1) == 0, "mallopt of an unknown parameter is refused");
	CHECK(mallopt(-4711, 1) == 0, "mallopt of an unknown parameter is refused");
	CHECK(mallopt(M_MXFAST, -1) == 0, "mallopt(M_MXFAST, -1) is refused");
	CHECK(mallopt(M_MXFAST, 1 << 20) == 0, "mallopt(M_MXFAST) refuses what isn't small");
	probe_heap_is_sound();
}

static void *print_statistics_again_and_again(void *unused)
{
	for (int i = 0; i < 100000; i++)
		malloc_stats();
	return unused;
}

/* Nobody reads the pipe at first, so the thread is cancelled within the call. */
static void malloc_stats_survives_cancellation(void)
{
	int ends[2], kept = dup(STDERR_FILENO);
	static char text[1 << 16];
	pthread_t thread;
	CHECK(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0, "stderr becomes a pipe");
	close(ends[1]);
	start(&thread, 1, print_statistics_again_and_again);
	usleep(50000);
	pthread_cancel(thread);
	for (int i = 0; i < 20; i++) {
		CHECK(read(ends[0], text, sizeof(text)) > 0, "the pipe has text");
		usleep(1000);
	}
	close(ends[0]);
	signal(SIGPIPE, SIG_IGN);
	dup2(kept, STDERR_FILENO);
	pthread_join(thread, NULL);
	(void)mallinfo2();
	probe_heap_is_sound();
}

static void *look_again_and_again(void *which)
{
	while (!stopped()) {
		char *text = NULL;
		size_t length;
		FILE *stream = open_memstream(&text, &length);
		CHECK(malloc_info(0, stream) == 0, "malloc_info serves");
		fclose(stream);
		free(text);
		CHECK(mallinfo2().arena > 0, "mallinfo2 sees the heap");
		malloc_trim((size_t)(intptr_t)which);
	}
	return NULL;
}

static void *be_a_short_thread(void *unused)
{
	probe_heap_is_sound();
	return unused;
}

static void whole_heap_is_looked_at_and_trimmed_while_threads_work(void)
{
	pthread_t workers[3], lookers[2], short_lived;
	start(workers, 3, keep_allocating);
	start(lookers, 2, look_again_and_again);
	for (long i = probe_count(100); i > 0; i--) {
		start(&short_lived, 1, be_a_short_thread);
		pthread_join(short_lived, NULL);
	}
	stop_and_join(workers, 3);
	stop_and_join(lookers, 2);
	probe_heap_is_sound();
}

/* --- freed memory is used again --- */

/* The distinct addresses among COUNT blocks of which one is alive at a time. */
static size_t addresses_of(void *(*make)(size_t), size_t size)
{
	enum { COUNT = 200 };
	static void *seen[COUNT];
	size_t distinct = 0;
	for (int i = 0; i < COUNT; i++) {
		void *p = make(size);
		size_t k = 0;
		CHECK(p, "%zu bytes are served", size);
		while (k < distinct && seen[k] != p)
			k++;
		if (k == distinct)
			seen[distinct++] = p;
		free(p);
	}
	return distinct;
}

static void *aligned_to_64(size_t size)
{
	return memalign(64, size);
}

static void *aligned_to_4096(size_t size)
{
	return memalign(4096, size);
}

static void freed_blocks_are_used_again(void)
{
	static void *(*const makers[])(size_t) = {malloc, aligned_to_64, aligned_to_4096};
	for (size_t size = 24; size < 4000000; size *= 3)
		for (int i = 0; i < 3; i++) {
			size_t distinct = addresses_of(makers[i], size);
			CHECK(distinct <= 100, "%zu bytes are used again: %zu addresses for 200 blocks",
			      size, distinct);
		}
}

/* --- parts of libc that live on malloc --- */

#define obstack_chunk_alloc malloc
#define obstack_chunk_free free

static void grow_and_check_objects(struct obstack *stack)
{
	char *objects[500], *mark = obstack_alloc(stack, 1);
	for (unsigned i = 0; i < 500; i++) {
		int size = (int)(i * 13 % 6000);
		objects[i] = obstack_alloc(stack, size);
		CHECK(((uintptr_t)objects[i] & (uintptr_t)obstack_alignment_mask(stack)) == 0,
		      "an obstack's objects are aligned");
		probe_fill(objects[i], (size_t)size, i);
	}
	for (unsigned i = 0; i < 500; i++)
		probe_verify(objects[i], i * 13 % 6000, i, "an obstack's objects are whole");
	obstack_grow(stack, "grows ", 6);
	obstack_grow0(stack, "in pieces", 9);
	CHECK(strcmp(obstack_finish(stack), "grows in pieces") == 0, "an object grows in pieces");
	obstack_free(stack, mark);
}

static void obstacks_work(void)
{
	struct obstack stack;
	for (int mask = 0; mask <= 255; mask = mask * 2 + 1) {
		obstack_init(&stack);
		obstack_alignment_mask(&stack) = mask;
		grow_and_check_objects(&stack);
		grow_and_check_objects(&stack);
		obstack_free(&stack, NULL);
	}
	probe_heap_is_sound();
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void search_trees_and_tables_work(void)
{
	void *tree = NULL;
	char key[32];
	CHECK(hcreate(1000), "hcreate serves");
	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		CHECK(tsearch(strdup(key), &tree, compare_strings), "tsearch serves");
		CHECK(hsearch((ENTRY){.key = strdup(key)}, ENTER), "hsearch serves");
	}
	CHECK(tfind("key 500", &tree, compare_strings), "tfind finds");
	tdestroy(tree, free);
	hdestroy();
}

static void expressions_and_patterns_work(void)
{
	regex_t expression;
	glob_t found;
	CHECK(regcomp(&expression, "^(a|b|c)+(foo|bar){2,5}[x-z]*$", REG_EXTENDED) == 0, "regcomp serves");
	CHECK(regexec(&expression, "abcfoobarxyz", 0, NULL, 0) == 0, "regexec matches");
	regfree(&expression);
	CHECK(glob("/proc/self/*", 0, NULL, &found) == 0 && found.gl_pathc > 10, "glob finds");
	globfree(&found);
}

static void texts_of_libc_can_be_freed(void)
{
	wchar_t *wide = NULL;
	size_t length = 0;
	char *text, *directory = getcwd(NULL, 0);
	FILE *stream = open_wmemstream(&wide, &length);
	CHECK(stream && directory, "open_wmemstream and getcwd serve");
	for (int i = 0; i < 1000; i++)
		fwprintf(stream, L"%d ", i);
	fclose(stream);
	CHECK(wcslen(wide) == length, "a wide stream's text is whole");
	CHECK(asprintf(&text, "%10000d", 1) == 10000 && strlen(text) == 10000, "asprintf serves");
	free(text);
	free(directory);
	free(wide);
	for (int i = 0; i < 500; i++) {
		char name[32];
		snprintf(name, sizeof(name), "PROBE_%d", i);
		CHECK(setenv(name, "a value", 1) == 0, "setenv serves");
	}
	CHECK(strcmp(getenv("PROBE_499"), "a value") == 0, "the environment is whole");
	clearenv();
}

static void libc_s_own_users_of_the_heap_work(void)
{
	for (int i = 0; i < 10; i++) {
		search_trees_and_tables_work();
		expressions_and_patterns_work();
	}
	texts_of_libc_can_be_freed();
	probe_heap_is_sound();
}

/* --- where the kernel has no more mappings to give --- */

/* Pages of alternating protection, each a mapping of its own. Returns whether the limit was reached. */
static bool use_mappings_up(void)
{
	enum { MOST = 300000 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, MOST * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return false;
	for (size_t i = 1; i < MOST; i += 2)
		if (mprotect(p + i * page, page, PROT_READ) != 0)
			return true;
	return false;
}

/* A NULL with ENOMEM is an answer here; a crash, or an errno that free has left, is none. */
static void free_keeps_errno_when_mappings_run_out(void)
{
	enum { COUNT = 24 };
	void *blocks[COUNT];
	for (unsigned i = 0; i < COUNT; i++)
		blocks[i] = probe_block((size_t)16 << i % 20, i);
	if (!use_mappings_up())
		probe_skip("the kernel has mappings without end");
	for (int round = 0; round < 3; round++)
		for (unsigned i = 0; i < COUNT; i++) {
			if (blocks[i])
				probe_verify(blocks[i], (size_t)16 << i % 20, i, "a block is whole");
			errno = 4711;
			free(blocks[i]);
			CHECK(errno == 4711, "free of %zu bytes keeps errno, now %d", (size_t)16 << i % 20, errno);
			blocks[i] = malloc((size_t)16 << i % 20);
			CHECK(blocks[i] || errno == ENOMEM, "out of mappings is ENOMEM, not %d", errno);
			if (blocks[i])
				probe_fill(blocks[i], (size_t)16 << i % 20, i);
		}
	CHECK(realloc(probe_opaque(blocks[0]), (size_t)64 << 20) || errno == ENOMEM,
	      "out of mappings is ENOMEM, not %d", errno);
	errno = 4711;
	malloc_trim(0);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(mallopt_accepts_what_glibc_knows),
	{.name = "malloc_stats_survives_cancellation", .run = malloc_stats_survives_cancellation,
	 .lines = PROBE_ANY_LINES},
	CASE(whole_heap_is_looked_at_and_trimmed_while_threads_work),
	CASE(freed_blocks_are_used_again),
	CASE(obstacks_work),
	CASE(libc_s_own_users_of_the_heap_work),
	CASE(free_keeps_errno_when_mappings_run_out),
	{0},
};
