/*
 * slot_fast_x86_64.c: what runs when a site's function is called and when it returns, for x86-64, where it
 * is as simple as it mostly is; the rest is slot_gate.c's.
 *
 * That is: the thread has nothing open, neither slot nor scope; a slot is ready, and the record of the
 * outermost scope is ready for the site's options; and when the function returns, all it has allocated has
 * been freed newest first. Then nothing needs to be looked up and there are five registers to save where a
 * compiler takes nine, which is half of what a call costs.
 *
 * The functions here are `naked`: nothing but their one asm statement, whose operands are constants. So the
 * layout of structures comes from the compiler.
 *
 * Outside of all scopes a heap bumps nowhere: its cursor and its limit are NULL, and it is set to slabs. So
 * entering has nothing to save there, and leaving nothing to load. Values that were stored a moment ago by
 * the last call are compared with and not passed on: else each call would wait for the one before it.
 * A record that is ready for a site's options was a site's when it was last used, and has closed since: so
 * `called` and `must_close` are NULL and false.
 *
 * A signal may arrive before each instruction, and its handler may call sites, or longjmp out of here. So the
 * order of stores matters, and is that of scope_push() and scope_pop() with more care:
 *   - the gate is closed first, and opened last (slot.h);
 *   - the scope is complete, its cursor in the heap, before it becomes the top one, and only then do blocks
 *     come from it; the other way round when it ends.
 */
#include "scope_fast.h"
#include "slot.h"
#include "trace.h"

/* The offset of a member, as an operand. */
#define HEAP(member) [heap_##member] "i"(offsetof(struct heap, member))
#define THREAD(member) [thread_##member] "i"(offsetof(struct thread, member))
#define SCOPE(member) [scope_##member] "i"(offsetof(struct scope, member))
#define REGION(member) [region_##member] "i"(offsetof(struct scope, region.member))
#define SLOT(member) [slot_##member] "i"(offsetof(struct slot, member))
#define SITE(member) [site_##member] "i"(offsetof(struct site_entry, member))
#define CALLERS(member) [callers_##member] "i"(offsetof(struct site_callers, member))

/* What heap_set_inline() does is written out below: 0 is bumping, and anything else isn't. */
static_assert(offsetof(struct site_entry, is_of_libc) == offsetof(struct site_entry, is_once) + 1,
              "both are looked at by one load");

#define PUSH(what) "push " what "\n .cfi_adjust_cfa_offset 8\n"
#define POP(what) "pop " what "\n .cfi_adjust_cfa_offset -8\n"
#define SAVE_FOUR PUSH("%%rax") PUSH("%%rcx") PUSH("%%rdx") PUSH("%%rsi")
#define RESTORE_FOUR POP("%%rsi") POP("%%rdx") POP("%%rcx") POP("%%rax")
#define SAVE SAVE_FOUR PUSH("%%rdi")
#define RESTORE POP("%%rdi") RESTORE_FOUR

/*
 * Arriving with the site's address on the stack, and the return address above it. Once five registers are
 * saved these are at 40 and 48, and the CFA is at 56. From here on rax is the heap, rdx the thread, rcx the
 * slot, rdi the scope. Whatever isn't as it mostly is leads to label 8.
 */
#define CHECK_READY                                                                                   \
	__asm__ volatile("mov heap_tls@gottpoff(%%rip), %%rax\n"                                          \
	                 "mov %%fs:(%%rax), %%rax\n"                                                      \
	                 "mov %c[heap_upper](%%rax), %%rdx\n"                                             \
	                 "test %%rdx, %%rdx\n"                                                            \
	                 "jz 8f\n" /* is it the thread's own stack? */                                    \
	                 "lea 55(%%rsp), %%rcx\n"                                                         \
	                 "sub %c[thread_stack_lo](%%rdx), %%rcx\n"                                        \
	                 "cmp %c[thread_stack_bytes](%%rdx), %%rcx\n"                                     \
	                 "jae 8f\n" /* is it outside of all scopes? */                                    \
	                 "lea %c[thread_base](%%rdx), %%rcx\n"                                            \
	                 "cmp %%rcx, %c[heap_upper_top](%%rax)\n"                                         \
	                 "jne 8f\n" /* is the record ready for the site? */                               \
	                 "mov 40(%%rsp), %%rsi\n"                                                         \
	                 "mov %c[thread_inner](%%rdx), %%rdi\n"                                           \
	                 "mov %c[site_options](%%rsi), %%rcx\n"                                           \
	                 "cmp %%rcx, %c[scope_ready_for](%%rdi)\n"                                        \
	                 "jne 8f\n" /* is a slot? */                                                      \
	                 "mov %c[thread_ready_slot](%%rdx), %%rcx\n"                                      \
	                 "test %%rcx, %%rcx\n"                                                            \
	                 "jz 8f\n"                                                                        \
	                 :                                                                                \
	                 : HEAP(upper), HEAP(upper_top), THREAD(ready_slot), THREAD(stack_lo),            \
	                   THREAD(stack_bytes), THREAD(base), SITE(options), SCOPE(ready_for),            \
	                   [thread_inner] "i"(offsetof(struct thread, base.inner)))

#define OPEN                                                                                        \
	__asm__ volatile("movq $0, %c[thread_ready_slot](%%rdx)\n" /* the gate is closed */             \
	                 "mov %c[site_resume](%%rsi), %%rsi\n"                                          \
	                 "mov %%rsi, %c[slot_target](%%rcx)\n"                                          \
	                 "mov 48(%%rsp), %%rsi\n"                                                       \
	                 "mov %%rsi, %c[slot_return_address](%%rcx)\n"                                  \
	                 "lea 56(%%rsp), %%rsi\n"                                                       \
	                 "mov %%rsi, %c[slot_cfa](%%rcx)\n"                                             \
	                 "mov %%rdi, %c[slot_scope](%%rcx)\n"                                           \
	                 "mov %%rsi, %c[scope_frame](%%rdi)\n"                                          \
	                 "mov %%rcx, %c[scope_serial](%%rdi)\n"                                         \
	                 "mov %c[region_extent](%%rdi), %%rsi\n"                                        \
	                 "mov %%rsi, %c[heap_cursor](%%rax)\n"                                          \
	                 "mov %c[region_limit](%%rdi), %%rsi\n"                                         \
	                 "mov %%rsi, %c[heap_limit](%%rax)\n"                                           \
	                 "mov %%rdi, %c[heap_upper_top](%%rax)\n"                                       \
	                 "movq $0, %c[heap_inline_granules](%%rax)\n"                                   \
	                 "movq %[bump_most], %c[heap_bump_granules](%%rax)\n"                           \
	                 "mov %c[region_counters](%%rdi), %%rsi\n"                                      \
	                 "addq $1, %c[entered](%%rsi)\n"                                                \
	                 TRACE_NOTE("enter", "8@%c[region_name](%%rdi) 8@%%rdi")                        \
	                 "mov %c[slot_code](%%rcx), %%rsi\n"                                            \
	                 "mov %%rsi, 40(%%rsp)\n"                                                       \
	                 "mov %%rcx, %c[thread_open_slot](%%rdx)\n" /* the gate is open */              \
	                 :                                                                              \
	                 : HEAP(cursor), HEAP(limit), HEAP(upper_top), HEAP(inline_granules),           \
	                   HEAP(bump_granules), THREAD(ready_slot), THREAD(open_slot), SCOPE(frame),    \
	                   SCOPE(serial), REGION(extent), REGION(limit), REGION(counters),              \
	                   REGION(name), SLOT(target), SLOT(return_address), SLOT(cfa),                 \
	                   SLOT(scope), SLOT(code), SITE(resume), [bump_most] "i"(GRANULE_SHORT_MAX),   \
	                   [entered] "i"(offsetof(struct counters, stats.scopes_entered)))

/* Goes on from the slot, whose call takes the word of the return address; or asks slot_gate.c. */
#define GO_ON(gate)                                                                                 \
	__asm__ volatile(".cfi_remember_state\n" RESTORE                                                \
	                 "lea 16(%%rsp), %%rsp\n"                                                         \
	                 ".cfi_def_cfa_offset 0\n"                                                      \
	                 "jmp *-16(%%rsp)\n" /* it is in the red zone now */                             \
	                 ".cfi_restore_state\n"                                                         \
	                 "8:\n" RESTORE PUSH("$0") "call " gate "\n"                                    \
	                 "cmpb $0, (%%rsp)\n"                                                            \
	                 "je 9f\n"                                                                      \
	                 "lea 24(%%rsp), %%rsp\n"                                                         \
	                 ".cfi_remember_state\n"                                                        \
	                 ".cfi_def_cfa_offset 0\n"                                                      \
	                 "jmp *-16(%%rsp)\n"                                                             \
	                 ".cfi_restore_state\n"                                                         \
	                 "9:\n"                                                                         \
	                 "lea 16(%%rsp), %%rsp\n"                                                         \
	                 ".cfi_def_cfa_offset 8\n"                                                      \
	                 "jmp *-8(%%rsp)\n"                                                             \
	                 : :)

__attribute__((naked, aligned(64))) void slot_entry(void)
{
	__asm__ volatile(".cfi_adjust_cfa_offset 8\n" SAVE : :);
	CHECK_READY;
	OPEN;
	GO_ON("slot_gate_enter");
}

/* A site that isn't for all calls: it has callers, mostly. Their list begins with one that isn't there. */
__attribute__((naked, aligned(64))) void slot_entry_special(void)
{
	__asm__ volatile(".cfi_adjust_cfa_offset 8\n" SAVE
	                 "mov 40(%%rsp), %%rdx\n"
	                 "mov 48(%%rsp), %%rcx\n"
	                 "mov %c[site_callers](%%rdx), %%rax\n"
	                 "test %%rax, %%rax\n"
	                 "jz 8f\n"
	                 "1: mov %c[callers_next](%%rax), %%rax\n"
	                 "test %%rax, %%rax\n"
	                 "jz 2f\n"
	                 "mov %%rcx, %%rsi\n"
	                 "sub %c[callers_lo](%%rax), %%rsi\n"
	                 "cmp %c[callers_bytes](%%rax), %%rsi\n"
	                 "jae 1b\n"
	                 "cmpw $0, %c[site_is_once](%%rdx)\n"
	                 "jne 8f\n"
	                 "jmp 3f\n"
	                 "2: cmpq $0, %c[site_otherwise](%%rdx)\n"
	                 "jne 8f\n"
	                 "mov %c[site_resume](%%rdx), %%rax\n"
	                 "mov %%rax, 40(%%rsp)\n"
	                 ".cfi_remember_state\n" RESTORE
	                 "lea 8(%%rsp), %%rsp\n"
	                 ".cfi_adjust_cfa_offset -8\n"
	                 "jmp *-8(%%rsp)\n"
	                 ".cfi_restore_state\n"
	                 "3:\n"
	                 :
	                 : SITE(callers), SITE(is_once), SITE(otherwise), SITE(resume), CALLERS(next),
	                   CALLERS(lo), CALLERS(bytes));
	CHECK_READY;
	OPEN;
	GO_ON("slot_gate_enter_special");
}

/*
 * Coming back with the slot's number on the stack, and the return address above it. Once four registers are
 * saved the number is at 32. rax is the heap, rdx the top scope, rcx the slot, rsi the thread. The scope's
 * serial number stays; as long as the slot isn't open that says nothing.
 */
__attribute__((naked, aligned(64))) void slot_exit(void)
{
	__asm__ volatile(
		".cfi_adjust_cfa_offset 8\n" SAVE_FOUR
		"mov heap_tls@gottpoff(%%rip), %%rax\n"
		"mov %%fs:(%%rax), %%rax\n"
		"mov %c[heap_upper_top](%%rax), %%rdx\n"
		"test %%rdx, %%rdx\n"
		"jz 8f\n" /* has the scope left nothing? */
		"mov %c[heap_cursor](%%rax), %%rsi\n"
		"cmp %%rsi, %c[region_extent](%%rdx)\n"
		"jne 8f\n"
		"cmpb $0, %c[scope_must_close](%%rdx)\n"
		"jne 8f\n"
		"cmpq $0, %c[heap_popped_blocks](%%rax)\n"
		"jne 8f\n" /* is it the innermost slot's? */
		"mov %c[heap_upper](%%rax), %%rsi\n"
		"mov %c[thread_open_slot](%%rsi), %%rcx\n"
		"cmp %%rcx, %c[scope_serial](%%rdx)\n"
		"jne 8f\n" /* is that us, and nothing open further out? */
		"mov %c[slot_lone_number](%%rcx), %%rdx\n"
		"cmp %%rdx, 32(%%rsp)\n"
		"jne 8f\n"
		"mov %c[slot_next](%%rcx), %%rdx\n"
		"mov %%rdx, %c[thread_open_slot](%%rsi)\n" /* the gate is closed */
		"movq $0, %c[heap_bump_granules](%%rax)\n"
		"mov %c[outside_granules](%%rsi), %%rdx\n"
		"mov %%rdx, %c[heap_inline_granules](%%rax)\n"
		"lea %c[thread_base](%%rsi), %%rdx\n"
		"mov %%rdx, %c[heap_upper_top](%%rax)\n"
		"movq $0, %c[heap_cursor](%%rax)\n"
		"movq $0, %c[heap_limit](%%rax)\n"
		"mov %c[slot_scope](%%rcx), %%rdx\n" /* for tracers */
		TRACE_NOTE("exit", "8@%c[region_name](%%rdx) 8@%%rdx")
		"mov %%rcx, %c[thread_ready_slot](%%rsi)\n" /* the gate is open */
		".cfi_remember_state\n" RESTORE_FOUR
		"lea 8(%%rsp), %%rsp\n"
		".cfi_adjust_cfa_offset -8\n"
		"ret\n"
		".cfi_restore_state\n"
		"8:\n" RESTORE_FOUR PUSH("%%rax") /* for who wants to know what it has returned */
		"call slot_gate_exit\n"
		"lea 16(%%rsp), %%rsp\n"
		".cfi_adjust_cfa_offset -16\n"
		"ret\n"
		:
		: HEAP(upper), HEAP(upper_top), HEAP(popped_blocks), HEAP(cursor), HEAP(limit),
		  HEAP(bump_granules), HEAP(inline_granules), THREAD(base), THREAD(open_slot),
		  THREAD(ready_slot), SCOPE(serial), SCOPE(must_close), REGION(extent), REGION(name),
		  SLOT(next), SLOT(scope), SLOT(lone_number),
		  [outside_granules] "i"(offsetof(struct thread, base.inline_granules)));
}
