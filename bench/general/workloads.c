/* workloads.c: the list of all workloads, in the order of the tables. Each is described in its own file. */
#include "workloads.h"

const struct workload *const general_workloads[] = {
#define X(name) &workload_##name,
	GENERAL_WORKLOADS(X)
#undef X
	NULL,
};
