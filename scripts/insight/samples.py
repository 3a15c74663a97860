"""samples: reads the files that a process writes while its allocations are sampled (scopes/advise_file.h), and finds
out which functions the addresses in them belong to."""

import bisect
import json
import math
import os
import struct
import subprocess

VERSION = 1
HEADER = struct.Struct("=16sIIQQQQQQQQQQ2048s")
HEAD = struct.Struct("=II")
MODULE = struct.Struct("=QQQ")
FRAME = struct.Struct("=QQQIIQ")
FRAME_END = struct.Struct("=QQQ")
SAMPLE = struct.Struct("=QQQQQQQQII")
FREE = struct.Struct("=QQQQQII")

UNHOOKED, OUTERMOST = 1, 2
BY_REALLOC, OTHER_THREAD = 1, 2


class BadFile(Exception):
    """A file that isn't what it should be, as one line."""


class Frame:
    """One call of a function."""

    __slots__ = ("number", "outer", "pc", "thread", "flags", "end", "depth", "function")

    def __init__(self, number, outer, pc, thread, flags):
        self.number, self.outer, self.pc, self.thread, self.flags = number, outer, pc, thread, flags
        self.end = None  # blocks and bytes of its thread when it returned
        self.depth = outer.depth + 1 if outer else 0
        self.function = None  # once it is known


class Sample:
    """One sampled allocation; `weight` is how many allocations it stands for."""

    __slots__ = ("frame", "pc", "size", "weight", "blocks", "bytes", "ns", "thread", "free")

    def __init__(self, frame, pc, size, mean, blocks, total, ns, thread):
        self.frame, self.pc, self.size, self.thread = frame, pc, size, thread
        self.blocks, self.bytes, self.ns = blocks, total, ns
        self.weight = -1 / math.expm1(-size / mean)
        self.free = None


class Free:
    """The end of a sample's block; `frame` is the innermost of its frames that hadn't returned, or None."""

    __slots__ = ("frame", "blocks", "bytes", "ns", "thread", "flags")

    def __init__(self, frame, blocks, total, ns, thread, flags):
        self.frame, self.blocks, self.bytes = frame, blocks, total
        self.ns, self.thread, self.flags = ns, thread, flags


class Run:
    """What one process has written."""

    def __init__(self, path):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise BadFile(f"{path}: {error.strerror}") from None
        self.path, self.modules, self.frames, self.samples = path, [], {}, []
        self._by_number = {}
        try:
            self._read_header(data)
            self._read_records(data)
        except (struct.error, KeyError):
            raise BadFile(f"{path}: is damaged") from None

    def _read_header(self, data):
        if not data.startswith(b"region advise\n"):
            raise BadFile(f"{self.path}: is no file of LIBREGION_ADVISE")
        (_, version, self._begin, self._used, self.process, self.start_ns, self.last_ns, self.end_ns, self.cpu_ns,
         _, self.unhooked, self.stackless, self.lost, program) = HEADER.unpack_from(data)
        if version != VERSION:
            raise BadFile(f"{self.path}: has version {version}, this is for {VERSION}")
        self.program = os.fsdecode(program.split(b"\0")[0])

    def _read_records(self, data):
        readers = {1: self._module, 2: self._frame, 3: self._frame_end, 4: self._sample, 5: self._free}
        at, end = self._begin, min(self._used, len(data))
        while at + HEAD.size <= end:
            kind, size = HEAD.unpack_from(data, at)
            if size < HEAD.size or at + size > end:
                raise BadFile(f"{self.path}: is damaged at byte {at}")
            if kind in readers:
                readers[kind](data, at + HEAD.size, at + size)
            at += size

    def _module(self, data, at, end):
        low, high, bias = MODULE.unpack_from(data, at)
        path = os.fsdecode(data[at + MODULE.size:end].split(b"\0")[0])
        self.modules.append((low, high, bias, path or self.program))

    def _frame(self, data, at, _):
        number, outer, pc, thread, flags, _ = FRAME.unpack_from(data, at)
        self.frames[number] = Frame(number, self.frames[outer] if outer else None, pc, thread, flags)

    def _frame_end(self, data, at, _):
        number, blocks, total = FRAME_END.unpack_from(data, at)
        self.frames[number].end = (blocks, total)

    def _sample(self, data, at, _):
        number, frame, pc, size, mean, blocks, total, ns, thread, _ = SAMPLE.unpack_from(data, at)
        sample = Sample(self.frames[frame] if frame else None, pc, size, mean, blocks, total, ns, thread)
        self._by_number[number] = sample
        self.samples.append(sample)

    def _free(self, data, at, _):
        number, frame, blocks, total, ns, thread, flags = FREE.unpack_from(data, at)
        self._by_number[number].free = Free(self.frames[frame] if frame else None, blocks, total, ns, thread, flags)

    def place(self, pc):
        """The module that an address lies in, and what its file calls the address: (path, offset)."""
        for low, high, bias, path in self.modules:
            if low <= pc < high:
                return path, pc - bias
        return None, pc


class Function:
    """A function of a module."""

    __slots__ = ("site", "name", "module", "refusal", "file", "line", "key")

    def __init__(self, key, site, name, module, refusal, file=None, line=None):
        self.key, self.site, self.name, self.module, self.refusal = key, site, name, module, refusal
        self.file, self.line = file, line

    @property
    def label(self):
        return self.name or self.site


class Functions:
    """Resolves addresses by `region-sites`, which knows what each function is called and whether it can be a site."""

    def __init__(self, command):
        self.command, self.modules, self.found = command, {}, {}

    def _load(self, path):
        try:
            said = subprocess.run([self.command, "--json", path, "*"], capture_output=True, check=False).stdout
            module = json.loads(said)["modules"][0]
        except (OSError, ValueError, LookupError):
            return [], [], os.path.basename(path)
        entries = sorted((f for f in module["functions"]), key=lambda f: (f["offset"], not f["function"]))
        return [f["offset"] for f in entries], entries, module["module"]

    def at(self, path, offset):
        """The function that the call before `offset` is in."""
        if path is None:
            return self._unknown("?", "?", offset, "it is in no module (made at run time, or unloaded)")
        if path not in self.modules:
            self.modules[path] = self._load(path)
        offsets, entries, name = self.modules[path]
        last = bisect.bisect_right(offsets, offset - 1) - 1
        if last < 0:
            return self._unknown(path, name, offset, "nothing is known of its module's functions")
        first = bisect.bisect_left(offsets, offsets[last])
        entry = min(entries[first:last + 1], key=lambda f: (f["refusal"] is not None, f["function"] or "~"))
        entry = self._whole(entries, entry)
        key = (path, entry["offset"])
        if key not in self.found:
            self.found[key] = Function(key, entry["site"], entry["demangled"] or entry["function"], name,
                                       entry["refusal"], entry["file"], entry.get("line"))
        return self.found[key]

    @staticmethod
    def _whole(entries, entry):
        """Of a part that the compiler has moved elsewhere, the function that it is of."""
        name, has_part, _ = (entry["function"] or "").partition(".cold")
        if has_part:
            for other in entries:
                if other["function"] == name:
                    return other
        return entry

    def _unknown(self, path, name, offset, why):
        key = (path, offset)
        if key not in self.found:
            self.found[key] = Function(key, f"{name}+{offset:#x}", None, name, why)
        return self.found[key]
