/*
 * stats.c: counter sets, and their sums as text, JSON or Prometheus exposition text.
 *
 * Writing happens at exit, when other threads may still run and the host's streams may be closed, so it
 * goes through a small buffer of its own straight to a descriptor.
 */
#include "stats.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "scope.h"
#include "scopes.h"

static struct stats {
	struct lock lock;
	struct counters *ended; /* of threads that have ended, by name */
	int fd;                 /* where they go at exit, if that isn't a file */
} stats_state = {.fd = 2};

struct lock *stats_lock(void)
{
	return &stats_state.lock;
}

/* The set of a name in a list, made if need be; NULL: out of memory. */
static struct counters *set_in(struct counters **list, const char *name)
{
	struct counters *set;

	for (set = *list; set; set = set->next)
		if (set->name == name || strcmp(set->name, name) == 0)
			return set;
	set = range_meta_alloc(sizeof(*set));
	if (!set)
		return NULL;
	set->name = name;
	set->next = *list;
	__atomic_store_n(list, set, __ATOMIC_RELEASE);
	return set;
}

__attribute__((cold)) struct counters *stats_of(struct thread *thread, const char *name)
{
	struct counters *set = set_in(&thread->all_counters, name);

	/* Without memory for a set of its own, what the scope does counts for the default one. */
	return set ? set : thread->base.region.counters;
}

/* Sums. */

static void add_set(struct region_stats *sum, const struct counters *set)
{
	uint64_t peak = sum->peak_bytes, pause_ns = sum->longest_pause_ns;

#define ADD(member, unit, help) sum->member += __atomic_load_n(&set->stats.member, __ATOMIC_RELAXED);
	REGION_STATS_MAP(ADD)
#undef ADD
	/* Those that aren't sums. */
	sum->peak_bytes -= peak;
	if (sum->peak_bytes < peak)
		sum->peak_bytes = peak;
	sum->longest_pause_ns -= pause_ns;
	if (sum->longest_pause_ns < pause_ns)
		sum->longest_pause_ns = pause_ns;
}

/* Adds the sets of a list, all of them or those of one name; how many there were. */
static size_t add_list(struct region_stats *sum, struct counters *const *list, const char *name)
{
	size_t count = 0;

	for (const struct counters *set = __atomic_load_n(list, __ATOMIC_ACQUIRE); set; set = set->next)
		if (!name || strcmp(set->name, name) == 0) {
			add_set(sum, set);
			count++;
		}
	return count;
}

static size_t add_thread(struct region_stats *sum, const struct thread *thread, const char *name)
{
	return thread ? add_list(sum, &thread->all_counters, name) : 0;
}

void stats_thread_ends(struct thread *thread)
{
	lock_acquire(&stats_state.lock);
	for (struct counters *set = thread->all_counters; set; set = set->next) {
		struct counters *total = set_in(&stats_state.ended, set->name);
		if (!total)
			continue;
		add_set(&total->stats, set);
		set->stats = (struct region_stats){0};
	}
	lock_release(&stats_state.lock);
}

static void add_now(struct region_stats *sum)
{
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap)
		sum->cached_bytes += __atomic_load_n(&heap->spare_bytes, __ATOMIC_RELAXED);
	struct granule_live waiting = waiting_now();
	sum->waiting_blocks = waiting.blocks;
	sum->waiting_bytes = waiting.granules << GRANULE_SHIFT;
	sum->mapped_bytes = span_pool_totals().used_bytes;
	sum->resident_bytes = os_resident_bytes();
}

static size_t add_all(struct region_stats *sum, const char *name)
{
	size_t count;

	lock_acquire(&stats_state.lock);
	count = add_list(sum, &stats_state.ended, name);
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap)
		count += add_thread(sum, heap->upper, name);
	lock_release(&stats_state.lock);
	return count;
}

void region_stats_read(struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	add_all(stats, NULL);
	add_now(stats);
	stats->late_frees = buffer_late_frees();
	struct granule_live gone = waiting_gone();
	stats->blocks_faded += gone.blocks;
	stats->bytes_faded += gone.granules << GRANULE_SHIFT;
}

void region_stats_read_thread(struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	add_thread(stats, scope_thread(heap_self()), NULL);
	add_now(stats);
}

int region_stats_read_scope(const char *name, struct region_stats *stats)
{
	*stats = (struct region_stats){0};
	if (add_all(stats, name) == 0 || stats->scopes_entered == 0) {
		errno = ENOENT;
		return -1;
	}
	return 0;
}

/* Output. */

struct writer {
	int fd;
	size_t used;
	char text[4096];
};

static void flush(struct writer *out)
{
	os_write(out->fd, out->text, out->used);
	out->used = 0;
}

static __attribute__((format(printf, 2, 3))) void put(struct writer *out, const char *format, ...)
{
	va_list args;

	if (sizeof(out->text) - out->used < 512)
		flush(out);
	va_start(args, format);
	int n = vsnprintf(out->text + out->used, sizeof(out->text) - out->used, format, args);
	va_end(args);
	if (n > 0)
		out->used += (size_t)n < sizeof(out->text) - out->used ? (size_t)n : 0;
}

/* A name inside quotes, of JSON or of a Prometheus label, cut where it would be unreasonably long. */
static void put_quoted(struct writer *out, const char *name)
{
	put(out, "\"");
	for (size_t i = 0; name[i] && i < 200; i++) {
		unsigned char c = (unsigned char)name[i];
		if (c == '"' || c == '\\')
			put(out, "\\%c", c);
		else if (c < 0x20)
			put(out, " ");
		else
			put(out, "%c", c);
	}
	put(out, "\"");
}

/* Has a list that is looked at before `stop` a set of that name? */
static bool is_seen_before(const struct thread *stop, const char *name)
{
	struct region_stats unused = {0};

	if (add_list(&unused, &stats_state.ended, name) > 0)
		return true;
	for (struct heap *heap = heap_all(); heap && heap->upper != stop; heap = heap->next_heap)
		if (add_thread(&unused, heap->upper, name) > 0)
			return true;
	return false;
}

typedef void put_set(struct writer *out, const char *name, const struct region_stats *stats, size_t member);

static void put_one(struct writer *out, put_set *fn, const char *name, size_t member)
{
	struct region_stats sum;

	if (region_stats_read_scope(name, &sum) == 0)
		fn(out, name, &sum, member);
}

/* Calls fn once for each name that some scope was entered under. */
static void for_each_name(struct writer *out, put_set *fn, size_t member)
{
	for (struct counters *set = stats_state.ended; set; set = set->next)
		put_one(out, fn, set->name, member);
	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap) {
		struct thread *thread = heap->upper;
		for (struct counters *set = thread ? thread->all_counters : NULL; set; set = set->next)
			if (!is_seen_before(thread, set->name))
				put_one(out, fn, set->name, member);
	}
}

static unsigned long long percent_of(uint64_t part, uint64_t whole)
{
	return whole ? part * 100 / whole : 0;
}

static void text_set(struct writer *out, const char *name, const struct region_stats *stats, size_t unused)
{
	(void)unused;
	put(out, "libregion: scope \"%.200s\":\n", name);
#define PUT(member, unit, help) \
	if (stats->member) \
		put(out, "libregion:   %-18s %14llu  %s\n", #member, (unsigned long long)stats->member, help);
	REGION_STATS_MAP(PUT)
#undef PUT
	put(out, "libregion:   %-18s %13llu%%  of its blocks faded\n", "share_faded",
	    percent_of(stats->blocks_faded, stats->blocks_allocated));
}

static void text_now(struct writer *out, const struct region_stats *stats)
{
	put(out, "libregion: process %d: %llu scopes, %llu blocks, %llu bytes served from buffers\n",
	    os_process_id(), (unsigned long long)stats->scopes_entered,
	    (unsigned long long)stats->blocks_allocated, (unsigned long long)stats->bytes_allocated);
	put(out, "libregion:   %llu bytes of the heap range in use, %llu bytes resident\n",
	    (unsigned long long)stats->mapped_bytes, (unsigned long long)stats->resident_bytes);
	if (stats->waiting_blocks)
		put(out, "libregion:   %llu blocks of %llu bytes wait to be found reachable or not\n",
		    (unsigned long long)stats->waiting_blocks, (unsigned long long)stats->waiting_bytes);
}

static void write_text(struct writer *out)
{
	struct region_stats stats;

	region_stats_read(&stats);
	text_now(out, &stats);
	for_each_name(out, text_set, 0);
}

static void json_members(struct writer *out, const struct region_stats *stats)
{
#define PUT(member, unit, help) put(out, "\"%s\": %llu, ", #member, (unsigned long long)stats->member);
	REGION_STATS_MAP(PUT)
#undef PUT
	put(out, "\"share_faded_percent\": %llu", percent_of(stats->blocks_faded, stats->blocks_allocated));
}

static void json_set(struct writer *out, const char *name, const struct region_stats *stats, size_t unused)
{
	(void)unused;
	put(out, ",\n    {\"name\": ");
	put_quoted(out, name);
	put(out, ", ");
	json_members(out, stats);
	put(out, "}");
}

static void json_threads(struct writer *out)
{
	const char *separator = "\n";

	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap) {
		struct region_stats stats = {0};

		add_thread(&stats, heap->upper, NULL);
		put(out, "%s    {", separator);
		json_members(out, &stats);
		put(out, "}");
		separator = ",\n";
	}
}

static void write_json(struct writer *out)
{
	struct region_stats stats;

	region_stats_read(&stats);
	put(out, "{\n  \"version\": \"%s\", \"process_id\": %d,\n  \"process\": {", region_version(),
	    os_process_id());
	json_members(out, &stats);
	put(out, ", \"cached_bytes\": %llu, \"waiting_blocks\": %llu, \"waiting_bytes\": %llu",
	    (unsigned long long)stats.cached_bytes, (unsigned long long)stats.waiting_blocks,
	    (unsigned long long)stats.waiting_bytes);
	put(out, ", \"mapped_bytes\": %llu, \"resident_bytes\": %llu},\n",
	    (unsigned long long)stats.mapped_bytes, (unsigned long long)stats.resident_bytes);
	put(out, "  \"threads\": [");
	json_threads(out);
	/* A first element without a name keeps the separators simple, and says what all scopes sum to. */
	put(out, "],\n  \"scopes\": [\n    {\"name\": null, ");
	json_members(out, &stats);
	put(out, "}");
	for_each_name(out, json_set, 0);
	put(out, "]\n}\n");
}

static const struct metric {
	const char *name, *help;
	size_t offset; /* in struct region_stats */
} metrics[] = {
#define METRIC(member, unit, help) {#member, help, offsetof(struct region_stats, member)},
	REGION_STATS_MAP(METRIC)
#undef METRIC
};

static void prometheus_sample(struct writer *out, const char *name, const struct region_stats *stats,
                              size_t member)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + metrics[member].offset, sizeof(value));
	put(out, "libregion_%s{scope=", metrics[member].name);
	put_quoted(out, name);
	put(out, "} %llu\n", (unsigned long long)value);
}

static void prometheus_head(struct writer *out, const char *name, const char *help, const char *type)
{
	put(out, "# HELP libregion_%s %s\n# TYPE libregion_%s %s\n", name, help, name, type);
}

static void write_prometheus(struct writer *out)
{
	struct region_stats stats;

	region_stats_read(&stats);
	for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
		bool is_peak = metrics[i].offset == offsetof(struct region_stats, peak_bytes);
		prometheus_head(out, metrics[i].name, metrics[i].help, is_peak ? "gauge" : "counter");
		for_each_name(out, prometheus_sample, i);
	}
	prometheus_head(out, "mapped_bytes", "bytes of the heap range in use by spans", "gauge");
	put(out, "libregion_mapped_bytes %llu\n", (unsigned long long)stats.mapped_bytes);
	prometheus_head(out, "resident_bytes", "resident bytes of the process", "gauge");
	put(out, "libregion_resident_bytes %llu\n", (unsigned long long)stats.resident_bytes);
}

/* Where to: stderr, or the file that the option names, with %p as the process id. */
static int open_target(const char *target, char *path, size_t capacity)
{
	const char *mark = strstr(target, "%p");

	if (mark)
		snprintf(path, capacity, "%.*s%d%s", (int)(mark - target), target, os_process_id(), mark + 2);
	else
		snprintf(path, capacity, "%s", target);
	int fd = os_create(path);
	if (fd < 0)
		report("LIBREGION_STATS=%s: can't be written; no statistics", path);
	return fd;
}

static bool ends_in(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);

	return n >= m && strcmp(text + n - m, ending) == 0;
}

static bool is_word(const char *target)
{
	return strcmp(target, "1") == 0 || strcmp(target, "json") == 0 || strcmp(target, "prometheus") == 0;
}

__attribute__((cold)) void stats_start(void)
{
	/* coreutils close stderr before destructors run. */
	if (*options.stats && is_word(options.stats))
		stats_state.fd = os_keep_fd(2);
}

void stats_write(void)
{
	const char *target = options.stats;
	char path[OPTION_TEXT_BYTES + 16] = "";
	struct writer out = {.fd = stats_state.fd};
	bool is_json = strcmp(target, "json") == 0 || ends_in(target, ".json");
	bool is_prometheus = strcmp(target, "prometheus") == 0 || ends_in(target, ".prom");

	if (!*target || strcmp(target, "0") == 0)
		return;
	if (!is_word(target) && (out.fd = open_target(target, path, sizeof(path))) < 0)
		return;
	(is_json ? write_json : is_prometheus ? write_prometheus : write_text)(&out);
	flush(&out);
	if (!is_word(target))
		os_close(out.fd);
}

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

const char *region_version(void)
{
	return STRING(REGION_VERSION_MAJOR) "." STRING(REGION_VERSION_MINOR) "." STRING(REGION_VERSION_PATCH);
}
