/*
 * companion.c: a shared object that is preloaded beside the library, once before it in the list and once
 * behind it, so that of its constructors and destructors some run while the library has not been
 * started yet, and some after everything else has ended. They use the heap as any library may. It serves
 * as an audit library (LD_AUDIT) as well.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STRING(x) STRING_(x)
#define STRING_(x) #x

enum { COUNT = 200 };
static char *blocks[COUNT];

static void say(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		_exit(1);
}

static size_t size_of(int i)
{
	return (size_t)i * (size_t)i * 7 + 1;
}

static void make_blocks(void)
{
	for (int i = 0; i < COUNT; i++) {
		blocks[i] = malloc(size_of(i));
		if (!blocks[i])
			_exit(1);
		memset(blocks[i], i, size_of(i));
	}
}

static void take_blocks(void)
{
	for (int i = 0; i < COUNT; i++) {
		if (blocks[i][0] != (char)i || blocks[i][size_of(i) - 1] != (char)i)
			_exit(1);
		free(blocks[i]);
	}
}

static void *use_the_heap(void *unused)
{
	make_blocks();
	take_blocks();
	return unused;
}

static void use_the_heap_in_a_thread(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, use_the_heap, NULL) != 0)
		_exit(1);
	pthread_join(thread, NULL);
}

/* What makes it an audit library: the interface's version it is willing to have. */
unsigned la_version(unsigned version);

unsigned la_version(unsigned version)
{
	return version;
}

static __attribute__((constructor(101))) void begin(void)
{
	use_the_heap_in_a_thread();
	make_blocks();
	say("probe: " STRING(COMPANION) " constructed\n");
}

static __attribute__((destructor(101))) void end(void)
{
	take_blocks();
	use_the_heap_in_a_thread();
	say("probe: " STRING(COMPANION) " destroyed\n");
}
