"""live: LIBREGION_STATS while the program runs, on a signal and at intervals."""

import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from insight import LIBRARY, environment, main, program

LIVE = program("live")
SIGNAL = signal.SIGUSR2


def documents(text):
    """The JSON documents that stand in a text one behind the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


class Live(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, *words, stats="all.json", **variables):
        """The program under the library, its statistics in a file of that name. Its scopes leave most of their blocks."""
        options = {"LIBREGION_LEARN": "0"} | {f"LIBREGION_{name.upper()}": str(value) for name, value in variables.items()}
        if stats:
            options["LIBREGION_STATS"] = str(self.folder / stats)
        process = subprocess.Popen([LIVE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=environment(LD_PRELOAD=LIBRARY, **options))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def end(self, process, status=0):
        said, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, status, errors)
        return said, errors

    def read(self, name="all.json"):
        return documents((self.folder / name).read_text(encoding="utf-8"))

    def wait_for(self, condition):
        for _ in range(1000):
            try:
                if condition():
                    return
            except (OSError, ValueError):
                pass # not there yet, or half of it
            time.sleep(0.01)
        self.fail("it didn't come in 10 s")

    # ---- on a signal

    def test_a_signal_writes_what_was_so_far(self):
        process = self.start("scopes=20", "ready=1", "idle=10000", stats_signal=int(SIGNAL))
        process.stdout.readline()
        process.send_signal(SIGNAL)
        self.wait_for(self.read)
        process.kill()
        dump, = self.read()
        self.assertEqual(dump["reason"], "signal")
        self.assertEqual(dump["process_id"], process.pid)
        request = next(scope for scope in dump["scopes"] if scope["name"] == "request")
        self.assertEqual((request["scopes_entered"], request["blocks_allocated"], request["blocks_faded"]),
                         (20, 200, 120))
        self.assertGreater(dump["clock_ms"], dump["start_ms"])

    def test_each_signal_writes_once(self):
        process = self.start("ready=1", "idle=10000", stats_signal=int(SIGNAL))
        process.stdout.readline()
        for count in range(1, 4):
            process.send_signal(SIGNAL)
            self.wait_for(lambda: len(self.read()) == count)
        process.kill()

    def test_a_signal_without_a_file_writes_text_on_stderr(self):
        process = self.start("scopes=5", "ready=1", "idle=300", stats=None, stats_signal=int(SIGNAL))
        process.stdout.readline()
        process.send_signal(SIGNAL)
        _, errors = self.end(process)
        self.assertRegex(errors, r"process \d+ after \d+ ms: 5 scopes")
        self.assertRegex(errors, r"process \d+: 5 scopes")

    def test_a_small_signal_stack_suffices(self):
        process = self.start("small_stack=1", "scopes=3", "ready=1", "idle=10000", stats_signal=int(SIGNAL))
        process.stdout.readline()
        process.send_signal(SIGNAL)
        self.wait_for(self.read)
        self.assertIsNone(process.poll())

    def test_a_storm_of_signals(self):
        process = self.start("ready=1", "rush=2000", stats_signal=int(SIGNAL))
        process.stdout.readline()
        for _ in range(1000):
            process.send_signal(SIGNAL)
            time.sleep(0.001)
        self.end(process)
        dumps = self.read()
        self.assertGreater(len(dumps), 50)
        entered = [dump["process"]["scopes_entered"] for dump in dumps]
        self.assertEqual(entered, sorted(entered))
        request = next(scope for scope in dumps[-1]["scopes"] if scope["name"] == "request")
        self.assertEqual(request["blocks_allocated"], 10 * request["scopes_entered"])

    def test_many_threads_at_once(self):
        self.end(self.start("storm=200", stats_signal=int(SIGNAL)))
        dumps = self.read()
        self.assertGreater(len(dumps), 100)
        self.assertEqual(dumps[-1]["process"]["scopes_entered"], 800)

    def test_signals_that_are_not_to_be_had(self):
        for number in (signal.SIGKILL, signal.SIGSEGV, 33):
            _, errors = self.end(self.start("scopes=1", stats_signal=int(number)))
            self.assertRegex(errors, rf"^libregion: LIBREGION_STATS_SIGNAL={int(number)}: [^\n]*ignored\n$")
        _, errors = self.end(self.start("scopes=1", stats_signal=65))
        self.assertIn("LIBREGION_STATS_SIGNAL=65: not understood; expected 0 to 64", errors)

    # ---- at intervals

    def test_intervals_are_met_by_who_comes_by(self):
        process = self.start("scopes=600", "idle=1", stats_interval=100)
        said, _ = self.end(process)
        self.assertIn("interrupted 0 times", said)
        dumps = self.read()
        self.assertEqual([dump["reason"] for dump in dumps[:-1]], ["interval"] * (len(dumps) - 1))
        self.assertEqual(dumps[-1]["reason"], "exit")
        self.assertGreaterEqual(len(dumps), 5)
        times = [dump["clock_ms"] for dump in dumps]
        self.assertTrue(all(100 <= b - a for a, b in zip(times, times[1:-1])), times)

    def test_intervals_in_scopes_that_free_all(self):
        self.end(self.start("tidy=600", stats_interval=100))
        self.assertGreaterEqual(len(self.read()), 5)

    def test_intervals_outside_of_scopes(self):
        self.end(self.start("plain=600", stats_interval=100))
        self.assertGreaterEqual(len(self.read()), 4)

    def test_a_process_that_idles_is_left_alone(self):
        said, _ = self.end(self.start("idle=500", stats_interval=100))
        self.assertIn("interrupted 0 times", said)
        self.assertLessEqual(len(self.read()), 2)

    def test_with_a_signal_intervals_are_exact(self):
        self.end(self.start("idle=1050", stats_interval=100, stats_signal=int(SIGNAL)))
        dumps = self.read()
        self.assertIn(len([dump for dump in dumps if dump["reason"] == "interval"]), (8, 9, 10))

    def test_with_a_signal_nobody_comes_by(self):
        self.end(self.start("scopes=600", stats_interval=100, stats_signal=int(SIGNAL)))
        dumps = self.read()
        self.assertLessEqual(len(dumps), (dumps[-1]["clock_ms"] - dumps[0]["start_ms"]) // 100 + 1)

    def test_memory_over_time(self):
        self.end(self.start("plain=900", stats_interval=50))
        resident = [dump["process"]["resident_bytes"] for dump in self.read()]
        self.assertEqual(resident[:-1], sorted(resident[:-1]))
        self.assertGreater(resident[-2], resident[0] + (10 << 20))

    # ---- files

    def test_a_prometheus_file_is_replaced_whole(self):
        process = self.start("rush=1500", stats="all.prom", stats_interval=10)
        seen = set()
        while process.poll() is None:
            try:
                text = (self.folder / "all.prom").read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            seen.add(text)
            self.assertRegex(text.splitlines()[-1], r"^libregion_resident_bytes \d+$")
        self.assertGreater(len(seen), 5)
        self.assertEqual(os.listdir(self.folder), ["all.prom"])

    def test_children_have_files_of_their_own(self):
        process = self.start(f"stale={self.folder}", "scopes=100", "child=300", stats="%p.json", stats_interval=50)
        self.end(process)
        files = {int(path.stem): documents(path.read_text(encoding="utf-8")) for path in self.folder.iterdir()}
        self.assertEqual(len(files), 2)
        for process_id, dumps in files.items():
            self.assertEqual({dump["process_id"] for dump in dumps}, {process_id})
        child = next(dumps for process_id, dumps in files.items() if process_id != process.pid)
        self.assertGreaterEqual(len(child), 4)
        self.assertEqual(child[-1]["process"]["scopes_entered"], 400)

    def test_a_child_adds_to_its_parent_s_file(self):
        self.end(self.start("scopes=120", "child=120", stats_interval=50))
        dumps = self.read()
        self.assertEqual(len({dump["process_id"] for dump in dumps}), 2)
        self.assertEqual([dump["reason"] for dump in dumps].count("exit"), 2)

    def test_a_child_keeps_exact_intervals(self):
        self.end(self.start("child=600", stats="%p.json", stats_interval=100, stats_signal=int(SIGNAL)))
        for path in self.folder.iterdir():
            self.assertGreaterEqual(len(documents(path.read_text(encoding="utf-8"))), 6)

    def test_a_file_that_cannot_be_written_is_told_once(self):
        _, errors = self.end(self.start("scopes=300", stats="none/all.json", stats_interval=50))
        self.assertRegex(errors, r"^libregion: LIBREGION_STATS=[^\n]*can't be written; no statistics\n$")


main()
