"""top: what `region top` reads of a running process."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from insight import LIBRARY, environment, main, needs_sites, program, region

LIVE = program("live")


class Top(unittest.TestCase):
    def start(self, *words, path=LIVE, library=LIBRARY, **variables):
        """The program, ready to be looked at. Its scopes leave most of their blocks, and stay scopes all the same."""
        preload = {"LD_PRELOAD": library, "LIBREGION_LEARN": "0"} if library else {}
        process = subprocess.Popen([path, *words], stdout=subprocess.PIPE, text=True,
                                   env=environment(**preload, **variables))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if "ready=1" in words:
            process.stdout.readline()
        return process

    def look(self, process, *words):
        said, _ = region("top", "--json", "-n", 1, "--interval=0.2", *words, process.pid)
        return json.loads(said)

    def scope(self, look, name):
        return next(scope for scope in look["scopes"] if scope["name"] == name)

    def test_totals_are_those_of_the_program(self):
        look = self.look(self.start("scopes=30", "empty=70", "ready=1", "idle=20000"))
        totals = self.scope(look, "request")["totals"]
        self.assertEqual((totals["scopes_entered"], totals["blocks_allocated"], totals["blocks_faded"],
                          totals["bytes_faded"]), (100, 300, 180, 17280))
        self.assertEqual((look["command"], look["threads"]), ("live", 1))
        self.assertGreater(look["resident_bytes"], 1 << 20)

    def test_what_ended_threads_did_counts(self):
        look = self.look(self.start("storm=0", "rush=100", "ready=1", "idle=20000"))
        totals = self.scope(look, "request")["totals"]
        self.assertGreater(totals["scopes_entered"], 100)
        self.assertEqual(totals["blocks_allocated"], 10 * totals["scopes_entered"])

    def test_rates_are_a_second_s(self):
        process = self.start("ready=1", "scopes=20000")
        said, _ = region("top", "--json", "-n", 2, "--interval=0.4", process.pid)
        looks = [json.loads(line) for line in said.splitlines()]
        first, one = (self.scope(look, "request") for look in looks)
        entered = one["totals"]["scopes_entered"] - first["totals"]["scopes_entered"]
        self.assertGreater(entered, 0)
        self.assertAlmostEqual(one["scopes_per_s"] * looks[1]["seconds"], entered, delta=0.01 * entered)
        self.assertAlmostEqual(one["blocks_per_s"] / one["scopes_per_s"], 10, delta=0.3)
        self.assertAlmostEqual(one["bytes_per_s"] / one["scopes_per_s"], 960, delta=30)
        self.assertAlmostEqual(one["faded_percent"], 60, delta=1)

    def test_an_idle_program_does_nothing(self):
        look = self.look(self.start("scopes=10", "ready=1", "idle=20000"))
        self.assertEqual((look["all"]["scopes_per_s"], look["all"]["faded_percent"]), (0, None))

    def test_open_scopes_are_counted(self):
        self.assertEqual(self.look(self.start("ready=1", "idle=20000"))["all"]["open"], 0)
        process = self.start("ready=1", "in_scope=20000")
        said, _ = region("top", "--json", "-n", 2, "--interval=0.3", process.pid)
        self.assertEqual(json.loads(said.splitlines()[-1])["all"]["open"], 1)

    def test_the_process_isn_t_disturbed(self):
        process = self.start("ready=1", "idle=5000")
        self.look(process)
        self.assertEqual(process.stdout.readline(), "interrupted 0 times\n")

    def test_looks_until_the_program_ends(self):
        process = self.start("ready=1", "rush=6000")
        said, errors = region("top", "--interval=0.2", process.pid)
        self.assertGreaterEqual(said.count("  request\n"), 3)
        self.assertIn(f"process {process.pid} has ended", errors)

    def test_a_stripped_library_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            library = os.path.join(folder, "libregion.so")
            subprocess.run(["strip", "--strip-all", "-o", library, LIBRARY], check=True)
            look = self.look(self.start("scopes=5", "ready=1", "idle=20000", library=library))
        self.assertEqual(self.scope(look, "request")["totals"]["scopes_entered"], 5)

    def test_a_static_program_is_read(self):
        path = program("live-static")
        if not Path(path).exists():
            self.skipTest("nothing can be linked statically here")
        look = self.look(self.start("scopes=5", "ready=1", "idle=20000", path=path, library=None))
        self.assertEqual(self.scope(look, "request")["totals"]["scopes_entered"], 5)

    @needs_sites
    def test_sites_have_their_names(self):
        process = self.start("work=50", "print=ready", "sleep=20000", path=program("spend"), LIBREGION_SITES="spend_work")
        said, _ = region("top", "--json", "-n", 3, "--interval=0.3", process.pid)
        self.assertEqual(self.scope(json.loads(said.splitlines()[-1]), "spend_work")["totals"]["scopes_entered"], 50)

    def test_who_cannot_be_read(self):
        plain = self.start("ready=1", "idle=20000", library=None)
        for status, words in ((1, [plain.pid]), (1, [2 ** 22 + 1]), (2, []), (2, ["x"]), (2, ["--interval=0", 1]),
                              (2, ["-n", "x", 1])):
            _, errors = region("top", *words, status=status)
            self.assertRegex(errors, r"^region: [^\n]+\n$")

    @unittest.skipIf(os.getuid() != 0, "needs root, to be somebody else")
    def test_somebody_else_s_process_is_refused(self):
        process = self.start("ready=1", "idle=20000")
        tool = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "scripts/insight/top.py")
        done = subprocess.run(["python3", "-B", "-", str(process.pid)], input=Path(tool).read_text(encoding="utf-8")
                              .replace("import common", f"sys.path.insert(0, {os.path.dirname(tool)!r})\nimport common"),
                              capture_output=True, text=True, check=False, user=65534, group=65534, cwd="/")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("may not be read", done.stderr)


main()
