/*
 * demo.c: a service in miniature, with and without region scopes.
 *
 *     demo FILE PASSES free|drop
 *
 * FILE holds JSON documents, one a line; each is a request, and all are served PASSES times. To serve
 * a request is to parse the document into a tree, add up what each order in it is worth, note it in a
 * ledger that outlives the request, write a reply that grows by realloc(), and be rid of everything.
 *
 * Each request is a scope: region_do_with() around the handler is all that libregion asks for. The one
 * line that thinks of lifetimes is region_ignore() around the ledger. With `free` the handler frees its
 * tree and its reply one by one, as it would without scopes. With `drop` it leaves them to the end of
 * the scope, if it is in one.
 *
 * The program is linked without libregion (REGION_OPTIONAL): the same binary runs under every malloc,
 * where a scope is a plain call. It prints what it has found, which mustn't depend on any of this.
 */
#define _GNU_SOURCE
#define REGION_OPTIONAL
#include "region.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define LEDGER_BUCKETS 1024

struct customer {
	struct customer *next;
	char *name;
	uint64_t orders;
	uint64_t cents;
};

static struct service {
	struct customer *ledger[LEDGER_BUCKETS];
	uint64_t customers;
	uint64_t orders;
	uint64_t cents;
	uint64_t text_bytes; /* of all strings in all documents */
	uint64_t checksum;   /* of all replies */
	bool drops;
} service;

struct request {
	const char *document;
	struct customer *new_customer; /* what add_customer() makes, and from which name */
	const char *name;
};

/* A text that grows as it is written. */
struct text {
	char *bytes;
	size_t length, capacity;
};

static void die(const char *what)
{
	fprintf(stderr, "demo: %s\n", what);
	exit(1);
}

static uint64_t hash(uint64_t sum, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum = (sum ^ (unsigned char)bytes[i]) * 0x100000001b3u;
	return sum;
}

static __attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format,
                                                           ...)
{
	for (;;) {
		size_t room = text->capacity - text->length;
		va_list arguments;
		va_start(arguments, format);
		/* An empty text has no bytes to point at: vsnprintf() may have NULL then, plus no offset. */
		int length = vsnprintf(room ? text->bytes + text->length : NULL, room, format, arguments);
		va_end(arguments);
		if (length >= 0 && (size_t)length < room) {
			text->length += (size_t)length;
			return;
		}
		text->capacity = text->capacity * 3 / 2 + (size_t)length + 1;
		text->bytes = realloc(text->bytes, text->capacity);
		if (text->bytes == NULL)
			die("out of memory");
	}
}

/* Runs outside the scope of the request: a customer stays. */
static void add_customer(void *request_)
{
	struct request *request = request_;
	struct customer *customer = calloc(1, sizeof *customer);

	if (customer == NULL || (customer->name = strdup(request->name)) == NULL)
		die("out of memory");
	request->new_customer = customer;
	service.customers++;
}

static struct customer *find_customer(struct request *request, const char *name)
{
	struct customer **at =
		&service.ledger[hash(0xcbf29ce484222325u, name, strlen(name)) % LEDGER_BUCKETS];

	while (*at != NULL && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	if (*at == NULL) {
		request->name = name;
		region_ignore(add_customer, request);
		*at = request->new_customer;
	}
	return *at;
}

static double number_of(const struct json *object, const char *key)
{
	const struct json *member = json_member(object, key);

	return member != NULL && member->type == JSON_NUMBER ? member->number : 0;
}

static const char *text_of(const struct json *object, const char *key)
{
	const struct json *member = json_member(object, key);

	return member != NULL && member->type == JSON_STRING ? member->text : "";
}

static uint64_t text_bytes(const struct json *tree)
{
	uint64_t bytes = 0;

	for (; tree != NULL; tree = tree->next) {
		bytes += tree->text != NULL ? strlen(tree->text) : 0;
		bytes += text_bytes(tree->first);
	}
	return bytes;
}

/* What the lines of an order that are in stock are worth. */
static uint64_t order_cents(const struct json *order)
{
	const struct json *lines = json_member(order, "lines");
	uint64_t cents = 0;

	for (const struct json *line = lines ? lines->first : NULL; line != NULL; line = line->next) {
		const struct json *in_stock = json_member(line, "in_stock");
		if (in_stock != NULL && in_stock->boolean)
			cents += (uint64_t)(number_of(line, "quantity") * number_of(line, "cents"));
	}
	return cents;
}

static void answer_order(struct request *request, const struct json *order, struct text *reply)
{
	struct customer *customer = find_customer(request, text_of(order, "customer"));
	uint64_t cents = order_cents(order);

	customer->orders++;
	customer->cents += cents;
	service.orders++;
	service.cents += cents;
	text_add(reply, "order %.0f of %s: %" PRIu64 ", in all %" PRIu64 " for %" PRIu64 "\n",
	         number_of(order, "id"), customer->name, cents, customer->orders, customer->cents);
}

static void serve(void *request_)
{
	struct request *request = request_;
	struct text reply = {0};
	const char *error;
	size_t offset;
	struct json *tree = json_parse(request->document, &error, &offset);

	if (tree == NULL) {
		fprintf(stderr, "demo: at byte %zu of a document: %s\n", offset, error);
		exit(1);
	}
	const struct json *orders = json_member(tree, "orders");
	for (const struct json *order = orders ? orders->first : NULL; order; order = order->next)
		answer_order(request, order, &reply);
	service.text_bytes += text_bytes(tree);
	service.checksum = hash(service.checksum, reply.bytes, reply.length);

	if (service.drops && region_depth() > 0)
		return;
	json_free(tree);
	free(reply.bytes);
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char *bytes = NULL;
	size_t capacity = 0;

	if (file == NULL || getdelim(&bytes, &capacity, 0, file) < 0)
		die("can't read the documents");
	fclose(file);
	return bytes;
}

/* Ends each line with a zero byte; returns how many there are. */
static unsigned split_lines(char *bytes)
{
	unsigned lines = 0;

	for (char *end; (end = strchr(bytes, '\n')) != NULL; bytes = end + 1, lines++)
		*end = 0;
	return lines;
}

int main(int argc, char **argv)
{
	if (argc != 4 || (strcmp(argv[3], "free") != 0 && strcmp(argv[3], "drop") != 0))
		die("usage: demo FILE PASSES free|drop");
	service.drops = strcmp(argv[3], "drop") == 0;
	const struct region_options options = {
		.name = "request",
		.fade = service.drops ? REGION_FADE_NONE : REGION_FADE_UNFREED,
	};
	char *bytes = read_file(argv[1]);
	unsigned lines = split_lines(bytes), passes = (unsigned)strtoul(argv[2], NULL, 10);

	for (unsigned pass = 0; pass < passes; pass++) {
		struct request request = {.document = bytes};
		for (unsigned i = 0; i < lines; i++) {
			region_do_with(&options, serve, &request);
			request.document += strlen(request.document) + 1;
		}
	}
	printf("requests %u orders %" PRIu64 " cents %" PRIu64 " text %" PRIu64 " customers %" PRIu64
	       "\n",
	       lines * passes, service.orders, service.cents, service.text_bytes, service.customers);
	printf("checksum %016" PRIx64 "\n", service.checksum);
	free(bytes);
	return 0;
}
