"""Snapshots: what lies in a workspace, as immutable values that share what did not change.

diff(have, want) -> Change(upserts parents first, deletes children first)
have.changed(change) -> want
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rdev.protocol import digest as digests


class Kind(enum.Enum):
    """What lies at a path."""

    FILE = 1
    """A regular file."""
    DIRECTORY = 2
    """A directory."""
    SYMLINK = 3
    """A relative symbolic link that stays inside the workspace."""


class ProblemKind(enum.Enum):
    """Why one path was not simply synced."""

    CONFLICT = "CONFLICT"
    """It was changed on the host; the host's version is kept beside."""
    KEPT = "KEPT"
    """It was deleted here and changed there, so the host keeps it."""
    UNREADABLE = "UNREADABLE"
    """It cannot be read here."""
    TOO_LARGE = "TOO_LARGE"
    """It is over the size limit."""
    LINK_OUTSIDE = "LINK_OUTSIDE"
    """A symbolic link that leaves the workspace."""
    SPECIAL = "SPECIAL"
    """A socket, FIFO or device."""
    BAD_NAME = "BAD_NAME"
    """Its name may not travel."""
    CASE_COLLISION = "CASE_COLLISION"
    """Its name differs from another's by case or composition only."""
    CHANGING = "CHANGING"
    """It kept changing while it was read."""
    LINKED = "LINKED"
    """A link of the configuration has its name on the host."""
    LINK_KEPT_OUT = "LINK_KEPT_OUT"
    """A link of the configuration could not be made: something else lies there."""
    LINK_DANGLES = "LINK_DANGLES"
    """The target of a link of the configuration does not exist."""
    FOLDER = "FOLDER"
    """A word on the workspace's folder on the host, which is the path."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Trouble with one path that did not stop the rest.

    Attributes:
        path: The path, relative to the root.
        kind: A `ProblemKind` value, or one that a newer release knows.
        message: One line for a person.
    """

    path: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at one path of a workspace.

    Attributes:
        path: Relative to the root, NFC, with `/`.
        kind: What it is.
        digest: BLAKE3 of the content, 32 bytes; files only.
        size: Bytes; files only.
        executable: The owner may execute it; files only.
        target: Symbolic links only.
        mtime_ns: Nanoseconds since the epoch; files only, and no part of the identity.
    """

    path: str
    kind: Kind
    digest: bytes = b""
    size: int = 0
    executable: bool = False
    target: str = ""
    mtime_ns: int = 0

    @property
    def parent(self) -> str:
        """Path of the directory it lies in; empty for the root."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Last component of the path."""
        return self.path.rpartition("/")[2]

    def same_as(self, other: Entry | None) -> bool:
        """True if the two are one in a snapshot: all but size and mtime."""
        return other is not None and (
            (self.kind, self.digest, self.executable, self.target, self.path)
            == (other.kind, other.digest, other.executable, other.target, other.path)
        )

    def encoded(self) -> bytes:
        """Canonical encoding within its directory."""
        payload = digests.target_bytes(self.target) if self.kind is Kind.SYMLINK else self.digest
        return digests.entry_bytes(self.kind.value, self.executable, self.name, payload)


@dataclass(frozen=True, slots=True)
class Change:
    """What turns one snapshot into another.

    Attributes:
        upserts: Entries to create or replace, parents before children.
        deletes: Paths to delete, children before parents; they happen before the upserts.
    """

    upserts: tuple[Entry, ...] = ()
    deletes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.deletes)


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries directly in one directory, by name, and their digest."""

    entries: Mapping[str, Entry]
    digest: bytes

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> Directory:
        """A directory of these entries."""
        ordered = sorted(entries, key=str.encode)
        return cls(entries, digests.directory_digest(entries[name].encoded() for name in ordered))


class TreeFault(ValueError):
    """A change does not fit the tree: a parent is missing, or a directory is not empty."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Content state of a whole tree.

    Attributes:
        directories: Every directory by path; the root is "".
        digest: Identity of the state, 32 bytes.
    """

    directories: Mapping[str, Directory]
    digest: bytes

    @classmethod
    def of(cls, entries: Iterable[Entry] = ()) -> Snapshot:
        """The snapshot of these entries, in any order.

        Raises:
            TreeFault: An entry's parent is not among them, or a path is there twice.
        """
        contents: dict[str, dict[str, Entry]] = {"": {}}
        for entry in sorted(entries, key=lambda entry: entry.path):
            siblings = contents.get(entry.parent)
            if siblings is None or entry.name in siblings:
                raise TreeFault(f"{entry.path!r} has no parent or is there twice")
            siblings[entry.name] = entry
            if entry.kind is Kind.DIRECTORY:
                contents[entry.path] = {}
        return cls.sealed({path: Directory.of(names) for path, names in contents.items()})

    @classmethod
    def sealed(cls, directories: Mapping[str, Directory]) -> Snapshot:
        """The snapshot of these directories, by path; each has an entry in its parent."""
        ordered = sorted(directories, key=str.encode)
        pairs = ((path, directories[path].digest) for path in ordered)
        return cls(dict(directories), digests.snapshot_digest(pairs))

    def __iter__(self) -> Iterator[Entry]:
        for directory in self.directories.values():
            yield from directory.entries.values()

    def __len__(self) -> int:
        return sum(len(directory.entries) for directory in self.directories.values())

    def get(self, path: str) -> Entry | None:
        """The entry at a path, or None."""
        parent, _, name = path.rpartition("/")
        directory = self.directories.get(parent)
        return None if directory is None else directory.entries.get(name)

    def changed(self, change: Change) -> Snapshot:
        """The snapshot after a change; shares every directory the change does not touch.

        Raises:
            TreeFault: The change does not fit.
        """
        draft = _Draft(dict(self.directories))
        for path in change.deletes:
            draft.delete(path)
        for entry in change.upserts:
            draft.upsert(entry)
        return Snapshot.sealed(draft.sealed())


class _Draft:
    """A snapshot in the making: copies a directory when it is first touched."""

    __slots__ = ("_directories", "_open")

    def __init__(self, directories: dict[str, Directory]) -> None:
        self._directories = directories
        self._open: dict[str, dict[str, Entry]] = {}

    def delete(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        entry = self._children(parent, of=path).pop(name, None)
        if entry is None:
            raise TreeFault(f"{path!r} is not there")
        self._drop(entry)

    def upsert(self, entry: Entry) -> None:
        siblings = self._children(entry.parent, of=entry.path)
        old = siblings.get(entry.name)
        if old is not None and old.kind is not entry.kind:
            self._drop(old)
        siblings[entry.name] = entry
        if entry.kind is Kind.DIRECTORY and entry.path not in self._directories:
            self._open.setdefault(entry.path, {})

    def sealed(self) -> dict[str, Directory]:
        for path, entries in self._open.items():
            self._directories[path] = Directory.of(entries)
        return self._directories

    def _children(self, path: str, of: str) -> dict[str, Entry]:
        if path not in self._open:
            if path not in self._directories:
                raise TreeFault(f"{of!r} has no parent")
            self._open[path] = dict(self._directories[path].entries)
        return self._open[path]

    def _drop(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            return
        if self._children(entry.path, of=entry.path):
            raise TreeFault(f"{entry.path!r} is not empty")
        del self._open[entry.path]
        self._directories.pop(entry.path, None)


def diff(have: Snapshot, want: Snapshot) -> Change:
    """What turns `have` into `want`; looks only into directories whose digests differ."""
    upserts: list[Entry] = []
    deletes: list[str] = []
    for path, directory in have.directories.items():
        wanted = want.directories.get(path)
        if wanted is None:
            deletes.extend(entry.path for entry in directory.entries.values())
        elif wanted.digest != directory.digest:
            gone = directory.entries.keys() - wanted.entries.keys()
            deletes.extend(directory.entries[name].path for name in gone)
    for path, directory in want.directories.items():
        held = have.directories.get(path)
        if held is not None and held.digest == directory.digest:
            continue
        old = {} if held is None else held.entries
        upserts.extend(
            entry for name, entry in directory.entries.items() if not entry.same_as(old.get(name))
        )
    upserts.sort(key=lambda entry: entry.path)
    return Change(tuple(upserts), tuple(sorted(deletes, reverse=True)))
