/*
 * site_find.c: finding the functions that are meant by sites.
 *
 * Modules are looked at in the order in which they were loaded. A site that names no module is in the first
 * one that has the function. Each module's symbols are gone through once, and each symbol's name is hashed
 * and looked up among the names that are wanted.
 */
#include <string.h>

#include "core/core.h"
#include "site.h"

struct sites sites;

void site_refuse(struct site_spec *spec, const char *why)
{
	/* A name may be that of several functions. */
	if (spec->refusal == why)
		return;
	spec->refusal = why;
	report("site \"%s\": %s; its calls are plain calls", spec->text, why);
}

/* Names. */

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))
#define HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15)

/* Bit 7 of each byte that is zero, and perhaps of bytes above the lowest such byte. */
static uint64_t zero_bytes(uint64_t word)
{
	return (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
}

/* Of a name up to its first dot or its end, 8 bytes at a time; so many may be read from any of it. */
static uint64_t hash_of(const char *name)
{
	uint64_t hash = 0, word, ends;

	for (;; name += sizeof(word)) {
		memcpy(&word, name, sizeof(word));
		ends = zero_bytes(word) | zero_bytes(word ^ EACH_BYTE('.'));
		if (ends)
			word &= ((ends & -ends) >> 7) - 1;
		hash = (hash ^ word) * HASH_FACTOR;
		hash ^= hash >> 32;
		if (ends)
			return hash;
	}
}

static void add_name(struct site_name *name)
{
	char padded[512] = "";

	if (!name->text[0])
		return;
	strncpy(padded, name->text, sizeof(padded) - sizeof(uint64_t) - 1);
	name->hash = hash_of(padded);
	struct site_name **bucket = &sites.buckets[name->hash % SITE_BUCKETS];
	/* In the order of the sites: the first one of a function goes before. */
	while (*bucket)
		bucket = &(*bucket)->next_of_hash;
	*bucket = name;
}

void site_add_names(struct site_spec *spec)
{
	add_name(&spec->function);
	add_name(&spec->caller);
}

/* Does the compiler make a function of its own of this suffix, which is called in the other's place? */
static bool is_clone(const char *suffix)
{
	static const char *const clones[] = {".isra.", ".constprop.", ".lto_priv.", ".llvm."};

	if (strstr(suffix, ".cold") || strstr(suffix, ".part."))
		return false;
	for (size_t i = 0; i < sizeof(clones) / sizeof(clones[0]); i++)
		if (strncmp(suffix, clones[i], strlen(clones[i])) == 0)
			return true;
	return false;
}

static bool is_called(const char *symbol, const char *name)
{
	size_t length = strlen(name);

	return strncmp(symbol, name, length) == 0 &&
	       (symbol[length] == '\0' || is_clone(symbol + length));
}

/* Does what a site says mean this module? "" means each. */
static bool is_module(const char *said, const struct elf_module *module)
{
	size_t length = strlen(said);

	if (strchr(said, '/'))
		return strcmp(said, module->path) == 0;
	if (strncmp(said, module->name, length) != 0)
		return false;
	return length == 0 || strchr(".-", module->name[length]);
}

/* Refusals that need no look at the code. */

static bool is_among(const char *name, const char *const *names)
{
	for (; *names; names++)
		if (strcmp(name, *names) == 0)
			return true;
	return false;
}

const char *site_why_not_by_name(const char *name)
{
	static const char *const starts[] = {"_start", "_init", "_fini", NULL};
	static const char *const returns_twice[] = {
		"setjmp",           "_setjmp",     "sigsetjmp",   "__sigsetjmp",     "getcontext",
		"setcontext",       "swapcontext", "makecontext", "__start_context", "vfork",
		"__vfork",          "clone",       "__clone",     "clone3",          "__clone3",
		"__clone_internal", NULL};
	static const char *const asks_caller[] = {"dlopen",
	                                          "dlsym",
	                                          "dlvsym",
	                                          "dlmopen",
	                                          "__libc_dlopen_mode",
	                                          "__libc_dlsym",
	                                          "_dl_open",
	                                          "_dl_sym",
	                                          "_dl_vsym",
	                                          "__libc_start_main",
	                                          "__libc_start_call_main",
	                                          "_dl_debug_state",
	                                          NULL};
	static const char *const mallocs[] = {"malloc",
	                                      "calloc",
	                                      "realloc",
	                                      "free",
	                                      "reallocarray",
	                                      "aligned_alloc",
	                                      "posix_memalign",
	                                      "memalign",
	                                      "valloc",
	                                      "pvalloc",
	                                      "malloc_usable_size",
	                                      "cfree",
	                                      "_int_malloc",
	                                      "_int_free",
	                                      "_int_realloc",
	                                      NULL};

	if (is_among(name, starts) || strstr(name, ".cold"))
		return "it isn't called as a function";
	if (is_among(name, returns_twice))
		return "it returns twice, or to somewhere else";
	if (is_among(name, asks_caller) || strncmp(name, "_Unwind_", 8) == 0)
		return "it looks at its return address";
	if (strcmp(name, "__tls_get_addr") == 0 || is_among(name, mallocs) ||
	    strncmp(name, "_Zn", 3) == 0 || strncmp(name, "_Zd", 3) == 0 ||
	    strncmp(name, "__libc_malloc", 13) == 0)
		return "allocation needs it";
	return NULL;
}

static bool is_own(const struct elf_module *module)
{
	return elf_text_of(module, (uintptr_t)slot_code);
}

const char *site_why_not_in(struct elf_module *module)
{
	if (is_own(module) && !module->is_program)
		return "it is libregion's own";
	if (strncmp(module->name, "ld-linux", 8) == 0)
		return "it is the loader's";
	if (elf_has_section(module, ".note.go.buildid"))
		return "it is in a Go program, which moves its stacks";
	return NULL;
}

/* A look at one module. */

static struct site *make_site(void)
{
	struct site *site = sites.spare_sites;

	if (!site)
		return range_meta_alloc(sizeof(*site));
	sites.spare_sites = site->next;
	return site;
}

static struct site *find_place(const struct site_search *search, uintptr_t at)
{
	struct site *site = search->found;

	while (site && (site->plan.at != at || site->same || site->plan.refusal))
		site = site->next;
	return site;
}

/* A place that a site means, to be refused if `why`. */
static void add_place(struct site_search *search, struct site_spec *spec, uintptr_t at,
                      size_t bytes, const char *why)
{
	struct site *same = why ? NULL : find_place(search, at), *site;

	/* A function may have several symbols of one name. */
	if (same && same->spec == spec)
		return;
	site = make_site();
	if (!site)
		return;
	*site = (struct site){
		.spec = spec,
		.module = search->record,
		.plan = {.at = at, .bytes = bytes, .refusal = why},
		.same = same,
	};
	if (!spec->function.text[0]) {
		site->plan.may_be_call = true;
		site->plan.start = elf_function_start(search->module, at);
	}
	spec->found_in = search->record;
	*search->last = site;
	search->last = &site->next;
	search->count++;
}

static void add_caller(struct site_spec *spec, uintptr_t lo, size_t bytes)
{
	for (const struct site_callers *known = &spec->callers; known; known = known->next)
		if (known->lo == lo)
			return;
	struct site_callers *callers = range_meta_alloc(sizeof(*callers));
	if (!callers)
		return;
	*callers = (struct site_callers){.next = spec->callers.next, .lo = lo, .bytes = bytes};
	__atomic_store_n(&spec->callers.next, callers, __ATOMIC_RELEASE);
}

static bool is_wanted_in(const struct site_spec *spec, const struct site_search *search)
{
	return spec->state == SITE_WANTED && (!spec->found_in || spec->found_in == search->record) &&
	       is_module(spec->module, search->module);
}

static void visit(void *context, const struct elf_function *function)
{
	struct site_search *search = context;
	uint64_t hash = hash_of(function->name);
	uintptr_t at = search->module->bias + function->value;

	for (struct site_name *name = sites.buckets[hash % SITE_BUCKETS]; name;
	     name = name->next_of_hash) {
		if (name->hash != hash || name->is_caller != search->is_for_callers ||
		    !is_called(function->name, name->text))
			continue;
		if (name->is_caller)
			add_caller(name->spec, at, function->bytes ? function->bytes : 1);
		else if (is_wanted_in(name->spec, search))
			add_place(search, name->spec, at, function->bytes,
			          function->is_indirect
			              ? "the loader chooses among several functions for it (IFUNC)"
			              : site_why_not_by_name(function->name));
	}
}

/* Is there something that this module might have, in places that haven't been looked at? */
static bool is_more_wanted(const struct site_search *search)
{
	for (const struct site_spec *spec = sites.specs; spec; spec = spec->next) {
		if (search->is_for_callers && spec->caller.text[0] && !spec->callers.next)
			return true;
		if (!search->is_for_callers && spec->function.text[0] && !spec->found_in &&
		    is_wanted_in(spec, search))
			return true;
	}
	return false;
}

static void search_symbols(struct site_search *search)
{
	bool has_all = false;

	for (enum elf_source source = 0; source < ELF_SOURCES && !has_all && is_more_wanted(search);
	     source++)
		/* Whoever has a .symtab has everything in it. */
		has_all = elf_each_function(search->module, source, visit, search) && source != ELF_DYNSYM;
}

static bool has_build_id(const struct elf_module *module, const char *wanted)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; wanted[i]; i++) {
		if (i / 2 >= module->build_id_bytes)
			return false;
		if (wanted[i] != digits[module->build_id[i / 2] >> (i % 2 ? 0 : 4) & 15])
			return false;
	}
	return true;
}

static void search_offsets(struct site_search *search)
{
	for (struct site_spec *spec = sites.specs; spec; spec = spec->next) {
		if (spec->function.text[0] || !is_wanted_in(spec, search))
			continue;
		bool is_same = has_build_id(search->module, spec->build_id);
		add_place(search, spec, search->module->bias + spec->offset, 0,
		          is_same ? NULL : "the module has another build-id, so the offset isn't for it");
	}
}

static void search_module(struct site_search *search)
{
	search->last = &search->found;
	search_offsets(search);
	search_symbols(search);
	if (!search->found)
		return;
	site_make(search, site_why_not_in(search->module));
}

/* Looks at all modules. */

static struct site_module *record_of(const struct dl_phdr_info *info)
{
	struct site_module *record = sites.modules;

	while (record && (record->bias != info->dlpi_addr || record->headers != info->dlpi_phdr))
		record = record->next;
	return record;
}

static struct site_module *make_record(const struct elf_module *module)
{
	struct site_module *record = sites.spare_modules;

	if (record)
		sites.spare_modules = record->next;
	else
		record = range_meta_alloc(sizeof(*record));
	if (!record)
		return NULL;
	*record = (struct site_module){
		.bias = module->bias, .headers = module->headers, .next = sites.modules};
	strncpy(record->name, module->name, sizeof(record->name) - 1);
	sites.modules = record;
	return record;
}

/*
 * Compressed symbols would take a library that allocates, in every program with sites. Debian has none; and
 * offsets serve.
 */
static void say_missing(struct elf_module *module)
{
	for (struct site_spec *spec = sites.specs; spec; spec = spec->next)
		if (spec->state == SITE_WANTED && spec->module[0] && is_module(spec->module, module)) {
			site_refuse(spec, elf_has_section(module, ".gnu_debugdata") ? SITE_COMPRESSED : SITE_NOT_FOUND);
			spec->state = SITE_REFUSED;
		}
}

/* The first pass, for callers, is made only if there are any; the second takes note of modules. */
static int look_at(struct dl_phdr_info *info, size_t size, void *context)
{
	char path[ELF_PATH_BYTES];
	struct elf_module module;
	bool is_for_callers = context != NULL;
	struct site_module *record = record_of(info);

	(void)size;
	if (record) {
		record->seen = sites.look;
		return 0;
	}
	elf_module_set(&module, info, !sites.modules && !info->dlpi_name[0], path);
	if (is_for_callers) {
		search_symbols(&(struct site_search){.module = &module, .is_for_callers = true});
	} else if ((record = make_record(&module))) {
		record->seen = sites.look;
		search_module(&(struct site_search){.module = &module, .record = record});
		say_missing(&module);
	}
	elf_module_close(&module);
	return 0;
}

static void forget_site(struct site *site)
{
	struct site_spec *spec = site->spec;

	if (spec->found_in == site->module) {
		spec->found_in = NULL;
		spec->state = SITE_WANTED;
	}
	site->next = sites.spare_sites;
	sites.spare_sites = site;
}

/* The module is unloaded: nobody is in its functions any more. */
static void forget_module(struct site_module *module)
{
	for (struct site **at = &sites.all; *at;) {
		struct site *site = *at;
		if (site->module != module) {
			at = &site->next;
			continue;
		}
		*at = site->next;
		forget_site(site);
	}
	if (module->stubs)
		os_unmap(module->stubs, module->stub_bytes);
	module->next = sites.spare_modules;
	sites.spare_modules = module;
}

static bool has_callers(void)
{
	for (const struct site_spec *spec = sites.specs; spec; spec = spec->next)
		if (spec->caller.text[0])
			return true;
	return false;
}

void site_look(void)
{
	static const char callers;

	sites.look++;
	if (has_callers())
		dl_iterate_phdr(look_at, (void *)&callers);
	dl_iterate_phdr(look_at, NULL);
	for (struct site_module **at = &sites.modules; *at;) {
		struct site_module *module = *at;
		if (module->seen == sites.look) {
			at = &module->next;
			continue;
		}
		*at = module->next;
		forget_module(module);
	}
}
