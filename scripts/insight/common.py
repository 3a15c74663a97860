"""common: what the programs behind `region` share: how they end, and how they tell of their progress."""

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
