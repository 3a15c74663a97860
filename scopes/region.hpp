/*
 * region.hpp: region scopes for C++. See region.h for what a scope is.
 *
 *     region::scope s{"request"};              // to the end of the block, however it is left
 *     auto n = region::run([&] { return parse(text); });  // the call is a scope; its value comes back
 *
 * What run() returns is moved out of the scope: under the policy `unfreed` a result that holds memory
 * stays valid as any pointer does; under `none` it must not hold any.
 */
#ifndef REGION_HPP
#define REGION_HPP

#include <type_traits>
#include <utility>

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

} // namespace region

#endif
