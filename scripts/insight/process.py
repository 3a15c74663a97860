"""process: what a running program's libregion has counted, read from outside, without its help.

A process with libregion has a loaded note that leads to a table of where its counters are and how they are laid
out (scopes/inspect.c); everything is read through /proc/PID/mem. What is read changes meanwhile, so nothing
is taken for granted: lists have a longest length, and names that aren't names are left out.
"""

import struct
from collections import Counter, namedtuple

from common import Refusal

VERSION = 1
LIST_MAX = 100000
NAME_MAX = 256
WORDS = ("version roots heap_next heap_upper heap_top heap_spare thread_counters thread_base counters_stats counters_name "
         "counters_next scope_outer scope_name scope_inline member_count members").split()
Layout = namedtuple("Layout", WORDS)
# What isn't a sum over threads.
LARGEST = ("peak_bytes", "longest_pause_ns")

PT_LOAD, PT_NOTE, NOTE_KIND = 1, 4, 1
NOTE_NAME = b"libregion\0"


class Process:
    """One process with libregion; a Refusal with status 1 if it has none, or can't be read."""

    def __init__(self, pid):
        self.pid = pid
        try:
            self.memory = open(f"/proc/{pid}/mem", "rb", buffering=0)
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                starts = [line.split("-")[0] for line in maps if line.split()[2] == "00000000" and "r" in line.split()[1]]
        except FileNotFoundError as error:
            raise Refusal(f"there is no process {pid}", 1) from error
        except PermissionError as error:
            raise Refusal(f"process {pid} may not be read: be root or its user, who then needs kernel.yama.ptrace_scope=0",
                          1) from error
        if not starts:
            raise Refusal(f"process {pid} has ended, or is the kernel's own", 1)
        address = next(filter(None, (self.find_note(int(start, 16)) for start in starts)), None)
        if address is None:
            raise Refusal(f"process {pid} runs without libregion", 1)
        self.layout = Layout(*self.words(address, len(WORDS)))
        if self.layout.version != VERSION:
            raise Refusal(f"process {pid} has a libregion that this command doesn't know", 1)
        self.members = self.text(self.layout.members, self.layout.member_count * 40).split("\0")[:self.layout.member_count]

    # ---- reading

    def read(self, address, length):
        try:
            return self.memory.read(length) if self.memory.seek(address) == address else b""
        except (OSError, ValueError, OverflowError):
            return b""

    def words(self, address, count):
        data = self.read(address, 8 * count)
        return struct.unpack(f"<{count}Q", data) if len(data) == 8 * count else (0,) * count

    def word(self, address):
        return self.words(address, 1)[0]

    def text(self, address, length):
        return self.read(address, length).decode("utf-8", errors="replace")

    def name(self, address):
        """A text that ends in a NUL; NULL is none."""
        # What lies behind it on the next page may not be there.
        length = min(NAME_MAX, 4096 - address % 4096)
        start = self.read(address, length) if address else b""
        if b"\0" not in start:
            start += self.read(address + length, NAME_MAX - length)
        return start.partition(b"\0")[0].decode("utf-8", errors="replace")

    def list(self, first, next_offset):
        seen = 0
        while first and seen < LIST_MAX:
            yield first
            first = self.word(first + next_offset)
            seen += 1

    def find_note(self, start):
        """The address that the note of the file that is mapped at `start` leads to."""
        header = self.read(start, 64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return None
        table, entry_bytes, count = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54)
        headers = self.read(start + table, entry_bytes * count)
        entries = [struct.unpack_from("<IIQQQQ", headers, i * entry_bytes) for i in range(len(headers) // max(entry_bytes, 56))]
        loaded = [address for kind, _, _, address, _, _ in entries if kind == PT_LOAD]
        if not loaded:
            return None
        bias = start - min(loaded) // 4096 * 4096
        for kind, _, _, address, _, length in entries:
            found = self.find_in_notes(bias + address, length) if kind == PT_NOTE else None
            if found:
                return found
        return None

    def find_in_notes(self, address, length):
        data, at = self.read(address, min(length, 1 << 16)), 0
        while at + 12 <= len(data):
            name_bytes, body_bytes, kind = struct.unpack_from("<III", data, at)
            body = at + 12 + (name_bytes + 3) // 4 * 4
            if data[at + 12:at + 12 + name_bytes] == NOTE_NAME and kind == NOTE_KIND and len(data) >= body + 8:
                return address + body + struct.unpack_from("<q", data, body)[0]
            at = body + (body_bytes + 3) // 4 * 4
        return None

    # ---- what it says

    def is_alive(self):
        return self.word(self.layout.roots) != 0

    def add_sets(self, sums, first):
        for counters in self.list(first, self.layout.counters_next):
            name = self.name(self.word(counters + self.layout.counters_name))
            values = self.words(counters + self.layout.counters_stats, len(self.members))
            into = sums.setdefault(name, Counter())
            for member, value in zip(self.members, values):
                into[member] = max(into[member], value) if member in LARGEST else into[member] + value

    def open_scopes(self, heap, base):
        """The names of the scopes that a thread is in; it may be entering or leaving some."""
        depth = 0
        scope = self.word(heap + self.layout.heap_top)
        while scope and scope != base and depth < 1000:
            if self.word(scope + self.layout.scope_inline) in (0, 2):  # 2: watched
                yield self.name(self.word(scope + self.layout.scope_name))
            scope = self.word(scope + self.layout.scope_outer)
            depth += 1

    def look(self):
        """{name: counters} of all scopes so far; how many are open now, by name; bytes that threads keep ready."""
        heaps, ended = self.words(self.layout.roots, 2)
        sums, are_open, spare_bytes = {}, Counter(), 0
        self.add_sets(sums, ended)
        for heap in self.list(heaps, self.layout.heap_next):
            thread = self.word(heap + self.layout.heap_upper)
            spare_bytes += self.word(heap + self.layout.heap_spare)
            if thread:
                self.add_sets(sums, self.word(thread + self.layout.thread_counters))
                are_open.update(self.open_scopes(heap, thread + self.layout.thread_base))
        return {name: counts for name, counts in sums.items() if counts["scopes_entered"]}, are_open, spare_bytes

    def status(self):
        """Of /proc/PID/status: the command's name, resident bytes, threads."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        except OSError:
            fields = {}
        return {"command": fields.get("Name", ""), "threads": int(fields.get("Threads", 0)),
                "resident_bytes": int(fields.get("VmRSS", "0").split()[0]) << 10}
