/*
 * cxx.cc: C++'s allocation operators as the standard has them ([new.delete]): the new-handler, bad_alloc,
 * nothrow, alignment, and the plain pairing of forms.
 */
#include "probe.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <map>
#include <memory>
#include <new>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

extern "C" const enum probe_form probe_default_form = PROBE_PRELOADED;

namespace {

const std::size_t too_much = static_cast<std::size_t>(PTRDIFF_MAX) + 1;

bool is_aligned(const void *p, std::size_t align)
{
	return reinterpret_cast<std::uintptr_t>(p) % align == 0;
}

template <class Call> bool throws_bad_alloc(Call call)
{
	try {
		call();
	} catch (const std::bad_alloc &) {
		return true;
	}
	return false;
}

void new_that_fails_throws_bad_alloc()
{
	std::size_t size = probe_opaque_size(too_much);
	auto align = std::align_val_t(64);
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new(size)); }), "new throws bad_alloc");
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new[](size)); }), "new[] throws bad_alloc");
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new(size, align)); }),
	      "aligned new throws bad_alloc");
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new[](size, align)); }),
	      "aligned new[] throws bad_alloc");
	probe_heap_is_sound();
}

void nothrow_new_that_fails_returns_null()
{
	std::size_t size = probe_opaque_size(too_much);
	auto align = std::align_val_t(64);
	CHECK(!::operator new(size, std::nothrow), "nothrow new returns null");
	CHECK(!::operator new[](size, std::nothrow), "nothrow new[] returns null");
	CHECK(!::operator new(size, align, std::nothrow), "aligned nothrow new returns null");
	CHECK(!::operator new[](size, align, std::nothrow), "aligned nothrow new[] returns null");
}

/* --- the new-handler --- */

int handler_calls;

void give_up_at_the_third_call()
{
	if (++handler_calls == 3)
		std::set_new_handler(nullptr);
}

void throwing_new_runs_the_new_handler_until_there_is_none()
{
	std::size_t size = probe_opaque_size(too_much);
	std::set_new_handler(give_up_at_the_third_call);
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new(size)); }), "new throws in the end");
	CHECK(handler_calls == 3, "the handler runs until there is none: %d calls", handler_calls);
}

void nothrow_new_runs_the_new_handler_as_well()
{
	std::size_t size = probe_opaque_size(too_much);
	std::set_new_handler(give_up_at_the_third_call);
	CHECK(!::operator new(size, std::nothrow), "nothrow new returns null in the end");
	CHECK(handler_calls == 3, "the handler runs until there is none: %d calls", handler_calls);
}

void aligned_new_runs_the_new_handler_as_well()
{
	std::size_t size = probe_opaque_size(too_much);
	std::set_new_handler(give_up_at_the_third_call);
	CHECK(throws_bad_alloc([=] { probe_opaque(::operator new(size, std::align_val_t(128))); }),
	      "aligned new throws in the end");
	CHECK(handler_calls == 3, "the handler runs until there is none: %d calls", handler_calls);
}

struct stopped : std::bad_alloc {};

void throw_our_own()
{
	throw stopped();
}

void exception_of_the_new_handler_reaches_the_caller()
{
	std::size_t size = probe_opaque_size(too_much);
	bool caught = false;
	std::set_new_handler(throw_our_own);
	try {
		probe_opaque(::operator new(size));
	} catch (const stopped &) {
		caught = true;
	}
	CHECK(caught, "what the handler throws goes through new");
}

/* Under a limit on address space: the handler frees a reserve, and new then succeeds. */
void *reserve;

void free_the_reserve()
{
	std::free(reserve);
	reserve = nullptr;
	std::set_new_handler(nullptr);
}

void new_handler_that_frees_memory_lets_new_succeed()
{
	const std::size_t big = std::size_t(48) << 20;
	std::vector<void *> all;
	all.reserve(1000);
	reserve = std::malloc(big);
	CHECK(reserve, "malloc serves");
	while (void *p = std::malloc(big / 4))
		all.push_back(p);
	std::set_new_handler(free_the_reserve);
	void *p = ::operator new(big);
	CHECK(p && !reserve, "new succeeds with what the handler freed");
	::operator delete(p);
	for (void *q : all)
		std::free(q);
}

/* --- forms --- */

void new_of_zero_bytes_is_unique()
{
	void *a = ::operator new(0), *b = ::operator new[](0);
	CHECK(a && b && a != b, "new of nothing is unique");
	::operator delete(a);
	::operator delete[](b);
}

void new_aligns_every_size_to_16()
{
	for (std::size_t size = 0; size < 4096; size++) {
		void *p = ::operator new(size);
		CHECK(is_aligned(p, 16), "new(%zu) aligns to 16", size);
		std::memset(p, 1, size);
		::operator delete(p);
	}
}

void aligned_new_aligns()
{
	for (std::size_t align = 1; align <= 65536; align *= 2)
		for (std::size_t size = 0; size < 100000; size = size * 3 + 1) {
			auto a = std::align_val_t(align);
			void *p = ::operator new(size, a), *q = ::operator new[](size, a);
			void *r = ::operator new(size, a, std::nothrow);
			CHECK(is_aligned(p, align) && is_aligned(q, align) && is_aligned(r, align),
			      "new(%zu, align %zu) aligns", size, align);
			CHECK(malloc_usable_size(p) >= size, "and has room for its size");
			std::memset(p, 1, size);
			::operator delete(p, a);
			::operator delete[](q, size, a);
			::operator delete(r, a, std::nothrow);
		}
	probe_heap_is_sound();
}

void every_delete_takes_its_block_back()
{
	auto a = std::align_val_t(64);
	for (int i = 0; i < 1000; i++) {
		::operator delete(::operator new(100));
		::operator delete[](::operator new[](100));
		::operator delete(::operator new(100), std::size_t(100));
		::operator delete[](::operator new[](100), std::size_t(100));
		::operator delete(::operator new(100), std::nothrow);
		::operator delete[](::operator new[](100, std::nothrow), std::nothrow);
		::operator delete(::operator new(100, a), a);
		::operator delete[](::operator new[](100, a), a);
		::operator delete(::operator new(100, a), std::size_t(100), a);
		::operator delete[](::operator new[](100, a), std::size_t(100), a);
		::operator delete(::operator new(100, a, std::nothrow), a, std::nothrow);
		::operator delete[](::operator new[](100, a, std::nothrow), a, std::nothrow);
	}
	probe_heap_is_sound();
}

void delete_of_null_does_nothing()
{
	::operator delete(nullptr);
	::operator delete[](nullptr);
	::operator delete(nullptr, std::size_t(8));
	::operator delete[](nullptr, std::size_t(8));
	::operator delete(nullptr, std::align_val_t(64));
	::operator delete[](nullptr, std::size_t(8), std::align_val_t(64));
	::operator delete(nullptr, std::nothrow);
}

/* --- programs --- */

struct alignas(256) wide {
	char bytes[300];
};

void over_aligned_types_are_aligned_everywhere()
{
	std::vector<wide> many(10);
	auto one = std::make_unique<wide>();
	auto shared = std::make_shared<wide>();
	for (const wide &w : many)
		CHECK(is_aligned(&w, 256), "a vector's elements are aligned");
	CHECK(is_aligned(probe_opaque(one.get()), 256), "make_unique aligns");
	CHECK(is_aligned(probe_opaque(shared.get()), 256), "make_shared aligns");
}

void containers_keep_their_contents()
{
	std::map<int, std::string> map;
	for (int i = 0; i < 20000; i++)
		map[i * 7919 % 20011] = std::string(static_cast<std::size_t>(i % 300), 'x') + "!";
	for (int i = 0; i < 20000; i += 2)
		map.erase(i);
	for (const auto &entry : map)
		CHECK(entry.second.back() == '!', "a string keeps its contents");
}

struct late {
	std::string text = std::string(1000, 'l');
	std::vector<void *> blocks;
	~late()
	{
		for (int i = 0; i < 100; i++)
			blocks.push_back(::operator new(static_cast<std::size_t>(i) * 37));
		for (void *p : blocks)
			::operator delete(p);
		CHECK(text.size() == 1000 && text[999] == 'l', "a thread's object lives to its end");
	}
};

thread_local late late_object;

void thread_local_destructors_may_allocate_and_free()
{
	for (int i = 0; i < 200; i++)
		std::thread([] { late_object.text += "x", late_object.text.pop_back(); }).join();
	late_object.text.shrink_to_fit();
}

late static_object;

void static_destructors_may_allocate_and_free()
{
	static late function_static;
	static_object.text.shrink_to_fit();
	function_static.blocks.push_back(::operator new(10));
}

/* An exception that is thrown with memory out comes from libstdc++'s emergency pool. */
void exception_can_be_thrown_with_memory_out()
{
	std::vector<void *> all;
	all.reserve(100000);
	for (std::size_t size = std::size_t(64) << 20; size >= 4096; size /= 2)
		while (void *p = all.size() < 100000 ? std::malloc(size) : nullptr)
			all.push_back(p);
	CHECK(throws_bad_alloc([] { probe_opaque(::operator new(std::size_t(64) << 20)); }),
	      "bad_alloc is thrown with memory out");
	for (void *p : all)
		std::free(p);
}

} // namespace

extern "C" const struct probe_case probe_cases[] = {
#define CASE(name_) {#name_, name_, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr}
#define WITHIN(name_, megabytes_) \
	{#name_, name_, nullptr, {}, nullptr, 0, 0, 0, 0, std::size_t(megabytes_) << 20, 0, \
	 PROBE_PRELOADED, false, nullptr}
	CASE(new_that_fails_throws_bad_alloc),
	CASE(nothrow_new_that_fails_returns_null),
	CASE(throwing_new_runs_the_new_handler_until_there_is_none),
	CASE(nothrow_new_runs_the_new_handler_as_well),
	CASE(aligned_new_runs_the_new_handler_as_well),
	CASE(exception_of_the_new_handler_reaches_the_caller),
	WITHIN(new_handler_that_frees_memory_lets_new_succeed, 400),
	CASE(new_of_zero_bytes_is_unique),
	CASE(new_aligns_every_size_to_16),
	CASE(aligned_new_aligns),
	CASE(every_delete_takes_its_block_back),
	CASE(delete_of_null_does_nothing),
	CASE(over_aligned_types_are_aligned_everywhere),
	CASE(containers_keep_their_contents),
	CASE(thread_local_destructors_may_allocate_and_free),
	CASE(static_destructors_may_allocate_and_free),
	WITHIN(exception_can_be_thrown_with_memory_out, 256),
	{nullptr, nullptr, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr},
};
