/* workloads.h: names every workload once. A new one needs its file and its name here. */
#ifndef BENCH_GENERAL_WORKLOADS_H
#define BENCH_GENERAL_WORKLOADS_H

#include "general.h"

#define GENERAL_WORKLOADS(X) \
	X(bignum) X(pareto) X(pareto_mt) X(store) X(trees) X(batches) X(batches_mt) X(loops) X(loops_mt) \
	X(server) X(producers) X(migrate) X(falloff) X(churn) X(thrash) X(scratch) \
	X(large) X(growth) X(zeroed) X(aligned) X(litter) X(idle) X(idle_kept)

#define X(name) extern const struct workload workload_##name;
GENERAL_WORKLOADS(X)
#undef X

#endif
