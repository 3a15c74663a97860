/*
 * site_make.c: rewriting the functions that have been found to be meant in a module.
 *
 * First all of them are planned, so that the module's code is gone through once; then the stubs are made,
 * in memory close to the code, and sealed; then the code is rewritten. What is refused on the way is said at
 * the end.
 */
#include <string.h>

#include "core/core.h"
#include "site.h"

static void each_function(void *context, elf_visitor *visitor, void *visitor_context)
{
	struct elf_module *module = context;
	bool has_all = false;

	for (enum elf_source source = 0; source < ELF_SOURCES && !has_all; source++)
		has_all =
			elf_each_function(module, source, visitor, visitor_context) && source != ELF_DYNSYM;
}

static bool is_to_be_made(const struct site *site)
{
	return !site->plan.refusal && !site->same;
}

/* Makes plans for those that haven't been refused. */
static bool plan(struct site_search *search)
{
	size_t bytes = search->count * sizeof(struct code_plan), count = 0;
	struct code_plan *plans = os_map_scratch(bytes);

	if (!plans)
		return false;
	for (struct site *site = search->found; site; site = site->next)
		if (is_to_be_made(site))
			plans[count++] = site->plan;
	if (count)
		code_plan(search->module, plans, count, each_function, search->module);
	count = 0;
	for (struct site *site = search->found; site; site = site->next)
		if (is_to_be_made(site))
			site->plan = plans[count++];
	os_unmap(plans, bytes);
	return true;
}

static bool map_stubs(struct site_search *search)
{
	struct site_module *record = search->record;
	size_t count = 0, bytes;

	for (const struct site *site = search->found; site; site = site->next)
		count += is_to_be_made(site);
	bytes = (count * CODE_STUB_BYTES + OS_PAGE - 1) & ~(OS_PAGE - 1);
	if (count == 0)
		return true;
	record->stubs = os_map_near(search->module->texts[0].lo,
	                            search->module->texts[search->module->text_count - 1].hi, bytes);
	record->stub_bytes = record->stubs ? bytes : 0;
	return record->stubs;
}

static void set_entry(struct site *site, bool is_of_libc)
{
	const struct site_spec *spec = site->spec;

	site->entry = (struct site_entry){
		.options = &spec->options,
		.callers = spec->caller.text[0] ? &spec->callers : NULL,
		.may_nest = spec->may_nest,
		.is_once = spec->is_once,
		.is_of_libc = is_of_libc,
		.is_special = spec->caller.text[0] || spec->is_once || is_of_libc,
	};
}

static bool is_libc(const struct elf_module *module)
{
	return strncmp(module->name, "libc.so", 7) == 0 || strncmp(module->name, "libpthread", 10) == 0;
}

/* Calls that the site before it leaves are this one's, or there are none. */
static void join(struct site *site)
{
	struct site_entry *entry = &site->same->entry;

	site->plan.way = site->same->plan.way;
	site->plan.refusal = site->same->plan.refusal;
	while (entry->otherwise)
		entry = entry->otherwise;
	if (!site->plan.refusal && (entry->callers || entry->is_once))
		entry->otherwise = &site->entry;
}

static void make(struct site_search *search)
{
	char *stub = search->record->stubs;

	for (struct site *site = search->found; site; site = site->next) {
		if (!is_to_be_made(site))
			continue;
		set_entry(site, is_libc(search->module));
		site->entry.resume = code_make(&site->plan, stub, &site->entry,
		                               site->entry.is_special ? slot_entry_special : slot_entry);
		if (!site->entry.resume)
			site->plan.refusal = "what it needs is too far away";
		site->stub = stub;
		stub += CODE_STUB_BYTES;
	}
	for (struct site *site = search->found; site; site = site->next)
		if (site->same) {
			set_entry(site, is_libc(search->module));
			site->entry.resume = site->same->entry.resume;
			join(site);
		}
}

static void write_all(struct site_search *search)
{
	int fd = os_open_code();

	for (struct site *site = search->found; site; site = site->next)
		if (is_to_be_made(site) && !code_write(&site->plan, site->stub, fd))
			site->plan.refusal = "the kernel doesn't let its code be changed (/proc/self/mem)";
	if (fd >= 0)
		os_close(fd);
}

static void refuse_all(struct site_search *search, const char *why)
{
	for (struct site *site = search->found; why && site; site = site->next)
		if (!site->plan.refusal)
			site->plan.refusal = why;
}

/* Says what has been refused, and puts the module's places to the others. */
static void settle(struct site_search *search)
{
	struct site **last = &sites.all;

	while (*last)
		last = &(*last)->next;
	for (struct site *site = search->found, *next; site; site = next) {
		next = site->next;
		if (site->plan.refusal) {
			site_refuse(site->spec, site->plan.refusal);
			if (site->spec->state == SITE_WANTED)
				site->spec->state = SITE_REFUSED;
			site->next = sites.spare_sites;
			sites.spare_sites = site;
		} else {
			site->spec->state = SITE_FOUND;
			site->spec->was_found = true;
			site->next = NULL;
			*last = site;
			last = &site->next;
		}
	}
}

void site_make(struct site_search *search, const char *why)
{
	refuse_all(search, why);
	if (!plan(search))
		refuse_all(search, "there is no memory to plan it");
	if (!map_stubs(search))
		refuse_all(search, "there is no room near its code for what is to be made");
	make(search);
	if (search->record->stubs && !os_seal_code(search->record->stubs, search->record->stub_bytes))
		refuse_all(search, "the kernel doesn't let code be made");
	write_all(search);
	settle(search);
}
