"""report: the page that `region report` makes, as text and as a browser shows it."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from insight import LIBRARY, environment, main, program, region, region_json

FOLDED = "main;parse;malloc 500\nmain;parse;strdup <b> 300\nmain;reply 200\n"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Pages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def statistics(self, *words, name="all.json", **options):
        subprocess.run([program("live"), *words], check=True, stdout=subprocess.DEVNULL, env=environment(
            LD_PRELOAD=LIBRARY, LIBREGION_STATS=str(self.folder / name), **options))
        return self.folder / name

    def page(self, *files, **rest):
        path = self.folder / "page.html"
        region("report", *files, "-o", path, **rest)
        return path.read_text(encoding="utf-8")


class Contents(Pages):
    def test_scopes_are_a_table(self):
        page = self.page(self.statistics("scopes=20"))
        row = re.search(r"<tr><td>request</td>(.*)</tr>", page)[1]
        cells = re.findall(r'<td data-value="([^"]*)"[^>]*>([^<]*)</td>', row)
        self.assertEqual([text for _, text in cells], ["20", "200", "19.2 kB", "40.0%", "60.0%", "0.0%", "0", "262.1 kB"])
        self.assertEqual(cells[2][0], "19200")

    def test_memory_over_time_needs_several_dumps(self):
        self.assertNotIn("<svg", self.page(self.statistics("scopes=20")))
        path = self.statistics("plain=600", LIBREGION_STATS_INTERVAL="50")
        page = self.page(path)
        points = re.search(r'<path class="a" d="M([^"]*)"><title>resident', page)[1].split(" L")
        dumps = path.read_text(encoding="utf-8").count('"clock_ms"')
        self.assertEqual(len(points), dumps)
        heights = [float(point.split()[1]) for point in points]
        self.assertGreater(heights[0] - heights[-2], 20) # upwards is less

    def test_each_process_has_its_part(self):
        self.statistics("scopes=5", "child=5", name="%p.json")
        page = self.page(*self.folder.glob("*.json"))
        self.assertEqual(page.count("<h2>Process "), 2)

    def test_comparisons_and_advice_are_tables(self):
        figure = {"median": 2e9, "ratio": 0.5, "differs": True}
        way = {"name": "libregion", **{member: figure for member in ("cpu_ns", "wall_ns", "peak_bytes", "faults")}}
        comparison = {"ways": [way], "rounds": 9, "base": "glibc", "command": ["a", "<b>"], "outputs_equal": True,
                      "outputs": None, "test": "T", "significant_p": 0.01}
        advice = {"sites": "prog:handle", "candidates": [
            {"function": "handle", "site": "prog:handle", "is_chosen": True, "share_allocations": 0.5, "calls": 12}]}
        page = self.page(self.file("c.json", json.dumps(comparison)), self.file("a.json", json.dumps(advice)))
        self.assertRegex(page, r"<tr><td>libregion</td>.*>2\.000 s<.*>0\.50<")
        self.assertIn("a &lt;b&gt;", page)
        self.assertIn("LIBREGION_SITES=prog:handle", page)
        self.assertRegex(page, r"<tr><td>handle</td>.*>50\.0%<.*>12<.*>proposed<")

    def test_a_real_comparison_is_understood(self):
        said, _ = region("compare", "--json", "-n", 1, "--with=none", "true")
        self.assertRegex(self.page(self.file("c.json", said)), r"<tr><td>libregion</td>.*~<")

    def test_stacks_are_a_tree(self):
        flame, = region_json("report", "--json", self.file("x.folded", FOLDED))["flames"]
        self.assertEqual(flame["tree"], ["all", 1000, ["main", 1000, ["parse", 800, ["malloc", 500], ["strdup <b>", 300]],
                                                      ["reply", 200]]])

    def test_deep_stacks(self):
        page = self.page(self.file("x.folded", ";".join(["f"] * 3000) + " 5\n"))
        self.assertEqual(page.count('["f",5'), 3000)

    def test_it_needs_nothing_from_elsewhere(self):
        page = self.page(self.statistics("scopes=5"), self.file("x.folded", FOLDED))
        self.assertNotRegex(page, r"https?:|src=|<link|@import|url\(")
        self.assertIn("default-src 'none'", page)

    def test_names_cannot_break_the_page(self):
        evil = "</script><script>alert(1)</script> @body@"
        document = json.loads(self.statistics("scopes=5").read_text(encoding="utf-8"))
        document["scopes"][1]["name"] = evil
        page = self.page(self.file("a.json", json.dumps(document)), self.file("x.folded", f"{evil};g 5\n"), f"--title={evil}")
        self.assertEqual(page.count("</script>"), 2)
        self.assertEqual(page.count("alert(1)"), 4)
        self.assertEqual(page.count("@body@"), 4)
        self.assertNotIn("<script>alert", page)

    def test_half_of_the_last_dump_is_left_out(self):
        text = self.statistics("scopes=5").read_text(encoding="utf-8")
        page = self.page(self.file("half.json", text + text[:len(text) // 2]))
        self.assertIn("<td>request</td>", page)

    def test_refusals(self):
        odd = self.file("odd", "this is something else\n")
        for status, words in ((1, [odd]), (1, [self.folder / "nowhere"]), (1, [self.file("e.json", "[1]")]), (2, []),
                              (2, ["--fly", odd]), (2, ["-o"]),
                              (1, [self.file("x.folded", FOLDED), "-o", self.folder / "no" / "page.html"])):
            _, errors = region("report", *words, status=status)
            self.assertRegex(errors, r"^region: report: [^\n]+\n$")


@unittest.skipUnless(CHROMIUM, "there is no chromium")
class Browser(Pages):
    """The same page in a headless browser."""

    def browse(self, what, page_hash=""):
        """What the browser says when it does that; the page's scripts must have nothing to complain about."""
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                               "--virtual-time-budget=2000", f"--user-data-dir={self.folder}/profile",
                               "--window-size=1280,900", what, f"file://{self.folder}/page.html{page_hash}"],
                              capture_output=True, text=True, check=True, timeout=100, env={**os.environ, "HOME": str(self.folder)})
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        self.assertEqual(complaints, [])
        return done.stdout

    def boxes(self, page_hash=""):
        dom = self.browse("--dump-dom", page_hash)
        found = re.findall(r'<div title="[^"]*" data-name="([^"]*)" style="left: ([\d.]+)%; width: ([\d.]+)%; top: (\d+)px', dom)
        return {html.unescape(name): (float(left), float(width), int(top)) for name, left, width, top in found}

    def test_flame_graph_is_drawn(self):
        self.page(self.statistics("plain=300", LIBREGION_STATS_INTERVAL="50"), self.file("x.folded", FOLDED))
        self.assertEqual(self.boxes(), {
            "all": (0, 100, 0), "main": (0, 100, 18), "parse": (0, 80, 36), "malloc": (0, 50, 54),
            "strdup <b>": (50, 30, 54), "reply": (80, 20, 36)})

    def test_a_picture_of_it(self):
        self.page(self.statistics("plain=300", LIBREGION_STATS_INTERVAL="50"), self.file("x.folded", FOLDED))
        picture = self.folder / "page.png"
        self.browse(f"--screenshot={picture}")
        self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertGreater(picture.stat().st_size, 20000) # an empty page has 6000

    def test_a_link_leads_to_a_function(self):
        self.page(self.file("x.folded", FOLDED))
        boxes = self.boxes("#f0.0.0")
        self.assertEqual((boxes["parse"], boxes["malloc"]), ((0, 100, 36), (0, 62.5, 54)))
        self.assertNotIn("reply", boxes)


main()
