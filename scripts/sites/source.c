/*
 * source.c: what elfutils and the C++ library know of a function: file and line, its name as it was
 * written, and how it finds its caller.
 *
 * Debug information is used where it is installed; none is fetched.
 */
#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>

#include "sites.h"

typedef char *demangle_function(const char *, char *, size_t *, int *);

const char *source_demangled(const char *name)
{
	static demangle_function *demangle;
	static bool has_asked;
	const char *demangled = NULL;

	if (!has_asked) {
		void *library = dlopen("libstdc++.so.6", RTLD_NOW | RTLD_LOCAL);
		has_asked = true;
		if (library)
			demangle = (demangle_function *)(uintptr_t)dlsym(library, "__cxa_demangle");
	}
	if (demangle && strncmp(name, "_Z", 2) == 0)
		demangled = demangle(name, NULL, NULL, NULL);
	return demangled ? demangled : name;
}

static Dwfl *open_dwfl(const char *path, Dwfl_Module **module)
{
	static const Dwfl_Callbacks callbacks = {
		.find_elf = dwfl_build_id_find_elf,
		.find_debuginfo = dwfl_standard_find_debuginfo,
		.section_address = dwfl_offline_section_address,
	};
	Dwfl *dwfl;

	unsetenv("DEBUGINFOD_URLS"); /* it would be asked for each module */
	dwfl = dwfl_begin(&callbacks);
	*module = dwfl ? dwfl_report_offline(dwfl, "", path, -1) : NULL;
	if (dwfl)
		dwfl_report_end(dwfl, NULL, NULL);
	return dwfl;
}

static void find_line(Dwfl_Module *module, GElf_Addr bias, struct function *function)
{
	Dwfl_Line *line = dwfl_module_getsrc(module, function->value + bias);
	const char *file = line ? dwfl_lineinfo(line, NULL, &function->line, NULL, NULL, NULL) : NULL;

	function->file = file ? strdup(file) : NULL;
}

void source_find(struct image *image, const struct request *request)
{
	Dwfl_Module *module;
	Dwfl *dwfl = open_dwfl(image->path, &module);
	GElf_Addr bias, ignored;

	if (module && dwfl_module_getelf(module, &bias) && dwfl_module_getdwarf(module, &ignored))
		for (size_t i = 0; i < image->count; i++)
			if (request_wants(request, image, &image->functions[i]))
				find_line(module, bias, &image->functions[i]);
	if (dwfl)
		dwfl_end(dwfl);
}

/* Where a function is called, its caller's frame ends right above the return address. */
static bool is_called_at(Dwarf_CFI *cfi, Dwarf_Addr address)
{
	enum { RSP = 7 };
	Dwarf_Frame *frame;
	Dwarf_Op *ops = NULL;
	size_t count = 0;
	bool is_called;

	if (dwarf_cfi_addrframe(cfi, address, &frame) != 0)
		return true;
	is_called =
		dwarf_frame_cfa(frame, &ops, &count) != 0 || count != 1 ||
		((ops[0].atom == DW_OP_breg0 + RSP && ops[0].number == sizeof(void *)) ||
	     (ops[0].atom == DW_OP_bregx && ops[0].number == RSP && ops[0].number2 == sizeof(void *)));
	free(frame);
	return is_called;
}

const char *source_why_not_called(const struct image *image, uintptr_t value)
{
	static const struct image *last;
	static Dwfl *dwfl;
	static Dwarf_CFI *cfi;
	static GElf_Addr bias;
	Dwfl_Module *module;

	if (last != image) {
		if (dwfl)
			dwfl_end(dwfl);
		last = image;
		dwfl = open_dwfl(image->path, &module);
		cfi = module ? dwfl_module_eh_cfi(module, &bias) : NULL;
	}
	if (!cfi || is_called_at(cfi, value))
		return NULL;
	return "it is a part of a function, which is jumped to";
}
