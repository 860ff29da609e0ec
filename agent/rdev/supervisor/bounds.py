"""The limits, niceness and CPUs of a login, put on a job's main process before it executes.

Only on the job: a limit of the login that is meant for its programs, on the size of files or on
memory, must not end a keeper or cut a log.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping

from rdev.wire.records import Launch


def put_on(launch: Launch) -> None:
    """Gives this process what the job is to have, as far as the kernel lets it."""
    _limit(launch.limits)
    if launch.nice is not None and launch.nice > os.getpriority(os.PRIO_PROCESS, 0):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, launch.nice)
    if launch.cpus:
        with contextlib.suppress(OSError):  # they may be gone by now, or another cpuset holds
            os.sched_setaffinity(0, launch.cpus)


def _limit(limits: Mapping[str, tuple[int, int]]) -> None:
    for name, wanted in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None or resource.getrlimit(number) == wanted:
            continue
        # A hard limit above our own is root's alone to set; the agent's session may have been given
        # less than the login's.
        for soft, hard in (wanted, _within(wanted, resource.getrlimit(number)[1])):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(number, (soft, hard))
                break


def _within(wanted: tuple[int, int], most: int) -> tuple[int, int]:
    soft, hard = (_lesser(value, most) for value in wanted)
    return soft, hard


def _lesser(one: int, other: int) -> int:
    if one == resource.RLIM_INFINITY:
        return other
    return one if other == resource.RLIM_INFINITY else min(one, other)
