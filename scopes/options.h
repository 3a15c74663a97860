/*
 * options.h: the one table of environment options.
 *
 * A line of OPTIONS_MAP makes the member of `struct options`, its default, its variable, its range and
 * the text that `region options` prints. Adding an option is adding a line.
 *
 * Values: sizes take a suffix k, M, G or T (powers of 1024); switches take 1/0, yes/no, on/off or
 * true/false; choices take one of their words. What can't be understood is reported once, and the
 * default holds. The environment is ignored in set-user-ID programs (AT_SECURE).
 */
#ifndef LIBREGION_OPTIONS_H
#define LIBREGION_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTION_PREFIX "LIBREGION_"
#define OPTION_TEXT_BYTES 256

/* X(member, name, type, default, least, most, words, help); `words` are those of a choice, in order. */
#define OPTIONS_MAP(X) \
	X(fade, "FADE", CHOICE, 0, 0, 0, "default unfreed reachable none", \
	  "fade policy of every scope, whatever the program asks for") \
	X(buffer_bytes, "BUFFER_SIZE", SIZE, 256 << 10, 64 << 10, 16 << 20, "", \
	  "bytes of a buffer, rounded up to a power of two") \
	X(buffer_count, "BUFFER_COUNT", COUNT, 1, 1, 1024, "", \
	  "buffers made ready when a thread first needs one") \
	X(cache_bytes, "BUFFER_CACHE", SIZE, 8 << 20, 0, (uint64_t)1 << 40, "", \
	  "bytes of empty buffers that a thread keeps ready") \
	X(limit_bytes, "LIMIT", SIZE, 0, 0, (uint64_t)1 << 40, "", \
	  "bytes of buffers a scope may hold before the general heap serves; 0: no limit") \
	X(max_block_bytes, "MAX_BLOCK", SIZE, 32 << 10, 16, 8 << 20, "", \
	  "largest block that shares a buffer with others; half a buffer at most") \
	X(wait_bytes, "WAIT_BYTES", SIZE, 1 << 20, 0, (uint64_t)1 << 40, "", \
	  "reachable: bytes of buffers with unfreed blocks that wait for a search, at least") \
	X(wait_share, "WAIT_SHARE", COUNT, 100, 0, 1000, "", \
	  "reachable: and this percentage of the memory that a search looks at") \
	X(stop_signal, "STOP_SIGNAL", COUNT, 33, 33, 64, "", \
	  "reachable: number of the signal that stops other threads during a search") \
	X(pointer_align, "POINTER_ALIGN", CHOICE, 0, 0, 0, "8 4 2 1", \
	  "reachable: pointers lie at multiples of so many bytes") \
	X(track_writes, "TRACK_WRITES", CHOICE, 0, 0, 0, "auto 0 1", \
	  "reachable: a search reads only pages of the heap written since the last one; auto: where it pays") \
	X(learn, "LEARN", COUNT, 20, 0, 100, "", \
	  "percentage of a call site's blocks that fade from which the general heap serves it; 0: never") \
	X(learn_off, "LEARN_OFF", COUNT, 50, 0, 100, "", \
	  "percentage of a scope's blocks or bytes that fade from which it is switched off; 0: never") \
	X(learn_after, "LEARN_AFTER", COUNT, 16, 1, 65536, "", \
	  "calls of a scope that have left blocks before it is watched to learn from it") \
	X(heap_range_bytes, "HEAP_RANGE", SIZE, (uint64_t)1 << 40, 16 << 20, (uint64_t)1 << 40, "", \
	  "address space to reserve, rounded down to a power of two") \
	X(decay_ms, "DECAY", COUNT, 1000, 0, 3600000, "", \
	  "milliseconds that freed memory stays before it goes back to the system") \
	X(stats, "STATS", TEXT, 0, 0, 0, "1, json, prometheus, or a file name; %p is the process id", \
	  "statistics at exit, on stderr or to a file (.json and .prom by their ending)") \
	X(stats_signal, "STATS_SIGNAL", COUNT, 0, 0, 64, "", \
	  "number of a signal on which they are written, too; 0: none") \
	X(stats_interval, "STATS_INTERVAL", COUNT, 0, 0, 3600000, "", \
	  "milliseconds after which they are written, too, by a thread that comes by; with a signal exactly") \
	X(verbose, "VERBOSE", SWITCH, 0, 0, 1, "", "prints version, path and options in force at start") \
	X(on_error, "ON_ERROR", CHOICE, 0, 0, 0, "abort report", \
	  "what follows the report of a misuse: abort(), or the program runs on") \
	X(harden, "HARDEN", COUNT, 0, 0, 2, "", \
	  "more checks of the general heap: 1 fences; 2 also zeroes, quarantine, guard pages, random order") \
	X(check, "CHECK", CHOICE, 0, 0, 0, "0 1 guard", \
	  "tests scopes of policy none: 1 reports blocks still pointed to at their end, guard later touches") \
	X(check_exit, "CHECK_EXIT", COUNT, 0, 0, 255, "", \
	  "exit status of a process in which a check has found something; 0: the process's own") \
	X(check_file, "CHECK_FILE", TEXT, 0, 0, 0, "a file name; %p is the process id", \
	  "what a check finds is added to this file, as JSON, one object a line") \
	X(check_bytes, "CHECK_BYTES", SIZE, 1 << 30, 1 << 20, (uint64_t)1 << 40, "", \
	  "guard: bytes of addresses that aren't used again before others have been") \
	X(disable, "DISABLE", SWITCH, 0, 0, 1, "", "scopes are plain calls") \
	X(wrap_threads, "WRAP_THREADS", SWITCH, 0, 0, 1, "", \
	  "each thread's whole life is a scope (for tests)") \
	X(sites, "SITES", LIST, 0, 0, 0, "[module:]function[@caller][/option=value...],...", \
	  "functions of the program and its libraries whose calls are scopes") \
	X(sites_file, "SITES_FILE", TEXT, 0, 0, 0, "a file name", "the same, one a line; # begins a comment") \
	X(advise, "ADVISE", TEXT, 0, 0, 0, "a file name; %p is the process id", \
	  "samples allocations, and writes what `region advise` reads") \
	X(advise_signal, "ADVISE_SIGNAL", COUNT, 0, 0, 64, "", \
	  "number of a signal that starts sampling, and stops it; 0: it lasts from start to end") \
	X(advise_mean_bytes, "ADVISE_MEAN", SIZE, 0, 0, 1 << 30, "", \
	  "mean bytes from one sample to the next; 0: as few as cost little") \
	X(advise_hooks, "ADVISE_HOOKS", SWITCH, 1, 0, 1, "", \
	  "returns of functions are hooked while sampling; else they are inferred") \
	X(help, "HELP", SWITCH, 0, 0, 1, "", "prints this table at start")

#define OPTION_MEMBER_CHOICE(member) uint64_t member;
#define OPTION_MEMBER_SIZE(member) uint64_t member;
#define OPTION_MEMBER_COUNT(member) uint64_t member;
#define OPTION_MEMBER_SWITCH(member) uint64_t member;
#define OPTION_MEMBER_TEXT(member) char member[OPTION_TEXT_BYTES];
#define OPTION_MEMBER_LIST(member) uint64_t member; /* is it there? options_list() has it */

struct options {
#define OPTION_MEMBER(member, name, type, ...) OPTION_MEMBER_##type(member)
	OPTIONS_MAP(OPTION_MEMBER)
#undef OPTION_MEMBER
	char **environment; /* while libc's own `environ` isn't set; NULL: not known */
};

/* Constant after options_read(). */
extern struct options options __attribute__((visibility("hidden")));

/* Reads the environment, once, at start. Bad values and unknown names are reported. */
void options_read(void);

/* What a LIST says, which may be long, as the environment has it now; "" if it isn't there. */
const char *options_list(const char *name);

/* A number from decimal digits, with one of k, M, G, T behind it if `has_suffix`. False: it isn't one. */
bool options_parse_number(const char *text, bool has_suffix, uint64_t *value);

/* Prints every option with the value in force on stderr, and what it is for and takes. */
void options_print(bool with_help);

#endif
