/*
 * image.c: a module's file, mapped as the loader would map it.
 *
 * The library plans on what the loader has mapped. Here the segments of a file are mapped in the same
 * distances, all of them for reading only, and described as dl_iterate_phdr() would.
 */
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sites.h"

#define PAGE_BYTES 4096u

static const ElfW(Ehdr) * header_of(const struct image *image)
{
	return image->file;
}

static bool has_room(const struct image *image, uint64_t offset, uint64_t bytes)
{
	return offset <= image->file_bytes && bytes <= image->file_bytes - offset;
}

static bool is_of_this_machine(const struct image *image)
{
	const ElfW(Ehdr) *header = header_of(image);

	return image->file_bytes >= sizeof(*header) && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
	       header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == EM_X86_64 &&
	       (header->e_type == ET_EXEC || header->e_type == ET_DYN) &&
	       header->e_phentsize == sizeof(ElfW(Phdr)) && header->e_shentsize == sizeof(ElfW(Shdr)) &&
	       has_room(image, header->e_phoff, (uint64_t)header->e_phnum * sizeof(ElfW(Phdr)));
}

static const ElfW(Phdr) * segments_of(const struct image *image)
{
	return (const ElfW(Phdr) *)((const char *)image->file + header_of(image)->e_phoff);
}

static bool map_file(struct image *image)
{
	int fd = open(image->path, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return false;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
		image->file_bytes = (size_t)status.st_size;
		image->file = mmap(NULL, image->file_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	}
	close(fd);
	return image->file && image->file != MAP_FAILED;
}

static uintptr_t end_of_segments(const struct image *image)
{
	uintptr_t end = 0;

	for (unsigned i = 0; i < header_of(image)->e_phnum; i++) {
		const ElfW(Phdr) *segment = &segments_of(image)[i];
		if (segment->p_type == PT_LOAD && segment->p_vaddr + segment->p_memsz > end)
			end = segment->p_vaddr + segment->p_memsz;
	}
	return end;
}

/* The file's part of a segment, whole pages. What lies beyond it reads as zero. */
static bool map_segment(const struct image *image, const ElfW(Phdr) * segment, char *bias, int fd)
{
	uintptr_t skew = segment->p_vaddr % PAGE_BYTES;

	if (segment->p_filesz == 0)
		return true;
	if (!has_room(image, segment->p_offset, segment->p_filesz) ||
	    segment->p_offset % PAGE_BYTES != skew)
		return false;
	return mmap(bias + segment->p_vaddr - skew, segment->p_filesz + skew, PROT_READ,
	            MAP_PRIVATE | MAP_FIXED, fd, (off_t)(segment->p_offset - skew)) != MAP_FAILED;
}

static bool map_segments(struct image *image, int fd)
{
	char *bias = mmap(NULL, end_of_segments(image) + PAGE_BYTES, PROT_READ,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	static char path[ELF_PATH_BYTES];

	if (bias == MAP_FAILED)
		return false;
	for (unsigned i = 0; i < header_of(image)->e_phnum; i++)
		if (segments_of(image)[i].p_type == PT_LOAD &&
		    !map_segment(image, &segments_of(image)[i], bias, fd))
			return false;
	elf_module_set(&image->module,
	               &(struct dl_phdr_info){.dlpi_addr = (uintptr_t)bias,
	                                      .dlpi_name = image->path,
	                                      .dlpi_phdr = segments_of(image),
	                                      .dlpi_phnum = header_of(image)->e_phnum},
	               false, path);
	return true;
}

bool image_open(struct image *image, const char *path)
{
	bool is_mapped;
	int fd;

	*image = (struct image){.path = path};
	if (!map_file(image) || !is_of_this_machine(image))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	is_mapped = fd >= 0 && map_segments(image, fd);
	if (fd >= 0)
		close(fd);
	return is_mapped;
}

void image_close(struct image *image)
{
	elf_module_close(&image->module);
	munmap((void *)image->module.bias, end_of_segments(image) + PAGE_BYTES);
	munmap(image->file, image->file_bytes);
}

const char *image_loader(const struct image *image)
{
	for (unsigned i = 0; i < header_of(image)->e_phnum; i++) {
		const ElfW(Phdr) *segment = &segments_of(image)[i];
		const char *name = (const char *)image->file + segment->p_offset;
		if (segment->p_type == PT_INTERP && has_room(image, segment->p_offset, segment->p_filesz) &&
		    memchr(name, '\0', segment->p_filesz))
			return name;
	}
	return NULL;
}

uintptr_t image_entry(const struct image *image)
{
	return header_of(image)->e_entry;
}

/* Stubs of the linker, and what runs before and after the program. */
bool image_is_glue(const struct image *image, uintptr_t value)
{
	const ElfW(Ehdr) *header = header_of(image);
	const ElfW(Shdr) *sections = (const ElfW(Shdr) *)((const char *)image->file + header->e_shoff);

	if (!has_room(image, header->e_shoff, (uint64_t)header->e_shnum * sizeof(*sections)) ||
	    header->e_shstrndx >= header->e_shnum)
		return false;
	const char *names = (const char *)image->file + sections[header->e_shstrndx].sh_offset;
	for (unsigned i = 0; i < header->e_shnum; i++) {
		const ElfW(Shdr) *section = &sections[i];
		if (value < section->sh_addr || value - section->sh_addr >= section->sh_size ||
		    !(section->sh_flags & SHF_EXECINSTR))
			continue;
		const char *name = names + section->sh_name;
		return strncmp(name, ".plt", 4) == 0 || strcmp(name, ".init") == 0 ||
		       strcmp(name, ".fini") == 0;
	}
	return false;
}
