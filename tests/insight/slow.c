/* slow.c: what a slow allocator looks like from outside: a library that takes CPU time when it is loaded. */
#include <time.h>

static __attribute__((constructor)) void spin(void)
{
	while (clock() < CLOCKS_PER_SEC / 50)
		;
}
