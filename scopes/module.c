/*
 * module.c: reading ELF files where they are mapped.
 */
#include "module.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"

#define DEBUG_ROOT "/usr/lib/debug"

/* Modules. */

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The program is opened through /proc, which works after it has been moved, too; it is named as its file. */
static void set_program_path(struct elf_module *module, char *path)
{
	ssize_t n = readlink("/proc/self/exe", path, ELF_PATH_BYTES - 1);

	path[n < 0 ? 0 : n] = '\0';
	module->path = "/proc/self/exe";
	module->name = name_of(path);
}

static size_t round_up_4(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

/* Notes are a size of name, a size of content, a type, the name, the content. */
static void find_build_id(struct elf_module *module, const ElfW(Phdr) *header)
{
	const char *at = (const char *)(module->bias + header->p_vaddr), *end = at + header->p_memsz;
	ElfW(Nhdr) note;

	while (at + sizeof(note) <= end) {
		memcpy(&note, at, sizeof(note));
		const char *name = at + sizeof(note), *content = name + round_up_4(note.n_namesz);
		if (note.n_namesz > (size_t)(end - name) || note.n_descsz > (size_t)(end - content))
			return;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
			module->build_id = (const unsigned char *)content;
			module->build_id_bytes = note.n_descsz;
			return;
		}
		at = content + round_up_4(note.n_descsz);
	}
}

void elf_module_set(struct elf_module *module, const struct dl_phdr_info *info, bool is_program,
                    char *path)
{
	*module = (struct elf_module){
		.path = info->dlpi_name,
		.name = name_of(info->dlpi_name),
		.is_program = is_program,
		.bias = info->dlpi_addr,
		.headers = info->dlpi_phdr,
	};
	if (is_program)
		set_program_path(module, path);
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t lo = module->bias + header->p_vaddr;
		if (header->p_type == PT_NOTE && !module->build_id)
			find_build_id(module, header);
		if (header->p_type == PT_GNU_EH_FRAME)
			module->unwind_table = lo;
		/* What can't be read can't be decoded. */
		if (header->p_type == PT_LOAD && (header->p_flags & PF_X) && (header->p_flags & PF_R) &&
		    module->text_count < ELF_TEXTS)
			module->texts[module->text_count++] = (struct elf_text){lo, lo + header->p_memsz};
	}
}

const struct elf_text *elf_text_of(const struct elf_module *module, uintptr_t address)
{
	for (unsigned i = 0; i < module->text_count; i++)
		if (address >= module->texts[i].lo && address < module->texts[i].hi)
			return &module->texts[i];
	return NULL;
}

/*
 * .eh_frame_hdr: a version and three encodings, one byte each; the distance to .eh_frame; the count of
 * entries; and these, sorted: the start of a function and of its description, counted from the header.
 */
struct unwind_header {
	unsigned char version, frame_encoding, count_encoding, entry_encoding;
	int32_t frame;
	uint32_t count;
	struct {
		int32_t function, description;
	} entries[];
};

uintptr_t elf_function_start(const struct elf_module *module, uintptr_t address)
{
	enum { UDATA4 = 0x03, SDATA4_FROM_HEADER = 0x3b };
	const struct unwind_header *header = (const struct unwind_header *)module->unwind_table;
	uint32_t lo = 0, hi;

	if (!header || header->version != 1 || header->count_encoding != UDATA4 ||
	    header->entry_encoding != SDATA4_FROM_HEADER)
		return 0;
	for (hi = header->count; lo < hi;) {
		uint32_t middle = lo + (hi - lo) / 2;
		if (module->unwind_table + (uintptr_t)(intptr_t)header->entries[middle].function <= address)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo ? module->unwind_table + (uintptr_t)(intptr_t)header->entries[lo - 1].function : 0;
}

/* Files. */

static bool has_room(const struct elf_file *file, uint64_t offset, uint64_t bytes)
{
	return offset <= file->size && bytes <= file->size - offset;
}

static const ElfW(Ehdr) *header_of(const struct elf_file *file)
{
	return (const ElfW(Ehdr) *)file->bytes;
}

static bool is_readable(const struct elf_file *file)
{
	const ElfW(Ehdr) *header = header_of(file);

	return file->size >= sizeof(*header) && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
	       header->e_ident[EI_CLASS] == (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) &&
	       header->e_shentsize == sizeof(ElfW(Shdr)) && header->e_shoff % sizeof(void *) == 0 &&
	       has_room(file, header->e_shoff, (uint64_t)header->e_shnum * sizeof(ElfW(Shdr)));
}

static bool open_file(struct elf_file *file, const char *path)
{
	file->bytes = os_map_file(path, &file->size);
	if (file->bytes && !is_readable(file)) {
		os_unmap_file(file->bytes, file->size);
		file->bytes = NULL;
	}
	return file->bytes != NULL;
}

static void close_file(struct elf_file *file)
{
	if (file->bytes)
		os_unmap_file(file->bytes, file->size);
	*file = (struct elf_file){0};
}

static const struct elf_file *file_of(struct elf_module *module)
{
	if (!module->file.bytes && module->path[0])
		open_file(&module->file, module->path);
	return module->file.bytes ? &module->file : NULL;
}

void elf_module_close(struct elf_module *module)
{
	close_file(&module->file);
}

/* Sections. */

static const ElfW(Shdr) *section_at(const struct elf_file *file, size_t index)
{
	const ElfW(Ehdr) *header = header_of(file);

	return index < header->e_shnum ? (const ElfW(Shdr) *)(file->bytes + header->e_shoff) + index
	                               : NULL;
}

/* The text at an offset of a section of texts; "" if that isn't in it. */
static const char *text_at(const struct elf_file *file, const ElfW(Shdr) *section, size_t offset)
{
	if (!section || section->sh_type != SHT_STRTAB ||
	    !has_room(file, section->sh_offset, section->sh_size) || offset >= section->sh_size ||
	    file->bytes[section->sh_offset + section->sh_size - 1] != '\0')
		return "";
	return file->bytes + section->sh_offset + offset;
}

static const ElfW(Shdr) *section_of_type(const struct elf_file *file, unsigned type)
{
	const ElfW(Shdr) *section;

	for (size_t i = 0; (section = section_at(file, i)); i++)
		if (section->sh_type == type)
			return section;
	return NULL;
}

static const ElfW(Shdr) *section_called(const struct elf_file *file, const char *name)
{
	const ElfW(Shdr) *names = section_at(file, header_of(file)->e_shstrndx), *section;

	for (size_t i = 0; (section = section_at(file, i)); i++)
		if (strcmp(text_at(file, names, section->sh_name), name) == 0)
			return section;
	return NULL;
}

bool elf_has_section(struct elf_module *module, const char *name)
{
	const struct elf_file *file = file_of(module);

	return file && section_called(file, name);
}

/* Symbols. */

#define TYPES_OF_CODE (1u << STT_FUNC | 1u << STT_GNU_IFUNC)
#define TYPES_OF_DATA (1u << STT_OBJECT | 1u << STT_COMMON)
#define TYPES_OF_TLS (1u << STT_TLS)

static bool is_of(const ElfW(Sym) *symbol, unsigned types)
{
	return (types >> ELF64_ST_TYPE(symbol->st_info) & 1) && symbol->st_shndx != SHN_UNDEF;
}

static bool each_symbol(const struct elf_file *file, unsigned type, unsigned types, elf_visitor *visitor,
                        void *context)
{
	const ElfW(Shdr) *table = section_of_type(file, type);
	const ElfW(Shdr) *names = table ? section_at(file, table->sh_link) : NULL;

	if (!table || !names || !has_room(file, table->sh_offset, table->sh_size) ||
	    table->sh_offset % sizeof(void *) != 0)
		return false;
	const ElfW(Sym) *symbol = (const ElfW(Sym) *)(file->bytes + table->sh_offset);
	const ElfW(Sym) *end = symbol + table->sh_size / sizeof(*symbol);
	/* The section ends a text, so whatever is in it is one. */
	const char *texts = text_at(file, names, 0);
	if (texts != file->bytes + names->sh_offset)
		return false;
	for (; symbol < end; symbol++) {
		if (!is_of(symbol, types) || symbol->st_name >= names->sh_size)
			continue;
		struct elf_function function = {
			.name = texts + symbol->st_name,
			.value = symbol->st_value,
			.bytes = symbol->st_size,
			.is_indirect = ELF64_ST_TYPE(symbol->st_info) == STT_GNU_IFUNC,
		};
		visitor(context, &function);
	}
	return true;
}

/* Debug files. */

/* Texts are put together without stdio. False: there is no room. */
static bool append(char *path, const char *text, size_t length)
{
	size_t used = strlen(path);

	if (used + length >= ELF_PATH_BYTES)
		return false;
	memcpy(path + used, text, length);
	path[used + length] = '\0';
	return true;
}

static bool append_hex(char *path, const unsigned char *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < count; i++) {
		char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
		if (!append(path, pair, 2))
			return false;
	}
	return true;
}

#define APPEND(path, text) append(path, text, strlen(text))

/* /usr/lib/debug/.build-id/ab/cdef.debug */
static bool open_by_build_id(struct elf_module *module, struct elf_file *file)
{
	char path[ELF_PATH_BYTES] = DEBUG_ROOT "/.build-id/";

	return module->build_id_bytes > 1 && append_hex(path, module->build_id, 1) &&
	       APPEND(path, "/") &&
	       append_hex(path, module->build_id + 1, module->build_id_bytes - 1) &&
	       APPEND(path, ".debug") && open_file(file, path);
}

/* Beside the module's file, in .debug there, and in the same folder below /usr/lib/debug. */
static bool open_by_debuglink(struct elf_module *module, struct elf_file *file)
{
	static const char *const befores[] = {"", "", DEBUG_ROOT}, *const afters[] = {"", ".debug/",
	                                                                              ""};
	const struct elf_file *own = file_of(module);
	const ElfW(Shdr) *section = own ? section_called(own, ".gnu_debuglink") : NULL;
	char program[ELF_PATH_BYTES];
	const char *module_path = module->path;

	if (!section || !has_room(own, section->sh_offset, section->sh_size))
		return false;
	const char *link = own->bytes + section->sh_offset;
	if (!memchr(link, '\0', section->sh_size))
		return false;
	if (module->is_program) {
		ssize_t n = readlink(module->path, program, sizeof(program) - 1);
		program[n < 0 ? 0 : n] = '\0';
		module_path = program;
	}
	for (unsigned i = 0; i < 3; i++) {
		char path[ELF_PATH_BYTES] = "";
		if (APPEND(path, befores[i]) &&
		    append(path, module_path, (size_t)(name_of(module_path) - module_path)) &&
		    APPEND(path, afters[i]) && APPEND(path, link) && open_file(file, path))
			return true;
	}
	return false;
}

static bool each_of(struct elf_module *module, enum elf_source source, unsigned types, elf_visitor *visitor,
                    void *context)
{
	const struct elf_file *own = file_of(module);
	struct elf_file other = {0};
	bool is_there = false;

	if (!own)
		return false;
	switch (source) {
	case ELF_SYMTAB:
		return each_symbol(own, SHT_SYMTAB, types, visitor, context);
	case ELF_DYNSYM:
		return each_symbol(own, SHT_DYNSYM, types, visitor, context);
	case ELF_BY_BUILD_ID:
		is_there = open_by_build_id(module, &other);
		break;
	case ELF_BY_DEBUGLINK:
		is_there = open_by_debuglink(module, &other);
		break;
	case ELF_SOURCES:
		break;
	}
	is_there = is_there && each_symbol(&other, SHT_SYMTAB, types, visitor, context);
	close_file(&other);
	return is_there;
}

bool elf_each_function(struct elf_module *module, enum elf_source source, elf_visitor *visitor,
                       void *context)
{
	return each_of(module, source, TYPES_OF_CODE, visitor, context);
}

/* The symbol of a value, as far as it has been found. */
struct nearest {
	uintptr_t value, start;
	char *name;
	size_t capacity;
	bool is_found;
};

static void look_whether_nearer(void *context, const struct elf_function *symbol)
{
	struct nearest *nearest = context;
	uintptr_t distance = nearest->value - symbol->value;

	if (symbol->value > nearest->value || (symbol->bytes > 0 && distance >= symbol->bytes) ||
	    (nearest->is_found && symbol->value <= nearest->start))
		return;
	size_t length = strnlen(symbol->name, nearest->capacity - 1);
	memcpy(nearest->name, symbol->name, length);
	nearest->name[length] = '\0';
	nearest->start = symbol->value;
	nearest->is_found = true;
}

bool elf_symbol_at(struct elf_module *module, enum elf_kind kind, uintptr_t value, char *name,
                   size_t capacity, uintptr_t *start)
{
	static const unsigned types[] = {
		[ELF_CODE] = TYPES_OF_CODE, [ELF_DATA] = TYPES_OF_DATA, [ELF_TLS] = TYPES_OF_TLS};
	struct nearest nearest = {.value = value, .name = name, .capacity = capacity};

	for (unsigned source = 0; source < ELF_SOURCES && !nearest.is_found; source++)
		each_of(module, (enum elf_source)source, types[kind], look_whether_nearer, &nearest);
	*start = nearest.start;
	return nearest.is_found;
}
