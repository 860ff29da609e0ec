"""What to do on a machine that was probed, or why nothing can be done there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rdev.client.bootstrap.lock import Target, Wheel, fitting
from rdev.client.bootstrap.probe import Place, Probe, Python
from rdev.client.bootstrap.release import is_older, version_in
from rdev.protocol.errors import BootstrapFailed, NoPython

OLDEST, NEWEST = (3, 11), (3, 14)
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# What pidfd_open, openat2 and friends need; the agent has no second way for those.
_KERNEL = (5, 6)

# A release unpacked takes this much more than its files: folders, blocks, and the bytecode that
# Python writes beside what it has imported.
_SPREAD = 1.4
_SLACK = 8 << 20

# Where a Python is likely to stay: the system's own outlives environments that people make anew.
_RANKS = {"uv": 1, "pyenv": 1, "path": 2, "conda": 3, "module": 4}
_SYSTEM = ("/usr/bin/", "/usr/local/bin/")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a first contact does.

    Attributes:
        release: Name of the release and of its folder.
        home: The agent's state folder.
        dist: Folder that holds releases; empty if a private one has to be made in `spare`.
        spare: Folder outside the home; empty if the home will do.
        is_there: Whether the release lies there already, so that nothing has to be sent.
        python: What it is to run by; None if it is there.
        wheels: What it needs beside rdev's own.
        needed: Bytes it may take.
    """

    release: str
    home: str
    dist: str
    spare: str = ""
    is_there: bool = False
    python: Python | None = None
    wheels: tuple[Wheel, ...] = ()
    needed: int = 0


def make_plan(
    host: str,
    probe: Probe,
    *,
    release: str,
    wheels: Iterable[Wheel],
    own: int = 0,
    again: bool = False,
) -> Plan:
    """What to do on `host`.

    Args:
        host: Name, for the errors.
        probe: What it is like.
        release: What shall be there.
        wheels: All that may be put on a host.
        own: Bytes of rdev itself, unpacked.
        again: Put it there even if it seems to be.

    Raises:
        NoPython: None is there that an agent runs by.
        BootstrapFailed: Something else stands in the way.
    """
    action = f"put rdev on {host}"
    _require_platform(action, probe)
    home = probe.root.path
    later = _later(release, probe.releases)
    if later or (release in probe.releases and not again):
        return Plan(later or release, home, probe.dist, is_there=True)
    python = _chosen(action, host, probe)
    chosen = _chosen_wheels(action, python, wheels)
    needed = int((sum(wheel.unpacked for wheel in chosen) + own) * _SPREAD) + _SLACK
    dist, spare = _placed(action, host, probe, needed=needed)
    return Plan(release, home, dist, spare, python=python, wheels=chosen, needed=needed)


def _later(release: str, others: Iterable[str]) -> str:
    """The latest of the releases there that are of a later version; empty if none is.

    An agent that starts by an earlier release than the last one would read what it does not know.
    """
    ours = version_in(release)
    later = [other for other in others if is_older(ours, version_in(other))]
    while len(later) > 1:
        first, second, *rest = later
        later = [second if is_older(version_in(first), version_in(second)) else first, *rest]
    return later[0] if later else ""


def target_of(python: Python) -> Target:
    """What a wheel must fit to that this Python shall load."""
    machine = _MACHINES.get(python.machine, python.machine)
    return Target((python.version[0], python.version[1]), machine, _minor_glibc(python.libc))


def _require_platform(action: str, probe: Probe) -> None:
    if probe.system != "Linux":
        raise BootstrapFailed(action, f"it runs {probe.system or 'an unknown system'}", hint=_LINUX)
    if probe.machine not in _MACHINES:
        raise BootstrapFailed(action, f"its architecture is {probe.machine}", hint=_LINUX)
    if probe.libc == "musl":
        cause = "its C library is musl; the agent's parts are built for glibc"
        raise BootstrapFailed(action, cause, hint="use a Debian, Ubuntu or Red Hat image there")
    kernel = re.match(r"(\d+)\.(\d+)", probe.kernel)
    if kernel is not None and (int(kernel[1]), int(kernel[2])) < _KERNEL:
        raise BootstrapFailed(action, f"its kernel is Linux {kernel[0]}", hint=_LINUX)


_LINUX = "an agent needs Linux 5.6 or later on x86_64 or aarch64"


def _chosen(action: str, host: str, probe: Probe) -> Python:
    if probe.wished:
        return _wished(action, probe)
    usable = [python for python in probe.pythons if not flaw_of(python)]
    if usable:
        return min(usable, key=_order)
    hint = (
        f"name one with `rdev up {host} --bootstrap-python PATH`, or let uv bring one with "
        f"`--bootstrap-python uv`"
    )
    raise NoPython(action, f"it needs a Python from {_SPAN}, and {_others(probe)}", hint=hint)


def _wished(action: str, probe: Probe) -> Python:
    for python in probe.pythons:
        if python.source == "wish":
            flaw = flaw_of(python)
            if flaw:
                raise NoPython(action, f"{python.path} is {flaw}, and it needs one from {_SPAN}")
            return python
    raise NoPython(action, f"{probe.wished} does not run there as a Python does")


def _others(probe: Probe) -> str:
    flaws = [f"{python.path} is {flaw_of(python)}" for python in probe.pythons]
    return ", ".join(flaws) or "no Python at all was found"


def flaw_of(python: Python) -> str:
    """Why an agent cannot run by it; empty if it can."""
    number = ".".join(map(str, python.version))
    if python.implementation != "cpython":
        return f"{python.implementation} {number}"
    if not OLDEST <= python.version[:2] <= NEWEST:
        return f"Python {number}"
    if python.abi or python.bits != 64:
        return f"Python {number} of another build ({python.abi or f'{python.bits} bits'})"
    if not _minor_glibc(python.libc):
        return f"Python {number} without glibc"
    return ""


_SPAN = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"


def _order(python: Python) -> tuple[int, tuple[int, ...]]:
    rank = 0 if python.base.startswith(_SYSTEM) else _RANKS.get(python.source, 5)
    return rank, tuple(-number for number in python.version)


def _minor_glibc(libc: str) -> int:
    found = re.fullmatch(r"glibc 2\.(\d{1,3})(\..*)?", libc)
    return int(found[1]) if found else 0


def _chosen_wheels(action: str, python: Python, wheels: Iterable[Wheel]) -> tuple[Wheel, ...]:
    target = target_of(python)
    chosen, missing = fitting(target, wheels)
    if missing:
        raise BootstrapFailed(action, f"there is no {missing[0]} for {target.words}", hint=_LINUX)
    return tuple(chosen)


def _placed(action: str, host: str, probe: Probe, *, needed: int) -> tuple[str, str]:
    """The folder of releases, and where to make one instead if the home has no place for it."""
    root = probe.root
    elsewhere = f"put it elsewhere with `rdev up {host} --home DIR`"
    if not root.is_writable:
        raise BootstrapFailed(action, f"{root.path} cannot be made or written", hint=elsewhere)
    if root.may_execute:
        if not _has_room(root, needed):
            cause = _short(root, needed)
            raise BootstrapFailed(action, cause, hint=f"free space there, or {elsewhere}")
        return f"{root.path}/dist", ""
    if probe.dist and probe.dist != f"{root.path}/dist":
        return probe.dist, ""
    able = [place for place in probe.spares if place.may_execute and place.is_writable]
    for place in able:
        if _has_room(place, needed):
            return "", place.path
    others = "; ".join(_short(place, needed) for place in able) or "no other folder there may"
    cause = f"nothing in {root.path} may be executed (noexec), and {others}"
    raise BootstrapFailed(action, cause, hint=elsewhere)


def _has_room(place: Place, needed: int) -> bool:
    return place.free is None or place.free >= needed


def _short(place: Place, needed: int) -> str:
    free = (place.free or 0) / 1e6
    return f"{place.path} has {free:.0f} MB free and rdev takes {needed / 1e6:.0f} MB"
