/*
 * site_spec.c: what may be said in LIBREGION_SITES, and what is said about what may not.
 */
#include "unit.h"

#include "scopes/site_spec.h"

/* The list must stay, and is changed: a copy that is never given back. */
static struct site_spec *read_list(const char *text, bool is_file, struct capture *capture)
{
	struct site_spec *first = NULL;

	scopes_begin();
	capture_begin(capture);
	site_spec_read(&first, is_file ? "a file" : "LIBREGION_SITES", strdup(text), is_file);
	capture_end(capture);
	return first;
}

Test(site_spec, places_are_told_apart)
{
	static const struct row {
		const char *text, *module, *build_id, *function, *caller, *name;
		uintptr_t offset;
	} rows[] = {
		{"f", "", "", "f", "", "f", 0},
		{"libx:f", "libx", "", "f", "", "libx:f", 0},
		{"/usr/lib/libx.so:f", "/usr/lib/libx.so", "", "f", "", "/usr/lib/libx.so:f", 0},
		{"f@g", "", "", "f", "g", "f@g", 0},
		{"libx.so.1:f@g/nest", "libx.so.1", "", "f", "g", "libx.so.1:f@g", 0},
		{"_ZN2ns1CIiE1mEi", "", "", "_ZN2ns1CIiE1mEi", "", "_ZN2ns1CIiE1mEi", 0},
		{"f.constprop.0", "", "", "f.constprop.0", "", "f.constprop.0", 0},
		{"prog+0x1a2B", "prog", "", "", "", "prog+0x1a2B", 0x1a2b},
		{"libc++.so.1+0x10", "libc++.so.1", "", "", "", "libc++.so.1+0x10", 0x10},
		{"prog[0123456789abcdef]+0x10", "prog", "0123456789abcdef", "", "",
	     "prog[0123456789abcdef]+0x10", 0x10},
		{"prog+0x10@g", "prog", "", "", "g", "prog+0x10@g", 0x10},
		{"  f\t", "", "", "f", "", "f", 0},
	};
	struct capture capture;

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const struct site_spec *spec = read_list(rows[i].text, false, &capture);
		require(spec && !spec->next && !*capture.text, "%s: %s", rows[i].text, capture.text);
		require(strcmp(spec->module, rows[i].module) == 0, "%s: %s", rows[i].text, spec->module);
		require(strcmp(spec->build_id, rows[i].build_id) == 0, "%s: %s", rows[i].text,
		        spec->build_id);
		require(strcmp(spec->function.text, rows[i].function) == 0, "%s: %s", rows[i].text,
		        spec->function.text);
		require(strcmp(spec->caller.text, rows[i].caller) == 0, "%s: %s", rows[i].text,
		        spec->caller.text);
		require(strcmp(spec->options.name, rows[i].name) == 0, "%s: %s", rows[i].text,
		        spec->options.name);
		require(spec->offset == rows[i].offset, "%s: %zx", rows[i].text, (size_t)spec->offset);
	}
}

Test(site_spec, options_are_those_of_region_do_with)
{
	struct capture capture;
	const struct site_spec *spec = read_list(
		"f/name=request/fade=none/buffer_size=1M/buffer_count=2/limit_bytes=16k/nest/once,g", false,
		&capture);

	require(spec && spec->next && !*capture.text, "%s", capture.text);
	require(strcmp(spec->options.name, "request") == 0, "%s", spec->options.name);
	require(spec->options.fade == REGION_FADE_NONE, "%d", spec->options.fade);
	require(spec->options.buffer_size == 1 << 20, "%zu", spec->options.buffer_size);
	require(spec->options.buffer_count == 2, "%zu", spec->options.buffer_count);
	require(spec->options.limit_bytes == 16 << 10, "%zu", spec->options.limit_bytes);
	require(spec->may_nest && spec->is_once, "flags");
	/* Whatever the process's default is: any program is safe with it. */
	require(spec->next->options.fade == REGION_FADE_UNFREED, "%d", spec->next->options.fade);
	require(!spec->next->may_nest && !spec->next->is_once, "flags");
}

Test(site_spec, an_error_points_at_the_character_and_leaves_the_other_sites)
{
	static const struct row {
		const char *text, *says;
	} rows[] = {
		{"a,f/nests,b", "LIBREGION_SITES, character 5: not an option"},
		{"a,f/fade=no,b",
	     "LIBREGION_SITES, character 10: not a fade policy; expected unfreed, reachable or none"},
		{"a,f/buffer_size=big,b", "character 17: not a size"},
		{"a,f/buffer_size,b", "character 5: not an option of sites, or without its value"},
		{"a,libx:,b", "character 8: expected a function"},
		{"a,:f,b", "character 3: expected a module"},
		{"a,f@,b", "character 5: expected a function behind \"@\""},
		{"a,f(int),b", "character 4: this character isn't part of a function's name"},
		{"a,xml*,b", "character 6: this character isn't part of a function's name"},
		{"a,p+0xyz,b", "character 7: expected hexadecimal digits"},
		{"a,p+0x,b", "character 7: expected hexadecimal digits"},
		{"a,p+0x11112222333344445,b", "expected at most 16 hexadecimal digits"},
		{"a,+0x10,b", "character 3: expected a module before \"+0x\""},
		{"a,p[12]+0x10,b", "character 5: expected at least 8 digits of a build-id"},
		{"a,p[123456789+0x10,b", "character 5: expected at least 8 digits of a build-id"},
		{"a,p[123456789]x+0x10,b", "character 15: expected \"+0x\""},
	};
	struct capture capture;

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const struct site_spec *spec = read_list(rows[i].text, false, &capture);
		require(strstr(capture.text, rows[i].says), "%s: %s", rows[i].text, capture.text);
		require(strstr(capture.text, "\" is ignored\n"), "%s: %s", rows[i].text, capture.text);
		require(count_lines(capture.text) == 1, "%s: %s", rows[i].text, capture.text);
		require(spec && strcmp(spec->text, "a") == 0 && spec->next &&
		            strcmp(spec->next->text, "b") == 0,
		        "%s", rows[i].text);
	}
}

Test(site_spec, a_file_has_one_a_line_and_comments)
{
	struct capture capture;
	const struct site_spec *spec =
		read_list("# sites of x\n\nlibx:f/nest # the big one\r\n  g\nh/what\n#", true, &capture);

	require(spec && spec->next && !spec->next->next, "%s", capture.text);
	require(strcmp(spec->text, "libx:f/nest") == 0 && spec->may_nest, "%s", spec->text);
	require(strcmp(spec->next->text, "g") == 0, "%s", spec->next->text);
	require(strstr(capture.text, "a file, line 5, character 3: not an option"), "%s", capture.text);
}

Test(site_spec, an_empty_list_has_no_sites)
{
	struct capture capture;

	require(!read_list("", false, &capture) && !*capture.text, "%s", capture.text);
	require(!read_list(" ,, ,", false, &capture) && !*capture.text, "%s", capture.text);
}
