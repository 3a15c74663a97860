/*
 * late.c: a library that a probe loads late: its data, and thread-local storage that didn't exist before.
 */
#include <stdint.h>

static _Thread_local uintptr_t thread_local_place[100] __attribute__((tls_model("global-dynamic")));
static uintptr_t data_place[100];

uintptr_t *late_place(void)
{
	return &thread_local_place[50];
}

uintptr_t *late_data(void)
{
	return &data_place[50];
}
