"""probes: the static probes of the library, as tracers find them and as gdb sees them hit."""

import re
import shutil
import subprocess
import tempfile
import unittest
from collections import Counter

from insight import LIBRARY, environment, main, needs_sites, program

ARGUMENTS = {"enter": 2, "exit": 2, "fade": 3, "refill": 4, "sweep": 4}

GDB = """
set pagination off
set breakpoint pending on
set style enabled off
set env LD_PRELOAD {library}
{environment}
{breakpoints}
run {words}
"""

BREAK = """
break -probe-stap region:{name}
commands
silent
printf "hit {name} {formats}\\n", {arguments}
cont
end
"""


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout


class Notes(unittest.TestCase):
    def setUp(self):
        said = run("readelf", "--wide", "--notes", LIBRARY)
        self.notes = re.findall(r"Provider: (\S+)\s+Name: (\S+)\s+Location: (0x\w+), Base: (0x\w+), Semaphore: (0x\w+)"
                                r"\s+Arguments: ([^\n]*)", said)

    def test_all_probes_are_listed(self):
        self.assertEqual({(note[0], note[1]) for note in self.notes}, {("region", name) for name in ARGUMENTS})

    def test_each_has_its_arguments(self):
        for _, name, _, _, _, arguments in self.notes:
            self.assertRegex(arguments, r"^8@\S+( 8@\S+)*$")
            self.assertEqual(len(arguments.split()), ARGUMENTS[name], name)

    def test_each_is_a_nop(self):
        code = run("objdump", "-d", "--no-show-raw-insn", LIBRARY)
        for _, name, location, _, _, _ in self.notes:
            self.assertRegex(code, rf"(?m)^ *{int(location, 16):x}:\s+nop$", name)

    def test_the_base_is_where_the_notes_say(self):
        section = re.search(r"\.stapsdt\.base\s+PROGBITS\s+(\w+)", run("readelf", "--wide", "--sections", LIBRARY))
        self.assertEqual({int(note[3], 16) for note in self.notes}, {int(section[1], 16)})


@unittest.skipUnless(shutil.which("gdb"), "there is no gdb")
class Hits(unittest.TestCase):
    def hits(self, path, *words, **variables):
        """Lines of a probe's name and its arguments, in the order of their hits."""
        breakpoints = ""
        for name, count in ARGUMENTS.items():
            first = "" if name == "sweep" else "(char *)"
            arguments = [f"{first}$_probe_arg0", *(f"(unsigned long)$_probe_arg{i}" for i in range(1, count))]
            formats = " ".join(["%lu" if name == "sweep" else "%s", *["%lu"] * (count - 1)])
            breakpoints += BREAK.format(name=name, formats=formats, arguments=", ".join(arguments))
        lines = "\n".join(f"set env {name} {value}" for name, value in variables.items())
        with tempfile.NamedTemporaryFile("w", suffix=".gdb") as script:
            script.write(GDB.format(library=LIBRARY, environment=lines, breakpoints=breakpoints, words=" ".join(words)))
            script.flush()
            said = subprocess.run(["gdb", "-batch", "-nx", "-x", script.name, path], capture_output=True, text=True,
                                  check=False, env=environment(), timeout=100)
        if "ptrace" in said.stderr and "not permitted" in said.stderr:
            self.skipTest("gdb may not trace here")
        return [line.split()[1:] for line in said.stdout.splitlines() if line.startswith("hit ")]

    def test_scopes_are_entered_and_left_in_pairs(self):
        for kind in ("scopes", "tidy", "empty"):
            hits = self.hits(program("live"), f"{kind}=5")
            entered = [hit[1:] for hit in hits if hit[0] == "enter"]
            left = [hit[1:] for hit in hits if hit[0] == "exit"]
            self.assertEqual(len(entered), 5)
            self.assertEqual(entered, left)
            self.assertEqual({hit[0] for hit in entered}, {"request"})

    def test_what_fades_is_told(self):
        faded = [hit[1:] for hit in self.hits(program("live"), "scopes=5") if hit[0] == "fade"]
        self.assertEqual(faded, [["request", "6", "576"]] * 5)

    def test_a_fade_lies_between_entry_and_exit(self):
        names = [hit[0] for hit in self.hits(program("live"), "scopes=3") if hit[0] != "refill"]
        self.assertEqual(names, ["enter", "fade", "exit"] * 3)

    def test_refills_name_the_hole(self):
        refills = [hit[1:] for hit in self.hits(program("live"), "scopes=2") if hit[0] == "refill"]
        self.assertTrue(refills)
        for name, wanted, first, end in refills:
            self.assertEqual((name, wanted), ("request", "96"))
            self.assertGreaterEqual(int(end) - int(first), 96)

    def test_a_sweep_tells_what_it_has_found(self):
        hits = self.hits(program("live"), "search=100")
        sweeps = [list(map(int, hit[1:])) for hit in hits if hit[0] == "sweep"]
        self.assertEqual(len(sweeps), 2)
        self.assertTrue(all(looked > 300000 and pause > 0 for looked, pause, _, _ in sweeps), sweeps)
        # Some more are found because a word that nobody means points at them.
        self.assertAlmostEqual(sum(reclaimed for _, _, reclaimed, _ in sweeps), 700 * 1008, delta=20 * 1008)
        self.assertAlmostEqual(sum(faded for _, _, _, faded in sweeps), 300 * 1008, delta=20 * 1008)
        self.assertEqual(sum(int(hit[3]) for hit in hits if hit[0] == "fade"), sum(sweep[3] for sweep in sweeps))

    @needs_sites
    def test_sites_are_scopes_too(self):
        hits = Counter(tuple(hit[:2]) for hit in self.hits(program("spend"), "work=20", LIBREGION_SITES="spend_work"))
        self.assertEqual((hits["enter", "spend_work"], hits["exit", "spend_work"]), (20, 20))


main()
