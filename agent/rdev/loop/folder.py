"""A folder of checkpoints: how they are called, which is the latest, and which may go.

Each is what all ranks have written after one step:

    step-120.ckpt          what rank 0 wrote after step 120
    step-120.rank1.ckpt    what is rank 1's own
    latest.ckpt            a link to the one written last; best.ckpt to the best
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

LATEST = "latest.ckpt"
BEST = "best.ckpt"

_NAME = re.compile(r"step-(\d+)\.ckpt")


@dataclass(frozen=True)
class Entry:
    """A checkpoint that the run has written.

    Attributes:
        name: Its file in the folder.
        value: The metric that it is judged by; NaN is never the best.
    """

    name: str
    value: float = math.nan


def candidates(folder: str) -> list[str]:
    """Paths of the checkpoints, the one to go on from first.

    That is where the link of the latest leads, for the step alone does not tell: a run that was
    begun anew in the same folder is at an earlier step.
    """
    try:
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    paths = [os.path.join(folder, name) for name in names]
    paths.sort(key=lambda path: os.stat(path).st_mtime_ns, reverse=True)
    with contextlib.suppress(OSError):
        latest = os.path.join(folder, os.readlink(os.path.join(folder, LATEST)))
        paths.sort(key=lambda path: path != latest)
    return paths


def point(folder: str, link: str, name: str) -> None:
    """Makes a link lead there in one step; a file system without links has none."""
    fresh = os.path.join(folder, f"{link}.{os.getpid()}")
    with contextlib.suppress(OSError):
        os.symlink(name, fresh)
        os.replace(fresh, os.path.join(folder, link))


def remove(folder: str, name: str) -> None:
    """Removes a checkpoint with all ranks' parts, the part that makes it one first."""
    stem = name.removesuffix(".ckpt")
    parts = re.compile(rf"{re.escape(stem)}\.rank\d+\.ckpt")
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, name))
        for part in os.listdir(folder):
            if parts.fullmatch(part):
                os.unlink(os.path.join(folder, part))


def best_of(entries: Iterable[Entry], count: int, *, largest: bool) -> list[Entry]:
    """So many of them, the best first; of equals the later."""
    judged = [entry for entry in reversed(list(entries)) if not math.isnan(entry.value)]
    judged.sort(key=lambda entry: -entry.value if largest else entry.value)
    return judged[:count]
