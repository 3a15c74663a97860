/*
 * guard.c: see guard.h.
 *
 * A touch of fenced memory is a SIGSEGV. Our handler reports it and hands it on to whoever had the signal
 * before: the program's own handler is called with the same arguments, and without one the instruction runs
 * once more, with the signal's default action, so that the process ends (and dumps core) where it would
 * have. Any other SIGSEGV is handed on unseen.
 *
 * The program may set a handler at any time. So at each end of a scope that has reclaimed something it is
 * looked whether ours is still in force, and if not, the new one comes before those that were there: handlers
 * that call the one which they have replaced may thereby come to call ours, which then hands on to the
 * one before.
 *
 * The handler runs on the thread's alternate stack. A thread that has none gets one of ours when it first
 * reclaims.
 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "check.h"
#include "finding.h"
#include "stack.h"

#define STACK_BYTES ((size_t)128 << 10)
#define HANDLER_COUNT 8

static struct guard {
	struct lock lock;
	struct sigaction handlers[HANDLER_COUNT]; /* the program's, the oldest first */
	size_t count;
} guard;

struct lock *guard_lock(void)
{
	return &guard.lock;
}

/* Reporting. */

/* The block that an address lies in, or that was there. */
static void describe(const struct span *span, const char *address, struct finding *finding)
{
	const unsigned char *byte = range_map_of(address), *head = granule_find_head(byte, buffer_map(span));
	struct stack_ending ending;

	if (!head)
		return;
	const uint32_t *note = range_note_of(range_of_map(head));
	finding->block = range_of_map(head);
	finding->bytes = granule_size(head) << GRANULE_SHIFT;
	finding->allocated = stack_of_note(*note);
	finding->was_freed = !stack_is_ending(*note, &ending);
	if (!finding->was_freed) {
		finding->scope = ending.scope;
		finding->ended = ending.ended;
	}
}

/* Of a block that was freed in its scope the scope isn't known; its neighbours' is. */
static void find_scope(const struct span *span, const char *address, struct finding *finding)
{
	const unsigned char *first = buffer_map(span), *at = range_map_of(address);
	struct stack_ending ending;

	for (; !finding->scope && at >= first; at--)
		if (*at && stack_is_ending(*range_note_of(range_of_map(at)), &ending)) {
			finding->scope = ending.scope;
			finding->ended = ending.ended;
		}
}

static bool is_write(const ucontext_t *context)
{
#if defined(__x86_64__)
	return (context->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
	(void)context;
	return false;
#endif
}

static uintptr_t code_of(const ucontext_t *context)
{
#if defined(__x86_64__)
	return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (uintptr_t)context->uc_mcontext.pc;
#else
	(void)context;
	return 0;
#endif
}

/* The frames from the one that was interrupted on: what is before them is the handler's. */
static size_t frames_from(uintptr_t code, uintptr_t *frames, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (frames[i] == code) {
			memmove(frames, frames + i, (count - i) * sizeof(frames[0]));
			count -= i;
			break;
		}
	if (count == 0 || frames[0] != code) {
		frames[0] = code;
		count = 1;
	}
	/* Addresses are taken for those behind a call; this one isn't. */
	frames[0]++;
	return count;
}

static bool is_fenced(const struct span *span, const char *address)
{
	enum span_kind kind = span_kind(span);

	return kind == SPAN_QUARANTINED || (kind == SPAN_BUFFER && waiting_has(span, address));
}

static void report_touch(const siginfo_t *info, const ucontext_t *context)
{
	const char *address = info->si_addr;
	struct thread *thread = scope_thread(heap_self());
	uintptr_t frames[STACK_FRAMES + 1];
	struct finding finding = {
		.kind = FINDING_TOUCH, .address = address, .frames = frames,
		.access = is_write(context) ? "write" : "read",
	};

	if (info->si_code != SEGV_ACCERR || !range_has(address))
		return;
	const struct span *span = span_of(address);
	if (!is_fenced(span, address))
		return;
	describe(span, address, &finding);
	find_scope(span, address, &finding);
	size_t count = thread ? stack_take(thread, frames, STACK_FRAMES) : 0;
	finding.frame_count = frames_from(code_of(context), frames, count);
	finding_report(&finding);
}

/* Handing on. */

static void set_default(int signal)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};

	sigaction(signal, &plain, NULL);
}

/* The kernel has blocked what ours says; the program's handler wants what it has said itself. */
static void call_handler(const struct sigaction *handler, int signal, siginfo_t *info, ucontext_t *context)
{
	sigset_t mask;

	sigorset(&mask, &handler->sa_mask, &context->uc_sigmask);
	if (!(handler->sa_flags & SA_NODEFER))
		sigaddset(&mask, signal);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (handler->sa_flags & SA_SIGINFO)
		handler->sa_sigaction(signal, info, context);
	else
		handler->sa_handler(signal);
}

static void hand_on(unsigned depth, int signal, siginfo_t *info, ucontext_t *context)
{
	struct sigaction handler = {.sa_handler = SIG_DFL};

	lock_acquire(&guard.lock);
	if (depth < guard.count) {
		struct sigaction *own = &guard.handlers[guard.count - 1 - depth];
		handler = *own;
		if (own->sa_flags & SA_RESETHAND)
			*own = (struct sigaction){.sa_handler = SIG_DFL};
	}
	lock_release(&guard.lock);
	/* A fault that would be ignored ends the process all the same. */
	if (!(handler.sa_flags & SA_SIGINFO) && (handler.sa_handler == SIG_DFL || handler.sa_handler == SIG_IGN))
		set_default(signal);
	else
		call_handler(&handler, signal, info, context);
}

/* A thread that hasn't allocated yet has no record; it gets one. */
static struct thread *own_thread(void)
{
	struct scope *top = scope_top(heap_self());

	if (!top)
		top = scopes_first_use();
	return top ? top->thread : NULL;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct thread *thread = own_thread();
	uintptr_t frame = scope_here();
	int saved_errno = errno;
	unsigned depth = 0;

	/*
	 * A handler that has replaced ours calls it: with what it was called with, and from further down.
	 * (Another may have left the last fault by a jump.)
	 */
	bool is_inside = thread && thread->fault_depth > 0;
	if (is_inside && thread->fault_context == context && frame < thread->fault_frame)
		depth = thread->fault_depth;
	else
		report_touch(info, context);
	if (thread) {
		thread->fault_depth = depth + 1;
		thread->fault_context = context;
		thread->fault_frame = depth ? thread->fault_frame : frame;
	}
	errno = saved_errno;
	hand_on(depth, signal, info, context);
	if (thread)
		thread->fault_depth = depth;
}

/* Setting it up. */

static void take_over(void)
{
	struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK}, now;

	sigfillset(&ours.sa_mask);
	sigaction(SIGSEGV, NULL, &now);
	if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
		return;
	lock_acquire(&guard.lock);
	if (guard.count == HANDLER_COUNT) {
		memmove(guard.handlers, guard.handlers + 1, sizeof(guard.handlers) - sizeof(guard.handlers[0]));
		guard.count--;
	}
	guard.handlers[guard.count++] = now;
	lock_release(&guard.lock);
	sigaction(SIGSEGV, &ours, NULL);
}

static void give_stack(struct thread *thread)
{
	stack_t now;

	if (sigaltstack(NULL, &now) != 0 || !(now.ss_flags & SS_DISABLE))
		return;
	if (!thread->fault_stack)
		thread->fault_stack = os_map_scratch(STACK_BYTES);
	if (thread->fault_stack)
		sigaltstack(&(stack_t){.ss_sp = thread->fault_stack, .ss_size = STACK_BYTES}, NULL);
}

void guard_is_up(struct thread *thread)
{
	int saved_errno = errno;

	give_stack(thread);
	take_over();
	errno = saved_errno;
}

__attribute__((cold)) void guard_thread_ends(struct thread *thread)
{
	stack_t now;

	if (!thread->fault_stack)
		return;
	if (sigaltstack(NULL, &now) == 0 && now.ss_sp == thread->fault_stack)
		sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
	os_unmap(thread->fault_stack, STACK_BYTES);
	thread->fault_stack = NULL;
}
