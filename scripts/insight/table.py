"""table: what the library prints about itself, as JSON; `region options --json` and `region version --json`.

    LIBREGION_HELP=1 ... | table.py options
    LIBREGION_VERBOSE=1 ... | table.py version

The text is the library's own, from its one table of options, so nothing here knows an option by name.
"""

import json
import re
import sys

PREFIX = "libregion: "


def options_of(text):
    """The table of options: for each its variable, its value in force, what it is for, and what it takes."""
    options = []
    for line in text.splitlines():
        line = line.removeprefix(PREFIX)
        if not line.startswith(" "):
            variable, has_value, value = line.partition("=")
            if not has_value:
                raise ValueError(f"not a line of the table of options: {line}")
            options.append({"variable": variable, "value": value})
        elif line.startswith("    takes "):
            options[-1]["takes"] = line.removeprefix("    takes ")
        else:
            options[-1]["help"] = line.strip()
    return options


def version_of(text):
    match = re.match(r"version (\S+), (.*), heap range of (\d+) bytes$", text.strip().removeprefix(PREFIX))
    if not match:
        raise ValueError(f"not what a library says of its version: {text}")
    return {"version": match[1], "library": match[2], "heap_range_bytes": int(match[3])}


if __name__ == "__main__":
    parse = {"options": options_of, "version": version_of}[sys.argv[1]]
    try:
        print(json.dumps(parse(sys.stdin.read()), indent=1))
    except ValueError as error:
        print(f"region: {error}", file=sys.stderr)
        sys.exit(1)
