/*
 * runner.c: main() of every program with sites: starts itself for a case, plain and hooked, and compares.
 *
 *     sites_x                list the cases
 *     sites_x CASE...        run these cases
 *     sites_x --all          run all of them
 *     sites_x --agrees CASE...   are these the cases of the table?
 *     sites_x --inside CASE  what the two runs are
 *
 * The environment of both runs is of the runner's making. REGION_LIBRARY names the library. With
 * SITES_SHOW=1 the output of each hooked run is shown.
 *
 * With SITES_ADVISE=bytes the hooked run has no sites; its allocations are sampled (LIBREGION_ADVISE), one
 * for so many bytes. Returns are hooked then on any stack. With SITES_ADVISE=bytes+ it has both.
 */
#define _GNU_SOURCE
#include "offsets.h"
#include "sites.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 1 << 18, SECONDS_MAX = 60, DESCRIPTORS_MAX = 64 };
enum verdict { PASSED = 0, FAILED = 1, SKIPPED = 77 };

static const char report_prefix[] = "libregion: ";

struct run {
	pid_t pid;
	int wait_status;
	bool timed_out;
	char out[TEXT_MAX];
	char said[TEXT_MAX];
	char statistics[TEXT_MAX];
};

static const struct site_case *case_called(const char *name)
{
	for (const struct site_case *c = site_cases; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	fprintf(stderr, "sites: there is no case '%s'\n", name);
	exit(FAILED);
}

/* --- spawning --- */

static const char *program_name(void)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s", site_program_path());
	return basename(path);
}

static uintptr_t offset_in_program(const void *address)
{
	Dl_info info;
	struct link_map *map;

	if (!dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP))
		exit(FAILED);
	return (uintptr_t)address - map->l_addr;
}

/* Writes the offset of the symbol whose name ends at '}', and returns what follows. */
static const char *put_offset(FILE *out, const char *name)
{
	size_t length = strcspn(name, "}");

	for (const struct site_symbol *s = site_symbols; s && s->name; s++)
		if (strlen(s->name) == length && strncmp(s->name, name, length) == 0) {
			fprintf(out, "%#lx", (unsigned long)offset_in_program(s->address));
			return name + length + 1;
		}
	fprintf(stderr, "sites: no such symbol: %s\n", name);
	exit(FAILED);
}

static void put_build_id(FILE *out, const unsigned char *note, size_t size)
{
	const ElfW(Nhdr) *head = (const void *)note;

	if (size < sizeof(*head) || head->n_type != NT_GNU_BUILD_ID)
		return;
	note += sizeof(*head) + head->n_namesz;
	for (size_t i = 0; i < head->n_descsz; i++)
		fprintf(out, "%02x", note[i]);
}

/* The program is the first of the list. */
static int find_build_id(struct dl_phdr_info *info, size_t size, void *out)
{
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_NOTE)
			put_build_id(out, (const unsigned char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr,
			             info->dlpi_phdr[i].p_memsz);
	return 1;
}

/* Writes what the text after a '%' stands for, and returns what follows it. */
static const char *put_mark(FILE *out, const char *mark)
{
	if (*mark == 'P')
		fputs(program_name(), out);
	else if (*mark == 'B')
		dl_iterate_phdr(find_build_id, out);
	else if (*mark == 'D')
		fputs(getenv("SITES_SOURCE") ? getenv("SITES_SOURCE") : ".", out);
	else if (*mark == '{')
		return put_offset(out, mark + 1);
	return mark + 1;
}

/* A copy of a table's text with everything put in. */
static char *expanded(const char *text)
{
	char *copy = NULL;
	size_t size;
	FILE *out = open_memstream(&copy, &size);

	while (text && *text)
		if (*text == '%')
			text = put_mark(out, text + 1);
		else
			fputc(*text++, out);
	fclose(out);
	return copy;
}

static void set_words(const char *words)
{
	char *copy = expanded(words);

	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
		char *value = strchr(word, '=');
		if (!value)
			exit(FAILED);
		*value = '\0';
		setenv(word, value + 1, 1);
	}
	free(copy);
}

/* No option of the caller's reaches the library by accident. */
static void clear_options(void)
{
	extern char **environ;

	for (char **variable = environ; *variable;)
		if (strncmp(*variable, "LIBREGION_", 10) == 0)
			unsetenv(strndup(*variable, strcspn(*variable, "=")));
		else
			variable++;
}

static bool is_only_sampled(void)
{
	const char *bytes = getenv("SITES_ADVISE");

	return bytes && !strchr(bytes, '+');
}

static void set_sampling(const char *directory)
{
	char path[512], *bytes = getenv("SITES_ADVISE");

	if (!bytes)
		return;
	snprintf(path, sizeof(path), "%s/%%p.advise", directory);
	setenv("LIBREGION_ADVISE", path, 1);
	setenv("LIBREGION_ADVISE_MEAN", strndup(bytes, strcspn(bytes, "+")), 1);
}

static void set_sites(const char *sites)
{
	setenv("LIBREGION_SITES", offsets_program() ? offsets_of(sites) : sites, 1);
}

static void set_environment(const struct site_case *c, const char *directory)
{
	const char *library = getenv("REGION_LIBRARY");
	char path[512];

	clear_options();
	unsetenv("MALLOC_PERTURB_");
	unsetenv("LD_PRELOAD");
	if (!directory)
		return;
	setenv("LD_PRELOAD", library ? library : "", 1);
	set_sampling(directory);
	if (is_only_sampled())
		return;
	if (c->sites)
		set_sites(expanded(c->sites));
	snprintf(path, sizeof(path), "%s/%%p.json", directory);
	setenv("LIBREGION_STATS", path, 1);
	set_words(c->environment);
}

static void become(const struct site_case *c, const char *directory, int out, int said)
{
	struct rlimit none = {0, 0};
	sigset_t no_signals;

	setpgid(0, 0);
	sigemptyset(&no_signals);
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
	setrlimit(RLIMIT_CORE, &none);
	set_environment(c, directory);
	dup2(out, STDOUT_FILENO);
	dup2(said, STDERR_FILENO);
	for (int fd = 3; fd < DESCRIPTORS_MAX; fd++)
		close(fd);
	const char *program = offsets_program() ? offsets_program() : site_program_path();
	execl(program, program, "--inside", c->name, (char *)NULL);
	_exit(127);
}

static int memory_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0) {
		perror("sites: memfd_create");
		exit(FAILED);
	}
	return fd;
}

static void collect(int fd, char *text)
{
	ssize_t length = fd < 0 ? 0 : pread(fd, text, TEXT_MAX - 1, 0);

	text[length < 0 ? 0 : length] = '\0';
	if (fd >= 0)
		close(fd);
}

static void wait_for(struct run *run)
{
	struct timespec limit = {SECONDS_MAX, 0};
	sigset_t child_ended;

	sigemptyset(&child_ended);
	sigaddset(&child_ended, SIGCHLD);
	run->timed_out = sigtimedwait(&child_ended, NULL, &limit) != SIGCHLD;
	kill(-run->pid, SIGKILL);
	waitpid(run->pid, &run->wait_status, 0);
}

/* Runs the case, hooked if there is a directory for its statistics. */
static void spawn(const struct site_case *c, const char *directory, struct run *run)
{
	int out = memory_file("stdout"), said = memory_file("stderr");
	char path[512];
	sigset_t child_ended;

	sigemptyset(&child_ended);
	sigaddset(&child_ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ended, NULL);
	fflush(stdout);
	run->pid = fork();
	if (run->pid == 0)
		become(c, directory, out, said);
	wait_for(run);
	collect(out, run->out);
	collect(said, run->said);
	snprintf(path, sizeof(path), "%s/%d.json", directory ? directory : "", (int)run->pid);
	collect(directory ? open(path, O_RDONLY | O_CLOEXEC) : -1, run->statistics);
}

/* --- judging --- */

static bool wrong(const struct site_case *c, const char *what, const char *text)
{
	printf("%s: %s%s\n", c->name, what, text);
	return true;
}

static void ending_of(const struct run *run, char *text, size_t size)
{
	if (run->timed_out)
		snprintf(text, size, "hangs");
	else if (WIFSIGNALED(run->wait_status))
		snprintf(text, size, "signal %s", strsignal(WTERMSIG(run->wait_status)));
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(run->wait_status));
}

static bool ended_wrongly(const struct site_case *c, const struct run *run, const char *which)
{
	char text[128], what[64];

	if (!run->timed_out && c->signal && WIFSIGNALED(run->wait_status) &&
	    WTERMSIG(run->wait_status) == c->signal)
		return false;
	if (!run->timed_out && !c->signal && WIFEXITED(run->wait_status) &&
	    WEXITSTATUS(run->wait_status) == c->status)
		return false;
	ending_of(run, text, sizeof(text));
	snprintf(what, sizeof(what), "the %s run ends with: ", which);
	return wrong(c, what, text);
}

static bool is_skipped(const struct run *run)
{
	return !run->timed_out && WIFEXITED(run->wait_status) &&
	       WEXITSTATUS(run->wait_status) == SKIPPED;
}

/* How often scopes of that name were entered, by the statistics; -1: there are no statistics. */
static long entered(const char *statistics, const char *name)
{
	char mark[128];
	const char *set, *count;

	if (!*statistics)
		return -1;
	snprintf(mark, sizeof(mark), "{\"name\": \"%s\", ", name);
	set = strstr(statistics, mark);
	count = set ? strstr(set, "\"scopes_entered\": ") : NULL;
	return count ? atol(count + sizeof("\"scopes_entered\": ") - 1) : 0;
}

/* One "name=count" or "name>count". */
static bool counted_wrongly(const struct site_case *c, const struct run *run, char *word)
{
	size_t at = strcspn(word, "=>");
	char sign = word[at], text[160];
	long expected, count;

	word[at] = '\0';
	expected = atol(word + at + 1);
	count = entered(run->statistics, word);
	if (sign == '>' ? count > expected : count == expected)
		return false;
	snprintf(text, sizeof(text), "%s was entered %ld times, not %c%ld", word, count, sign,
	         expected);
	return wrong(c, text, "");
}

static bool statistics_are_wrong(const struct site_case *c, const struct run *run)
{
	char *words = expanded(c->entered), *rest = NULL;
	bool bad = false;

	for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		bad |= counted_wrongly(c, run, word);
	free(words);
	return bad;
}

/* Every line is ours, and there are as many as the table says. */
static bool said_wrongly(const struct site_case *c, const struct run *run)
{
	int expected = 0, lines = 0;
	bool bad = false;

	for (; expected < 6 && c->says[expected]; expected++) {
		char *text = expanded(c->says[expected]);
		if (!strstr(run->said, text))
			bad = wrong(c, "stderr doesn't say: ", text);
		free(text);
	}
	for (const char *line = run->said; *line; lines++) {
		if (strncmp(line, report_prefix, sizeof(report_prefix) - 1) != 0)
			bad = wrong(c, "stderr has a line that isn't ours", "");
		line = strchrnul(line, '\n');
		line += *line == '\n';
	}
	if (c->lines != SITE_ANY_LINES && lines != (c->lines ? c->lines : expected))
		bad = wrong(c, "stderr has a wrong number of lines", "");
	return bad;
}

static bool outputs_differ(const struct site_case *c, const struct run *plain,
                           const struct run *hooked)
{
	if (strcmp(plain->out, hooked->out) == 0)
		return false;
	wrong(c, "the two runs differ; plain:\n", plain->out);
	return wrong(c, "hooked:\n", hooked->out);
}

static bool differs_when_sampled(const struct site_case *c, const struct run *plain, const struct run *hooked)
{
	bool bad = outputs_differ(c, plain, hooked);

	if (strcmp(plain->said, hooked->said) != 0)
		bad = wrong(c, "stderr isn't that of the plain run", "");
	return bad;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status, (void)type, (void)place;
	return remove(path);
}

static void run_both(const struct site_case *c, struct run *plain, struct run *hooked)
{
	const char *parent = getenv("TMPDIR");
	char directory[256];

	snprintf(directory, sizeof(directory), "%s/sites.XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(directory)) {
		perror("sites: mkdtemp");
		exit(FAILED);
	}
	spawn(c, NULL, plain);
	spawn(c, directory, hooked);
	nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static enum verdict judge(const struct site_case *c, const struct run *plain,
                          const struct run *hooked)
{
	bool bad = false;

	if (is_skipped(plain)) {
		printf("%s: skipped: %s", c->name, plain->said);
		return SKIPPED;
	}
	bad |= ended_wrongly(c, plain, "plain");
	bad |= ended_wrongly(c, hooked, "hooked");
	if (is_only_sampled()) {
		bad |= differs_when_sampled(c, plain, hooked);
	} else {
		bad |= outputs_differ(c, plain, hooked);
		bad |= said_wrongly(c, hooked);
		bad |= statistics_are_wrong(c, hooked);
	}
	if (bad || getenv("SITES_SHOW"))
		printf("--- hooked: stdout ---\n%s--- stderr ---\n%s", hooked->out, hooked->said);
	if (!bad)
		printf("%s: ok\n", c->name);
	return bad ? FAILED : PASSED;
}

static enum verdict run(const char *name)
{
	static struct run plain, hooked;
	const struct site_case *c = case_called(name);

	if (offsets_program() && c->sites && strchr(c->sites, '@')) {
		printf("%s: skipped: callers are given by name\n", c->name);
		return SKIPPED;
	}
	run_both(c, &plain, &hooked);
	return judge(c, &plain, &hooked);
}

/* --- the command line --- */

static enum verdict run_inside(const char *name)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	case_called(name)->run();
	fflush(stdout);
	return PASSED;
}

static enum verdict run_all(void)
{
	enum verdict all = PASSED;

	for (const struct site_case *c = site_cases; c->name; c++)
		if (run(c->name) == FAILED)
			all = FAILED;
	return all;
}

/* The list in the build files and the table must not drift apart. */
static enum verdict agrees(int count, char **names)
{
	enum verdict all = PASSED;
	int in_table = 0;

	for (const struct site_case *c = site_cases; c->name; c++, in_table++) {
		int i = 0;
		while (i < count && strcmp(names[i], c->name) != 0)
			i++;
		if (i == count && wrong(c, "is not among the names given", ""))
			all = FAILED;
	}
	for (int i = 0; i < count; i++)
		case_called(names[i]);
	return in_table == count ? all : FAILED;
}

static enum verdict run_some(int count, char **names)
{
	enum verdict all = PASSED;

	for (int i = 0; i < count; i++) {
		enum verdict one = run(names[i]);
		if (one == FAILED || all == PASSED)
			all = one;
	}
	return all;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--inside") == 0)
		return run_inside(argv[2]);
	if (!getenv("REGION_LIBRARY")) {
		fprintf(stderr, "sites: REGION_LIBRARY is to name the library\n");
		return FAILED;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "--all") == 0)
		return run_all();
	if (argc >= 2 && strcmp(argv[1], "--agrees") == 0)
		return agrees(argc - 2, argv + 2);
	for (const struct site_case *c = site_cases; argc < 2 && c->name; c++)
		puts(c->name);
	return run_some(argc - 1, argv + 1);
}
