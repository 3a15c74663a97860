/*
 * core.h: the facade of core/, and all of it that the layers above may include.
 *
 * core/ is an allocator without a name: it knows neither malloc nor scopes, reads no environment, and
 * depends on nothing but the kernel. README.md walks through one allocation and one free.
 */
#ifndef LIBREGION_CORE_H
#define LIBREGION_CORE_H

#include "bare.h"
#include "big.h"
#include "big_list.h"
#include "buffer.h"
#include "class.h"
#include "granule.h"
#include "harden.h"
#include "heap.h"
#include "lock.h"
#include "null.h"
#include "os.h"
#include "quarantine.h"
#include "range.h"
#include "remote.h"
#include "report.h"
#include "slab.h"
#include "sleep.h"
#include "span.h"
#include "track.h"
#include "waiting.h"

#endif
