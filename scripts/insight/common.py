"""common: what the programs behind `region` share: options, how they end, and how they tell of their progress."""

import sys
import time

PROGRESS_AFTER_S = 2.0
PROGRESS_LINE_EVERY_S = 10.0


class Refusal(Exception):
    """What the command can't do, as one line for the user, and the exit status that says so."""

    def __init__(self, text, status=2):
        super().__init__(text)
        self.status = status


def run(main):
    """Runs main(arguments), and turns a refusal into a line on stderr and an exit status."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Refusal as refusal:
        print(f"region: {refusal}", file=sys.stderr)
        sys.exit(refusal.status)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)


def options_of(command, words, flags, values, lists=(), short=None, is_program=True):
    """The options of a command, {name: value}, and the other words.

    Those in `flags` are True, those in `values` take one (--name=value or --name value), those in `lists` any number.
    `short` leads from -x to --name. Options end at --, and at the first other word if that begins a program's command line.
    """
    found, others, words = {name: [] for name in lists}, [], list(words)
    short = {"-h": "--help", **(short or {})}
    while words:
        word = words.pop(0)
        if word == "--":
            break
        if not word.startswith("-"):
            others.append(word)
            if is_program:
                break
            continue
        said, has_value, value = word.partition("=")
        name = short.get(said, said).removeprefix("--")
        if name not in ("help", *flags, *values, *lists) or said == name:
            raise Refusal(f"{command}: no such option: {word}; see: region {command} --help")
        if name in ("help", *flags):
            if has_value:
                raise Refusal(f"{command}: {said} takes no value")
            found[name] = True
            continue
        if not has_value and not words:
            raise Refusal(f"{command}: {said} needs a value")
        value = value if has_value else words.pop(0)
        found[name] = [*found[name], value] if name in lists else value
    return found, others + words


def print_help(text):
    """The module's own, but for its first line."""
    print(text.split("\n\n", 1)[1].strip("\n"))


class Progress:
    """Says on stderr how far something is that takes over two seconds: on a terminal in place, else now and then."""

    def __init__(self):
        self.start = time.monotonic()
        self.last = None
        self.on_terminal = sys.stderr.isatty()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.last is not None and self.on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def say(self, text, done, total):
        now = time.monotonic()
        if now - self.start < PROGRESS_AFTER_S:
            return
        if not self.on_terminal and self.last is not None and now - self.last < PROGRESS_LINE_EVERY_S:
            return
        self.last = now
        left = f", about {(now - self.start) / done * (total - done):.0f} s left" if done else ""
        start, end = ("\r\033[K", "") if self.on_terminal else ("", "\n")
        print(f"{start}region: {text}{left}", end=end, file=sys.stderr, flush=True)
