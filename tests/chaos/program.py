"""What the jobs of the chaos run: it prints what its seed says, and notes what it went through.

Standard library only, for it runs with `python -I -S`. The bytes depend on the seed alone, so that
whoever knows how many records were printed knows every byte of both streams.
"""

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator

# Records that a terminal, a progress bar, a stack trace and a careless C library might print.
_KINDS = ("line", "line", "line", "progress", "colour", "garbage", "long", "bulk", "fragment")
_LONG = 10_000
_BULK = 90_000  # more than a pipe holds: the write waits for the supervisor

# The job looks for the sign to end this often, in records.
_LOOK_EVERY = 16


def records(seed: int) -> Iterator[tuple[int, bytes]]:
    """The (descriptor, bytes) that a job with this seed prints, without end."""
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield chance.choice((1, 1, 2)), _content(chance, number)


def _content(chance: random.Random, number: int) -> bytes:
    kind = chance.choice(_KINDS)
    if kind == "progress":
        return b"\r%3d%%|%s" % (number % 101, b"#" * (number % 40))
    if kind == "colour":
        return b"\x1b[3%dm%d\x1b[0m\x1b]0;title %d\x07\n" % (number % 8, number, number)
    if kind == "garbage":
        return chance.randbytes(chance.randrange(1, 2000))
    if kind == "long":
        return bytes([33 + number % 90]) * _LONG + b"\n"
    if kind == "bulk":
        return chance.randbytes(_BULK) if not chance.randrange(8) else b"\r\n"
    if kind == "fragment":
        return b"%d " % number
    return b"step %d loss %f\n" % (number, chance.random())


def expected(seed: int, count: int) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each stream after `count` records."""
    digests = {1: hashlib.sha256(), 2: hashlib.sha256()}
    sizes = {1: 0, 2: 0}
    source = records(seed)
    for _ in range(count):
        descriptor, content = next(source)
        digests[descriptor].update(content)
        sizes[descriptor] += len(content)
    names = {1: "stdout", 2: "stderr"}
    return {names[d]: (sizes[d], digests[d].hexdigest()) for d in digests}


def whole(seed: int, count: int) -> tuple[int, str]:
    """Size and sha256 of both streams in one, as a terminal has them."""
    digest, size, source = hashlib.sha256(), 0, records(seed)
    for _ in range(count):
        _, content = next(source)
        digest.update(content)
        size += len(content)
    return size, digest.hexdigest()


class _Writer:
    """Writes at a bounded rate and notes how long it was held up at most."""

    def __init__(self, rate: float) -> None:
        self.longest = 0.0
        self._rate = rate
        self._due = time.monotonic()

    def write(self, descriptor: int, content: bytes) -> None:
        begin = time.monotonic()
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        end = time.monotonic()
        self.longest = max(self.longest, end - begin)
        # Whoever was held up does not catch up in a rush.
        self._due = max(self._due, end - 1.0) + len(content) / self._rate
        if self._due > end:
            time.sleep(self._due - end)


def _print(writer: _Writer, seed: int, folder: str, until: float) -> int:
    finish = os.path.join(os.path.dirname(folder), "finish")
    for count, (descriptor, content) in enumerate(records(seed)):
        if not count % _LOOK_EVERY and (os.path.exists(finish) or time.monotonic() > until):
            return count
        writer.write(descriptor, content)
    raise AssertionError("the records have no end")


def _echo(writer: _Writer) -> int:
    count = 0
    while content := os.read(0, 1 << 16):
        writer.write(1, content)
        count += len(content)
    return count


def main() -> int:
    wanted = json.loads(sys.argv[1])
    folder, mode = wanted["folder"], wanted["mode"]
    started = os.open(os.path.join(folder, "starts"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(started, b"%d\n" % os.getpid())
    writer = _Writer(wanted["rate"])
    if mode == "tty":
        import tty

        tty.setraw(1)
    if mode == "stdin":
        count = _echo(writer)
    else:
        count = _print(writer, wanted["seed"], folder, time.monotonic() + wanted["seconds"])
    with open(os.path.join(folder, "result.new"), "w", encoding="ascii") as file:
        json.dump({"count": count, "longest": writer.longest}, file)
    os.rename(os.path.join(folder, "result.new"), os.path.join(folder, "result"))
    return int(wanted["code"])


if __name__ == "__main__":
    sys.exit(main())
