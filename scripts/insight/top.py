"""top: what the scopes of a running program do, second by second.

usage: region top [option]... PID

  --interval=S   seconds between two looks (default 1)
  -n, --looks=N  ends after so many (default: when the program ends)
  --json         one JSON object a line for each look
  --help         this text

The process isn't asked for anything, and needs no option set: its counters are read through /proc/PID/mem, as root
or as the user it runs as. A scope's work shows when the scope has ended; `open` are those that haven't.
Columns are a second's: scopes entered, blocks and bytes that they allocated, the share of the blocks that
outlived them, and bytes reclaimed unfreed. Below the line for all scopes is one for each name.
Exit status: 0 when the program has ended or after -n looks, 1 if the process can't be read or is without libregion,
2 for wrong usage.
"""

import json
import sys
import time
from collections import Counter

import common
from common import Refusal
from process import Process

ROWS_MAX = 40


def number_of(found, name, option, kind, default):
    try:
        value = kind(found.get(name, default))
    except ValueError as error:
        raise Refusal(f"top: {option} {found[name]}: expected a number") from error
    if not 0 < value < float("inf"):
        raise Refusal(f"top: {option} {found[name]}: expected a number above 0")
    return value


def parse(words):
    found, words = common.options_of("top", words, ("json",), ("interval", "looks"), short={"-n": "--looks"}, is_program=False)
    if "help" in found:
        return found
    if not words:
        raise Refusal("top: no process id; see: region top --help")
    if len(words) > 1 or not words[0].isdigit():
        raise Refusal(f"top: {words[-1]}: expected one process id; see: region top --help")
    return {"pid": int(words[0]), "json": "json" in found, "interval": number_of(found, "interval", "--interval", float, 1.0),
            "looks": number_of(found, "looks", "-n", int, 1) if "looks" in found else None}


def rates(now, before, seconds):
    return Counter({member: max(0, now[member] - before[member]) / seconds for member in now})


def share_faded(counts):
    """The percentage of the blocks; of none there is none."""
    return 100 * counts["blocks_faded"] / counts["blocks_allocated"] if counts["blocks_allocated"] else None


def line_of(rate, count_open):
    share = share_faded(rate)
    return {"scopes_per_s": rate["scopes_entered"], "blocks_per_s": rate["blocks_allocated"],
            "bytes_per_s": rate["bytes_allocated"], "faded_percent": share,
            "reclaimed_bytes_per_s": rate["bytes_reclaimed"], "open": count_open}


def total(counts):
    result = Counter()
    for one in counts.values():
        result.update(one)
    return result


def difference(process, before, after, are_open, spare_bytes, seconds):
    lines = [{"name": name, **line_of(rates(counts, before.get(name, Counter()), seconds), are_open[name]),
              "totals": dict(counts)} for name, counts in after.items()]
    lines.sort(key=lambda line: (-line["bytes_per_s"], line["name"]))
    every = line_of(rates(total(after), total(before), seconds), are_open.total())
    return {"process_id": process.pid, **process.status(), "ready_bytes": spare_bytes, "seconds": seconds,
            "all": every, "scopes": lines}


def amount(value):
    """With a unit, in five characters at most."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}{unit}" if not unit or value >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return ""


def text_line(name, line):
    share = "-" if line["faded_percent"] is None else f"{line['faded_percent']:.1f}%"
    return (f"{amount(line['scopes_per_s']):>9}{amount(line['blocks_per_s']):>10}{amount(line['bytes_per_s']):>9}"
            f"{share:>9}{amount(line['reclaimed_bytes_per_s']):>11}{line['open']:>6}  {name}")


def print_text(look):
    lines = [f"{look['command']} ({look['process_id']}): {look['threads']} threads, "
             f"{look['resident_bytes'] / (1 << 20):.1f} MiB resident, {look['ready_bytes'] / (1 << 20):.1f} MiB of "
             f"buffers kept ready",
             f"{'scopes/s':>9}{'blocks/s':>10}{'bytes/s':>9}{'faded':>9}{'reclaimed':>11}{'open':>6}  scope",
             text_line("all", look["all"]), *(text_line(line["name"], line) for line in look["scopes"][:ROWS_MAX])]
    if sys.stdout.isatty():
        print("\033[H\033[J" + "\n".join(lines), flush=True)
    else:
        print("\n".join(lines), flush=True)


def main(words):
    options = parse(words)
    if "help" in options:
        common.print_help(__doc__)
        return 0
    process = Process(options["pid"])
    before, _, _ = process.look()
    then, looks = time.monotonic(), 0
    while options["looks"] is None or looks < options["looks"]:
        time.sleep(options["interval"])
        after, are_open, spare_bytes = process.look()
        now = time.monotonic()
        if not process.is_alive():
            print(f"region: process {process.pid} has ended", file=sys.stderr)
            return 0
        look = difference(process, before, after, are_open, spare_bytes, now - then)
        if options["json"]:
            print(json.dumps(look), flush=True)
        else:
            print_text(look)
        before, then, looks = after, now, looks + 1
    return 0


if __name__ == "__main__":
    common.run(main)
