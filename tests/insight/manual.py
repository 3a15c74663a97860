"""manual: the manual pages lack nothing that the programs have, and can be formatted."""

import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from insight import TOP, main, region, region_json

PAGES = Path(os.environ["INSIGHT_PAGES"])
sys.path.insert(0, str(TOP / "scripts" / "manual"))

import manual  # pylint: disable=wrong-import-position


def text_of(name):
    """A page's text, without what is roff's."""
    text = (PAGES / name).read_text(encoding="utf-8")
    for sequence, character in (("\\-", "-"), ("\\(aq", "'"), ("\\(ga", "`"), ("\\(dq", '"'), ("\\(ti", "~"),
                                ("\\(ha", "^"), ("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\&", ""), ("\\e", "\\")):
        text = text.replace(sequence, character)
    return text


class Command(unittest.TestCase):
    page = text_of("region.1")

    def test_every_option_of_the_library(self):
        options = region_json("options", "--json")
        self.assertGreater(len(options), 15)
        environment = self.page[self.page.index('.SH "ENVIRONMENT"'):]
        for option in options:
            where = environment.find(f"\n.TP\n{option['variable']}=")
            self.assertGreater(where, 0, option["variable"])
            own = environment[where + 5:].split(".TP")[0]
            self.assertIn(option["help"][1:], own)
            self.assertIn(option["takes"], own)

    def test_every_command_and_its_options(self):
        said, _ = region("help")
        commands = re.findall(r"(?m)^ {4}region (\w+)", said)
        self.assertGreaterEqual(len(commands), 7)
        for command in commands:
            self.assertIn(f'\n.SS "{command}"\n', self.page)
            own = self.page[self.page.index(f'.SS "{command}"'):]
            own = own[:own.index("\n.S", 1)]
            for option in re.findall(r"(?m)^ +(--?[a-z][a-z-]*)", region(command, "--help")[0]):
                self.assertIn(option, own, command)

    def test_exit_statuses(self):
        for status in ("126", "127"):
            self.assertIn(status, self.page)


class Library(unittest.TestCase):
    page = text_of("region.3")

    def test_every_function_that_is_exported(self):
        exported = (TOP / "shim" / "exports.list").read_text(encoding="utf-8")
        functions = re.findall(r"(?m)^(region_\w+)$", exported)
        self.assertGreater(len(functions), 50)
        for name in functions:
            self.assertTrue(re.search(rf"(?m)^[A-Za-z][^\n]*\b{name}\([^\n]*\);$", self.page), name)

    def test_every_statistic(self):
        header = (TOP / "scopes" / "region.h").read_text(encoding="utf-8")
        names = re.findall(r'(?m)^\tX\((\w+), "', header)
        self.assertGreater(len(names), 20)
        for name in names:
            self.assertTrue(f"\n.TP\n{name}\n" in self.page, name)

    def test_macros_and_types(self):
        for text in ("REGION_SCOPE(name)", "REGION_AUTO(type, name, bytes)", "struct region_options {",
                     "enum region_fade {", "struct region_text {"):
            self.assertIn(text, self.page)
        self.assertNotIn("_MAP(", self.page)


class Parsing(unittest.TestCase):
    def test_prototypes(self):
        code = ('REGION_API __attribute__((malloc, alloc_size(2))) void *\nf(int a,\n  char *b);\n'
                'static inline int g(void)\n{\n\tREGION_API x;\n}\nstatic inline int hidden_(void)\n{\n}\n'
                '#define REGION_M(a_, b_) 1\n#define REGION_X_MAP(X) 2\n')
        self.assertEqual(manual.prototypes_of(code), ["void *f(int a, char *b);", "int g(void);", "REGION_M(a, b)"])

    def test_roff_is_escaped(self):
        self.assertEqual(manual.escape(".a -b 'c\n'd \\e"), "\\&.a \\-b \\(aqc\n\\(aqd \\ee")

    def test_text_flows(self):
        text = "One\ntwo.\n\n  --opt=X   what it\n            does\n  -n        more\n\n    as it is\n\n- a\n- b"
        self.assertEqual(manual.flow(text), [
            ".PP", "One", "two.", ".PP", ".TP", "\\fB\\-\\-opt=X\\fR", "what it", "does", ".TP", "\\fB\\-n\\fR", "more",
            ".PP", ".RS 4", ".nf", "as it is", ".fi", ".RE", ".PP", '.IP "\\(bu" 2', "a", '.IP "\\(bu" 2', "b"])


@unittest.skipUnless(shutil.which("groff"), "there is no groff")
class Format(unittest.TestCase):
    def test_pages_format_without_warnings(self):
        for name in ("region.1", "region.3"):
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rCHECKSTYLE=3", str(PAGES / name)],
                                  capture_output=True, text=True, check=True)
            serious = [line for line in done.stderr.splitlines() if "can't break line" not in line
                       and "cannot break line" not in line and "cannot adjust line" not in line
                       and "can't adjust line" not in line]
            self.assertEqual(serious, [])
            self.assertGreater(len(done.stdout.splitlines()), 100)


main()
