/*
 * sites.h: the command `region sites`, which tells what can be a site, without running the program.
 *
 *     main.c       arguments, the modules of a program, exit status
 *     image.c      a module's file, mapped as the loader would map it
 *     functions.c  its functions, and the verdict on each
 *     source.c     where they come from: demangled names, file and line
 *     print.c      text and JSON
 *
 * The verdicts are those of the library itself: the code that rewrites functions when LIBREGION_SITES is set
 * (scopes/code.h, scopes/module.h, scopes/site.h) is linked into this command, and asked for its plans.
 */
#ifndef LIBREGION_COMMAND_SITES_H
#define LIBREGION_COMMAND_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "scopes/site.h"

/* A function of a module. */
struct function {
	char *name;          /* "" if it has no symbol */
	const char *display; /* demangled, or the name */
	uintptr_t value;     /* as the file has it */
	size_t bytes;        /* 0: not known */
	bool is_indirect;
	bool is_namesake;    /* another function of the module has its name */
	const char *refusal; /* NULL: it can be a site */
	enum code_way way;
	const char *file; /* NULL: not known */
	int line;
};

/* A module's file in memory. Nothing of it is ever run. */
struct image {
	struct elf_module module;
	const char *path;
	void *file;
	size_t file_bytes;
	struct function *functions; /* sorted by name, then by address */
	size_t count;
	bool has_all; /* not only what is exported */
};

/* What was asked for. */
struct request {
	const char *program;
	const char *pattern; /* NULL: all of the program itself */
	bool all, json;
};

/* Maps the file. False: it isn't an ELF file of this machine. */
bool image_open(struct image *image, const char *path);
void image_close(struct image *image);

/* The loader that the file asks for; NULL: none. */
const char *image_loader(const struct image *image);

/* Is the address (as the file has it) in a section that holds no functions of the program's own? */
bool image_is_glue(const struct image *image, uintptr_t value);
uintptr_t image_entry(const struct image *image);

/* Finds all functions of the module, and what is to be said of each. */
void functions_find(struct image *image);
void functions_free(struct image *image);

/* Gives the functions that are wanted their file and line. */
void source_find(struct image *image, const struct request *request);

/* The name as the programmer wrote it; the same text if it isn't mangled. Never freed. */
const char *source_demangled(const char *name);

/* Is the function, whose code begins at `value`, entered by a call? NULL: it is, or nothing is known. */
const char *source_why_not_called(const struct image *image, uintptr_t value);

bool request_wants(const struct request *request, const struct image *image,
                   const struct function *function);

/* Prints what was asked for of a module. `is_program`: it is listed when there is no pattern. */
void print_module(const struct request *request, const struct image *image, bool is_program);
void print_begin(const struct request *request);
void print_end(const struct request *request);

/* How many functions that were wanted can be sites. */
size_t functions_usable(const struct request *request, const struct image *image);

#endif
