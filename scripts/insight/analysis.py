"""analysis: what scopes around the functions on the sampled stacks would serve, and which of them are worth it.

All shares are of allocations outside of scopes while samples were taken. A function's scope would be its
outermost call: recursion is one scope.

The saving that is predicted stands on libregion's own benchmarks (bench/results/scope.csv, enter.csv), one thread,
32-byte-like blocks: it says what malloc and free would cost less, and knows nothing of the program's caches. Three
things were learnt from programs (bench/advised): memory that a scope touches for the first time costs what it costs
anywhere, so a function must be called several times, and what lives of a call must fit into what a thread keeps; and
a call that makes and frees several times what lives of it goes from hole to hole, where a slab serves at once.
"""

import math
from collections import Counter

from samples import OUTERMOST, OTHER_THREAD, UNHOOKED

CALL_NS = 8.0        # entering and leaving a site's scope
SURVIVOR_NS = 18.0   # a block that fades, over one that is freed
GAINS = ((1, 0.3), (100, 0.6), (10_000, 2.4), (1_000_000, 15.0))  # live blocks: ns less for a block freed inside

TURNS_GOOD = 2.0     # what a call allocates, over what lives at a time: up to here it is all bumping
TURN_NS = 6.0        # beyond, holes must be looked for: more for a block
KEPT_BYTES = 8 << 20 # of buffers, that a thread keeps for the next call (LIBREGION_BUFFER_CACHE)
START_NS = 1e6       # finding and rewriting the sites

FREED_MIN = 0.95         # less than that: the survivors cost more than the rest can gain
BLOCKS_MIN = 8.0         # a call
CALLS_MIN = 4            # of a function: only from the second one on is there memory to be used again
SAMPLES_MIN = 30
SHARE_MIN = 0.01
NEARLY_AS_GOOD = 0.85    # an inner function that saves so much of the best is preferred
LONG_BYTES = 1 << 20     # allocated in a call whose blocks ...
LONG_TURNS = 4           # ... die so many times over before it returns
NEAR_END = 0.25          # the share of samples by which calls are counted
HARDLY = 0.005           # of the CPU time: a saving that is hardly worth it
SITES_MAX = 4
BUFFER_MOST_LOG2 = 22
BEGINNINGS = {"main", "_start", "__libc_start_main", "__libc_start_call_main", "__libc_start_main_impl",
              "start_thread", "clone", "clone3", "__clone", "__clone3", "_dl_start_user", "_dl_init", "call_init"}


class Candidate:
    """A function, and what its calls do."""

    def __init__(self, function):
        self.function = function
        self.samples = 0
        self.blocks = self.bytes = 0.0              # made under it
        self.freed_blocks = self.freed_bytes = 0.0  # of these, before it returned
        self.lived_blocks = self.lived_bytes = 0.0  # that have outlived it
        self.inferred = 0.0                         # blocks whose fate isn't exact
        self.life_blocks = self.life_bytes = 0.0    # sums of weight times lifetime, in allocations and bytes of the thread
        self.rests = []                             # of samples: bytes from behind their block to their call's end; size; weight
        self.frames, self.ended, self.threads = Counter(), set(), set()
        self.depths = 0
        self.is_recursive = self.is_beginning = False
        self.calls, self.calls_basis = 0.0, "counted"
        self.saving_ns = 0.0
        self.reason = None
        self.is_chosen = False

    def add(self, sample, frame):
        size = sample.size * sample.weight
        self.samples += 1
        self.blocks += sample.weight
        self.bytes += size
        self.depths += frame.depth
        self.frames[frame] += 1
        self.threads.add((sample.thread, frame.thread))
        self.is_beginning |= is_beginning(frame)
        if frame.flags & UNHOOKED:
            self.inferred += sample.weight
        if frame.end:
            self.ended.add(frame)
            self.rests.append((frame.end[1] - sample.bytes, sample.size, sample.weight))
        self._add_fate(sample, frame, size)

    def _add_fate(self, sample, frame, size):
        free = sample.free
        if free and free.frame and free.frame.depth >= frame.depth:
            self.freed_blocks += sample.weight
            self.freed_bytes += size
            if not free.flags & OTHER_THREAD:
                self.life_blocks += (free.blocks - sample.blocks) * sample.weight
                self.life_bytes += (free.bytes - sample.bytes) * sample.weight
        elif frame.end:
            self.lived_blocks += sample.weight
            self.lived_bytes += size
            self.life_blocks += (frame.end[0] - sample.blocks) * sample.weight
            self.life_bytes += (frame.end[1] - sample.bytes) * sample.weight

    # What follows from that.

    @property
    def freed_share(self):
        known = self.freed_blocks + self.lived_blocks
        return self.freed_blocks / known if known else 0.0

    @property
    def freed_bytes_share(self):
        known = self.freed_bytes + self.lived_bytes
        return self.freed_bytes / known if known else 0.0

    @property
    def blocks_a_call(self):
        return self.blocks / self.calls

    @property
    def bytes_a_call(self):
        return self.bytes / self.calls

    @property
    def live_blocks(self):
        """On average over a call; a batch that grows and goes has twice as many at its end."""
        return 2 * self.life_blocks / self.blocks

    @property
    def live_bytes(self):
        return 2 * self.life_bytes / self.blocks

    @property
    def depth(self):
        return self.depths / self.samples

    @property
    def turns(self):
        return self.bytes_a_call / max(self.live_bytes, 1.0)

    def settle(self):
        """What there is to tell once all samples are known."""
        self.calls, self.calls_basis = self._count_calls()
        freed, survivors = self.blocks * self.freed_share, self.blocks * (1 - self.freed_share)
        again = 1 - 1 / self.calls if self.live_bytes <= KEPT_BYTES else 0
        turned = max(0.0, 1 - TURNS_GOOD / max(self.turns, 1e-9)) if self.bytes_a_call > LONG_BYTES else 0
        self.saving_ns = freed * ((1 - turned) * again * gain_ns(self.live_blocks) - turned * TURN_NS) \
            - survivors * SURVIVOR_NS - self.calls * CALL_NS

    def _count_calls(self):
        """
        Calls, and whether they were counted. They were if all have many samples. Else it is asked how many bytes were
        allocated in the last w bytes of a call: w times the number of calls. That holds however often samples are taken.
        """
        seen, counts = len(self.frames), sorted(self.frames.values())
        if counts[seen // 10] >= 5:
            return seen, "counted"
        width = self._near_end()
        made = sum(weight * min(size, width - rest) for rest, size, weight in self.rests if rest < width)
        return max(seen, made / width) if width else seen, "estimated"

    def _near_end(self):
        """Such that a share of the bytes was allocated so shortly before calls returned."""
        wanted, width = NEAR_END * sum(size * weight for _, size, weight in self.rests), 0
        for rest, size, weight in sorted(self.rests):
            wanted -= size * weight
            width = max(width, rest + size)
            if wanted <= 0:
                break
        return width


def is_beginning(frame):
    """Is it main() itself, or what leads to it? In stripped programs that is told by who is around it: only libc."""
    outer = frame.outer
    if not outer:
        return bool(frame.flags & OUTERMOST)
    while outer.outer and outer.function.module.startswith("libc.so"):
        outer = outer.outer
    return outer is not frame.outer and not outer.outer and outer.function.module == frame.function.module


def gain_ns(live):
    live = max(live, 1.0)
    for (low, low_ns), (high, high_ns) in zip(GAINS, GAINS[1:]):
        if live <= high:
            part = (math.log(live) - math.log(low)) / (math.log(high) - math.log(low))
            return low_ns * (high_ns / low_ns) ** part
    return GAINS[-1][1]


class Analysis:
    """All candidates of some runs of one program, best first, and the sites to paste."""

    def __init__(self, runs, functions, progress=lambda done, total: None):
        self.runs, self.functions = runs, functions
        self.candidates, self._by_pc = {}, {}
        self.samples = self.stackless = 0
        self.blocks = self.bytes = self.freed_blocks = 0.0
        self.cpu_ns = sum(run.cpu_ns for run in runs)
        total = sum(len(run.samples) for run in runs)
        for run in runs:
            for sample in run.samples:
                self._add(run, sample)
                if self.samples % 4096 == 0:
                    progress(self.samples, total)
        for candidate in self.candidates.values():
            candidate.settle()
        self._judge()

    # Collecting.

    def function_at(self, run, pc):
        key = (run, pc)
        if key not in self._by_pc:
            self._by_pc[key] = self.functions.at(*run.place(pc))
        return self._by_pc[key]

    def stack(self, run, sample):
        """The functions of a sample's stack, outermost first."""
        result, frame = [], sample.frame
        while frame:
            result.append(self.function_at(run, frame.pc))
            frame = frame.outer
        return result[::-1]

    def _functions_of(self, run, frame):
        """Each function on the stack of a frame, with its outermost frame; and those that are there again."""
        first, again = {}, set()
        while frame:
            function = frame.function or self._note_function(run, frame)
            if function in first:
                again.add(function)
            first[function] = frame
            frame = frame.outer
        return first, again

    def _note_function(self, run, frame):
        frame.function = self.function_at(run, frame.pc)
        return frame.function

    def _add(self, run, sample):
        self.samples += 1
        self.blocks += sample.weight
        self.bytes += sample.size * sample.weight
        self.freed_blocks += sample.weight if sample.free else 0
        if not sample.frame:
            self.stackless += 1
            return
        first, again = self._functions_of(run, sample.frame)
        for function, frame in first.items():
            candidate = self.candidates.get(function)
            if not candidate:
                candidate = self.candidates[function] = Candidate(function)
            candidate.add(sample, frame)
            candidate.is_recursive |= function in again

    # Judging.

    def _why_not(self, c):
        if (c.function.name or "").partition("@")[0] in BEGINNINGS or c.is_beginning:
            return "it is the whole program, or thread"
        if c.function.refusal:
            return f"can't be hooked: {c.function.refusal}"
        if not c.ended:
            return "never returns (an event loop?)"
        if c.samples < SAMPLES_MIN:
            return f"too few samples: {c.samples}"
        if c.freed_share < FREED_MIN:
            return f"{percent(1 - c.freed_share)} of its blocks outlive it"
        if c.blocks_a_call < BLOCKS_MIN:
            return f"too few blocks a call: {c.blocks_a_call:.1f}"
        if c.calls < CALLS_MIN:
            return f"called too seldom: {c.calls:.0f} times, so there is little memory to be used again"
        if c.live_bytes > KEPT_BYTES:
            return f"too big for a scope: {size_text(c.live_bytes)} of a call live at a time, which is new memory each time"
        if c.bytes_a_call > LONG_BYTES and c.turns > LONG_TURNS:
            return f"too long for a scope: only {size_text(c.live_bytes)} of what a call allocates live at a time"
        if c.saving_ns <= 0:
            return "would cost more than it saves"
        if c.bytes < SHARE_MIN * self.bytes and c.blocks < SHARE_MIN * self.blocks:
            return "too small a share"
        return None

    def _judge(self):
        for c in self.candidates.values():
            c.reason = self._why_not(c)
        self.chosen = []
        good = [c for c in self.candidates.values() if not c.reason]
        while good and len(self.chosen) < SITES_MAX:
            best = max(c.saving_ns for c in good)
            if self.chosen and best < 0.1 * self.chosen[0].saving_ns:
                break
            near = [c for c in good if c.saving_ns >= NEARLY_AS_GOOD * best]
            choice = max(near, key=lambda c: (round(c.depth, 3), c.saving_ns))
            choice.is_chosen = True
            self.chosen.append(choice)
            good = self._others(good, choice)
        self.ranked = sorted(self.candidates.values(), key=self._rank)

    def _others(self, good, choice):
        """Those that share next to no stacks with what was chosen."""
        shared = Counter()
        for run in self.runs:
            for sample in run.samples:
                functions, _ = self._functions_of(run, sample.frame)
                if choice.function in functions:
                    for function in functions:
                        shared[function] += sample.weight
        for c in good:
            if not c.is_chosen and shared[c.function] > 0.1 * c.blocks:
                c.reason = f"shares its calls with {choice.function.label}, which saves as much and is shorter" \
                    if c.saving_ns >= NEARLY_AS_GOOD * choice.saving_ns else f"shares its calls with {choice.function.label}"
        return [c for c in good if not c.reason and not c.is_chosen]

    def _rank(self, c):
        potential = c.freed_share * (c.blocks / self.blocks + c.bytes / self.bytes)
        is_hopeless = bool(c.reason) and (c.reason.startswith(("it is the whole", "never returns", "too few", "too small")))
        order = self.chosen.index(c) if c.is_chosen else len(self.chosen)
        # In steps, so that of functions which are much the same the inner one comes first.
        return (order, bool(c.reason) and is_hopeless, -round(20 * potential), -c.depth)

    # What comes of it.

    @property
    def to_try(self):
        """Where nothing is proposed: the site that is at least clean, for whoever wants to measure; or None."""
        for c in self.ranked:
            is_site = c.ended and not c.is_beginning and not c.function.refusal and not c.reason.startswith("it is the whole")
            if is_site and c.samples >= SAMPLES_MIN and c.freed_share >= FREED_MIN and c.blocks_a_call >= BLOCKS_MIN:
                return c.function.site + self.options_of(c)
        return None

    def options_of(self, c):
        """The buffer size for a site: what lives of a call at a time should fit into a few buffers."""
        live = min(c.bytes_a_call, c.live_bytes)
        if live <= 4 * (256 << 10):
            return ""
        size = 1 << min(BUFFER_MOST_LOG2, math.ceil(math.log2(live / 4)))
        return f"/buffer_size={size >> 20}M" if size >= 1 << 20 else f"/buffer_size={size >> 10}k"

    def is_worth_it(self, cpu_ns):
        saving_ns = sum(c.saving_ns for c in self.chosen)
        return saving_ns > START_NS and saving_ns > HARDLY * cpu_ns

    @property
    def line(self):
        return ",".join(c.function.site + self.options_of(c) for c in self.chosen)


def size_text(value):
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}" if value >= 99.5 or unit == "" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def percent(share):
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.1 else f"{100 * share:.0f}%"
