"""What activating something does to an environment, as a value: taken once, applied often.

A variable that was made longer at its ends, as PATH is, is remembered by what was added, so that
the difference holds for an environment in which it was something else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Shells set these by themselves; they say nothing about what was activated.
_SHELLS = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two environments.

    Attributes:
        values: Variables with a new value.
        added: Variables that became longer: what came before the old value, and what after it.
        removed: Variables that went away.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def applied(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment with the difference made."""
        kept = {name: value for name, value in environment.items() if name not in self.removed}
        for name, (before, after) in self.added.items():
            old = kept.get(name, "")
            around = before.rstrip(os.pathsep), old, after.lstrip(os.pathsep)
            kept[name] = os.pathsep.join(filter(None, around)) if not old else before + old + after
        return kept | dict(self.values)

    def to_json(self) -> dict[str, Any]:
        """As the object in a file."""
        added = {name: list(ends) for name, ends in self.added.items()}
        return {"values": dict(self.values), "added": added, "removed": sorted(self.removed)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Difference:
        """The inverse of `to_json`."""
        added = {name: (ends[0], ends[1]) for name, ends in body["added"].items()}
        return cls(dict(body["values"]), added, frozenset(body["removed"]))


def between(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """The difference that makes `after` of `before`."""
    values: dict[str, str] = {}
    added: dict[str, tuple[str, str]] = {}
    for name, value in after.items():
        old = before.get(name)
        if name in _SHELLS or value == old:
            continue
        ends = _ends(old, value) if old else None
        if ends is None:
            values[name] = value
        else:
            added[name] = ends
    removed = before.keys() - after.keys() - _SHELLS
    return Difference(values, added, frozenset(removed))


def parse(dump: bytes) -> dict[str, str]:
    """What `env -0` printed, as variables; values may hold line breaks."""
    pairs = (os.fsdecode(entry).partition("=") for entry in dump.split(b"\0") if entry)
    return {name: value for name, equals, value in pairs if equals}


def _ends(old: str, new: str) -> tuple[str, str] | None:
    """What was put around the old list of folders; None if it is not there whole any more."""
    place = f"{os.pathsep}{new}{os.pathsep}".find(f"{os.pathsep}{old}{os.pathsep}")
    return (new[:place], new[place + len(old) :]) if place >= 0 else None
