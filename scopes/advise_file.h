/*
 * advise_file.h: the file that a process writes while its allocations are sampled (LIBREGION_ADVISE).
 * Public to whoever reads it: `region advise` and `region report` do.
 *
 * A header, then records one behind the other, up to `used_bytes`. The file is mapped by the process, so
 * it is whole up to there however the process has ended, and can be read while it runs. Numbers have this
 * machine's byte order. Records are multiples of 8 bytes and begin with their type and length. None goes
 * across a multiple of ADVISE_CHUNK_BYTES: a record of type ADVISE_REST fills up what is left before one.
 * (That record may be nothing but its first 8 bytes.) Unknown types are to be skipped; another `version`
 * means that what is here has changed.
 *
 * SAMPLES. Allocation number n of a thread is a sample with probability 1 - exp(-size / mean_bytes),
 * whatever came before: so the sum of 1 / probability over samples is an unbiased estimate of allocations,
 * and that of size / probability of bytes. `mean_bytes` changes as the thread goes, and is noted with each
 * sample. What is allocated in a scope isn't sampled, nor what another thread does before it has its first
 * heap.
 *
 * FRAMES. A frame is one call of one function, from when a sample first finds it on the stack until it
 * returns: two calls of a function are two frames. Frames are a forest; `outer` is the caller's frame. The
 * stack of a sample is its frame, that one's outer one, and so on. A frame's `pc` is where in the function
 * the call inwards was, when it was first seen: an address behind a call instruction.
 *
 * ENDS. The return of a frame is hooked, and gives ADVISE_FRAME_END, exactly, though not at once: the
 * record comes with a later sample of the same thread, and not at all if there is none. A frame of which
 * ADVISE_UNHOOKED is said is seen to have ended only when the thread's stack pointer is above it at a
 * later event, so it may have been called again in between without that being seen.
 *
 * FREES. ADVISE_FREE says which of the sample's frames was the innermost that hadn't ended (0: none).
 * Frames further in had ended: in a scope of theirs the block would have faded. That is exact, but for
 * unhooked frames. A sample without such a record was not freed.
 *
 * THREADS' COUNTS. `blocks` and `bytes` of a thread count all its allocations outside of scopes while
 * samples are taken, so differences between a sample's and a frame's end are what the frame has allocated
 * in between; a sample whose `blocks` are those of the end was the frame's last allocation.
 */
#ifndef LIBREGION_ADVISE_FILE_H
#define LIBREGION_ADVISE_FILE_H

#include <stdint.h>

#define ADVISE_MAGIC "region advise\n"
#define ADVISE_VERSION 1
#define ADVISE_HEADER_BYTES 4096u
#define ADVISE_CHUNK_BYTES ((uint64_t)1 << 20)

struct advise_header {
	char magic[16];
	uint32_t version;
	uint32_t header_bytes; /* where the first record begins */
	uint64_t used_bytes;   /* of the file, the header included */
	uint64_t process_id;
	uint64_t start_ns;     /* CLOCK_MONOTONIC, as all times */
	uint64_t last_ns;      /* of the last sample */
	uint64_t end_ns;       /* when sampling was last stopped, or the process ended by exit; 0: neither yet */
	uint64_t cpu_ns;       /* CPU time of the process at last_ns, roughly; 0: not asked yet */
	uint64_t samples;
	uint64_t unhooked;     /* frames: no slot was free, or their stack isn't the thread's own */
	uint64_t stackless;    /* samples without a frame: on a coroutine's or signal's stack, or too deep */
	uint64_t lost;         /* samples that weren't taken: no memory, or the file is full */
	char program[2048];    /* its path */
};

enum advise_type {
	ADVISE_REST,
	ADVISE_MODULE,
	ADVISE_FRAME,
	ADVISE_FRAME_END,
	ADVISE_SAMPLE,
	ADVISE_FREE,
};

/* How each record begins. */
struct advise_record {
	uint32_t type;
	uint32_t bytes; /* of the record, these included */
};

/* A module, before the first frame whose pc lies in it. */
struct advise_module {
	struct advise_record head;
	uint64_t lo, hi; /* of its mapping */
	uint64_t bias;   /* an address less this is what the file calls it */
	char path[];     /* to be opened by; "": the program. Ends with zeros. */
};

enum advise_frame_flag {
	ADVISE_UNHOOKED = 1,  /* its end is inferred */
	ADVISE_OUTERMOST = 2, /* what called it isn't known, or is the beginning of the thread */
};

struct advise_frame_record {
	struct advise_record head;
	uint64_t number; /* from 1 */
	uint64_t outer;  /* 0: none */
	uint64_t pc;
	uint32_t thread; /* the kernel's number */
	uint32_t flags;
	uint64_t cfa;    /* the stack pointer once it has returned: larger is further out */
};

struct advise_frame_end {
	struct advise_record head;
	uint64_t number;
	uint64_t blocks, bytes; /* of its thread, then */
};

struct advise_sample_record {
	struct advise_record head;
	uint64_t number;        /* from 1 */
	uint64_t frame;         /* of the function that called malloc; 0: not known */
	uint64_t pc;            /* in it */
	uint64_t size;          /* that was asked for, at least 1 */
	uint64_t mean_bytes;
	uint64_t blocks, bytes; /* of the thread, this allocation included */
	uint64_t ns;
	uint32_t thread;
	uint32_t unused;
};

enum advise_free_flag {
	ADVISE_BY_REALLOC = 1,
	ADVISE_OTHER_THREAD = 2, /* than the one that allocated it */
};

struct advise_free_record {
	struct advise_record head;
	uint64_t sample;
	uint64_t frame; /* the innermost of its frames that hadn't ended; 0: none */
	uint64_t blocks, bytes; /* of its thread; 0 if another one frees it */
	uint64_t ns;
	uint32_t thread;
	uint32_t flags;
};

#endif
