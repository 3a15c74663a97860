/*
 * object.c: the life of regions as objects: records, the tree of children, reset and end, and questions.
 *
 * Records lie where libregion's own structures do, and are used again, oldest first, when RECORDS_KEPT
 * others have ended after them: so long a use of a region that has ended is told from a proper one.
 *
 * The lock guards the records, the links between parent and children, and what a shared region may get
 * from several threads: calls and strays. Nothing is called with it held.
 */
#include <errno.h>

#include "object.h"
#include "scopes.h"

#define RECORDS_KEPT 64

/* An id is the number of the region, and how often it was reset. */
#define ID_RESET_BITS 32

#define KEEP_BYTES_DEFAULT ((size_t)16 << 20)

static struct objects {
	struct lock lock;
	struct region_object *dead, *dead_last; /* oldest first */
	size_t dead_count;
	uint64_t last_number;
	uint64_t last_mark;
} objects;

struct lock *object_lock(void)
{
	return &objects.lock;
}

/* What has ended. */

static __attribute__((cold, noinline)) void report_ended(const struct region_object *region, const char *call)
{
	report_misuse("%s(%p): region \"%s\" has been %s", call, (const void *)region,
	              region->name ? region->name : "?", region->at.id == 0 ? "destroyed" : "released");
	errno = EINVAL;
}

static bool is_live(const struct region_object *region)
{
	return OBJECT_GET(region->at.id) != 0 && OBJECT_GET(region->state) != OBJECT_RELEASED;
}

struct region_object *object_own(struct region_object *region, const char *call)
{
	struct region_object *own = region->is_shared ? lane_of(region) : region;

	if (!is_live(region)) {
		report_ended(region, call);
		return NULL;
	}
	if (!own)
		errno = ENOMEM;
	else if (own->owner)
		lane_notice(own);
	return own;
}

struct region_object *object_whole(const struct region_object *region, const char *call)
{
	if (region->owner && is_live(region))
		region = region->owner;
	if (is_live(region))
		return (struct region_object *)region;
	report_ended(region, call);
	return NULL;
}

/* Records. */

static struct region_object *take_record(void)
{
	struct region_object *record = NULL;

	lock_acquire(&objects.lock);
	uint64_t number = ++objects.last_number;
	if (objects.dead_count > RECORDS_KEPT) {
		record = objects.dead;
		objects.dead = record->next;
		objects.dead_count--;
	}
	lock_release(&objects.lock);
	if (!record)
		record = range_meta_alloc(sizeof(*record));
	if (record)
		*record = (struct region_object){.number = number, .at.id = number << ID_RESET_BITS};
	return record;
}

/* The name stays, for reports. */
static void put_record(struct region_object *record)
{
	lock_acquire(&objects.lock);
	OBJECT_SET(record->at.id, 0);
	record->is_shared = false;
	record->owner = NULL;
	record->next = NULL;
	*(objects.dead ? &objects.dead_last->next : &objects.dead) = record;
	objects.dead_last = record;
	objects.dead_count++;
	lock_release(&objects.lock);
}

static void link_child(struct region_object *parent, struct region_object *child)
{
	lock_acquire(&objects.lock);
	child->parent = parent;
	child->next_sibling = parent->children;
	if (child->next_sibling)
		child->next_sibling->link = &child->next_sibling;
	child->link = &parent->children;
	parent->children = child;
	lock_release(&objects.lock);
}

static void unlink_locked(struct region_object *child)
{
	*child->link = child->next_sibling;
	if (child->next_sibling)
		child->next_sibling->link = child->link;
	if (child->parent->inner == child)
		child->parent->inner = NULL;
	child->parent = NULL;
}

static void unlink_child(struct region_object *child)
{
	lock_acquire(&objects.lock);
	if (child->parent)
		unlink_locked(child);
	lock_release(&objects.lock);
}

/* Setting up. */

static unsigned growth_of(unsigned given)
{
	return given == 0 ? 0 : given < 100 ? 100 : given > 1000 ? 1000 : given;
}

static void set_up(struct region_object *region, struct region_options given)
{
	given.name = given.name ? given.name : "region";
	given.fade = given.fade ? given.fade : REGION_FADE_NONE;
	policy_set(&region->policy, &given);
	region->policy.buffer_count = 1;
	region->name = given.name;
	region->limit_bytes = region->policy.limit_bytes;
	region->keep_bytes = given.keep_bytes ? given.keep_bytes : KEEP_BYTES_DEFAULT;
	region->next_bytes = (size_t)1 << region->policy.size_log2;
	region->growth = growth_of(given.growth);
	region->is_shared = given.shared != 0;
	region->within.region.policy = &region->policy;
	region->within.inner = &scope_no_record;
	region->within.is_lasting = true;
}

static struct counters *counters_of(const struct region_object *region)
{
	struct thread *thread = scope_thread(heap_self());

	return thread ? stats_of(thread, region->name) : NULL;
}

struct region_object *object_make(const struct region_options *given, unsigned cursor_version)
{
	struct region_object *region = scopes_start() ? take_record() : NULL;

	if (!region) {
		errno = ENOMEM;
		return NULL;
	}
	set_up(region, given ? *given : (struct region_options){0});
	region->has_inline = cursor_version - 1 < REGION_CURSOR_VERSION;
	return region;
}

void object_count_stray(const struct region_object *region, bool is_over_limit)
{
	struct counters *counters = counters_of(region);

	if (counters)
		stats_add(is_over_limit ? &counters->stats.heap_over_limit : &counters->stats.heap_no_buffer, 1);
}

static void count_begin(const struct region_object *region)
{
	struct counters *counters = heap_make() ? counters_of(region) : NULL;

	if (counters)
		stats_add(&counters->stats.scopes_entered, 1);
}

static void count_end(const struct region_object *region)
{
	struct counters *counters = counters_of(region);

	if (!counters)
		return;
	stats_add(&counters->stats.bytes_allocated, region->total_bytes);
	stats_add(&counters->stats.bytes_reclaimed, region->total_bytes);
	stats_max(&counters->stats.peak_bytes, region->held_bytes);
}

region_t *region_create_for(unsigned cursor_version, const struct region_options *given)
{
	struct region_object *parent = given ? given->parent : NULL, *region;

	if (parent && !(parent = object_whole(parent, "region_create")))
		return NULL;
	region = object_make(given, cursor_version);
	if (!region)
		return NULL;
	count_begin(region);
	if (parent)
		link_child(parent, region);
	if (given && given->buffer_count && !region->is_shared)
		extent_prepare(region, 1, given->buffer_count);
	return region;
}

/* The end of blocks. */

int region_on_end(region_t *given, void (*fn)(void *), void *arg)
{
	struct region_object *region = object_whole(given, "region_on_end");
	struct exit_call *call = region ? heap_alloc(sizeof(*call)) : NULL;

	if (!call) {
		errno = region ? ENOMEM : EINVAL;
		return -1;
	}
	lock_acquire(&objects.lock);
	*call = (struct exit_call){.fn = fn, .arg = arg, .next = region->calls};
	region->calls = call;
	lock_release(&objects.lock);
	return 0;
}

static bool pop_call(struct region_object *region, const struct exit_call *until, struct exit_call *call)
{
	struct exit_call *first;

	lock_acquire(&objects.lock);
	first = region->calls != until ? region->calls : NULL;
	if (first) {
		*call = *first;
		region->calls = call->next;
	}
	lock_release(&objects.lock);
	if (first)
		heap_free(first, "region_on_end");
	return first != NULL;
}

void object_run_calls(struct region_object *region, const struct exit_call *until)
{
	struct exit_call call;
	uint8_t before = region->state;

	/* The calls may use the region, but not end it. A shared one may be used by others meanwhile. */
	if (!region->is_shared)
		region->state = OBJECT_ENDING;
	while (pop_call(region, until, &call))
		call.fn(call.arg);
	if (!region->is_shared)
		region->state = before;
}

static void free_marks(struct region_object *region)
{
	for (struct mark *mark = region->marks, *older; mark; mark = older) {
		older = mark->older;
		heap_free(mark, "region_reset");
	}
	region->marks = NULL;
}

/* Takes a child out of the tree, or returns NULL. */
static struct region_object *take_child(struct region_object *parent)
{
	lock_acquire(&objects.lock);
	struct region_object *child = parent->children;
	if (child)
		unlink_locked(child);
	lock_release(&objects.lock);
	return child;
}

__attribute__((noinline)) void object_settle(struct region_object *region)
{
	struct region_object *child;

	while ((child = take_child(region)))
		object_destroy(child);
	object_run_calls(region, NULL);
	if (region->is_shared)
		return;
	within_reset(region);
	free_marks(region);
}

/* Is there anything that makes resetting it more than moving a cursor? */
static bool needs_look(const struct region_object *region)
{
	return region->children || region->calls || region->marks || region->within.region.buffers ||
	       region->within.thread || region->state != OBJECT_LIVE;
}

void object_reset(struct region_object *region, size_t keep_bytes)
{
	if (needs_look(region))
		object_settle(region);
	OBJECT_SET(region->at.id, region->at.id + 1);
	extent_reset(region, keep_bytes);
}

/* Is the region, a lane or a descendant of it open? */
static bool is_open(const struct region_object *region)
{
	if (within_is_open(region))
		return true;
	for (const struct region_object *lane = region->lanes; lane; lane = lane->next)
		if (within_is_open(lane))
			return true;
	for (const struct region_object *child = region->children; child; child = child->next_sibling)
		if (is_open(child))
			return true;
	return false;
}

static bool is_misused_open(const struct region_object *region, const char *call)
{
	/* The lock is for the tree. */
	bool has_others = region->is_shared || region->children;
	if (has_others)
		lock_acquire(&objects.lock);
	bool is_misused = is_open(region);
	if (has_others)
		lock_release(&objects.lock);
	if (!is_misused)
		return false;
	report_misuse("%s(%p): region \"%s\", or a child of it, is open in region_within()", call,
	              (const void *)region, region->name);
	errno = EINVAL;
	return true;
}

/* A call of region_on_end() must not end what it is called for. */
static bool is_misused_ending(const struct region_object *region, const char *call)
{
	if (region->state != OBJECT_ENDING)
		return false;
	report_misuse("%s(%p): region \"%s\" is just being reset", call, (const void *)region, region->name);
	errno = EINVAL;
	return true;
}

static bool is_misused_pooled(const struct region_object *region, const char *call)
{
	if (!region->pool)
		return false;
	report_misuse("%s(%p): region \"%s\" belongs to a pool, which it has to be released to", call,
	              (const void *)region, region->name);
	errno = EINVAL;
	return true;
}

bool object_may_be_reset(const struct region_object *region, const char *call)
{
	return !is_misused_open(region, call) && !is_misused_ending(region, call);
}

static bool may_end(const struct region_object *region, const char *call)
{
	return object_may_be_reset(region, call) && !is_misused_pooled(region, call);
}

void region_reset(region_t *given)
{
	struct region_object *region = object_whole(given, "region_reset");

	if (!region)
		return;
	if (region->is_shared)
		lanes_reset(region);
	else if (!needs_look(region) || object_may_be_reset(region, "region_reset"))
		object_reset(region, region->keep_bytes);
}

/* Gives all buffers back; what is left is a record. */
static void give_back(struct region_object *region)
{
	object_reset(region, 0);
	for (struct region_object *lane = region->lanes; lane; lane = lane->next) {
		/* In the child of a fork: it may have been copied in the middle of something. */
		if (OBJECT_GET(lane->heap->state) == HEAP_LOST)
			continue;
		object_reset(lane, 0);
		count_end(lane);
	}
	count_end(region);
	OBJECT_SET(region->state, OBJECT_RELEASED);
}

void object_destroy(struct region_object *region)
{
	if (region->state != OBJECT_RELEASED)
		give_back(region);
	unlink_child(region);
	for (struct region_object *lane = region->lanes, *next; lane; lane = next) {
		next = lane->next;
		put_record(lane);
	}
	put_record(region);
}

void region_release(region_t *given)
{
	struct region_object *region = object_whole(given, "region_release");

	if (region && may_end(region, "region_release"))
		give_back(region);
}

void region_destroy(region_t *given)
{
	struct region_object *region = given;

	if (!given)
		return;
	if (given->at.id == 0 || given->state != OBJECT_RELEASED)
		region = object_whole(given, "region_destroy");
	if (region && may_end(region, "region_destroy"))
		object_destroy(region);
}

/* Between two uses of a pool. */

void object_lay_aside(struct region_object *region)
{
	region->state = OBJECT_RELEASED;
	OBJECT_SET(region->at.limit, NULL);
}

void object_revive(struct region_object *region, size_t bytes)
{
	region->state = OBJECT_LIVE;
	extent_revive(region, bytes);
}

/* Marks. */

region_mark_t region_mark(region_t *given)
{
	struct region_object *region = object_whole(given, "region_mark");
	struct mark *mark;

	if (!region || !object_may_be_reset(region, "region_mark"))
		return (region_mark_t){0};
	if (region->is_shared) {
		report_misuse("region_mark(%p): region \"%s\" is shared", (void *)given, region->name);
		errno = EINVAL;
		return (region_mark_t){0};
	}
	mark = heap_alloc(sizeof(*mark));
	if (!mark) {
		errno = ENOMEM;
		return (region_mark_t){0};
	}
	extent_mark(region, mark);
	within_mark(region, mark);
	mark->calls = region->calls;
	mark->serial = __atomic_add_fetch(&objects.last_mark, 1, __ATOMIC_RELAXED);
	mark->older = region->marks;
	region->marks = mark;
	return (region_mark_t){mark->serial};
}

static const struct mark *find_mark(const struct region_object *region, uint64_t serial)
{
	const struct mark *mark = region->marks;

	while (mark && mark->serial > serial)
		mark = mark->older;
	return mark && mark->serial == serial ? mark : NULL;
}

static void rewind_last(struct region_object *region)
{
	struct mark *mark = region->marks;

	object_note_peak(region);
	region->marks = mark->older;
	within_rewind(region, mark);
	extent_rewind(region, mark);
	heap_free(mark, "region_rewind");
}

void region_rewind(region_t *given, region_mark_t to)
{
	struct region_object *region = object_whole(given, "region_rewind");

	if (!region || !object_may_be_reset(region, "region_rewind"))
		return;
	const struct mark *mark = find_mark(region, to.serial);
	if (!mark) {
		report_misuse("region_rewind(%p): no mark of region \"%s\", or none any more", (void *)given,
		              region->name);
		errno = EINVAL;
		return;
	}
	/* All of them before anything goes: one may look at what came after a later mark. */
	if (region->calls != mark->calls)
		object_run_calls(region, mark->calls);
	while (region->marks && region->marks->serial >= to.serial)
		rewind_last(region);
}

/* Questions. */

static size_t held_of(const struct region_object *region)
{
	return OBJECT_GET(region->held_bytes) + within_held(region);
}

static size_t len_of(const struct region_object *region)
{
	return object_len(region) + within_len(region);
}

static size_t ask(const region_t *given, const char *call, size_t (*fn)(const struct region_object *))
{
	const struct region_object *region = object_whole(given, call);

	return region ? fn(region) + lanes_sum(region, fn) : 0;
}

size_t region_len(const region_t *region)
{
	return ask(region, "region_len", len_of);
}

size_t region_cap(const region_t *region)
{
	return ask(region, "region_cap", held_of);
}

size_t region_peak(const region_t *region)
{
	return ask(region, "region_peak", object_peak);
}

/* The region, as a whole, whose memory p points into, or NULL. */
static const struct region_object *object_at(const void *p)
{
	const struct span *span = range_has(p) ? span_of(p) : &range.spans[0];
	const struct region_object *region = NULL;
	const struct scope *scope = (const struct scope *)span_region(span);

	if (span_kind(span) == SPAN_BARE)
		region = bare_owner(span);
	else if (span_kind(span) == SPAN_BUFFER && scope && scope->is_lasting)
		region = (const struct region_object *)((const char *)scope - offsetof(struct region_object, within));
	return region && region->owner ? region->owner : region;
}

int region_contains(const region_t *given, const void *p)
{
	const struct region_object *region = object_whole(given, "region_contains");

	return region && object_at(p) == region;
}
