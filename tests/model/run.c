/*
 * run.c: one run of a program in a forked child. The parent never calls the library under test, so each
 * child starts with a fresh one, and a seed means the same wherever in a row of programs it comes.
 */
#include "run.h"

#include "actor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child leaves by _exit(): a race must end it at once, or nobody would hear of it. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "halt_on_error=1";
}

struct report *report_new(void)
{
	void *memory = mmap(NULL, sizeof(struct report), PROT_READ | PROT_WRITE,
	                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		abort();
	return memory;
}

_Noreturn static void be_child(const struct program *program, struct report *report,
                               unsigned patience_ms, bool quiet)
{
	struct rlimit no_core = {0, 0};
	struct itimerval patience = {.it_value = {patience_ms / 1000, patience_ms % 1000 * 1000}};
	setrlimit(RLIMIT_CORE, &no_core);
	setitimer(ITIMER_REAL, &patience, NULL);
	if (quiet) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (null >= 0)
			dup2(null, STDERR_FILENO);
	}
	world_run(program, report);
	_exit(0);
}

/* Where the threads were: appended to a failure that isn't a check's. */
static void describe_position(const struct program *program, const struct report *report, char *text,
                              size_t room)
{
	for (unsigned i = 0; i < program->threads; i++) {
		size_t at = report->current[i];
		const char *name = at < program->count ? op_name(program->ops[at].kind) : "closing";
		size_t used = strlen(text);
		snprintf(text + used, room - used, "%st%u at %zu (%s)", i ? ", " : ": ", i, at, name);
	}
}

/* How many operations matter: those up to the last one that any thread came to. */
static size_t reached(const struct program *program, const struct report *report)
{
	size_t count = 0;
	for (unsigned i = 0; i < program->threads; i++)
		if (report->current[i] + 1u > count)
			count = report->current[i] + 1u;
	return program->free_running || count > program->count ? program->count : count;
}

static struct outcome outcome_of(const struct program *program, const struct report *report,
                                 int status)
{
	struct outcome outcome = {0};
	const char *failure = atomic_load(&report->failure);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !failure)
		return outcome;
	if (WIFEXITED(status) && WEXITSTATUS(status) == REPORT_EXIT_FAILED && failure) {
		outcome.cause = (uintptr_t)failure;
		snprintf(outcome.text, sizeof outcome.text, "%s", report->text);
	} else if (WIFSIGNALED(status)) {
		outcome.cause = (uintptr_t)WTERMSIG(status);
		snprintf(outcome.text, sizeof outcome.text, "%s",
		         WTERMSIG(status) == SIGALRM ? "hang" : strsignal(WTERMSIG(status)));
		describe_position(program, report, outcome.text, sizeof outcome.text);
	} else {
		/* a sanitizer's verdict, most likely */
		outcome.cause = 256 + (uintptr_t)WEXITSTATUS(status);
		snprintf(outcome.text, sizeof outcome.text, "exit status %d", WEXITSTATUS(status));
		describe_position(program, report, outcome.text, sizeof outcome.text);
	}
	outcome.op_count = reached(program, report);
	return outcome;
}

struct outcome run_program(const struct program *program, struct report *report,
                           unsigned patience_ms, bool quiet)
{
	atomic_store(&report->failure, NULL);
	memset(report->current, 0, sizeof report->current);
	fflush(NULL);
	pid_t child = fork();
	if (child < 0)
		abort();
	if (child == 0)
		be_child(program, report, patience_ms, quiet);
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			abort();
	return outcome_of(program, report, status);
}
