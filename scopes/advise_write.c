/*
 * advise_write.c: the file that samples are written to. See advise_file.h for what is in it.
 *
 * It is written through a mapping, a chunk at a time, so nothing needs to be flushed however the process
 * ends, and no descriptor is kept that the program might close and use for another file. Blocks of a chunk
 * are allocated when it is mapped. If that fails the file is full, and sampling ends.
 */
#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

#include "advise.h"

#define FILE_MAX_BYTES ((uint64_t)1 << 30)
#define MODULES_MAX 512u

struct known_module {
	uintptr_t lo, hi;
};

static struct writer {
	char path[2 * OPTION_TEXT_BYTES + 4096];
	struct advise_header *header; /* the first chunk, which stays mapped */
	uint64_t identity;            /* of the file: another process may have replaced it */
	char *chunk;
	uint64_t next;                /* where the next record goes, and ends once it is done */
	uint64_t end;
	unsigned module_count;
	struct known_module modules[MODULES_MAX];
} writer;

__attribute__((cold)) struct advise_header *advise_header(void)
{
	return writer.header;
}

/* Making the file. */

static char *append(char *at, const char *end, const char *text)
{
	while (*text && at < end - 1)
		*at++ = *text++;
	*at = '\0';
	return at;
}

static char *append_number(char *at, const char *end, unsigned value)
{
	char digits[12], *first = digits + sizeof(digits) - 1;

	*first = '\0';
	do
		*--first = (char)('0' + value % 10);
	while (value /= 10);
	return append(at, end, first);
}

/* Absolute, since the program may go elsewhere, and with the number of the process. */
static void set_path(void)
{
	char *at = writer.path;
	const char *end = writer.path + sizeof(writer.path);

	if (options.advise[0] != '/' && getcwd(writer.path, sizeof(writer.path) / 2))
		at = append(at + strlen(at), end, "/");
	for (const char *from = options.advise; *from; from++)
		if (from[0] == '%' && from[1] == 'p') {
			at = append_number(at, end, (unsigned)os_process_id());
			from++;
		} else {
			at = append(at, end, (const char[]){*from, '\0'});
		}
}

static void set_header(struct advise_header *header)
{
	ssize_t n = readlink("/proc/self/exe", header->program, sizeof(header->program) - 1);

	header->program[n < 0 ? 0 : n] = '\0';
	memcpy(header->magic, ADVISE_MAGIC, sizeof(ADVISE_MAGIC));
	header->version = ADVISE_VERSION;
	header->header_bytes = ADVISE_HEADER_BYTES;
	header->used_bytes = ADVISE_HEADER_BYTES;
	header->process_id = (uint64_t)os_process_id();
	header->start_ns = os_clock_ns();
}

static_assert(sizeof(struct advise_header) <= ADVISE_HEADER_BYTES, "records begin behind it");

bool advise_open(void)
{
	if (writer.header)
		return true;
	set_path();
	writer.header = os_map_log(writer.path, 0, ADVISE_CHUNK_BYTES, &writer.identity);
	if (!writer.header) {
		report("LIBREGION_ADVISE: %s can't be written; nothing is sampled", writer.path);
		return false;
	}
	set_header(writer.header);
	writer.chunk = (char *)writer.header;
	writer.next = writer.end = ADVISE_HEADER_BYTES;
	return true;
}

static void unmap_chunk(void)
{
	if (writer.chunk && writer.chunk != (char *)writer.header)
		os_unmap(writer.chunk, ADVISE_CHUNK_BYTES);
}

void advise_abandon(void)
{
	unmap_chunk();
	if (writer.header)
		os_unmap(writer.header, ADVISE_CHUNK_BYTES);
	writer.header = NULL;
	writer.chunk = NULL;
	writer.module_count = 0;
}

/* Records. */

static struct advise_record *put_head(enum advise_type type, uint64_t bytes)
{
	struct advise_record *record = (void *)(writer.chunk + writer.next % ADVISE_CHUNK_BYTES);

	record->type = type;
	record->bytes = (uint32_t)bytes;
	return record;
}

/* Fills the chunk up, and goes on in a new one. */
static bool next_chunk(void)
{
	uint64_t rest = -writer.next % ADVISE_CHUNK_BYTES;

	if (rest) {
		put_head(ADVISE_REST, rest);
		writer.end = writer.next + rest;
		advise_record_done();
	}
	char *chunk = writer.next < FILE_MAX_BYTES
	                  ? os_map_log(writer.path, writer.next, ADVISE_CHUNK_BYTES, &writer.identity)
	                  : NULL;
	if (!chunk) {
		advise.is_full = true;
		return false;
	}
	unmap_chunk();
	writer.chunk = chunk;
	return true;
}

void *advise_record(enum advise_type type, size_t bytes)
{
	uint64_t room = -writer.next % ADVISE_CHUNK_BYTES;

	bytes = (bytes + 7) & ~(size_t)7;
	if (!writer.header || advise.is_full || (room < bytes && !next_chunk()))
		return NULL;
	writer.end = writer.next + bytes;
	return put_head(type, bytes);
}

void advise_record_done(void)
{
	writer.next = writer.end;
	__atomic_store_n(&writer.header->used_bytes, writer.next, __ATOMIC_RELEASE);
}

/* Modules. */

int _dl_find_object(void *pc, struct dl_find_object *result) __attribute__((weak));

static bool is_known_module(uintptr_t pc)
{
	for (unsigned i = 0; i < writer.module_count; i++)
		if (pc - writer.modules[i].lo < writer.modules[i].hi - writer.modules[i].lo)
			return true;
	return writer.module_count == MODULES_MAX;
}

/* Takes no lock: another thread might hold the loader's. */
void advise_note_module(uintptr_t pc)
{
	struct dl_find_object found;

	if (is_known_module(pc) || !_dl_find_object || _dl_find_object((void *)pc, &found) != 0)
		return;
	const struct link_map *map = found.dlfo_link_map;
	size_t bytes = strlen(map->l_name) + 1;
	struct advise_module *record = advise_record(ADVISE_MODULE, sizeof(*record) + bytes);
	if (!record)
		return;
	record->lo = (uintptr_t)found.dlfo_map_start;
	record->hi = (uintptr_t)found.dlfo_map_end;
	record->bias = map->l_addr;
	memcpy(record->path, map->l_name, bytes);
	advise_record_done();
	writer.modules[writer.module_count++] = (struct known_module){record->lo, record->hi};
}
