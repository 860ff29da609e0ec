"""Which ended jobs are kept, and which are removed with their logs; live ones never are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How much is kept.

    Attributes:
        newest: So many of the jobs that ended last are kept whatever their age and size: nobody
            who comes back after a long absence finds an empty list.
        seconds: The others are kept for so long after their end.
        size: Bytes that the others' logs may take in all; the oldest go first.
    """

    newest: int = 50
    # A month: a paper's revision, a holiday.
    seconds: float = 30 * _DAY
    # What a home's quota of 50 GB bears.
    size: int = 20 << 30


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended: when, in seconds since the epoch, and the bytes that its logs take."""

    id: str
    ended: float
    size: int


def to_remove(jobs: Iterable[Ended], keep: Keep, *, now: float) -> tuple[str, ...]:
    """The ids of the jobs to remove, the oldest last."""
    ordered = sorted(jobs, key=lambda job: (job.ended, job.id), reverse=True)
    removed = []
    left = keep.size
    for job in ordered[keep.newest :]:
        left -= job.size
        if left < 0 or now - job.ended > keep.seconds:
            removed.append(job.id)
    return tuple(removed)
