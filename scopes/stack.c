/*
 * stack.c: see stack.h.
 *
 * Entries lie in chunks of memory; an entry's number is its place in units of 16 bytes. They are found by
 * hash, in chains. A chain is read without the lock: an entry is complete before it is linked, and never
 * changes. Nobody unwinds with the lock held.
 */
#include <dlfcn.h>
#include <string.h>
#include <ucontext.h>

#include "module.h"
#include "stack.h"

#define UNIT_BYTES 16u
#define CHUNK_BYTES ((size_t)256 << 10)
#define CHUNK_UNITS (CHUNK_BYTES / UNIT_BYTES)
#define CHUNK_COUNT 1024
#define BUCKET_COUNT 65536u

/* libunwind's, of x86-64. */
#define LIBUNWIND "libunwind.so.8"
#define CURSOR_BYTES 4096
#define REGISTER_SP 7
#define REGISTER_IP 16

/* What is ours is left out, so more is taken than is kept. */
#define OWN_FRAMES 16

enum entry_kind { ENTRY_STACK = 1, ENTRY_ENDING };

struct entry {
	uint32_t next; /* of the chain */
	uint32_t hash;
	uint16_t kind, count;
	uint32_t unused;
	uintptr_t words[];
};

static_assert(sizeof(struct entry) == UNIT_BYTES, "the words come behind the first unit");

static struct stacks {
	struct lock lock;       /* guards what grows: buckets, chunks, next_unit */
	uint32_t *buckets;
	char *chunks[CHUNK_COUNT];
	uint32_t next_unit;
	int load_state;         /* 0: not tried */
	uintptr_t own_lo, own_hi; /* libregion's code, where it is a library */
	int (*backtrace)(void **frames, int count);
	int (*get_context)(ucontext_t *context);
	int (*init)(void *cursor, ucontext_t *context);
	int (*step)(void *cursor);
	int (*get)(void *cursor, int which, uintptr_t *value);
} stacks;

struct lock *stack_lock(void)
{
	return &stacks.lock;
}

bool stack_start(void)
{
	stacks.buckets = range_meta_alloc(BUCKET_COUNT * sizeof(*stacks.buckets));
	/* Number 0 is nobody's. */
	stacks.next_unit = 1;
	return stacks.buckets != NULL;
}

/* The table. */

static struct entry *entry_of(uint32_t number)
{
	char *chunk = number ? __atomic_load_n(&stacks.chunks[number / CHUNK_UNITS], __ATOMIC_ACQUIRE) : NULL;

	return chunk ? (struct entry *)(chunk + number % CHUNK_UNITS * UNIT_BYTES) : NULL;
}

static uint32_t hash_of(enum entry_kind kind, const uintptr_t *words, size_t count)
{
	uint64_t hash = kind;

	for (size_t i = 0; i < count; i++)
		hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15) ^ hash >> 29;
	return (uint32_t)(hash >> 32 ^ hash);
}

static uint32_t find(uint32_t number, uint32_t hash, enum entry_kind kind, const uintptr_t *words,
                     size_t count)
{
	for (const struct entry *entry; (entry = entry_of(number)); number = entry->next)
		if (entry->hash == hash && entry->kind == kind && entry->count == count &&
		    memcmp(entry->words, words, count * sizeof(words[0])) == 0)
			return number;
	return 0;
}

/* Room for an entry with so many words; 0: there is none any more. Under the lock. */
static uint32_t make(size_t count)
{
	uint32_t units = 1 + (uint32_t)((count * sizeof(uintptr_t) + UNIT_BYTES - 1) / UNIT_BYTES);
	uint32_t number = stacks.next_unit;

	if (number / CHUNK_UNITS != (number + units - 1) / CHUNK_UNITS)
		number = (uint32_t)((number / CHUNK_UNITS + 1) * CHUNK_UNITS);
	if (number / CHUNK_UNITS >= CHUNK_COUNT)
		return 0;
	char **chunk = &stacks.chunks[number / CHUNK_UNITS];
	if (!*chunk)
		__atomic_store_n(chunk, range_meta_alloc(CHUNK_BYTES), __ATOMIC_RELEASE);
	if (!*chunk)
		return 0;
	stacks.next_unit = number + units;
	return number;
}

/* The number of an entry that says this, made if there is none yet. */
static uint32_t number_of(enum entry_kind kind, const uintptr_t *words, size_t count)
{
	uint32_t hash = hash_of(kind, words, count), *bucket = &stacks.buckets[hash % BUCKET_COUNT];
	uint32_t number = find(__atomic_load_n(bucket, __ATOMIC_ACQUIRE), hash, kind, words, count);

	if (number)
		return number;
	lock_acquire(&stacks.lock);
	number = find(*bucket, hash, kind, words, count);
	if (!number && (number = make(count))) {
		struct entry *entry = entry_of(number);
		*entry = (struct entry){
			.next = *bucket, .hash = hash, .kind = (uint16_t)kind, .count = (uint16_t)count};
		memcpy(entry->words, words, count * sizeof(words[0]));
		__atomic_store_n(bucket, number, __ATOMIC_RELEASE);
	}
	lock_release(&stacks.lock);
	return number;
}

static const struct entry *entry_if(uint32_t number, enum entry_kind kind)
{
	const struct entry *entry = entry_of(number);

	return entry && entry->kind == kind ? entry : NULL;
}

size_t stack_frames(uint32_t number, const uintptr_t **frames)
{
	const struct entry *entry = entry_if(number, ENTRY_STACK);

	*frames = entry ? entry->words : NULL;
	return entry ? entry->count : 0;
}

uint32_t stack_note_ending(const struct stack_ending *ending)
{
	uintptr_t words[3] = {ending->allocated, ending->ended, (uintptr_t)ending->scope};

	return number_of(ENTRY_ENDING, words, 3);
}

bool stack_is_ending(uint32_t number, struct stack_ending *ending)
{
	const struct entry *entry = entry_if(number, ENTRY_ENDING);

	if (entry)
		*ending = (struct stack_ending){
			.allocated = (uint32_t)entry->words[0],
			.ended = (uint32_t)entry->words[1],
			.scope = (const char *)entry->words[2],
		};
	return entry != NULL;
}

uint32_t stack_of_note(uint32_t note)
{
	struct stack_ending ending;

	return stack_is_ending(note, &ending) ? ending.allocated : note;
}

/* libunwind. */

static void *symbol(void *library, const char *name)
{
	return library ? dlsym(library, name) : NULL;
}

/* Linked into the program its code is the program's, which has no name here. */
static int find_own_code(struct dl_phdr_info *info, size_t size, void *unused)
{
	char path[ELF_PATH_BYTES];
	struct elf_module module;

	(void)size, (void)unused;
	if (!info->dlpi_name[0])
		return 0;
	elf_module_set(&module, info, false, path);
	const struct elf_text *text = elf_text_of(&module, (uintptr_t)stack_start);
	if (!text)
		return 0;
	stacks.own_lo = text->lo;
	stacks.own_hi = text->hi;
	return 1;
}

static void load(void)
{
	/* By name: a static program needn't bring what loads libraries. */
	void *(*open)(const char *, int) = NULL;
	*(void **)&open = dlsym(RTLD_DEFAULT, "dlopen");
	void *library = open ? open(LIBUNWIND, RTLD_NOW | RTLD_LOCAL) : NULL;

	dl_iterate_phdr(find_own_code, NULL);
#if defined(__x86_64__)
	*(void **)&stacks.get_context = symbol(library, "_Ux86_64_getcontext");
	*(void **)&stacks.init = symbol(library, "_ULx86_64_init_local");
	*(void **)&stacks.step = symbol(library, "_ULx86_64_step");
	*(void **)&stacks.get = symbol(library, "_ULx86_64_get_reg");
#endif
	*(void **)&stacks.backtrace = symbol(library, "unw_backtrace");
	if (!stacks.backtrace)
		report("%s isn't there: stacks follow frame pointers, as far as there are any (Debian has it in "
		       "the package libunwind8)", LIBUNWIND);
}

extern char **environ;

void stack_load(struct thread *thread)
{
	int expected = 0;

	/* Before libc has begun nothing can be loaded. What the loader allocates is nobody's scope's. */
	if (__builtin_expect(__atomic_load_n(&stacks.load_state, __ATOMIC_ACQUIRE) != 0, 1) || !environ ||
	    thread->is_in_check ||
	    !__atomic_compare_exchange_n(&stacks.load_state, &expected, 1, false, __ATOMIC_ACQ_REL,
	                                 __ATOMIC_RELAXED))
		return;
	thread->is_in_check = true;
	load();
	thread->is_in_check = false;
	__atomic_store_n(&stacks.load_state, 2, __ATOMIC_RELEASE);
}

static bool has_libunwind(void)
{
	return __atomic_load_n(&stacks.load_state, __ATOMIC_ACQUIRE) == 2 && stacks.backtrace;
}

/* Taking. */

/* Each frame begins with the address of the one further out, and has its return address behind it. */
static size_t follow_frame_pointers(const struct thread *thread, uintptr_t *frames, size_t capacity)
{
	uintptr_t at = (uintptr_t)__builtin_frame_address(0), hi = thread->stack_lo + thread->stack_bytes;
	size_t count = 0;

	while (count < capacity && at >= thread->stack_lo && at + 2 * sizeof(at) <= hi && at % sizeof(at) == 0) {
		const uintptr_t *frame = (const uintptr_t *)at;
		if (frame[1] < OS_PAGE || frame[0] <= at)
			break;
		frames[count++] = frame[1];
		at = frame[0];
	}
	return count;
}

static bool is_own(uintptr_t code)
{
	return code - stacks.own_lo < stacks.own_hi - stacks.own_lo;
}

size_t stack_take(struct thread *thread, uintptr_t *frames, size_t capacity)
{
	uintptr_t all[STACK_FRAMES + OWN_FRAMES];
	size_t count, first = 0;

	if (thread->is_in_check)
		return 0;
	thread->is_in_check = true;
	if (has_libunwind()) {
		int found = stacks.backtrace((void **)all, STACK_FRAMES + OWN_FRAMES);
		count = found > 0 ? (size_t)found : 0;
	} else {
		count = follow_frame_pointers(thread, all, STACK_FRAMES + OWN_FRAMES);
	}
	thread->is_in_check = false;
	while (first < count && is_own(all[first]))
		first++;
	count = count - first < capacity ? count - first : capacity;
	memcpy(frames, all + first, count * sizeof(frames[0]));
	return count;
}

uint32_t stack_here(struct thread *thread)
{
	uintptr_t frames[STACK_FRAMES];
	size_t count = stack_take(thread, frames, STACK_FRAMES);

	return count ? number_of(ENTRY_STACK, frames, count) : 0;
}

/* Looks for the frame from the innermost on: it ends where the one further out has its stack pointer. */
static bool find_frame(uintptr_t address, struct stack_frame *frame)
{
	char cursor[CURSOR_BYTES] __attribute__((aligned(16)));
	ucontext_t context;
	uintptr_t code, sp = 0;

	stacks.get_context(&context);
	if (stacks.init(cursor, &context) < 0)
		return false;
	do {
		if (stacks.get(cursor, REGISTER_IP, &code) < 0)
			return false;
		if (stacks.step(cursor) <= 0 || stacks.get(cursor, REGISTER_SP, &sp) < 0)
			return false;
	} while (sp <= address);
	*frame = (struct stack_frame){.code = code, .end = sp};
	return true;
}

bool stack_frame_of(struct thread *thread, uintptr_t address, struct stack_frame *frame)
{
	if (!has_libunwind() || !stacks.get_context || !stacks.init || !stacks.step || !stacks.get ||
	    thread->is_in_check || address < scope_here())
		return false;
	thread->is_in_check = true;
	bool is_found = find_frame(address, frame);
	thread->is_in_check = false;
	return is_found;
}
