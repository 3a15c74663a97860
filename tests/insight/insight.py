"""insight: what the tests of `region`'s commands share.

Each file of tests is a program for one command, run as `python3 tests/insight/FILE.py`. The environment says where
things are: REGION_LIBRARY, the library; INSIGHT_BUILD, the folder with the programs that are built for these
tests; INSIGHT_HAS_SITES is 1 if the library was built with sites.
"""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ["INSIGHT_BUILD"])
LIBRARY = os.environ["REGION_LIBRARY"]
REGION = str(TOP / "scripts" / "region")

needs_sites = unittest.skipUnless(os.environ.get("INSIGHT_HAS_SITES") == "1", "built without sites")

sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "scripts" / "insight"))


def environment(**changes):
    """The tests' own environment without anything that would change what a command finds."""
    kept = {name: value for name, value in os.environ.items()
            if name != "LD_PRELOAD" and not name.startswith("LIBREGION_")}
    return {**kept, **changes}


def region(*words, status=0, **changes):
    """Runs the command; it has to end with this status. What it said on stdout and on stderr."""
    done = subprocess.run([REGION, *map(str, words)], capture_output=True, text=True, check=False,
                          env=environment(LIBREGION_LIBRARY=LIBRARY, **changes), timeout=120)
    if done.returncode != status:
        raise AssertionError(f"status {done.returncode}, not {status}, of: region {' '.join(map(str, words))}\n"
                             f"{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def region_json(*words, **rest):
    return json.loads(region(*words, **rest)[0])


def program(name):
    return str(BUILD / name)


def main():
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
