"""Work for Python: JSON, regular expressions, threads, child processes, sqlite, compression."""

import collections
import concurrent.futures
import decimal
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import zlib

# The environment of Python's children, which -I leaves as it is.
generator = random.Random(20231)
WORDS = "river stone amber north ship green lamp order quiet maple salt wheel".split()


def number(below):
    return int(generator.random() * below)


def orders(count):
    return [
        {
            "id": i,
            "name": " ".join(WORDS[number(12)] for _ in range(2)),
            "price": number(100000) / 100,
            "lines": [{"sku": number(9999), "note": "\u00e9" * number(40)} for _ in range(number(6))],
        }
        for i in range(count)
    ]


def square_sum(numbers):
    return sum(n * n for n in numbers)


def json_and_text(rows):
    text = json.dumps(rows, indent=1)
    again = json.loads(text)
    assert again == rows
    names = collections.Counter(row["name"] for row in again)
    print(len(text), names.most_common(5))
    found = re.findall(r'"sku": (\d+)', text)
    print(len(found), sum(map(int, found)))
    replaced = re.sub(r"(?P<a>[a-z]+) (?P<b>[a-z]+)", lambda m: m["b"].upper() + m["a"], text)
    print(hashlib.sha256(replaced.encode()).hexdigest())
    packed = zlib.compress(text.encode(), 6)
    assert zlib.decompress(packed).decode() == text
    print(hashlib.sha256(packed).hexdigest())


def threads():
    results = [None] * 8

    def work(slot):
        mine = {}
        for i in range(3000):
            mine.setdefault(str(i % 97), []).append("x" * (i % 200))
            if i % 500 == 0:
                mine.clear()
        results[slot] = sum(len(s) for values in mine.values() for s in values)

    for _ in range(3):
        running = [threading.Thread(target=work, args=(slot,)) for slot in range(8)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    print(results)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(list(pool.map(square_sum, [range(n * 100) for n in range(20)])))


def processes():
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        print(pool.map(square_sum, [list(range(n * 200)) for n in range(30)]))
    queue = context.Queue()
    children = [context.Process(target=queue.put, args=(["y" * 50000] * n,)) for n in range(4)]
    for child in children:
        child.start()
    print(sorted(len(queue.get()) for _ in children))
    for child in children:
        child.join()
    print([child.exitcode for child in children])

    # Forks while other threads allocate.
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            [bytearray(n * 13 % 5000) for n in range(200)]

    noise = [threading.Thread(target=churn) for _ in range(2)]
    for thread in noise:
        thread.start()
    for n in range(20):
        child = os.fork()
        if child == 0:
            os._exit(len(json.loads(json.dumps(list(range(n * 10))))) // 10)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=" ")
    print()
    stop.set()
    for thread in noise:
        thread.join()
    for n in range(5):
        done = subprocess.run(["sh", "-c", f"cat; exit {n}"], input=b"z" * 100000, capture_output=True)
        print(done.returncode, len(done.stdout), done.stderr)
    code = "import json, sys; print(sum(json.load(sys.stdin)))"
    print(subprocess.check_output([sys.executable, "-c", code], input=json.dumps(list(range(1000))), text=True))


def database(rows):
    connection = sqlite3.connect(":memory:")
    connection.execute("create table orders(id integer primary key, name, price)")
    connection.executemany("insert into orders values (:id, :name, :price)", rows)
    for row in connection.execute("select name, count(*), sum(price) from orders group by name order by 3 limit 9"):
        print(row[0], row[1], round(row[2], 2))


def numbers():
    decimal.getcontext().prec = 300
    print(decimal.Decimal(2).sqrt())
    print(hashlib.md5(str(3**8000).encode()).hexdigest())
    print(sum(1 for p in itertools.permutations("abcdefg") if p[0] < p[1]))


rows = orders(3000)
json_and_text(rows)
threads()
processes()
database(rows)
numbers()
sys.stdout.flush()
