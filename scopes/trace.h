/*
 * trace.h: probes for tracers (bpftrace, perf, gdb, SystemTap): static ones, as in <sys/sdt.h>.
 *
 *     region:enter   name, scope                           a scope is entered
 *     region:exit    name, scope                           a scope has ended, in whichever way
 *     region:refill  name, bytes wanted, first byte, end   a scope goes on in another hole; 0, 0: none
 *     region:fade    name, blocks, bytes                   blocks outlive their scope, of one buffer at once
 *     region:sweep   bytes looked at, nanoseconds, bytes reclaimed, bytes faded
 *                                                          a search has told reachable blocks from others
 *
 * `name` is the address of the scope's name, `scope` tells nested scopes of one thread apart. All
 * arguments have 64 bits.
 *
 * A probe is a `nop`, and a note in a section that isn't loaded, which says where the nop is and where
 * its arguments lie at that moment. A tracer puts a breakpoint there. So a probe that nobody looks at
 * costs one nop, as long as its arguments are what the code has at hand anyway, in a register or at a
 * distance from one.
 *
 * The note's format is SystemTap's, version 3. It is written here because no header of another package may
 * be needed to build the library.
 */
#ifndef LIBREGION_TRACE_H
#define LIBREGION_TRACE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(__aarch64__)

/* The address of _.stapsdt.base tells a tracer by how much the file was moved after it was linked. */
#define TRACE_NOTE(name, arguments) \
	"990:\tnop\n" \
	"\t.pushsection .note.stapsdt, \"?\", \"note\"\n" \
	"\t.balign 4\n" \
	"\t.4byte 992f - 991f, 994f - 993f, 3\n" \
	"991:\t.asciz \"stapsdt\"\n" \
	"992:\t.balign 4\n" \
	"993:\t.8byte 990b, _.stapsdt.base, 0\n" \
	"\t.asciz \"region\"\n" \
	"\t.asciz \"" name "\"\n" \
	"\t.asciz \"" arguments "\"\n" \
	"994:\t.balign 4\n" \
	"\t.popsection\n" \
	"\t.ifndef _.stapsdt.base\n" \
	"\t.pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n" \
	"\t.weak _.stapsdt.base\n" \
	"\t.hidden _.stapsdt.base\n" \
	"_.stapsdt.base:\t.space 1\n" \
	"\t.size _.stapsdt.base, 1\n" \
	"\t.popsection\n" \
	"\t.endif\n"

/* clang takes memory where it may choose, and stores the argument there first. */
#ifdef __clang__
#define TRACE_VALUE(value) "r"((uint64_t)(value))
#else
#define TRACE_VALUE(value) "nor"((uint64_t)(value))
#endif

#define TRACE_2(name, a, b) \
	__asm__ __inline__ volatile(TRACE_NOTE(#name, "8@%0 8@%1") : : TRACE_VALUE(a), TRACE_VALUE(b))
#define TRACE_3(name, a, b, c) \
	__asm__ __inline__ volatile(TRACE_NOTE(#name, "8@%0 8@%1 8@%2") \
	                            : : TRACE_VALUE(a), TRACE_VALUE(b), TRACE_VALUE(c))
#define TRACE_4(name, a, b, c, d) \
	__asm__ __inline__ volatile(TRACE_NOTE(#name, "8@%0 8@%1 8@%2 8@%3") \
	                            : : TRACE_VALUE(a), TRACE_VALUE(b), TRACE_VALUE(c), TRACE_VALUE(d))

#else
#define TRACE_2(name, a, b) ((void)(a), (void)(b))
#define TRACE_3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#define TRACE_4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#endif

#endif
