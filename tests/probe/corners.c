/*
 * corners.c: the fade policy `reachable` in programs that do what few programs do: memory that can't be read,
 * or not as it is; stacks inside of other stacks; threads that can't be stopped, or not now.
 */
#define _GNU_SOURCE
#include "chains.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

const enum probe_form probe_default_form = PROBE_FORM;

enum { PAGE = 4096, MADV_GUARD = 102, SECRET_CALL = 447 };

static void *map_fd(size_t bytes, int flags, int fd)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(p != MAP_FAILED, "memory is mapped: %s", strerror(errno));
	return p;
}

/* Between two pages of other kinds, so that it is a mapping of its own. */
static char *map(size_t bytes)
{
	char *p = map_fd(bytes + (2 << 20), MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	madvise(p, bytes + (2 << 20), MADV_NOHUGEPAGE);
	mprotect(p, 1 << 20, PROT_NONE);
	mprotect(p + (1 << 20) + bytes, 1 << 20, PROT_NONE);
	return p + (1 << 20);
}

static uintptr_t *place;
static void put_there(uintptr_t pointer) { *place = pointer; }

static void make_chain_at(void *p)
{
	place = p;
	make_chain(put_there);
	place = NULL;
}

/* --- memory --- */

enum { ROOTS = 8 };

static void leave_sparse_block(void *where)
{
	char *p = probe_opaque(malloc(4 << 20));
	for (size_t at = 0; at < 4 << 20; at += 2 * PAGE)
		p[at] = 1;
	*(char **)where = p;
}

/* To look at the block takes asking for its pages, while pages of the mapping are still to be looked at. */
static void big_blocks_do_not_hide_what_is_beside_their_pointer(void)
{
	char *roots = map(1 << 20);
	region_do(leave_sparse_block, roots);
	for (int i = 1; i < ROOTS; i++)
		make_chain_at(roots + (size_t)i * 2 * PAGE);
	search();
	for (int i = 1; i < ROOTS; i++)
		stays(*(uintptr_t *)(void *)(roots + (size_t)i * 2 * PAGE), "behind that to a big block");
}

static void leave_very_sparse_block(void *where)
{
	char *p = probe_opaque(calloc(1, 256 << 20));
	madvise(p, 256 << 20, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < 256 << 20; at += 2 * PAGE)
		p[at] = 1;
	make_chain_at(p + (200 << 20));
	*(char **)where = p;
}

static char *sparse;

static void big_blocks_may_be_written_in_any_number_of_places(void)
{
	region_do(leave_very_sparse_block, &sparse);
	search();
	stays(*(uintptr_t *)(void *)(sparse + (200 << 20)), "in a block that waits");
}

/* Reached in turn, each by the one before. */
static void leave_big_chain(void *where)
{
	char *last = NULL;
	for (int i = 0; i < 20; i++) {
		char *p = probe_opaque(malloc(2 << 20));
		*(char **)(void *)(p + (1 << 20)) = last;
		last = p;
	}
	*(char **)where = last;
	make_chain_at(last + PAGE);
}

static void big_blocks_lead_to_big_blocks(void)
{
	struct region_stats stats;
	region_do(leave_big_chain, &sparse);
	search();
	stays(*(uintptr_t *)(void *)(sparse + PAGE), "in a chain of big blocks");
	region_stats_read(&stats);
	CHECK(stats.big_reclaimed == 0, "none of them goes: %d", (int)stats.big_reclaimed);
}

static void guard_pages_are_left_alone(void)
{
	char *p = map(1 << 20);
	make_chain_at(p + (64 << 10));
	if (madvise(p, 4 * PAGE, MADV_GUARD) != 0)
		probe_skip("this kernel has no guard pages: %s", strerror(errno));
	search();
	stays(*(uintptr_t *)(void *)(p + (64 << 10)), "behind a guard page");
}

static int faults_fd;

static void *wait_for_faults(void *unused)
{
	struct uffd_msg message;
	ssize_t n = read(faults_fd, &message, sizeof(message));
	CHECK(n < 0, "nobody touches a page that isn't there");
	return unused;
}

/* Marks where no page is, and whoever reads there waits for a thread that stands still. */
static void pages_that_are_only_marked_are_left_alone(void)
{
	faults_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1);
	struct uffdio_api api = {.api = UFFD_API, .features = 1 << 13};
	if (faults_fd < 0 || ioctl(faults_fd, UFFDIO_API, &api) != 0)
		probe_skip("no userfaultfd here: %s", strerror(errno));
	char *p = map(1 << 20);
	struct uffdio_range all = {(uintptr_t)p, 1 << 20};
	struct uffdio_register reg = {.range = all};
	struct uffdio_writeprotect protect = {.range = all, .mode = 1};
	reg.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
	if (ioctl(faults_fd, UFFDIO_REGISTER, &reg) != 0 || ioctl(faults_fd, UFFDIO_WRITEPROTECT, &protect) != 0)
		probe_skip("no marks here: %s", strerror(errno));
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, wait_for_faults, NULL) == 0, "a thread starts");
	search();
}

/* What the program has done with the memory that the one pointer is in. */
enum view { READ_ONLY_VIEW, NO_ACCESS, EXECUTABLE, WRITE_ONLY, PRIVATE_VIEW, SECRET, MADE_READ_ONLY };

static void *view_memory(enum view view, int *fd)
{
	if (view == NO_ACCESS || view == EXECUTABLE || view == WRITE_ONLY)
		return map(2 * PAGE);
	*fd = view == SECRET ? (int)syscall(SECRET_CALL, 0) : memfd_create("probe", 0);
	if (*fd < 0 && view == SECRET)
		probe_skip("no secret memory here: %s", strerror(errno));
	CHECK(*fd >= 0 && ftruncate(*fd, 2 * PAGE) == 0, "a memory file is made");
	return map_fd(2 * PAGE, MAP_SHARED, *fd);
}

static void test_view(enum view view, const char *where)
{
	static const int protections[] = {
		[NO_ACCESS] = PROT_NONE, [EXECUTABLE] = PROT_READ | PROT_EXEC, [WRITE_ONLY] = PROT_WRITE,
		[SECRET] = PROT_READ | PROT_WRITE, [MADE_READ_ONLY] = PROT_READ,
	};
	int fd = -1;
	char *p = view_memory(view, &fd);
	make_chain_at(p + 64);
	if (view == READ_ONLY_VIEW || view == PRIVATE_VIEW) {
		munmap(p, 2 * PAGE);
		p = mmap(NULL, 2 * PAGE, PROT_READ, view == PRIVATE_VIEW ? MAP_PRIVATE : MAP_SHARED, fd, 0);
		CHECK(p != MAP_FAILED, "the file is mapped again");
	} else {
		mprotect(p, 2 * PAGE, protections[view]);
	}
	search();
	if (view == NO_ACCESS || view == WRITE_ONLY)
		mprotect(p, 2 * PAGE, PROT_READ);
	stays(*(uintptr_t *)(void *)(p + 64), where);
}

static void memory_without_access(void) { test_view(NO_ACCESS, "in memory without access"); }
static void memory_to_be_written_only(void) { test_view(WRITE_ONLY, "in memory that is only written"); }
static void memory_beside_code(void) { test_view(EXECUTABLE, "beside code"); }
static void secret_memory(void) { test_view(SECRET, "in secret memory"); }

static void other_views_of_memory_files(void)
{
	test_view(READ_ONLY_VIEW, "in a memory file that is mapped again, to be read");
	test_view(PRIVATE_VIEW, "in a memory file that is mapped again, privately");
	test_view(MADE_READ_ONLY, "in shared memory that was made read-only");
}

/* As coroutine libraries do with their stacks. */
static void protected_pages_inside_of_blocks(void)
{
	char *block = aligned_alloc(PAGE, 64 * PAGE), *small = aligned_alloc(PAGE, 2 * PAGE);
	CHECK(mprotect(block, PAGE, PROT_NONE) == 0, "a page is protected");
	make_chain_at(block + 10 * PAGE);
	search();
	stays(*(uintptr_t *)(void *)(block + 10 * PAGE), "in a block with a guard page");
	/* Among small blocks it can't be read around: nothing is reclaimed. */
	CHECK(mprotect(small + PAGE, PAGE, PROT_NONE) == 0, "a page is protected");
	probe_expect("the process's memory can't be read");
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
	stays(*(uintptr_t *)(void *)(block + 10 * PAGE), "in a block with a guard page");
}

/* --- stacks --- */

enum { STACK_BYTES = 256 << 10 };

static ucontext_t main_context, other_context;

static void search_in_coroutine(void)
{
	clear_stack();
	search();
	swapcontext(&other_context, &main_context);
}

/* Its frame lies below the coroutine's stack. */
static __attribute__((noinline)) void schedule(void)
{
	uintptr_t local[2] = {0};
	make_chain_at(local);
	swapcontext(&main_context, &other_context);
	stays(local[0], "in a frame below the stack in use");
}

static void stacks_that_are_arrays_on_other_stacks(void)
{
	char stack[STACK_BYTES];
	memset(probe_opaque(stack), 0, sizeof(stack));
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = stack;
	other_context.uc_stack.ss_size = sizeof(stack);
	makecontext(&other_context, search_in_coroutine, 0);
	schedule();
}

static void wait_in_handler(int signal_number)
{
	(void)signal_number;
	wait_until_searched();
}

static __attribute__((noinline)) void raise_with_a_local(void)
{
	uintptr_t local[2] = {0};
	make_chain_at(local);
	clear_stack();
	raise(SIGUSR1);
	stays(local[0], "in a frame below the stack in use");
}

static void *handle_on_an_array(void *unused)
{
	char stack[64 << 10];
	stack_t alternate = {.ss_sp = probe_opaque(stack), .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_handler = wait_in_handler, .sa_flags = SA_ONSTACK};
	sigaltstack(&alternate, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise_with_a_local();
	return unused;
}

static void alternate_stacks_that_are_arrays_on_stacks(void)
{
	test_thread(handle_on_an_array);
}

static void *just_wait(void *unused)
{
	wait_until_searched();
	return unused;
}

static void data_between_a_guard_and_a_stack(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	char *p = map_fd(17 * PAGE + STACK_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	mprotect(p, PAGE, PROT_NONE);
	p += PAGE;
	make_chain_at(p + 128);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, p + 16 * PAGE, STACK_BYTES);
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	CHECK(pthread_create(&thread, &attributes, just_wait, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	for (int i = 0; i < 10; i++)
		search();
	stays(*(uintptr_t *)(void *)(p + 128), "between a guard page and a thread's stack");
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
}

#if defined(__x86_64__)
static void leave_alternate_stack(void *unused)
{
	stack_t stack = {.ss_sp = probe_opaque(malloc(40 << 10)), .ss_size = 40 << 10};
	CHECK(sigaltstack(&stack, NULL) == 0, "there is an alternate stack");
	memset(probe_opaque(&stack), 0, sizeof(stack));
	(void)unused;
}

static uintptr_t in_register;
static void put_register(uintptr_t pointer) { in_register = pointer; }

/* Where the stop saves its registers, only the kernel knows. */
static void *spin_with_a_pointer(void *unused)
{
	uintptr_t pointer;
	region_do(leave_alternate_stack, NULL);
	clear_stack();
	make_chain(put_register);
	sem_post(&is_ready);
	__asm__ volatile("movq %1, %%r13\n\tmovq $0, %1\n"
	                 "1:\tpause\n\tcmpl $0, %2\n\tje 1b\n\tmovq %%r13, %0\n\t"
	                 : "=&r"(pointer), "+m"(in_register) : "m"(may_stop_spinning) : "r13", "memory");
	stays(pointer, "in a register of a thread with an alternate stack");
	return unused;
}

static void alternate_stacks_that_a_scope_has_left(void)
{
	struct region_stats stats;
	test_thread(spin_with_a_pointer);
	region_stats_read(&stats);
	CHECK(stats.big_reclaimed == 0, "the stack stays: %d", (int)stats.big_reclaimed);
}
#else
static void alternate_stacks_that_a_scope_has_left(void)
{
	probe_skip("written for x86-64");
}
#endif

/* --- threads --- */

static int to_helper[2], to_handler[2];
static volatile sig_atomic_t handled;

static void ask_helper(int signal_number)
{
	char c = (char)signal_number;
	int saved = errno;
	if (write(to_helper[1], &c, 1) != 1 || read(to_handler[0], &c, 1) != 1)
		_exit(3);
	handled++;
	errno = saved;
}

static void *help(void *unused)
{
	char c;
	while (read(to_helper[0], &c, 1) == 1)
		if (write(to_handler[1], &c, 1) != 1)
			_exit(4);
	return unused;
}

/* Handlers must not run on the thread that searches, while the others stand still. */
static void handlers_may_wait_for_other_threads(void)
{
	struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
	pthread_t thread;
	sigset_t all, before;
	CHECK(pipe(to_helper) == 0 && pipe(to_handler) == 0, "pipes are made");
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	CHECK(pthread_create(&thread, NULL, help, NULL) == 0, "a thread starts");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	struct sigaction action = {.sa_handler = ask_helper, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	char *heap = probe_block(100 << 20, 1);
	setitimer(ITIMER_REAL, &often, NULL);
	double end = probe_seconds_now() + 2;
	while (probe_seconds_now() < end)
		region_do(leave_garbage, NULL);
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(handled > 10 && searches() > 10, "%d signals, %d searches", (int)handled, (int)searches());
	free(heap);
}

/* Is everything still there that might be needed, where searches can't be made? */
static void scopes_without_searches(void)
{
	make_chain(put_hidden);
	for (int i = 0; i < 12; i++)
		region_do(leave_garbage, NULL);
	stays(hidden ^ KEY, "disguised, but no search could be made");
	CHECK(searches() == 0, "no search was made: %d", (int)searches());
}

/* In a new namespace of processes, /proc tells of the old one's numbers. */
static void threads_listed_by_foreign_numbers(void)
{
	if (unshare(CLONE_NEWPID) != 0)
		probe_skip("no new namespaces here: %s", strerror(errno));
	int pid = fork();
	if (pid == 0) {
		pthread_t thread;
		sem_init(&is_ready, 0, 0);
		CHECK(pthread_create(&thread, NULL, just_wait, NULL) == 0, "a thread starts");
		while (sem_wait(&is_ready) != 0)
			continue;
		scopes_without_searches();
		_exit(0);
	}
	CHECK(probe_wait_child(pid, 20) == 0, "the child finds out that it can't search");
}

/* /proc's files belong to root then. */
static void searches_after_a_change_of_user(void)
{
	static uintptr_t *memory;
	if (geteuid() != 0 || setuid(65534) != 0)
		probe_skip("not root");
	memory = map_fd(1 << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	make_chain_at(memory + 1000);
	search();
	stays(memory[1000], "in a mapping");
}

static void *search_alone(void *unused)
{
	static uintptr_t data;
	usleep(20000);
	make_chain_at(&data);
	search();
	stays(data, "in data");
	_exit(77);
	return unused;
}

static void searches_after_the_first_thread_has_ended(void)
{
	int pid = fork();
	if (pid == 0) {
		pthread_t thread;
		CHECK(pthread_create(&thread, NULL, search_alone, NULL) == 0, "a thread starts");
		pthread_exit(NULL);
	}
	CHECK(probe_wait_child(pid, 20) == 77, "the child has searched");
}

static void where_no_signal_can_be_queued_blocks_fade(void)
{
	struct rlimit none = {0, 0};
	pthread_t thread;
	sem_init(&is_ready, 0, 0);
	CHECK(pthread_create(&thread, NULL, just_wait, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	setrlimit(RLIMIT_SIGPENDING, &none);
	double begin = probe_seconds_now();
	scopes_without_searches();
	CHECK(probe_seconds_now() - begin < 1, "nobody waits for what can't come");
}

static void kernel_threads_of_the_process_are_left_out(void)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 60000};
	if (syscall(SYS_io_uring_setup, 4, &params) < 0)
		probe_skip("no io_uring here: %s", strerror(errno));
	usleep(1000);
	search();
	double begin = probe_seconds_now();
	for (int i = 0; i < 10; i++)
		search();
	CHECK(probe_seconds_now() - begin < 5, "nobody waits for the kernel's thread");
}

static volatile int is_blocking;

/* As libc does where a thread starts. */
static void *block_for_a_while(void *unused)
{
	uint64_t all = ~(uint64_t)0, before;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
	sem_post(&is_ready);
	while (sem_wait(&may_go_on) != 0)
		continue;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(all));
	return unused;
}

static void *vfork_for_a_while(void *unused)
{
	sem_post(&is_ready);
	usleep(1000);
	int pid = vfork();
	if (pid == 0) {
		/* The parent waits for as long as this lasts. */
		struct timespec time = {0, 200000000};
		syscall(SYS_nanosleep, &time, NULL);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return unused;
}

/* A search that can't be made now is made later; meanwhile nothing fades. */
static void test_delay(void *(*body)(void *))
{
	pthread_t thread;
	struct region_stats stats;
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	CHECK(pthread_create(&thread, NULL, body, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	usleep(20000);
	make_chain(put_hidden);
	do {
		region_do(leave_garbage, NULL);
		region_stats_read(&stats);
	} while (stats.searches_failed == 0);
	CHECK(stats.searches == 0, "the thread can't be stopped");
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
	search();
	region_stats_read(&stats);
	CHECK(stats.searches_failed == 1, "it fails while it must: %d", (int)stats.searches_failed);
	CHECK(stats.blocks_faded < 1000, "what waited is reclaimed: %d", (int)stats.blocks_faded);
	CHECK(!is_whole((const struct link *)(hidden ^ KEY)), "garbage goes");
}

static void threads_that_block_everything_for_a_while_only_delay(void) { test_delay(block_for_a_while); }
static void threads_in_vfork_only_delay(void) { test_delay(vfork_for_a_while); }

#define SAYS(name_, ...) \
	{.name = #name_, .run = name_, .environment = SMALL, .lines = 1, .says = {__VA_ARGS__}}

const struct probe_case probe_cases[] = {
	CASE(big_blocks_do_not_hide_what_is_beside_their_pointer),
	CASE(big_blocks_may_be_written_in_any_number_of_places),
	CASE(big_blocks_lead_to_big_blocks),
	CASE(guard_pages_are_left_alone),
	CASE(pages_that_are_only_marked_are_left_alone),
	CASE(memory_without_access),
	CASE(memory_to_be_written_only),
	CASE(memory_beside_code),
	CASE(secret_memory),
	CASE(other_views_of_memory_files),
	SAYS(protected_pages_inside_of_blocks, "can't be read"),
	CASE(stacks_that_are_arrays_on_other_stacks),
	CASE(alternate_stacks_that_are_arrays_on_stacks),
	CASE(data_between_a_guard_and_a_stack),
	CASE(alternate_stacks_that_a_scope_has_left),
	CASE(handlers_may_wait_for_other_threads),
	SAYS(threads_listed_by_foreign_numbers, "its threads can't be listed"),
	CASE(searches_after_a_change_of_user),
	CASE(searches_after_the_first_thread_has_ended),
	SAYS(where_no_signal_can_be_queued_blocks_fade, "RLIMIT_SIGPENDING"),
	CASE(kernel_threads_of_the_process_are_left_out),
	CASE(threads_that_block_everything_for_a_while_only_delay),
	CASE(threads_in_vfork_only_delay),
	{0},
};
