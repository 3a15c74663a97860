#!/usr/bin/env python3
"""service: sampling of programs that run: by a signal, in files that can't be written, side by side, and wrong usage.

    LIBREGION_LIBRARY=PATH tests/advise/service.py CASE PLANTED"""

import json
import os
import signal
import stat
import struct
import subprocess
import time

from advised import check, preloaded, region, run_case

NUMBER = int(signal.SIGUSR2)
PATIENCE_S = 60


def samples_in(path):
    """The count in the header (scopes/advise_file.h), while the process writes it."""
    try:
        with open(path, "rb") as file:
            return struct.unpack_from("=16sII8Q", file.read(256))[9] if os.path.getsize(path) else 0
    except (FileNotFoundError, struct.error):
        return 0


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        check(time.monotonic() < end, f"waited in vain until {what}")
        time.sleep(0.01)


def start_and_stop(service, path):
    service.stdout.readline()
    time.sleep(0.2)
    check(not os.path.exists(path), "it was sampled before the signal")
    service.send_signal(NUMBER)
    wait_until(lambda: samples_in(path) > 3000, "there are samples")
    service.send_signal(NUMBER)
    time.sleep(0.3)
    before = samples_in(path)
    time.sleep(0.3)
    check(samples_in(path) == before, "sampling went on after the second signal")
    service.send_signal(NUMBER)
    wait_until(lambda: samples_in(path) > before + 1000, "sampling goes on after the third signal")
    service.send_signal(NUMBER)
    status, out, said = region("advise", f"--from={path}")
    check(status == 0 and "planted:handle_request" in out, f"status {status} of the running service: {out}{said}")


def a_signal_starts_and_stops_it(program):
    environment = preloaded(LIBREGION_ADVISE="%p.advise", LIBREGION_ADVISE_SIGNAL=str(NUMBER), LIBREGION_ADVISE_MEAN="16k")
    with subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.PIPE) as service:
        path = f"{service.pid}.advise"
        try:
            start_and_stop(service, path)
            service.send_signal(signal.SIGTERM)
            check(service.wait() == 0, f"the service ended with {service.returncode}")
        finally:
            service.kill()
    status, out, _ = region("advise", f"--from={path}")
    check(status == 0 and "planted:handle_request" in out, f"status {status} of the ended service: {out}")


def time_is_kept(program):
    start = time.monotonic()
    status, out, said = region("advise", "--time=1500ms", "--mean=16k", "--", program, "serve")
    check(status == 0 and ", stopped: " in out, f"status {status}: {out}{said}")
    check(1.4 < time.monotonic() - start < PATIENCE_S, "the time wasn't kept")


def files_that_cannot_be_written(program):
    for path in ("/nowhere/x", "/dev/null", ".", "link"):
        if path == "link":
            os.symlink("/dev/null", path)
        ended = subprocess.run([program, "dies", "10"], env=preloaded(LIBREGION_ADVISE=path, LIBREGION_ADVISE_MEAN="16"),
                               capture_output=True, text=True, check=False)
        check(ended.returncode == 0, f"{path}: the program ended with {ended.returncode}")
        check(ended.stderr.count("\n") == 1 and "can't be written; nothing is sampled" in ended.stderr,
              f"{path}: it says {ended.stderr!r}")
    check(stat.S_ISCHR(os.stat("/dev/null").st_mode), "/dev/null is none any more")


def one_file_for_many_processes(program):
    """Each replaces the file of the one before, which goes on with its own."""
    script = f"{program} dies 500 & {program} dies 500 & {program} dies 500 & wait"
    ended = subprocess.run(["sh", "-c", script], env=preloaded(LIBREGION_ADVISE="one", LIBREGION_ADVISE_MEAN="64"),
                           capture_output=True, text=True, check=False)
    check(ended.returncode == 0 and ended.stderr == "", f"{ended.returncode}: {ended.stderr}")
    check(region("advise", "--from=one")[0] in (0, 3), "the file can't be read")


def nothing_is_written_without_the_option(program):
    subprocess.run([program, "dies", "10"], env=preloaded(), check=True)
    check(os.listdir(".") == [], f"there is {os.listdir('.')}")


def wrong_usage(program):
    for status, said, words in (
            (2, "no program named", ["advise"]),
            (2, "no such option: --fly", ["advise", "--fly", "--", program]),
            (2, "--time=soon: expected a time", ["advise", "--time=soon", program]),
            (2, "--time=0: expected a time", ["advise", "--time=0", program]),
            (2, "--mean=much: expected a size", ["advise", "--mean=much", program]),
            (2, "--json takes no value", ["advise", "--json=1", program]),
            (2, "--output=/nowhere/x: No such file", ["advise", "--output=/nowhere/x", "--", program]),
            (2, "--output needs a value", ["advise", "--output"]),
            (2, "either --from, or a program", ["advise", "--from=x", program]),
            (1, "x: No such file", ["advise", "--from=x"]),
            (1, "is no file of LIBREGION_ADVISE", ["advise", f"--from={program}"]),
            (127, "not found", ["advise", "./nowhere"]),
            (1, "nothing was sampled", ["advise", "--mean=1m", "true"])):
        got, _, err = region(*words)
        check(got == status and said in err and err.count("\n") == 1, f"{words}: {got}, {err!r}")
    got, out, _ = region("advise", "--json", "-o", "advice", "--mean=64", "--", program, "dies", "100")
    with open("advice", encoding="utf-8") as file:
        advice = json.load(file)
    check(got in (0, 3) and out == "" and advice["ran"]["status"] == 0, f"-o: {got}, {out!r}, {advice['ran']}")
    got, out, _ = region("advise", "--help")
    check(got == 0 and "--time" in out and "Exit status" in out, f"--help: {out}")


def damaged_files(program):
    subprocess.run([program, "dies", "100"], env=preloaded(LIBREGION_ADVISE="whole", LIBREGION_ADVISE_MEAN="256"), check=True)
    with open("whole", "rb") as file:
        whole = file.read()
    for name, data in (("empty", b""), ("short", whole[:300]), ("cut", whole[:9000]),
                       ("version", whole[:16] + b"\x63" + whole[17:]), ("garbled", whole[:5000] + b"\xff" * 64 + whole[5064:])):
        with open(name, "wb") as file:
            file.write(data)
        status, _, said = region("advise", f"--from={name}")
        check(status in (0, 1, 3) and "Traceback" not in said, f"{name}: {status}, {said}")
        check(status != 1 or said.count("\n") == 1, f"{name}: {said!r}")


run_case({f.__name__: f for f in (a_signal_starts_and_stops_it, time_is_kept, files_that_cannot_be_written,
                                  one_file_for_many_processes, nothing_is_written_without_the_option, wrong_usage,
                                  damaged_files)})
