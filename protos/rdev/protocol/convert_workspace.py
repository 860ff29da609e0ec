"""Maps the workspace protos to the values of `rdev.protocol.exchange` and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rdev.protocol.errors import InvalidRequest
from rdev.protocol.exchange import (
    MAX_ENTRIES,
    MESSAGE_WEIGHT,
    Adoption,
    Committed,
    ContentRun,
    Encoding,
    Needs,
    Opened,
    Opening,
)
from rdev.protocol.paths import path_fault
from rdev.protocol.snapshot import Change, Entry, Kind, Problem
from rdev.v1 import workspace_pb2 as pb

_ENCODINGS = {
    pb.ENCODING_IDENTITY: Encoding.IDENTITY,
    pb.ENCODING_ZSTD: Encoding.ZSTD,
}
_KINDS = {
    pb.ENTRY_KIND_FILE: Kind.FILE,
    pb.ENTRY_KIND_DIRECTORY: Kind.DIRECTORY,
    pb.ENTRY_KIND_SYMLINK: Kind.SYMLINK,
}
_PB_ENCODINGS = {ours: theirs for theirs, ours in _ENCODINGS.items()}
_PB_KINDS = {ours: theirs for theirs, ours in _KINDS.items()}


_Item = TypeVar("_Item")


def entry_to_pb(entry: Entry) -> pb.Entry:
    """An entry for the wire."""
    return pb.Entry(
        path=entry.path,
        kind=_PB_KINDS[entry.kind],
        digest=entry.digest,
        size=entry.size,
        executable=entry.executable,
        target=entry.target,
        mtime_ns=entry.mtime_ns,
    )


def entry_from_pb(message: pb.Entry) -> Entry:
    """An entry from the wire.

    Raises:
        InvalidRequest: It is of no kind this release knows.
    """
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise InvalidRequest(f"read the entry {message.path!r}", "its kind is unknown")
    return Entry(
        path=message.path,
        kind=kind,
        digest=message.digest,
        size=message.size,
        executable=message.executable,
        target=message.target,
        mtime_ns=message.mtime_ns,
    )


def opening_to_pb(opening: Opening) -> pb.SyncOpen:
    """An opening for the wire."""
    return pb.SyncOpen(
        workspace_id=opening.workspace_id,
        name=opening.name,
        client_id=opening.client_id,
        directories=[
            pb.DirectoryDigest(path=path, digest=digest)
            for path, digest in opening.directories.items()
        ],
        folder=opening.folder,
        links=opening.links,
        adopt=opening.adopt,
        owner=opening.owner,
    )


def opening_from_pb(message: pb.SyncOpen) -> Opening:
    """An opening from the wire.

    Raises:
        InvalidRequest: It names too many directories, or one that may not be.
    """
    if len(message.directories) > MAX_ENTRIES:
        raise InvalidRequest("open the workspace", f"more than {MAX_ENTRIES} directories")
    directories = {each.path: each.digest for each in message.directories}
    for path in directories:
        if path and (fault := path_fault(path)):
            raise InvalidRequest(f"open the workspace with the directory {path!r}", fault)
    return Opening(
        message.workspace_id,
        message.name,
        message.client_id,
        directories,
        folder=message.folder,
        links=dict(message.links),
        adopt=message.adopt,
        owner=message.owner,
    )


def opened_to_pb(opened: Opened) -> Iterator[pb.SyncOpened]:
    """The answer to an opening, in messages of bounded size."""
    parts = list(_parts(opened.entries))
    differing = list(_parts(opened.differing))
    count = max(len(parts), len(differing), 1)
    for number in range(count):
        entries = parts[number] if number < len(parts) else ()
        paths = differing[number] if number < len(differing) else ()
        yield pb.SyncOpened(
            folder=opened.folder if number == 0 else "",
            differing=paths,
            entries=[entry_to_pb(entry) for entry in entries],
            last=number == count - 1,
            adopting=opened.adopting,
            problems=_problems_to_pb(opened.problems) if number == 0 else (),
        )


def opened_from_pb(parts: Sequence[pb.SyncOpened]) -> Opened:
    """The answer to an opening, from its messages; there is at least one.

    Raises:
        InvalidRequest: An entry is of no kind this release knows.
    """
    return Opened(
        parts[0].folder,
        tuple(path for part in parts for path in part.differing),
        tuple(entry_from_pb(each) for part in parts for each in part.entries),
        adopting=parts[0].adopting,
        problems=_problems_from_pb(parts[0].problems),
    )


def needs_to_pb(needs: Needs) -> pb.SyncNeeds:
    """The answer to a staged change for the wire."""
    found = needs.adoption
    if found is None:
        return pb.SyncNeeds(digests=needs.digests)
    adoption = pb.Adoption(
        same=found.same,
        differing=found.differing,
        differing_count=found.differing_count,
        host_only=found.host_only,
    )
    return pb.SyncNeeds(digests=needs.digests, adoption=adoption)


def needs_from_pb(message: pb.SyncNeeds) -> Needs:
    """The answer to a staged change."""
    adoption = None
    if message.HasField("adoption"):
        found = message.adoption
        adoption = Adoption(
            found.same, tuple(found.differing), found.differing_count, found.host_only
        )
    return Needs(frozenset(message.digests), adoption)


def change_to_pb(change: Change) -> Iterator[pb.SyncStage]:
    """A staged change, in messages of bounded size, the deletes in the first ones."""
    deletes = list(_parts(change.deletes))
    upserts = list(_parts(change.upserts))
    count = max(len(deletes) + len(upserts), 1)
    for number, paths in enumerate(deletes):
        yield pb.SyncStage(deletes=paths, last=number == count - 1)
    for number, entries in enumerate(upserts, len(deletes)):
        yield pb.SyncStage(
            upserts=[entry_to_pb(entry) for entry in entries], last=number == count - 1
        )
    if not deletes and not upserts:
        yield pb.SyncStage(last=True)


def run_to_pb(run: ContentRun) -> pb.SyncContent:
    """A run of content for the wire."""
    return pb.SyncContent(
        digest=run.digest,
        size=run.size,
        encoding=_PB_ENCODINGS[run.encoding],
        data=run.data,
        last=run.last,
    )


def run_from_pb(message: pb.SyncContent) -> ContentRun:
    """A run of content from the wire.

    Raises:
        InvalidRequest: Its encoding is unknown.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise InvalidRequest("read content", "its encoding is unknown")
    return ContentRun(message.digest, message.size, encoding, message.data, message.last)


def committed_to_pb(committed: Committed) -> pb.SyncCommitted:
    """The answer to a commit for the wire."""
    return pb.SyncCommitted(
        snapshot=committed.snapshot,
        written=committed.written,
        deleted=committed.deleted,
        problems=_problems_to_pb(committed.problems),
    )


def committed_from_pb(message: pb.SyncCommitted) -> Committed:
    """The answer to a commit from the wire."""
    problems = _problems_from_pb(message.problems)
    return Committed(message.snapshot, message.written, message.deleted, problems)


def _problems_to_pb(problems: Iterable[Problem]) -> list[pb.Problem]:
    return [pb.Problem(path=each.path, kind=each.kind, message=each.message) for each in problems]


def _problems_from_pb(messages: Iterable[pb.Problem]) -> tuple[Problem, ...]:
    return tuple(Problem(each.path, each.kind, each.message) for each in messages)


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Cuts entries or paths so that each part fits a control message."""
    start, weight = 0, 0
    for number, item in enumerate(items):
        added = _weight(item)
        if weight and weight + added > MESSAGE_WEIGHT:
            yield items[start:number]
            start, weight = number, 0
        weight += added
    if start < len(items):
        yield items[start:]


def _weight(item: object) -> int:
    """At least the bytes an entry or a path takes on the wire."""
    if isinstance(item, Entry):
        return 4 * (len(item.path) + len(item.target)) + 80
    return 4 * len(str(item)) + 8
