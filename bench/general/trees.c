/*
 * trees.c: binary trees, after H. Boehm's GCBench and the benchmarks game: many short-lived trees
 * of all depths beside one that lives long. Nodes are of one size, are freed in another order than
 * they came in, and are walked in between, so that it shows where the allocator has put them.
 */
#include "workloads.h"

#include <stdlib.h>

enum { DEPTH_MIN = 4, DEPTH_MAX = 16 };

struct node {
	struct node *left, *right;
	size_t depth;
};

static struct node *grow(unsigned depth)
{
	struct node *node = malloc(sizeof(*node));

	if (!node)
		bench_fail("out of memory");
	*node = (struct node){ .depth = depth };
	if (depth > 0) {
		node->left = grow(depth - 1);
		node->right = grow(depth - 1);
	}
	return node;
}

static size_t count(const struct node *node)
{
	return node ? 1 + count(node->left) + count(node->right) : 0;
}

static void fell(struct node *node)
{
	if (!node)
		return;
	fell(node->left);
	fell(node->right);
	free(node);
}

static void grow_and_fell(unsigned depth, size_t times)
{
	for (size_t i = 0; i < times; i++) {
		struct node *tree = grow(depth);

		if (count(tree) != ((size_t)2 << depth) - 1)
			bench_fail("a tree has lost nodes");
		fell(tree);
	}
}

static void run(void)
{
	struct node *old = grow(DEPTH_MAX);

	for (unsigned depth = DEPTH_MIN; depth <= DEPTH_MAX; depth += 2)
		grow_and_fell(depth, general_times(((size_t)1 << (DEPTH_MAX - depth)) * 3));
	fell(old);
}

const struct workload workload_trees = {
	.name = "trees", .about = "binary trees of all depths", .threads = 1, .run = run,
};
