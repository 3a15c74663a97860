/*
 * world.c: see world.h.
 *
 * A stop has a number, which is odd while it lasts. A thread's entry has the number of the stop that it is
 * asked for, and is answered by changing that: so an answer can't be one to a later stop than the thread
 * has seen, or to the entry of another thread. Who has answered waits as long as the number is the one it has
 * seen there; one that wakes late from an earlier stop sees another, and goes.
 */
#include "world.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "os.h"
#include "range.h"
#include "syscalls.h"

#define LIST_BYTES 4096
#define STATUS_BYTES 4096
#define FIRST_CAPACITY 64

#define KERNELS_MAX 64

/* How long it is waited for one that isn't scheduled, blocks the signal, or sleeps in the kernel. */
#define LATE_MS 1000
#define BLOCKED_MS 20
#define BUSY_MS 5

/* Of an entry, besides the number of a stop. */
enum { STATE_STOPPED = 0, STATE_GONE = 2 };

/* Of a thread's flags in /proc/self/task/TID/stat: works for io_uring, or in the kernel for a program. */
#define FLAG_IO_WORKER 0x10u
#define FLAG_USER_WORKER 0x4000u

/* The kernel's own form of struct sigaction. */
struct action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static struct world {
	uint32_t number;   /* of the stop; odd while the world stands still */
	uint32_t acks;     /* of threads that have stopped */
	uint32_t expected; /* of them */
	int signal;
	int culprit;
	struct world_thread *threads;
	size_t count, capacity, wanted;
	size_t kernel_count;
	int kernels[KERNELS_MAX]; /* threads of the kernel's own, which take no signals */
	struct action before; /* what the signal did before us */
	char list[LIST_BYTES] __attribute__((aligned(8)));
	char status[STATUS_BYTES];
} world;

/* The signal. */

#if defined(__x86_64__)
#define ACTION_RESTORER 0x04000000ul
/* The bytes and the name by which unwinders and debuggers know the frame of a signal, as libc has them. */
__asm__(".text\n\t.align 16\n\tnop\n\t.type __restore_rt, @function\n"
        "__restore_rt:\n\tmovq $15, %rax\n\tsyscall\n\t.size __restore_rt, . - __restore_rt\n");
extern void world_restore(void) __asm__("__restore_rt") __attribute__((visibility("hidden")));
#endif

static bool set_action(int signal, const struct action *action, struct action *before)
{
	return raw_call(SYS_rt_sigaction, signal, action, before, sizeof(action->mask)) == 0;
}

static bool is_ours(const siginfo_t *info)
{
	return info->si_code == SI_QUEUE && info->si_value.sival_ptr == &world;
}

/* A signal of somebody else's does what it did before. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
	struct action before = world.before, same = {0};
	bool is_ignored = signal == SIGURG || signal == SIGCHLD || signal == SIGWINCH || signal == SIGCONT;

	if ((uintptr_t)before.handler == (uintptr_t)SIG_IGN)
		return;
	if ((uintptr_t)before.handler != (uintptr_t)SIG_DFL) {
		before.handler(signal, info, context);
	} else if (!is_ignored) {
		/* It is blocked until the handler returns, and then does what it does by default. */
		set_action(signal, &same, NULL);
		raw_call(SYS_tgkill, os_process_id(), os_thread_id(), signal);
	}
}

static struct world_thread *thread_called(int tid)
{
	for (size_t i = 0; i < world.count; i++)
		if (world.threads[i].tid == tid)
			return &world.threads[i];
	return NULL;
}

static uintptr_t stack_pointer_of(const void *context)
{
#if defined(__x86_64__)
	return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
	return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.sp;
#else
	(void)context;
	return 0;
#endif
}

/* The end of what the kernel has saved: the registers, and behind them what vector registers there are. */
static uintptr_t saved_end(const void *context)
{
	uintptr_t end = (uintptr_t)context + sizeof(ucontext_t);
#if defined(__x86_64__)
	const uintptr_t vectors = (uintptr_t)((const ucontext_t *)context)->uc_mcontext.fpregs;
	uint32_t words[2];

	if (!vectors)
		return end;
	/* How long it is stands where FXSAVE leaves room: a magic number, and the length. */
	memcpy(words, (const void *)(vectors + 464), sizeof(words));
	uintptr_t vectors_end = vectors + (words[0] == 0x46505853 ? words[1] : 512);
	end = vectors_end > end ? vectors_end : end;
#endif
	return end;
}

static uintptr_t code_pointer_of(const void *context)
{
#if defined(__x86_64__)
	return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.pc;
#else
	(void)context;
	return 0;
#endif
}

static void stand_still(const void *context)
{
	uint32_t number = __atomic_load_n(&world.number, __ATOMIC_ACQUIRE), asked = number;
	struct world_thread *own = number & 1 ? thread_called(os_thread_id()) : NULL;

	/* The signal of a stop that didn't wait for it. */
	if (!own || !__atomic_compare_exchange_n(&own->state, &asked, STATE_STOPPED, false, __ATOMIC_ACQUIRE,
	                                         __ATOMIC_RELAXED))
		return;
	uintptr_t sp = stack_pointer_of(context), frame = (uintptr_t)__builtin_frame_address(0);
	own->sp = own->registers[0] = sp ? sp : frame;
	own->registers[1] = own->saved_lo = frame;
	own->saved_hi = saved_end(context);
	own->code = code_pointer_of(context);
	own->control = (uintptr_t)pthread_self();
	if (__atomic_add_fetch(&world.acks, 1, __ATOMIC_RELEASE) >=
	    __atomic_load_n(&world.expected, __ATOMIC_RELAXED))
		os_wake_all(&world.acks);
	while (__atomic_load_n(&world.number, __ATOMIC_ACQUIRE) == number)
		os_wait(&world.number, number);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	if (is_ours(info))
		stand_still(context);
	else
		pass_on(signal, info, context);
}

/* The handler may have been replaced since: then that one gets what isn't ours. */
static bool set_handler(int signal)
{
	struct action ours = {.handler = on_signal, .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK, .mask = ~0ul};
	struct action now;

	if (!set_action(signal, NULL, &now))
		return false;
	if (now.handler == on_signal)
		return true;
#if defined(__x86_64__)
	ours.flags |= ACTION_RESTORER;
	ours.restorer = world_restore;
#endif
	world.before = now;
	return set_action(signal, &ours, NULL);
}

/* 0, or the negated error. */
static long ask(int tid)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_code = SI_QUEUE;
	info.si_pid = os_process_id();
	info.si_value.sival_ptr = &world;
	return raw_result(SYS_rt_tgsigqueueinfo, os_process_id(), tid, world.signal, &info);
}

/* The threads. */

bool world_prepare(void)
{
	if (world.capacity >= world.wanted && world.capacity > 0)
		return true;
	size_t capacity = world.capacity ? world.capacity : FIRST_CAPACITY;
	while (capacity < world.wanted)
		capacity *= 2;
	world.count = 0;
	world.threads = range_meta_alloc(capacity * sizeof(*world.threads));
	world.capacity = world.threads ? capacity : 0;
	return world.threads != NULL;
}

/* What getdents64 fills its buffer with. */
struct entry {
	uint64_t inode;
	int64_t next;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

static unsigned number_in(const char *text)
{
	unsigned number = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (unsigned)(*text - '0');
	return number;
}

/* /proc/self/task/TID/FILE, and in it what is behind a label; NULL: it isn't there. */
static const char *text_of(int tid, const char *file, const char *label)
{
	char path[56] = "/proc/self/task/", digits[12];
	size_t n = strlen(path), i = sizeof(digits);

	do
		digits[--i] = (char)('0' + tid % 10);
	while ((tid /= 10) > 0);
	memcpy(path + n, digits + i, sizeof(digits) - i);
	strcpy(path + n + sizeof(digits) - i, file);
	world.status[os_read_file(path, world.status, sizeof(world.status) - 1)] = '\0';
	const char *at = strstr(world.status, label);
	return at ? at + strlen(label) : NULL;
}

/* "TID (name) state ppid pgrp session tty tpgid flags": a name may hold anything, so from the last ')'. */
static bool is_the_kernels(int tid)
{
	const char *at = text_of(tid, "/stat", "(") ? strrchr(world.status, ')') : NULL;

	for (int field = 0; at && field < 7; field++)
		at = strchr(at + 1, ' ');
	return at && (number_in(at + 1) & (FLAG_IO_WORKER | FLAG_USER_WORKER));
}

/* Was it the kernel's when it was last looked at, and is it still? Its number may be another thread's now. */
static bool is_known_kernels(int tid)
{
	for (size_t i = 0; i < world.kernel_count; i++)
		if (world.kernels[i] == tid) {
			if (is_the_kernels(tid))
				return true;
			world.kernels[i] = world.kernels[--world.kernel_count];
		}
	return false;
}

/*
 * Takes the threads into the table that aren't there yet; how many they are, or -1. A list that doesn't have
 * the calling thread is one of another process: /proc belongs to another namespace.
 */
static int list_new(int self)
{
	int fd = (int)raw_call(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int found = 0;
	bool has_self = false;
	long n;

	if (fd < 0)
		return -1;
	while (found >= 0 && (n = raw_call(SYS_getdents64, fd, world.list, sizeof(world.list))) > 0)
		for (long at = 0; at < n;) {
			const struct entry *entry = (const struct entry *)(world.list + at);
			int tid = (int)number_in(entry->name);
			at += entry->bytes;
			has_self |= tid == self;
			if (tid == 0 || tid == self || thread_called(tid) || is_known_kernels(tid))
				continue;
			if (world.count == world.capacity) {
				world.wanted = world.capacity * 2;
				found = -1;
				break;
			}
			world.threads[world.count] = (struct world_thread){.tid = tid, .state = world.number};
			world.count++;
			found++;
		}
	os_close(fd);
	return has_self || found < 0 ? found : -1;
}

/* Is /proc that of our own namespace? The numbers of another one may happen to be right. */
static bool has_own_proc(void)
{
	char link[16];
	long n = raw_call(SYS_readlinkat, AT_FDCWD, "/proc/self", link, sizeof(link) - 1);

	link[n > 0 ? n : 0] = '\0';
	return number_in(link) == (unsigned)os_process_id();
}

/* A first thread that has ended before the others stays listed. */
static bool has_ended(int tid)
{
	if (raw_result(SYS_tgkill, os_process_id(), tid, 0) == -ESRCH)
		return true;
	const char *state = text_of(tid, "/status", "\nState:\t");
	return state && (*state == 'Z' || *state == 'X');
}

/* In what text_of() has read last. */
static bool blocks_signal(void)
{
	const char *mask = strstr(world.status, "\nSigBlk:\t");
	size_t digit = (size_t)(world.signal - 1) / 4;

	/* 16 digits, the highest signals first. */
	if (!mask || strlen(mask += strlen("\nSigBlk:\t")) < 16)
		return false;
	unsigned c = (unsigned char)mask[15 - digit];
	return ((c >= 'a' ? c - 'a' + 10 : c - '0') >> ((world.signal - 1) % 4) & 1) != 0;
}

static void note_gone(struct world_thread *thread)
{
	uint32_t asked = world.number;

	if (__atomic_compare_exchange_n(&thread->state, &asked, STATE_GONE, false, __ATOMIC_RELAXED,
	                                __ATOMIC_RELAXED))
		__atomic_sub_fetch(&world.expected, 1, __ATOMIC_RELAXED);
}

/*
 * Why a thread has not stopped yet. One that runs or is about to only wants time, and so does one that blocks
 * all signals for a moment, as libc has it where a thread starts or ends.
 */
static enum world_result look_into(struct world_thread *thread, unsigned waited_ms)
{
	world.culprit = thread->tid;
	if (has_ended(thread->tid)) {
		note_gone(thread);
		return WORLD_STOPPED;
	}
	const char *state = strstr(world.status, "\nState:\t");
	bool is_asleep = state && state[strlen("\nState:\t")] != 'R';
	bool is_deep = state && state[strlen("\nState:\t")] == 'D';
	if (is_asleep && blocks_signal()) {
		if (!is_the_kernels(thread->tid))
			return waited_ms >= BLOCKED_MS ? WORLD_BLOCKED : WORLD_STOPPED;
		if (world.kernel_count < KERNELS_MAX)
			world.kernels[world.kernel_count++] = thread->tid;
		note_gone(thread);
	} else if (is_deep && waited_ms >= BUSY_MS) {
		return WORLD_BUSY;
	}
	return WORLD_STOPPED;
}

static enum world_result look_after(unsigned waited_ms)
{
	for (size_t i = 0; i < world.count; i++) {
		struct world_thread *thread = &world.threads[i];

		if (__atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) != world.number)
			continue;
		enum world_result result = look_into(thread, waited_ms);
		if (result != WORLD_STOPPED)
			return result;
	}
	return waited_ms < LATE_MS ? WORLD_STOPPED : WORLD_LATE;
}

/* Looks after those that haven't stopped when a round brings nobody, and in the end whatever it brings. */
static enum world_result wait_for_all(void)
{
	uint64_t begin_ms = os_clock_ns() / 1000000;
	enum world_result result = WORLD_STOPPED;
	uint32_t acks;

	while (result == WORLD_STOPPED) {
		acks = __atomic_load_n(&world.acks, __ATOMIC_ACQUIRE);
		if (acks >= world.expected)
			break;
		os_wait_for(&world.acks, acks, 1);
		unsigned waited_ms = (unsigned)(os_clock_ns() / 1000000 - begin_ms);
		if (waited_ms >= LATE_MS || __atomic_load_n(&world.acks, __ATOMIC_ACQUIRE) == acks)
			result = look_after(waited_ms);
	}
	return result;
}

/* Whoever has ended meanwhile needs no signal. */
static bool ask_new(size_t count)
{
	for (size_t i = world.count - count; i < world.count; i++) {
		long error = ask(world.threads[i].tid);
		if (error == -ESRCH) {
			note_gone(&world.threads[i]);
		} else if (error != 0) {
			world.culprit = world.threads[i].tid;
			return false;
		}
	}
	return true;
}

static enum world_result stop_others(void)
{
	int self = os_thread_id(), found;

	if (!has_own_proc())
		return WORLD_NO_LIST;
	/* Whoever stands still starts no thread: in the end a list has nobody new. */
	while ((found = list_new(self)) > 0) {
		if (world.count == (size_t)found && !set_handler(world.signal))
			return WORLD_NO_SIGNAL;
		__atomic_add_fetch(&world.expected, (uint32_t)found, __ATOMIC_RELAXED);
		if (!ask_new((size_t)found))
			return WORLD_NO_QUEUE;
		enum world_result result = wait_for_all();
		if (result != WORLD_STOPPED)
			return result;
	}
	if (found == 0)
		return WORLD_STOPPED;
	return world.wanted > world.capacity ? WORLD_NO_ROOM : WORLD_NO_LIST;
}

/* The thread sanitizer has a thread of its own, which no instrumented handler can run on. */
#if defined(__SANITIZE_THREAD__)
#define HAS_FOREIGN_THREAD true
#else
#define HAS_FOREIGN_THREAD false
#endif

enum world_result world_stop(int signal)
{
	if (HAS_FOREIGN_THREAD)
		return WORLD_NO_SIGNAL;
	world.signal = signal;
	world.count = 0;
	world.acks = world.expected = 0;
	world.culprit = 0;
	__atomic_add_fetch(&world.number, 1, __ATOMIC_SEQ_CST);
	enum world_result result = stop_others();
	if (result != WORLD_STOPPED)
		world_go_on();
	return result;
}

void world_go_on(void)
{
	__atomic_add_fetch(&world.number, 1, __ATOMIC_SEQ_CST);
	if (world.count > 0)
		os_wake_all(&world.number);
}

const struct world_thread *world_threads(size_t *count)
{
	*count = world.count;
	return world.threads;
}

uintptr_t world_own_alternate_stack(void)
{
	stack_t stack;

	if (raw_call(SYS_sigaltstack, NULL, &stack) != 0 || (stack.ss_flags & SS_DISABLE))
		return 0;
	return (uintptr_t)stack.ss_sp;
}

int world_culprit(void)
{
	return world.culprit;
}
