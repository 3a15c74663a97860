"""advise: `region advise` runs a program with its allocations sampled, and says which functions would make good sites.

    region advise [OPTION...] [--] PROGRAM [ARGUMENT...]
    region advise [OPTION...] --from=FILE...

    --time=30s       stops after that time: the program is asked to end (SIGTERM) (also 500ms, 2m, 1h)
    --from=FILE      what a process has written that runs, or ran, with LIBREGION_ADVISE=FILE; may be repeated
    --all            lists every function that was seen, not only the most important ones
    --json           the same for programs
    --output=FILE    writes it there (also -o FILE), apart from what the program prints
    --files=FOLDER   also writes flame graphs' folded stacks, pprof's profiles, and the samples
    --mean=SIZE      mean bytes from one sample to the next, such as 4k; else as few as cost little
    --no-hooks       infers which functions have returned instead of hooking their returns

A service that must not be restarted: start it with LIBREGION_ADVISE=/tmp/NAME.%p and LIBREGION_ADVISE_SIGNAL=12 under
`region run`; `kill -12 PID` starts sampling, and stops it; then: region advise --from=/tmp/NAME.PID

The table, best first: the share of the allocations and bytes of the program that were made during calls of the
function; how much of that was freed before it returned (the rest would fade); calls, blocks and bytes of a call,
threads; and what a scope there would save, or why there should be none. At last the line to paste. Its sites have the
policy `unfreed`: what outlives a call stays valid. How good the advice is, `region compare --sites=LINE` measures.

Exit status: 0 if there is a site to propose, 3 if there is none, 1 if nothing was sampled or something went wrong,
2 for wrong usage, 126 and 127 as of `region run`. The program's own status is in the first line, and in the JSON.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import common
from analysis import CALL_NS, SAMPLES_MIN, SURVIVOR_NS, Analysis, percent, size_text
from common import Refusal
from files import write_all
from samples import BadFile, Functions, Run

FOUND, FAILED, USAGE, NOTHING = 0, 1, 2, 3
ROWS = 12
UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}
FROM_EVERYBODY = ("LIBREGION_SITES", "LIBREGION_SITES_FILE", "LIBREGION_LIBRARY", "LIBREGION_ADVISE_SIGNAL")


# ---- arguments --------------------------------------------------------------------------------------

def parse_time(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    if not match or float(match[1]) == 0:
        raise Refusal(f"advise: --time={text}: expected a time, such as 30s, 500ms or 2m")
    return float(match[1]) * UNITS[match[2]]


def parse(words):
    found, words = common.options_of("advise", words, ("json", "all", "no-hooks"),
                                     ("time", "files", "mean", "output", "library", "sites"), ("from",), {"-o": "--output"})
    if "help" in found:
        return None, []
    options = {"time": None, "files": None, "mean": None, "output": None, "json": False, "all": False, "no-hooks": False, **found}
    if options["time"]:
        options["time"] = parse_time(options["time"])
    if options["mean"] and not re.fullmatch(r"[1-9]\d*[kKmM]?", options["mean"]):
        raise Refusal(f"advise: --mean={options['mean']}: expected a size, such as 4k")
    if not words and not options["from"]:
        raise Refusal("advise: no program named; see: region advise --help")
    if words and options["from"]:
        raise Refusal("advise: either --from, or a program")
    return options, words


# ---- running ----------------------------------------------------------------------------------------

def environment(options, folder):
    result = {k: v for k, v in os.environ.items() if k not in FROM_EVERYBODY}
    result["LD_PRELOAD"] = ":".join(filter(None, (result.get("LD_PRELOAD"), options["library"])))
    result["LIBREGION_ADVISE"] = f"{folder}/%p.advise"
    if options["mean"]:
        result["LIBREGION_ADVISE_MEAN"] = options["mean"]
    if options["no-hooks"]:
        result["LIBREGION_ADVISE_HOOKS"] = "0"
    return result


def wait(child, limit, progress):
    """Waits for the program, and asks it to end when the time is over. Its status, CPU time, and whether it was asked."""
    start = time.monotonic()
    said, was_asked = 0, False
    while True:
        pid, status, used = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return used.ru_utime + used.ru_stime, was_asked
        past = time.monotonic() - start
        if limit and past > limit:
            child.send_signal(signal.SIGKILL if past > limit + 5 else signal.SIGTERM)
            time.sleep(0.05)
            was_asked = True
        if past - said >= 1:
            progress.say(f"process {child.pid} has run for {past:.0f} s", 0, 0)
            said = past
        time.sleep(min(0.02, max(0.001, past / 10)))


def run(options, words, folder, progress):
    # ^C is for the program; what it has done until then is told all the same.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        child = subprocess.Popen(words, env=environment(options, folder))
    except FileNotFoundError:
        raise Refusal(f"advise: {words[0]}: not found", 127) from None
    except OSError as error:
        raise Refusal(f"advise: {words[0]}: {error.strerror}", 126) from None
    cpu_s, was_asked = wait(child, options["time"], progress)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return {"status": child.returncode, "cpu_s": cpu_s, "was_stopped": was_asked}


# ---- what was written -------------------------------------------------------------------------------

def read_runs(paths, progress):
    runs = []
    for path in paths:
        progress.say(f"reading {os.path.basename(path)}", 0, 0)
        one = Run(path)
        if one.samples:
            runs.append(one)
    return runs


def choose_program(runs):
    """Those of the program that allocates most; and how many others there are."""
    bytes_of = {}
    for one in runs:
        size = sum(s.size * s.weight for s in one.samples)
        bytes_of[one.program] = bytes_of.get(one.program, 0) + size
    program = max(bytes_of, key=bytes_of.get)
    chosen = [one for one in runs if one.program == program]
    return chosen, len(runs) - len(chosen), bytes_of[program] / sum(bytes_of.values())


# ---- telling ----------------------------------------------------------------------------------------

def amount(value):
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if value >= 99.5 or unit == "" and value >= 9.95 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}T"


def saving(candidate, cpu_s):
    share = candidate.saving_ns / 1e9 / cpu_s if cpu_s else 0
    return f"{'−' if share < 0 else ''}{percent(abs(share))}"


def verdict(c, cpu_s):
    if c.is_chosen:
        text = f"saves about {saving(c, cpu_s)} of the CPU time"
    elif c.reason:
        text = c.reason
    else:
        text = "a good one, too"
    if c.is_recursive:
        text += " (recursive: the outermost call counts)"
    if c.inferred > 0.1 * c.blocks:
        text += f" (returns inferred for {percent(c.inferred / c.blocks)})"
    return text


def rows_of(analysis, is_all):
    ranked = analysis.ranked
    if is_all:
        return ranked
    worth = [c for c in ranked if c.is_chosen or max(c.blocks / analysis.blocks, c.bytes / analysis.bytes) >= 0.05]
    return worth[:ROWS]


def print_table(analysis, rows, cpu_s):
    head = ("function", "allocs", "bytes", "freed", "calls", "blocks", "bytes", "thr", "")
    lines = [head]
    for c in rows:
        calls = f"{c.calls:.0f}" if c.calls_basis == "counted" else "~" + amount(c.calls)
        lines.append((c.function.label[:60], percent(c.blocks / analysis.blocks), percent(c.bytes / analysis.bytes),
                      percent(c.freed_share), calls, amount(c.blocks_a_call), size_text(c.bytes_a_call),
                      str(len({t for t, _ in c.threads})), verdict(c, cpu_s)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    print(" " * (widths[0] + 2) + "made during its calls".ljust(sum(widths[1:4]) + 6) +
          " " * (widths[4] + 2) + "a call")
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [line[i].rjust(widths[i]) for i in range(1, len(widths))]
        print(("  ".join(cells) + "  " + line[-1]).rstrip())


def print_line(analysis, cpu_s):
    print()
    if not analysis.chosen:
        print("No function makes a good site: the reasons are in the table.")
        if analysis.to_try:
            print(f"One that leaves next to nothing behind, if you want to measure it all the same:\n\n"
                  f"LIBREGION_SITES='{analysis.to_try}'")
        return
    total = sum(c.saving_ns for c in analysis.chosen) / 1e9
    print(f"LIBREGION_SITES='{analysis.line}'")
    print()
    share = total / cpu_s if cpu_s else 0
    worth = "" if analysis.is_worth_it(cpu_s * 1e9) else ", which is hardly worth it"
    print(f"Predicted: {percent(share)} less CPU time than libregion without sites{worth}. This is what malloc and free")
    print(f"save by libregion's own benchmarks, less {CALL_NS:.0f} ns a call and {SURVIVOR_NS:.0f} ns for a block that "
          "outlives it; caches may add or")
    print("take more. Measure it: region compare --sites=... -- PROGRAM")
    print("The policy is `unfreed`, which is safe with every program: what outlives a call stays valid.")
    for c in analysis.chosen:
        option = analysis.options_of(c)
        if option:
            print(f"{c.function.label}: {option[1:]}, because about {size_text(min(c.bytes_a_call, c.live_bytes))} of a call "
                  "live at a time.")


def as_json(analysis, rows, ran, cpu_s, files):
    def share(part, whole):
        return part / whole if whole else 0

    candidates = [{
        "function": c.function.name, "site": c.function.site, "module": c.function.module, "file": c.function.file,
        "line": c.function.line, "is_chosen": c.is_chosen, "reason": c.reason, "hook_refusal": c.function.refusal,
        "share_allocations": share(c.blocks, analysis.blocks), "share_bytes": share(c.bytes, analysis.bytes),
        "freed_share": c.freed_share, "freed_bytes_share": c.freed_bytes_share, "calls": c.calls,
        "calls_basis": c.calls_basis, "blocks_a_call": c.blocks_a_call, "bytes_a_call": c.bytes_a_call,
        "live_bytes": c.live_bytes, "threads": len({t for t, _ in c.threads}), "samples": c.samples,
        "is_recursive": c.is_recursive, "inferred_share": share(c.inferred, c.blocks),
        "predicted_saving": share(c.saving_ns / 1e9, cpu_s)} for c in rows]
    return {
        "program": analysis.runs[0].program, "processes": [r.process for r in analysis.runs], "ran": ran,
        "cpu_s": cpu_s, "samples": analysis.samples, "stackless_share": share(analysis.stackless, analysis.samples),
        "allocations": analysis.blocks, "bytes": analysis.bytes, "unhooked_frames": sum(r.unhooked for r in analysis.runs),
        "sites": analysis.line or None, "site_to_try": None if analysis.line else analysis.to_try,
        "is_worth_it": analysis.is_worth_it(cpu_s * 1e9), "candidates": candidates, "files": list(files),
    }


def print_head(analysis, ran, others, share, cpu_s):
    runs = analysis.runs
    ended = "" if not ran else ", stopped" if ran["was_stopped"] else f", exit status {ran['status']}"
    print(f"{runs[0].program}{f', {len(runs)} processes' if len(runs) > 1 else ''}{ended}: "
          f"{cpu_s:.2f} s of CPU time, {amount(analysis.blocks)} allocations of {size_text(analysis.bytes)}B, "
          f"{amount(analysis.samples)} samples.")
    if others:
        print(f"{others} other process{'es' * (others > 1)} not shown: this one allocates {percent(share)}.")
    if analysis.stackless > 0.02 * analysis.samples:
        print(f"{percent(analysis.stackless / analysis.samples)} of the samples are from coroutines' or signals' stacks, "
              "and have no functions.")
    if analysis.samples < 10 * SAMPLES_MIN:
        print("These are few samples: take the shares for rough, let it run longer, or give --mean=256.")
    print()


def analyse(options, runs, progress):
    """The analysis, how many other processes there were, its share of what they allocate, and the files written."""
    runs, others, share = choose_program(runs)
    analysis = Analysis(runs, Functions(options["sites"]),
                        lambda done, total: progress.say(f"{done} of {total} samples looked at", 0, 0))
    files = {}
    if options["files"]:
        progress.say(f"writing files to {options['files']}", 0, 0)
        files = write_all(options["files"], analysis)
    return analysis, others, share, files


def tell(options, analysis, others, share, files, ran):
    cpu_s = analysis.cpu_ns / 1e9 or (ran["cpu_s"] if ran else 0)
    rows = rows_of(analysis, options["all"])
    if options["json"]:
        print(json.dumps(as_json(analysis, rows, ran, cpu_s, files), indent=1))
    else:
        print_head(analysis, ran, others, share, cpu_s)
        print_table(analysis, rows, cpu_s)
        print_line(analysis, cpu_s)
        for path, what in files.items():
            print(f"{path}: {what}")
    return FOUND if analysis.chosen else NOTHING


def make_folder(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise Refusal(f"advise: --files={path}: {error.strerror}") from None


def open_output(path):
    try:
        return open(path, "w", encoding="utf-8") if path else sys.stdout
    except OSError as error:
        raise Refusal(f"advise: --output={path}: {error.strerror}") from None


def gather(options, words, progress):
    """The runs, and how the program has ended; None if somebody else has started it."""
    if options["from"]:
        return read_runs(options["from"], progress), None
    folder = tempfile.mkdtemp(prefix="region-advise-")
    try:
        ran = run(options, words, folder, progress)
        paths = sorted(glob.glob(f"{folder}/*.advise"))
        if options["files"]:
            for path in paths:
                shutil.copy(path, options["files"])
        return read_runs(paths, progress), ran
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def advise(options, words):
    if options["files"]:
        make_folder(options["files"])
    output = open_output(options["output"])
    with common.Progress() as progress:
        runs, ran = gather(options, words, progress)
        if not runs:
            why = f"; it ended with status {ran['status']}" if ran and ran["status"] else ""
            raise Refusal(f"advise: nothing was sampled: no allocations, or libregion couldn't be loaded{why}", FAILED)
        result = analyse(options, runs, progress)
    with contextlib.redirect_stdout(output):
        return tell(options, *result, ran)


def main(words):
    options, words = parse(words)
    if options is None:
        common.print_help(__doc__)
        return FOUND
    try:
        return advise(options, words)
    except BadFile as bad:
        raise Refusal(f"advise: {bad}", FAILED) from None


if __name__ == "__main__":
    common.run(main)
