/*
 * inside.c: what the cases use while they run. It knows the library only through weak references, so the
 * same file serves the plain run and the hooked one.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "sites.h"

#include <libgen.h>
#include <pthread.h>
#include "scopes/region.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 40 };

struct kept {
	struct kept *next;
	unsigned char seed;
	unsigned char text[];
};

static struct {
	pthread_mutex_t lock;
	struct kept *first;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool site_is_hooked(void)
{
	bool is_only_sampled = getenv("LIBREGION_ADVISE") && !getenv("LIBREGION_STATS");

	return region_version != NULL && !is_only_sampled;
}

void site_check(bool condition, const char *what)
{
	if (condition)
		return;
	fflush(stdout);
	dprintf(STDERR_FILENO, "site: not so: %s\n", what);
	_exit(1);
}

unsigned site_depth_or(unsigned plain)
{
	return site_is_hooked() ? region_depth() : plain;
}

void site_depth_is(unsigned depth, const char *where)
{
	char text[160];

	if (!site_is_hooked() || region_depth() == depth)
		return;
	snprintf(text, sizeof(text), "%s: the thread is inside %u scopes (it is inside %u)", where,
	         depth, region_depth());
	site_check(false, text);
}

void site_skip(const char *why)
{
	dprintf(STDERR_FILENO, "%s\n", why);
	_exit(77);
}

static size_t size_of(unsigned i)
{
	return 1 + i * 37 % 700;
}

static void keep(unsigned char seed)
{
	struct kept *block = malloc(sizeof(*block) + size_of(seed));

	site_check(block != NULL, "malloc works");
	block->seed = seed;
	memset(block->text, seed, size_of(seed));
	pthread_mutex_lock(&kept.lock);
	block->next = kept.first;
	kept.first = block;
	pthread_mutex_unlock(&kept.lock);
}

static bool is_filled(const unsigned char *p, unsigned char byte, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != byte)
			return false;
	return true;
}

void site_churn(void)
{
	unsigned char *blocks[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i] = malloc(size_of(i));
		site_check(blocks[i] != NULL, "malloc works");
		memset(blocks[i], (int)i, size_of(i));
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		site_check(is_filled(blocks[i], (unsigned char)i, size_of(i)), "blocks don't overlap");
		free(blocks[i]);
	}
	keep((unsigned char)(uintptr_t)blocks[0]);
}

void site_kept_are_whole(void)
{
	pthread_mutex_lock(&kept.lock);
	while (kept.first) {
		struct kept *block = kept.first;
		site_check(is_filled(block->text, block->seed, size_of(block->seed)),
		           "kept blocks are whole");
		kept.first = block->next;
		free(block);
	}
	pthread_mutex_unlock(&kept.lock);
}

const char *site_program_path(void)
{
	static char path[512];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[length < 0 ? 0 : length] = '\0';
	return path;
}

const char *site_path_beside(const char *name)
{
	static char path[1024];
	char *program = strdup(site_program_path());

	snprintf(path, sizeof(path), "%s/%s", dirname(program), name);
	free(program);
	return path;
}
