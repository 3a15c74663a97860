/*
 * region.hpp: region scopes and regions for C++. See region.h for what a scope is, and region_objects.h for
 * regions as objects.
 *
 *     region::scope s{"request"};              // to the end of the block, however it is left
 *     auto n = region::run([&] { return parse(text); });  // the call is a scope; its value comes back
 *
 * What run() returns is moved out of the scope: under the policy `unfreed` a result that holds memory
 * stays valid as any pointer does; under `none` it must not hold any.
 *
 *     region::object r{"session"};                        // a region; it ends with the object
 *     auto *n = r.make<node>(1, 2);                       // its destructor runs when the region ends
 *     std::vector<int, region::allocator<int>> v{region::allocator<int>{r}};
 *     region::resource in{r};                             // C++17: a std::pmr::memory_resource
 *     std::pmr::string s{"text", &in};
 *
 * Threads as in C.
 */
#ifndef REGION_HPP
#define REGION_HPP

#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#if __cplusplus >= 201703L && defined(__has_include)
#if __has_include(<memory_resource>)
#include <memory_resource>
#define REGION_HAS_RESOURCE 1
#endif
#endif

#include "region.h"

namespace region {

using options = region_options;

/* A scope from construction to destruction, on the thread that does both. */
class scope {
public:
	scope() { region_enter(&handle_); }
	explicit scope(const char *name)
	{
		options given{};
		given.name = name;
		region_enter_with(&handle_, &given);
	}
	explicit scope(const options &given) { region_enter_with(&handle_, &given); }
	~scope() { region_leave(&handle_); }

	scope(const scope &) = delete;
	scope &operator=(const scope &) = delete;

private:
	region_scope handle_;
};

/* Calls f() in a scope of its own, and returns what it returns. Exceptions pass through, and end it. */
template <class F> auto run(F &&f) -> decltype(std::forward<F>(f)())
{
	scope s;
	return std::forward<F>(f)();
}

template <class F> auto run(const options &given, F &&f) -> decltype(std::forward<F>(f)())
{
	scope s{given};
	return std::forward<F>(f)();
}

/* Calls f() with the general heap. An exception must not leave f. */
template <class F> void ignore(F &&f)
{
	using callable = typename std::remove_reference<F>::type;

	region_ignore([](void *arg) { (*static_cast<callable *>(arg))(); },
	              const_cast<void *>(static_cast<const void *>(&f)));
}

/* Memory or std::bad_alloc. */
template <class T> T *checked(T *p)
{
	if (!p)
		throw std::bad_alloc();
	return p;
}

/* A block of a region for an object of any alignment. */
inline void *allocate(region_t *from, std::size_t bytes, std::size_t align)
{
	return checked(align <= 16 ? region_alloc(from, bytes) : region_memalign(from, align, bytes));
}

/* A region from construction to destruction. Converts to region_t *, for all that C offers. */
class object {
public:
	object() : region_(checked(region_create(nullptr))) {}
	explicit object(const char *name) : object(named(name)) {}
	explicit object(const options &given) : region_(checked(region_create(&given))) {}
	~object() { region_destroy(region_); }

	object(object &&from) noexcept : region_(from.region_) { from.region_ = nullptr; }
	object &operator=(object &&from) noexcept
	{
		std::swap(region_, from.region_);
		return *this;
	}
	object(const object &) = delete;
	object &operator=(const object &) = delete;

	operator region_t *() const { return region_; }

	/* A T in the region. If T needs destruction, that happens when the region is reset or ends. */
	template <class T, class... Args> T *make(Args &&...args)
	{
		T *p = ::new (allocate(region_, sizeof(T), alignof(T))) T(std::forward<Args>(args)...);
		if (!std::is_trivially_destructible<T>::value &&
		    region_on_end(region_, [](void *q) { static_cast<T *>(q)->~T(); }, p) != 0) {
			p->~T();
			throw std::bad_alloc();
		}
		return p;
	}

	/* Calls f() with the region as the thread's current one: what new and malloc() give is in it. */
	template <class F> void within(F &&f)
	{
		using callable = typename std::remove_reference<F>::type;

		region_within(region_, [](void *arg) { (*static_cast<callable *>(arg))(); },
		              const_cast<void *>(static_cast<const void *>(&f)));
	}

	void reset() { region_reset(region_); }

private:
	static options named(const char *name)
	{
		options given{};
		given.name = name;
		return given;
	}

	region_t *region_;
};

/* A standard allocator over a region. What is deallocated serves again only if it was the newest block. */
template <class T> class allocator {
public:
	using value_type = T;

	explicit allocator(region_t *from) noexcept : region_(from) {}
	template <class U> allocator(const allocator<U> &other) noexcept : region_(other.region()) {}

	T *allocate(std::size_t n)
	{
		if (n > static_cast<std::size_t>(-1) / sizeof(T))
			throw std::bad_alloc();
		return static_cast<T *>(::region::allocate(region_, n * sizeof(T), alignof(T)));
	}
	void deallocate(T *p, std::size_t n) noexcept { region_realloc(region_, p, n * sizeof(T), 0); }

	region_t *region() const noexcept { return region_; }

private:
	region_t *region_;
};

template <class T, class U> bool operator==(const allocator<T> &a, const allocator<U> &b) noexcept
{
	return a.region() == b.region();
}

template <class T, class U> bool operator!=(const allocator<T> &a, const allocator<U> &b) noexcept
{
	return a.region() != b.region();
}

#ifdef REGION_HAS_RESOURCE
/* A memory resource over a region, with deallocation as above. */
class resource : public std::pmr::memory_resource {
public:
	explicit resource(region_t *from) noexcept : region_(from) {}

	region_t *region() const noexcept { return region_; }

private:
	void *do_allocate(std::size_t bytes, std::size_t align) override
	{
		return ::region::allocate(region_, bytes, align);
	}
	void do_deallocate(void *p, std::size_t bytes, std::size_t) override
	{
		region_realloc(region_, p, bytes, 0);
	}
	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		const resource *same = dynamic_cast<const resource *>(&other);
		return same && same->region_ == region_;
	}

	region_t *region_;
};

/*
 * The memory resource over the current scope: malloc() and free(), so that what is allocated in a scope is in
 * its region, and outside of any on the general heap, and deallocation is real.
 */
inline std::pmr::memory_resource *current_resource() noexcept
{
	class current : public std::pmr::memory_resource {
		void *do_allocate(std::size_t bytes, std::size_t align) override
		{
			/* aligned_alloc() wants a multiple of the alignment; what wraps round is too much. */
			std::size_t rounded = (bytes + align - 1) & ~(align - 1);
			if (rounded < bytes)
				throw std::bad_alloc();
			return checked(align <= 16 ? std::malloc(bytes) : ::aligned_alloc(align, rounded));
		}
		void do_deallocate(void *p, std::size_t, std::size_t) override { std::free(p); }
		bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
		{
			return this == &other;
		}
	};
	static current instance;
	return &instance;
}
#endif

} // namespace region

#endif
