/*
 * functions.c: the functions of a module, and the verdict on each.
 *
 * They come from the symbols that the library would use, in its order. A module without .symtab (stripped)
 * tells the rest by its table for unwinders: where functions begin, without names. Parts of functions
 * that the compiler has moved elsewhere (.cold) are in that table as well; they aren't called, which shows by
 * how they find their caller.
 */
#include <stdlib.h>
#include <string.h>

#include "sites.h"

struct collection {
	struct image *image;
	size_t capacity;
};

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static void add(struct collection *to, struct function function)
{
	struct image *image = to->image;

	if (image->count == to->capacity) {
		to->capacity = 2 * to->capacity + 256;
		image->functions =
			must(realloc(image->functions, to->capacity * sizeof(*image->functions)));
	}
	image->functions[image->count++] = function;
}

static void add_symbol(void *context, const struct elf_function *symbol)
{
	add(context, (struct function){.name = must(strdup(symbol->name)),
	                               .value = symbol->value,
	                               .bytes = symbol->bytes,
	                               .is_indirect = symbol->is_indirect});
}

static int by_value(const void *a, const void *b)
{
	const struct function *x = a, *y = b;

	if (x->value != y->value)
		return x->value < y->value ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
	const struct function *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : by_value(a, b);
}

static bool has_function_at(const struct image *image, size_t count, uintptr_t value)
{
	size_t lo = 0, hi = count;

	while (lo < hi) {
		size_t middle = lo + (hi - lo) / 2;
		if (image->functions[middle].value == value)
			return true;
		if (image->functions[middle].value < value)
			lo = middle + 1;
		else
			hi = middle;
	}
	return false;
}

/* Backwards through the table. The functions with symbols are sorted by address. */
static void add_unnamed(struct collection *to, const struct elf_text *text)
{
	struct image *image = to->image;
	size_t named = image->count;
	uintptr_t end = text->hi, start;

	while (end > text->lo && (start = elf_function_start(&image->module, end - 1)) >= text->lo) {
		uintptr_t value = start - image->module.bias;
		if (!has_function_at(image, named, value) && !image_is_glue(image, value))
			add(to, (struct function){.name = must(strdup("")), .value = value});
		end = start;
	}
}

/* A symbol may be in several tables, with a version in some. */
static void drop_duplicates(struct image *image)
{
	size_t kept = 0;

	for (size_t i = 0; i < image->count; i++) {
		struct function *function = &image->functions[i];
		struct function *last = kept ? &image->functions[kept - 1] : NULL;
		if (last && last->value == function->value && strcmp(last->name, function->name) == 0)
			free(function->name);
		else
			image->functions[kept++] = *function;
	}
	image->count = kept;
}

static void collect(struct image *image)
{
	struct collection all = {.image = image};

	for (enum elf_source source = 0; source < ELF_SOURCES && !image->has_all; source++)
		image->has_all =
			elf_each_function(&image->module, source, add_symbol, &all) && source != ELF_DYNSYM;
	qsort(image->functions, image->count, sizeof(struct function), by_value);
	drop_duplicates(image);
	for (unsigned i = 0; i < image->module.text_count && !image->has_all; i++)
		add_unnamed(&all, &image->module.texts[i]);
}

/* --- verdicts --- */

/* What code_plan() wants to know of a module: all its functions, as it finds them itself. */
static void each_function(void *context, elf_visitor *visitor, void *visitor_context)
{
	const struct image *image = context;

	for (size_t i = 0; i < image->count; i++) {
		const struct function *function = &image->functions[i];
		if (function->name[0])
			visitor(visitor_context, &(struct elf_function){.name = function->name,
			                                                .value = function->value,
			                                                .bytes = function->bytes});
	}
}

static const char *why_not_by_kind(struct image *image, const struct function *function)
{
	if (function->is_indirect)
		return "the loader chooses among several functions for it (IFUNC)";
	if (function->value == image_entry(image) && !function->name[0])
		return site_why_not_by_name("_start");
	if (!function->name[0])
		return source_why_not_called(image, function->value);
	return site_why_not_by_name(function->name);
}

static struct code_plan plan_of(const struct image *image, const struct function *function)
{
	return (struct code_plan){
		.at = image->module.bias + function->value,
		.bytes = function->bytes,
	};
}

static void take_verdict(struct function *function, const struct code_plan *plan)
{
	function->refusal = plan->way == CODE_REFUSED ? plan->refusal : NULL;
	function->way = plan->way;
}

/*
 * All at once first, which takes one scan of the text; then those alone that were refused: they may only have
 * had to share padding with others.
 */
static void plan_all(struct image *image)
{
	struct code_plan *plans = must(calloc(image->count + 1, sizeof(*plans)));
	size_t count = 0, next = 0;

	for (size_t i = 0; i < image->count; i++)
		if (!image->functions[i].refusal &&
		    (i == 0 || image->functions[i].value != image->functions[i - 1].value))
			plans[count++] = plan_of(image, &image->functions[i]);
	code_plan(&image->module, plans, count, each_function, image);
	for (size_t i = 0; i < image->count; i++) {
		struct function *function = &image->functions[i];
		if (function->refusal)
			continue;
		while (next + 1 < count && plans[next].at < image->module.bias + function->value)
			next++;
		if (plans[next].way == CODE_REFUSED) {
			plans[next] = plan_of(image, function);
			code_plan(&image->module, &plans[next], 1, each_function, image);
		}
		take_verdict(function, &plans[next]);
	}
	free(plans);
}

static void judge(struct image *image)
{
	const char *why_none = site_why_not_in(&image->module);

	if (!why_none && strncmp(image->module.name, "libregion.so", 12) == 0)
		why_none = "it is libregion's own";
	for (size_t i = 0; i < image->count; i++)
		image->functions[i].refusal =
			why_none ? why_none : why_not_by_kind(image, &image->functions[i]);
	if (!why_none)
		plan_all(image);
}

void functions_find(struct image *image)
{
	collect(image);
	qsort(image->functions, image->count, sizeof(struct function), by_value);
	judge(image);
	qsort(image->functions, image->count, sizeof(struct function), by_name);
	for (size_t i = 0; i < image->count; i++) {
		struct function *function = &image->functions[i];
		bool is_like_last = i > 0 && strcmp(function->name, function[-1].name) == 0;
		bool is_like_next = i + 1 < image->count && strcmp(function->name, function[1].name) == 0;
		function->is_namesake = is_like_last || is_like_next;
		function->display = source_demangled(function->name);
	}
}

void functions_free(struct image *image)
{
	for (size_t i = 0; i < image->count; i++)
		free(image->functions[i].name);
	free(image->functions);
}

size_t functions_usable(const struct request *request, const struct image *image)
{
	size_t count = 0;

	for (size_t i = 0; i < image->count; i++)
		count +=
			!image->functions[i].refusal && request_wants(request, image, &image->functions[i]);
	return count;
}
