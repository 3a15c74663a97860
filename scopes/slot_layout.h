/*
 * slot_layout.h: what the assembly and the C of slots must agree on; plain numbers, for both to include.
 */
#ifndef LIBREGION_SLOT_LAYOUT_H
#define LIBREGION_SLOT_LAYOUT_H

#define SLOT_POOL_COUNT 1024
#define SLOT_CODE_BYTES 32
#define SLOT_RECORD_BYTES 64
#define SLOT_TARGET 0
#define SLOT_RETURN 6 /* behind the slot's call */
#define SLOT_RETURN_ADDRESS 8

#endif
