/*
 * exceptions.cc: C++ exceptions, and the forced unwinding of threads, through sites.
 */
#include "sites.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <map>
#include <pthread.h>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#ifdef __clang__
#define SITE_CXX extern "C" __attribute__((noinline, used))
#else
#define SITE_CXX extern "C" __attribute__((noipa, used))
#endif

namespace
{

struct counted {
	static int destroyed;
	~counted()
	{
		destroyed++;
	}
};
int counted::destroyed;

} // namespace

SITE_CXX void throw_now(int n)
{
	counted local;
	site_depth_is(1, "before a throw");
	site_churn();
	if (n >= 0)
		throw std::runtime_error("thrown " + std::to_string(n));
}

SITE_CXX void throw_below(int n)
{
	counted local;
	std::string text(static_cast<std::size_t>(n) + 40, 'x');
	if (n > 0)
		throw_below(n - 1);
	else
		throw_now(static_cast<int>(text.size()));
	SITE_END();
}

static void caught_by_the_caller()
{
	for (int i = 0; i < 300; i++) {
		try {
			throw_now(i);
		} catch (const std::runtime_error &error) {
			site_depth_is(0, "in the caller's handler");
			std::printf("%s\n", error.what());
		}
	}
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

static void caught_further_out()
{
	for (int i = 0; i < 300; i++) {
		try {
			throw_below(i % 7);
		} catch (const std::exception &error) {
			site_depth_is(0, "in a handler further out");
			std::printf("%s\n", error.what());
		}
	}
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

/* throw_now() itself checks that it is in one scope; here it is in many. */
SITE_CXX void throw_deep(int n)
{
	counted local;
	site_churn();
	if (n >= 0)
		throw std::runtime_error("from deep down " + std::to_string(n));
}

/* Functions that call one another, for scopes in scopes. */
#define LEVEL(name, below) \
	SITE_CXX void name(int n) \
	{ \
		counted local; \
		below(n); \
		SITE_END(); \
	}
LEVEL(deep_1, throw_deep)
LEVEL(deep_2, deep_1)
LEVEL(deep_3, deep_2)
LEVEL(deep_4, deep_3)
LEVEL(deep_5, deep_4)
LEVEL(deep_6, deep_5)

SITE_CXX void catches_between(int n)
{
	try {
		deep_2(n);
	} catch (const std::exception &) {
		site_depth_is(1, "in a handler between scopes");
		site_churn();
	}
}

static void caught_between_scopes()
{
	for (int i = 0; i < 100; i++)
		catches_between(i);
	site_depth_is(0, "after the sites");
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

static void passes_several_scopes()
{
	for (int i = 0; i < 100; i++) {
		try {
			deep_6(i);
		} catch (const std::exception &error) {
			site_depth_is(0, "after seven scopes");
			std::printf("%s\n", error.what());
		}
	}
	site_kept_are_whole();
}

SITE_CXX int catches(int n)
{
	counted local;
	try {
		throw_below(n);
	} catch (const std::runtime_error &error) {
		site_depth_is(1, "in the site's own handler");
		std::string copy = error.what();
		site_churn();
		return static_cast<int>(copy.size());
	}
	return -1;
}

static void caught_inside_the_site()
{
	for (int i = 0; i < 300; i++)
		std::printf("%d\n", catches(i % 3));
	site_depth_is(0, "after the site");
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

SITE_CXX void rethrows(int n)
{
	try {
		throw_below(n);
	} catch (...) {
		counted local;
		site_depth_is(1, "before throwing again");
		throw;
	}
}

static void thrown_again()
{
	for (int i = 0; i < 300; i++) {
		try {
			rethrows(i % 3);
		} catch (const std::runtime_error &error) {
			site_depth_is(0, "after throwing again");
			std::printf("%s\n", error.what());
		}
	}
	site_kept_are_whole();
}

SITE_CXX void nests(int n)
{
	try {
		throw_below(1);
	} catch (...) {
		if (n > 0)
			std::throw_with_nested(std::logic_error("outer " + std::to_string(n)));
		throw;
	}
}

static void nested_exceptions_keep_their_inner_ones()
{
	for (int i = 0; i < 100; i++) {
		try {
			nests(i % 2);
		} catch (const std::logic_error &outer) {
			try {
				std::rethrow_if_nested(outer);
			} catch (const std::runtime_error &inner) {
				std::printf("%s, %s\n", outer.what(), inner.what());
			}
		} catch (const std::runtime_error &error) {
			std::printf("%s\n", error.what());
		}
		site_depth_is(0, "after the handlers");
	}
	site_kept_are_whole();
}

struct throws_in_destructor {
	~throws_in_destructor()
	{
		try {
			throw_now(9);
		} catch (const std::exception &error) {
			std::printf("%s\n", error.what());
		}
	}
};

SITE_CXX void unwinds_past_a_destructor(int n)
{
	throws_in_destructor local;
	if (n >= 0)
		throw n;
}

static void thrown_while_unwinding()
{
	for (int i = 0; i < 100; i++) {
		try {
			unwinds_past_a_destructor(i);
		} catch (int n) {
			site_depth_is(0, "after both");
			std::printf("%d\n", n);
		}
	}
	site_kept_are_whole();
}

SITE_CXX void throws_with_stack_arguments(int a, int b, int c, int d, int e, int f, int g, int h,
                                          std::string text)
{
	if (text.size() == static_cast<std::size_t>(a + b + c + d + e + f + g + h))
		throw text;
}

static void stack_arguments_are_destroyed()
{
	for (int i = 0; i < 100; i++) {
		try {
			throws_with_stack_arguments(1, 2, 3, 4, 5, 6, 7, 8, std::string(36, 'y'));
		} catch (const std::string &text) {
			site_depth_is(0, "in the handler");
			std::printf("%s\n", text.c_str());
		}
	}
}

namespace
{

/* Aligned, so that there is padding: bytes elsewhere that look like a jump into it then do no harm. */
template <class T> struct holder {
	__attribute__((noinline, aligned(32))) T doubled(T value)
	{
		std::vector<T> values(10, value);
		if (value > 10)
			throw value;
		return values[9] * 2;
	}
};

} // namespace

static void end_quietly()
{
	std::printf("terminated\n");
	std::fflush(stdout);
	_exit(8);
}

SITE_CXX void throws_nothing_it_may() noexcept
{
	throw_now(1);
}

static void terminate_is_reached()
{
	std::set_terminate(end_quietly);
	throws_nothing_it_may();
}

static void uncaught_exception_ends_the_program()
{
	std::set_terminate(end_quietly);
	throw_now(1);
}

SITE_CXX std::size_t count_words(int n)
{
	std::map<std::string, int> words;
	site_depth_is(1, "in a site of another thread");
	for (int i = 0; i < n; i++)
		words["word number " + std::to_string(i % 50)]++;
	if (n > 190)
		throw std::out_of_range("too many: " + std::to_string(n));
	return words.size();
}

static void exceptions_reach_other_threads()
{
	for (int i = 0; i < 100; i++) {
		auto answer = std::async(std::launch::async, count_words, 2 * i);
		try {
			std::printf("%zu\n", answer.get());
		} catch (const std::out_of_range &error) {
			std::printf("%s\n", error.what());
		}
	}
	site_depth_is(0, "after the threads");
}

/* --- forced unwinding --- */

static volatile int is_inside;

SITE_CXX void waits_inside()
{
	counted local;
	site_churn();
	is_inside = 1;
	for (;;)
		pause();
}

SITE_CXX void waits_below()
{
	counted local;
	waits_inside();
	SITE_END();
}

static void *waits(void *unused)
{
	counted local;
	waits_below();
	return unused;
}

SITE_CXX void exits_inside()
{
	counted local;
	site_churn();
	pthread_exit(reinterpret_cast<void *>(5));
}

static void *exits(void *unused)
{
	counted local;
	exits_inside();
	return unused;
}

static void cancellation_runs_destructors()
{
	for (int i = 0; i < 50; i++) {
		pthread_t thread;
		void *result;
		is_inside = 0;
		pthread_create(&thread, nullptr, waits, nullptr);
		while (!is_inside)
			sched_yield();
		pthread_cancel(thread);
		pthread_join(thread, &result);
		site_check(result == PTHREAD_CANCELED, "the thread was cancelled");
	}
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

static void pthread_exit_runs_destructors()
{
	for (int i = 0; i < 50; i++) {
		pthread_t thread;
		void *result;
		pthread_create(&thread, nullptr, exits, nullptr);
		pthread_join(thread, &result);
		std::printf("%ld\n", reinterpret_cast<long>(result));
	}
	std::printf("%d destroyed\n", counted::destroyed);
	site_kept_are_whole();
}

static void members_of_templates_are_sites()
{
	holder<int> numbers;
	for (int i = 0; i < 100; i++) {
		try {
			std::printf("%d\n", numbers.doubled(i % 20));
		} catch (int n) {
			std::printf("caught %d\n", n);
		}
		site_depth_is(0, "after the call");
	}
}

#define DOUBLED "_ZN12_GLOBAL__N_16holderIiE7doubledEi"

extern "C" const struct site_case site_cases[] = {
	{"caught_by_the_caller", caught_by_the_caller, "throw_now", "throw_now=300"},
	{"caught_further_out", caught_further_out, "throw_below", "throw_below=300"},
	{"passes_several_scopes", passes_several_scopes,
     "throw_deep/nest,deep_1/nest,deep_2/nest,deep_3/nest,deep_4/nest,deep_5/nest,deep_6/nest",
     "throw_deep=100 deep_1=100 deep_3=100 deep_6=100"},
	{"caught_between_scopes", caught_between_scopes,
     "catches_between,deep_1/nest,deep_2/nest,throw_deep/nest",
     "catches_between=100 deep_1=100 deep_2=100 throw_deep=100"},
	{"caught_inside_the_site", caught_inside_the_site, "catches", "catches=300"},
	{"thrown_again", thrown_again, "rethrows", "rethrows=300"},
	{"nested_exceptions_keep_their_inner_ones", nested_exceptions_keep_their_inner_ones, "nests",
     "nests=100"},
	{"thrown_while_unwinding", thrown_while_unwinding, "throw_now,unwinds_past_a_destructor",
     "unwinds_past_a_destructor=100"},
	{"stack_arguments_are_destroyed", stack_arguments_are_destroyed, "throws_with_stack_arguments",
     "throws_with_stack_arguments=100"},
	{"terminate_is_reached",
     terminate_is_reached,
     "throws_nothing_it_may",
     nullptr,
     {},
     nullptr,
     8},
	{"uncaught_exception_ends_the_program",
     uncaught_exception_ends_the_program,
     "throw_now",
     nullptr,
     {},
     nullptr,
     8},
	{"exceptions_reach_other_threads", exceptions_reach_other_threads, "count_words",
     "count_words=100"},
	{"cancellation_runs_destructors", cancellation_runs_destructors, "waits_below",
     "waits_below=50"},
	{"pthread_exit_runs_destructors", pthread_exit_runs_destructors, "exits_inside",
     "exits_inside=50"},
	{"members_of_templates_are_sites", members_of_templates_are_sites, DOUBLED, DOUBLED "=100"},
	{},
};
