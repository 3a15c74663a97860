/*
 * checked_cxx.cc: LIBREGION_CHECK and C++: exceptions that leave scopes, exception objects, classes whose
 * block is a scope.
 */
#include "scoped.h"

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

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

const region_options planted = options_of("planted", REGION_FADE_NONE);

std::string *volatile held;

__attribute__((noinline)) std::string *make_string()
{
	return new std::string(200, 'x');
}

void hold_and_throw(void *)
{
	held = make_string();
	throw 7;
}

void throw_out_of_a_scope()
{
	try {
		region_do_with(&planted, hold_and_throw, nullptr);
	} catch (int thrown) {
		CHECK(thrown == 7, "it is caught");
	}
}

void escape_by_an_exception()
{
	throw_out_of_a_scope();
	CHECK(held->size() == 200 && (*held)[199] == 'x', "what escapes is kept, with what it points to");
}

void touch_after_an_exception()
{
	throw_out_of_a_scope();
	CHECK(*static_cast<volatile char *>(static_cast<void *>(held)) == 0, "this isn't reached");
}

/* What is thrown is the scope's, but on its way nobody else's: the runtime points to it. */
void throw_object(void *)
{
	throw std::runtime_error("its text");
}

void exception_objects_are_kept()
{
	try {
		region_do_with(&planted, throw_object, nullptr);
	} catch (const std::runtime_error &error) {
		CHECK(std::string(error.what()) == "its text", "it says: %s", error.what());
	}
}

void count_words(const std::string &text)
{
	region::scope scope{planted};
	std::map<char, std::string> words;
	for (char c : text)
		words[c] += std::string(100, c);
	CHECK(words.size() == 3, "three letters");
}

void correct_classes_are_silent()
{
	for (int i = 0; i < 20; i++)
		count_words("abcabc");
}

#define CASE(function) #function, (function)

probe_case of(const char *name, void (*run)(), const char *environment, int lines, int signal,
              const char *says)
{
	probe_case c{};
	c.name = name;
	c.run = run;
	c.environment = environment;
	c.lines = lines;
	c.signal = signal;
	c.says[0] = says;
	return c;
}

} // namespace

extern "C" const probe_case probe_cases[] = {
	of(CASE(escape_by_an_exception), "LIBREGION_CHECK=1", PROBE_ANY_LINES, 0, "leaves, is still pointed to"),
	of(CASE(exception_objects_are_kept), "LIBREGION_CHECK=1", PROBE_ANY_LINES, 0, nullptr),
	of(CASE(correct_classes_are_silent), "LIBREGION_CHECK=1", 0, 0, nullptr),
	of("correct_classes_are_silent_under_guard", correct_classes_are_silent, "LIBREGION_CHECK=guard", 0, 0,
	   nullptr),
	of(CASE(touch_after_an_exception), "LIBREGION_CHECK=guard", PROBE_ANY_LINES, 11,
	   "in memory that scope \"planted\" has given back"),
	probe_case{},
};
