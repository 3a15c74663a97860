/*
 * slot_x86_64.S: the code around the call of a site, for x86-64.
 *
 * The stub before a site's function has pushed the site and jumps to slot_entry, which asks slot_gate.c
 * whether this call is a scope. If not, the function goes on as if nothing had happened. If it is, the
 * return address has been put into the record of a slot, and the function is called from the slot's code:
 *
 *     +0   call *target(record)            into the stack word where the return address was
 *     +6   push return_address(record)     where the function returns to
 *     +12  push $number
 *     +17  jmp slot_exit
 *
 * The call takes the very word that held the return address, so arguments on the stack stay where the
 * function looks for them, and each call has its return: the processor's prediction of returns stays in
 * step, and so does a shadow stack.
 *
 * Every register belongs to somebody: the caller may know that the function doesn't touch some of those
 * that it may touch (gcc's -fipa-ra), and results may be in any. So the gate saves what it uses.
 *
 * Unwinding: one table entry covers all slots of a pool. For an address at `off` in its slot of 32 bytes,
 *     CFA = rsp + 8 * ((off >= 12) + (off >= 17))
 *     return address = *(return_address of the record that the slot's first instruction names) - 1
 * "- 1" and the mark of a signal frame belong together: libgcc tells frames apart by CFA and that mark, and
 * the slot has the CFA of the function that it has called; and after a signal frame the address is
 * looked up as it is, where after a call one is subtracted.
 *
 * There are two pools. LLVM's libunwind gives up where a signal frame has a personality routine, so in a
 * process that has it the second pool serves, which has none; scopes that an exception leaves then end
 * when the thread next enters one.
 */
#include "slot_layout.h"

	.text
	.hidden slot_records, slot_exit, slot_personality
	.globl slot_code, slot_code_end, slot_with_vectors_saved
	.hidden slot_code, slot_code_end, slot_with_vectors_saved

	.macro SLOT_POOL first, has_personality
	.cfi_startproc
	.if \has_personality
	.cfi_personality 0x1b, slot_personality
	.endif
	.cfi_signal_frame
	/* breg7(0) breg16(0) lit31 and dup lit12 ge swap lit17 ge plus lit3 shl plus */
	.cfi_escape 0x0f, 16, 0x77, 0, 0x80, 0, 0x4f, 0x1a, 0x12, 0x3c, 0x2a, 0x16, 0x41, 0x2a, 0x22, 0x33, \
		0x24, 0x22
	/* breg16(0) const1s(-32) and dup plus_uconst(2) deref_size(4) plus plus_uconst(14) deref lit1 minus */
	.cfi_escape 0x16, 0x10, 16, 0x80, 0, 0x09, 0xe0, 0x1a, 0x12, 0x23, 2, 0x94, 4, 0x22, 0x23, 14, 0x06, \
		0x31, 0x1c
	.set number, \first
	.rept SLOT_POOL_COUNT
	.p2align 5, 0xcc
	call *slot_records + SLOT_RECORD_BYTES * number + SLOT_TARGET(%rip)
	pushq slot_records + SLOT_RECORD_BYTES * number + SLOT_RETURN_ADDRESS(%rip)
	.byte 0x68 /* push, always with 4 bytes */
	.long number
	.byte 0xe9 /* jmp, likewise */
	.long slot_exit - . - 4
	.set number, number + 1
	.endr
	.p2align 5, 0xcc
	.cfi_endproc
	.endm

	.p2align 6
	.type slot_code, @function
slot_code:
	SLOT_POOL 0, 1
	SLOT_POOL SLOT_POOL_COUNT, 0
slot_code_end:
	.size slot_code, . - slot_code

/*
 * void slot_with_vectors_saved(void (*fn)(void *), void *arg): calls fn(arg), compiled as any code, and keeps
 * every register, those of vectors and floating point included.
 */
	.type slot_with_vectors_saved, @function
slot_with_vectors_saved:
	.cfi_startproc
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset rbp, -16
	mov %rsp, %rbp
	.cfi_def_cfa_register rbp
	push %rbx
	.cfi_offset rbx, -24
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	mov %rdi, %r8
	mov %rsi, %r9
	mov slot_xsave(%rip), %eax
	sub %rax, %rsp
	and $-64, %rsp
	/* The header of the area: what isn't saved must not look as if it had been. */
	xor %eax, %eax
	lea 512(%rsp), %rdi
	mov $8, %ecx
	rep stosq
	mov slot_xsave + 4(%rip), %eax
	xor %edx, %edx
	xsave64 (%rsp)
	mov %rsp, %rbx
	mov %r9, %rdi
	call *%r8
	mov slot_xsave + 4(%rip), %eax
	xor %edx, %edx
	xrstor64 (%rbx)
	lea -80(%rbp), %rsp
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	pop %rbx
	pop %rbp
	.cfi_restore rbx
	.cfi_restore rbp
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size slot_with_vectors_saved, . - slot_with_vectors_saved

/* What xsave needs: bytes of its area, and the mask of what it saves. Set by slot_x86_64's start. */
	.bss
	.p2align 6
	.globl slot_records, slot_xsave
	.hidden slot_records, slot_xsave
	.type slot_records, @object
slot_records:
	.zero SLOT_RECORD_BYTES * SLOT_POOL_COUNT * 2
	.size slot_records, . - slot_records
	.type slot_xsave, @object
slot_xsave:
	.zero 8
	.size slot_xsave, . - slot_xsave

	.section .note.GNU-stack, "", @progbits
