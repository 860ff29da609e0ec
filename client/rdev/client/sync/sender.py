"""The sender: brings the host's folder to the state of the laptop's, one transaction at a time.

    scan -> open -> diff -> stage -> contents -> commit -> receipt
              ^                         |           |
              '---- scan again <--------'-----------'
                    a file changed under the reader, or the host's tree under the transaction

A folder on the host that is to be adopted looks empty at first; staging all of the tree tells how
it compares. What differs is asked about, and the stream opened again with the answer.

While a stream stays open the host's tree is known, so that a further sync begins at the diff: an
edit is one group of messages with no answer awaited but the last.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rdev.client.identity import owner
from rdev.client.sync.content import ContentChanged, content_runs
from rdev.client.sync.endpoint import Endpoint
from rdev.client.sync.progress import Progress
from rdev.client.sync.receipt import Receipt, adoption_question
from rdev.client.sync.root import Workspace, client_id
from rdev.client.sync.scan import Confirm, Scan, Scanner
from rdev.client.ui.escapes import one_line
from rdev.protocol.errors import AdoptionRefused, MassDeletion, SyncFailed
from rdev.protocol.exchange import (
    MAX_RUN,
    UNASKED,
    Adoption,
    Committed,
    ContentRun,
    Opened,
    Opening,
)
from rdev.protocol.snapshot import Change, Entry, Kind, Problem, ProblemKind, Snapshot, diff

# Times that the tree may change under us, here or there, before a person is told.
ATTEMPTS = 5

# A file that changed under the reader this often is left out and named.
UNSTEADY = 2

# Bytes of a run on the wire beside its data: digest, size, tags.
RUN_OVERHEAD = 64

# Problems of paths that travel all the same, or that are not to lie on the host any more.
_NO_REASON_TO_KEEP = frozenset({ProblemKind.CASE_COLLISION.value, ProblemKind.LINKED.value})

# A mass deletion is asked about: more than half of the files and more than this many, or all.
MASS_DELETION = 100


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a transaction.

    Attributes:
        done: The host's answer; without meaning if it was not committed.
        size: Bytes of content sent.
        adoption: How the folder compared that was adopted.
        disputed: How it compares, if a person has to be asked; nothing was committed then.
    """

    done: Committed
    size: int = 0
    adoption: Adoption | None = None
    disputed: Adoption | None = None


class WorkspaceSync:
    """Syncs one workspace; use it as an async context manager, one call at a time."""

    def __init__(
        self,
        workspace: Workspace,
        connect: Callable[[], Endpoint],
        *,
        confirm: Confirm | None = None,
    ) -> None:
        """Prepares to sync; nothing is read or sent yet.

        Args:
            workspace: What to sync.
            connect: Makes an endpoint for one stream.
            confirm: Asks a person; None if there is nobody to ask.
        """
        self._workspace = workspace
        self._connect = connect
        self._confirm = confirm
        self._scanner = Scanner(workspace.root, confirm, links=workspace.links)
        self._endpoint: Endpoint | None = None
        self._opened: Opened | None = None
        self._remote: Snapshot | None = None
        self._declined = ""
        self._adopt = False
        self._notes: tuple[Problem, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the stream."""
        endpoint, self._endpoint = self._endpoint, None
        self._remote = None
        if endpoint is not None:
            await endpoint.close()

    @property
    def scanner(self) -> Scanner:
        """What looks at the laptop's folder."""
        return self._scanner

    async def sync(
        self, dirty: Collection[str] | None = None, *, hold_deletions: float = 0.0
    ) -> Receipt:
        """Scans, and sends what changed.

        Args:
            dirty: Folders in which something may have changed since the last sync; None is all.
            hold_deletions: Seconds after which a file that vanished is looked for once more.

        Raises:
            WorkspaceRefused: The tree is too large.
            WorkspaceGone: Its root cannot be read.
            AdoptionRefused: The folder on the host has files that differ, or nothing in common,
                and nobody confirmed that it is meant.
            MassDeletion: Most of it vanished, and nobody confirmed that it is meant.
            SyncFailed: It kept changing.
            DiskFull, ConnectionLost: As they say; nothing of the transaction is visible.
        """
        started = time.monotonic()
        changes: Counter[str] = Counter()
        for attempt in range(1, ATTEMPTS + 1):
            unsteady = [path for path, count in changes.items() if count >= UNSTEADY]
            scan = await asyncio.to_thread(self._scanner.scan, unsteady, dirty=dirty)
            if hold_deletions and self._lacks_files(scan):
                await asyncio.sleep(hold_deletions)
                hold_deletions = 0.0
                scan = await asyncio.to_thread(self._scanner.scan, unsteady, dirty=dirty)
            dirty = None
            try:
                return await self._bring(scan, started)
            except ContentChanged as changed:
                changes[str(changed)] += 1
            except MassDeletion:
                raise
            except SyncFailed:
                await self.close()
                if attempt == ATTEMPTS:
                    raise
            except BaseException:
                await self.close()
                raise
        cause = "files kept changing while they were read"
        raise SyncFailed(f"sync {self._workspace.root}", cause)

    def _lacks_files(self, scan: Scan) -> bool:
        """True if a file that the host has is not there at the moment."""
        remote = self._remote
        if remote is None:
            return False
        return any(_is_file(remote.get(path)) for path in diff(remote, scan.snapshot).deletes)

    async def _bring(self, scan: Scan, started: float) -> Receipt:
        """One attempt: brings the host to what was scanned."""
        remote = await self._open(scan)
        wanted = _kept(scan, remote)
        change = diff(remote, wanted)
        await self._require_meant(change, remote, wanted)
        self._declined = ""
        sent = Sent(Committed(wanted.digest, 0, 0, self._notes))
        assert self._opened is not None
        if change or self._opened.adopting:
            sent = await self._transact(scan, change, wanted)
        if sent.disputed is not None:
            await self._require_agreed(sent.disputed)
            return await self._bring(scan, started)
        self._remote, self._notes = wanted, ()
        files = sum(entry.kind is not Kind.DIRECTORY for entry in change.upserts)
        return Receipt(
            snapshot=sent.done.snapshot,
            folder=self._opened.folder,
            files=files - (sent.adoption.same if sent.adoption else 0),
            written=sent.done.written,
            deleted=sent.done.deleted,
            bytes=sent.size,
            seconds=time.monotonic() - started,
            ignored=scan.ignored,
            secrets=scan.secrets,
            problems=(*scan.problems, *sent.done.problems),
            entries=len(wanted),
            adoption=sent.adoption,
        )

    async def _open(self, scan: Scan) -> Snapshot:
        """The host's tree: known from this stream, or asked for."""
        if self._endpoint is not None and self._remote is not None:
            return self._remote
        await self.close()
        self._endpoint = self._connect()
        directories = scan.snapshot.directories
        digests = {path: directory.digest for path, directory in directories.items()}
        workspace = self._workspace
        opening = Opening(
            workspace.id,
            workspace.name,
            await asyncio.to_thread(client_id),
            digests,
            folder=workspace.folder,
            links=workspace.links,
            adopt=self._adopt,
            owner=await asyncio.to_thread(owner),
        )
        self._opened = await self._endpoint.open(opening)
        self._notes = self._opened.problems
        return _told(scan.snapshot, self._opened)

    async def _transact(self, scan: Scan, change: Change, wanted: Snapshot) -> Sent:
        """Stages, sends contents and commits, unless a person has to be asked first."""
        assert self._endpoint is not None
        assert self._opened is not None
        files = {each.digest: each for each in change.upserts if each.kind is Kind.FILE}
        size = sum(each.size for each in files.values())
        adoption = None
        if size <= UNASKED and not self._opened.adopting:
            # Read first, so that what is announced is surely what is sent.
            ready = await asyncio.to_thread(list, self._runs(scan, files.values()))
            await self._endpoint.stage(change)
            for batch in _batches(iter(ready)):
                await self._endpoint.send(batch)
        else:
            await self._endpoint.stage(change)
            needs = await self._endpoint.needs()
            adoption = needs.adoption
            if adoption is not None and adoption.needs_yes and not self._adopt:
                return Sent(Committed(b"", 0, 0), disputed=adoption)
            needed = [each for digest, each in files.items() if digest in needs.digests]
            size = sum(each.size for each in needed)
            batches, progress = _batches(self._runs(scan, needed)), Progress(size)
            while more := await asyncio.to_thread(next, batches, None):
                await self._endpoint.send(more)
                progress.add(sum(len(run.data) for run in more))
        return Sent(await self._endpoint.commit(wanted.digest), size, adoption)

    async def _require_agreed(self, adoption: Adoption) -> None:
        """Asks whether a folder that differs, or that is something else, is to be adopted."""
        assert self._opened is not None
        folder = self._opened.folder
        await self.close()
        if not await self._is_confirmed(adoption_question(folder, adoption)):
            raise AdoptionRefused(f"adopt {one_line(folder)}", one_line(adoption.words))
        self._adopt = True

    def _runs(self, scan: Scan, files: Iterable[Entry]) -> Iterator[ContentRun]:
        for file in files:
            local = scan.sources[file.path]
            try:
                yield from content_runs(self._workspace.root, local, file.digest, file.size)
            except ContentChanged as error:
                raise ContentChanged(file.path) from error

    async def _require_meant(self, change: Change, remote: Snapshot, wanted: Snapshot) -> None:
        """Asks before most of the host's files are deleted: the root may have been unmounted."""
        if len(change.deletes) <= MASS_DELETION and len(wanted):
            return
        gone = sum(1 for path in change.deletes if _is_file(remote.get(path)))
        files = sum(1 for entry in remote if _is_file(entry))
        emptied = gone == files > 0 and not len(wanted)
        if not emptied and (gone <= MASS_DELETION or gone * 2 <= files):
            return
        question = f"{gone} of {files} files are gone from {self._workspace.root}"
        question += "; delete them on the host too?"
        if question == self._declined or not await self._is_confirmed(question):
            self._declined = question
            cause = f"{gone} of {files} files are gone from it, which may be a mistake"
            raise MassDeletion(f"sync {self._workspace.root}", cause)

    async def _is_confirmed(self, question: str) -> bool:
        return self._confirm is not None and await asyncio.to_thread(self._confirm, question)


def _told(local: Snapshot, opened: Opened) -> Snapshot:
    """The host's tree, from what differs and, for the rest, our own."""
    differing = set(opened.differing)
    same = [
        entry
        for path, directory in local.directories.items()
        if path not in differing
        for entry in directory.entries.values()
    ]
    return Snapshot.of([*same, *opened.entries])


def _kept(scan: Scan, remote: Snapshot) -> Snapshot:
    """What the host should have: the scan, and at paths with trouble what it has already.

    A file that cannot be read at the moment is no reason to delete it there.
    """
    troubled = [each.path for each in scan.problems if each.kind not in _NO_REASON_TO_KEEP]
    entries = [entry for path in troubled for entry in _at_and_below(remote, path)]
    missing = (entry for entry in entries if scan.snapshot.get(entry.path) is None)
    fitting = [entry for entry in missing if _has_place(scan.snapshot, entry, entries)]
    fitting.sort(key=lambda entry: entry.path)
    return scan.snapshot.changed(Change(upserts=tuple(fitting)))


def _has_place(snapshot: Snapshot, entry: Entry, others: Iterable[Entry]) -> bool:
    folders = {each.path for each in others if each.kind is Kind.DIRECTORY}
    return entry.parent in snapshot.directories or entry.parent in folders


def _at_and_below(snapshot: Snapshot, path: str) -> Iterator[Entry]:
    here = snapshot.get(path)
    if here is None:
        return
    yield here
    for folder, directory in snapshot.directories.items():
        if folder == path or folder.startswith(f"{path}/"):
            yield from directory.entries.values()


def _is_file(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.FILE


def _batches(runs: Iterator[ContentRun]) -> Iterator[list[ContentRun]]:
    """Groups runs into messages: many small ones, or a large one."""
    batch: list[ContentRun] = []
    size = 0
    for run in runs:
        added = len(run.data) + RUN_OVERHEAD
        if batch and size + added > MAX_RUN:
            yield batch
            batch, size = [], 0
        batch.append(run)
        size += added
    if batch:
        yield batch
