/*
 * place.h: what lies at an address, for reports: which symbol of which module. Private to scopes/.
 *
 * Modules can't be asked for while the world stands still, since the loader has a lock. So what has to be
 * known then is noted before (place_note_modules): where code is, and where thread-local storage lies.
 */
#ifndef LIBREGION_PLACE_H
#define LIBREGION_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct place {
	char module[64];         /* a file's name, or "" */
	uintptr_t module_offset; /* as nm and addr2line have addresses */
	char name[160];          /* a symbol's name, or "" */
	uintptr_t name_offset;   /* behind its beginning */
};

enum place_kind { PLACE_CODE, PLACE_DATA, PLACE_TLS };

/* PLACE_TLS: an address in the calling thread's own. False: it lies in no module. */
bool place_of(uintptr_t address, enum place_kind kind, struct place *place);

/* Notes code and thread-local storage of all modules. One thread at a time. */
void place_note_modules(void);

/* Does it look like an address that a call returns to, by what was noted? */
bool place_is_return_address(uintptr_t word);

/*
 * The address in the calling thread's thread-local storage that stands for an address in another's, or in
 * its own, by what was noted; the controls are their control blocks. 0: it isn't in any.
 */
uintptr_t place_own_tls(uintptr_t address, uintptr_t control, uintptr_t own_control);

#endif
