"""compare: one program under several allocators, and whether the differences are real.

usage: region compare [option]... [--] program [argument]...

  -n N, --rounds=N   rounds; in each the program runs once under each allocator (default 10)
  --with=LIST        other allocators: names (jemalloc, mimalloc, tcmalloc, snmalloc, rpmalloc, hardened_malloc,
                     tbbmalloc) or name=path of a library, with commas; none for none. Default: those found of
                     the first five
  --sites=LINE       also libregion with this LIBREGION_SITES, as `region advise` prints it
  --stdin=FILE       what the program reads on its standard input (default: nothing)
  --json             all figures as JSON
  --help             this text

Runs are interleaved, in changing order, after one round that isn't counted. For CPU time (user and system), wall
time, peak memory and page faults it prints the median, the quartiles, and the ratio to glibc. A ratio with a ~
is within the noise: Wilcoxon's signed-rank test over the rounds, exact and two-sided, gives p >= 0.01.
Fewer than 8 rounds can't tell anything from noise.

What the program prints on its standard output, and its exit status, must be the same in every run.
Exit status: 0; 1 if a run differs in that; 2 for wrong usage; 126 or 127 if the program can't be run.
"""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import common
from common import Refusal

SIGNIFICANT = 0.01

OTHERS = {
    "jemalloc": ["libjemalloc.so.2"],
    "mimalloc": ["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"],
    "tcmalloc": ["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"],
    "snmalloc": ["libsnmallocshim.so"],
    "rpmalloc": ["librpmallocwrap.so", "librpmalloc.so"],
    "hardened_malloc": ["libhardened_malloc.so"],
    "tbbmalloc": ["libtbbmalloc_proxy.so.2"],
}
BY_DEFAULT = ("jemalloc", "mimalloc", "tcmalloc", "snmalloc", "rpmalloc")

# The variables of a way are set for the program; those with None are unset.
Way = namedtuple("Way", "name variables")
Run = namedtuple("Run", "status output cpu_ns wall_ns peak_bytes faults")
Measure = namedtuple("Measure", "member title scale unit digits")

MEASURES = (
    Measure("cpu_ns", "CPU time", 1e6, "ms", 1),
    Measure("wall_ns", "wall time", 1e6, "ms", 1),
    Measure("peak_bytes", "peak memory", 1 << 20, "MiB", 2),
    Measure("faults", "page faults", 1, "", 0),
)

# ---- what to run ------------------------------------------------------------------------------------

def parse(words):
    """The options and the program's command line."""
    found, words = common.options_of("compare", words, ("json",),
                                     ("rounds", "with", "sites", "stdin", "library", "measure"), short={"-n": "--rounds"})
    options = {"rounds": "10", "json": False, **found}
    if "help" in options:
        return options, []
    if not words:
        raise Refusal("compare: no program named; see: region compare --help")
    if not options["rounds"].isdigit() or int(options["rounds"]) < 1:
        raise Refusal(f"compare: -n {options['rounds']}: expected a number of rounds, at least 1")
    options["rounds"] = int(options["rounds"])
    return options, words


def loader_cache():
    """What the dynamic loader finds by name: {name: path}."""
    for ldconfig in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            said = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
        except OSError:
            continue
        return {line.split()[0]: line.split(" => ")[-1] for line in reversed(said.splitlines()) if " => " in line}
    return {}


def find_other(name, cache):
    for library in OTHERS[name]:
        places = [cache.get(library), *(f"{folder}/{library}" for folder in ("/usr/local/lib", "/usr/lib"))]
        for place in places:
            if place and os.path.exists(place):
                return place
    return None


def others(wanted):
    """Name and library of each other allocator that is to be compared."""
    cache = loader_cache()
    if wanted is None:
        found = [(name, find_other(name, cache)) for name in BY_DEFAULT]
        return [(name, path) for name, path in found if path]
    result = []
    for item in filter(None, wanted.split(",")):
        name, has_path, path = item.partition("=")
        if item == "none":
            continue
        if not has_path and name not in OTHERS:
            raise Refusal(f"compare: --with={item}: not one of {', '.join(OTHERS)}; name=path takes any library")
        path = path if has_path else find_other(name, cache)
        if not path or not os.access(path, os.R_OK):
            raise Refusal(f"compare: --with={item}: " + (f"can't read {path}" if path else "not found; is it installed?"))
        result.append((name, os.path.realpath(path)))
    return result


def preload(library):
    return ":".join(filter(None, (os.environ.get("LD_PRELOAD"), library)))


def ways_of(options):
    plain = {"LIBREGION_SITES": None, "LIBREGION_SITES_FILE": None}
    ways = [Way("glibc", plain), Way("libregion", {**plain, "LD_PRELOAD": preload(options["library"])})]
    if "sites" in options:
        ways.append(Way("libregion, sites", {**plain, "LD_PRELOAD": preload(options["library"]),
                                             "LIBREGION_SITES": options["sites"]}))
    for name, path in others(options.get("with")):
        ways.append(Way(name, {**plain, "LD_PRELOAD": preload(path)}))
    return ways


# ---- running ----------------------------------------------------------------------------------------

class Runner:
    """Runs the program once, in a way, and keeps what it printed by its hash."""

    def __init__(self, options, words):
        self.measure, self.words = options["measure"], words
        self.stdin_path = options.get("stdin", os.devnull)
        if not os.access(self.stdin_path, os.R_OK):
            raise Refusal(f"compare: --stdin={self.stdin_path}: can't be read")
        self.output_bytes = 0

    def run(self, way, said=None):
        """`said`, if it is given, is a file for what goes to stderr."""
        assignments = [f"-{name}" if value is None else f"{name}={value}" for name, value in way.variables.items()]
        read_fd, write_fd = os.pipe()
        with tempfile.TemporaryFile() as output, open(self.stdin_path, "rb") as stdin, \
                tempfile.TemporaryFile() as errors, os.fdopen(read_fd) as result:
            try:
                status = subprocess.run([self.measure, str(write_fd), *assignments, "--", *self.words],
                                        stdin=stdin, stdout=output, stderr=said or errors,
                                        pass_fds=(write_fd,), check=False).returncode
            finally:
                os.close(write_fd)
            if status != 0:
                raise Refusal(f"compare: {self.words[0]} couldn't be run under {way.name}", 126)
            wait_status, user, system, wall, kib, minor, major = map(int, result.read().split())
            status = os.waitstatus_to_exitcode(wait_status)
            if status in (126, 127):
                errors.seek(0)
                lines = errors.read().decode(errors="replace").splitlines()
                if lines and lines[-1].startswith("region: "):
                    raise Refusal(lines[-1][len("region: "):], status)
            return Run(status, self.hash(output), user + system, wall, kib << 10, minor + major)

    def hash(self, output):
        self.output_bytes = output.seek(0, os.SEEK_END)
        output.seek(0)
        digest = hashlib.sha256()
        for chunk in iter(lambda: output.read(1 << 20), b""):
            digest.update(chunk)
        return digest.hexdigest()


def order(ways, number):
    """A different one in each round, so that nobody always runs after the same neighbour."""
    turned = ways[number // 2 % len(ways):] + ways[:number // 2 % len(ways)]
    return turned if number % 2 == 0 else turned[::-1]


def run_rounds(runner, ways, rounds):
    """{name: its runs}, the first of which isn't to be counted; and what libregion says of the sites."""
    runs = {way.name: [] for way in ways}
    lines = []
    total = (rounds + 1) * len(ways)
    with common.Progress() as progress:
        for number in range(rounds + 1):
            for way in order(ways, number):
                progress.say(f"round {number} of {rounds}, {way.name}" if number else f"first round, {way.name}",
                             sum(map(len, runs.values())), total)
                if number == 0 and way.variables.get("LIBREGION_SITES"):
                    run, lines = run_verbosely(runner, way)
                else:
                    run = runner.run(way)
                runs[way.name].append(run)
    return runs, lines


def run_verbosely(runner, way):
    with tempfile.TemporaryFile() as said:
        run = runner.run(way._replace(variables={**way.variables, "LIBREGION_VERBOSE": "1"}), said)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    site = re.compile(r'libregion: (site "|LIBREGION_SITES[^=]* character)')
    return run, [line[len("libregion: "):] for line in lines if site.match(line)]


# ---- figures ----------------------------------------------------------------------------------------

def signed_rank_p(differences):
    """Wilcoxon's signed-rank test, two-sided and exact: the p of `there is no difference`."""
    sizes = sorted(abs(d) for d in differences if d)
    if not sizes:
        return 1.0
    # Ranks are doubled, so that those of equal sizes, which share their mean, are whole numbers.
    rank = {size: sizes.index(size) * 2 + sizes.count(size) + 1 for size in set(sizes)}
    ways = [1]
    for size in sizes:
        longer = ways + [0] * rank[size]
        for total, count in enumerate(ways):
            longer[total + rank[size]] += count
        ways = longer
    positive = sum(rank[abs(d)] for d in differences if d > 0)
    tail = min(sum(ways[:positive + 1]), sum(ways[positive:]))
    return min(1.0, 2 * tail / 2 ** len(sizes))


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def figures(values, base):
    low, median, high = quartiles(values)
    p = signed_rank_p([a - b for a, b in zip(values, base)])
    base_median = statistics.median(base)
    return {"median": median, "quartiles": [low, high],
            "mad": statistics.median(abs(value - median) for value in values),
            "ratio": median / base_median if base_median else None,
            "p": p, "differs": p < SIGNIFICANT, "runs": values}


def figures_of(runs, name, base):
    return {m.member: figures([getattr(run, m.member) for run in runs[name][1:]],
                              [getattr(run, m.member) for run in runs[base][1:]]) for m in MEASURES}


def judge_output(runs):
    """None if every run printed and ended the same; else the sentence that says which didn't."""
    seen = {name: {(run.status, run.output) for run in some} for name, some in runs.items()}
    base = next(iter(seen))
    if all(len(results) == 1 and results == seen[base] for results in seen.values()):
        return None
    if len(seen[base]) > 1:
        return f"the program prints or returns something else each time, under {base} too: the runs can't be compared"
    different = [name for name, results in seen.items() if results != seen[base]]
    statuses = {name: sorted({run.status for run in runs[name]}) for name in different}
    expected = next(iter(seen[base]))[0]
    return "; ".join(
        f"under {name} it " + (f"ended with status {', '.join(map(str, statuses[name]))} instead of {expected}"
                               if statuses[name] != [expected] else "printed something else") for name in different)


# ---- saying it --------------------------------------------------------------------------------------

def ratio_text(figure, is_base=False):
    text = "-" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
    return text + ("  " if figure["differs"] or is_base else " ~")


def print_table(measure, result, base):
    unit = f", {measure.unit}" if measure.unit else ""
    width = max(len(name) for name in (*result, "peak memory, MiB")) + 2
    print(f"\n{measure.title + unit:<{width}}{'median':>10}{'quartiles':>22}{f'to {base}':>12}")

    def number(value):
        return f"{value / measure.scale:.{measure.digits}f}"

    for name, of in result.items():
        figure = of[measure.member]
        spread = " .. ".join(map(number, figure["quartiles"]))
        print(f"{name:<{width}}{number(figure['median']):>10}{spread:>22}{ratio_text(figure, name == base):>12}")


def print_pair(of, to, pair):
    said = ", ".join(f"{m.title} {ratio_text(pair[m.member]).rstrip()}" for m in MEASURES)
    print(f"\n{of} to {to}: {said}")


def print_all(words, rounds, result, pairs, lines):
    print(f"{rounds} rounds of: {' '.join(words)}")
    for line in lines:
        print(f"  {line}")
    for measure in MEASURES:
        print_table(measure, result, next(iter(result)))
    for of, to, pair in pairs:
        print_pair(of, to, pair)
    if rounds < 8:
        print(f"\nWith {rounds} rounds nothing can be told from noise; 8 is the least.")
    else:
        print(f"\n~ within the noise: signed-rank test over the rounds, p >= {SIGNIFICANT}")


def main(words):
    options, words = parse(words)
    if "help" in options:
        common.print_help(__doc__)
        return 0
    ways = ways_of(options)
    runner = Runner(options, words)
    runs, lines = run_rounds(runner, ways, options["rounds"])
    names = [way.name for way in ways]
    result = {name: figures_of(runs, name, names[0]) for name in names}
    pairs = [(name, "libregion", figures_of(runs, name, "libregion")) for name in names
             if name == "libregion, sites"]
    wrong = judge_output(runs)
    if options["json"]:
        print(json.dumps({
            "command": words, "rounds": options["rounds"], "base": names[0], "significant_p": SIGNIFICANT,
            "test": "Wilcoxon signed-rank, exact, two-sided, paired by round",
            "outputs_equal": wrong is None, "outputs": wrong, "sites": lines,
            "ways": [{"name": way.name, "variables": way.variables, "exit_status": runs[way.name][0].status,
                      **result[way.name]} for way in ways],
            "pairs": [{"of": of, "to": to, **pair} for of, to, pair in pairs]}, indent=1))
    else:
        print_all(words, options["rounds"], result, pairs, lines)
        if not wrong:
            status = runs[names[0]][0].status
            print(f"Every run printed the same {runner.output_bytes} bytes and ended with status {status}.")
    if wrong:
        print(f"region: compare: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    common.run(main)
