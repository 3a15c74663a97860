/*
 * place.c: see place.h.
 */
#include "place.h"

#include <string.h>

#include "core/core.h"
#include "module.h"

#define TEXT_COUNT 512
#define TLS_COUNT 128

/* Of thread-local storage that lies beside the control block, the same distance in every thread. */
#define STATIC_TLS_BYTES ((uintptr_t)1 << 20)

struct extent {
	uintptr_t lo, hi;
};

static struct noted {
	struct extent texts[TEXT_COUNT], tls[TLS_COUNT];
	size_t text_count, tls_count;
} noted;

/* Looking a symbol up. */

struct wanted {
	uintptr_t address;
	enum place_kind kind;
	struct place *place;
	bool is_first; /* the program comes first */
};

static const ElfW(Phdr) *header_with(const struct dl_phdr_info *info, const struct wanted *wanted)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		bool is_tls = header->p_type == PT_TLS && info->dlpi_tls_data;
		uintptr_t lo = is_tls ? (uintptr_t)info->dlpi_tls_data : info->dlpi_addr + header->p_vaddr;

		if ((wanted->kind == PLACE_TLS ? is_tls : header->p_type == PT_LOAD) &&
		    wanted->address - lo < header->p_memsz)
			return header;
	}
	return NULL;
}

static int look_in(struct dl_phdr_info *info, size_t size, void *context)
{
	static const enum elf_kind kinds[] = {
		[PLACE_CODE] = ELF_CODE, [PLACE_DATA] = ELF_DATA, [PLACE_TLS] = ELF_TLS};
	struct wanted *wanted = context;
	struct place *place = wanted->place;
	bool is_program = wanted->is_first;
	const ElfW(Phdr) *header = header_with(info, wanted);
	char path[ELF_PATH_BYTES];
	struct elf_module module;
	uintptr_t value, start;

	(void)size;
	wanted->is_first = false;
	if (!header)
		return 0;
	elf_module_set(&module, info, is_program, path);
	strncpy(place->module, module.name, sizeof(place->module) - 1);
	/* A symbol of thread-local storage has its distance from the beginning of that. */
	value = wanted->address - (wanted->kind == PLACE_TLS ? (uintptr_t)info->dlpi_tls_data : info->dlpi_addr);
	place->module_offset = wanted->kind == PLACE_TLS ? header->p_vaddr + value : value;
	if (elf_symbol_at(&module, kinds[wanted->kind], value, place->name, sizeof(place->name), &start))
		place->name_offset = value - start;
	elf_module_close(&module);
	return 1;
}

bool place_of(uintptr_t address, enum place_kind kind, struct place *place)
{
	struct wanted wanted = {.address = address, .kind = kind, .place = place, .is_first = true};

	memset(place, 0, sizeof(*place));
	return dl_iterate_phdr(look_in, &wanted) != 0;
}

/* What is noted. */

static void note(struct extent *list, size_t *count, size_t most, uintptr_t lo, size_t bytes)
{
	if (*count < most)
		list[(*count)++] = (struct extent){lo, lo + bytes};
}

static int note_module(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size, (void)unused;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t lo = info->dlpi_addr + header->p_vaddr;
		if (header->p_type == PT_LOAD && (header->p_flags & PF_X) && (header->p_flags & PF_R))
			note(noted.texts, &noted.text_count, TEXT_COUNT, lo, header->p_memsz);
		if (header->p_type == PT_TLS && info->dlpi_tls_data)
			note(noted.tls, &noted.tls_count, TLS_COUNT, (uintptr_t)info->dlpi_tls_data, header->p_memsz);
	}
	return 0;
}

void place_note_modules(void)
{
	noted.text_count = noted.tls_count = 0;
	dl_iterate_phdr(note_module, NULL);
}

#if defined(__x86_64__)
/* Does a call end there? e8 with four bytes, or ff with a register or a place in memory. */
static bool is_behind_call(const unsigned char *at, const unsigned char *begin)
{
	if (at - begin >= 5 && at[-5] == 0xe8)
		return true;
	for (unsigned n = 2; n <= 7 && at - begin >= (ptrdiff_t)n; n++)
		if (at[-(ptrdiff_t)n] == 0xff && (at[1 - (ptrdiff_t)n] >> 3 & 7) == 2)
			return true;
	return false;
}
#else
static bool is_behind_call(const unsigned char *at, const unsigned char *begin)
{
	return at > begin;
}
#endif

bool place_is_return_address(uintptr_t word)
{
	for (size_t i = 0; i < noted.text_count; i++)
		if (word - noted.texts[i].lo < noted.texts[i].hi - noted.texts[i].lo)
			return is_behind_call((const unsigned char *)word, (const unsigned char *)noted.texts[i].lo);
	return false;
}

uintptr_t place_own_tls(uintptr_t address, uintptr_t control, uintptr_t own_control)
{
	for (size_t i = 0; i < noted.tls_count; i++) {
		const struct extent *tls = &noted.tls[i];
		/* Modulo 2^64, whichever side of the control block it lies on. */
		bool is_static = tls->lo - own_control + STATIC_TLS_BYTES < 2 * STATIC_TLS_BYTES;
		uintptr_t own = is_static ? address - control + own_control : address;

		if ((is_static || control == own_control) && own - tls->lo < tls->hi - tls->lo)
			return own;
	}
	return 0;
}
