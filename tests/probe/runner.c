/*
 * runner.c: main() of every probe. It spawns the program anew for a case and judges what came of it.
 *
 * The spawned program gets an environment of its own making, so that nothing of the caller's reaches
 * the library by accident, no core file, and a process group, which is killed once it has ended: no
 * case leaves processes behind. Its output goes to memory files, which can't block and which children
 * left behind can't hold open.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OUTPUT_MAX = 1 << 20, VARIABLES_MAX = 64, DESCRIPTORS_MAX = 256 };
enum verdict { PASSED = 0, FAILED = 1, SKIPPED = 77 };

static const char report_prefix[] = "libregion: ";
static const char own_prefix[] = "probe: ";

/* What a spawned program left: wait status, or timed out, and its output. */
struct outcome {
	int wait_status;
	bool timed_out;
	int said_fd;
	int expected_fd;
	char said[OUTPUT_MAX];     /* stderr */
	char expected[OUTPUT_MAX]; /* stdout: what probe_expect() wrote */
};

static enum probe_form form_of(const struct probe_case *c)
{
	return c->form != PROBE_PRELOADED ? c->form : probe_default_form;
}

static const struct probe_case *case_called(const char *name)
{
	for (const struct probe_case *c = probe_cases; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	fprintf(stderr, "probe: there is no case '%s'\n", name);
	exit(FAILED);
}

/* --- the environment of the spawned program --- */

struct environment {
	char *variables[VARIABLES_MAX];
	size_t count;
};

static void add_variable(struct environment *e, char *variable)
{
	if (!variable || e->count == VARIABLES_MAX - 1)
		exit(FAILED);
	e->variables[e->count++] = variable;
}

static void add_named(struct environment *e, const char *name)
{
	char *variable;
	if (getenv(name) && asprintf(&variable, "%s=%s", name, getenv(name)) > 0)
		add_variable(e, variable);
}

static const char *library_path(void)
{
	const char *path = getenv("REGION_LIBRARY");
	return path ? path : "";
}

static const char *directory_of_this_program(void)
{
	char *path = realpath(probe_path(), NULL);
	return path ? dirname(path) : ".";
}

/* Words "NAME=value"; a value "@file" is a file beside this program. */
static void add_words(struct environment *e, const char *words)
{
	char *copy = strdup(words ? words : "");
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
		char *with_path = word, *at = strstr(word, "=@");
		if (at && asprintf(&with_path, "%.*s=%s/%s", (int)(at - word), word,
		                   directory_of_this_program(), at + 2) < 0)
			exit(FAILED);
		add_variable(e, with_path);
	}
}

/* Constructors run from the last to the first: one companion starts before the library, one after it. */
static void add_preload(struct environment *e, const struct probe_case *c)
{
	const char *here = directory_of_this_program();
	char *preload = NULL;
	int length;
	if (c->has_companions)
		length = asprintf(&preload, "LD_PRELOAD=%s/libprobe_after.so %s %s/libprobe_before.so",
		                  here, library_path(), here);
	else
		length = asprintf(&preload, "LD_PRELOAD=%s", library_path());
	add_variable(e, length > 0 ? preload : NULL);
}

static void make_environment(struct environment *e, const struct probe_case *c, const char *count)
{
	static const char *const passed_on[] = {"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH",
	                                        "REGION_LIBRARY", "PROBE_ANY_MALLOC"};
	char *variable;
	memset(e, 0, sizeof(*e));
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		add_named(e, passed_on[i]);
	if (count && asprintf(&variable, "PROBE_COUNT=%s", count) > 0)
		add_variable(e, variable);
	if (form_of(c) == PROBE_PRELOADED)
		add_preload(e, c);
	add_words(e, getenv("PROBE_ENVIRONMENT"));
	add_words(e, c->environment);
}

/* --- spawning --- */

static void set_limit(int resource, size_t bytes)
{
	struct rlimit limit = {bytes, bytes};
	if (setrlimit((__rlimit_resource_t)resource, &limit) != 0)
		_exit(FAILED);
}

static void become(const struct probe_case *c, char **variables, const struct outcome *o)
{
	char *arguments[] = {(char *)"probe", (char *)"--inside", (char *)c->name, NULL};
	sigset_t none;
	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(o->expected_fd, STDOUT_FILENO);
	dup2(o->said_fd, STDERR_FILENO);
	for (int fd = 3; fd < DESCRIPTORS_MAX; fd++)
		close(fd);
	set_limit(RLIMIT_CORE, 0);
	if (c->data_segment)
		set_limit(RLIMIT_DATA, c->data_segment);
	if (c->address_space)
		set_limit(RLIMIT_AS, c->address_space);
	execve(probe_path(), arguments, variables);
	_exit(FAILED);
}

static int memory_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0) {
		perror("probe: memfd_create");
		exit(FAILED);
	}
	return fd;
}

static void collect(int fd, char *text)
{
	ssize_t length = pread(fd, text, OUTPUT_MAX - 1, 0);
	text[length < 0 ? 0 : length] = '\0';
	close(fd);
}

static int time_limit(const struct probe_case *c)
{
	const char *seconds = getenv("PROBE_SECONDS");
	if (seconds)
		return atoi(seconds);
	return c->seconds ? c->seconds : PROBE_DEFAULT_SECONDS;
}

/* SIGCHLD is blocked, so it waits for sigtimedwait() even when it comes first. */
static void wait_for(pid_t pid, int seconds, struct outcome *o)
{
	struct timespec limit = {seconds, 0};
	sigset_t child_ended;
	sigemptyset(&child_ended);
	sigaddset(&child_ended, SIGCHLD);
	o->timed_out = sigtimedwait(&child_ended, NULL, &limit) != SIGCHLD;
	kill(-pid, SIGKILL);
	waitpid(pid, &o->wait_status, 0);
}

static void spawn(const struct probe_case *c, const char *count, struct outcome *o)
{
	struct environment environment;
	sigset_t child_ended;
	pid_t pid;
	sigemptyset(&child_ended);
	sigaddset(&child_ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ended, NULL);
	o->said_fd = memory_file("stderr");
	o->expected_fd = memory_file("stdout");
	make_environment(&environment, c, count);
	pid = fork();
	if (pid == 0)
		become(c, environment.variables, o);
	wait_for(pid, time_limit(c), o);
	collect(o->said_fd, o->said);
	collect(o->expected_fd, o->expected);
}

/* --- judging --- */

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int count_reports(const char *said)
{
	int count = 0;
	for (const char *line = said; line && *line; line = strchr(line, '\n'), line += line != NULL)
		count += starts_with(line, report_prefix);
	return count;
}

static bool has_stray_line(const char *said)
{
	for (const char *line = said; line && *line; line = strchr(line, '\n'), line += line != NULL)
		if (!starts_with(line, report_prefix) && !starts_with(line, own_prefix))
			return true;
	return false;
}

static bool wrong(const struct probe_case *c, const char *what, const char *text)
{
	printf("%s: %s%s\n", c->name, what, text);
	return true;
}

static bool ended_wrongly(const struct probe_case *c, const struct outcome *o)
{
	char text[64];
	if (o->timed_out)
		return wrong(c, "hangs: killed after its time limit", "");
	if (WIFSIGNALED(o->wait_status) && c->signal == WTERMSIG(o->wait_status))
		return false;
	if (WIFEXITED(o->wait_status) && !c->signal && WEXITSTATUS(o->wait_status) == c->status)
		return false;
	if (WIFSIGNALED(o->wait_status))
		return wrong(c, "was killed by: ", strsignal(WTERMSIG(o->wait_status)));
	snprintf(text, sizeof(text), "%d", WEXITSTATUS(o->wait_status));
	return wrong(c, "ended with exit status ", text);
}

static bool expectation_missed(const struct probe_case *c, struct outcome *o)
{
	bool bad = false;
	for (char *line = strtok(o->expected, "\n"); line; line = strtok(NULL, "\n"))
		if (!strstr(o->said, line))
			bad = wrong(c, "stderr doesn't say: ", line);
	return bad;
}

static bool said_wrongly(const struct probe_case *c, struct outcome *o)
{
	const char *verdict = c->judge ? c->judge(o->said) : NULL;
	bool bad = expectation_missed(c, o);
	for (int i = 0; i < 4 && c->says[i]; i++)
		if (!strstr(o->said, c->says[i]))
			bad = wrong(c, "stderr doesn't say: ", c->says[i]);
	if (c->never && strstr(o->said, c->never))
		bad = wrong(c, "stderr says: ", c->never);
	if (verdict)
		bad = wrong(c, "stderr is wrong: ", verdict);
	if (c->lines == PROBE_ANY_LINES)
		return bad;
	if (count_reports(o->said) != c->lines)
		bad = wrong(c, "has a wrong number of reports on stderr", "");
	if (has_stray_line(o->said))
		bad = wrong(c, "has a line on stderr that starts like none of ours", "");
	return bad;
}

static enum verdict run(const char *name, const char *count)
{
	static struct outcome o;
	const struct probe_case *c = case_called(name);
	bool bad;
	spawn(c, count, &o);
	if (!o.timed_out && WIFEXITED(o.wait_status) && WEXITSTATUS(o.wait_status) == SKIPPED) {
		printf("%s: %s", c->name, o.said);
		return SKIPPED;
	}
	bad = ended_wrongly(c, &o);
	bad |= said_wrongly(c, &o);
	if (bad)
		printf("--- its stderr ---\n%s------------------\n", o.said);
	else
		printf("%s: ok\n", c->name);
	return bad ? FAILED : PASSED;
}

/* --- the command line --- */

static enum verdict run_inside(const char *name)
{
	const struct probe_case *c = case_called(name);
	probe_prove_form(form_of(c));
	c->run();
	return PASSED;
}

static enum verdict run_all(void)
{
	enum verdict all = PASSED;
	for (const struct probe_case *c = probe_cases; c->name; c++)
		if (run(c->name, NULL) == FAILED)
			all = FAILED;
	return all;
}

/* The list in the build files and the table must not drift apart. */
static enum verdict agrees(int count, char **names)
{
	enum verdict all = PASSED;
	int in_table = 0;
	for (const struct probe_case *c = probe_cases; c->name; c++, in_table++) {
		int i = 0;
		while (i < count && strcmp(names[i], c->name) != 0)
			i++;
		if (i == count) {
			printf("not among the names given: %s\n", c->name);
			all = FAILED;
		}
	}
	for (int i = 0; i < count; i++)
		case_called(names[i]);
	if (in_table != count) {
		printf("%d names given, %d cases in the table\n", count, in_table);
		all = FAILED;
	}
	return all;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--inside") == 0)
		return run_inside(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "--all") == 0)
		return run_all();
	if (argc >= 2 && strcmp(argv[1], "--agrees") == 0)
		return agrees(argc - 2, argv + 2);
	if (argc >= 2)
		return run(argv[1], argv[2]);
	for (const struct probe_case *c = probe_cases; c->name; c++)
		puts(c->name);
	return PASSED;
}
