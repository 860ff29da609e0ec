"""Which wheels an agent needs, and which of the locked ones a host can load."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

_LOCK = os.path.join(os.path.dirname(__file__), "host.lock")

# Ends of a platform tag: the older ones are named for a year.
_GLIBC = re.compile(r"manylinux(?:_2_(\d+)|2014)_(\w+)")
_YEAR_2014 = 17


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that may be put on a host.

    Attributes:
        name: Of the distribution, such as `grpcio`.
        version: Of it.
        file: The wheel's file name.
        sha256: Of the wheel, in hexadecimal digits.
        size: Its bytes.
        unpacked: Bytes of what is in it.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    unpacked: int

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags it is made for."""
        return tuple(self.file.removesuffix(".whl").rsplit("-", 1)[-1].split("."))


@dataclass(frozen=True, slots=True)
class Target:
    """What a wheel must fit to.

    Attributes:
        python: Major and minor version of a CPython.
        machine: Architecture, such as `x86_64`.
        glibc: Its minor version: 36 for glibc 2.36.
    """

    python: tuple[int, int]
    machine: str
    glibc: int

    @property
    def words(self) -> str:
        """It, for a person."""
        major, minor = self.python
        return f"Python {major}.{minor} on {self.machine} with glibc 2.{self.glibc}"


@functools.cache
def locked() -> tuple[Wheel, ...]:
    """All wheels that this release was tested with."""
    with open(_LOCK, encoding="utf-8") as file:
        return tuple(Wheel(**entry) for entry in json.load(file)["wheels"])


def fitting(target: Target, wheels: Iterable[Wheel]) -> tuple[list[Wheel], list[str]]:
    """The best wheel of each distribution for a host, and the distributions that have none.

    A wheel of compiled code is better than one without, and one for this very Python better than
    one for several.
    """
    best: dict[str, tuple[int, Wheel]] = {}
    names = set()
    for wheel in wheels:
        names.add(wheel.name)
        rank = _rank(target, wheel)
        if rank > best.get(wheel.name, (0,))[0]:
            best[wheel.name] = (rank, wheel)
    return [best[name][1] for name in sorted(best)], sorted(names - best.keys())


def _rank(target: Target, wheel: Wheel) -> int:
    """How well a wheel fits; 0 if not at all."""
    *_, python, abi, platform = wheel.file.removesuffix(".whl").split("-")
    if not any(_loads(target, tag) for tag in platform.split(".")):
        return 0
    major, minor = target.python
    own = f"cp{major}{minor}"
    if python == own and abi == own:
        return 3
    if abi == "abi3" and python.startswith(f"cp{major}"):
        return 2 if int(python.removeprefix(f"cp{major}")) <= minor else 0
    return 1 if abi == "none" and f"py{major}" in python.split(".") else 0


def _loads(target: Target, tag: str) -> bool:
    if tag == "any":
        return True
    found = _GLIBC.fullmatch(tag)
    if found is None or found[2] != target.machine:
        return False
    return int(found[1] or _YEAR_2014) <= target.glibc
