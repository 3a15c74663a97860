/*
 * finding.c: see finding.h.
 *
 * A report is put together in one piece of memory, and written with one system call, so that those of
 * several threads and processes don't mix. A file gets one object a line, added to its end: a run of many
 * processes fills one file.
 */
#include "finding.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "place.h"
#include "stack.h"

#define KIND_COUNT 1024

/* Four stacks of the longest names. */
#define TEXT_BYTES ((size_t)128 << 10)

#define PREFIX "libregion: "
#define PATH_BYTES 1024

struct known {
	const char *scope; /* its name, of which there may be several of the same text */
	uint32_t allocated;
	uint8_t kind, holder;
};

struct text {
	char *begin, *at, *end;
	bool is_in_list; /* JSON: there is a member before this one */
};

static struct findings {
	struct lock lock;
	struct known *known;
	size_t known_count;
	uint64_t counts[FINDING_TOUCH + 1], blocks, bytes;
	size_t kinds;       /* of this process */
	char *memory;       /* TEXT_BYTES for each of text and JSON */
	bool has_no_file;   /* it can't be written, which has been said */
	char target[PATH_BYTES]; /* the file, %p and all, wherever the program goes; "": none */
} findings;

struct lock *finding_lock(void)
{
	return &findings.lock;
}

/* With the process in place of %p. */
static int open_target(void)
{
	const char *target = findings.target, *mark = strstr(target, "%p");
	char path[PATH_BYTES + 16];

	if (mark)
		snprintf(path, sizeof(path), "%.*s%d%s", (int)(mark - target), target, os_process_id(), mark + 2);
	else
		snprintf(path, sizeof(path), "%s", target);
	int fd = os_append(path);
	if (fd < 0 && !findings.has_no_file)
		report("LIBREGION_CHECK_FILE=%s: can't be written; what is found is said on stderr only", path);
	findings.has_no_file |= fd < 0;
	return fd;
}

/* The file is made at once: an empty one tells that nothing was found, and a bad name shows. */
static void find_target(void)
{
	const char *file = options.check_file;
	size_t length = 0;

	if (!*file)
		return;
	if (*file != '/' && getcwd(findings.target, PATH_BYTES - OPTION_TEXT_BYTES - 1)) {
		length = strlen(findings.target);
		findings.target[length++] = '/';
	}
	strcpy(findings.target + length, file);
	int fd = open_target();
	if (fd >= 0)
		os_close(fd);
}

bool finding_start(void)
{
	find_target();
	findings.known = range_meta_alloc(KIND_COUNT * sizeof(*findings.known));
	findings.memory = range_meta_alloc(2 * TEXT_BYTES);
	return findings.known && findings.memory;
}

/* Texts. */

static __attribute__((format(printf, 2, 3))) void put(struct text *text, const char *format, ...)
{
	size_t room = (size_t)(text->end - text->at);
	va_list args;

	va_start(args, format);
	int n = vsnprintf(text->at, room, format, args);
	va_end(args);
	/* What has no room is left out whole. */
	if (n > 0 && (size_t)n < room)
		text->at += n;
	else
		*text->at = '\0';
}

static void put_module(struct text *text, const struct place *place)
{
	put(text, "%s+0x%zx", place->module, (size_t)place->module_offset);
}

/* "make+0x1c (prog+0x123c)" */
static void put_symbol(struct text *text, const struct place *place)
{
	if (place->name[0]) {
		put(text, "%s+0x%zx (", place->name, (size_t)place->name_offset);
		put_module(text, place);
		put(text, ")");
	} else {
		put_module(text, place);
	}
}

/* A function by an address that a call returns to, which may lie behind the function's end. */
static bool place_of_call(uintptr_t address, struct place *place)
{
	if (!place_of(address - 1, PLACE_CODE, place))
		return false;
	place->module_offset++;
	place->name_offset++;
	return true;
}

static void put_code(struct text *text, uintptr_t address)
{
	struct place place;

	if (place_of_call(address, &place))
		put_symbol(text, &place);
	else
		put(text, "%p", (void *)address);
}

static void put_frames(struct text *text, const char *title, const uintptr_t *frames, size_t count)
{
	put(text, PREFIX "  %s%s\n", title, count ? ":" : ": not known");
	for (size_t i = 0; i < count; i++) {
		put(text, PREFIX "    #%zu ", i);
		put_code(text, frames[i]);
		put(text, "\n");
	}
}

static void put_stack(struct text *text, const char *title, uint32_t number)
{
	const uintptr_t *frames;
	size_t count = stack_frames(number, &frames);

	put_frames(text, title, frames, count);
}

/* JSON. */

static void json_text(struct text *text, const char *value)
{
	put(text, "\"");
	for (size_t i = 0; value[i] && i < 200; i++) {
		unsigned char c = (unsigned char)value[i];
		if (c == '"' || c == '\\')
			put(text, "\\%c", c);
		else if (c < 0x20)
			put(text, "\\u%04x", c);
		else
			put(text, "%c", c);
	}
	put(text, "\"");
}

/* A member's name, with what separates it from the one before. */
static void json_name(struct text *text, const char *name)
{
	put(text, "%s\"%s\": ", text->is_in_list ? ", " : "", name);
	text->is_in_list = true;
}

static void json_string(struct text *text, const char *name, const char *value)
{
	json_name(text, name);
	if (value)
		json_text(text, value);
	else
		put(text, "null");
}

static void json_number(struct text *text, const char *name, size_t value)
{
	json_name(text, name);
	put(text, "%zu", value);
}

static void json_address(struct text *text, const char *name, uintptr_t value)
{
	json_name(text, name);
	put(text, "\"0x%zx\"", (size_t)value);
}

static void json_open(struct text *text)
{
	put(text, "{");
	text->is_in_list = false;
}

static void json_close(struct text *text)
{
	put(text, "}");
	text->is_in_list = true;
}

static void json_place(struct text *text, const struct place *place)
{
	json_string(text, "symbol", place->name[0] ? place->name : NULL);
	json_number(text, "symbol_offset", place->name_offset);
	json_string(text, "module", place->module);
	json_address(text, "module_offset", place->module_offset);
}

static void json_frames(struct text *text, const char *name, const uintptr_t *frames, size_t count)
{
	json_name(text, name);
	put(text, "[");
	text->is_in_list = false;
	for (size_t i = 0; i < count; i++) {
		struct place place;
		bool is_known = place_of_call(frames[i], &place);
		put(text, i ? ", " : "");
		json_open(text);
		json_address(text, "address", frames[i]);
		if (is_known)
			json_place(text, &place);
		json_close(text);
	}
	put(text, "]");
	text->is_in_list = true;
}

static void json_stack(struct text *text, const char *name, uint32_t number)
{
	const uintptr_t *frames;
	size_t count = stack_frames(number, &frames);

	json_frames(text, name, frames, count);
}

/* Holders. */

static const char *const holder_names[HOLDER_COUNT] = {
	[HOLDER_GLOBAL] = "global", [HOLDER_TLS] = "thread-local", [HOLDER_BLOCK] = "heap block",
	[HOLDER_SCOPE] = "scope block", [HOLDER_SAME] = "escaped block", [HOLDER_STACK] = "stack",
	[HOLDER_REGISTER] = "register", [HOLDER_RETURNED] = "returned", [HOLDER_MEMORY] = "memory",
};

static bool place_of_holder(const struct holder *holder, struct place *place)
{
	switch (holder->kind) {
	case HOLDER_GLOBAL:
		return place_of(holder->at, PLACE_DATA, place);
	case HOLDER_TLS:
		return place_of(holder->at, PLACE_TLS, place);
	case HOLDER_STACK:
	case HOLDER_REGISTER:
		return holder->code && place_of_call(holder->code, place);
	default:
		return false;
	}
}

static bool is_block(const struct holder *holder)
{
	return holder->kind == HOLDER_BLOCK || holder->kind == HOLDER_SCOPE || holder->kind == HOLDER_SAME;
}

static void put_block_holder(struct text *text, const struct holder *holder)
{
	put(text, "a block of %zu bytes ", holder->bytes);
	if (holder->kind == HOLDER_SAME)
		put(text, "of the same scope, which is still pointed to itself");
	else if (holder->scope)
		put(text, "of scope \"%s\"", holder->scope);
	else
		put(text, "of the general heap");
	put(text, ", %p+0x%zx\n", (void *)holder->start, (size_t)(holder->at - holder->start));
	put_stack(text, "that block was allocated at", holder->allocated);
}

static void put_holder(struct text *text, const struct holder *holder)
{
	struct place place;
	bool is_known = place_of_holder(holder, &place);

	put(text, PREFIX "  by ");
	if (is_block(holder)) {
		put_block_holder(text, holder);
		return;
	}
	switch (holder->kind) {
	case HOLDER_GLOBAL:
		put(text, "global ");
		break;
	case HOLDER_TLS:
		put(text, "thread-local ");
		break;
	case HOLDER_STACK:
		put(text, "the stack of thread %d at %p%s", holder->thread, (void *)holder->at,
		    is_known ? ", in a frame of " : "");
		break;
	case HOLDER_REGISTER:
		put(text, "a register of thread %d%s", holder->thread, is_known ? ", in " : "");
		break;
	case HOLDER_RETURNED:
		put(text, "the register that the site's function returns a value in, if it returns one");
		break;
	default:
		put(text, "memory at %p, mapped from %p on", (void *)holder->at, (void *)holder->start);
	}
	if (is_known)
		put_symbol(text, &place);
	if (holder->kind == HOLDER_TLS)
		put(text, " of thread %d", holder->thread);
	put(text, "\n");
}

static void json_holder(struct text *text, const struct holder *holder)
{
	struct place place;

	json_name(text, "held_by");
	json_open(text);
	json_string(text, "place", holder_names[holder->kind]);
	json_address(text, "address", holder->at);
	if (place_of_holder(holder, &place))
		json_place(text, &place);
	if (holder->thread)
		json_number(text, "thread", (size_t)holder->thread);
	if (is_block(holder)) {
		json_string(text, "scope", holder->scope);
		json_number(text, "bytes", holder->bytes);
		json_number(text, "offset", holder->at - holder->start);
		json_stack(text, "allocated", holder->allocated);
	}
	if (holder->kind == HOLDER_MEMORY) {
		json_address(text, "mapping", holder->start);
		json_number(text, "offset", holder->at - holder->start);
	}
	json_close(text);
}

/* Findings. */

static const char *scope_of(const struct finding *finding)
{
	return finding->scope ? finding->scope : "?";
}

static void put_touch(struct text *text, const struct finding *finding)
{
	size_t offset = (size_t)((const char *)finding->address - (const char *)finding->block);

	put(text, PREFIX "check: %s of %p by thread %d, in memory that scope \"%s\" has given back",
	    finding->access, finding->address, os_thread_id(), scope_of(finding));
	if (finding->block)
		put(text, ": %zu bytes into a block of %zu bytes%s", offset, finding->bytes,
		    finding->was_freed ? ", which was freed" : "");
	put(text, "\n");
}

static void put_finding(struct text *text, const struct finding *finding)
{
	switch (finding->kind) {
	case FINDING_ESCAPE:
		put(text, PREFIX "check: a block of %zu bytes (%p), which scope \"%s\" leaves, is still pointed to",
		    finding->bytes, finding->block, scope_of(finding));
		if (finding->blocks > 1)
			put(text, "; with %zu more of its kind, %zu bytes in all", finding->blocks - 1,
			    finding->total_bytes);
		put(text, "\n");
		put_holder(text, finding->holder);
		break;
	case FINDING_LATE_FREE:
		put(text, PREFIX "check: %s(%p): the block of %zu bytes was reclaimed at the end of scope \"%s\"; "
		    "ignored\n", finding->call, finding->address, finding->bytes, scope_of(finding));
		put_frames(text, "freed at", finding->frames, finding->frame_count);
		break;
	case FINDING_TOUCH:
		put_touch(text, finding);
		put_frames(text, "touched at", finding->frames, finding->frame_count);
	}
	put_stack(text, "allocated at", finding->allocated);
	put_stack(text, "the scope ended at", finding->ended);
}

static void json_finding(struct text *text, const struct finding *finding)
{
	static const char *const kinds[] = {
		[FINDING_ESCAPE] = "escape", [FINDING_LATE_FREE] = "late free", [FINDING_TOUCH] = "touch"};

	json_open(text);
	json_string(text, "finding", kinds[finding->kind]);
	json_number(text, "process", (size_t)os_process_id());
	json_string(text, "program", program_invocation_name);
	json_number(text, "thread", (size_t)os_thread_id());
	json_string(text, "scope", finding->scope);
	json_address(text, "block", (uintptr_t)finding->block);
	json_number(text, "bytes", finding->bytes);
	if (finding->kind == FINDING_ESCAPE) {
		json_number(text, "blocks", finding->blocks);
		json_number(text, "total_bytes", finding->total_bytes);
		json_holder(text, finding->holder);
	} else {
		json_string(text, "access", finding->access);
		json_string(text, "call", finding->call);
		json_address(text, "address", (uintptr_t)finding->address);
		json_frames(text, "at", finding->frames, finding->frame_count);
	}
	json_stack(text, "allocated", finding->allocated);
	json_stack(text, "ended", finding->ended);
	put(text, "}\n");
}

static void append_to_file(const struct text *text)
{
	int fd = open_target();

	if (fd < 0)
		return;
	os_write(fd, text->begin, (size_t)(text->at - text->begin));
	os_close(fd);
}

static void write_out(const struct finding *finding)
{
	struct text text = {findings.memory, findings.memory, findings.memory + TEXT_BYTES, false};
	struct text json = {text.end, text.end, text.end + TEXT_BYTES, false};

	put_finding(&text, finding);
	os_write(2, text.begin, (size_t)(text.at - text.begin));
	if (!findings.target[0])
		return;
	json_finding(&json, finding);
	append_to_file(&json);
}

static bool is_same_scope(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

/* Is it the first of its kind? */
static bool is_new(const struct finding *finding)
{
	struct known this = {
		.scope = finding->scope, .allocated = finding->allocated, .kind = (uint8_t)finding->kind,
		.holder = finding->holder ? (uint8_t)finding->holder->kind : 0,
	};

	for (size_t i = 0; i < findings.known_count; i++) {
		const struct known *known = &findings.known[i];
		if (known->allocated == this.allocated && known->kind == this.kind && known->holder == this.holder &&
		    is_same_scope(known->scope, this.scope))
			return false;
	}
	if (findings.known_count == KIND_COUNT)
		return false;
	findings.known[findings.known_count++] = this;
	findings.kinds++;
	return true;
}

void finding_report(const struct finding *finding)
{
	lock_acquire(&findings.lock);
	findings.counts[finding->kind]++;
	findings.blocks += finding->blocks;
	findings.bytes += finding->total_bytes;
	if (is_new(finding))
		write_out(finding);
	lock_release(&findings.lock);
}

bool finding_sum_up(void)
{
	uint64_t *counts = findings.counts;

	if (counts[FINDING_ESCAPE] + counts[FINDING_LATE_FREE] + counts[FINDING_TOUCH] == 0)
		return false;
	report("check: process %d: %llu blocks of %llu bytes in all were still pointed to, %llu late frees, %llu "
	       "touches; %zu kinds",
	       os_process_id(), (unsigned long long)findings.blocks, (unsigned long long)findings.bytes,
	       (unsigned long long)counts[FINDING_LATE_FREE], (unsigned long long)counts[FINDING_TOUCH],
	       findings.kinds);
	return true;
}

void finding_after_fork_in_child(void)
{
	memset(findings.counts, 0, sizeof(findings.counts));
	findings.blocks = findings.bytes = findings.kinds = 0;
}
