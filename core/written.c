/*
 * written.c: see written.h.
 *
 * The descriptor of userfaultfd must stay open: when it is closed, the kernel forgets what was registered,
 * and all pages count as written. A program may do that, and may get the number for something else; so
 * before it is used it is asked what it is: each userfaultfd has an inode of its own.
 */
#include "written.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "os.h"
#include "pagemap.h"
#include "range.h"
#include "syscalls.h"

/* Headers of before Linux 6.7 don't have these. */
#define FEATURE_UNPOPULATED ((uint64_t)1 << 13)
#define FEATURE_ASYNC ((uint64_t)1 << 15)
#define USER_MODE_ONLY 1

#define REGION_COUNT 512

static struct written {
	int fd;
	int process;    /* that has begun; 0: none */
	uint64_t inode;
	struct page_region *regions;
} written = {.fd = -1};

static bool inode_of(int fd, uint64_t *inode)
{
	struct stat status;

	if (fd < 0 || raw_call(SYS_fstat, fd, &status) != 0)
		return false;
	*inode = status.st_ino;
	return true;
}

bool written_is_on(void)
{
	uint64_t inode;

	return written.process != 0 && written.process == os_process_id() && inode_of(written.fd, &inode) &&
	       inode == written.inode;
}

void written_stop(void)
{
	uint64_t inode;

	if (inode_of(written.fd, &inode) && inode == written.inode)
		os_close(written.fd);
	written.fd = -1;
	written.process = 0;
}

static int open_fd(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURE_ASYNC | FEATURE_UNPOPULATED};
	long fd = raw_call(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd < 0)
		return -1;
	int kept = raw_call(SYS_ioctl, fd, UFFDIO_API, &api) == 0 ? os_keep_fd((int)fd) : -1;
	if (kept != fd)
		os_close((int)fd);
	return kept;
}

bool written_start(bool is_forced)
{
	written_stop();
	if (!is_forced && raw_call(SYS_prctl, PR_GET_SECCOMP) != 0)
		return false;
	if (!written.regions)
		written.regions = range_meta_alloc(REGION_COUNT * sizeof(*written.regions));
	written.fd = written.regions ? open_fd() : -1;
	if (!inode_of(written.fd, &written.inode))
		return false;
	written.process = os_process_id();
	if (written_register())
		return true;
	written_stop();
	return false;
}

bool written_register(void)
{
	const struct lane *lane = &range.lanes[LANE_HEAP];
	struct uffdio_register what = {
		.range = {.start = (uintptr_t)lane->base, .len = lane->reserved_bytes},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return written_is_on() && raw_call(SYS_ioctl, written.fd, UFFDIO_REGISTER, &what) == 0;
}

/* 0, or the negated error. */
static long scan(int pagemap, struct pagemap_scan *scan, uintptr_t lo, uintptr_t hi, written_fn *fn)
{
	const struct page_region *regions = written.regions;

	scan->size = sizeof(*scan);
	scan->vec = (uintptr_t)regions;
	scan->vec_len = REGION_COUNT;
	scan->end = hi;
	for (scan->start = lo; scan->start < hi; scan->start = scan->walk_end) {
		long n = raw_result(SYS_ioctl, pagemap, PAGEMAP_SCAN, scan);
		if (n < 0 || scan->walk_end <= scan->start)
			return n < 0 ? n : -EIO;
		for (long i = 0; i < n; i++)
			fn(regions[i].start, regions[i].end);
	}
	return 0;
}

/* This one question the kernel has a fast way for. */
enum written_answer written_ask(int pagemap, uintptr_t lo, uintptr_t hi, written_fn *fn)
{
	struct pagemap_scan asked = {
		.flags = PAGEMAP_CHECK,
		.category_mask = PAGE_WRITTEN,
		.return_mask = PAGE_WRITTEN,
	};
	long result = scan(pagemap, &asked, lo, hi, fn);

	return result == 0 ? WRITTEN_TOLD : result == -EPERM ? WRITTEN_STRANGE : WRITTEN_UNKNOWN;
}

bool written_ask_strange(int pagemap, uintptr_t lo, uintptr_t hi, written_fn *fn)
{
	struct pagemap_scan asked = {
		.category_inverted = PAGE_TRACKED,
		.category_mask = PAGE_TRACKED,
		.category_anyof_mask = PAGE_PRESENT | PAGE_SWAPPED,
		.return_mask = PAGE_TRACKED,
	};

	return scan(pagemap, &asked, lo, hi, fn) == 0;
}

/* Whether or not they count as written: older kernels leave marks on pages that were moved. */
bool written_protect(int pagemap, uintptr_t lo, uintptr_t hi)
{
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.flags = PAGEMAP_PROTECT | PAGEMAP_CHECK,
		.end = hi,
		.category_mask = PAGE_PRESENT,
		.return_mask = PAGE_PRESENT,
	};

	for (scan.start = lo; scan.start < hi; scan.start = scan.walk_end)
		if (raw_call(SYS_ioctl, pagemap, PAGEMAP_SCAN, &scan) < 0 || scan.walk_end <= scan.start)
			return false;
	return true;
}
