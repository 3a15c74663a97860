/*
 * written.c: the fade policy `reachable` with write tracking: whoever writes a pointer into a page of
 * the heap that was clean, in whichever way, is seen; and so is a pointer that was there all along.
 */
#define _GNU_SOURCE
#include "chains.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

const enum probe_form probe_default_form = PROBE_FORM;

enum { PAGE = 4096, CLEAN_BYTES = 64 << 20 };

static uintptr_t *place;
static char *clean;

static uint64_t searched_bytes(void)
{
	struct region_stats stats;
	region_stats_read(&stats);
	return stats.searched_bytes;
}

/* Blocks of one page each at least, which searches have read, and found nothing in. */
static void make_clean(void)
{
	static char *small[1000];
	clean = malloc(CLEAN_BYTES);
	memset(clean, 1, CLEAN_BYTES);
	for (size_t i = 0; i < 1000; i++)
		memset(small[i] = malloc(2000), 1, 2000);
	search();
	uint64_t bytes = searched_bytes(), count = searches();
	search();
	bytes = (searched_bytes() - bytes) / (searches() - count);
	if (bytes > CLEAN_BYTES)
		probe_skip("writes can't be tracked here");
	CHECK(bytes < CLEAN_BYTES / 8, "searches don't read it again: %zu bytes", (size_t)bytes);
	place = (uintptr_t *)(void *)(clean + (5 << 20));
}

/* The program itself. */

static void put_there(uintptr_t pointer) { *place = pointer; }

static void test_put(store *put, const char *how)
{
	make_chain(put);
	search();
	stays(*place, how);
	place += 2 * PAGE;
}

static void *write_in_thread(void *pointer)
{
	*place = (uintptr_t)pointer;
	return NULL;
}

static void put_by_thread(uintptr_t pointer)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, write_in_thread, (void *)pointer) == 0, "a thread starts");
	pthread_join(thread, NULL);
}

static void the_program_s_writes_are_seen(void)
{
	make_clean();
	test_put(put_there, "in a big block");
	test_put(put_there, "in the next one");
	test_put(put_by_thread, "where a thread has written it");
	place = malloc(2000);
	test_put(put_there, "in a block of a slab");
}

/* The kernel, and others. */

static void put_by_read(uintptr_t pointer)
{
	int fds[2];
	CHECK(pipe(fds) == 0 && write(fds[1], &pointer, sizeof(pointer)) == sizeof(pointer), "a pipe takes it");
	CHECK(read(fds[0], place, sizeof(pointer)) == sizeof(pointer), "and gives it back");
	close(fds[0]);
	close(fds[1]);
}

static void put_by_copy(uintptr_t pointer)
{
	struct iovec from = {&pointer, sizeof(pointer)}, to = {place, sizeof(pointer)};
	if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != (ssize_t)sizeof(pointer))
		*place = pointer;
}

static void put_by_file(uintptr_t pointer)
{
	int fd = open("/proc/self/mem", O_RDWR);
	if (fd < 0 || pwrite(fd, &pointer, sizeof(pointer), (off_t)(uintptr_t)place) != (ssize_t)sizeof(pointer))
		*place = pointer;
	close(fd);
}

static void the_kernel_s_writes_are_seen(void)
{
	make_clean();
	test_put(put_by_read, "written by read()");
	test_put(put_by_copy, "written by process_vm_writev()");
	test_put(put_by_file, "written through /proc/self/mem");
}

/* What the program does to mappings. */

static char *page_of_place(void)
{
	return (char *)((uintptr_t)place & ~(uintptr_t)(PAGE - 1));
}

static void put_after_protection(uintptr_t pointer)
{
	mprotect(page_of_place(), PAGE, PROT_READ);
	search();
	mprotect(page_of_place(), PAGE, PROT_READ | PROT_WRITE);
	*place = pointer;
	mprotect(page_of_place(), PAGE, PROT_READ);
}

static void put_after_purge(uintptr_t pointer)
{
	madvise(page_of_place(), PAGE, MADV_DONTNEED);
	*place = pointer;
}

static void put_in_new_memory(uintptr_t pointer)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	char *p = mmap(page_of_place(), PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	CHECK(p == page_of_place(), "memory is mapped there");
	*place = pointer;
}

/* The page comes from elsewhere, with the pointer in it. */
static void put_in_moved_memory(uintptr_t pointer)
{
	char *from = clean + (40 << 20), *there = page_of_place();
	*(uintptr_t *)(void *)(from + ((char *)place - there)) = pointer;
	CHECK(mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there, "a page is moved");
	CHECK(mmap(from, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from,
	      "and there is another one");
}

static void changes_of_mappings_are_seen(void)
{
	make_clean();
	test_put(put_after_protection, "in memory that was protected");
	test_put(put_after_purge, "in memory that was given back");
	test_put(put_in_new_memory, "in memory that was mapped anew");
	test_put(put_there, "elsewhere then");
	test_put(put_in_moved_memory, "in memory that was moved");
	/* Where a page was moved to, and was looked at since. */
	place -= 2 * PAGE;
	*place = 0;
	search();
	test_put(put_there, "written where memory was moved to");
}

/* Pointers that were there when the page was looked at, before what they point to was in question. */

static void leave_in_open_scope(void *unused)
{
	(void)unused;
	leave_chain(&(store *){put_there});
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
}

static void leave_big_in_open_scope(void *unused)
{
	char *p = probe_opaque(malloc(1 << 20));
	(void)unused;
	memset(p, 7, 1 << 20);
	*place = (uintptr_t)p;
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
}

static void pointers_into_open_scopes_are_remembered(void)
{
	struct region_stats stats;
	make_clean();
	region_do(leave_in_open_scope, NULL);
	search();
	stays(*place, "in a page that was clean since the scope was open");
	place += 2 * PAGE;
	region_do(leave_big_in_open_scope, NULL);
	search();
	region_stats_read(&stats);
	CHECK(stats.big_reclaimed == 0, "a big block stays, too");
}

static void leave_and_move(void *unused)
{
	(void)unused;
	leave_chain(&(store *){put_there});
	for (int i = 0; i < 8; i++)
		region_do(leave_garbage, NULL);
	/* Something behind it, so that it can't grow in place. */
	free(malloc(CLEAN_BYTES));
	size_t at = (size_t)((char *)place - clean);
	clean = realloc(clean, 8 * (size_t)CLEAN_BYTES);
	place = (uintptr_t *)(void *)(clean + at);
}

static void blocks_may_move(void)
{
	make_clean();
	region_do(leave_and_move, NULL);
	search();
	stays(*place, "in a block that has grown");
	place += 2 * PAGE;
	test_put(put_there, "written into it since");
}

/* Processes. */

static void children_see_their_own_writes(void)
{
	make_clean();
	int child = fork();
	CHECK(child >= 0, "a child begins");
	test_put(put_there, "written after fork()");
	search();
	test_put(put_there, "written later");
	if (child == 0)
		_exit(0);
	CHECK(probe_wait_child(child, 20) == 0, "the child finds its own");
	test_put(put_there, "written when the child had ended");
}

static void descriptors_may_be_closed(void)
{
	make_clean();
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	test_put(put_there, "written when all was closed");
	search();
	for (int fd = 3; fd < 1024; fd++)
		dup2(2, fd);
	test_put(put_there, "written when the number was somebody else's");
}

static void forbid_userfaultfd(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "a filter is set");
}

static void where_it_is_denied_all_is_read(void)
{
	forbid_userfaultfd();
	clean = malloc(CLEAN_BYTES);
	memset(clean, 1, CLEAN_BYTES);
	place = (uintptr_t *)(void *)(clean + (5 << 20));
	search();
	uint64_t bytes = searched_bytes();
	test_put(put_there, "written where writes can't be tracked");
	CHECK(searched_bytes() - bytes >= CLEAN_BYTES, "all is read");
}

#define TRACKED(name_) WITH(name_, "LIBREGION_TRACK_WRITES=1")

const struct probe_case probe_cases[] = {
	TRACKED(the_program_s_writes_are_seen),
	TRACKED(the_kernel_s_writes_are_seen),
	TRACKED(changes_of_mappings_are_seen),
	TRACKED(pointers_into_open_scopes_are_remembered),
	TRACKED(blocks_may_move),
	TRACKED(children_see_their_own_writes),
	TRACKED(descriptors_may_be_closed),
	{.name = "where_it_is_denied_all_is_read", .run = where_it_is_denied_all_is_read,
	 .environment = SMALL " LIBREGION_TRACK_WRITES=1 LIBREGION_VERBOSE=1", .lines = PROBE_ANY_LINES,
	 .says = {"the kernel doesn't allow to track writes"}},
	{0},
};
