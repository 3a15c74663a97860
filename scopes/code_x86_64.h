/*
 * code_x86_64.h: what code_x86_64.c, which looks at code, and code_make_x86_64.c, which writes it, share.
 */
#ifndef LIBREGION_CODE_X86_64_H
#define LIBREGION_CODE_X86_64_H

#include "code.h"

#define JUMP_BYTES 5u /* e9 and four bytes */
#define HOP_BYTES 2u  /* eb and one */

/* What an instruction is to somebody who wants to move it. */
enum instruction_kind {
	PLAIN,
	RELATIVE_OPERAND,
	JUMP,
	BRANCH,
	CALL,
	PADDING,
	BREAKPOINT,
	ODD,
	ODD_CALL,
	UNKNOWN
};

struct instruction {
	enum instruction_kind kind;
	bool is_last; /* control doesn't go on behind it */
	unsigned bytes;
	unsigned operand_at; /* RELATIVE_OPERAND: where the displacement is */
	unsigned condition;  /* BRANCH */
	uintptr_t target;    /* of JUMP, BRANCH, CALL, RELATIVE_OPERAND */
};

/* Decodes what is at an address, without reading at `end` or behind it. */
struct instruction code_decode(uintptr_t at, uintptr_t end);

#endif
