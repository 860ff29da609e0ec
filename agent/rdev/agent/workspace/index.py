"""The index: what we applied to a workspace, with the stat each file had right afterwards.

It answers whether what lies at a path is ours to replace or delete. It is a log: a transaction
appends one line, and a log that has grown well past the tree is written anew.

    {"format": 1, "transaction": 7}                                        first line
    {"transaction": 8, "put": [[entry...], ...], "drop": [path, ...]}      one a transaction
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from rdev.agent.workspace.beneath import Root
from rdev.protocol.snapshot import Entry, Kind
from rdev.protocol.stamp import Stamp

FORMAT = 1
PATH = ".rdev/index"

# Lines beyond twice the tree's size are rewritten, so that a log never costs more than the tree.
SLACK = 1_000

# Lines in a log that cannot be appended to: more than any slack.
_UNFIT = 1 << 62


class Applied:
    """One thing we put there: the entry, and its stamp if it is a file."""

    __slots__ = ("entry", "stamp")

    def __init__(self, entry: Entry, stamp: Stamp | None) -> None:
        self.entry = entry
        self.stamp = stamp


class Index:
    """What we applied, by path, in memory and in the workspace's `.rdev/index`."""

    def __init__(self, root: Root) -> None:
        """Reads the index beneath `root`; a missing or torn one is read as far as it goes."""
        self._root = root
        self._applied: dict[str, Applied] = {}
        self._logged = 0
        self.transaction = 0
        self._known = self._look()
        self._read()

    def __iter__(self) -> Iterator[Applied]:
        return iter(self._applied.values())

    def __len__(self) -> int:
        return len(self._applied)

    def get(self, path: str) -> Applied | None:
        """What we put at a path, or None."""
        return self._applied.get(path)

    def is_current(self) -> bool:
        """False if somebody else has written the index since: the agent of another machine."""
        return self._look() == self._known

    def record(self, transaction: int, put: Iterable[Applied], drop: Iterable[str]) -> None:
        """Notes what a transaction did, in memory and on disk.

        Raises:
            OSError: It could not be written; memory has it all the same.
        """
        puts, drops = list(put), list(drop)
        self._update(transaction, puts, drops)
        try:
            self._write(transaction, puts, drops)
        finally:
            self._known = self._look()

    def _write(self, transaction: int, puts: list[Applied], drops: list[str]) -> None:
        self._logged += len(puts) + len(drops)
        if self._logged > 2 * len(self._applied) + SLACK or self._root.status(PATH) is None:
            self._rewrite()
            return
        try:
            self._append(_line(transaction, puts, drops))
        except OSError:
            # The line may be torn; nothing may follow it, so the next record writes all anew.
            self._logged = _UNFIT
            raise

    def _look(self) -> tuple[int, int, int] | None:
        """What tells one state of the file from another; None if there is no file."""
        try:
            # Opened, not just looked at: only that asks a file server how it stands now.
            with self._root.reading(PATH) as descriptor:
                found = os.fstat(descriptor)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _update(self, transaction: int, put: Iterable[Applied], drop: Iterable[str]) -> None:
        self.transaction = transaction
        for path in drop:
            self._applied.pop(path, None)
        for applied in put:
            self._applied[applied.entry.path] = applied

    def _append(self, line: bytes) -> None:
        parent, name = self._root.at(PATH)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        _write_closed(descriptor, line)

    def _rewrite(self) -> None:
        head = json.dumps({"format": FORMAT, "transaction": self.transaction}).encode() + b"\n"
        temporary = PATH + ".new"
        if self._root.status(temporary) is not None:
            self._root.remove(temporary)
        body = _line(self.transaction, list(self._applied.values()), [])
        _write_closed(self._root.create(temporary), head + body)
        self._root.move(temporary, PATH)
        self._logged = len(self._applied)

    def _read(self) -> None:
        try:
            with self._root.reading(PATH) as descriptor, os.fdopen(os.dup(descriptor)) as file:
                for line in file:
                    self._take(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            # The last line may be torn by a crash; its transaction's journal is replayed. Without
            # an index at all every file is unknown, and is adopted only if its content is right.
            self._logged = _UNFIT

    def _take(self, line: dict[str, Any]) -> None:
        puts = [_applied(row) for row in line.get("put", ())]
        drops = line.get("drop", [])
        self._update(int(line["transaction"]), puts, drops)
        self._logged += len(puts) + len(drops)


def _line(transaction: int, put: list[Applied], drop: list[str]) -> bytes:
    rows = [_row(applied) for applied in put]
    body = {"transaction": transaction, "put": rows, "drop": drop}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def _row(applied: Applied) -> list[Any]:
    entry, stamp = applied.entry, applied.stamp
    row: list[Any] = [*entry_row(entry)]
    if stamp is not None:
        row += stamp.row()
    return row


def _applied(row: list[Any]) -> Applied:
    stamp = Stamp(*row[7:12]) if len(row) > 7 else None
    return Applied(row_entry(row[:7]), stamp)


def entry_row(entry: Entry) -> list[Any]:
    """An entry as a JSON array."""
    digest = entry.digest.hex()
    kind, mark = entry.kind.value, int(entry.executable)
    return [entry.path, kind, digest, entry.size, mark, entry.target, entry.mtime_ns]


def row_entry(row: list[Any]) -> Entry:
    """The entry in a JSON array.

    Raises:
        ValueError, TypeError: It is none.
    """
    path, kind, digest, size, mark, target, mtime_ns = row
    return Entry(path, Kind(kind), bytes.fromhex(digest), size, bool(mark), target, mtime_ns)


def _write_closed(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
