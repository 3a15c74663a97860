/*
 * options.c: prints the library's table of options, for the manual page, where nothing can be preloaded.
 */
#include "scopes/options.h"

int main(void)
{
	options_read();
	options_print(true);
	return 0;
}
