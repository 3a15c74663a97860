/*
 * process.c: from the first allocation of a process to the last one: before any constructor, after all
 * destructors, with the library loaded in odd ways, and in odd surroundings.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

const enum probe_form probe_default_form = PROBE_PRELOADED;

enum { EARLY_SIZE = 3000 };

/* --- before main --- */

/* Functions here run before every constructor, those of libraries included. */
static void *preinit_block;

static void allocate_before_constructors(void)
{
	preinit_block = malloc(EARLY_SIZE);
	if (preinit_block)
		probe_fill(preinit_block, EARLY_SIZE, 1);
}

static __attribute__((section(".preinit_array"), used)) void (*preinit)(void) =
	allocate_before_constructors;

static void *constructor_block;

static __attribute__((constructor(101))) void allocate_in_constructor(void)
{
	constructor_block = probe_block(EARLY_SIZE, 2);
}

static void allocations_before_constructors_are_whole(void)
{
	CHECK(preinit_block, "malloc serves before the first constructor");
	probe_unblock(preinit_block, EARLY_SIZE, 1);
}

static void allocations_of_constructors_are_whole(void)
{
	probe_unblock(constructor_block, EARLY_SIZE, 2);
}

static void constructors_of_preloaded_libraries_may_allocate(void)
{
	probe_heap_is_sound();
}

/* --- after main --- */

static void *late_block;

static void use_late_block(void)
{
	probe_unblock(late_block, EARLY_SIZE, 3);
	probe_heap_is_sound();
	late_block = NULL;
}

static void atexit_handlers_may_allocate_and_free(void)
{
	late_block = probe_block(EARLY_SIZE, 3);
	atexit(use_late_block);
}

/* Runs after all atexit handlers and the destructors of the program. */
static __attribute__((destructor(101))) void end_of_program(void)
{
	if (late_block)
		use_late_block();
}

static void destructors_may_allocate_and_free(void)
{
	late_block = probe_block(EARLY_SIZE, 3);
}

static void quick_exit_handlers_may_allocate_and_free(void)
{
	late_block = probe_block(EARLY_SIZE, 3);
	at_quick_exit(use_late_block);
	quick_exit(0);
}


static void *keep_allocating(void *unused)
{
	unsigned state = 5;
	while (!unused) {
		void *p = malloc(probe_random(&state) % 5000);
		void *q = malloc(probe_random(&state) % 50);
		free(p);
		free(q);
	}
	return unused;
}

static void start_allocating(pthread_t *threads, int count)
{
	for (int i = 0; i < count; i++)
		CHECK(pthread_create(&threads[i], NULL, keep_allocating, NULL) == 0, "a thread starts");
}

static void exit_while_four_threads_allocate(void)
{
	for (int i = 0; i < 50; i++) {
		int pid = fork();
		if (pid == 0) {
			pthread_t threads[4];
			start_allocating(threads, 4);
			usleep(1000);
			exit(0);
		}
		CHECK(probe_wait_child(pid, 10) == 0, "exit ends the process well");
	}
}

/* --- the library by dlopen, in a program with libc's malloc --- */

static void *library;
static void *(*its_malloc)(size_t);
static void (*its_free)(void *);

static void open_library(void)
{
	library = dlopen(getenv("REGION_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
	CHECK(library, "dlopen loads the library: %s", dlerror());
	its_malloc = (void *(*)(size_t))(uintptr_t)dlsym(library, "malloc");
	its_free = (void (*)(void *))(uintptr_t)dlsym(library, "free");
	CHECK(its_malloc && its_malloc != malloc, "it brings a malloc of its own");
}

static void use_library(void)
{
	void *blocks[200];
	for (unsigned i = 0; i < 200; i++) {
		blocks[i] = its_malloc(i * 200);
		CHECK(blocks[i], "its malloc serves");
		probe_fill(blocks[i], i * 200, i);
	}
	for (unsigned i = 0; i < 200; i++) {
		probe_verify(blocks[i], i * 200, i, "its blocks keep their contents");
		its_free(blocks[i]);
	}
}

static void dlopen_and_dlclose_do_no_harm(void)
{
	for (int i = 0; i < 20; i++) {
		open_library();
		use_library();
		dlclose(library);
		probe_heap_is_sound();
	}
}

static pthread_barrier_t closed;

static void *use_library_and_outlive_it(void *unused)
{
	use_library();
	pthread_barrier_wait(&closed);
	pthread_barrier_wait(&closed);
	return unused;
}

static void thread_may_end_after_dlclose(void)
{
	pthread_t thread;
	pthread_barrier_init(&closed, NULL, 2);
	open_library();
	CHECK(pthread_create(&thread, NULL, use_library_and_outlive_it, NULL) == 0, "a thread starts");
	pthread_barrier_wait(&closed);
	dlclose(library);
	pthread_barrier_wait(&closed);
	pthread_join(thread, NULL);
}

static void fork_after_dlclose_works(void)
{
	int pid;
	open_library();
	use_library();
	dlclose(library);
	pid = fork();
	if (pid == 0)
		exit(0);
	CHECK(probe_wait_child(pid, 10) == 0, "the child ends well");
}

static void *open_and_use(void *unused)
{
	open_library();
	use_library();
	dlclose(library);
	return unused;
}

static void dlopen_in_a_thread_does_no_harm(void)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, open_and_use, NULL) == 0, "a thread starts");
	pthread_join(thread, NULL);
	probe_heap_is_sound();
}

/* A second copy, with a libc of its own, in a namespace of its own. */
static void dlmopen_gives_a_second_library(void)
{
	library = dlmopen(LM_ID_NEWLM, getenv("REGION_LIBRARY"), RTLD_NOW);
	CHECK(library, "dlmopen loads the library: %s", dlerror());
	its_malloc = (void *(*)(size_t))(uintptr_t)dlsym(library, "malloc");
	its_free = (void (*)(void *))(uintptr_t)dlsym(library, "free");
	CHECK(its_malloc != malloc, "it is another copy");
	use_library();
	probe_heap_is_sound();
	dlclose(library);
	probe_heap_is_sound();
}

static void works(void)
{
	probe_heap_is_sound();
}

/* --- surroundings --- */

static void no_file_descriptor_stays_open(void)
{
	probe_heap_is_sound();
	for (int fd = 3; fd < 200; fd++)
		CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF, "descriptor %d isn't open", fd);
}

static void closing_every_file_descriptor_does_no_harm(void)
{
	for (int fd = 0; fd < 200; fd++)
		close(fd);
	probe_heap_is_sound();
	malloc_trim(0);
}

/* Starts itself anew where there is no /proc, in a namespace where mounting is allowed. */
static void works_without_proc(void)
{
	char *arguments[] = {(char *)"probe", (char *)"--inside", (char *)"works_without_proc", NULL};
	if (access("/proc/self/maps", F_OK) != 0) {
		probe_heap_is_sound();
		malloc_trim(0);
		return;
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
	    mount("none", "/proc", "tmpfs", 0, NULL) != 0)
		probe_skip("this system doesn't let /proc be hidden: %s", strerror(errno));
	execv(probe_path(), arguments);
	CHECK(false, "the program starts anew: %s", strerror(errno));
}

/* --- a kernel that fails to move pages --- */

#if defined(__x86_64__) && defined(MREMAP_DONTUNMAP)

static volatile sig_atomic_t failed_moves;

/* As older kernels fail when the pages lie in several mappings: the target is unmapped by then. */
static void fail_to_move(int signal_number, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	(void)signal_number;
	(void)info;
	munmap((void *)registers[REG_R8], (size_t)registers[REG_RDX]);
	registers[REG_RAX] = -EFAULT;
	failed_moves++;
}

/* Moves that leave the source's addresses mapped are the library's own. */
static void trap_moves(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MREMAP_DONTUNMAP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	struct sigaction action = {.sa_sigaction = fail_to_move, .sa_flags = SA_SIGINFO};
	sigaction(SIGSYS, &action, NULL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		probe_skip("this system doesn't let calls be trapped: %s", strerror(errno));
}

static void *grow(void *p, size_t from, size_t to, unsigned seed)
{
	probe_verify(p, from, seed, "a block is whole before it grows");
	p = realloc(p, to);
	CHECK(p, "realloc serves");
	probe_verify(p, from, seed, "a block that grows keeps its contents");
	probe_fill(p, to, seed);
	return p;
}

static void a_failed_move_of_pages_does_no_harm(void)
{
	enum { MB = 1 << 20, MOST = 8 };
	void *a = probe_block(MB, 1), *b = probe_block(MB, 2);
	trap_moves();
	for (size_t size = MB; size < MOST * (size_t)MB; size += MB) {
		a = grow(a, size, size + MB, 1);
		b = grow(b, size, size + MB, 2);
		free(probe_block(3 * MB, 3));
	}
	CHECK(failed_moves > 0, "a move was tried");
	free(a);
	free(b);
	for (unsigned i = 0; i < 10; i++)
		probe_unblock(probe_block((i + 1) * MB, i), (i + 1) * MB, i);
	probe_heap_is_sound();
}

#else

static void a_failed_move_of_pages_does_no_harm(void)
{
	probe_skip("calls are trapped on x86-64 only");
}

#endif

static volatile sig_atomic_t ticks;

static void tick(int signal_number)
{
	(void)signal_number;
	ticks++;
}

/* Signals interrupt the library's system calls; nobody may notice. */
static void signals_interrupt_nothing_that_shows(void)
{
	struct itimerval timer = {{0, 100}, {0, 100}};
	struct sigaction action = {.sa_handler = tick};
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (ticks < 1000) {
		errno = 4711;
		probe_unblock(probe_block(300000, 1), 300000, 1);
		free(probe_opaque(malloc(8 << 20)));
		probe_heap_is_sound();
		CHECK(errno == 4711, "errno stays: %d", errno);
	}
	signal(SIGALRM, SIG_IGN);
}


#define CASE(name_) {.name = #name_, .run = name_}
#define PLAIN(name_) {.name = #name_, .run = name_, .form = PROBE_PLAIN}

const struct probe_case probe_cases[] = {
	CASE(allocations_before_constructors_are_whole),
	CASE(allocations_of_constructors_are_whole),
	{.name = "constructors_of_preloaded_libraries_may_allocate", .has_companions = true,
	 .run = constructors_of_preloaded_libraries_may_allocate,
	 .says = {"before constructed", "after constructed", "before destroyed", "after destroyed"}},
	CASE(atexit_handlers_may_allocate_and_free),
	CASE(destructors_may_allocate_and_free),
	CASE(quick_exit_handlers_may_allocate_and_free),
	CASE(exit_while_four_threads_allocate),
	PLAIN(dlopen_and_dlclose_do_no_harm),
	PLAIN(thread_may_end_after_dlclose),
	PLAIN(fork_after_dlclose_works),
	PLAIN(dlopen_in_a_thread_does_no_harm),
	{.name = "dlmopen_into_a_plain_program", .run = dlmopen_gives_a_second_library,
	 .form = PROBE_PLAIN},
	{.name = "dlmopen_beside_the_preloaded_library", .run = dlmopen_gives_a_second_library},
	/* An auditor lives in a namespace of its own, with a libc and a malloc of its own. */
	{.name = "an_auditor_beside_the_library_does_no_harm", .run = works,
	 .environment = "LD_AUDIT=@libprobe_before.so",
	 .says = {"before constructed"}},
	CASE(no_file_descriptor_stays_open),
	CASE(closing_every_file_descriptor_does_no_harm),
	{.name = "closing_every_file_descriptor_with_statistics",
	 .run = closing_every_file_descriptor_does_no_harm, .environment = "LIBREGION_STATS=1",
	 .says = {"libregion: process"}, .lines = PROBE_ANY_LINES},
	CASE(works_without_proc),
	CASE(a_failed_move_of_pages_does_no_harm),
	CASE(signals_interrupt_nothing_that_shows),
	{0},
};
