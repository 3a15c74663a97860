/*
 * pmr.cc: the C++ half of ways.h: std::pmr::monotonic_buffer_resource; and of shared.c:
 * std::pmr::synchronized_pool_resource, the one that threads may share.
 *
 * Their upstream is malloc, through operator new. The monotonic one's first buffer is the thread's own,
 * so that small extents cost it no malloc at all; the end of an extent (release) keeps just that one. An
 * allocation is a virtual call, which is what it is for std::pmr's containers.
 */
#include <cstddef>
#include <memory_resource>
#include <string>

extern "C" {
void pmr_begin(void);
void pmr_release(void);
void pmr_drop(void);
void *pmr_take(std::size_t size);
void pmr_write(std::size_t writes, const char *piece, std::size_t length,
               void (*look)(const char *, std::size_t));
void sync_make(std::size_t bytes);
void sync_release(void);
void sync_drop(void);
void *sync_take(std::size_t size);
}

namespace {

struct kept {
	alignas(16) std::byte first[64 << 10];
	std::pmr::monotonic_buffer_resource resource{first, sizeof(first), std::pmr::new_delete_resource()};
};

thread_local kept *mine;
std::pmr::synchronized_pool_resource *ours;

} // namespace

void pmr_begin(void)
{
	if (!mine)
		mine = new kept;
}

void pmr_release(void)
{
	mine->resource.release();
}

void pmr_drop(void)
{
	delete mine;
	mine = nullptr;
}

void *pmr_take(std::size_t size)
{
	std::pmr::memory_resource *resource = &mine->resource;

	return resource->allocate(size);
}

/* For text.c: a text of so many writes; look() checks it. */
void pmr_write(std::size_t writes, const char *piece, std::size_t length,
               void (*look)(const char *, std::size_t))
{
	std::pmr::string text{&mine->resource};

	for (std::size_t i = 0; i < writes; i++)
		text.append(piece, length);
	look(text.data(), text.size());
}

void sync_make(std::size_t)
{
	ours = new std::pmr::synchronized_pool_resource(std::pmr::new_delete_resource());
}

void sync_release(void)
{
	ours->release();
}

void sync_drop(void)
{
	delete ours;
	ours = nullptr;
}

void *sync_take(std::size_t size)
{
	std::pmr::memory_resource *resource = ours;

	return resource->allocate(size);
}
