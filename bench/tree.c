/*
 * tree.c: a parse tree of small nodes and strings is built, walked and dropped in an extent.
 *
 * The document is a list of events made beforehand, as a parser's tokens: how deep the next node
 * is and how long its text. Each node is one block of 40 bytes and its text another of 4 to 40,
 * most of them at most 13. The tree of a request has 500 nodes; the big one has 400,000, more
 * than caches hold. The walk reads every node and the end of every text, so that what is
 * measured includes how close to each other the blocks lie.
 *
 *   freed      nodes and texts are freed one by one, parents before children;
 *   wholesale  they are left to the end of the extent.
 * The unit is a block, that is half a node.
 */
#include "bench.h"
#include "ways.h"

#include <string.h>

#define MAX_DEPTH 24
#define MAX_TEXT 39
#define NODES_IN_A_PASS 1000

struct event {
	uint8_t depth; /* at most one more than that of the event before */
	uint8_t length;
};

struct node {
	struct node *parent, *child, *next;
	char *text;
	uint32_t kind, length;
};

struct document {
	size_t nodes, times; /* times in a pass */
	struct event *events;
	uint64_t checksum; /* what a walk must find */
};

static const char source[MAX_TEXT + 1] = "the text of a node is copied out of it.";

WAY_INLINE struct node *make_node(const struct way *way, const struct event *event)
{
	struct node *node = way->alloc(sizeof(*node));

	*node = (struct node){ .text = way->alloc(event->length + 1u), .length = event->length };
	memcpy(node->text, source, event->length);
	node->text[event->length] = '\0';
	return node;
}

/* Puts a node below the newest one of the depth above its own, after its siblings. */
WAY_INLINE void add_node(struct node *node, unsigned depth, struct node **newest)
{
	struct node *sibling = newest[depth];

	node->kind = depth;
	if (depth > 0)
		node->parent = newest[depth - 1];
	if (sibling && sibling->parent == node->parent)
		sibling->next = node;
	else if (node->parent)
		node->parent->child = node;
	newest[depth] = node;
}

WAY_INLINE struct node *build(const struct way *way, const struct document *document)
{
	struct node *newest[MAX_DEPTH] = {0};

	for (size_t i = 0; i < document->nodes; i++)
		add_node(make_node(way, &document->events[i]), document->events[i].depth, newest);
	return newest[0];
}

static const struct node *after_children(const struct node *node)
{
	while (node && !node->next)
		node = node->parent;
	return node ? node->next : NULL;
}

static uint64_t look_at(unsigned kind, unsigned length, char last)
{
	return kind * 1000003u + length * 257u + (unsigned char)last;
}

static uint64_t walk(const struct node *node)
{
	uint64_t sum = 0;

	while (node) {
		sum += look_at(node->kind, node->length, node->text[node->length - 1]);
		node = node->child ? node->child : after_children(node);
	}
	return sum;
}

/* A node waits on the stack with its siblings behind it: the stack is no deeper than the tree. */
WAY_INLINE void drop(const struct way *way, struct node *root)
{
	struct node *waiting[MAX_DEPTH + 1];
	size_t count = 0;

	waiting[count++] = root;
	while (count) {
		struct node *node = waiting[--count];
		if (node->next)
			waiting[count++] = node->next;
		if (node->child)
			waiting[count++] = node->child;
		way->release(node->text);
		way->release(node);
	}
}

WAY_INLINE void parse(const struct way *way, const struct document *document, bool frees)
{
	struct node *root = build(way, document);

	if (walk(root) != document->checksum)
		bench_fail("a tree was damaged");
	if (frees && way->release)
		drop(way, root);
}

#define DEFINE_PASS(way, kind, frees) \
	static void kind##_inside_##way(void *document) \
	{ \
		parse(&way_##way, document, frees); \
	} \
	static void kind##_##way(void *job, unsigned thread) \
	{ \
		(void)thread; \
		for (size_t i = 0; i < ((struct document *)job)->times; i++) \
			way_##way.extent(kind##_inside_##way, job); \
	}
#define DEFINE_PASSES(way) DEFINE_PASS(way, freed, true) DEFINE_PASS(way, wholesale, false)
WAYS(DEFINE_PASSES)

#define WAY_ENTRY(way) {&way_##way, freed_##way, wholesale_##way},
static const struct tree_way {
	const struct way *way;
	bench_pass *freed, *wholesale;
} passes[] = { WAYS(WAY_ENTRY) };

static const struct way *const tree_ways[] = { WAYS(WAY_ADDRESS) NULL };

static void make_document(struct document *document, size_t nodes)
{
	uint64_t random = 7;
	unsigned depth = 0;

	document->nodes = nodes;
	document->times = nodes < NODES_IN_A_PASS ? NODES_IN_A_PASS / nodes : 1;
	document->events = bench_array(nodes, sizeof(*document->events));
	for (size_t i = 0; i < nodes; i++) {
		struct event *event = &document->events[i];
		size_t longest = bench_between(&random, 0, 3) ? 12 : MAX_TEXT;
		event->depth = (uint8_t)depth;
		event->length = (uint8_t)bench_between(&random, 3, longest);
		document->checksum += look_at(event->depth, event->length, source[event->length - 1]);
		depth = (unsigned)bench_between(&random, 1, depth < MAX_DEPTH - 1 ? depth + 1 : depth);
	}
}

static void measure_kind(const struct way *way, const char *kind, bench_pass *pass,
                         struct document *document)
{
	bench_measure(&(struct bench_row){
		.way = way, .kind = kind, .n = document->nodes, .threads = 1,
		.units = 2.0 * (double)(document->nodes * document->times), .unit = "block",
	}, pass, document);
}

static void measure(size_t nodes)
{
	struct document document = {0};

	make_document(&document, bench_capped(nodes));
	for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++) {
		const struct way *way = passes[i].way;
		if (!bench_selected(way))
			continue;
		if (way->release)
			measure_kind(way, "freed", passes[i].freed, &document);
		if (way->wholesale)
			measure_kind(way, "wholesale", passes[i].wholesale, &document);
	}
	bench_array_free(document.events, document.nodes, sizeof(*document.events));
}

int main(int argc, char **argv)
{
	bench_start(argc, argv, "tree", tree_ways);
	measure(500);
	measure(400000);
	return 0;
}
