/*
 * object_cxx.cc: region.hpp's regions: the class, destructors at the end, the standard allocator, and the
 * memory resources.
 */
#include "scoped.h"

#include <cstdint>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "region.hpp"

extern "C" const enum probe_form probe_default_form = PROBE_FORM;

namespace {

struct counted {
	static int live;
	static std::string ended;
	char letter;
	explicit counted(char c) : letter(c) { live++; }
	~counted()
	{
		live--;
		ended += letter;
	}
};
int counted::live;
std::string counted::ended;

struct alignas(256) aligned {
	char bytes[300];
};

struct thrower {
	thrower() { throw std::runtime_error("no object"); }
	~thrower() { CHECK(false, "what wasn't made isn't destroyed"); }
};

void region_lives_as_long_as_the_object()
{
	counted::ended.reserve(16);
	{
		region::object r{"cxx"};
		r.make<counted>('a');
		r.make<counted>('b');
		CHECK(region_contains(r, r.make<int>(7)), "make gives a block of the region");
		CHECK(counted::live == 2, "two live: %d", counted::live);
		r.reset();
		CHECK(counted::live == 0 && counted::ended == "ba", "a reset ends them, last first: %s",
		      counted::ended.c_str());
		r.make<counted>('c');
	}
	CHECK(counted::live == 0 && counted::ended == "bac", "the object's end as well: %s",
	      counted::ended.c_str());
}

void made_objects_are_aligned()
{
	region::object r;
	for (int i = 0; i < 100; i++) {
		aligned *p = r.make<aligned>();
		CHECK(reinterpret_cast<std::uintptr_t>(p) % 256 == 0, "%p is aligned to 256", static_cast<void *>(p));
		r.make<char>('x');
	}
}

void constructor_that_throws_leaves_nothing()
{
	region::object r;
	bool caught = false;
	try {
		r.make<thrower>();
	} catch (const std::runtime_error &) {
		caught = true;
	}
	CHECK(caught, "the exception comes through");
	r.reset();
	r.make<counted>('x');
}

void objects_can_be_moved()
{
	region::object a{"a"};
	int *number = a.make<int>(5);
	region::object b{std::move(a)};
	CHECK(region_contains(b, number) && *number == 5, "it is the same region");
	region::object c;
	c.make<counted>('c');
	c = std::move(b);
	CHECK(region_contains(c, number), "assigned, too");
	std::vector<region::object> many;
	for (int i = 0; i < 100; i++) {
		many.emplace_back("many");
		*many.back().make<int>(i) += 1;
	}
}

void within_fills_it_by_new()
{
	region::object r;
	std::string *text = nullptr;
	r.within([&] { text = new std::string(1000, 'x'); });
	CHECK(region_contains(r, text) && region_contains(r, text->data()), "what new gives is the region's");
	CHECK(*text == std::string(1000, 'x'), "it stays");
	delete text;
	probe_heap_is_sound();
}

void exception_out_of_within_ends_it()
{
	region::object r;
	for (int i = 0; i < 100; i++) {
		bool caught = false;
		try {
			r.within([&] { throw std::runtime_error("thrown in a region, too long for a small string"); });
		} catch (const std::runtime_error &error) {
			caught = std::strncmp(error.what(), "thrown in", 9) == 0;
		}
		CHECK(caught && region_depth() == 0, "it comes through, and no scope is open: %u", region_depth());
		std::unique_ptr<int> p{new int(1)};
		CHECK(!region_contains(r, p.get()), "new is the heap's again");
	}
}

template <class T> using allocator = region::allocator<T>;

void containers_fill_a_region()
{
	region::object r;
	{
		using text = std::basic_string<char, std::char_traits<char>, allocator<char>>;
		std::vector<int, allocator<int>> numbers{allocator<int>{r}};
		std::map<int, text, std::less<int>, allocator<std::pair<const int, text>>> texts{
			allocator<std::pair<const int, text>>{r}};
		std::list<double, allocator<double>> doubles{allocator<double>{r}};
		for (int i = 0; i < 5000; i++) {
			numbers.push_back(i);
			texts.emplace(i, text(static_cast<std::size_t>(i % 100), 'y', allocator<char>{r}));
			doubles.push_back(i / 4.0);
		}
		for (int i = 0; i < 5000; i++)
			CHECK(numbers[static_cast<std::size_t>(i)] == i &&
			      texts.at(i).size() == static_cast<std::size_t>(i % 100), "item %d", i);
		CHECK(region_contains(r, numbers.data()) && region_contains(r, &doubles.front()), "from the region");
		auto copy = numbers;
		numbers.clear();
		CHECK(copy.size() == 5000 && copy[4999] == 4999, "copies are copies");
	}
	r.reset();
}

void newest_block_serves_again_when_deallocated()
{
	region::object r;
	allocator<char> from{r};
	for (int i = 0; i < 100000; i++)
		from.deallocate(from.allocate(1000), 1000);
	CHECK(region_len(r) <= 1024, "nothing is left behind: %zu", region_len(r));
}

void allocators_compare_by_region()
{
	region::object r, other;
	allocator<int> a{r}, b{other};
	allocator<double> c{a};
	CHECK(a == c && !(a != c), "of one region");
	CHECK(a != b && !(a == b), "of two");
}

void too_large_throws_bad_alloc()
{
	region::object r;
	allocator<int> from{r};
	for (std::size_t n : {SIZE_MAX, SIZE_MAX / 4, SIZE_MAX / 8}) {
		bool caught = false;
		try {
			probe_opaque(from.allocate(probe_opaque_size(n)));
		} catch (const std::bad_alloc &) {
			caught = true;
		}
		CHECK(caught, "%zu items are too many", n);
	}
}

void use_resource(std::pmr::memory_resource *resource)
{
	std::pmr::vector<std::pmr::string> texts{resource};
	std::pmr::unordered_map<int, std::pmr::vector<int>> lists{resource};
	for (int i = 0; i < 3000; i++) {
		texts.emplace_back(static_cast<std::size_t>(i % 200), 'z');
		lists[i % 50].push_back(i);
	}
	for (int i = 0; i < 3000; i++)
		CHECK(texts[static_cast<std::size_t>(i)].size() == static_cast<std::size_t>(i % 200), "text %d", i);
	CHECK(lists.size() == 50 && lists[7].size() == 60, "lists are whole");
	void *p = resource->allocate(100, 512);
	CHECK(reinterpret_cast<std::uintptr_t>(p) % 512 == 0, "alignments are kept: %p", p);
	resource->deallocate(p, 100, 512);
}

void memory_resource_over_a_region()
{
	region::object r, other;
	region::resource in{r}, same{r}, elsewhere{other};
	use_resource(&in);
	CHECK(region_len(r) > 100000 && region_len(other) == 0, "it fills the region: %zu", region_len(r));
	CHECK(in.is_equal(same) && !in.is_equal(elsewhere), "resources of one region are equal");
	std::pmr::vector<int> a{{1, 2, 3}, &in}, b{&elsewhere};
	b = std::move(a);
	CHECK(b.size() == 3 && region_contains(other, b.data()), "unequal ones copy");
}

void memory_resource_over_what_is_current()
{
	region::object r;
	std::pmr::memory_resource *current = region::current_resource();
	use_resource(current);
	region::run([&] {
		use_resource(current);
		void *p = current->allocate(100);
		CHECK(region_owns(p), "in a scope it is the scope's");
		current->deallocate(p, 100);
	});
	r.within([&] {
		use_resource(current);
		void *p = current->allocate(100, 16);
		CHECK(region_contains(r, p), "within a region it is the region's");
	});
	for (std::size_t align : {std::size_t(16), std::size_t(64)}) {
		bool caught = false;
		try {
			probe_opaque(current->allocate(probe_opaque_size(SIZE_MAX - 5), align));
		} catch (const std::bad_alloc &) {
			caught = true;
		}
		CHECK(caught, "too much, aligned to %zu, is refused", align);
	}
}

void threads_use_a_shared_region()
{
	region::options given{};
	given.shared = 1;
	region::object r{given};
	std::vector<std::thread> threads;
	for (int t = 0; t < 4; t++)
		threads.emplace_back([&, t] {
			std::vector<int, allocator<int>> numbers{allocator<int>{r}};
			for (int i = 0; i < 20000; i++)
				numbers.push_back(i ^ t);
			for (int i = 0; i < 20000; i++)
				CHECK(numbers[static_cast<std::size_t>(i)] == (i ^ t), "item %d of thread %d", i, t);
		});
	for (auto &thread : threads)
		thread.join();
}

} // namespace

#define CASE(name_) {#name_, name_, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr}

extern "C" const struct probe_case probe_cases[] = {
	CASE(region_lives_as_long_as_the_object),
	CASE(made_objects_are_aligned),
	CASE(constructor_that_throws_leaves_nothing),
	CASE(objects_can_be_moved),
	CASE(within_fills_it_by_new),
	CASE(exception_out_of_within_ends_it),
	CASE(containers_fill_a_region),
	CASE(newest_block_serves_again_when_deallocated),
	CASE(allocators_compare_by_region),
	CASE(too_large_throws_bad_alloc),
	CASE(memory_resource_over_a_region),
	CASE(memory_resource_over_what_is_current),
	CASE(threads_use_a_shared_region),
	{nullptr, nullptr, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr},
};
