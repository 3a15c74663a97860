"""advised: what the tests of `region advise` share."""

import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REGION = f"{TOP}/scripts/region"
LIBRARY = os.environ["LIBREGION_LIBRARY"]


def plain_environment(**more):
    """Of this process, without options of the library's, and with those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LIBREGION_") and k != "LD_PRELOAD"}
    kept.pop("MALLOC_PERTURB_", None)
    return {**kept, **more}


def preloaded(**more):
    return plain_environment(LD_PRELOAD=LIBRARY, **more)


def region(*words, **more):
    """Runs the command; its status, and what it says on each stream."""
    ended = subprocess.run([REGION, *words], env=plain_environment(LIBREGION_LIBRARY=LIBRARY, **more), text=True,
                           capture_output=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def advise_json(*words):
    """The status and the JSON of `region advise`. The program's own output goes before it."""
    status, out, said = region("advise", "--json", "--all", *words)
    at = out.find("{\n")
    if at < 0:
        wrong(f"no JSON from: region advise {' '.join(words)} (status {status})\n{out}{said}")
    return status, json.loads(out[at:])


def candidate(advice, name):
    found = [c for c in advice["candidates"] if c["function"] == name]
    return found[0] if found else wrong(f"{name} is not among the candidates")


def wrong(text):
    print(text)
    sys.exit(1)


def check(condition, text):
    if not condition:
        wrong(text)


def run_case(cases):
    """Runs the case that the command line names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in cases:
        wrong(f"no such case: {name!r}; there are: {' '.join(cases)}")
    arguments = [os.path.abspath(a) for a in sys.argv[2:]]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cases[name](*arguments)
    print(f"{name}: ok")
