/*
 * main.c: `region sites`: which functions of a program can be sites. The program isn't run.
 *
 * The modules of a program are those that its loader would load: the loader is asked to list them. What the
 * program loads later (plugins) can be named in the program's place.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sites.h"

enum status { FOUND = 0, NOTHING = 1, USAGE = 2, CANNOT_BE_READ = 126, NO_SUCH_FILE = 127 };
enum { PROGRESS_SECONDS = 2, LINE_BYTES = 8192, MODULES_MAX = 1024 };

static const char usage[] =
	"usage: region sites [--all] [--json] PROGRAM [PATTERN]\n"
	"\n"
	"Lists the functions of a program that can be sites (LIBREGION_SITES), spelled as they are to "
	"be\n"
	"pasted, with the reason for those that can't be. The program isn't run.\n"
	"\n"
	"  PROGRAM   a program, or a library that some program loads\n"
	"  PATTERN   [MODULE:]FUNCTION: those whose name, mangled or not, matches; * and ? are "
	"wildcards, and\n"
	"            without any a part of the name is enough. It looks into all libraries as well\n"
	"  --all     all functions, also those of libraries; without it, and without a pattern, "
	"libraries are\n"
	"            only summed up\n"
	"  --json    the same as JSON\n"
	"\n"
	"Functions without a symbol (static ones of stripped modules) are listed by their offset, with "
	"the\n"
	"build-id of the file: LIBREGION_SITES='prog[0123456789abcdef]+0x4b20' refuses any other "
	"build.\n"
	"The exit status is 0 if there is one that can be a site, 1 if not, 2 for wrong usage.\n";

static enum status fail(enum status status, const char *what, const char *why)
{
	fprintf(stderr, "region sites: %s: %s\n", what, why);
	return status;
}

/* --- patterns --- */

static bool matches(const char *pattern, const char *name)
{
	if (strpbrk(pattern, "*?["))
		return fnmatch(pattern, name, 0) == 0;
	return strstr(name, pattern) != NULL;
}

/* The module of "module:function", but not of "class::member". */
static size_t module_length(const char *pattern)
{
	const char *colon = strchr(pattern, ':');

	return colon && colon[1] != ':' ? (size_t)(colon - pattern) : 0;
}

static bool is_module(const char *said, size_t length, const char *name)
{
	return strncmp(said, name, length) == 0 && (name[length] == '\0' || strchr(".-", name[length]));
}

bool request_wants(const struct request *request, const struct image *image,
                   const struct function *function)
{
	const char *pattern = request->pattern;
	size_t length = pattern ? module_length(pattern) : 0;

	if (!pattern)
		return true;
	if (length && !is_module(pattern, length, image->module.name))
		return false;
	pattern += length ? length + 1 : 0;
	return matches(pattern, function->name) || matches(pattern, function->display);
}

/* --- modules --- */

struct modules {
	char *paths[MODULES_MAX];
	size_t count;
};

/* A line of the loader's list: "name => path (address)", or "path (address)". */
static void take_line(struct modules *modules, char *line)
{
	char *path = strstr(line, "=> "), *end;

	path = path ? path + 3 : line + strspn(line, " \t");
	end = strstr(path, " (0x");
	if (!end || path[0] != '/' || modules->count == MODULES_MAX)
		return;
	*end = '\0';
	modules->paths[modules->count++] = strdup(path);
}

static pid_t ask_loader(const char *loader, const char *program, int *answer)
{
	int ends[2];
	pid_t child;

	if (pipe(ends) != 0)
		return -1;
	child = fork();
	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		close(ends[0]);
		close(ends[1]);
		execl(loader, loader, "--list", program, (char *)NULL);
		_exit(CANNOT_BE_READ);
	}
	close(ends[1]);
	*answer = ends[0];
	return child;
}

static void find_libraries(struct modules *modules, const char *loader, const char *program)
{
	int answer = -1, status;
	pid_t child = ask_loader(loader, program, &answer);
	FILE *lines = child > 0 ? fdopen(answer, "r") : NULL;
	char line[LINE_BYTES];

	while (lines && fgets(line, sizeof(line), lines))
		take_line(modules, line);
	if (lines)
		fclose(lines);
	if (child > 0 && waitpid(child, &status, 0) == child && status != 0)
		fprintf(stderr, "region sites: %s can't list the libraries of %s\n", loader, program);
}

static void show_progress(const char *name, time_t begin)
{
	if (isatty(STDERR_FILENO) && time(NULL) - begin >= PROGRESS_SECONDS)
		fprintf(stderr, "\r\033[Kregion sites: looking at %s", name);
}

static void end_progress(time_t begin)
{
	if (isatty(STDERR_FILENO) && time(NULL) - begin >= PROGRESS_SECONDS)
		fputs("\r\033[K", stderr);
}

static size_t list_module(const struct request *request, struct image *image, bool is_program)
{
	size_t usable;

	functions_find(image);
	if (is_program || request->pattern || request->all)
		source_find(image, request);
	usable = functions_usable(request, image);
	print_module(request, image, is_program);
	functions_free(image);
	image_close(image);
	return usable;
}

static size_t list_libraries(const struct request *request, const struct modules *modules)
{
	time_t begin = time(NULL);
	size_t usable = 0;

	for (size_t i = 0; i < modules->count; i++) {
		struct image image;
		show_progress(modules->paths[i], begin);
		if (image_open(&image, modules->paths[i]))
			usable += list_module(request, &image, false);
	}
	end_progress(begin);
	return usable;
}

static enum status list(const struct request *request)
{
	static struct modules modules;
	struct image image;
	const char *reason, *loader;
	size_t usable;

	if (access(request->program, R_OK) != 0)
		return fail(errno == ENOENT ? NO_SUCH_FILE : CANNOT_BE_READ, request->program,
		            strerror(errno));
	if (!image_open(&image, request->program))
		return fail(CANNOT_BE_READ, request->program,
		            "not a program or library of this machine (of a script, name the interpreter)");
	if ((reason = code_start()))
		return fail(CANNOT_BE_READ, request->program, reason);
	loader = image_loader(&image);
	if (loader)
		find_libraries(&modules, loader, request->program);
	print_begin(request);
	usable = list_module(request, &image, true) + list_libraries(request, &modules);
	print_end(request);
	return usable ? FOUND : NOTHING;
}

int main(int argc, char **argv)
{
	struct request request = {0};

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return fputs(usage, stdout) < 0;
		else if (strcmp(argv[i], "--json") == 0)
			request.json = true;
		else if (strcmp(argv[i], "--all") == 0)
			request.all = true;
		else if (argv[i][0] == '-')
			return fail(USAGE, argv[i], "no such option; see: region sites --help");
		else if (!request.program)
			request.program = argv[i];
		else if (!request.pattern)
			request.pattern = argv[i];
		else
			return fail(USAGE, argv[i], "one pattern at most; see: region sites --help");
	if (!request.program)
		return fail(USAGE, "no program named", "see: region sites --help");
	return (int)list(&request);
}
