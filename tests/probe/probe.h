/*
 * probe.h: small spawned programs, each of which proves one rule about the whole library.
 *
 * A rule is one line in a table and one short function. A program holds the table of one group, and
 * this file's two companions do the rest:
 *
 *   runner.c   main(): `probe_x` lists the cases; `probe_x CASE [COUNT]` starts itself anew with the
 *              library preloaded and the case's environment, waits with a time limit, and judges exit
 *              status, signal and stderr; `probe_x --all` runs them one after another;
 *              `probe_x --agrees CASE...` fails unless the names given are just those in the table
 *   probe.c    what the functions use while they run: checks, patterns, resident memory
 *
 * The spawned program first proves that malloc really is the library's; a probe that ran on libc's
 * malloc by mistake would prove nothing. Its stdout is for probe_expect(), its stderr belongs to the
 * library: unless a case says otherwise, one line there that the case doesn't account for fails it.
 *
 * Environment of the runner:
 *   REGION_LIBRARY     the library to preload; unset with PROBE_ANY_MALLOC=1 to try a probe on libc
 *   PROBE_ENVIRONMENT  "NAME=value NAME=value": added to the environment of each case
 *   PROBE_SECONDS      time limit of a case, for long runs with a COUNT
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the program gets its malloc from, which is what it proves before its case runs. */
enum probe_form {
	PROBE_PRELOADED = 0, /* LD_PRELOAD */
	PROBE_LINKED,        /* linked with the shared library, no LD_PRELOAD */
	PROBE_STATIC,        /* linked with the static library, no LD_PRELOAD */
	PROBE_PLAIN,         /* libc's malloc: the library isn't there, or comes by dlopen */
};

/* A case whose stderr may have any number of reports, and other lines as well. */
#define PROBE_ANY_LINES (-1)

struct probe_case {
	const char *name;
	void (*run)(void);       /* runs in the spawned program; returning is exit status 0 */
	const char *environment; /* "NAME=value NAME=value", for the spawned program */
	const char *says[4];     /* texts that must be on its stderr */
	const char *never;       /* a text that must not be there */
	int lines;               /* how many lines "libregion: ..." must be there; default none */
	int signal;              /* the signal it must be killed by; 0: it must exit */
	int status;              /* its exit status */
	int seconds;             /* after which it counts as hanging; 0: PROBE_DEFAULT_SECONDS */
	size_t address_space;    /* RLIMIT_AS it starts with; 0: none */
	size_t data_segment;     /* RLIMIT_DATA it starts with; 0: none */
	enum probe_form form;    /* in place of the table's own form, if that is PROBE_PRELOADED */
	bool has_companions;     /* companion.c is preloaded too, both before and after the library */
	const char *(*judge)(const char *said); /* runs in the runner on stderr; NULL: nothing wrong */
};

#define PROBE_DEFAULT_SECONDS 30

/* Defined by each group: its cases, up to one without a name, and how the program is linked. */
extern const struct probe_case probe_cases[];
extern const enum probe_form probe_default_form;

/* Fails the case, with the rule that was broken in words, unless the condition holds. */
#define CHECK(condition, ...) \
	((condition) ? (void)0 : probe_fail(__FILE__, __LINE__, #condition, __VA_ARGS__))

void probe_fail(const char *file, int line, const char *condition, const char *format, ...)
	__attribute__((noreturn, format(printf, 4, 5)));

/* Ends the case as skipped, with the reason. */
void probe_skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* From here on, this text has to turn up on stderr. */
void probe_expect(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The COUNT of the command line, or what the case runs with by default. */
long probe_count(long by_default);

/* Proves where malloc comes from; called before each case. */
void probe_prove_form(enum probe_form form);

/* The path of this program; works without /proc. */
const char *probe_path(void);

/* Hides what p points at from the compiler, so that it can neither warn nor optimise. */
static inline void *probe_opaque(const void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return (void *)p;
}

static inline size_t probe_opaque_size(size_t size)
{
	__asm__ volatile("" : "+r"(size));
	return size;
}

/* A pattern that depends on the seed and on the place in the block; verify stops the case. */
void probe_fill(void *p, size_t size, unsigned seed);
void probe_verify(const void *p, size_t size, unsigned seed, const char *rule);
bool probe_is_zero(const void *p, size_t size);

/* Resident bytes of this process. */
size_t probe_resident(void);

/* A malloc that must succeed, filled with the pattern of the seed. */
void *probe_block(size_t size, unsigned seed);

/* Verifies and frees such a block. */
void probe_unblock(void *p, size_t size, unsigned seed);

/*
 * Allocates blocks of many sizes at once, checks that none overlaps another, and frees them: the heap
 * still works.
 */
void probe_heap_is_sound(void);

/* xorshift: the next number of the sequence at *state, which must not be 0. */
unsigned probe_random(unsigned *state);

double probe_seconds_now(void);

/* Waits for a child: its exit status, or 128 + signal. Fails the case if it takes over `seconds`. */
int probe_wait_child(int pid, int seconds);

#ifdef __cplusplus
}
#endif

#endif
