/*
 * hidden.c: the fade policy `reachable`: what is hidden anywhere a conservative search must look, stays.
 */
#define _GNU_SOURCE
#include "chains.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

const enum probe_form probe_default_form = PROBE_FORM;

/* --- data --- */

static uintptr_t in_data = 1, in_bss;
static uintptr_t *in_memory;
static char packed_bytes[16];
static pthread_key_t key;

static void put_data(uintptr_t pointer) { in_data = pointer; }
static void put_bss(uintptr_t pointer) { in_bss = pointer; }
static void put_memory(uintptr_t pointer) { *in_memory = pointer; }
static void put_key(uintptr_t pointer) { pthread_setspecific(key, (void *)pointer); }
static void put_inside(uintptr_t pointer) { in_bss = pointer + 50; }
static void put_end(uintptr_t pointer) { in_bss = pointer + sizeof(struct link); }
static void put_tagged(uintptr_t pointer) { in_bss = pointer | (uintptr_t)0xabcd << 48; }
static void put_low_bits(uintptr_t pointer) { in_bss = pointer | 7; }

static void put_packed(uintptr_t pointer)
{
	memcpy(packed_bytes + 4, &pointer, sizeof(pointer));
}

static void put_odd(uintptr_t pointer)
{
	memcpy(packed_bytes + 3, &pointer, sizeof(pointer));
}

static void data_of_the_program(void)
{
	make_chain(put_data);
	make_chain(put_bss);
	search();
	stays(in_data, "in .data");
	stays(in_bss, "in .bss");
}

static void interior_pointers(void)
{
	make_chain(put_inside);
	search();
	stays(in_bss - 50, "one into its first block");
	make_chain(put_end);
	search();
	stays(in_bss - sizeof(struct link), "one past the end of its first block");
}

static void tagged_pointers(void)
{
	make_chain(put_tagged);
	search();
	stays(in_bss & (((uintptr_t)1 << 48) - 1), "one with a tag on top");
	make_chain(put_low_bits);
	search();
	stays(in_bss & ~(uintptr_t)7, "one with its low bits set");
}

static void pointers_at_multiples_of_4(void)
{
	uintptr_t pointer;
	make_chain(put_packed);
	search();
	memcpy(&pointer, packed_bytes + 4, sizeof(pointer));
	stays(pointer, "in a packed structure");
}

static void pointers_at_odd_places(void)
{
	uintptr_t pointer;
	make_chain(put_odd);
	search();
	memcpy(&pointer, packed_bytes + 3, sizeof(pointer));
	stays(pointer, "at an odd place");
}

static void test_memory(uintptr_t *memory, const char *where)
{
	in_memory = memory;
	make_chain(put_memory);
	in_memory = NULL;
	search();
	stays(*memory, where);
}

static void blocks_of_the_heap(void)
{
	uintptr_t **blocks = malloc(2 * sizeof(*blocks));
	test_memory(malloc(16), "in a small block");
	test_memory((uintptr_t *)malloc(1000) + 124, "at the end of a block");
	test_memory((uintptr_t *)malloc(100 << 10) + 5000, "in a big block");
	test_memory((uintptr_t *)malloc(50 << 20) + 4000000, "in a huge block");
	free(blocks);
}

static void *map(size_t bytes, int flags, int fd)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(p != MAP_FAILED, "memory is mapped");
	return p;
}

static void mapped_memory(void)
{
	char *p = map(8 << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	test_memory((uintptr_t *)(void *)(p + (5 << 20)), "in an anonymous mapping");
	mprotect(p, 8 << 20, PROT_READ);
	search();
	stays(*(uintptr_t *)(void *)(p + (5 << 20)), "in a mapping that was made read-only");
	test_memory(map(8 << 20, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1), "in unreserved memory");
}

static void shared_memory(void)
{
	int fd = memfd_create("probe", 0);
	CHECK(fd >= 0 && ftruncate(fd, 1 << 20) == 0, "a memory file is made");
	char *p = map(1 << 20, MAP_SHARED | MAP_ANONYMOUS, -1);
	test_memory((uintptr_t *)(void *)(p + 70000), "in a shared mapping");
	p = map(1 << 20, MAP_SHARED, fd);
	test_memory((uintptr_t *)(void *)(p + 4096), "in a memory file");
	/* The rest of the mapping has no file behind it any more. */
	CHECK(ftruncate(fd, 8192) == 0, "the file is cut");
	search();
	stays(*(uintptr_t *)(void *)(p + 4096), "in a memory file that was cut");
}

static void thread_specific_data(void)
{
	pthread_key_create(&key, NULL);
	make_chain(put_key);
	search();
	stays((uintptr_t)pthread_getspecific(key), "in thread-specific data");
}

static _Thread_local uintptr_t in_tls;
static void put_tls(uintptr_t pointer) { in_tls = pointer; }

static void thread_local_data(void)
{
	make_chain(put_tls);
	search();
	stays(in_tls, "thread-local");
}

static void thread_local_data_of_a_late_library(void)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s", probe_path());
	char *slash = strrchr(path, '/');
	snprintf(slash ? slash + 1 : path, 64, "libprobe_late.so");
	void *library = dlopen(path, RTLD_NOW);
	CHECK(library, "%s", dlerror());
	uintptr_t *(*place)(void) = (uintptr_t * (*)(void))(uintptr_t)dlsym(library, "late_place");
	test_memory(place(), "thread-local in a library that was loaded late");
	uintptr_t *(*data)(void) = (uintptr_t * (*)(void))(uintptr_t)dlsym(library, "late_data");
	test_memory(data(), "in a library that was loaded late");
}

/* --- stacks --- */

static uintptr_t *on_stack;
static void put_on_stack(uintptr_t pointer) { *on_stack = pointer; }

static void locals_of_callers(void)
{
	uintptr_t local[2] = {0};
	on_stack = local;
	make_chain(put_on_stack);
	on_stack = NULL;
	search();
	stays(local[0], "a caller's local");
}

static void *have_a_local(void *unused)
{
	uintptr_t local[2] = {0};
	on_stack = local;
	make_chain(put_on_stack);
	wait_until_searched();
	stays(local[0], "another thread's local");
	return unused;
}

static void *have_thread_local_data(void *unused)
{
	make_chain(put_tls);
	wait_until_searched();
	stays(in_tls, "another thread's thread-local");
	return unused;
}

static void stacks_of_other_threads(void)
{
	test_thread(have_a_local);
	test_thread(have_thread_local_data);
}

#if defined(__x86_64__)
/* Spins with the pointer in one register, or below the stack pointer, and nowhere else. */
static uintptr_t in_register;
static void put_register(uintptr_t pointer) { in_register = pointer; }

static void *have_a_register(void *unused)
{
	uintptr_t pointer;
	make_chain(put_register);
	sem_post(&is_ready);
	__asm__ volatile("movq %1, %%r13\n\tmovq $0, %1\n"
	                 "1:\tpause\n\tcmpl $0, %2\n\tje 1b\n\tmovq %%r13, %0\n\t"
	                 : "=&r"(pointer), "+m"(in_register) : "m"(may_stop_spinning) : "r13", "memory");
	stays(pointer, "in another thread's register");
	return unused;
}

static void *have_a_vector_register(void *unused)
{
	uintptr_t pointer;
	make_chain(put_register);
	sem_post(&is_ready);
	__asm__ volatile("movq %1, %%xmm9\n\tmovq $0, %1\n"
	                 "1:\tpause\n\tcmpl $0, %2\n\tje 1b\n\tmovq %%xmm9, %0\n\t"
	                 : "=&r"(pointer), "+m"(in_register) : "m"(may_stop_spinning) : "xmm9", "memory");
	stays(pointer, "in another thread's vector register");
	return unused;
}

static void *have_a_red_zone(void *unused)
{
	uintptr_t pointer;
	make_chain(put_register);
	sem_post(&is_ready);
	/* The frame is left alone: what the compiler keeps below the stack pointer is put away meanwhile. */
	__asm__ volatile("subq $256, %%rsp\n\tmovq %1, %0\n\tmovq %0, -120(%%rsp)\n\tmovq $0, %0\n\tmovq $0, %1\n"
	                 "1:\tpause\n\tcmpl $0, %2\n\tje 1b\n\tmovq -120(%%rsp), %0\n\taddq $256, %%rsp\n\t"
	                 : "=&r"(pointer), "+m"(in_register) : "m"(may_stop_spinning) : "memory");
	stays(pointer, "in another thread's red zone");
	return unused;
}

static void registers_and_red_zones_of_other_threads(void)
{
	test_thread(have_a_register);
	may_stop_spinning = 0;
	test_thread(have_a_vector_register);
	may_stop_spinning = 0;
	test_thread(have_a_red_zone);
}
#else
static void registers_and_red_zones_of_other_threads(void)
{
	probe_skip("written for x86-64");
}
#endif

enum { STACK_BYTES = 256 << 10 };

static void have_a_local_in_a_handler(int signal_number)
{
	(void)signal_number;
	uintptr_t local[2] = {0};
	on_stack = local;
	put_on_stack(in_bss);
	in_bss = 0;
	wait_until_searched();
	stays(local[0], "on an alternate stack");
}

static void *handle_on_an_alternate_stack(void *unused)
{
	stack_t stack = {.ss_sp = map(STACK_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1), .ss_size = STACK_BYTES};
	struct sigaction action = {.sa_handler = have_a_local_in_a_handler, .sa_flags = SA_ONSTACK};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	make_chain(put_bss);
	raise(SIGUSR1);
	return unused;
}

static void alternate_stacks(void)
{
	test_thread(handle_on_an_alternate_stack);
}

static ucontext_t main_context, other_context;

static void coroutine(void)
{
	uintptr_t local[2] = {in_bss, 0};
	in_bss = 0;
	swapcontext(&other_context, &main_context);
	stays(local[0], "on a coroutine's stack");
	in_data = 77;
	swapcontext(&other_context, &main_context);
}

static void test_coroutine(char *stack)
{
	make_chain(put_bss);
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = stack;
	other_context.uc_stack.ss_size = STACK_BYTES;
	makecontext(&other_context, coroutine, 0);
	swapcontext(&main_context, &other_context);
	search();
	in_data = 0;
	swapcontext(&main_context, &other_context);
	CHECK(in_data == 77, "the coroutine has gone on");
}

static void coroutine_stacks(void)
{
	test_coroutine(malloc(STACK_BYTES));
	test_coroutine(map(STACK_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1));
}

/* A thread's stack in the middle of a mapping, with data below it. */
static void *wait_there(void *unused)
{
	wait_until_searched();
	return unused;
}

static void data_below_a_thread_s_stack(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	char *memory = map(2 << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	in_memory = (uintptr_t *)(void *)(memory + 4096);
	uintptr_t *place = in_memory;
	make_chain(put_memory);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, memory + (1 << 20), 1 << 20);
	sem_init(&is_ready, 0, 0);
	sem_init(&may_go_on, 0, 0);
	CHECK(pthread_create(&thread, &attributes, wait_there, NULL) == 0, "a thread starts");
	while (sem_wait(&is_ready) != 0)
		continue;
	search();
	stays(*place, "below a thread's stack");
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
}

const struct probe_case probe_cases[] = {
	CASE(data_of_the_program),
	CASE(interior_pointers),
	CASE(tagged_pointers),
	WITH(pointers_at_multiples_of_4, "LIBREGION_POINTER_ALIGN=4"),
	WITH(pointers_at_odd_places, "LIBREGION_POINTER_ALIGN=1"),
	CASE(blocks_of_the_heap),
	CASE(mapped_memory),
	CASE(shared_memory),
	CASE(thread_specific_data),
	CASE(thread_local_data),
	CASE(thread_local_data_of_a_late_library),
	CASE(locals_of_callers),
	CASE(stacks_of_other_threads),
	CASE(registers_and_red_zones_of_other_threads),
	CASE(alternate_stacks),
	CASE(coroutine_stacks),
	CASE(data_below_a_thread_s_stack),
	{0},
};
