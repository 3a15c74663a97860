/*
 * bump.c: libbump.so, the bump allocator of bump.h behind a shared library.
 */
#include "bump.h"

#include <sys/mman.h>

static __thread __attribute__((tls_model("initial-exec"))) struct {
	struct bump bump;
	size_t freed;
} mine;

static struct bump_buffer *map_buffer(void)
{
	void *p = mmap(NULL, BUMP_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void use_buffer(struct bump *bump, struct bump_buffer *buffer)
{
	bump->current = buffer;
	bump->cursor = (char *)(buffer + 1);
	bump->limit = (char *)buffer + BUMP_BUFFER;
}

void *bump_refill(struct bump *bump, size_t rounded)
{
	struct bump_buffer **next = bump->current ? &bump->current->next : &bump->first;

	if (rounded > BUMP_BUFFER - sizeof(struct bump_buffer))
		return NULL;
	if (!*next)
		*next = map_buffer();
	if (!*next)
		return NULL;
	use_buffer(bump, *next);
	return bump_take(bump, rounded);
}

void bump_rewind(struct bump *bump)
{
	if (bump->first)
		use_buffer(bump, bump->first);
}

void bump_drop(struct bump *bump)
{
	struct bump_buffer *buffer = bump->first;

	while (buffer) {
		struct bump_buffer *next = buffer->next;
		munmap(buffer, BUMP_BUFFER);
		buffer = next;
	}
	*bump = (struct bump){0};
}

void *bump_alloc(size_t size)
{
	return bump_take(&mine.bump, size);
}

void bump_free(void *block)
{
	(void)block;
	mine.freed++;
}

void bump_reset(void)
{
	bump_rewind(&mine.bump);
}

void bump_end_thread(void)
{
	bump_drop(&mine.bump);
}
