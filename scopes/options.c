/*
 * options.c: parsing the environment against the table.
 *
 * This runs inside the first malloc, possibly before libc has set `environ`; then the environment is
 * what /proc/self/environ says. Nothing here allocates.
 */
#include "options.h"

#include <string.h>

#include "core/core.h"

enum option_type { OPTION_CHOICE, OPTION_SIZE, OPTION_COUNT, OPTION_SWITCH, OPTION_TEXT, OPTION_LIST };

struct option_row {
	const char *name; /* without the prefix */
	enum option_type type;
	size_t offset;    /* of the member */
	uint64_t value, least, most;
	const char *words, *help;
};

static const struct option_row rows[] = {
#define OPTION_ROW(member, name, type, value, least, most, words, help) \
	{name, OPTION_##type, offsetof(struct options, member), value, least, most, words, help},
	OPTIONS_MAP(OPTION_ROW)
#undef OPTION_ROW
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

struct options options;

static uint64_t *number_of(const struct option_row *row)
{
	return (uint64_t *)((char *)&options + row->offset);
}

static char *text_of(const struct option_row *row)
{
	return (char *)&options + row->offset;
}

/* The position of a word in a list of words, or -1. */
static int word_index(const char *words, const char *word)
{
	size_t length = strlen(word);

	for (int i = 0; *words; i++) {
		size_t n = strcspn(words, " ");
		if (n == length && memcmp(words, word, n) == 0)
			return i;
		words += n + (words[n] == ' ');
	}
	return -1;
}

/* The first word at *words, without the rest; moves behind it. */
static int next_word(const char **words, const char **word)
{
	size_t n = strcspn(*words, " ");

	*word = *words;
	*words += n + ((*words)[n] == ' ');
	return (int)n;
}

bool options_parse_number(const char *text, bool has_suffix, uint64_t *value)
{
	static const char suffixes[] = "kmgt";
	uint64_t n = 0;

	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return false;
	if (has_suffix && *text) {
		const char *suffix = strchr(suffixes, *text | 0x20);
		if (!suffix)
			return false;
		unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
		if (n > UINT64_MAX >> shift)
			return false;
		n <<= shift;
		text++;
		/* "64KiB" and "64kb" are sizes, too. */
		text += *text == 'i';
		text += *text == 'B' || *text == 'b';
	}
	*value = n;
	return *text == '\0';
}

static bool parse_switch(const char *text, uint64_t *value)
{
	static const char words[] = "0 1 no yes off on false true";
	int i = word_index(words, text);

	*value = (uint64_t)(i & 1);
	return i >= 0;
}

static bool parse(const struct option_row *row, const char *text)
{
	uint64_t value = 0;
	bool is_known = false;

	switch (row->type) {
	case OPTION_TEXT:
		if (strlen(text) >= OPTION_TEXT_BYTES)
			return false;
		strcpy(text_of(row), text);
		return true;
	case OPTION_LIST:
		is_known = true;
		value = *text != '\0';
		break;
	case OPTION_CHOICE:
		is_known = word_index(row->words, text) >= 0;
		value = is_known ? (uint64_t)word_index(row->words, text) : 0;
		break;
	case OPTION_SWITCH:
		is_known = parse_switch(text, &value);
		break;
	case OPTION_SIZE:
	case OPTION_COUNT:
		is_known = options_parse_number(text, row->type == OPTION_SIZE, &value) && value >= row->least &&
		           value <= row->most;
		break;
	}
	if (is_known)
		*number_of(row) = value;
	return is_known;
}

/* "256k", in the largest unit that leaves no rest. */
static const char *size_text(uint64_t value, char *out, size_t capacity)
{
	static const char units[][2] = {"", "k", "M", "G", "T"};
	unsigned unit = 0;
	char *at = out + capacity;

	while (value && value % 1024 == 0 && unit < 4) {
		value /= 1024;
		unit++;
	}
	*--at = '\0';
	if (unit)
		*--at = units[unit][0];
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	return at;
}

/* A value as it would be written in the environment. */
static const char *value_text(const struct option_row *row, uint64_t value, char *out, size_t capacity)
{
	const char *words = row->words, *word = "";

	if (row->type == OPTION_TEXT)
		return text_of(row);
	if (row->type == OPTION_LIST)
		return options_list(row->name);
	if (row->type == OPTION_SIZE)
		return size_text(value, out, capacity);
	if (row->type == OPTION_CHOICE) {
		int n = next_word(&words, &word);
		while (value-- > 0)
			n = next_word(&words, &word);
		memcpy(out, word, (size_t)n);
		out[n] = '\0';
		return out;
	}
	char *at = out + capacity;
	*--at = '\0';
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	return at;
}

#define VALUE_BYTES 32

/* What a value may be, for reports and the table. */
static void print_expected(const struct option_row *row, const char *before, const char *after)
{
	char least[VALUE_BYTES], most[VALUE_BYTES];

	switch (row->type) {
	case OPTION_SIZE:
	case OPTION_COUNT:
		report("%s%s to %s%s", before, value_text(row, row->least, least, sizeof(least)),
		       value_text(row, row->most, most, sizeof(most)), after);
		break;
	case OPTION_SWITCH:
		report("%s1 or 0, yes or no, on or off, true or false%s", before, after);
		break;
	case OPTION_CHOICE:
	case OPTION_TEXT:
	case OPTION_LIST:
		report("%s%s%s", before, row->words, after);
	}
}

#define LINE_BYTES 400

/* The pieces of a line, put together without stdio. */
static char *append(char *at, const char *end, const char *text)
{
	while (*text && at < end - 1)
		*at++ = *text++;
	*at = '\0';
	return at;
}

static void report_bad(const struct option_row *row, const char *text)
{
	char before[LINE_BYTES], after[LINE_BYTES], value[VALUE_BYTES];
	char *at = append(before, before + sizeof(before), OPTION_PREFIX);

	at = append(at, before + sizeof(before), row->name);
	at = append(at, before + sizeof(before), "=");
	at = append(at, before + 200, text);
	append(at, before + sizeof(before), ": not understood; expected ");
	at = append(after, after + sizeof(after), "; using ");
	append(at, after + sizeof(after), value_text(row, *number_of(row), value, sizeof(value)));
	print_expected(row, before, after);
}

static void read_one(const char *entry)
{
	const char *name = entry + sizeof(OPTION_PREFIX) - 1;
	size_t length = strcspn(name, "=");

	if (name[length] != '=')
		return;
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0) {
			if (!parse(&rows[i], name + length + 1))
				report_bad(&rows[i], name + length + 1);
			return;
		}
	report("%s: no such option; ignored (LIBREGION_HELP=1 lists them)", entry);
}

static bool is_ours(const char *entry)
{
	/* Unrolled, so that most programs need no page of strings. */
#pragma GCC unroll 16
	for (size_t i = 0; i < sizeof(OPTION_PREFIX) - 1; i++)
		if (entry[i] != OPTION_PREFIX[i])
			return false;
	return true;
}

static void read_environ(char **environment)
{
	for (; *environment; environment++)
		if (is_ours(*environment))
			read_one(*environment);
}

/* Before libc is set up. A window is enough: options past it are read by nobody, which is reported. */
static void read_proc(void)
{
	char window[32 << 10];
	size_t n = os_read_file("/proc/self/environ", window, sizeof(window) - 1);

	window[n] = '\0';
	for (char *entry = window; entry < window + n; entry += strlen(entry) + 1)
		if (is_ours(entry))
			read_one(entry);
	if (n == sizeof(window) - 1)
		report("the environment is longer than %zu bytes: options behind that aren't seen", n);
}

extern char **environ;

const char *options_list(const char *name)
{
	size_t length = strlen(name);

	for (char **entry = environ ? environ : options.environment; entry && *entry; entry++) {
		const char *own = *entry + sizeof(OPTION_PREFIX) - 1;
		if (is_ours(*entry) && strncmp(own, name, length) == 0 && own[length] == '=')
			return own + length + 1;
	}
	return "";
}

__attribute__((cold)) void options_read(void)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (rows[i].type != OPTION_TEXT)
			*number_of(&rows[i]) = rows[i].value;
	if (os_is_secure())
		return;
	if (environ || options.environment)
		read_environ(environ ? environ : options.environment);
	else
		read_proc();
}

static void print_value(const struct option_row *row)
{
	char value[VALUE_BYTES];
	uint64_t number = row->type == OPTION_TEXT ? 0 : *number_of(row);

	report("%s%s=%s", OPTION_PREFIX, row->name, value_text(row, number, value, sizeof(value)));
}

void options_print(bool with_help)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		print_value(&rows[i]);
		if (!with_help)
			continue;
		report("    %s", rows[i].help);
		print_expected(&rows[i], "    takes ", "");
	}
}
