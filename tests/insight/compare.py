"""compare: what `region compare` promises."""

import os
import tempfile
import unittest
from pathlib import Path

from insight import BUILD, main, needs_sites, program, region, region_json

import compare

SPEND = program("spend")
SLOW = f"slow={BUILD / 'libslow.so'}"


def way(result, name):
    return next(way for way in result["ways"] if way["name"] == name)


class Figures(unittest.TestCase):
    """The arithmetic, against values that are known."""

    def test_all_rounds_agree(self):
        self.assertEqual(compare.signed_rank_p(range(1, 11)), 2 / 1024)
        self.assertEqual(compare.signed_rank_p(range(-10, 0)), 2 / 1024)

    def test_nothing_differs(self):
        self.assertEqual(compare.signed_rank_p([0] * 10), 1.0)
        self.assertEqual(compare.signed_rank_p([1, -1]), 1.0)

    def test_known_value(self):
        # Wilcoxon's own example (Darwin's maize): W- = 24 of 15 pairs, p = 0.0413.
        heights = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
        self.assertAlmostEqual(compare.signed_rank_p(heights), 0.0413, places=4)

    def test_seven_rounds_never_suffice(self):
        self.assertGreater(compare.signed_rank_p(range(1, 8)), compare.SIGNIFICANT)
        self.assertLess(compare.signed_rank_p(range(1, 9)), compare.SIGNIFICANT)

    def test_ratio_is_of_medians(self):
        figure = compare.figures([10, 30, 20], [5, 10, 15])
        self.assertEqual((figure["median"], figure["ratio"], figure["mad"]), (20, 2.0, 10))
        self.assertEqual(figure["quartiles"], [15, 25])

    def test_every_round_has_every_way_once(self):
        ways = list("abcd")
        orders = [compare.order(ways, number) for number in range(8)]
        self.assertTrue(all(sorted(order) == ways for order in orders))
        self.assertEqual({order[0] for order in orders}, set(ways))


class Costs(unittest.TestCase):
    """What a run is said to cost is what it costs."""

    def test_memory_and_faults(self):
        small = way(region_json("compare", "--json", "-n", 1, "--with=none", "--", SPEND), "glibc")
        big = way(region_json("compare", "--json", "-n", 1, "--with=none", "--", SPEND, "touch=64"), "glibc")
        self.assertLess(small["peak_bytes"]["median"], 6 << 20)
        self.assertAlmostEqual(big["peak_bytes"]["median"] - small["peak_bytes"]["median"], 64 << 20, delta=2 << 20)
        self.assertGreater(big["faults"]["median"], small["faults"]["median"])

    def test_cpu_and_wall_time(self):
        spun = way(region_json("compare", "--json", "-n", 1, "--with=none", "--", SPEND, "spin=50"), "glibc")
        slept = way(region_json("compare", "--json", "-n", 1, "--with=none", "--", SPEND, "sleep=100"), "glibc")
        self.assertAlmostEqual(spun["cpu_ns"]["median"], 50e6, delta=10e6)
        self.assertGreaterEqual(slept["wall_ns"]["median"], 100e6)
        self.assertLess(slept["cpu_ns"]["median"], 30e6)

    def test_a_slow_allocator_is_seen(self):
        result = region_json("compare", "--json", "-n", 8, f"--with={SLOW}", "--", SPEND)
        self.assertGreater(way(result, "slow")["cpu_ns"]["ratio"], 2)
        self.assertTrue(way(result, "slow")["cpu_ns"]["differs"])
        self.assertEqual(len(way(result, "slow")["cpu_ns"]["runs"]), 8)

    def test_few_rounds_tell_nothing(self):
        said, _ = region("compare", "-n", 3, f"--with={SLOW}", "--", SPEND)
        self.assertIn("With 3 rounds nothing can be told from noise", said)
        self.assertRegex(said, r"slow .* \d+\.\d\d ~")


class Ways(unittest.TestCase):
    def test_each_way_has_its_library(self):
        _, errors = region("compare", "-n", 1, f"--with={SLOW}", "--", SPEND, "show=LD_PRELOAD", status=1)
        self.assertIn("under libregion it printed something else", errors)
        self.assertIn("under slow it printed something else", errors)

    @needs_sites
    def test_sites_are_entered(self):
        result = region_json("compare", "--json", "-n", 1, "--with=none", "--sites=spend_work", "--",
                             SPEND, "work=100")
        self.assertTrue(any("entered 100 times" in line for line in result["sites"]), result["sites"])
        self.assertEqual([way["name"] for way in result["ways"]], ["glibc", "libregion", "libregion, sites"])
        self.assertEqual(result["pairs"][0]["to"], "libregion")

    @needs_sites
    def test_a_site_that_is_refused_is_told(self):
        said, _ = region("compare", "-n", 1, "--with=none", "--sites=no_such_function", "--", SPEND)
        self.assertIn('"no_such_function"', said)

    def test_sites_of_the_caller_are_not_inherited(self):
        _, errors = region("compare", "-n", 1, "--with=none", "--", SPEND, "show=LIBREGION_SITES",
                           LIBREGION_SITES="somewhere")
        self.assertEqual(errors, "")


class Outputs(unittest.TestCase):
    def test_same_output_and_status(self):
        said, _ = region("compare", "-n", 1, "--with=none", "--", SPEND, "print=hello", "status=3")
        self.assertIn("Every run printed the same 6 bytes and ended with status 3.", said)

    def test_a_program_that_never_prints_the_same(self):
        _, errors = region("compare", "-n", 2, "--with=none", "date", "+%s%N", status=1)
        self.assertIn("something else each time, under glibc too", errors)

    def test_a_status_that_differs(self):
        script = 'case ${LD_PRELOAD-} in *libregion*) exit 4;; esac'
        _, errors = region("compare", "-n", 1, "--with=none", "--", "sh", "-c", script, status=1)
        self.assertIn("under libregion it ended with status 4 instead of 0", errors)

    def test_each_run_reads_the_whole_input(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("x" * 5000)
            file.flush()
            said, _ = region("compare", "-n", 1, "--with=none", f"--stdin={file.name}", "--", SPEND, "copy=1")
        self.assertIn("the same 5000 bytes", said)


class Command(unittest.TestCase):
    def test_progress_after_two_seconds(self):
        self.assertIn("region: round", region("compare", "-n", 2, "--with=none", "--", SPEND, "sleep=700")[1])
        self.assertEqual(region("compare", "-n", 2, "--with=none", "--", SPEND)[1], "")

    def test_what_cannot_be_run(self):
        for status, words in ((127, ["no-such-program"]), (126, [os.sep]), (2, []), (2, ["-n", "x", "true"]),
                              (2, ["--fly", "true"]), (2, ["--with=nobody", "true"]),
                              (2, [f"--with=a={BUILD}/nowhere.so", "true"]), (2, ["--stdin=/nowhere", "true"])):
            _, errors = region("compare", *words, status=status)
            self.assertRegex(errors, r"^region: [^\n]+\n$")

    def test_a_script_s_interpreter_is_looked_at(self):
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "script")
            script.write_text(f"#!{BUILD}/spend-static\n")
            script.chmod(0o755)
            if Path(BUILD, "spend-static").exists():
                self.assertIn("statically linked", region("compare", script, status=126)[1])


main()
