/*
 * advise.h: sampling of allocations, for advice on which functions would make good sites. Private to
 * scopes/.
 *
 *     advise_file.h    what the file says that comes of it; read that first
 *     advise.c         start and stop, when a sample is due, what is done when its block is freed
 *     advise_stack.c   which calls are on the stack, and when they return
 *     advise_write.c   the file
 *     slot_watch.c     how a return is seen
 *
 * While sampling is off it costs nothing: no allocation and no free looks whether it is on. While it is
 * on, nothing is served inline outside of scopes (HEAP_SAMPLED), so that malloc's slow half sees every
 * allocation and can count down to the next sample. A sample's block has a span of its own, however small
 * it is: so free() comes to big_free() with it, which is where it is noticed, and every other free is as
 * ever.
 *
 * Stacks are taken by the unwinder of libgcc, which is linked into the library: it takes no lock (the C
 * library finds the tables, _dl_find_object) and does not allocate, and costs a quarter of what libunwind
 * does; and that would have to be loaded, for which there is no moment before main() that is late enough
 * for libc. Only frames that no sample has met before are unwound: where the return of a frame is hooked,
 * what is further out is known.
 *
 * A thread's frames under way are a list, innermost first, of which only the thread changes anything. A
 * frame ends by its return (exactly), by an unwinder that passes it or a longjmp (exactly), or, where that
 * was missed, when the thread next comes by with its stack pointer above. That takes no lock and can be
 * interrupted by signals. What is told of it later, under the lock: so a frame stays until its end is
 * written, and no sample or inner frame refers to it.
 *
 * The lock guards the file, and the lists of records not in use. Nothing is called with it held but what
 * takes slots. A signal handler that comes while its thread is in here (`is_busy`) has its allocations not
 * sampled, and a sample that it frees is forgotten.
 *
 * In the child of a fork nothing is known of the stack, and blocks that were samples are none any more. The
 * child has a file of its own if the file's name has %p in it, and isn't sampled otherwise.
 */
#ifndef LIBREGION_ADVISE_H
#define LIBREGION_ADVISE_H

#include "advise_file.h"
#include "scope.h"

/* A call of a function that is, or was, under way. */
struct advise_frame {
	struct advise_frame *outer;  /* its caller's; NULL: none that is known */
	struct advise_frame *next;   /* ended, or not in use */
	uintptr_t cfa;               /* the stack pointer once it has returned */
	uintptr_t return_address;
	uint64_t number;
	uint64_t blocks, bytes;      /* of its thread, when it ended */
	uint32_t references;         /* of samples and inner frames; and one until its end is written */
	bool is_hooked;
	bool has_ended;              /* atomic */
};

struct advise_sample {
	struct advise_frame *frame;  /* innermost; NULL: not known */
	struct advise_sample *next;  /* not in use */
	uint64_t number;
	unsigned generation;         /* of the process: those of its parent are none of ours */
	int thread;
};

/* A frame that has been found on the stack. */
struct advise_found {
	uintptr_t pc, cfa, return_address;
	bool may_hook;
};

#define ADVISE_DEPTH 1024u

/* What a thread has, from its first allocation that is counted. */
struct advise_thread {
	struct advise_frame *top;    /* the innermost frame under way that is known */
	struct advise_frame *ended;  /* frames whose end is to be written */
	bool is_busy, is_ending;     /* sampling; ending frames */
	uint64_t random;
	size_t mean_bytes;
	int thread_id;
	unsigned samples;
	unsigned hooked;             /* frames, by the sample that is being taken */
	uint64_t start_cpu_ns;       /* of the thread, when it was first counted; and its bytes then */
	uint64_t start_bytes;
	uint64_t cost_ns;            /* of its samples so far */
	struct advise_found found[ADVISE_DEPTH];
};

extern struct advise {
	bool is_on;
	bool is_ready;        /* it can be switched on */
	bool is_full;         /* the file can't grow: there will be no more samples */
	unsigned generation;  /* of processes since the first one */
	uint64_t threads;     /* that have been counted so far */
	uint64_t frames, samples; /* numbered so far */
	uint64_t live;            /* samples that haven't been freed */
	struct advise_frame *spare_frames;
	struct advise_sample *spare_samples;
	struct lock lock;
} advise __attribute__((visibility("hidden")));

/* The process ends by exit. */
void advise_finish(void);

/* What base.inline_granules is for a new thread. */
size_t advise_inline_granules(void);

/*
 * The slow half of malloc outside of scopes, while sampling is on: a block that is a sample, or NULL: the
 * allocation has been counted, and the general heap may serve it.
 */
void *advise_alloc(struct thread *thread, size_t size, size_t align);

void advise_thread_ends(struct thread *thread);
void advise_before_longjmp(struct thread *thread, uintptr_t sp);

/* Around fork(); see core/lock.h. */
struct lock *advise_lock(void);
void advise_after_fork_in_child(void);

/* The bytes of all allocations of a thread that have been counted. */
static inline uint64_t advise_bytes(const struct heap *heap)
{
	return heap->sample_bytes + heap->sample_gap - heap->sample_left;
}

/* advise_stack.c */

/*
 * The frame that the calling thread's malloc was called from, with all that are further out known, and the
 * address behind that call. Under the lock. NULL: not known.
 */
struct advise_frame *advise_take_stack(struct thread *thread, uintptr_t *pc);

/* Ends the frames that lie below `sp`, on the thread's own stack; no lock. */
void advise_end_frames(struct thread *thread, uintptr_t sp);

/* Writes the ends of those that have ended. Under the lock. */
void advise_write_ends(struct advise_thread *sampler);

/* Gives up a reference to a frame, which may be NULL. Under the lock. */
void advise_drop_frame(struct advise_frame *frame);

/* advise_write.c: all under the lock. */

/* Makes the file, unless there is one. False: it can't be made, and that has been said. */
bool advise_open(void);

/* In the child of a fork: the file is the parent's. */
void advise_abandon(void);

/* The file's header; NULL: there is no file. */
struct advise_header *advise_header(void);

/*
 * Room for a record of that type, zeroed but for its head; NULL: the file is full. It counts once it is
 * done.
 */
void *advise_record(enum advise_type type, size_t bytes);
void advise_record_done(void);

/* Sees to it that the file knows the module that `pc` is in. */
void advise_note_module(uintptr_t pc);

#endif
