"""report: one HTML page of the files of a run, readable anywhere, without a network.

usage: region report [option]... FILE...

  -o FILE         the page (default: report.html)
  --title=TEXT    its title
  --json          what the page would show as JSON on standard output, and no page
  --help          this text

FILEs, of any number and told apart by what is in them:

  statistics      what LIBREGION_STATS=FILE.json wrote, at exit or, with LIBREGION_STATS_INTERVAL, all along:
                  a table of scopes, and memory over time
  folded stacks   FILE.folded of `region advise --files=FOLDER`, or of anybody else: a flame graph
  comparisons     what `region compare --json` printed: tables
  advice          what `region advise --json` printed: a table of functions

Exit status: 0; 1 if a file can't be read or isn't one of these; 2 for wrong usage.
"""

import html
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import common
from common import Refusal

FOLDED_LINE = re.compile(r"(.+) (\d+(?:\.\d+)?)")
ROWS_MAX = 500
COMMAND_MAX = 120
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 1000, 220, 70, 24, 24


# ---- reading ----------------------------------------------------------------------------------------

def documents_of(text):
    """The JSON documents that a text is made of, one behind the other; None: it is something else."""
    decoder, found, at = json.JSONDecoder(), [], 0
    space = re.compile(r"\s*")
    while (at := space.match(text, at).end()) < len(text):
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            # A process that was killed has left half of its last one.
            return found if found and text[at] == "{" else None
        found.append(document)
    return found


def folded_of(text):
    """[(functions, amount)] of folded stacks; None: they aren't."""
    matches = [FOLDED_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    return [(match[1].split(";"), float(match[2])) for match in matches] if matches and all(matches) else None


def tree_of(stacks):
    """[name, amount, callee...] of stacks, callees by their names."""
    root = [0, {}]
    for functions, value in stacks:
        node = root
        node[0] += value
        for name in functions:
            node = node[1].setdefault(name, [0, {}])
            node[0] += value

    def freeze(name, node):
        return [name, round(node[0]), *(freeze(*callee) for callee in sorted(node[1].items()))]

    # Stacks may be as deep as recursion goes.
    sys.setrecursionlimit(100000)
    return freeze("all", root)


class Contents:
    """What is in the files."""

    def __init__(self):
        self.processes = defaultdict(list) # dumps, by process
        self.flames, self.comparisons, self.advice = [], [], []

    def add_file(self, path):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise Refusal(f"report: {path}: {error.strerror}", 1) from error
        documents, stacks = documents_of(text), folded_of(text)
        if documents and all(self.add_document(document) for document in documents):
            return
        if not stacks:
            raise Refusal(f"report: {path}: neither statistics (JSON), nor folded stacks, nor a comparison or advice", 1)
        unit = "allocations" if "count" in Path(path).name or "blocks" in Path(path).name else "bytes"
        self.flames.append({"name": Path(path).name, "unit": unit, "tree": tree_of(stacks)})

    def add_document(self, document):
        if not isinstance(document, dict):
            return False
        if "scopes" in document and "process" in document:
            self.processes[document["process_id"]].append(document)
        elif "ways" in document and "rounds" in document:
            self.comparisons.append(document)
        elif isinstance(document.get("candidates"), list):
            self.advice.append(document)
        else:
            return False
        return True


# ---- writing ----------------------------------------------------------------------------------------

def quote(text):
    return html.escape(str(text))


def amount(value, unit=""):
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 1000 or prefix == "T":
            break
        value /= 1000
    digits = 0 if not prefix and value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {prefix}{unit}".strip()


def percent(part, whole):
    return f"{100 * part / whole:.1f}%" if whole else "-"


def cell(value, text, share=None):
    style = f' class="bar" style="--share:{100 * share:.0f}%"' if share is not None else ""
    return f'<td data-value="{quote(value)}"{style}>{quote(text)}</td>'


def table_of(titles, rows):
    """Rows are lists of (value to sort by, text), the first of each its name."""
    head = "".join(f"<th>{quote(title)}</th>" for title in titles)
    body = "".join(f"<tr><td>{quote(row[0])}</td>{''.join(cell(*one) for one in row[1:])}</tr>\n" for row in rows)
    return f'<div class="scroll"><table class="sorts"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


SCOPE_TITLES = ("scope", "entered", "blocks", "bytes", "freed in it", "faded", "reclaimed", "not from buffers", "most held")


def scope_row(scope, total_bytes):
    blocks = scope["blocks_allocated"]
    elsewhere = sum(value for name, value in scope.items() if name.startswith("heap_"))
    return [scope["name"], (scope["scopes_entered"], amount(scope["scopes_entered"])), (blocks, amount(blocks)),
            (scope["bytes_allocated"], amount(scope["bytes_allocated"], "B"),
             scope["bytes_allocated"] / total_bytes if total_bytes else 0),
            (scope["blocks_freed"], percent(scope["blocks_freed"], blocks)),
            (scope["blocks_faded"], percent(scope["blocks_faded"], blocks)),
            (scope["blocks_reclaimed"], percent(scope["blocks_reclaimed"], blocks)),
            (elsewhere, amount(elsewhere)), (scope["peak_bytes"], amount(scope["peak_bytes"], "B"))]


def scopes_table(dump):
    scopes = [scope for scope in dump["scopes"] if scope["name"] is not None]
    scopes.sort(key=lambda scope: -scope["bytes_allocated"])
    total = sum(scope["bytes_allocated"] for scope in scopes)
    more = f'<p class="note">{len(scopes) - ROWS_MAX} more are left out.</p>' if len(scopes) > ROWS_MAX else ""
    if not scopes:
        return '<p class="note">No scope was entered.</p>'
    return table_of(SCOPE_TITLES, [scope_row(scope, total) for scope in scopes[:ROWS_MAX]]) + more


def nice_top(value):
    """The least of 1, 2, 5 times a power of ten that is no less."""
    step = 10 ** (len(str(int(value))) - 1)
    return next(step * factor for factor in (1, 2, 5, 10) if step * factor >= value)


def chart(series, times, unit):
    """An SVG of lines over time: {(class, label): values}, of which times are milliseconds."""
    top = nice_top(max(1, *(max(values) for values in series.values())))
    span = max(1, times[-1] - times[0])

    def x(time):
        return LEFT + (WIDTH - LEFT - RIGHT) * (time - times[0]) / span

    def y(value):
        return 8 + (HEIGHT - BOTTOM - 8) * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for i in range(5):
        value = top * i / 4
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{amount(value, unit)}</text>')
        time = times[0] + span * i / 4
        parts.append(f'<text x="{x(time):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{(time - times[0]) / 1000:.2f} s</text>')
    for (kind, label), values in series.items():
        points = " L".join(f"{x(time):.1f} {y(value):.1f}" for time, value in zip(times, values))
        parts.append(f'<path class="{kind}" d="M{points}"><title>{quote(label)}</title></path>')
    legend = " ".join(f'<span class="key {kind}">&#9644; {quote(label)}</span>' for kind, label in series)
    return "\n".join([*parts, f"</svg><p>{legend}</p>"])


def over_time(dumps):
    times = [dump["clock_ms"] for dump in dumps]
    if len(dumps) < 2 or times[-1] <= times[0]:
        return '<p class="note">Memory over time shows with LIBREGION_STATS_INTERVAL.</p>'
    process = [dump["process"] for dump in dumps]
    memory = chart({("a", "resident memory of the process"): [one["resident_bytes"] for one in process],
                    ("b", "heap range in use"): [one["mapped_bytes"] for one in process],
                    ("c", "empty buffers kept ready"): [one["cached_bytes"] for one in process]}, times, "B")
    pairs = list(zip(dumps, dumps[1:]))
    rates = {(kind, label): [1000 * max(0, b["process"][member] - a["process"][member]) /
                             max(1, b["clock_ms"] - a["clock_ms"]) for a, b in pairs]
             for kind, label, member in (("a", "scopes entered", "scopes_entered"), ("b", "blocks allocated", "blocks_allocated"),
                                         ("c", "blocks faded", "blocks_faded"))}
    second = chart(rates, times[1:], "/s") if len(pairs) > 1 else ""
    return f"<h2>Memory over time</h2>\n{memory}\n" + (f"<h2>In scopes, a second</h2>\n{second}\n" if second else "")


def process_section(process_id, dumps, is_one):
    last = dumps[-1]
    all_of = last["process"]
    seconds = (last["clock_ms"] - last["start_ms"]) / 1000
    head = "" if is_one else f"<h2>Process {process_id}</h2>"
    share = percent(all_of["blocks_faded"], all_of["blocks_allocated"])
    return (f"{head}<p>Process {process_id}, libregion {quote(last['version'])}, {seconds:.1f} s: "
            f"{amount(all_of['scopes_entered'])} scopes, {amount(all_of['blocks_allocated'])} blocks of "
            f"{amount(all_of['bytes_allocated'], 'B')} in them, of which {share} faded; "
            f"{amount(all_of['resident_bytes'], 'B')} resident at the end.</p>\n"
            f"<h2>Scopes</h2>\n{scopes_table(last)}\n{over_time(dumps)}")


def flame_section(index, flame):
    self_amounts = defaultdict(int)
    pending = [flame["tree"]]
    while pending:
        node = pending.pop()
        self_amounts[node[0]] += node[1] - sum(callee[1] for callee in node[2:])
        pending += node[2:]
    largest = sorted(self_amounts.items(), key=lambda item: -item[1])[:30]
    rows = [[name, (value, amount(value)), (value, percent(value, flame["tree"][1]))] for name, value in largest if value]
    return (f'<h2>{quote(flame["name"])}</h2>\n<p>{amount(flame["tree"][1])} {flame["unit"]} by stack, outermost function '
            f'first. Click to look closer; find: <input id="find{index}" type="search" autocomplete="off"></p>\n'
            f'<div class="flame" id="flame{index}"></div>\n<details><summary>By function that allocates</summary>\n'
            f'{table_of(("function", flame["unit"], "share"), rows)}</details>')


MEASURES = (("cpu_ns", "CPU time", 1e-9, "s"), ("wall_ns", "wall time", 1e-9, "s"), ("peak_bytes", "peak memory", 1, "B"),
            ("faults", "page faults", 1, ""))


def comparison_section(document):
    rows = []
    for way in document["ways"]:
        row = [way["name"]]
        for member, _, scale, unit in MEASURES:
            figure = way[member]
            noise = "" if figure["differs"] or way["name"] == document["base"] else " ~"
            median = figure["median"] * scale
            ratio = "-" if figure["ratio"] is None else f"{figure['ratio']:.2f}{noise}"
            row += [(median, f"{median:.3f} s" if unit == "s" else amount(median, unit)), (figure["ratio"] or 0, ratio)]
        rows.append(row)
    titles = ["under"]
    for _, title, _, _ in MEASURES:
        titles += [title, f"to {document['base']}"]
    command = " ".join(document["command"])
    command = command if len(command) < COMMAND_MAX else f"{command[:COMMAND_MAX]} ..."
    outputs = "every run printed the same" if document["outputs_equal"] else document["outputs"]
    return (f"<h2>Compared</h2>\n<p><code>{quote(command)}</code>, {document['rounds']} rounds; "
            f"{quote(outputs)}.</p>\n{table_of(titles, rows)}\n<p class=\"note\">Medians. ~ within the noise: "
            f"{quote(document['test'])}, p &gt;= {document['significant_p']}</p>")


ADVICE = (("share_allocations", "of allocations"), ("share_bytes", "of bytes"), ("freed_share", "freed before return"),
          ("calls", "calls"), ("blocks_a_call", "blocks a call"), ("bytes_a_call", "bytes a call"), ("threads", "threads"),
          ("predicted_saving", "predicted saving"))


def advice_cell(member, value):
    if value is None:
        return "", "-"
    if member == "predicted_saving":
        return value, f"{100 * value:.1f}%"
    return (value, f"{100 * value:.1f}%", value) if "share" in member else (value, amount(value))


def advice_section(document):
    rows = [[one["function"] or one["site"], *(advice_cell(member, one.get(member)) for member, _ in ADVICE),
             ("", "proposed" if one["is_chosen"] else one.get("hook_refusal") or one.get("reason") or "")]
            for one in document["candidates"][:ROWS_MAX]]
    line = f"<p><code>LIBREGION_SITES={quote(document['sites'])}</code></p>" if document.get("sites") else ""
    return (f"<h2>Functions that may be sites</h2>\n{line}\n"
            f"{table_of(('function', *(title for _, title in ADVICE), 'as a site'), rows)}")


def page_of(contents, title):
    parts = [f"<h1>{quote(title)}</h1>"]
    parts += [process_section(process_id, dumps, len(contents.processes) == 1)
              for process_id, dumps in contents.processes.items()]
    parts += [comparison_section(document) for document in contents.comparisons]
    parts += [advice_section(document) for document in contents.advice]
    parts += [flame_section(index, flame) for index, flame in enumerate(contents.flames)]
    # No text may end the script's element.
    flames = json.dumps(contents.flames, separators=(",", ":")).replace("<", "\\u003c")
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    values = {"title": quote(title), "body": "\n".join(parts), "flames": flames}
    return re.sub(r"@(title|body|flames)@", lambda match: values[match[1]], template)


def parse(words):
    found, files = common.options_of("report", words, ("json",), ("output", "title"), short={"-o": "--output"}, is_program=False)
    if not files and "help" not in found:
        raise Refusal("report: no files named; see: region report --help")
    return {"output": "report.html", "title": "libregion: report", "json": False, **found, "files": files}


def main(words):
    options = parse(words)
    if "help" in options:
        common.print_help(__doc__)
        return 0
    contents = Contents()
    with common.Progress() as progress:
        for number, path in enumerate(options["files"]):
            progress.say(f"reading {path}", number, len(options["files"]))
            contents.add_file(path)
    for dumps in contents.processes.values():
        dumps.sort(key=lambda dump: dump["clock_ms"])
    if options["json"]:
        print(json.dumps({"processes": contents.processes, "comparisons": contents.comparisons, "advice": contents.advice,
                          "flames": contents.flames}))
        return 0
    try:
        Path(options["output"]).write_text(page_of(contents, options["title"]), encoding="utf-8")
    except OSError as error:
        raise Refusal(f"report: {options['output']}: {error.strerror}", 1) from error
    return 0


if __name__ == "__main__":
    common.run(main)
