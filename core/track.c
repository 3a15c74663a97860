/*
 * track.c: see track.h. Two bytes for each page of the heap lane: what is known of it, and how often it was
 * written soon after it had been protected.
 *
 * Nothing here relies on a page having been protected: a page that isn't counts as written.
 */
#include "track.h"

#include <string.h>

#include "os.h"
#include "range.h"
#include "written.h"

#define PAGE_SHIFT 12
#define COMMIT_BYTES ((size_t)1 << 16)

/* Begins when there is that much of the general heap. */
#define MIN_BYTES ((size_t)4 << 20)
/* Asking about a page, and a fault, in bytes that could be read meanwhile. */
#define ASKED_BYTES 24u
#define FAULT_BYTES 16384u

/* A page that stays clean for so many searches is a bit less hot. */
#define COOLING_SEARCHES 8u

/* What is known of a page. The first two are of the search before this one, and of this one. */
enum {
	PAGE_KNOWN = 1,    /* it was read whole, or skipped because it was known */
	PAGE_SEEN = 2,
	PAGE_INTEREST = 4, /* when it was read, something pointed to what is of interest */
	PAGE_CLEAN = 8,    /* not written since it was protected */
	PAGE_ARMED = 16,   /* a search before this one has protected it */
	PAGE_WANTED = 32,  /* shall be protected */
	PAGE_STRANGE = 64, /* the kernel doesn't track it */
};

#define HEAT_SHIFT 5
#define HEAT_MOST 5u
#define REST_MASK ((1u << HEAT_SHIFT) - 1)

#define EACH_BYTE 0x0101010101010101u

static struct track {
	enum track_mode mode;
	enum track_state state;
	unsigned char *pages, *heats;
	size_t reserved, committed; /* of each of the two, in bytes */
	size_t count;               /* pages of this search */
	unsigned searches;
	size_t faults;
	size_t asked;               /* the first page that isn't known yet to be clean or not */
} track;

void track_set_mode(enum track_mode mode)
{
	track.mode = mode;
}

enum track_state track_state(void)
{
	return track.state;
}

/* The table. */

static bool reserve(void)
{
	if (track.pages)
		return true;
	track.reserved = range.lanes[LANE_HEAP].reserved_bytes >> PAGE_SHIFT;
	track.reserved = (track.reserved + COMMIT_BYTES - 1) & ~(COMMIT_BYTES - 1);
	track.pages = os_reserve(2 * track.reserved);
	track.heats = track.pages + track.reserved;
	return track.pages != NULL;
}

static bool commit(size_t bytes)
{
	size_t goal = (bytes + COMMIT_BYTES - 1) & ~(COMMIT_BYTES - 1);

	if (goal <= track.committed)
		return true;
	if (!os_commit(track.pages + track.committed, goal - track.committed) ||
	    !os_commit(track.heats + track.committed, goal - track.committed))
		return false;
	track.committed = goal;
	return true;
}

void track_table(uintptr_t *lo, uintptr_t *hi)
{
	*lo = (uintptr_t)track.pages;
	*hi = *lo + 2 * track.reserved;
}

static void stop(enum track_state state)
{
	written_stop();
	track.state = state;
	track.count = 0;
	if (track.committed > 0)
		memset(track.pages, 0, track.committed);
}

void track_stop(void)
{
	if (track.state == TRACK_IS_ON)
		stop(TRACK_IS_OFF);
}

void track_forget(void)
{
	if (!track.pages)
		return;
	stop(TRACK_IS_OFF);
	os_unmap(track.pages, 2 * track.reserved);
	track.pages = track.heats = NULL;
	track.reserved = track.committed = 0;
}

static size_t page_of(uintptr_t at)
{
	return (at - (uintptr_t)range.base) >> PAGE_SHIFT;
}

static uintptr_t address_of(size_t page)
{
	return (uintptr_t)range.base + (page << PAGE_SHIFT);
}

static uint64_t eight_pages(size_t page)
{
	uint64_t pages;

	memcpy(&pages, track.pages + page, sizeof(pages));
	return pages;
}

/* Asking. */

/* It was protected, and written since: next time it isn't, for a while. */
static void note_fault(size_t page)
{
	unsigned heat = track.heats[page] >> HEAT_SHIFT;

	heat = heat < HEAT_MOST ? heat + 1 : heat;
	track.heats[page] = (unsigned char)(heat << HEAT_SHIFT | ((1u << heat) - 1));
	track.faults++;
}

static void cool(size_t page)
{
	if (track.heats[page] >= 1u << HEAT_SHIFT)
		track.heats[page] = (unsigned char)(track.heats[page] - (1u << HEAT_SHIFT));
}

static void note_clean(size_t page, size_t end)
{
	for (size_t i = page; i < end; i++)
		track.pages[i] |= PAGE_CLEAN;
	if (track.searches % COOLING_SEARCHES == 0)
		for (size_t i = page; i < end; i++)
			cool(i);
}

/* What lies before a run that may have been written, is clean. */
static void note_run(uintptr_t lo, uintptr_t hi)
{
	note_clean(track.asked, page_of(lo));
	track.asked = page_of(hi);
}

static void note_strange(uintptr_t lo, uintptr_t hi)
{
	for (size_t i = page_of(lo), end = page_of(hi); i < end; i++)
		track.pages[i] = PAGE_STRANGE;
}

/*
 * Memory that was moved or made anew is registered once more. All pages of it have to be protected then,
 * hot or not: on kernels of before 6.13 a page that was moved brings its protection's mark along, and would
 * go on to look clean. If that can't be, they are left alone. Nothing is known to be clean this time.
 */
static bool settle_strange(int pagemap)
{
	for (size_t i = 0; i < track.count; i++)
		track.pages[i] &= (unsigned char)~(PAGE_CLEAN | PAGE_ARMED);
	if (!written_ask_strange(pagemap, address_of(0), address_of(track.count), note_strange))
		return false;
	bool is_registered = written_register();
	for (size_t i = 0; i < track.count; i++)
		if (track.pages[i] & PAGE_STRANGE)
			track.pages[i] = is_registered ? PAGE_WANTED : PAGE_STRANGE;
	return true;
}

static bool ask(int pagemap)
{
	track.asked = 0;
	switch (written_ask(pagemap, address_of(0), address_of(track.count), note_run)) {
	case WRITTEN_TOLD:
		note_clean(track.asked, track.count);
		return true;
	case WRITTEN_STRANGE:
		return settle_strange(pagemap);
	case WRITTEN_UNKNOWN:
		break;
	}
	return false;
}

/* Is it on? It may have been another process's, or the program has closed the descriptor. */
static bool is_on(size_t heap_bytes)
{
	if (track.state == TRACK_IS_ON && written_is_on())
		return true;
	if (track.state == TRACK_IS_ON)
		stop(TRACK_IS_OFF);
	if (track.mode == TRACK_NEVER || track.state == TRACK_IS_DENIED ||
	    (track.mode == TRACK_WHEN_IT_PAYS && heap_bytes < MIN_BYTES))
		return false;
	bool has_begun = reserve() && written_start(track.mode == TRACK_FROM_THE_FIRST);
	track.state = has_begun ? TRACK_IS_ON : TRACK_IS_DENIED;
	return has_begun;
}

bool track_begin(int pagemap, size_t heap_bytes)
{
	track.count = 0;
	track.faults = 0;
	if (pagemap < 0 || !is_on(heap_bytes))
		return false;
	track.count = range.granules >> (PAGE_SHIFT - GRANULE_SHIFT);
	track.searches++;
	if (commit(track.count) && ask(pagemap))
		return true;
	stop(TRACK_IS_DENIED);
	return false;
}

/* Protecting. */

static void want(size_t i)
{
	unsigned page = track.pages[i];

	if (page & (PAGE_CLEAN | PAGE_STRANGE | PAGE_WANTED))
		return;
	if (page & PAGE_ARMED)
		note_fault(i);
	track.pages[i] = (unsigned char)(page &= ~(unsigned)PAGE_ARMED);
	/* What points to something of interest is read at any rate. */
	if ((page & (PAGE_KNOWN | PAGE_INTEREST)) == (PAGE_KNOWN | PAGE_INTEREST))
		return;
	if (track.heats[i] & REST_MASK)
		track.heats[i]--;
	else
		track.pages[i] = (unsigned char)(page | PAGE_WANTED);
}

void track_want(uintptr_t lo, uintptr_t hi)
{
	size_t page = page_of(lo), end = page_of(hi + OS_PAGE - 1);

	while (page < end) {
		if (end - page >= 8 && (eight_pages(page) & PAGE_CLEAN * EACH_BYTE) == PAGE_CLEAN * EACH_BYTE) {
			page += 8;
			continue;
		}
		want(page++);
	}
}

/* The first page from `page` on that is wanted, or isn't. */
static size_t next_wanted(size_t page, bool is_wanted)
{
	uint64_t none = is_wanted ? 0 : PAGE_WANTED * EACH_BYTE;

	while (page < track.count) {
		if (track.count - page >= 8 && (eight_pages(page) & PAGE_WANTED * EACH_BYTE) == none)
			page += 8;
		else if (!!(track.pages[page] & PAGE_WANTED) == is_wanted)
			return page;
		else
			page++;
	}
	return page;
}

/*
 * Before they are read: what is written by anybody who doesn't stand still is seen, if not now, then next
 * time. Should it fail, a mark of a moved page's may be left: so all is forgotten.
 */
bool track_protect(int pagemap)
{
	size_t page = 0, end;

	for (; (page = next_wanted(page, true)) < track.count; page = end) {
		end = next_wanted(page, false);
		if (!written_protect(pagemap, address_of(page), address_of(end))) {
			stop(TRACK_IS_DENIED);
			return false;
		}
		for (size_t i = page; i < end; i++)
			track.pages[i] = (unsigned char)((track.pages[i] & ~PAGE_WANTED) | PAGE_ARMED);
	}
	return true;
}

/* Reading. */

#define KNOWN_MASK (PAGE_KNOWN | PAGE_CLEAN | PAGE_INTEREST)
#define KNOWN (PAGE_KNOWN | PAGE_CLEAN)

static bool is_known(uintptr_t at)
{
	unsigned char *page = track.pages + page_of(at);

	if ((*page & KNOWN_MASK) != KNOWN)
		return false;
	*page |= PAGE_SEEN;
	return true;
}

/* Eight pages next to each other. */
static bool are_known(uintptr_t at)
{
	uint64_t pages = eight_pages(page_of(at));

	if ((pages & KNOWN_MASK * EACH_BYTE) != KNOWN * EACH_BYTE)
		return false;
	pages |= PAGE_SEEN * EACH_BYTE;
	memcpy(track.pages + page_of(at), &pages, sizeof(pages));
	return true;
}

uintptr_t track_next(uintptr_t lo, uintptr_t hi)
{
	while (lo < hi) {
		if (hi - lo >= 8 * OS_PAGE && are_known(lo))
			lo += 8 * OS_PAGE;
		else if (is_known(lo))
			lo += OS_PAGE;
		else
			return lo;
	}
	return hi;
}

uintptr_t track_end_of(uintptr_t lo, uintptr_t hi)
{
	while (lo < hi && !is_known(lo))
		lo += OS_PAGE;
	return lo < hi ? lo : hi;
}

void track_note(uintptr_t at, bool has_interest)
{
	unsigned char *page = track.pages + page_of(at);

	*page = (unsigned char)((*page & ~PAGE_INTEREST) | PAGE_SEEN | (has_interest ? PAGE_INTEREST : 0));
}

void track_end(bool is_done)
{
	const unsigned kept = is_done ? PAGE_INTEREST | PAGE_ARMED : PAGE_ARMED;

	for (size_t i = 0; i < track.count; i++) {
		unsigned page = track.pages[i];
		track.pages[i] = (unsigned char)((page & kept) | (is_done ? page >> 1 & PAGE_KNOWN : 0));
	}
}

size_t track_bytes(void)
{
	return track.count * ASKED_BYTES + track.faults * FAULT_BYTES;
}
