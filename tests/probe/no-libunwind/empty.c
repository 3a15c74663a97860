/*
 * empty.c: what is in the way of libunwind.
 */
int no_libunwind(void);

int no_libunwind(void)
{
	return 0;
}
