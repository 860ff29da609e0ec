"""Comparing a folder that is not ours yet with what a laptop would put there.

    wanted --look--> what lies there --compare--> same | missing | differing, and what is only there

What is the same is taken as it is. What is only there stays the host's own, like the output of a
job. What differs waits for a person.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.drift import UNKNOWN, find
from rdev.agent.workspace.index import Applied
from rdev.protocol.exchange import NAMED_DIFFERING, Adoption
from rdev.protocol.paths import RESERVED
from rdev.protocol.snapshot import Entry, Kind


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a folder stands to what is wanted.

    Attributes:
        same: Wanted entries that lie there already.
        rest: Wanted entries that do not, parents before children.
        differing: Paths of those among them where something else lies.
        host_only: Names in the wanted directories that nobody wants.
    """

    same: tuple[Entry, ...]
    rest: tuple[Entry, ...]
    differing: tuple[str, ...]
    host_only: int

    @property
    def adoption(self) -> Adoption:
        """The comparison as the laptop hears it."""
        same = sum(entry.kind is not Kind.DIRECTORY for entry in self.same)
        differing = self.differing[:NAMED_DIFFERING]
        return Adoption(same, differing, len(self.differing), self.host_only)


@dataclass(frozen=True, slots=True)
class Survey:
    """A folder as it was looked at.

    Attributes:
        taken: What is the same, with the stats that prove it.
        rest: What is to be created or replaced.
        adoption: The comparison as the laptop hears it.
    """

    taken: tuple[Applied, ...]
    rest: tuple[Entry, ...]
    adoption: Adoption


def compare(
    wanted: Sequence[Entry], found: Mapping[str, Entry], names: Mapping[str, Iterable[str]]
) -> Comparison:
    """Tells what is the same, what is missing and what differs.

    A file of the same content whose executable bit differs is replaced without a question: nothing
    of it is lost.

    Args:
        wanted: The laptop's tree, parents before children.
        found: What lies at those paths.
        names: What lies in the wanted directories that exist; the root is "".
    """
    same, rest, differing = [], [], []
    for entry in wanted:
        here = found.get(entry.path)
        if here is not None and here.same_as(entry):
            same.append(entry)
            continue
        rest.append(entry)
        if here is not None and _content(here) != _content(entry):
            differing.append(entry.path)
    paths = {entry.path for entry in wanted} | {RESERVED}
    lying = (f"{folder}/{name}" if folder else name for folder in names for name in names[folder])
    host_only = sum(path not in paths for path in lying)
    return Comparison(tuple(same), tuple(rest), tuple(differing), host_only)


def survey(root: Root, wanted: Sequence[Entry]) -> Survey:
    """Looks at a folder; writes nothing.

    Files are read only where the size is the wanted one.

    Args:
        root: The folder.
        wanted: The laptop's tree, parents before children.
    """
    found: dict[str, Applied] = {}
    for entry in wanted:
        here = _look(root, entry)
        if here is not None:
            found[entry.path] = here
    entries = {path: applied.entry for path, applied in found.items()}
    folders = [path for path, entry in entries.items() if entry.kind is Kind.DIRECTORY]
    names = {folder: root.names(folder) for folder in ["", *folders]}
    comparison = compare(wanted, entries, names)
    taken = tuple(found[entry.path] for entry in comparison.same)
    return Survey(taken, comparison.rest, comparison.adoption)


def _content(entry: Entry) -> tuple[Kind, bytes, str]:
    return entry.kind, entry.digest, entry.target


def _look(root: Root, wanted: Entry) -> Applied | None:
    """What lies at a path, with a stamp if it was read."""
    status = root.status(wanted.path)
    if status is None:
        return None
    is_file = stat.S_ISREG(status.st_mode)
    if is_file and (wanted.kind is not Kind.FILE or status.st_size != wanted.size):
        # No need to read it: whatever it holds, it differs.
        return Applied(Entry(wanted.path, Kind.FILE, digest=UNKNOWN, size=status.st_size), None)
    entry, stamp = find(root, Applied(wanted, None))
    return None if entry is None else Applied(entry, stamp)
