/*
 * site.c: sites from start to end: reading what is wanted, libraries that come and go, and what is said.
 *
 * Late libraries: the loader calls _dl_debug_state, a function that does nothing, for debuggers to stop at.
 * It does so when a library has been mapped and before any of its code runs, and when one is gone. While
 * a site is wanted that hasn't been found, this function calls us. Interposing dlopen instead would
 * change what the loader takes for the caller, and with it where it looks for libraries.
 *
 * A site that isn't found may still come with a library, so that is said at the end, and only by the
 * process that was started with these sites, not by all those that it starts.
 */
#include "site.h"

#include <dlfcn.h>
#include <string.h>

#include "core/core.h"
#include "scopes.h"

#pragma weak _r_debug

/* The beginning. */

static char *copy_of_list(void)
{
	const char *list = options_list("SITES");
	char *copy = range_meta_alloc(strlen(list) + 1);

	return copy ? strcpy(copy, list) : NULL;
}

static char *copy_of_file(void)
{
	size_t bytes;
	const char *file = os_map_file(options.sites_file, &bytes);
	char *copy = file ? range_meta_alloc(bytes + 1) : NULL;

	if (file && copy)
		memcpy(copy, file, bytes);
	if (file)
		os_unmap_file(file, bytes);
	else
		report("LIBREGION_SITES_FILE=%s: can't be read, or is empty; there are no sites from it",
		       options.sites_file);
	return copy;
}

static void read_specs(void)
{
	struct site_spec **last = &sites.specs;
	char *list = options.sites ? copy_of_list() : NULL;
	char *file = options.sites_file[0] ? copy_of_file() : NULL;

	if (list)
		last = site_spec_read(last, "LIBREGION_SITES", list, false);
	if (file)
		site_spec_read(last, options.sites_file, file, true);
	for (struct site_spec *spec = sites.specs; spec; spec = spec->next)
		site_add_names(spec);
}

static int find_own_text(struct dl_phdr_info *info, size_t size, void *context)
{
	char path[ELF_PATH_BYTES];
	struct elf_module module;

	(void)size, (void)context;
	elf_module_set(&module, info, false, path);
	const struct elf_text *text = elf_text_of(&module, (uintptr_t)slot_code);
	if (!text)
		return 0;
	slots.own_text_lo = text->lo;
	slots.own_text_bytes = text->hi - text->lo;
	return 1;
}

/* Late libraries. */

static void loader_notifies(void *unused)
{
	(void)unused;
	if (_r_debug.r_state == RT_CONSISTENT)
		site_look();
}

static bool is_any_wanted(void)
{
	for (const struct site_spec *spec = sites.specs; spec; spec = spec->next)
		if (spec->state == SITE_WANTED || (spec->caller.text[0] && !spec->callers.next))
			return true;
	return false;
}

static void ask_loader(void)
{
	uintptr_t function = &_r_debug ? _r_debug.r_brk : 0;
	char *stub = function ? os_map_near(function, function + 1, OS_PAGE) : NULL;
	int fd = os_open_code();

	if (!stub || !code_make_notifier(function, stub, loader_notifies, fd))
		report("libraries that are loaded later can't be noticed (a debugger?); sites in them are "
		       "plain calls");
	if (fd >= 0)
		os_close(fd);
}

/* What is said. */

static void say_one(const struct site *site)
{
	static const char *const ways[] = {[CODE_REFUSED] = "refused",
	                                   [CODE_ENTRY] = "entry rewritten",
	                                   [CODE_HOP] = "entry rewritten through padding",
	                                   [CODE_CALL] = "call rewritten"};

	report("site \"%s\": %s+0x%llx, %s%s%s", site->spec->text, site->module->name,
	       (unsigned long long)(site->plan.at - site->module->bias), ways[site->plan.way],
	       site->same ? ", as for " : "", site->same ? site->same->spec->text : "");
}

static void say_all(void)
{
	for (const struct site *site = sites.all; site; site = site->next)
		say_one(site);
	for (const struct site_spec *spec = sites.specs; spec; spec = spec->next)
		if (spec->state == SITE_WANTED)
			report("site \"%s\": not found so far", spec->text);
}

static void say_what_it_did(const struct site_spec *spec)
{
	struct region_stats stats = {0};

	region_stats_read_scope(spec->options.name, &stats);
	unsigned long long blocks = stats.blocks_allocated, faded = stats.blocks_faded;
	report("site \"%s\": entered %llu times, %llu blocks, %llu bytes, %llu%% faded", spec->text,
	       (unsigned long long)stats.scopes_entered, blocks,
	       (unsigned long long)stats.bytes_allocated, blocks ? 100 * faded / blocks : 0);
}

/* Was this process started by one that has the same sites? */
static bool is_child(void)
{
	enum { WINDOW_BYTES = 1 << 20 };
	char path[] = "/proc/0000000000/environ", *window = os_map_scratch(WINDOW_BYTES);
	int id = os_parent_id();
	bool is_found = false;

	if (!window)
		return false;
	for (char *digit = path + 15; digit >= path + 6; digit--, id /= 10)
		*digit = (char)('0' + id % 10);
	char *first = path + 6;
	while (*first == '0' && first < path + 15)
		first++;
	memmove(path + 6, first, strlen(first) + 1);
	size_t n = os_read_file(path, window, WINDOW_BYTES - 1);
	for (const char *entry = window; entry < window + n && !is_found; entry += strlen(entry) + 1)
		is_found = strncmp(entry, OPTION_PREFIX "SITES", sizeof(OPTION_PREFIX "SITES") - 1) == 0;
	os_unmap(window, WINDOW_BYTES);
	return is_found;
}

static void say_missing(void)
{
	if (!is_any_wanted() || is_child())
		return;
	for (struct site_spec *spec = sites.specs; spec; spec = spec->next)
		if (spec->state == SITE_WANTED && !spec->was_found)
			site_refuse(spec, SITE_NOT_FOUND);
		else if (spec->caller.text[0] && !spec->callers.next)
			site_refuse(spec, "its caller hasn't been found");
}

/* The interface. */

/* The other libunwind has these names only in its header, for longer ones. */
static bool has_llvm_unwinder(void)
{
	return dlsym(RTLD_DEFAULT, "unw_step") || dlsym(RTLD_DEFAULT, "__unw_step");
}

__attribute__((cold)) bool site_start_slots(void)
{
	if (slots.end)
		return true;
	dl_iterate_phdr(find_own_text, NULL);
	return slot_start(has_llvm_unwinder());
}

__attribute__((cold)) void scopes_start_sites(void)
{
	if ((!options.sites && !options.sites_file[0]) || options.disable || !scope_top(heap_self()))
		return;
	const char *why = site_start_slots() ? code_start() : "the processor has no XSAVE";
	if (why) {
		report("LIBREGION_SITES: %s; there are no sites", why);
		return;
	}
	sites.process_id = os_process_id();
	read_specs();
	if (!sites.specs)
		return;
	site_look();
	if (is_any_wanted())
		ask_loader();
	else
		code_end();
	if (options.verbose)
		say_all();
}

__attribute__((cold)) void site_finish(void)
{
	if (!sites.specs || os_process_id() != sites.process_id)
		return;
	say_missing();
	for (const struct site_spec *spec = sites.specs; options.verbose && spec; spec = spec->next)
		say_what_it_did(spec);
}
