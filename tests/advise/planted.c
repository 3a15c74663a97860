/*
 * planted.c: programs whose advice is known beforehand.
 *
 *     planted KIND [ROUNDS]
 *
 *     dies       each request frees all that it allocates: `handle_request`
 *     survives   of each request's blocks, 30 in 100 stay: `handle_request`, 70 % freed, and no site
 *     tree       `parse_text` returns a tree, `handle_text` parses, looks and frees: that one
 *     recursion  `visit_node` calls itself and frees what it allocates: the outermost call counts
 *     loop       `run_events` never returns (the process exits inside): `handle_event`
 *     threads    four threads call `handle_request`
 *     others     blocks are freed by another thread, after the request: no site
 *     thrown     `catch_request` calls `throw_request` four times, which ends by longjmp, having freed half
 *                of its blocks; the other half is freed by the next one: 50 and 87.5 %
 *     crash      as `dies`, and ends by SIGKILL
 *     forks      as `dies`, in a child
 *     serve      as `dies`, for as long as it takes to be told to end; says "ready" when it has begun
 *
 * No function is inlined or cloned, and none ends by a jump to another.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__clang__)
#define PLANTED __attribute__((noinline, used))
#else
#define PLANTED __attribute__((noipa, used))
#endif
#define END() __asm__ volatile("" ::: "memory")

enum { BLOCKS = 50, KEPT_OF_100 = 30, KEPT_MAX = 4096, DEPTH = 6, THREADS = 4, HELD = 64, THROWS = 4 };

struct node {
	struct node *left, *right;
	char *text;
};

static struct {
	void *kept[KEPT_MAX];
	unsigned next;
	jmp_buf out;
	pthread_mutex_t lock;
	void *held[HELD];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The same in each process, and not the allocator's. */
static unsigned next_number(unsigned *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* What a real program allocates through. */
PLANTED void *make_block(unsigned *seed)
{
	size_t size = 16 + next_number(seed) % 400;
	char *p = malloc(size);

	if (!p)
		abort();
	memset(p, 1, size);
	END();
	return p;
}

/* A block that stays until KEPT_MAX later ones have come. */
PLANTED void keep_block(void *p)
{
	unsigned at = state.next++ % KEPT_MAX;

	free(state.kept[at]);
	state.kept[at] = p;
	END();
}

PLANTED void handle_request(unsigned *seed, unsigned kept_of_100)
{
	void *blocks[BLOCKS];

	for (int i = 0; i < BLOCKS; i++)
		blocks[i] = make_block(seed);
	for (int i = 0; i < BLOCKS; i++)
		if (next_number(seed) % 100 < kept_of_100)
			keep_block(blocks[i]);
		else
			free(blocks[i]);
	END();
}

PLANTED struct node *parse_text(unsigned *seed, int depth)
{
	struct node *node = malloc(sizeof(*node));

	if (!node)
		abort();
	*node = (struct node){.text = make_block(seed)};
	if (depth > 0) {
		node->left = parse_text(seed, depth - 1);
		node->right = parse_text(seed, depth - 1);
	}
	END();
	return node;
}

PLANTED void free_tree(struct node *node)
{
	if (!node)
		return;
	free_tree(node->left);
	free_tree(node->right);
	free(node->text);
	free(node);
	END();
}

PLANTED void handle_text(unsigned *seed)
{
	free_tree(parse_text(seed, DEPTH));
	END();
}

PLANTED void visit_node(unsigned *seed, int depth)
{
	void *blocks[4];

	for (int i = 0; i < 4; i++)
		blocks[i] = make_block(seed);
	if (depth > 0) {
		visit_node(seed, depth - 1);
		visit_node(seed, depth - 1);
	}
	for (int i = 0; i < 4; i++)
		free(blocks[i]);
	END();
}

PLANTED void handle_event(unsigned *seed)
{
	handle_request(seed, 0);
	END();
}

PLANTED void run_events(unsigned *seed, unsigned rounds)
{
	for (unsigned i = 0;; i++) {
		handle_event(seed);
		if (i == rounds)
			exit(0);
	}
}

/* Half of the blocks are freed later, by whoever comes next: they have outlived the call. */
PLANTED void throw_request(unsigned *seed)
{
	for (int i = 0; i < HELD; i++) {
		free(state.held[i]);
		state.held[i] = make_block(seed);
	}
	for (int i = 0; i < HELD; i += 2) {
		free(state.held[i]);
		state.held[i] = NULL;
	}
	longjmp(state.out, 1);
}

PLANTED void catch_request(unsigned *seed)
{
	for (volatile int i = 0; i < THROWS; i++)
		if (setjmp(state.out) == 0)
			throw_request(seed);
	END();
}

static unsigned rounds_to_do;

static void *run_thread(void *number)
{
	unsigned seed = (unsigned)(size_t)number;

	for (unsigned i = 0; i < rounds_to_do / THREADS; i++)
		handle_request(&seed, 0);
	return NULL;
}

static void run_threads(void)
{
	pthread_t threads[THREADS];

	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, run_thread, (void *)(i + 1));
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void *free_later(void *blocks)
{
	void **block = blocks;

	for (int i = 0; i < KEPT_MAX; i++)
		free(block[i]);
	return NULL;
}

PLANTED void hand_over(unsigned *seed)
{
	for (int i = 0; i < KEPT_MAX; i++)
		state.kept[i] = make_block(seed);
	END();
}

static void run_others(unsigned *seed)
{
	for (unsigned i = 0; i < rounds_to_do * BLOCKS / KEPT_MAX; i++) {
		pthread_t thread;
		hand_over(seed);
		pthread_create(&thread, NULL, free_later, state.kept);
		pthread_join(thread, NULL);
	}
}

static void run_child(unsigned *seed)
{
	handle_request(seed, 0);
	pid_t child = fork();

	for (unsigned i = 0; child == 0 && i < rounds_to_do; i++)
		handle_request(seed, 0);
	if (child == 0)
		exit(0);
	waitpid(child, NULL, 0);
}

static volatile sig_atomic_t is_told;

static void tell(int number)
{
	(void)number;
	is_told = 1;
}

static void serve(unsigned *seed)
{
	signal(SIGTERM, tell);
	puts("ready");
	fflush(stdout);
	while (!is_told)
		handle_request(seed, 0);
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	unsigned seed = 1;

	rounds_to_do = argc > 2 ? (unsigned)atoi(argv[2]) : 4000;
	for (unsigned i = 0; i < rounds_to_do; i++)
		if (strcmp(kind, "dies") == 0 || strcmp(kind, "crash") == 0)
			handle_request(&seed, 0);
		else if (strcmp(kind, "survives") == 0)
			handle_request(&seed, KEPT_OF_100);
		else if (strcmp(kind, "tree") == 0)
			handle_text(&seed);
		else if (strcmp(kind, "recursion") == 0)
			visit_node(&seed, DEPTH);
		else if (strcmp(kind, "thrown") == 0)
			catch_request(&seed);
	if (strcmp(kind, "crash") == 0)
		raise(SIGKILL);
	if (strcmp(kind, "loop") == 0)
		run_events(&seed, rounds_to_do);
	if (strcmp(kind, "threads") == 0)
		run_threads();
	if (strcmp(kind, "others") == 0)
		run_others(&seed);
	if (strcmp(kind, "forks") == 0)
		run_child(&seed);
	if (strcmp(kind, "serve") == 0)
		serve(&seed);
	return 0;
}
