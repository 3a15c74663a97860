/*
 * advise.c: sampling: when it is on, when a sample is due, what is noted of it and of its end. See
 * advise.h.
 *
 * A sample is due after a number of bytes that is drawn anew each time, exponentially distributed: then
 * each byte is as likely to be met as any other, whatever the program's rhythm. The mean is the thread's
 * own and goes up or down such that samples cost about 0.6 % of the thread's time, once 6 ms have been
 * spent.
 */
#include "advise.h"

#include <signal.h>
#include <string.h>

#include "scopes.h"
#include "site.h"

#define FIRST_MEAN_BYTES ((size_t)1 << 10)
#define MEAN_MIN_BYTES ((size_t)512)
#define MEAN_MAX_BYTES ((size_t)1 << 30)
#define SAMPLES_BETWEEN_LOOKS 16u
#define COST_SHARE 160u            /* one part in so many of the thread's time */
#define COST_BURST_NS 6000000u
#define COST_MAX_NS 50000u         /* of taking one sample: more is time that others had */
#define COST_OF_END_NS 6000u       /* of its end, and of the span that it lies in */
#define COST_OF_FRAME_NS 400u      /* of the return of a hooked frame */
#define SAMPLES_AT_ONCE 64
#define LIVE_FEW 2048.0

struct advise advise;

struct lock *advise_lock(void)
{
	return &advise.lock;
}

/* On and off. */

__attribute__((cold)) size_t advise_inline_granules(void)
{
	return __atomic_load_n(&advise.is_on, __ATOMIC_RELAXED) ? HEAP_SAMPLED : harden_inline_granules();
}

/* The fast way out of a site's call would end sampling on the thread. */
static void slow_slots_down(struct thread *thread)
{
	struct slot *ready = thread->ready_slot, *open = thread->open_slot;

	if (ready)
		ready->lone_number = SLOT_NOT_LONE;
	if (open && open != &slots.none)
		open->lone_number = SLOT_NOT_LONE;
}

/*
 * Also for threads that run: what they may just be changing is what they set, too, when they enter or
 * leave a scope, and in between only decides which way serves.
 */
static void set_mode(bool is_on)
{
	__atomic_store_n(&advise.is_on, is_on, __ATOMIC_RELAXED);
	size_t granules = advise_inline_granules();

	for (struct heap *heap = heap_all(); heap; heap = heap->next_heap) {
		struct thread *thread = heap->upper;
		if (!thread)
			continue;
		thread->base.inline_granules = granules;
		slow_slots_down(thread);
		if (heap->state == HEAP_LIVE && heap->bump_granules == 0)
			__atomic_store_n(&heap->inline_granules, granules & HEAP_DIRECT_GRANULES,
			                 __ATOMIC_RELAXED);
	}
}

static void note_end(void)
{
	struct advise_header *header = advise_header();

	if (header)
		header->end_ns = os_clock_ns();
}

static void toggle(int number)
{
	(void)number;
	if (advise.is_on)
		note_end();
	set_mode(!advise.is_on);
}

/* A signal that the program has a handler for already isn't ours; but this early none has. */
static void listen_to_signal(void)
{
	struct sigaction action = {.sa_handler = toggle, .sa_flags = SA_RESTART};

	sigfillset(&action.sa_mask);
	if (sigaction((int)options.advise_signal, &action, NULL) != 0)
		report("LIBREGION_ADVISE_SIGNAL=%d: there can be no handler for it; sampling doesn't start",
		       (int)options.advise_signal);
}

static void sample_is_freed(void *sample, const char *call);

__attribute__((cold)) void scopes_start_advice(void)
{
	if (!options.advise[0])
		return;
	if (options.disable || !scope_top(heap_self())) {
		report("LIBREGION_ADVISE: scopes are disabled; nothing is sampled");
		return;
	}
	if (harden_inline_granules() != HEAP_DIRECT_GRANULES) {
		report("LIBREGION_ADVISE: not together with LIBREGION_HARDEN; nothing is sampled");
		return;
	}
	if (!site_start_slots()) {
		report("LIBREGION_ADVISE: the processor has no XSAVE; nothing is sampled");
		return;
	}
	big_set_sample_hook(sample_is_freed);
	advise.is_ready = true;
	if (options.advise_signal)
		listen_to_signal();
	else
		set_mode(true);
}

/* The process ends by exit. */
__attribute__((cold)) void advise_finish(void)
{
	struct thread *thread = scope_thread(heap_self());

	/* In a handler that has interrupted sampling? Then the file is as good as after a crash. */
	if (!advise_header() || (thread && thread->sampler && thread->sampler->is_busy))
		return;
	set_mode(false);
	lock_acquire(&advise.lock);
	if (thread && thread->sampler)
		advise_write_ends(thread->sampler);
	advise_header()->cpu_ns = os_process_cpu_ns();
	note_end();
	lock_release(&advise.lock);
}

/* When a sample is due. */

static uint64_t random_of(struct advise_thread *sampler)
{
	uint64_t x = sampler->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	sampler->random = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* -ln(u) for u evenly distributed over (0, 1]. */
static double exponential(struct advise_thread *sampler)
{
	uint64_t bits = (random_of(sampler) >> 11) + 1;
	int log2 = 63 - __builtin_clzl(bits);
	/* bits = m * 2^log2, and ln(m) = 2 artanh((m - 1) / (m + 1)), with m in [1, 2). */
	double m = (double)bits / (double)((uint64_t)1 << log2), z = (m - 1) / (m + 1), z2 = z * z;
	double ln_m = 2 * z * (1 + z2 * (1.0 / 3 + z2 * (1.0 / 5 + z2 * (1.0 / 7 + z2 * (1.0 / 9 + z2 / 11)))));

	return (53 - log2) * 0.6931471805599453 - ln_m;
}

static void draw_gap(struct heap *heap, struct advise_thread *sampler)
{
	heap->sample_gap = (size_t)(exponential(sampler) * (double)sampler->mean_bytes) + 1;
	heap->sample_left = heap->sample_gap;
}

static bool begin_thread(struct thread *thread)
{
	struct advise_thread *sampler = thread->sampler;

	if (!sampler)
		thread->sampler = sampler = range_meta_alloc(sizeof(*sampler));
	if (!sampler)
		return false;
	uint64_t number = __atomic_add_fetch(&advise.threads, 1, __ATOMIC_RELAXED);
	sampler->random = number * UINT64_C(0x9e3779b97f4a7c15);
	sampler->mean_bytes = options.advise_mean_bytes ? options.advise_mean_bytes : FIRST_MEAN_BYTES;
	sampler->start_cpu_ns = os_thread_cpu_ns();
	sampler->start_bytes = thread->heap->sample_bytes;
	sampler->cost_ns = 0;
	sampler->hooked = 0;
	sampler->thread_id = os_thread_id();
	sampler->samples = 0;
	draw_gap(thread->heap, sampler);
	return true;
}

/* Each sample that lives takes a page: where few are freed, there must be fewer the more there are. */
static double least_mean_bytes(void)
{
	double live = (double)__atomic_load_n(&advise.live, __ATOMIC_RELAXED) / LIVE_FEW;

	return (double)MEAN_MIN_BYTES * (1 + live * live);
}

/*
 * Once the burst is spent, samples are to cost their share of the time in which their bytes are allocated.
 */
static void adapt(const struct heap *heap, struct advise_thread *sampler)
{
	uint64_t cpu_ns = os_thread_cpu_ns() - sampler->start_cpu_ns;
	double mean_bytes = (double)FIRST_MEAN_BYTES, least = least_mean_bytes();

	if (options.advise_mean_bytes)
		return;
	if (sampler->cost_ns >= COST_BURST_NS && cpu_ns > 0) {
		double bytes_of_ns = (double)(heap->sample_bytes - sampler->start_bytes) / (double)cpu_ns;
		double ns_of_sample = (double)sampler->cost_ns / sampler->samples;
		mean_bytes = bytes_of_ns * ns_of_sample * COST_SHARE;
	}
	mean_bytes = mean_bytes < least ? least : mean_bytes;
	sampler->mean_bytes = mean_bytes < (double)MEAN_MAX_BYTES ? (size_t)mean_bytes : MEAN_MAX_BYTES;
}

static void note_cost(const struct heap *heap, struct advise_thread *sampler, uint64_t start_ns)
{
	struct advise_header *header = advise_header();
	uint64_t now_ns = os_clock_ns(), cost_ns = now_ns - start_ns;

	sampler->cost_ns += (cost_ns < COST_MAX_NS ? cost_ns : COST_MAX_NS) + COST_OF_END_NS +
	                    sampler->hooked * COST_OF_FRAME_NS;
	sampler->hooked = 0;
	if (++sampler->samples % SAMPLES_BETWEEN_LOOKS)
		return;
	adapt(heap, sampler);
	if (header)
		header->cpu_ns = os_process_cpu_ns();
}

/* Samples. */

static struct advise_sample *take_record(void)
{
	if (!advise.spare_samples) {
		struct advise_sample *samples = range_meta_alloc(SAMPLES_AT_ONCE * sizeof(*samples));
		for (unsigned i = 0; samples && i < SAMPLES_AT_ONCE; i++) {
			samples[i].next = advise.spare_samples;
			advise.spare_samples = &samples[i];
		}
	}
	struct advise_sample *sample = advise.spare_samples;
	if (sample) {
		advise.spare_samples = sample->next;
		advise.live++;
	}
	return sample;
}

static void drop_record(struct advise_sample *sample)
{
	sample->next = advise.spare_samples;
	advise.spare_samples = sample;
	advise.live--;
}

static void write_sample(const struct thread *thread, const struct advise_sample *sample, uintptr_t pc,
                         size_t size, size_t mean_bytes)
{
	struct advise_header *header = advise_header();
	const struct heap *heap = thread->heap;

	if (pc)
		advise_note_module(pc);
	struct advise_sample_record *record = advise_record(ADVISE_SAMPLE, sizeof(*record));
	if (!record)
		return;
	record->number = sample->number;
	record->frame = sample->frame ? sample->frame->number : 0;
	record->pc = pc;
	record->size = size;
	record->mean_bytes = mean_bytes;
	record->blocks = heap->sample_blocks;
	record->bytes = heap->sample_bytes;
	record->ns = header->last_ns = os_clock_ns();
	record->thread = (uint32_t)sample->thread;
	header->samples++;
	header->stackless += !sample->frame;
	advise_record_done();
}

/* All that is noted of a sample; NULL: there is no room for it. Under the lock. */
static struct advise_sample *note_sample(struct thread *thread, size_t size, size_t mean_bytes)
{
	struct advise_sample *sample = advise_open() && !advise.is_full ? take_record() : NULL;
	uintptr_t pc = 0;

	if (!sample)
		return NULL;
	advise_write_ends(thread->sampler);
	*sample = (struct advise_sample){
		.frame = advise_take_stack(thread, &pc),
		.number = ++advise.samples,
		.generation = advise.generation,
		.thread = thread->sampler->thread_id,
	};
	if (sample->frame)
		sample->frame->references++;
	write_sample(thread, sample, pc, size, mean_bytes);
	return sample;
}

/* A small block looks like one of its size class to whoever asks for its size. */
static void *alloc_alone(struct heap *heap, size_t size, size_t align)
{
	void *p = big_alloc(heap, size, align);

	if (p && size <= CLASS_MAX_BYTES && align <= GRANULE_BYTES)
		span_of(p)->bytes = class_bytes(class_of(size));
	return p;
}

static __attribute__((noinline)) void *take_sample(struct thread *thread, size_t size, size_t align,
                                                   size_t mean_bytes)
{
	struct advise_thread *sampler = thread->sampler;
	uint64_t start_ns = os_clock_ns();
	void *p = alloc_alone(thread->heap, size, align);

	if (!p)
		return NULL;
	sampler->is_busy = true;
	lock_acquire(&advise.lock);
	span_of(p)->sample = note_sample(thread, size, mean_bytes);
	if (advise.is_full || !advise_header())
		set_mode(false);
	lock_release(&advise.lock);
	note_cost(thread->heap, sampler, start_ns);
	sampler->is_busy = false;
	return p;
}

void *advise_alloc(struct thread *thread, size_t size, size_t align)
{
	struct heap *heap = thread->heap;

	/* Blocks of no bytes stay what they are. */
	if (size == 0 || !advise.is_ready || heap->bump_granules != 0)
		return NULL;
	if (heap->sample_left == 0 && !begin_thread(thread))
		return NULL;
	if (size < heap->sample_left) {
		heap_count_skipped(heap, size);
		return NULL;
	}
	struct advise_thread *sampler = thread->sampler;
	size_t mean_bytes = sampler->mean_bytes;
	heap->sample_blocks++;
	heap->sample_bytes += heap->sample_gap - heap->sample_left + size;
	draw_gap(heap, sampler);
	return sampler->is_busy || sampler->is_ending ? NULL : take_sample(thread, size, align, mean_bytes);
}

/* The innermost frame of a sample that hasn't ended. */
static const struct advise_frame *innermost_open(const struct advise_sample *sample)
{
	const struct advise_frame *frame = sample->frame;

	while (frame && __atomic_load_n(&frame->has_ended, __ATOMIC_ACQUIRE))
		frame = frame->outer;
	return frame;
}

static void write_free(const struct thread *thread, const struct advise_sample *sample, const char *call)
{
	const struct advise_frame *frame = innermost_open(sample);
	struct advise_free_record *record = advise_record(ADVISE_FREE, sizeof(*record));

	if (!record)
		return;
	record->sample = sample->number;
	record->frame = frame ? frame->number : 0;
	record->ns = os_clock_ns();
	record->thread = (uint32_t)(thread ? thread->sampler->thread_id : os_thread_id());
	record->flags = (strcmp(call, "realloc") == 0 ? ADVISE_BY_REALLOC : 0);
	if (thread && record->thread == (uint32_t)sample->thread) {
		record->blocks = thread->heap->sample_blocks;
		record->bytes = advise_bytes(thread->heap);
	} else {
		record->flags |= ADVISE_OTHER_THREAD;
	}
	advise_record_done();
}

static void end_sample(const struct thread *thread, struct advise_sample *sample, const char *call)
{
	lock_acquire(&advise.lock);
	if (sample->generation == advise.generation) {
		write_free(thread, sample, call);
		advise_drop_frame(sample->frame);
	}
	drop_record(sample);
	lock_release(&advise.lock);
}

static void sample_is_freed(void *sample, const char *call)
{
	struct thread *thread = scope_thread(heap_self());
	struct advise_thread *sampler = thread ? thread->sampler : NULL;

	if (!sampler) {
		end_sample(NULL, sample, call);
		return;
	}
	if (sampler->is_busy)
		return;
	sampler->is_busy = true;
	if (!sampler->is_ending && scope_is_own_stack(thread, scope_here())) {
		advise_end_frames(thread, scope_here());
		slot_sweep(thread, scope_here(), false);
	}
	end_sample(thread, sample, call);
	sampler->is_busy = false;
}

/* Threads and processes. */

__attribute__((cold)) void advise_thread_ends(struct thread *thread)
{
	struct advise_thread *sampler = thread->sampler;

	if (!sampler)
		return;
	slot_unwatch(thread, scope_here());
	slot_give_back(thread->watch_free);
	thread->watch_free = NULL;
	advise_end_frames(thread, UINTPTR_MAX);
	lock_acquire(&advise.lock);
	advise_write_ends(sampler);
	lock_release(&advise.lock);
	thread->heap->sample_left = 0;
}

void advise_before_longjmp(struct thread *thread, uintptr_t sp)
{
	struct advise_thread *sampler = thread->sampler;

	if (!sampler || sampler->is_busy || !scope_is_own_stack(thread, sp))
		return;
	sampler->is_ending = true;
	advise_end_frames(thread, sp);
	slot_sweep(thread, sp, true);
	sampler->is_ending = false;
}

void advise_after_fork_in_child(void)
{
	struct thread *thread = scope_thread(heap_self());
	struct advise_thread *sampler = thread ? thread->sampler : NULL;

	if (!advise.is_ready)
		return;
	advise.generation++;
	advise_abandon();
	if (sampler) {
		slot_unwatch(thread, scope_here());
		sampler->thread_id = os_thread_id();
		thread->watch_free = NULL; /* they go back to the pool with all that nobody owns */
		sampler->top = sampler->ended = NULL;
	}
	if (!strstr(options.advise, "%p")) {
		advise.is_ready = false;
		set_mode(false);
	}
}
