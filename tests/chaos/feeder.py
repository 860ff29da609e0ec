"""Feeds a job at a bounded rate: `python feeder.py SEED SIZE RATE` writes seeded bytes to stdout."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator

# Written at a time; odd, so that nothing is aligned with anything.
_PIECE = 7919


def pieces(seed: int, size: int) -> Iterator[bytes]:
    """The bytes, piece by piece."""
    chance = random.Random(seed)
    for offset in range(0, size, _PIECE):
        yield chance.randbytes(min(_PIECE, size - offset))


def main() -> None:
    seed, size, rate = map(int, sys.argv[1:4])
    due = time.monotonic()
    for content in pieces(seed, size):
        view = memoryview(content)
        while view:
            view = view[os.write(1, view) :]
        due += len(content) / rate
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
