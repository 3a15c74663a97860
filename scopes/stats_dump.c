/*
 * stats_dump.c: when statistics are written, and where to: LIBREGION_STATS and its like.
 *
 * *When.* At exit. On the signal of LIBREGION_STATS_SIGNAL, by whichever thread the signal comes to, also
 * in a program that idles. And every LIBREGION_STATS_INTERVAL milliseconds. There is no thread of ours to
 * keep the time: a thread would change what fork, setuid and namespaces do in the host program. So an
 * interval is met when the program next leaves a scope that has done something, or next comes to a slow
 * half of malloc; one that does neither for a while writes nothing for a while, and has nothing to tell
 * but what it did before. Where there is a signal, too, a timer sends it, and intervals are met to the
 * millisecond, at the cost that a timer has: calls of the program that wait are interrupted, and go on by
 * themselves only where SA_RESTART lets them.
 *
 * *Where to.* To stderr, or to a file. The first writing of a process makes a text or JSON file anew, the
 * others add to it; a Prometheus file always holds the last one, and is replaced by renaming, so that who
 * reads it finds it whole.
 *
 * What must hold: there is one writer at a time. Who comes second leaves word (`is_wanted`) and goes. A
 * thread that holds a lock of ours when the signal comes writes at its next opportunity.
 */
#include <signal.h>
#include <string.h>

#include "scope.h"
#include "scopes.h"

#define PATH_BYTES (OPTION_TEXT_BYTES + 32)

/* How long an exiting process waits for a thread that is writing. */
#define LAST_WAIT_MS 1000u

struct stats_dumps stats_dumps __attribute__((visibility("hidden"))) = {.fd = 2};

static bool ends_in(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);

	return n >= m && strcmp(text + n - m, ending) == 0;
}

static bool is_word(const char *target)
{
	return strcmp(target, "1") == 0 || strcmp(target, "json") == 0 || strcmp(target, "prometheus") == 0;
}

static enum stats_form form_of(const char *target)
{
	if (strcmp(target, "json") == 0 || ends_in(target, ".json"))
		return STATS_JSON;
	return strcmp(target, "prometheus") == 0 || ends_in(target, ".prom") ? STATS_PROMETHEUS : STATS_TEXT;
}

static bool is_on(void)
{
	return options.stats[0] && strcmp(options.stats, "0") != 0;
}

/* Files. */

static char *append(char *at, const char *end, const char *text)
{
	while (*text && at < end - 1)
		*at++ = *text++;
	*at = '\0';
	return at;
}

static char *append_number(char *at, const char *end, unsigned number)
{
	char digits[12], *first = digits + sizeof(digits);

	*--first = '\0';
	do
		*--first = (char)('0' + number % 10);
	while (number /= 10);
	return append(at, end, first);
}

/* The file that the option names, with the process id for each %p. */
static void make_path(char *path, size_t capacity)
{
	const char *from = options.stats, *end = path + capacity;

	for (; *from; from++)
		if (from[0] == '%' && from[1] == 'p') {
			path = append_number(path, end, (unsigned)os_process_id());
			from++;
		} else {
			path = append(path, end, (const char[]){*from, '\0'});
		}
}

/* Is there no file of this process yet? A child that has none of its own adds to its parent's. */
static bool is_first(void)
{
	int last = stats_dumps.writer_id;

	return last == 0 || (last != os_process_id() && strstr(options.stats, "%p"));
}

/* A Prometheus file is written beside its place. */
static int open_file(const char *path, const char *beside, enum stats_form form)
{
	bool is_new = is_first();

	stats_dumps.writer_id = os_process_id();
	if (form == STATS_PROMETHEUS)
		return os_create(beside);
	return is_new ? os_create(path) : os_append(path);
}

static void write_to_file(const struct stats_moment *moment)
{
	char path[PATH_BYTES] = "", beside[PATH_BYTES];

	make_path(path, sizeof(path) - 4);
	append(append(beside, beside + sizeof(beside), path), beside + sizeof(beside), ".new");
	int fd = open_file(path, beside, moment->form);
	if (fd < 0) {
		if (!stats_dumps.has_failed)
			report("LIBREGION_STATS=%s: can't be written; no statistics", path);
		stats_dumps.has_failed = true;
		return;
	}
	stats_write(fd, moment);
	os_close(fd);
	if (moment->form == STATS_PROMETHEUS)
		os_rename(beside, path);
}

/* Writing. */

static void write_now(const char *reason)
{
	struct stats_moment moment = {.form = form_of(options.stats), .reason = reason,
	                              .start_ms = stats_dumps.start_ms, .clock_ms = os_clock_ms()};

	if (is_word(options.stats))
		stats_write(stats_dumps.fd, &moment);
	else
		write_to_file(&moment);
	if (stats_dumps.period_ms)
		__atomic_store_n(&stats_dumps.next_ms, moment.clock_ms + stats_dumps.period_ms, __ATOMIC_RELAXED);
}

static bool become_writer(void)
{
	return !__atomic_exchange_n(&stats_dumps.is_busy, true, __ATOMIC_SEQ_CST);
}

/*
 * Nothing of the program's runs while this writes: a handler that jumps away would leave it busy for
 * good. But the signal that stops threads is let through; its handler comes back.
 */
static void write_alone(const char *reason)
{
	uint64_t before = os_block_signals((int)options.stop_signal);

	/* Who fails to become the writer has said so before; the writer looks after it has ceased to be one. */
	while (__atomic_load_n(&stats_dumps.is_wanted, __ATOMIC_SEQ_CST) && become_writer()) {
		__atomic_store_n(&stats_dumps.is_wanted, false, __ATOMIC_SEQ_CST);
		write_now(reason);
		__atomic_store_n(&stats_dumps.is_busy, false, __ATOMIC_SEQ_CST);
	}
	os_unblock_signals(before);
}

void stats_dump_if_due(void)
{
	uint64_t next_ms = __atomic_load_n(&stats_dumps.next_ms, __ATOMIC_RELAXED), now_ms = os_clock_ms();
	uint64_t later_ms = stats_dumps.period_ms ? now_ms + stats_dumps.period_ms : 0;
	bool is_asked_for = next_ms == STATS_AT_ONCE;

	if (now_ms < next_ms || lock_is_any_held())
		return;
	/* One thread has it. */
	if (!__atomic_compare_exchange_n(&stats_dumps.next_ms, &next_ms, later_ms, false, __ATOMIC_RELAXED,
	                                 __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&stats_dumps.is_wanted, true, __ATOMIC_SEQ_CST);
	write_alone(is_asked_for ? "signal" : "interval");
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	if (lock_is_any_held()) {
		__atomic_store_n(&stats_dumps.next_ms, STATS_AT_ONCE, __ATOMIC_RELAXED);
		return;
	}
	__atomic_store_n(&stats_dumps.is_wanted, true, __ATOMIC_SEQ_CST);
	write_alone(info->si_code == SI_TIMER ? "interval" : "signal");
}

/* Start, fork and end. */

static void set_period(uint64_t ms)
{
	stats_dumps.period_ms = ms;
	stats_dumps.next_ms = ms ? stats_dumps.start_ms + ms : 0;
}

/* Intervals come with the signal, if there is one; the child of a fork has no timer yet. */
static void start_timer(void)
{
	if (options.stats_signal && options.stats_interval && is_on() &&
	    os_start_timer((int)options.stats_signal, options.stats_interval))
		set_period(0);
}

__attribute__((cold)) void stats_start(void)
{
	bool is_live = options.stats_signal || options.stats_interval;

	/* Asking when is asking for them. */
	if (is_live && !options.stats[0])
		strcpy(options.stats, "1");
	stats_dumps.start_ms = os_clock_ms();
	/* coreutils close stderr before destructors run. */
	if (*options.stats && is_word(options.stats))
		stats_dumps.fd = os_keep_fd(2);
	set_period(options.stats_interval && is_on() ? options.stats_interval : 0);
}

/* Signals that are the program's own doing, or can't be handled. */
static bool is_fit(int signal)
{
	static const int unfit[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGSTOP};

	for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++)
		if (signal == unfit[i])
			return false;
	return signal != (int)options.stop_signal;
}

__attribute__((cold)) void stats_start_signal(void)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
	int signal = (int)options.stats_signal;

	if (!signal || !is_on())
		return;
	sigfillset(&action.sa_mask);
	sigdelset(&action.sa_mask, (int)options.stop_signal);
	if (!is_fit(signal) || sigaction(signal, &action, NULL) != 0) {
		report("LIBREGION_STATS_SIGNAL=%d: not a signal that can be had for this; ignored", signal);
		options.stats_signal = 0;
		return;
	}
	start_timer();
}

void stats_after_fork_in_child(void)
{
	stats_dumps.is_busy = false;
	start_timer();
}

__attribute__((cold)) void stats_finish(void)
{
	static const uint32_t never;

	if (!is_on())
		return;
	for (unsigned ms = 0; ms < LAST_WAIT_MS && !become_writer(); ms += 10)
		os_wait_for(&never, 0, 10);
	/* It stays busy: nobody writes after the end. */
	write_now("exit");
}
