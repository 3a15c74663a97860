"""general.py: the tables and plots of scripts/bench's workloads of the general heap.

A figure is compared with the best peer's, a peer being any allocator but libregion: below 1 is better than
the best of them all on that workload. No single allocator is that best one; the geometric means at the
end compare allocators one by one. Figures are medians over rounds of the results of report.py.
"""

import math
import subprocess

from report import Key, colour, print_grid, unique

BENCH = "general"
OURS = "libregion"
KINDS = {"cpu": "CPU time, user and system", "peak": "most resident memory",
         "idle": "resident after 4 s of idling"}


class Figures:
    """One kind of figure: medians by workload and allocator, and what can be said of them."""

    def __init__(self, results, kind):
        keys = [key for key in results.keys(BENCH) if key.kind == kind]
        self.kind, self.unit = kind, results.units[keys[0]] if keys else ""
        self.workloads, self.subjects = unique(key.n for key in keys), unique(key.subject for key in keys)
        self.threads = {key.n: key.threads for key in keys}
        self.medians = {(key.n, key.subject): results.median(key) for key in keys}

    def best_peer(self, workload):
        """The name and the figure of the best allocator that isn't libregion."""
        peers = [(self.medians[workload, s], s) for s in self.subjects
                 if s != OURS and (workload, s) in self.medians]
        return min(peers) if peers else (None, None)

    def ratio(self, workload, subject):
        """Its figure as a ratio to the best peer's, or nothing where one is missing."""
        value, (best, _) = self.medians.get((workload, subject)), self.best_peer(workload)
        return value / best if value and best else None

    def mean(self, subject):
        """The geometric mean of its ratios, over the workloads that all allocators have finished."""
        ratios = [self.ratio(w, subject) for w in self.complete()]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios and None not in ratios else None

    def complete(self):
        return [w for w in self.workloads if all((w, s) in self.medians for s in self.subjects)]


def shown(value):
    return "-" if value is None else f"{value:.2f}"


def print_figures(figures):
    rows = []
    for workload in figures.workloads:
        best, name = figures.best_peer(workload)
        ratios = [shown(figures.ratio(workload, s)) for s in figures.subjects]
        rows.append([workload, "-" if best is None else f"{best:.0f}", name or "-", *ratios])
    means = [figures.mean(s) for s in figures.subjects]
    left_out = len(figures.workloads) - len(figures.complete())
    rows.append(["geometric mean", "", "", *map(shown, means)])
    print(f"\n{BENCH}: {KINDS[figures.kind]}, as a ratio to the best peer's ({figures.unit})")
    print_grid(["workload", figures.unit, "best peer", *figures.subjects], rows)
    if left_out:
        print(f"  (the mean leaves out {left_out} that not every allocator has finished)")


def print_general(results):
    """The tables. Means are printed as ratios to the best peer of each workload."""
    for kind in KINDS:
        figures = Figures(results, kind)
        if figures.workloads:
            print_figures(figures)


# ---- targets ---------------------------------------------------------------------------------------

def best_mean(figures):
    means = [(figures.mean(s), s) for s in figures.subjects if s != OURS and figures.mean(s)]
    return min(means) if means else (None, None)


def mean_against(figures, peer):
    ours, theirs = figures.mean(OURS), figures.mean(peer)
    return ours / theirs if ours and theirs else None


def general_targets(results):
    """(label, limit, value, where): what libregion set itself for its general heap."""
    cpu, peak = Figures(results, "cpu"), Figures(results, "peak")
    best = best_mean(cpu)[1]
    yield "mean CPU time ÷ best single peer's", 0.97, mean_against(cpu, best), best or ""
    yield "mean peak memory ÷ glibc's", 1.07, mean_against(peak, "glibc"), ""
    for peer in ("rpmalloc", "mimalloc3"):
        if peer in peak.subjects:
            limit = {"rpmalloc": 1.0, "mimalloc3": 0.64}[peer]
            yield f"mean peak memory ÷ {peer}'s", limit, mean_against(peak, peer), ""
    worst = max(((cpu.ratio(w, OURS) or 0, w) for w in cpu.workloads), default=(None, ""))
    yield "CPU time of a workload ÷ its best peer's", 1.15, worst[0], f"worst, at {worst[1]}"
    for workload, mib in (("idle", 20), ("idle-kept", 0.4 * 275e6 / 2**20)):
        value = results.median(Key(BENCH, "idle", workload, 1, OURS))
        yield f"MiB resident after {workload}", mib, value and value / 1024, ""
    for kind in ("cpu", "peak"):
        ours, glibc = (results.median(Key(BENCH, kind, "growth", 1, s)) for s in (OURS, "glibc"))
        yield f"growth by realloc ÷ glibc's, {kind}", 1.1, ours / glibc if ours and glibc else None, ""


def print_general_targets(results):
    print("\nTargets (value at most limit)")
    for label, limit, value, where in general_targets(results):
        if value is None:
            print(f"  {label:60} not measured")
        else:
            verdict = "MISSED" if value > limit else "met"
            print(f"  {label:60} {value:8.2f}  limit {limit:7.4g}  {verdict:6}  {where}".rstrip())


# ---- plots -----------------------------------------------------------------------------------------

def plot_lines(file, figures):
    """A point for each allocator on each workload, above the best peer's or below it."""
    yield "set terminal svg size 1000,460 font 'sans,12' background 'white'"
    yield f"set output '{file}'; set title '{KINDS[figures.kind]}, by workload'"
    yield "set ylabel 'ratio to the best peer, log scale'; set logscale y; set xtics rotate by -40"
    yield "set grid lc '#dddddd'; set key outside right; set border 3; set tics nomirror"
    yield f"set xrange [-0.5:{len(figures.workloads) - 0.5}]"
    yield "$data << EOD"
    for workload in figures.workloads:
        ratios = (figures.ratio(workload, s) or math.nan for s in figures.subjects)
        yield " ".join([f'"{workload}"', *(f"{ratio:.4g}" for ratio in ratios)])
    yield "EOD"
    yield "plot 1 notitle lc '#888888', " + ", ".join(
        f"$data using 0:{i + 2}:xtic(1) with points pt 7 ps {0.9 if s == OURS else 0.6} "
        f"lc rgb '{colour(s)}' title '{s}'" for i, s in enumerate(figures.subjects))


def plot_means(file, cpu, peak):
    """Allocators as points: time against memory. Lower left is better."""
    points = [(peak.mean(s), cpu.mean(s), s) for s in cpu.subjects if peak.mean(s) and cpu.mean(s)]
    yield "set terminal svg size 640,460 font 'sans,12' background 'white'"
    yield f"set output '{file}'; set title 'geometric means over {len(cpu.complete())} workloads'"
    yield "set xlabel 'most resident memory, ratio to the best peer'"
    yield "set ylabel 'CPU time, ratio to the best peer'; set grid lc '#dddddd'; set border 3"
    yield "set tics nomirror; set offsets graph 0.1, graph 0.25, graph 0.1, graph 0.1; unset key"
    yield "$data << EOD"
    for x, y, subject in points:
        yield f'{x:.4g} {y:.4g} "{subject}" {int(colour(subject)[1:], 16)}'
    yield "EOD"
    yield ("plot $data using 1:2:4 with points pt 7 ps 1.2 lc rgb variable, "
           "$data using 1:2:3 with labels left offset 1,0")


def draw_general(directory, results):
    """Draws general-cpu.svg, general-peak.svg and general-means.svg."""
    cpu, peak = Figures(results, "cpu"), Figures(results, "peak")
    scripts = [plot_lines(f"{BENCH}-{f.kind}.svg", f) for f in (cpu, peak) if f.workloads]
    if cpu.mean(OURS) and peak.mean(OURS):
        scripts.append(plot_means(f"{BENCH}-means.svg", cpu, peak))
    for script in scripts:
        subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True, cwd=directory)
