#!/usr/bin/env python3
"""programs: real programs print the same while they are sampled, and what is advised for them can be pasted.

    LIBREGION_LIBRARY=PATH tests/advise/programs.py CASE

A program that isn't installed is skipped."""

import json
import os
import shutil
import subprocess
import sys

from advised import advise_json, check, plain_environment, preloaded, run_case

SKIPPED = 77
SQL = ("create table t(a, b); with recursive c(x) as (select 1 union all select x + 1 from c where x < 30000) "
       "insert into t select x, x || 'abc' from c; select count(distinct b), sum(length(b)) from t;")


def make_input():
    with open("rows.json", "w", encoding="utf-8") as file:
        json.dump([{"name": f"n{i}", "tags": [f"a{j}" for j in range(5)]} for i in range(3000)], file)
    with open("rows.xml", "w", encoding="utf-8") as file:
        file.write("<r>" + "".join(f'<a id="{i}"><b>x{i % 97}</b><c k="{i % 7}">{"t" * (i % 9)}</c></a>\n'
                                   for i in range(6000)) + "</r>")
    with open("sort.xsl", "w", encoding="utf-8") as file:
        file.write('<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/r">'
                   '<o><xsl:for-each select="a"><xsl:sort select="b"/><p><xsl:value-of select="concat(b, c/@k)"/></p>'
                   "</xsl:for-each></o></xsl:template></xsl:stylesheet>")


COMMANDS = {
    "xmllint": ["xmllint", "--xpath", "count(//b[starts-with(., 'x1')])", "rows.xml"],
    "xmllint_noout": ["xmllint", "--noout", "rows.xml"],
    "xsltproc": ["xsltproc", "sort.xsl", "rows.xml"],
    "jq": ["jq", "-c", "map({id: .name, t: (.tags | sort | join(\",\"))}) | length", "rows.json"],
    "sqlite3": ["sqlite3", ":memory:", SQL],
    "python3": ["python3", "-c", "import json, threading, sqlite3; print(len(json.dumps([{str(i): [i] * 9} for i in range(9999)])))"],
    "perl": ["perl", "-e", "my %h; $h{$_ % 999} .= \"x$_\" for 1..50000; print length(join '', values %h), \"\\n\"; "
             "eval { die \"out\\n\" } for 1..1000; print fork() ? (wait > 0) : exit(0), \"\\n\""],
    "node": ["node", "-e", "let a = []; for (let i = 0; i < 2e5; i++) a.push({k: '' + i}); gc = JSON.stringify(a).length; console.log(gc)"],
    "bash": ["bash", "-c", "for i in {1..2000}; do x=${x}a; done; echo ${#x} $(echo $(echo in | cat))"],
    "git": ["git", "--version"],
    "g++": ["g++", "--version"],
}
# They are known to have a function that leaves next to nothing behind.
PASTED = ("xmllint", "xmllint_noout", "jq", "sqlite3", "python3")


def output_of(words, environment):
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def try_program(name):
    words = COMMANDS[name]
    if not shutil.which(words[0]):
        print(f"{name} isn't installed")
        sys.exit(SKIPPED)
    make_input()
    plain = output_of(words, plain_environment())
    for mean in ("256", "16k"):
        sampled = output_of(words, preloaded(LIBREGION_ADVISE=f"{os.getcwd()}/%p.advise", LIBREGION_ADVISE_MEAN=mean))
        check(sampled == plain, f"sampled, with {mean}: {sampled[0]}\n{sampled[1][-500:]}{sampled[2][-500:]}")
    check(any(file.endswith(".advise") for file in os.listdir(".")), "nothing was sampled")
    status, advice = advise_json("--", *words)
    check(status in (0, 3) and advice["samples"] > 0, f"status {status}, {advice['samples']} samples")
    line = advice["sites"] or advice["site_to_try"]
    check(line or name not in PASTED, "there is no line to paste")
    if line:
        with_sites = output_of(words, preloaded(LIBREGION_SITES=line))
        check(with_sites[:2] == plain[:2], f"with LIBREGION_SITES={line}: {with_sites}")
        check("plain calls" not in with_sites[2], f"refused: {with_sites[2]}")


run_case({name: lambda name=name: try_program(name) for name in COMMANDS})
