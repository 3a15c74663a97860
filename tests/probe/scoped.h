/*
 * scoped.h: for probes of scopes. Their sources are built several times, since a program can get its
 * scopes in several ways: PROBE_FORM says which. Preloaded, region.h's functions are weak references.
 */
#ifndef PROBE_SCOPED_H
#define PROBE_SCOPED_H

#include "probe.h"

#ifndef PROBE_FORM
#define PROBE_FORM PROBE_PRELOADED
#define REGION_OPTIONAL
#endif

#include "region.h"

#endif
