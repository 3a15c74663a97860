/*
 * scope_cxx.cc: scopes and C++: exceptions end what they pass through, exactly when a return would; and
 * region.hpp's class and functions.
 */
#include "scoped.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <ucontext.h>
#include <vector>

#include "region.hpp"

extern "C" const enum probe_form probe_default_form = PROBE_FORM;

namespace {

region_options options_of(const char *name, region_fade fade)
{
	region_options options{};
	options.name = name;
	options.fade = fade;
	return options;
}

const region_options unfreed = options_of("unfreed", REGION_FADE_UNFREED);
const region_options none = options_of("none", REGION_FADE_NONE);

std::string ended; /* by callbacks at the end of scopes */

extern "C" void note_end(void *letter)
{
	ended += *static_cast<char *>(letter);
}

void on_exit_note(const char *letter)
{
	CHECK(region_on_exit(note_end, const_cast<char *>(letter)) == 0, "a callback is taken");
}

void no_scope_is_left()
{
	CHECK(region_depth() == 0, "no scope is open: depth %u", region_depth());
	probe_heap_is_sound();
}

/* --- exceptions through region_do --- */

struct counted {
	static int live;
	std::string text = std::string(100, 'c');
	counted() { live++; }
	~counted() { live--; }
};
int counted::live;

void throw_here(void *)
{
	counted object;
	on_exit_note("t");
	probe_block(500, 1);
	throw std::runtime_error("thrown out of a scope, with a text too long for a small string");
}

void exception_out_of_region_do_ends_the_scope()
{
	bool caught = false;
	ended.reserve(100);
	try {
		region_do_with(&unfreed, throw_here, nullptr);
	} catch (const std::runtime_error &error) {
		caught = true;
		CHECK(region_depth() == 0, "the scope has ended in the handler: depth %u", region_depth());
		CHECK(ended == "t", "its callback has run once: '%s'", ended.c_str());
		CHECK(std::strstr(error.what(), "small string"), "the exception is whole");
	}
	CHECK(caught && counted::live == 0, "it reached its handler, and destructors ran");
	no_scope_is_left();
}

void catch_in_between(void *)
{
	void *p = probe_block(100, 1);
	try {
		region_do_with(&unfreed, throw_here, nullptr);
	} catch (const std::exception &) {
		CHECK(region_depth() == 1 && region_owns(p), "the outer scope is current in the handler");
		free(probe_block(10, 1));
	}
	CHECK(region_depth() == 1 && region_owns(p), "and after it");
}

void exception_caught_in_an_outer_scope_leaves_that_open()
{
	region_do_with(&unfreed, catch_in_between, nullptr);
	no_scope_is_left();
}

void rethrow_here(void *)
{
	on_exit_note("r");
	try {
		region_do_with(&unfreed, throw_here, nullptr);
	} catch (...) {
		CHECK(region_depth() == 1, "the outer scope is open: depth %u", region_depth());
		throw;
	}
}

void rethrown_exception_ends_the_outer_scope_too()
{
	ended.reserve(100);
	for (int i = 0; i < 100; i++) {
		bool caught = false;
		ended.clear();
		try {
			region_do_with(&unfreed, rethrow_here, nullptr);
		} catch (const std::runtime_error &) {
			caught = true;
		}
		CHECK(caught && ended == "tr", "each ended once, the inner first: '%s'", ended.c_str());
		no_scope_is_left();
	}
}

void throw_from_depth(void *levels)
{
	unsigned left = (*static_cast<unsigned *>(levels))--;
	counted object;
	on_exit_note("d");
	if (left == 0)
		throw 42;
	region_do(throw_from_depth, levels);
}

void exception_through_many_scopes_ends_them_all()
{
	unsigned levels = 19;
	int caught = 0;
	ended.reserve(100);
	try {
		region_do(throw_from_depth, &levels);
	} catch (int number) {
		caught = number;
	}
	CHECK(caught == 42 && ended.size() == 20 && counted::live == 0, "each ended once: %zu",
	      ended.size());
	no_scope_is_left();
}

/* Scopes inside the handler of an exception that is still alive. */
void use_a_scope_in_a_handler()
{
	try {
		region_do_with(&unfreed, throw_here, nullptr);
	} catch (const std::runtime_error &error) {
		region_do_with(&none, [](void *) { probe_block(100, 1); }, nullptr);
		CHECK(std::strstr(error.what(), "small string"), "the exception is still whole");
	}
	no_scope_is_left();
}

void scopes_inside_a_handler_work()
{
	for (int i = 0; i < 100; i++)
		use_a_scope_in_a_handler();
}

/* Forced unwinding of pthread_exit runs destructors on its way out of the scope. */
void thread_exit_runs_destructors_and_ends_the_scope()
{
	ended.reserve(100);
	std::thread([] {
		region_do_with(&unfreed, [](void *) {
			counted object;
			on_exit_note("x");
			pthread_exit(nullptr);
		}, nullptr);
	}).join();
	CHECK(ended == "x" && counted::live == 0, "both happened once: '%s'", ended.c_str());
}

/* A coroutine's stack gives no place for a scope: what passes region_do's frame there ends none. */
ucontext_t main_context, other_context;
char other_stack[256 << 10];
bool caught_elsewhere;

void throw_and_catch()
{
	try {
		region_do([](void *) { throw 1; }, nullptr);
	} catch (int) {
		caught_elsewhere = true;
	}
}

void throw_in_a_coroutine(void *)
{
	void *p = probe_block(100, 5);
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = other_stack;
	other_context.uc_stack.ss_size = sizeof(other_stack);
	other_context.uc_link = &main_context;
	makecontext(&other_context, throw_and_catch, 0);
	swapcontext(&main_context, &other_context);
	CHECK(caught_elsewhere, "the coroutine caught its exception");
	CHECK(region_depth() == 1 && region_owns(p), "the scope is open: depth %u", region_depth());
	probe_verify(p, 100, 5, "its blocks are whole");
}

void exception_on_another_stack_does_not_end_the_scope()
{
	region_do_with(&none, throw_in_a_coroutine, nullptr);
	no_scope_is_left();
}

/* --- programs --- */

std::map<int, std::string> *table;

void fill_table(void *)
{
	for (int i = 0; i < 5000; i++)
		(*table)[i] = std::string(static_cast<std::size_t>(i % 200), 'v');
	std::vector<std::string> scratch(1000, std::string(50, 's'));
	for (int i = 0; i < 5000; i += 3)
		table->erase(i);
}

void containers_that_outlive_the_scope_are_whole()
{
	table = new std::map<int, std::string>;
	region_do_with(&unfreed, fill_table, nullptr);
	for (const auto &entry : *table)
		CHECK(entry.second.size() == static_cast<std::size_t>(entry.first % 200), "an entry is whole");
	region_do_with(&unfreed, [](void *) { table->clear(); }, nullptr);
	delete table;
	no_scope_is_left();
}

/* --- region.hpp --- */

void scope_class_lives_as_long_as_its_block()
{
	void *p;
	{
		region::scope s{"classy"};
		p = probe_block(100, 1);
		CHECK(region_depth() == 1, "it is open");
		CHECK(std::strcmp(region_name_of(p), "classy") == 0, "it has its name");
		{
			region::scope inner;
			CHECK(region_depth() == 2, "it nests");
		}
		CHECK(region_depth() == 1 && region_owns(p), "the outer one is current again");
	}
	CHECK(region_depth() == 0, "it ends with its block");
	probe_unblock(p, 100, 1);
}

int return_from_scope()
{
	region::scope s{none};
	return static_cast<int>(region_depth());
}

void scope_class_ends_by_return_and_exception()
{
	bool caught = false;
	CHECK(return_from_scope() == 1 && region_depth() == 0, "return ends it");
	ended.reserve(100);
	try {
		region::scope s{unfreed};
		throw_here(nullptr);
	} catch (const std::runtime_error &) {
		caught = true;
		CHECK(region_depth() == 0, "an exception ends it before its handler runs");
	}
	CHECK(caught && ended == "t", "the callback ran once: '%s'", ended.c_str());
	no_scope_is_left();
}

void run_calls_with_a_scope_and_hands_the_value_back()
{
	int captured = 5;
	std::string text = region::run([&] {
		CHECK(region_depth() == 1, "run opens a scope");
		captured++;
		return std::string(1000, 'r');
	});
	CHECK(captured == 6 && text == std::string(1000, 'r'), "it ran once, and its value is whole");
	region::run(none, [&] { CHECK(region_owns(probe_block(10, 1)), "run takes options"); });
	auto pointer = region::run([] { return std::make_unique<counted>(); });
	CHECK(pointer->text.size() == 100, "what a unique_ptr holds is whole");
	no_scope_is_left();
}

void run_lets_exceptions_through_and_nests()
{
	int caught = 0;
	ended.reserve(100);
	try {
		region::run([] {
			on_exit_note("a");
			region::run([] {
				on_exit_note("b");
				throw 7;
			});
		});
	} catch (int number) {
		caught = number;
	}
	CHECK(caught == 7 && ended == "ba", "each ended once, the inner first: '%s'", ended.c_str());
	no_scope_is_left();
}

void ignore_takes_any_callable()
{
	int count = 0;
	region::run([&] {
		void *p = nullptr;
		region::ignore([&] {
			count++;
			p = probe_block(10, 1);
			CHECK(region_depth() == 0, "ignore counts as no scope");
		});
		CHECK(!region_owns(p) && region_depth() == 1, "its blocks are the general heap's");
		free(p);
	});
	CHECK(count == 1, "it ran once");
}

} // namespace

#define CASE(name_) {#name_, name_, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr}

extern "C" const struct probe_case probe_cases[] = {
	CASE(exception_out_of_region_do_ends_the_scope),
	CASE(exception_caught_in_an_outer_scope_leaves_that_open),
	CASE(rethrown_exception_ends_the_outer_scope_too),
	CASE(exception_on_another_stack_does_not_end_the_scope),
	CASE(exception_through_many_scopes_ends_them_all),
	CASE(scopes_inside_a_handler_work),
	CASE(thread_exit_runs_destructors_and_ends_the_scope),
	CASE(containers_that_outlive_the_scope_are_whole),
	CASE(scope_class_lives_as_long_as_its_block),
	CASE(scope_class_ends_by_return_and_exception),
	CASE(run_calls_with_a_scope_and_hands_the_value_back),
	CASE(run_lets_exceptions_through_and_nests),
	CASE(ignore_takes_any_callable),
	{nullptr, nullptr, nullptr, {}, nullptr, 0, 0, 0, 0, 0, 0, PROBE_PRELOADED, false, nullptr},
};
