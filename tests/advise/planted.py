#!/usr/bin/env python3
"""planted: programs whose advice is known beforehand (planted.c) get that advice.

    LIBREGION_LIBRARY=PATH tests/advise/planted.py CASE PLANTED

The shares come from 8,000 to 20,000 samples each, so two points are five standard deviations or more."""

import glob
import os
import subprocess

from advised import advise_json, candidate, check, preloaded, region, run_case

POINTS = 0.02


def near(value, truth, within, what):
    check(abs(value - truth) <= within, f"{what} is {value:.4f}, not {truth} ± {within}")


def top(program, kind, rounds, name, freed, calls, *options, status=0):
    """The first line is about `name`, and true. What follows must not be better."""
    got, advice = advise_json("--mean=2k", *options, "--", program, kind, str(rounds))
    check(got == status, f"the exit status is {got}, not {status}")
    first = advice["candidates"][0]
    check(first["function"] == name, f"the first line is about {first['function']}, not {name}")
    near(first["share_allocations"], 1, POINTS, "the share of allocations")
    near(first["share_bytes"], 1, POINTS, "the share of bytes")
    near(first["freed_share"], freed, POINTS, "the share freed")
    near(first["calls"], calls, 0.25 * calls, "the number of calls")
    check(first["is_chosen"] == (status == 0), f"chosen: {first['is_chosen']}, because {first['reason']}")
    check(first["hook_refusal"] is None, f"it can't be hooked: {first['hook_refusal']}")
    return advice


def paste(program, kind, rounds, line, name, scopes):
    """The line works, and the statistics agree."""
    said = subprocess.run([program, kind, str(rounds)], env=preloaded(LIBREGION_SITES=line, LIBREGION_VERBOSE="1"),
                          capture_output=True, text=True, check=True).stderr
    check(f'site "{line}": entered {scopes} times' in said or f'site "{line}' in said and f": entered {scopes} times" in said,
          f"{name} wasn't entered {scopes} times with LIBREGION_SITES={line}:\n{said}")


def dies(program):
    advice = top(program, "dies", 3000, "handle_request", 1, 3000)
    paste(program, "dies", 3000, advice["sites"], "handle_request", 3000)
    inner = candidate(advice, "make_block")
    check("outlive" in inner["reason"] and inner["freed_share"] == 0, f"make_block: {inner['reason']}")
    check("whole program" in candidate(advice, "main")["reason"], "main isn't the whole program")
    near(advice["candidates"][0]["blocks_a_call"], 50, 12, "blocks a call")


def survives(program):
    advice = top(program, "survives", 3000, "handle_request", 0.7, 3000, status=3)
    check("outlive" in advice["candidates"][0]["reason"], "survivors aren't the reason")
    check(advice["sites"] is None, "a line to paste, all the same")


def tree(program):
    advice = top(program, "tree", 1500, "handle_text", 1, 1500)
    parse = candidate(advice, "parse_text")
    check("outlive" in parse["reason"] and parse["freed_share"] == 0, f"parse_text: {parse['reason']}")
    check(parse["is_recursive"], "parse_text isn't recursive")


def recursion(program):
    advice = top(program, "recursion", 400, "visit_node", 1, 400)
    check(advice["candidates"][0]["is_recursive"], "visit_node isn't recursive")


def loop(program):
    advice = top(program, "loop", 3000, "handle_request", 1, 3000)
    check("never returns" in candidate(advice, "run_events")["reason"], "run_events returns")


def threads(program):
    advice = top(program, "threads", 3000, "handle_request", 1, 3000)
    check(advice["candidates"][0]["threads"] == 4, "there are not four threads")


def others(program):
    _, advice = advise_json("--mean=2k", "--", program, "others", "4000")
    handed = candidate(advice, "hand_over")
    near(handed["freed_share"], 0, 0, "the share freed")
    check("outlive" in handed["reason"], f"hand_over: {handed['reason']}")


def thrown(program):
    advice = top(program, "thrown", 750, "catch_request", 0.875, 750, status=3)
    thrown_out = candidate(advice, "throw_request")
    near(thrown_out["freed_share"], 0.5, POINTS, "the share freed in the function that is left")
    near(thrown_out["calls"], 3000, 300, "the number of its calls")


def crash(program):
    advice = top(program, "crash", 3000, "handle_request", 1, 3000)
    check(advice["ran"]["status"] == -9, f"the program ended with {advice['ran']['status']}")


def forks(program):
    """The child has a file of its own, and allocates more."""
    top(program, "forks", 3000, "handle_request", 1, 3000)
    for path, count in (("%p.advise", 2), ("parent.advise", 1)):
        subprocess.run([program, "forks", "50"], env=preloaded(LIBREGION_ADVISE=path, LIBREGION_ADVISE_MEAN="16"),
                       check=True)
        check(len(glob.glob("*.advise")) == count, f"{path}: there are {glob.glob('*')}")
        for file in glob.glob("*.advise"):
            os.unlink(file)


def inferred(program):
    """Without hooks a call is taken for the one before it: what is inferred is marked so."""
    _, advice = advise_json("--mean=2k", "--no-hooks", "--", program, "tree", "1500")
    first = candidate(advice, "handle_text")
    near(first["freed_share"], 1, POINTS, "the share freed")
    check(first["inferred_share"] > 0.9, "it isn't marked as inferred")


def adapts(program):
    """Left alone, sampling finds its own distance, and the advice is the same."""
    got, advice = advise_json("--", program, "survives", "60000")
    first = advice["candidates"][0]
    check(got == 3 and first["function"] == "handle_request", f"the first line is about {first['function']}")
    # In half a second the distance is still growing: the last samples stand for most of the bytes, and are few.
    near(first["freed_share"], 0.7, 0.25, "the share freed")
    near(first["calls"], 60000, 30000, "the number of calls")
    check(300 < advice["samples"] < 100000, f"there are {advice['samples']} samples")


def seldom(program):
    """Two calls leave nothing to gain, whatever they free."""
    got, advice = advise_json("--mean=32", "--", program, "dies", "2")
    check(got == 3 and advice["sites"] is None, f"status {got}: {advice['sites']}")
    first = candidate(advice, "handle_request")
    check(first["calls"] == 2 and first["freed_share"] == 1, f"{first['calls']} calls, freed {first['freed_share']}")
    check("called too seldom: 2 times" in first["reason"], f"because {first['reason']}")


def files(program):
    """Folded stacks add up to what was allocated, and each profile can be read."""
    status, _, said = region("advise", "--mean=2k", "--files=out", "--", program, "survives", "3000")
    check(status == 3, f"status {status}: {said}")
    with open("out/alloc.folded", encoding="utf-8") as file:
        lines = [line.rsplit(" ", 1) for line in file]
    total = sum(int(amount) for _, amount in lines)
    near(total / (3000 * 50 * 215), 1, 0.05, "the sum of all stacks over what was allocated")
    check(any(stack.endswith("main;handle_request;make_block") for stack, _ in lines), f"no such stack: {lines}")
    with open("out/profile.heap", encoding="utf-8") as file:
        check(file.readline().startswith("heap profile: "), "the heap profile has no head")
    if os.path.exists("/usr/bin/google-pprof"):
        said = subprocess.run(["google-pprof", "--text", "--alloc_space", program, "out/profile.heap"],
                              capture_output=True, text=True, check=True).stdout
        check("make_block" in said and "handle_request" in said, f"google-pprof says: {said}")
    names = strings_of_profile("out/profile.pb.gz")
    check({"alloc_space", "handle_request", "make_block"} <= names, f"the profile has {names}")


def strings_of_profile(path):
    """The strings of a profile.proto (field 6 of the outermost message), read as the format says."""
    import gzip
    with gzip.open(path) as file:
        data = file.read()
    at, strings = 0, set()

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        check(key & 7 == 2, f"wire type {key & 7} at {at}")
        length = varint()
        if key >> 3 == 6:
            strings.add(data[at:at + length].decode())
        at += length
    return strings


run_case({f.__name__: f for f in (dies, survives, tree, recursion, loop, threads, others, thrown, crash, forks, inferred,
                                  adapts, seldom, files)})
