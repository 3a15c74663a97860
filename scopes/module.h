/*
 * module.h: the modules of the process and the symbols in them. Private to scopes/.
 *
 * A module is the program or a library, as the loader has mapped it. Its symbols are in its file: in
 * .symtab, or, where that has been stripped, in .dynsym and in a debug file that belongs to it. Files are
 * mapped and read where they lie; nothing here allocates, and nothing in a file is believed before it has
 * been compared with the file's size.
 *
 * Values are addresses as the file has them; the module's bias is what the loader has added.
 */
#ifndef LIBREGION_MODULE_H
#define LIBREGION_MODULE_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ELF_TEXTS 4
#define ELF_PATH_BYTES 1024

/* A mapped file. */
struct elf_file {
	const char *bytes; /* NULL: it couldn't be read, or is no ELF file of this machine */
	size_t size;
};

struct elf_text {
	uintptr_t lo, hi;
};

struct elf_module {
	const char *path; /* to open it by */
	const char *name; /* without folders */
	bool is_program;
	uintptr_t bias;
	const ElfW(Phdr) *headers;
	uintptr_t unwind_table; /* .eh_frame_hdr, as it is mapped; 0: none */
	struct elf_text texts[ELF_TEXTS]; /* what can be run, as it is mapped */
	unsigned text_count;
	const unsigned char *build_id;
	size_t build_id_bytes;
	struct elf_file file; /* once it has been asked for */
};

struct elf_function {
	const char *
		name; /* in the file: valid until the file is closed; at least 8 bytes can be read from it */
	uintptr_t value;
	size_t bytes;     /* 0: not known */
	bool is_indirect; /* the loader asks it for an address (IFUNC) */
};

/* Where functions are looked for, in this order. */
enum elf_source { ELF_SYMTAB, ELF_DYNSYM, ELF_BY_BUILD_ID, ELF_BY_DEBUGLINK, ELF_SOURCES };

typedef void elf_visitor(void *context, const struct elf_function *function);

/* Sets a module up from what dl_iterate_phdr tells. `path` has ELF_PATH_BYTES, for the program's own. */
void elf_module_set(struct elf_module *module, const struct dl_phdr_info *info, bool is_program,
                    char *path);

/* Calls the visitor for each function that a source has. False: there is no such source. */
bool elf_each_function(struct elf_module *module, enum elf_source source, elf_visitor *visitor,
                       void *context);

/* What a symbol stands for: code, data, or an offset into a module's thread-local storage. */
enum elf_kind { ELF_CODE, ELF_DATA, ELF_TLS };

/*
 * The symbol that a value of the module's file lies in, or that begins last before it if no length says
 * otherwise: its name, cut to fit, and its own value. False: there is none.
 */
bool elf_symbol_at(struct elf_module *module, enum elf_kind kind, uintptr_t value, char *name,
                   size_t capacity, uintptr_t *start);

/*
 * Where the function begins that an address of the module lies in, by the table for unwinders, which
 * stripped modules have, too. 0: not known.
 */
uintptr_t elf_function_start(const struct elf_module *module, uintptr_t address);

/* Has the module's file a section of this name? */
bool elf_has_section(struct elf_module *module, const char *name);

/* Gives back what was mapped of it. */
void elf_module_close(struct elf_module *module);

/* Is it in what can be run of the module? The text, or NULL. */
const struct elf_text *elf_text_of(const struct elf_module *module, uintptr_t address);

#endif
