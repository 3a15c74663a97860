/*
 * stats_write.c: statistics as text, JSON and Prometheus exposition text.
 *
 * This runs at exit, when other threads may still run and the host's streams may be closed; in signal
 * handlers, perhaps on a small stack of their own; and inside malloc. So it allocates nothing, formats by
 * itself, and goes through one buffer of its own straight to a descriptor. Who calls sees to it that
 * there is one writer at a time (stats_dump.c).
 */
#include <string.h>

#include "scope.h"
#include "scopes.h"

#define NAME_MAX_BYTES 200u /* longer ones are cut */

static struct writer {
	int fd;
	size_t used;
	char text[4096];
	const struct stats_moment *moment; /* of what is being written */
	size_t metric;                     /* Prometheus: the one that is being written */
} out;

static const struct metric {
	const char *name, *help;
	size_t offset; /* in struct region_stats */
} metrics[] = {
#define METRIC(member, unit, help) {#member, help, offsetof(struct region_stats, member)},
	REGION_STATS_MAP(METRIC)
#undef METRIC
};

#define METRIC_COUNT (sizeof(metrics) / sizeof(metrics[0]))

/* Text. */

static void flush(void)
{
	os_write(out.fd, out.text, out.used);
	out.used = 0;
}

static void put_char(char c)
{
	if (out.used == sizeof(out.text))
		flush();
	out.text[out.used++] = c;
}

static void put_at_most(const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes && text[i]; i++)
		put_char(text[i]);
}

static void put(const char *text)
{
	put_at_most(text, SIZE_MAX);
}

static void put_spaces(size_t from, size_t to)
{
	for (; from < to; from++)
		put_char(' ');
}

#define NUMBER_BYTES 24

/* A number, to the right of a column of that width. */
static void put_column(uint64_t value, size_t width)
{
	char digits[NUMBER_BYTES], *end = digits + sizeof(digits), *at = end;

	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	put_spaces((size_t)(end - at), width);
	put_at_most(at, (size_t)(end - at));
}

static void put_number(uint64_t value)
{
	put_column(value, 0);
}

/* A name inside quotes, of JSON or of a Prometheus label. */
static void put_quoted(const char *name)
{
	put_char('"');
	for (size_t i = 0; name[i] && i < NAME_MAX_BYTES; i++) {
		if (name[i] == '"' || name[i] == '\\')
			put_char('\\');
		put_char((unsigned char)name[i] < 0x20 ? ' ' : name[i]);
	}
	put_char('"');
}

static uint64_t percent_of(uint64_t part, uint64_t whole)
{
	return whole ? part * 100 / whole : 0;
}

static uint64_t member_of(const struct region_stats *stats, const struct metric *metric)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + metric->offset, sizeof(value));
	return value;
}

/* For people. */

#define TEXT_NAME_WIDTH 18
#define TEXT_VALUE_WIDTH 14

static void text_row(const char *name, uint64_t value, const char *unit, const char *help)
{
	put("libregion:   ");
	put(name);
	put_spaces(strlen(name), TEXT_NAME_WIDTH + 1);
	put_column(value, TEXT_VALUE_WIDTH - strlen(unit));
	put(unit);
	put("  ");
	put(help);
	put_char('\n');
}

static void text_scope(void *unused, const char *name, const struct region_stats *stats)
{
	(void)unused;
	put("libregion: scope \"");
	put_at_most(name, NAME_MAX_BYTES);
	put("\":\n");
	for (const struct metric *metric = metrics; metric < metrics + METRIC_COUNT; metric++)
		if (member_of(stats, metric))
			text_row(metric->name, member_of(stats, metric), "", metric->help);
	text_row("share_faded", percent_of(stats->blocks_faded, stats->blocks_allocated), "%",
	         "of its blocks faded");
}

static void text_pair(uint64_t a, const char *of_a, uint64_t b, const char *of_b)
{
	put_number(a);
	put(of_a);
	put_number(b);
	put(of_b);
}

static void write_text(const struct region_stats *stats)
{
	put("libregion: process ");
	put_number((uint64_t)os_process_id());
	if (strcmp(out.moment->reason, "exit") != 0) {
		put(" after ");
		put_number(out.moment->clock_ms - out.moment->start_ms);
		put(" ms");
	}
	put(": ");
	text_pair(stats->scopes_entered, " scopes, ", stats->blocks_allocated, " blocks, ");
	put_number(stats->bytes_allocated);
	put(" bytes served from buffers\nlibregion:   ");
	text_pair(stats->mapped_bytes, " bytes of the heap range in use, ", stats->resident_bytes,
	          " bytes resident\n");
	if (stats->waiting_blocks) {
		put("libregion:   ");
		text_pair(stats->waiting_blocks, " blocks of ", stats->waiting_bytes,
		          " bytes wait to be found reachable or not\n");
	}
	stats_each_name(text_scope, NULL);
}

/* For programs. */

static void json_member(const char *name, uint64_t value)
{
	put(", \"");
	put(name);
	put("\": ");
	put_number(value);
}

static void json_members(const struct region_stats *stats)
{
	put("\"share_faded_percent\": ");
	put_number(percent_of(stats->blocks_faded, stats->blocks_allocated));
	for (const struct metric *metric = metrics; metric < metrics + METRIC_COUNT; metric++)
		json_member(metric->name, member_of(stats, metric));
}

static void json_scope(void *unused, const char *name, const struct region_stats *stats)
{
	(void)unused;
	put(",\n    {\"name\": ");
	put_quoted(name);
	put(", ");
	json_members(stats);
	put("}");
}

static void json_threads(void)
{
	const char *separator = "\n";

	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap) {
		struct region_stats stats;

		stats_read_heap(heap, &stats);
		put(separator);
		put("    {");
		json_members(&stats);
		put("}");
		separator = ",\n";
	}
}

static void write_json(const struct region_stats *stats)
{
	put("{\n  \"version\": ");
	put_quoted(region_version());
	put(", \"reason\": ");
	put_quoted(out.moment->reason);
	json_member("process_id", (uint64_t)os_process_id());
	json_member("start_ms", out.moment->start_ms);
	json_member("clock_ms", out.moment->clock_ms);
	put(",\n  \"process\": {");
	json_members(stats);
	json_member("cached_bytes", stats->cached_bytes);
	json_member("waiting_blocks", stats->waiting_blocks);
	json_member("waiting_bytes", stats->waiting_bytes);
	json_member("mapped_bytes", stats->mapped_bytes);
	json_member("resident_bytes", stats->resident_bytes);
	put("},\n  \"threads\": [");
	json_threads();
	/* A first element without a name keeps the separators simple, and says what all scopes sum to. */
	put("],\n  \"scopes\": [\n    {\"name\": null, ");
	json_members(stats);
	put("}");
	stats_each_name(json_scope, NULL);
	put("]\n}\n");
}

/* For Prometheus. */

static void prometheus_name(const char *before, const char *name)
{
	put(before);
	put("libregion_");
	put(name);
}

static void prometheus_sample(void *unused, const char *name, const struct region_stats *stats)
{
	(void)unused;
	prometheus_name("", metrics[out.metric].name);
	put("{scope=");
	put_quoted(name);
	put("} ");
	put_number(member_of(stats, &metrics[out.metric]));
	put_char('\n');
}

static void prometheus_head(const char *name, const char *help, const char *type)
{
	prometheus_name("# HELP ", name);
	put_char(' ');
	put(help);
	prometheus_name("\n# TYPE ", name);
	put_char(' ');
	put(type);
	put_char('\n');
}

static void prometheus_gauge(const char *name, const char *help, uint64_t value)
{
	prometheus_head(name, help, "gauge");
	prometheus_name("", name);
	put_char(' ');
	put_number(value);
	put_char('\n');
}

static bool is_peak(const struct metric *metric)
{
	return metric->offset == offsetof(struct region_stats, peak_bytes) ||
	       metric->offset == offsetof(struct region_stats, longest_pause_ns);
}

static void write_prometheus(const struct region_stats *stats)
{
	for (out.metric = 0; out.metric < METRIC_COUNT; out.metric++) {
		const struct metric *metric = &metrics[out.metric];

		prometheus_head(metric->name, metric->help, is_peak(metric) ? "gauge" : "counter");
		stats_each_name(prometheus_sample, NULL);
	}
	prometheus_gauge("mapped_bytes", "bytes of the heap range in use by spans", stats->mapped_bytes);
	prometheus_gauge("resident_bytes", "resident bytes of the process", stats->resident_bytes);
}

void stats_write(int fd, const struct stats_moment *moment)
{
	struct region_stats stats;

	out.fd = fd;
	out.used = 0;
	out.moment = moment;
	region_stats_read(&stats);
	if (moment->form == STATS_JSON)
		write_json(&stats);
	else if (moment->form == STATS_PROMETHEUS)
		write_prometheus(&stats);
	else
		write_text(&stats);
	flush();
}
