/*
 * life.c: start, fork, the end of threads, the end of the process.
 *
 * Fork: the handlers are registered as early as a library can, so that the prefork one, which takes
 * every lock there is, runs after those of everybody else, who may allocate in theirs.
 *
 * Thread end: a key's destructor ends the thread's scopes and gives its heap up. Destructors that run
 * later still find malloc and free working (heap_dead). A heap made before the key exists, which only
 * the initial thread can have, is never given up: the process ends with it.
 */
#include "life.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/core.h"
#include "scopes/scopes.h"

/*
 * glibc's fork() takes the lock of the list of streams, after the handlers have run. Somebody may hold
 * it who waits for a stream (fflush(NULL)) whose holder waits for one of our locks (getline). So that one
 * is taken first. It is recursive. As fork() does we leave it alone while there is one thread; in the
 * child fork() itself has reset it.
 *
 * The holder of one of our locks may be in a signal handler that forks, and wait for the list there. So who
 * has the list must not wait for our locks: it takes what is free, or gives the list back, and waits then.
 */
extern char __libc_single_threaded __attribute__((weak));
void _IO_list_lock(void) __attribute__((weak));
void _IO_list_unlock(void) __attribute__((weak));

static bool locks_streams(void)
{
	return _IO_list_lock && _IO_list_unlock && &__libc_single_threaded && !__libc_single_threaded;
}

static struct life {
	pthread_key_t key; /* its value is the thread's heap; its destructor ends the thread's heap */
	life_longjmp *longjmps[LIFE_LONGJMP_COUNT];
	int process_id;    /* of whom the memory belongs to; vfork() runs no handlers */
	/* Here, so that no page of strings is needed for them at start. */
	char longjmp_names[LIFE_LONGJMP_COUNT][sizeof("__longjmp_chk")];
} life = {.longjmp_names = {"longjmp", "_longjmp", "siglongjmp", "__longjmp_chk"}};

static void thread_ends(void *heap)
{
	scopes_thread_end(heap);
	heap_retire();
}

static void thread_begins(struct heap *heap)
{
	pthread_setspecific(life.key, heap);
}

static void before_fork(void)
{
	if (!locks_streams()) {
		scopes_before_fork(true);
		return;
	}
	_IO_list_lock();
	while (!scopes_before_fork(false)) {
		scopes_after_fork_in_parent();
		_IO_list_unlock();
		scopes_before_fork(true);
		scopes_after_fork_in_parent();
		_IO_list_lock();
	}
}

static void after_fork_in_parent(void)
{
	scopes_after_fork_in_parent();
	if (locks_streams())
		_IO_list_unlock();
}

static void after_fork_in_child(void)
{
	life.process_id = os_process_id();
	scopes_after_fork_in_child();
}

bool life_is_own_memory(void)
{
	return life.process_id == os_process_id();
}

static void print_wanted(void)
{
	Dl_info info = {0};

	if (options.help)
		options_print(true);
	if (!options.verbose)
		return;
	dladdr((void *)(uintptr_t)life_before_longjmp, &info);
	report("version %s, %s, heap range of %zu bytes", region_version(),
	       info.dli_fname ? info.dli_fname : "linked", range.lanes[LANE_HEAP].reserved_bytes);
	options_print(false);
}

static void find_longjmps(void)
{
	for (unsigned i = 0; i < LIFE_LONGJMP_COUNT; i++)
		life.longjmps[i] = (life_longjmp *)(uintptr_t)dlsym(RTLD_NEXT, life.longjmp_names[i]);
}

life_longjmp *life_next_longjmp(unsigned which)
{
	if (!life.longjmps[which])
		find_longjmps();
	return life.longjmps[which];
}

/*
 * glibc's pthread_atfork() is a call of this, linked into each library, at the end of its code: pages which
 * nothing else needs, and which the kernel would map.
 */
#ifdef __GLIBC__
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library);
extern void *__dso_handle __attribute__((visibility("hidden")));

static int register_atfork(void)
{
	return __register_atfork(before_fork, after_fork_in_parent, after_fork_in_child, __dso_handle);
}
#else
static int register_atfork(void)
{
	return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
#endif

/* glibc hands main's arguments to constructors; its `environ` isn't set before its own has run. */
static __attribute__((constructor(101))) void process_begins(int argc, char **argv, char **environment)
{
	(void)argc, (void)argv, (void)environment;
#ifdef __GLIBC__
	options.environment = environment;
#endif
	struct heap *heap = scopes_start() ? heap_make() : NULL;
	if (!heap)
		return;
	life.process_id = os_process_id();
	if (register_atfork() != 0)
		report("no fork handlers could be registered; a fork with threads may hang in the child");
	if (pthread_key_create(&life.key, thread_ends) == 0)
		scopes_set_birth_hook(thread_begins);
	else
		report("no thread key to be had; the memory of ended threads stays with them");
	find_longjmps();
	print_wanted();
	scopes_start_signal();
	scopes_start_sites();
	scopes_start_advice();
}

static __attribute__((destructor(101))) void process_ends(void)
{
	scopes_finish();
}

/*
 * glibc keeps the stack pointer in word 6 of a jump buffer, mangled with a secret of the process that
 * lies in the thread's control block.
 */
void life_before_longjmp(const void *jump_buffer)
{
#if defined(__x86_64__) && defined(__GLIBC__)
	uintptr_t sp = ((const uintptr_t *)jump_buffer)[6];

	__asm__("rorq $17, %0\n\txorq %%fs:0x30, %0" : "+r"(sp) : : "cc");
	scopes_before_longjmp(sp);
#else
	(void)jump_buffer;
#endif
}
