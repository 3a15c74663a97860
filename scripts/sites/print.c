/*
 * print.c: what `region sites` prints: lines to read and paste, or JSON.
 */
#include <stdio.h>
#include <string.h>

#include "sites.h"

enum { SITE_COLUMNS = 44 };

/* Can the grammar of LIBREGION_SITES say this name? */
static bool is_plain(const char *name)
{
	return name[0] && !strpbrk(name, ",:@/[# \t") && !strstr(name, "+0x");
}

static size_t print_build_id(const struct image *image, char *text, size_t size)
{
	size_t bytes = image->module.build_id_bytes, used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < bytes && used + 3 <= size; i++)
		used += (size_t)snprintf(text + used, size - used, "%02x", image->module.build_id[i]);
	return used;
}

/* By name where that means this function alone; else by offset, with the build that it holds for. */
static void spell(const struct image *image, const struct function *function, char *text,
                  size_t size)
{
	char id[128];

	if (is_plain(function->name) && !function->is_namesake)
		snprintf(text, size, "%s:%s", image->module.name, function->name);
	else if (print_build_id(image, id, sizeof(id)) >= 16)
		snprintf(text, size, "%s[%.16s]+%#lx", image->module.name, id,
		         (unsigned long)function->value);
	else
		snprintf(text, size, "%s+%#lx", image->module.name, (unsigned long)function->value);
}

static const char *way_name(enum code_way way)
{
	return way == CODE_HOP ? "hop" : "entry";
}

/* --- text --- */

static void print_function(const struct image *image, const struct function *function)
{
	const char *slash = function->file ? strrchr(function->file, '/') : NULL;
	bool has_name = function->name[0] &&
	                (function->is_namesake || function->display != function->name);
	char site[4096];

	spell(image, function, site, sizeof(site));
	printf("%-*s", function->refusal || has_name || function->file ? SITE_COLUMNS : 0, site);
	if (function->refusal)
		printf("  can't: %s", function->refusal);
	if (has_name)
		printf("  %s", function->display);
	if (function->file)
		printf("  %s:%d", slash ? slash + 1 : function->file, function->line);
	putchar('\n');
}

static void print_summary(const struct image *image, size_t usable, size_t total, const char *hint)
{
	printf("# %s: %zu of %zu functions can be sites%s%s\n", image->module.name, usable, total,
	       image->has_all ? "" : " (stripped)", hint);
}

static void print_text(const struct request *request, const struct image *image, bool is_listed)
{
	size_t usable = 0, total = 0;

	for (size_t i = 0; i < image->count; i++) {
		const struct function *function = &image->functions[i];
		if (!request_wants(request, image, function))
			continue;
		total++;
		usable += !function->refusal;
		if (is_listed)
			print_function(image, function);
	}
	if (total || !request->pattern)
		print_summary(image, usable, total,
		              is_listed ? "" : "; name a pattern, or --all, to see them");
}

/* --- JSON --- */

static void print_quoted(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < ' ')
			printf("\\u%04x", (unsigned char)*text);
		else
			putchar(*text);
	putchar('"');
}

static void print_member(const char *name, const char *text)
{
	printf(", \"%s\": ", name);
	if (text)
		print_quoted(text);
	else
		fputs("null", stdout);
}

static void print_json_function(const struct image *image, const struct function *function)
{
	char site[4096];

	spell(image, function, site, sizeof(site));
	fputs("{\"site\": ", stdout);
	print_quoted(site);
	print_member("function", function->name[0] ? function->name : NULL);
	print_member("demangled", function->name[0] ? function->display : NULL);
	printf(", \"offset\": %lu, \"bytes\": %zu", (unsigned long)function->value, function->bytes);
	print_member("file", function->file);
	if (function->file)
		printf(", \"line\": %d", function->line);
	print_member("way", function->refusal ? NULL : way_name(function->way));
	print_member("refusal", function->refusal);
	putchar('}');
}

static struct {
	bool has_module;
} printed;

static void print_json(const struct request *request, const struct image *image)
{
	char id[128];
	const char *separator = "\n      ";

	print_build_id(image, id, sizeof(id));
	fputs(printed.has_module ? ",\n    {\"module\": " : "\n    {\"module\": ", stdout);
	printed.has_module = true;
	print_quoted(image->module.name);
	print_member("path", image->path);
	print_member("build_id", id[0] ? id : NULL);
	printf(", \"is_stripped\": %s, \"functions\": [", image->has_all ? "false" : "true");
	for (size_t i = 0; i < image->count; i++) {
		if (!request_wants(request, image, &image->functions[i]))
			continue;
		fputs(separator, stdout);
		print_json_function(image, &image->functions[i]);
		separator = ",\n      ";
	}
	fputs("]}", stdout);
}

void print_begin(const struct request *request)
{
	if (!request->json)
		return;
	fputs("{\"program\": ", stdout);
	print_quoted(request->program);
	fputs(",\n  \"modules\": [", stdout);
}

void print_end(const struct request *request)
{
	if (request->json)
		puts("]}");
}

void print_module(const struct request *request, const struct image *image, bool is_program)
{
	bool is_listed = is_program || request->pattern || request->all;

	if (!request->json)
		print_text(request, image, is_listed);
	else if (is_listed)
		print_json(request, image);
}
