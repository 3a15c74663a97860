"""files: samples in forms that other programs draw: folded stacks, pprof's profile.proto, and the older text of heap
profiles."""

import gzip
from collections import defaultdict


def by_stack(analysis, wanted):
    """Allocations and bytes of the samples that are wanted, by stack (outermost function first)."""
    stacks = defaultdict(lambda: [0.0, 0.0])
    for run in analysis.runs:
        for sample in run.samples:
            if wanted(sample):
                entry = stacks[tuple(analysis.stack(run, sample))]
                entry[0] += sample.weight
                entry[1] += sample.size * sample.weight
    return stacks


def outlives(analysis):
    """Which samples have outlived the scope that is proposed for them; without a proposal, those never freed."""
    chosen = {c.function for c in analysis.chosen}

    def wanted(sample):
        if not chosen:
            return sample.free is None
        scope = None
        frame = sample.frame
        while frame:
            if frame.function in chosen:
                scope = frame
            frame = frame.outer
        if not scope:
            return False
        return bool(scope.end) if not sample.free else not sample.free.frame or sample.free.frame.depth < scope.depth

    return wanted


def write_folded(path, stacks, which):
    """One line a stack, for flamegraph.pl, speedscope and inferno; `which`: 0 for allocations, 1 for bytes."""
    with open(path, "w", encoding="utf-8") as file:
        for stack, amounts in sorted(stacks.items(), key=lambda item: -item[1][which]):
            names = ";".join(f.label.replace(";", ":").replace(" ", "_") for f in stack) or "unknown"
            file.write(f"{names} {round(amounts[which])}\n")


# profile.proto (github.com/google/pprof), written by hand: it is a dozen fields.

def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


class Strings:
    """The table of strings, of which the first is empty."""

    def __init__(self):
        self.index = {"": 0}

    def __call__(self, text):
        return self.index.setdefault(text, len(self.index))


def write_pprof(path, analysis, stacks, lasting):
    """Two pairs of values: what was allocated, and what of it has outlived its scope."""
    text, out, known = Strings(), bytearray(), {}
    kinds = (("alloc_objects", "count"), ("alloc_space", "bytes"), ("outlives_objects", "count"),
             ("outlives_space", "bytes"))
    for name, unit in kinds:
        out += message(1, number(1, text(name)) + number(2, text(unit)))
    for stack, amounts in stacks.items():
        places = b"".join(varint(known.setdefault(f, len(known) + 1)) for f in reversed(stack))
        values = b"".join(varint(round(v)) for v in (*amounts, *lasting.get(stack, (0, 0))))
        out += message(2, message(1, places) + message(2, values))
    for function, index in known.items():
        out += message(4, number(1, index) + message(4, number(1, index) + number(2, function.line or 0)))
        out += message(5, number(1, index) + number(2, text(function.label)) + number(3, text(function.label))
                       + number(4, text(function.file or function.module)))
    out += number(14, text("alloc_space"))
    run = analysis.runs[0]
    out += number(10, max(0, max(r.last_ns for r in analysis.runs) - run.start_ns))
    for string in text.index:
        out += message(6, string.encode())
    with gzip.open(path, "wb") as file:
        file.write(bytes(out))


def write_legacy(path, analysis):
    """Heap profile of gperftools: what is in use at the end, and what was allocated, by raw addresses."""
    stacks = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    run = analysis.runs[0]
    for sample in run.samples:
        pcs, frame = [sample.pc] if sample.pc else [], sample.frame and sample.frame.outer
        while frame:
            pcs.append(frame.pc)
            frame = frame.outer
        entry = stacks[tuple(pcs)]
        amounts = (sample.weight, sample.size * sample.weight)
        for i, amount in enumerate(amounts):
            entry[2 + i] += amount
            entry[i] += 0 if sample.free else amount
    with open(path, "w", encoding="utf-8") as file:
        total = [round(sum(e[i] for e in stacks.values())) for i in range(4)]
        file.write("heap profile: {}: {} [{}: {}] @ heapprofile\n".format(*total))
        for pcs, entry in stacks.items():
            file.write("{}: {} [{}: {}] @".format(*(round(v) for v in entry)))
            file.write("".join(f" {pc:#x}" for pc in pcs) + "\n")
        file.write("\nMAPPED_LIBRARIES:\n")
        for low, high, bias, path_of in run.modules:
            file.write(f"{low & ~0xfff:08x}-{(high + 0xfff) & ~0xfff:08x} r-xp {max(0, low - bias) & ~0xfff:08x} "
                       f"00:00 0 {path_of}\n")


def write_all(folder, analysis):
    """Writes each of them into a folder; their names, and what they are."""
    stacks, lasting = by_stack(analysis, lambda sample: True), by_stack(analysis, outlives(analysis))
    named = {
        "alloc.folded": "bytes allocated, by stack: flamegraph.pl, speedscope, inferno",
        "outlives.folded": "bytes that outlive the proposed scopes" if analysis.chosen else "bytes never freed",
        "profile.pb.gz": "the same two for pprof (go tool pprof)",
        "profile.heap": "allocated, and in use at the end, for gperftools (google-pprof --text PROGRAM)",
    }
    write_folded(f"{folder}/alloc.folded", stacks, 1)
    write_folded(f"{folder}/outlives.folded", lasting, 1)
    write_pprof(f"{folder}/profile.pb.gz", analysis, stacks, lasting)
    write_legacy(f"{folder}/profile.heap", analysis)
    return {f"{folder}/{name}": what for name, what in named.items()}
