/*
 * fork.c: fork in all its forms. A child has a heap that works, whatever other threads and signal
 * handlers were doing when it was made: it allocates, frees what it inherited, and starts threads.
 *
 * The long ones take a count: `probe_fork CASE 100000` with PROBE_SECONDS set is a soak.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

enum { SLOTS = 128, INHERITED = 200, CHILD_SECONDS = 15 };

/* Blocks in the slots change hands all the time; a block there is whole, whoever looks. */
static void *slots[SLOTS];
static void *inherited[INHERITED];
static int stop;

static void put(unsigned *state)
{
	size_t size = 16 + probe_random(state) % (probe_random(state) % 40 ? 500 : 50000);
	size_t *p = malloc(size), *old;
	CHECK(p, "malloc serves");
	p[0] = size;
	probe_fill(p + 1, size - sizeof(*p), (unsigned)size);
	old = __atomic_exchange_n(&slots[probe_random(state) % SLOTS], p, __ATOMIC_ACQ_REL);
	free(old);
}

static void *keep_allocating(void *which)
{
	unsigned state = 4242 + (unsigned)(intptr_t)which;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		put(&state);
	return NULL;
}

static void start_allocating(pthread_t *threads, int count)
{
	for (int i = 0; i < count; i++)
		CHECK(pthread_create(&threads[i], NULL, keep_allocating, (void *)(intptr_t)i) == 0,
		      "a thread starts");
}

static void stop_allocating(pthread_t *threads, int count)
{
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void make_inherited(void)
{
	for (unsigned i = 0; i < INHERITED; i++)
		inherited[i] = probe_block(i * 50, i);
}

static void free_inherited(void)
{
	for (unsigned i = 0; i < INHERITED; i++)
		probe_unblock(inherited[i], i * 50, i);
}

/* What threads that don't exist in this process had allocated. */
static void free_slots(void)
{
	for (int i = 0; i < SLOTS; i++) {
		size_t *p = __atomic_exchange_n(&slots[i], NULL, __ATOMIC_ACQ_REL);
		if (p)
			probe_verify(p + 1, p[0] - sizeof(*p), (unsigned)p[0], "an inherited block is whole");
		free(p);
	}
}

static void *work(void *unused)
{
	probe_unblock(probe_block(100, 1), 100, 1);
	probe_unblock(probe_block(100000, 1), 100000, 1);
	for (unsigned i = 0; i < 2000; i++)
		free(malloc(i));
	return unused;
}

static void run_in_thread(void *(*body)(void *))
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, body, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void be_a_child(void)
{
	free_inherited();
	free_slots();
	work(NULL);
	run_in_thread(work);
	exit(0);
}

static void fork_and_wait(void (*child)(void))
{
	int pid = fork();
	CHECK(pid >= 0, "fork serves: errno %d", errno);
	if (pid == 0) {
		child();
		_exit(0);
	}
	CHECK(probe_wait_child(pid, CHILD_SECONDS) == 0, "the child lives and ends well");
}

/* --- plain fork --- */

static void children_of_a_single_thread_allocate(void)
{
	make_inherited();
	for (long i = probe_count(100); i > 0; i--)
		fork_and_wait(be_a_child);
	free_inherited();
	probe_heap_is_sound();
}

static void children_of_four_allocating_threads_allocate(void)
{
	pthread_t threads[4];
	make_inherited();
	start_allocating(threads, 4);
	for (long i = probe_count(200); i > 0; i--)
		fork_and_wait(be_a_child);
	stop_allocating(threads, 4);
	free_inherited();
	free_slots();
	probe_heap_is_sound();
}

static void *fork_some(void *unused)
{
	for (long i = probe_count(40); i > 0; i--)
		fork_and_wait(be_a_child);
	return unused;
}

static void threads_that_fork_at_once_get_sound_children(void)
{
	pthread_t threads[2], forkers[3];
	make_inherited();
	start_allocating(threads, 2);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&forkers[i], NULL, fork_some, NULL) == 0, "a thread starts");
	for (int i = 0; i < 3; i++)
		pthread_join(forkers[i], NULL);
	stop_allocating(threads, 2);
	probe_heap_is_sound();
}

/* A child that forks, as daemons do, and with threads of its own each time. */
static int generation;

static void fork_once_more(void)
{
	pthread_t thread;
	if (generation++ == 8)
		return;
	stop = 0;
	start_allocating(&thread, 1);
	fork_and_wait(fork_once_more);
	stop_allocating(&thread, 1);
	probe_heap_is_sound();
}

static void children_of_children_allocate(void)
{
	fork_once_more();
}

/* Threads that have ended before the fork left heaps that a child takes over. */
static void children_reuse_memory_of_exited_threads(void)
{
	make_inherited();
	for (int i = 0; i < 20; i++)
		run_in_thread(work);
	fork_and_wait(be_a_child);
}

static void use_memory_again_and_again(void)
{
	size_t before = probe_resident();
	for (int round = 0; round < 100; round++) {
		void *blocks[1000];
		for (int i = 0; i < 1000; i++)
			blocks[i] = probe_block(1000, 1);
		for (int i = 0; i < 1000; i++)
			free(blocks[i]);
	}
	CHECK(probe_resident() < before + (16 << 20), "a child's memory stays flat");
}

static void memory_of_a_child_stays_flat(void)
{
	pthread_t threads[4];
	start_allocating(threads, 4);
	fork_and_wait(use_memory_again_and_again);
	stop_allocating(threads, 4);
}

static void end_at_once(void)
{
	_exit(0);
}

static void memory_of_a_forking_parent_stays_flat(void)
{
	size_t before;
	fork_and_wait(end_at_once);
	before = probe_resident();
	for (int i = 0; i < 500; i++)
		fork_and_wait(end_at_once);
	CHECK(probe_resident() < before + (2 << 20), "forking costs the parent no memory");
}

/* --- forks from signal handlers --- */

static volatile sig_atomic_t handler_forks;

/* Once only: a signal that comes back before its handler is through would let nothing else happen. */
static void set_timer(int microseconds)
{
	struct itimerval timer = {{0, 0}, {0, microseconds}};
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void fork_in_handler(int signal_number)
{
	int saved = errno, pid = fork();
	(void)signal_number;
	if (pid == 0)
		_exit(0);
	handler_forks++;
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	set_timer(50 + 13 * (handler_forks % 20));
	errno = saved;
}

/* The child returns into whatever was interrupted, and goes on with it. */
static volatile sig_atomic_t is_child;

static void fork_in_handler_and_go_on(int signal_number)
{
	int saved = errno, pid, status = 0;
	(void)signal_number;
	pid = fork();
	if (pid == 0) {
		is_child = 1;
		errno = saved;
		return;
	}
	handler_forks++;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	CHECK(status == 0, "a child that goes on where it was made ends well: %#x", (unsigned)status);
	set_timer(50 + 13 * (handler_forks % 20));
	errno = saved;
}

static void start_timer(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	set_timer(100);
}

static void stop_timer(void)
{
	signal(SIGALRM, SIG_IGN);
}

/* Small blocks and big ones, so that every lock there is gets interrupted in time. */
static void allocate_some(unsigned *state)
{
	static void *blocks[64];
	unsigned i = probe_random(state) % 64;
	static const size_t sizes[] = {30, 300, 3000, 30000, 300000};
	free(blocks[i]);
	blocks[i] = malloc(sizes[probe_random(state) % 5]);
	CHECK(blocks[i], "malloc serves");
	*(char *)blocks[i] = 1;
}

static void allocate_until(long forks)
{
	unsigned state = 7;
	while (handler_forks < forks && !is_child)
		allocate_some(&state);
}

static void fork_in_a_handler_that_interrupts_malloc(void)
{
	start_timer(fork_in_handler);
	allocate_until(probe_count(500));
	stop_timer();
	probe_heap_is_sound();
}

static void fork_in_a_handler_while_threads_allocate(void)
{
	pthread_t threads[3];
	sigset_t alarm_only;
	sigemptyset(&alarm_only);
	sigaddset(&alarm_only, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
	start_allocating(threads, 3);
	pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
	start_timer(fork_in_handler);
	allocate_until(probe_count(300));
	stop_timer();
	stop_allocating(threads, 3);
	probe_heap_is_sound();
}

/*
 * Streams have locks, and so has the list of them. fflush(NULL) holds the latter while it waits for a
 * stream, getline() holds a stream while it allocates, and fork() takes the list's lock after its handlers
 * have run (glibc's bug 19431).
 */
static void *read_long_lines(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		static char text[300000];
		FILE *stream = fmemopen(text, sizeof(text), "r");
		char *line = NULL;
		size_t bytes = 0;
		CHECK(stream, "a stream opens");
		CHECK(getdelim(&line, &bytes, 'x', stream) > 0, "a line of some size is read");
		free(line);
		fclose(stream);
	}
	return unused;
}

static void *flush_streams(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		fflush(NULL);
	return unused;
}

static void fork_while_threads_read_and_flush_streams(void)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, i == 0 ? flush_streams : read_long_lines, NULL) == 0,
		      "a thread starts");
	for (long i = probe_count(500); i > 0; i--) {
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		CHECK(child > 0 && waitpid(child, NULL, 0) == child, "a child comes and goes");
	}
	stop_allocating(threads, 4);
	probe_heap_is_sound();
}

/* The end of a thread takes several locks, and the fork's handlers take them all. */
static void *hold_much_and_end(void *unused)
{
	static const size_t step = 100;
	void *blocks[200];
	for (size_t i = 0; i < 200; i++)
		blocks[i] = probe_opaque(malloc(3000 + i * step));
	for (size_t i = 0; i < 200; i++)
		free(blocks[i]);
	return unused;
}

static void *start_and_join_threads(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		run_in_thread(hold_much_and_end);
	return unused;
}

static void allocate_big_until(long forks)
{
	while (handler_forks < forks) {
		void *p = probe_opaque(malloc(70000)), *q = probe_opaque(malloc(200000));
		free(p);
		free(q);
	}
}

static void fork_in_a_handler_while_threads_end(void)
{
	pthread_t threads[2];
	sigset_t alarm_only;
	sigemptyset(&alarm_only);
	sigaddset(&alarm_only, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, start_and_join_threads, NULL) == 0, "a thread starts");
	pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
	start_timer(fork_in_handler);
	allocate_big_until(probe_count(700));
	stop_timer();
	stop_allocating(threads, 2);
	probe_heap_is_sound();
}

static void fork_in_a_handler_that_interrupts_fork(void)
{
	unsigned state = 8;
	start_timer(fork_in_handler);
	for (long i = probe_count(300); i > 0; i--) {
		int pid = fork();
		if (pid == 0)
			_exit(0);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		allocate_some(&state);
	}
	stop_timer();
	CHECK(handler_forks > 10, "the handler came through");
	probe_heap_is_sound();
}

static void child_of_a_handler_goes_on_where_malloc_was_interrupted(void)
{
	unsigned state = 9;
	start_timer(fork_in_handler_and_go_on);
	allocate_until(probe_count(200));
	stop_timer();
	for (int i = 0; is_child && i < 300; i++)
		allocate_some(&state);
	if (is_child) {
		run_in_thread(work);
		_exit(0);
	}
	probe_heap_is_sound();
}

/* --- other ways to make a process --- */

static void vfork_and_exec_work(void)
{
	for (int i = 0; i < 50; i++) {
		int pid = vfork();
		if (pid == 0) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(127);
		}
		CHECK(probe_wait_child(pid, CHILD_SECONDS) == 0, "the program runs");
		probe_heap_is_sound();
	}
}

/* The child of vfork shares the heap; what it does there, the parent sees. */
static void *volatile left_by_child;

static void vfork_a_child_that_allocates(void)
{
	int pid = vfork();
	if (pid == 0) {
		left_by_child = malloc(1000);
		free(malloc(300000));
		_exit(0);
	}
	CHECK(probe_wait_child(pid, CHILD_SECONDS) == 0, "the child ends well");
	free(left_by_child);
}

static void vfork_child_that_allocates_does_no_harm(void)
{
	for (int i = 0; i < 50; i++)
		vfork_a_child_that_allocates();
	probe_heap_is_sound();
}

static void posix_spawn_works_while_threads_allocate(void)
{
	pthread_t threads[3];
	char *arguments[] = {(char *)"true", NULL};
	start_allocating(threads, 3);
	for (int i = 0; i < 50; i++) {
		int pid;
		CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0, "it spawns");
		CHECK(probe_wait_child(pid, CHILD_SECONDS) == 0, "the program runs");
	}
	stop_allocating(threads, 3);
}

static void popen_and_system_work_while_threads_allocate(void)
{
	pthread_t threads[3];
	start_allocating(threads, 3);
	for (int i = 0; i < 20; i++) {
		char line[32] = "";
		FILE *output = popen("echo hello", "r");
		CHECK(output && fgets(line, sizeof(line), output), "popen reads");
		CHECK(strcmp(line, "hello\n") == 0 && pclose(output) == 0, "popen reads the right text");
		CHECK(system("exit 3") == 3 << 8, "system gives the exit status");
	}
	stop_allocating(threads, 3);
}

/* _Fork runs no handlers: the child of a program with one thread still has its heap. */
static void raw_fork_of_a_single_thread_works(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
	make_inherited();
	for (int i = 0; i < 50; i++) {
		int pid = _Fork();
		if (pid == 0) {
			free_inherited();
			work(NULL);
			_exit(0);
		}
		CHECK(probe_wait_child(pid, CHILD_SECONDS) == 0, "the child ends well");
	}
#else
	probe_skip("this libc has no _Fork");
#endif
}

/* Handlers of the program's own, registered before and after ours could be, allocate. */
static int handler_calls;

static void allocate_in_handler(void)
{
	handler_calls++;
	work(NULL);
}

static void atfork_handlers_may_allocate(void)
{
	pthread_t threads[2];
	pthread_atfork(allocate_in_handler, allocate_in_handler, allocate_in_handler);
	make_inherited();
	start_allocating(threads, 2);
	for (int i = 0; i < 50; i++)
		fork_and_wait(be_a_child);
	stop_allocating(threads, 2);
	CHECK(handler_calls == 100, "the parent's handlers ran: %d", handler_calls);
}

#define CASE(name_) {.name = #name_, .run = name_}

const struct probe_case probe_cases[] = {
	CASE(children_of_a_single_thread_allocate),
	CASE(children_of_four_allocating_threads_allocate),
	CASE(threads_that_fork_at_once_get_sound_children),
	CASE(children_of_children_allocate),
	CASE(children_reuse_memory_of_exited_threads),
	CASE(memory_of_a_child_stays_flat),
	CASE(memory_of_a_forking_parent_stays_flat),
	CASE(fork_in_a_handler_that_interrupts_malloc),
	CASE(fork_in_a_handler_while_threads_allocate),
	CASE(fork_in_a_handler_while_threads_end),
	CASE(fork_in_a_handler_that_interrupts_fork),
	CASE(child_of_a_handler_goes_on_where_malloc_was_interrupted),
	CASE(fork_while_threads_read_and_flush_streams),
	CASE(vfork_and_exec_work),
	CASE(vfork_child_that_allocates_does_no_harm),
	CASE(posix_spawn_works_while_threads_allocate),
	CASE(popen_and_system_work_while_threads_allocate),
	CASE(raw_fork_of_a_single_thread_works),
	CASE(atfork_handlers_may_allocate),
	{0},
};
