/*
 * store.c: a key-value store, as Redis is used: a hash table whose entries, keys and values are
 * blocks of their own. Most requests set or read a key, some append to a value (realloc), some
 * delete a key. Hot keys are asked for more often.
 */
#include "workloads.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS = 100000, MIN_BYTES = 16, DOUBLINGS = 6, APPENDED = 40, VALUE_MAX = 16384 };

struct entry {
	struct entry *next;
	char *key;
	char *value; /* begins with its size: block_make() */
};

struct store {
	struct entry **chains;
	size_t count;
	uint64_t random;
};

static uint32_t hash(const char *key)
{
	uint32_t h = 2166136261U;

	for (; *key; key++)
		h = (h ^ (unsigned char)*key) * 16777619U;
	return h;
}

static struct entry **find(const struct store *store, const char *key)
{
	struct entry **link = &store->chains[hash(key) % store->count];

	while (*link && strcmp((*link)->key, key) != 0)
		link = &(*link)->next;
	return link;
}

static struct entry *add(struct entry **link, const char *key)
{
	struct entry *entry = malloc(sizeof(*entry));

	if (!entry)
		bench_fail("out of memory");
	*entry = (struct entry){ .next = *link, .key = strdup(key) };
	return *link = entry;
}

static void set(struct store *store, const char *key)
{
	struct entry **link = find(store, key);
	struct entry *entry = *link ? *link : add(link, key);

	block_free(entry->value);
	entry->value = block_make(random_pareto(&store->random, MIN_BYTES, DOUBLINGS));
}

static void append(struct store *store, const char *key)
{
	struct entry *entry = *find(store, key);
	size_t size;

	if (!entry)
		return;
	size = block_size(entry->value) + APPENDED;
	if (size <= VALUE_MAX)
		entry->value = block_mark(realloc(entry->value, size), size);
}

static void drop(struct entry **link)
{
	struct entry *entry = *link;

	*link = entry->next;
	free(entry->key);
	block_free(entry->value);
	free(entry);
}

/* The answer to a read is a copy, as it would be sent. */
static void get(struct store *store, const char *key)
{
	struct entry *entry = *find(store, key);

	if (entry) {
		size_t size = block_size(entry->value);
		char *answer = malloc(size);
		if (!answer)
			bench_fail("out of memory");
		memcpy(answer, entry->value, size);
		block_free(answer);
	}
}

/* One of the keys; the square of a random share makes those with low numbers hot. */
static void make_key(struct store *store, char *text)
{
	uint64_t share = random_next(&store->random);
	size_t number;

	share = share * share >> 32;
	number = (size_t)(share * store->count >> 32);
	strcpy(text, "user:00000000:profile");
	for (char *digit = text + 12; number; number /= 10)
		*digit-- += (char)(number % 10);
}

static void serve(struct store *store)
{
	char key[64];
	size_t what = random_below(&store->random, 20);

	make_key(store, key);
	if (what < 8)
		set(store, key);
	else if (what < 15)
		get(store, key);
	else if (what < 18)
		append(store, key);
	else if (*find(store, key))
		drop(find(store, key));
}

static void run(void)
{
	struct store store = { .count = general_live(KEYS), .random = random_seed(1) };

	store.chains = calloc(store.count, sizeof(*store.chains));
	if (!store.chains)
		bench_fail("out of memory");
	for (size_t i = general_times(800000); i > 0; i--)
		serve(&store);
	for (size_t i = 0; i < store.count; i++)
		while (store.chains[i])
			drop(&store.chains[i]);
	free(store.chains);
}

const struct workload workload_store = {
	.name = "store", .about = "a key-value store: hash table, strings, realloc", .threads = 1, .run = run,
};
