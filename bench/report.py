"""report.py: what scripts/bench makes of its figures: tables, verdicts on targets, CSV files, plots.

Figures are samples by key: benchmark, kind of work, size of it, threads, subject. A sample comes from one
round; everything here looks at the medians over rounds. A new benchmark needs nothing here, unless it
has targets of its own: those are listed in targets().
"""

import csv
import operator
import statistics
import subprocess
from collections import namedtuple

BASELINE = "jemalloc"

Key = namedtuple("Key", "bench kind n threads subject")

# A plot shows one kind of row: bars in groups, one group for each n or number of threads, or lines.
Plot = namedtuple("Plot", "kind x style label")


class Results:
    """Samples by key, with their unit. What benchmarks are about is given by name."""

    def __init__(self, about):
        self.about, self.samples, self.units = about, {}, {}

    def add(self, key, value, unit):
        self.samples.setdefault(key, []).append(value)
        self.units[key] = unit

    def median(self, key):
        return statistics.median(self.samples[key]) if key in self.samples else None

    def median_or_freed(self, key):
        """An allocator without a wholesale end is compared by what it does instead: it frees."""
        value = self.median(key)
        return self.median(key._replace(kind="freed")) if value is None and " " not in key.subject else value

    def benches(self):
        return unique(key.bench for key in self.samples)

    def keys(self, bench):
        return [key for key in self.samples if key.bench == bench]


def unique(items):
    return list(dict.fromkeys(items))


# ---- targets ---------------------------------------------------------------------------------------

ratio, difference = operator.truediv, operator.sub

# Met when `combine(top, bottom)` is at most `limit` for every pair of keys; the worst one is shown.
Target = namedtuple("Target", "label limit pairs combine")


def per_n(label, bench, kind, subject, peer, peer_kind, limits):
    """One ratio target for each n."""
    for n, limit in limits.items():
        pair = (Key(bench, kind, n, 1, subject), Key(bench, peer_kind, n, 1, peer))
        yield Target(f"{label}, n = {n}", limit, [pair], ratio)


# What a region, a shared region, slabs and a text buffer have to beat: whatever serves their work in Debian.
HEAPS = ["jemalloc", "mimalloc", "tcmalloc", "glibc"]
ON_HEAPS = [f"{name} on {heap}" for name in ("obstack", "talloc", "talloc pool", "pmr monotonic",
                                             "pmr synchronized") for heap in ("mimalloc", "glibc")]
WHOLESALE_PEERS = ["APR pool", "jemalloc arena", "mimalloc heap", *ON_HEAPS]
SHARED_PEERS = [*HEAPS, "jemalloc arena", "bump locked", "bump atomic", *ON_HEAPS]
OTHER_PEERS = [*HEAPS, *ON_HEAPS]


def first(label, key, peers):
    """No peer takes less than what has this key. Peers that free one by one have a kind of their own."""
    pairs = [(key, key._replace(subject=peer)) for peer in peers]
    if key.kind == "wholesale":
        pairs += [(key, key._replace(kind="freed", subject=heap)) for heap in HEAPS]
    threads = f", {key.threads} threads" if key.threads > 1 else ""
    return Target(f"{label}, n = {key.n}{threads} ÷ the best peer", 1.0, pairs, ratio)


def region_targets():
    region, local = "libregion region", "libregion local"
    for n in (10 ** power for power in range(2, 7)):
        batch = Key("objects", "wholesale", n, 1, region)
        yield first("batches of 40 B", batch, WHOLESALE_PEERS)
        yield Target(f"region_alloc ÷ bump inlined, n = {n}", 1.3,
                     [(batch, batch._replace(subject="bump inlined"))], ratio)
    for threads in (1, 2, 8, 16):
        yield first("shared region", Key("shared", "contended", 250000, threads, local), SHARED_PEERS)
    for threads in (1, 16):
        key = Key("shared", "live", 10000000 // threads, threads, local)
        yield first("shared region, 10 M live", key, SHARED_PEERS)
    for subject in (local, "libregion shared"):
        one = Key("shared", "contended", 250000, 1, subject)
        alone = one._replace(kind="live", n=10000000)
        yield Target(f"{subject}, 2 threads ÷ 1", 1.1, [(one._replace(threads=2), one)], ratio)
        yield Target(f"{subject}, 16 threads ÷ 1, 10 M live in all", 1.1,
                     [(alone._replace(n=625000, threads=16), alone)], ratio)
        yield Target(f"{subject}, 16 threads ÷ 1, and 16 times the memory", 1.1,
                     [(one._replace(threads=16), one)], ratio)
    sixteen = Key("shared", "contended", 250000, 16, local)
    yield Target("libregion local ÷ a bump for each thread, 16 threads", 1.1,
                 [(sixteen, sixteen._replace(subject="bump apart"))], ratio)
    for n in (1, 10, 100, 1000):
        yield first("full buffers", Key("full", "wholesale", 16 * n, 1, region), WHOLESALE_PEERS)
    one = Key("full", "standing", 1, 1, region)
    yield Target("a block at 1000 full buffers ÷ at 1", 1.1, [(one._replace(n=1000), one)], ratio)
    yield Target("percent of a region's buffers in no block, bimodal", 5,
                 [(Key("slack", "bimodal-ends", 64, 1, region), None)], difference)
    for kind, n in (("alloc", 1), ("alloc", 128), ("alloc", 256), ("alloc", 1024), ("refs", 128)):
        for growth in ("2", "1.1"):
            key = Key("slabs", kind, n, 1, f"libregion slabs by {growth}")
            yield first(f"slabs by {growth}, {kind}", key, OTHER_PEERS)
    for kind in ("wholesale", "freed", "printf", "stream"):
        for n in (2, 10, 100, 1000):
            text = Key("text", kind, n, 1, region)
            yield Target(f"growing text, {kind}, n = {n} ÷ the best peer", 1.0,
                         [(text, text._replace(subject=peer)) for peer in OTHER_PEERS], ratio)


def targets():
    yield from region_targets()
    freed, left = "libregion unfreed", "libregion none"
    yield from per_n("blocks freed one by one ÷ jemalloc", "scope", "freed", freed, "jemalloc", "freed",
                     {100: 0.9, 10000: 0.35, 1000000: 0.45})
    yield from per_n("blocks freed one by one ÷ mimalloc", "scope", "freed", freed, "mimalloc", "freed",
                     {10000: 0.8, 1000000: 0.8})
    yield from per_n("blocks not freed, none ÷ jemalloc malloc+free", "scope", "wholesale", left, "jemalloc",
                     "freed", {100: 0.5, 10000: 0.25, 1000000: 0.4})
    yield from per_n("blocks not freed, none ÷ bump in a library", "scope", "wholesale", left, "bump",
                     "wholesale", {100: 1.15, 10000: 1.15, 1000000: 1.15})
    yield from per_n("parse tree, none ÷ jemalloc", "tree", "wholesale", left, "jemalloc", "freed",
                     {500: 0.55, 400000: 0.55})
    one_pair = Key("enter", "freed", 1, 1, "jemalloc")
    yield Target("empty scope ÷ jemalloc malloc+free", 1.0,
                 [(Key("enter", "freed", 0, 1, "libregion do"), one_pair)], ratio)
    yield Target("scope of one malloc+free ÷ jemalloc malloc+free", 2.0,
                 [(Key("enter", "freed", 1, 1, "libregion do"), one_pair)], ratio)
    yield Target("scope of 100 blocks, none ÷ mi_heap_new + destroy", 0.1,
                 [(Key("enter", "wholesale", 100, 1, left),
                   Key("enter", "wholesale", 100, 1, "mimalloc heap"))], ratio)
    yield Target("a block in a scope, 2 threads ÷ 1", 1.05,
                 [(Key("scope", kind, n, 2, subject), Key("scope", kind, n, 1, subject))
                  for kind, subject in (("freed", freed), ("wholesale", left)) for n in (100, 10000)], ratio)
    # The blocks of both threads are too many for any cache: the way to memory is what they share.
    big = Key("scope", "wholesale", 1000000, 2, left)
    yield Target("blocks not freed, none ÷ bump ahead, 2 threads, n = 1000000", 1.15,
                 [(big, big._replace(subject="bump ahead"))], ratio)
    sizes = sorted(n * step // 2 for n in (1 << bit for bit in range(4, 21)) for step in (2, 3))
    yield Target("malloc+free pair ÷ jemalloc, 16 B to 1 MiB", 1.0,
                 [(Key("pair", "hot", n, 1, "libregion"), Key("pair", "hot", n, 1, "jemalloc"))
                  for n in sizes if n <= 1 << 20], ratio)
    yield Target("instructions of a pair of 32 B", 60,
                 [(Key("instructions", "pair", 32, 1, "libregion"), None)], difference)
    for kind, label, limit in (("resident", "KiB of an empty program − glibc", 1536),
                               ("cpu", "start-up − glibc, µs of CPU time", 1000)):
        yield Target(label, limit, [(Key("start", kind, 0, 1, "libregion"),
                                     Key("start", kind, 0, 1, "glibc"))], difference)


def place_of(target, top, bottom):
    """Which of its pairs: the row, or the peer if all are of one row."""
    is_one_row = bottom and len({pair[0] for pair in target.pairs}) == 1
    return bottom.subject if is_one_row else f"{top.kind} {top.n}"


def judge(target, results):
    """The worst value, where it is, and how many of the pairs miss; None when nothing was measured."""
    values = []
    for top, bottom in target.pairs:
        operands = [results.median(top), results.median(bottom) if bottom else 0]
        if None not in operands:
            values.append((target.combine(*operands), place_of(target, top, bottom)))
    if not values:
        return None
    worst, place = max(values)
    missed = sum(value > target.limit for value, _ in values)
    where = ""
    if len(target.pairs) > 1:
        where = f"  worst of {len(values)}, at {place}" + (f"; {missed} missed" if missed else "")
    return worst, where, missed


def print_targets(results, benches):
    """The targets of the benchmarks that were asked for."""
    print("\nTargets (value at most limit)")
    for target in targets():
        if target.pairs[0][0].bench not in benches:
            continue
        verdict = judge(target, results)
        if verdict is None:
            print(f"  {target.label:60} not measured")
            continue
        value, where, missed = verdict
        print(f"  {target.label:60} {value:8.2f}  limit {target.limit:7g}  "
              f"{'MISSED' if missed else 'met':6}{where}".rstrip())


# ---- tables ----------------------------------------------------------------------------------------

def cell(results, key):
    """The figure and its ratio to the baseline's."""
    value = results.median_or_freed(key)
    baseline = results.median_or_freed(key._replace(subject=BASELINE))
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" {value / baseline:6.2f}" if baseline else "")


def print_grid(header, lines):
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, *lines]:
        print("  " + "  ".join(text.rjust(width) if i else text.ljust(width)
                               for i, (text, width) in enumerate(zip(line, widths))).rstrip())


def print_table(results, bench, kind, threads):
    """Subjects against n; the longer of the two goes down the page."""
    keys = results.keys(bench)
    chosen = [key for key in keys if (key.kind, key.threads) == (kind, threads)]
    numbers = unique(key.n for key in chosen)
    subjects = [s for s in unique(key.subject for key in keys)
                if results.median_or_freed(chosen[0]._replace(subject=s)) is not None]
    print(f"\n{bench}: {kind}" + (f", {threads} threads" if threads > 1 else "") +
          f"  ({results.units[chosen[0]]}, and ÷ {BASELINE})")
    rows = [[cell(results, Key(bench, kind, n, threads, s)) for n in numbers] for s in subjects]
    if len(numbers) > len(subjects):
        print_grid(["n", *subjects], [[str(n), *column] for n, column in zip(numbers, zip(*rows))])
    else:
        print_grid(["n", *map(str, numbers)], [[s, *row] for s, row in zip(subjects, rows)])


def print_tables(results, benches):
    for bench in [bench for bench in results.benches() if bench in benches]:
        print(f"\n== {bench}: {results.about[bench]}")
        for kind, threads in unique((key.kind, key.threads) for key in results.keys(bench)):
            print_table(results, bench, kind, threads)


# ---- files -----------------------------------------------------------------------------------------

def write_csv(path, results, bench, description):
    """One line for each key: the median, lowest and highest sample, after comments on how and where."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        for name, value in description:
            file.write(f"# {name}: {value}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["benchmark", "subject", "kind", "n", "threads", "unit", "median", "low", "high"])
        for key in results.keys(bench):
            figures = [f"{f(results.samples[key]):.3f}" for f in (statistics.median, min, max)]
            writer.writerow([bench, key.subject, key.kind, key.n, key.threads, results.units[key], *figures])


# ---- plots -----------------------------------------------------------------------------------------

COLOURS = {"libregion": "#c0392b", "glibc": "#7f8c8d", "jemalloc": "#2980b9", "mimalloc": "#27ae60",
           "tcmalloc": "#8e44ad", "bump": "#2c3e50", "APR": "#d68910", "obstack": "#a0522d"}
LIGHTER = {"none": "#e67e73", "unfreed": "#d9534a", "do": "#f1b5af", "arena": "#7fb3d5", "heap": "#7dcea0",
           "inlined": "#85929e", "ahead": "#aeb6bf", "reachable": "#f5c6c0"}


def colour(subject):
    first, _, rest = subject.partition(" ")
    return LIGHTER.get(rest, COLOURS.get(first, "#b7950b"))


def plot_data(results, bench, plot):
    """The unit, and a table: a line for each x, a column for each subject."""
    keys = results.keys(bench)
    chosen = [key for key in keys if key.kind == plot.kind and (plot.x == "threads" or key.threads == 1)]
    if not chosen:
        return None, [], {}
    xs = unique(getattr(key, plot.x) for key in chosen)
    columns = {subject: [results.median_or_freed(chosen[0]._replace(**{plot.x: x, "subject": subject}))
                         for x in xs] for subject in unique(key.subject for key in keys)}
    return results.units[chosen[0]], xs, {s: column for s, column in columns.items() if any(column)}


def plot_script(file, title, plot, unit, xs, columns):
    """What gnuplot is to do, line by line."""
    yield "set terminal svg size 900,440 font 'sans,12' background 'white'"
    yield f"set output '{file}'; set title '{title}'"
    yield f"set ylabel '{unit}, log scale'; set xlabel '{plot.label}'; set logscale y"
    yield "set grid ytics lc '#dddddd'; set key outside right; set border 3; set tics nomirror"
    yield "$data << EOD"
    for x, *figures in zip(xs, *columns.values()):
        yield " ".join([str(x), *(f"{figure or float('nan'):.4g}" for figure in figures)])
    yield "EOD"
    if plot.style == "bars":
        yield "set style data histogram; set style histogram clustered gap 1; set style fill solid 0.9"
        uses, style = "{}:xtic(1)", ""
    else:
        yield "set logscale x 2; set format x '%.0b%BB'; set style data linespoints"
        uses, style = "1:{}", " lw 2 pt 7 ps 0.4"
    yield "plot " + ", ".join(
        f"$data using {uses.format(i + 2)} title '{subject}' lc rgb '{colour(subject)}'{style}"
        for i, subject in enumerate(columns))


def draw_plot(directory, results, bench, plot):
    """Draws bench-kind.svg, if such rows were measured."""
    unit, xs, columns = plot_data(results, bench, plot)
    if not xs:
        return
    file = f"{bench}-{plot.kind}.svg"
    script = "\n".join(plot_script(file, results.about[bench], plot, unit, xs, columns))
    subprocess.run(["gnuplot"], input=script, text=True, check=True, cwd=directory)
