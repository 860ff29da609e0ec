"""How often the kernel has killed a process for want of memory, where a job runs.

The nearest counter counts: that of the control group (version 2, else version 1), else that of the
whole machine. Where a job moved itself into another group of version 2, what that has counted may
be older than the job, and the machine's counter says how much of it can be the job's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

# Where control groups are mounted by custom; version 1 has a tree for each controller.
_UNIFIED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_MEMORY = "/sys/fs/cgroup/memory"

_EVENTS = "memory.events"
_CONTROL = "memory.oom_control"
_MACHINE = "/proc/vmstat"

_KEY = "oom_kill"


@dataclass(frozen=True, slots=True)
class Kills:
    """The counters at one moment.

    Attributes:
        group: The file that the nearest counter is in; empty if no group has one.
        in_group: What it says.
        on_machine: What the machine's says.
    """

    group: str
    in_group: int
    on_machine: int


def kills_where(pid: int) -> Kills:
    """The counters of where that process runs; of version 2 those of a zombie, too."""
    on_machine = counted(_read(_MACHINE)) or 0
    for path in counter_paths(_read(f"/proc/{pid}/cgroup")):
        count = counted(_read(path))
        if count is not None:
            return Kills(path, count, on_machine)
    return Kills("", 0, on_machine)


def kills_between(before: Kills, after: Kills, *, of_job: Kills) -> int:
    """How many there were while a job ran.

    Args:
        before: Where its keeper was when it began.
        after: Where its keeper is now.
        of_job: Where its main process was at its end, asked of the zombie.
    """
    on_machine = max(0, after.on_machine - before.on_machine)
    if of_job.group.endswith(_EVENTS) and of_job.group != after.group:
        return min(of_job.in_group, on_machine)
    # Version 1 has forgotten where a zombie was; few leave the group that they are started in.
    if before.group and before.group == after.group:
        return max(0, after.in_group - before.in_group)
    return on_machine


def counter_paths(membership: str) -> Iterator[str]:
    """The files in which the counter may be, the nearest first.

    Args:
        membership: The content of /proc/PID/cgroup, see cgroups(7).
    """
    groups = {}
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups[number, controllers] = path.removesuffix(" (deleted)")
    for (number, controllers), path in groups.items():
        if number == "0" and not controllers:
            for root in _UNIFIED:
                yield from _upwards(root, path, _EVENTS)
    for (_, controllers), path in groups.items():
        if "memory" in controllers.split(","):
            # In a container the path may be the host's, and the mount the group's own.
            for folder in (path, "/"):
                yield os.path.join(_MEMORY, folder.strip("/"), _CONTROL)


def counted(content: str) -> int | None:
    """The counter in a file of keys and numbers; None if it is not there."""
    for line in content.splitlines():
        key, _, value = line.partition(" ")
        if key == _KEY and value.strip().isdecimal():
            return int(value)
    return None


def _upwards(root: str, path: str, name: str) -> Iterator[str]:
    """A group's own counter has those of the groups below it in it."""
    folder = path.strip("/")
    while True:
        yield os.path.join(root, folder, name)
        if not folder:
            return
        folder = os.path.dirname(folder)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
