/*
 * policy.c: how a scope is run: the process's options, what the program asks for, and which of the two
 * has the last word.
 */
#include "scope.h"

struct policies policies;

/* A hole of a buffer holds the largest block even after alignment to its size. */
static void fit_max_block(struct policy *policy)
{
	size_t most = ((size_t)1 << policy->size_log2) / 2 - GRANULE_BYTES;

	if (policy->max_block_bytes > most)
		policy->max_block_bytes = most;
}

/* An operator's word is over the program's. */
static enum region_fade fade_of(enum region_fade asked)
{
	return options.fade != REGION_FADE_DEFAULT ? (enum region_fade)options.fade : asked;
}

__attribute__((cold)) void policy_start(void)
{
	policies.by_default = (struct policy){
		.name = "scope",
		.fade = fade_of(REGION_FADE_REACHABLE),
		.size_log2 = buffer_size_log2(options.buffer_bytes),
		.buffer_count = options.buffer_count,
		.limit_bytes = options.limit_bytes ? options.limit_bytes : SIZE_MAX,
		.max_block_bytes = options.max_block_bytes,
	};
	fit_max_block(&policies.by_default);
}

void policy_set(struct policy *policy, const struct region_options *given)
{
	*policy = policies.by_default;
	if (!given)
		return;
	if (given->name)
		policy->name = given->name;
	if (given->fade != REGION_FADE_DEFAULT)
		policy->fade = fade_of(given->fade);
	if (given->buffer_count)
		policy->buffer_count = given->buffer_count;
	if (given->limit_bytes)
		policy->limit_bytes = given->limit_bytes;
	if (given->buffer_size) {
		policy->size_log2 = buffer_size_log2(given->buffer_size);
		policy->max_block_bytes = options.max_block_bytes;
		fit_max_block(policy);
	}
}
