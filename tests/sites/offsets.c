/*
 * offsets.c: sites of a stripped program, of which the unstripped one has the symbols.
 *
 * SITES_STRIPPED names a stripped copy of the program, and SITES_SYMBOLS a file with what nm prints of the
 * program as it was. The runs are then those of the copy, and each function of a case's sites is given by its
 * offset, with its name as the scope's.
 */
#define _GNU_SOURCE
#include "offsets.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *offsets_program(void)
{
	return getenv("SITES_STRIPPED");
}

/* Is the symbol the function of that name, or a copy that the compiler has made for some of its calls? */
static bool is_of(const char *symbol, const char *name, size_t length)
{
	return strncmp(symbol, name, length) == 0 &&
	       (symbol[length] == '\0' ||
	        (strncmp(symbol + length, ".constprop.", 11) == 0 && !strstr(symbol, ".cold")));
}

/* The offset of a function; false: there is none of this name. */
static bool find(const char *name, size_t length, unsigned long *offset)
{
	FILE *symbols = fopen(getenv("SITES_SYMBOLS"), "r");
	char line[512], symbol[400], type;
	bool is_found = false;

	while (symbols && !is_found && fgets(line, sizeof(line), symbols))
		is_found = sscanf(line, "%lx %c %399s", offset, &type, symbol) == 3 && strchr("tTwW", type) &&
		           is_of(symbol, name, length);
	if (symbols)
		fclose(symbols);
	return is_found;
}

static void put_site(FILE *out, const char *site, size_t length)
{
	size_t name = strcspn(site, "/,");
	unsigned long offset;

	if (find(site, name, &offset))
		fprintf(out, "%s+0x%lx/name=%.*s%.*s", basename(strdupa(offsets_program())), offset, (int)name, site,
		        (int)(length - name), site + name);
	else
		fprintf(out, "%.*s", (int)length, site);
}

char *offsets_of(const char *sites)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (const char *site = sites, *end; *site; site = *end ? end + 1 : end) {
		end = site + strcspn(site, ",");
		put_site(out, site, (size_t)(end - site));
		if (*end)
			fputc(',', out);
	}
	fclose(out);
	return text;
}
