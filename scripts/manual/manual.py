"""manual: the manual pages region(1) and region(3), made of what the sources say.

    manual.py command OUTPUT VERSION SCRIPT OPTIONS-TABLE SITES-PROGRAM|- TOOL.py...
    manual.py library OUTPUT VERSION HEADER...

Nothing is written twice: commands and their options come from the texts that `region help` and `--help` print,
the environment from the library's one table of options (OPTIONS-TABLE is a program that prints it), functions
from the headers' comments, statistics from their one table. So a page can't lack an option that the program has;
that the parsing finds all of them is what tests/insight/manual.py is for.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "insight"))

import table  # pylint: disable=wrong-import-position


# ---- roff -------------------------------------------------------------------------------------------

def rich(text):
    """Prose, in which a *word* is emphasised."""
    return re.sub(r"\*(\w+)\*", r"\\fI\1\\fR", escape(text))


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti").replace('"', "\\(dq")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def as_is(lines):
    return [".RS 4", ".nf", *map(escape, lines), ".fi", ".RE"]


def bold(text):
    return f"\\fB{escape(text)}\\fR"


def heading(kind, text):
    return f'.{kind} "{escape(text)}"'


def page(name, section, version, sections):
    lines = [f'.TH {name.upper()} {section} "" "libregion {version}" "libregion"']
    for title, body in sections:
        lines += [heading("SH", title), *body]
    return "\n".join(lines) + "\n"


def paragraphs_of(text):
    """Groups of lines with nothing between them."""
    return [block.split("\n") for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]


ITEM = re.compile(r"( +)(-\S.*?|[A-Z]{3,})(?:  +(.*))?$")


def flow(text):
    """Text as comments and --help have it: paragraphs, options with their help, lists, lines that stay as they are."""
    out = []
    for lines in paragraphs_of(text):
        out.append(".PP")
        if any(ITEM.match(line) for line in lines):
            out += items(lines)
        elif all(line.startswith("    ") for line in lines):
            out += as_is(line[4:] for line in lines)
        else:
            out += prose(lines)
    return out


def items(lines):
    out = []
    for line in lines:
        match = ITEM.match(line)
        if match:
            out += [".TP", bold(match[2]), *([escape(match[3])] if match[3] else [])]
        else:
            out.append(escape(line.strip()))
    return out


def prose(lines):
    out = []
    for line in lines:
        bullet = re.match(r" *- (.*)", line)
        if bullet:
            out += ['.IP "\\(bu" 2', rich(bullet[1])]
        elif line.startswith("    ") and not (out and out[-2:-1] == ['.IP "\\(bu" 2']):
            out += as_is([line[4:]])
        else:
            out.append(rich(line.strip()))
    return out


# ---- region(1) --------------------------------------------------------------------------------------

def script_text(path):
    """What `region help` prints: the comment at the head of the script."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines()[2:]:
        if not line.startswith("#"):
            break
        lines.append(line[2:])
    return "\n".join(lines)


def usages_of(text):
    """[(usage, what for)] of the commands in it, and the text behind them."""
    found, rest = [], []
    for lines in paragraphs_of(text)[1:]:
        if not any(line.startswith("    region ") for line in lines):
            rest.append("\n".join(lines))
            continue
        for line in lines:
            usage, _, what = line.strip().partition("  ")
            if line.startswith("    region "):
                found.append([usage, what.strip()])
            else:
                found[-1][1] = f"{found[-1][1]} {line.strip()}".strip()
    return found, "\n\n".join(rest)


def help_of(tool):
    return ast.get_docstring(ast.parse(Path(tool).read_text(encoding="utf-8"))).split("\n\n", 1)[1]


def command_sections(usages, helps):
    out = []
    for usage, what in usages:
        command = usage.split()[1]
        out += [heading("SS", command), ".nf", bold(usage), ".fi"]
        out += [".PP", escape(what[:1].upper() + what[1:] + ".")] if what else []
        text = helps.get(command, "")
        # The usage is there already.
        out += flow(re.sub(r"\A\s*(usage:|region )[^\n]*\n(?:\s*region [^\n]*\n)*", "", text)) if text else []
    return out


def environment_section(options):
    out = [".PP", "The library's options. Sizes take k, M, G, T."]
    for option in options:
        out += [".TP", f"{bold(option['variable'])}={escape(option['value'])}", escape(option["help"][:1].upper() +
                option["help"][1:] + "."), f"Takes {escape(option['takes'])}."]
    return out


def command_page(version, script, options_program, sites_program, tools):
    summary, _, _ = script_text(script).partition("\n")
    usages, rest = usages_of(script_text(script))
    said = subprocess.run([options_program], env={}, capture_output=True, text=True, check=True).stderr
    helps = {Path(tool).stem: help_of(tool) for tool in tools}
    if sites_program != "-":
        helps["sites"] = subprocess.run([sites_program, "--help"], capture_output=True, text=True, check=True).stdout
    return page("region", 1, version, [
        ("NAME", ["region \\- " + escape(summary.removeprefix("region: ").rstrip("."))]),
        ("SYNOPSIS", [".nf", *(bold(usage) for usage, _ in usages), ".fi"]),
        ("DESCRIPTION", flow(rest)),
        ("COMMANDS", command_sections(usages, helps)),
        ("ENVIRONMENT", environment_section(table.options_of(said))),
        ("SEE ALSO", [".BR region (3)"]),
    ])


# ---- region(3) --------------------------------------------------------------------------------------

def comment_text(comment):
    """The text of a comment, without its frame."""
    lines = comment.removeprefix("/*").removesuffix("*/").split("\n")
    return "\n".join([lines[0].strip(), *(re.sub(r"^ \*? ?", "", line).rstrip() for line in lines[1:])]).strip("\n")


def without_attributes(code):
    """Without __attribute__((...)), whose parentheses nest."""
    while "__attribute__" in code:
        start = code.index("__attribute__")
        depth, end = 0, code.index("(", start)
        while True:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
            if depth == 0:
                break
        code = code[:start] + code[end:]
    return code


def one_line(code):
    return re.sub(r"\s*\*\s*(?=\w)", " *", re.sub(r"\s+", " ", code)).replace("( *", "(*").strip()


def prototypes_of(code):
    """What is declared in a piece of a header: functions, inlined ones, macros to be used as such."""
    code = without_attributes(re.sub(r"/\*.*?\*/", "", code, flags=re.S))
    found = [(match.start(), one_line(match[1]) + ";") for match in re.finditer(r"(?m)^REGION_API\s+([^;{]*);", code)]
    found += [(match.start(), one_line(match[1]) + ";") for match in
              re.finditer(r"(?m)^static inline\s+([^;{]*?)\s*\{", code) if not re.search(r"_\(", match[1])]
    found += [(match.start(), match[1]) for match in
              re.finditer(r"(?m)^#define (REGION_[A-Z_]*[A-Z]\([^)]*\))", code)
              if not re.search(r"_(MAP|MEMBER)\(", match[1])]
    return list(dict.fromkeys(re.sub(r"_(?=[,)])", "", prototype) for _, prototype in sorted(found)))


def types_of(code):
    """Definitions of types, as they stand, but for those that are nobody's business."""
    found = re.findall(r"(?ms)^(?:struct|enum|typedef struct)\s*(?:[a-z_]*[a-z]\s*)?\{.*?^\}[^;\n]*;", code)
    found = [re.sub(r"(?m)^(#.*\n|\t\w+_MAP\(.*\n)+", "\t/* uint64_t: those of STATISTICS, below */\n", text) for text in found]
    return [text for text in found if not re.match(r"(struct|enum) \w*_ ", text)]


def pieces_of(header):
    """(comment, code until the next one) for all comments in the first column."""
    parts = re.split(r"(?ms)^(/\*.*?\*/)[ \t]*\n", header)
    return [(comment_text(comment), code) for comment, code in zip(parts[1::2], parts[2::2])]


def statistics_section(headers):
    out = []
    for table_name, rows in re.findall(r"(?m)^#define (REGION_\w*STATS_MAP)\(X\)((?:.*\\\n)+.*)", "".join(headers)):
        out.append(heading("SS", table_name.removesuffix("_MAP").lower()))
        for name, text in re.findall(r'X\((\w+), (?:"\w+", )?"([^"]*)"\)', rows):
            out += [".TP", bold(name), escape(text)]
    return out


def function_section(pieces):
    out = []
    for comment, code in pieces:
        prototypes, types = prototypes_of(code), types_of(code)
        if not prototypes and not types:
            # A word alone is the title of what comes.
            out += [heading("SS", comment.rstrip("."))] if "\n" not in comment and len(comment) < 60 else []
            continue
        out += [".PP", ".nf", *(bold(prototype) for prototype in prototypes), ".fi"] if prototypes else []
        out += [".RS 4", *flow(comment), ".RE"]
        for text in types:
            out += [".PP", *as_is(text.replace("\t", "    ").split("\n"))]
    return out


def library_page(version, paths):
    headers = [Path(path).read_text(encoding="utf-8") for path in paths]
    sections = [
        ("NAME", ["region \\- region scopes: a malloc whose memory goes back when a call returns"]),
        ("SYNOPSIS", [".nf", bold("#include <region.h>"), "", bold("cc FILE... $(pkg-config --cflags --libs region)"),
                      ".fi"]),
    ]
    for path, header in zip(paths, headers):
        essay, _ = pieces_of(header)[0]
        title = "DESCRIPTION" if path == paths[0] else "REGIONS AS OBJECTS"
        sections.append((title, flow(essay.partition("\n\n")[2])))
        sections.append(("FUNCTIONS" if path == paths[0] else "FUNCTIONS OF OBJECTS", function_section(pieces_of(header)[1:])))
    sections.append(("STATISTICS", statistics_section(headers)))
    sections.append(("SEE ALSO", [".BR region (1)"]))
    return page("region", 3, version, sections)


def main(kind, output, version, *rest):
    text = command_page(version, *rest[:3], rest[3:]) if kind == "command" else library_page(version, rest)
    Path(output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
