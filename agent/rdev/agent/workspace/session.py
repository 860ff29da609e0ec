"""One client's conversation about one workspace, apart from how it travels.

    NEW --open--> OPEN --stage (last)--> STAGED --content...--> STAGED --commit--> OPEN
                   ^                        |
                   '---- stage (first) -----'   a new transaction replaces one not committed

All methods block; they are called one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rdev.agent.workspace.folder import Folder
from rdev.agent.workspace.store import Incoming, Store
from rdev.protocol.compression import FREE_SIZE, BombRefused, decoded
from rdev.protocol.digest import SIZE
from rdev.protocol.errors import InvalidRequest, SyncFailed
from rdev.protocol.exchange import (
    MAX_ENTRIES,
    MAX_FILE,
    MAX_LINKS,
    MAX_RUN,
    Committed,
    ContentRun,
    Needs,
    Opened,
    Opening,
)
from rdev.protocol.paths import outer_target_fault, path_fault, target_fault
from rdev.protocol.snapshot import Change, Entry, Kind, Problem


@dataclass(frozen=True, slots=True)
class Found:
    """Where an opening leads.

    Attributes:
        folder: The workspace's folder.
        notes: What a person should know of it.
        settle: Called once the folder is the workspace's.
    """

    folder: Folder
    notes: tuple[Problem, ...]
    settle: Callable[[], None]


class SyncSession:
    """What a client has said so far in one stream."""

    def __init__(self, store: Store, find: Callable[[Opening], Found]) -> None:
        """Starts a conversation.

        Args:
            store: Where contents go.
            find: Finds the folder that an opening is about.
        """
        self._store = store
        self._find = find
        self._found: Found | None = None
        self._opening: Opening | None = None
        self._adopting = False
        # Links and notes are a matter of the first commit; later ones have nothing new to say.
        self._is_new = True
        self._upserts: list[Entry] = []
        self._deletes: list[str] = []
        self._change: Change | None = None
        self._sizes: dict[bytes, int] = {}
        self._lacking: set[bytes] = set()
        self._incoming: Incoming | None = None
        self._skipping: bytes | None = None

    def open(self, opening: Opening) -> Opened:
        """Opens the workspace and compares.

        Raises:
            InvalidRequest: It is open already, or the id or a link may not be.
            WorkspaceRefused: The folder that it names may not be a workspace's.
            DiskFull, SyncFailed: The folder cannot be made or read.
        """
        if self._found is not None:
            raise InvalidRequest("open the workspace", "the stream has opened one already")
        _require_links(opening.links)
        found = self._find(opening)
        opened = found.folder.open(opening.directories, links=opening.links, owner=opening.owner)
        self._adopting = opened.adopting
        if not self._adopting:
            found.settle()
        self._found, self._opening = found, opening
        return replace(opened, problems=(*found.notes, *opened.problems))

    def stage(self, part: Change, *, last: bool) -> Needs | None:
        """Takes a part of a transaction; on the last, says which contents we lack.

        Raises:
            InvalidRequest: An entry breaks a rule, or there are too many.
            DiskFull: The declared sizes do not fit.
        """
        folder = self._opened()
        if self._change is not None:
            self._reset()
        if len(self._upserts) + len(part.upserts) > MAX_ENTRIES:
            raise InvalidRequest("stage the changes", f"more than {MAX_ENTRIES} entries")
        if len(self._deletes) + len(part.deletes) > MAX_ENTRIES:
            raise InvalidRequest("stage the changes", f"more than {MAX_ENTRIES} deletes")
        for entry in part.upserts:
            _require_valid(entry)
        for path in part.deletes:
            _require_path(path)
        self._upserts.extend(part.upserts)
        self._deletes.extend(part.deletes)
        if not last:
            return None
        self._change = Change(tuple(self._upserts), tuple(self._deletes))
        if self._adopting:
            return self._survey(folder, self._change)
        return self._needs(folder, self._change, frozenset())

    def _survey(self, folder: Folder, change: Change) -> Needs:
        """What a folder that is to be adopted lacks, unless a person has to be asked first."""
        survey = folder.survey(change)
        adoption = survey.adoption
        if adoption.needs_yes and not self._said().adopt:
            return Needs(frozenset(), adoption)
        there = frozenset(applied.entry.digest for applied in survey.taken)
        rest = Change(survey.rest)
        return replace(self._needs(folder, rest, there), adoption=adoption)

    def _needs(self, folder: Folder, change: Change, there: frozenset[bytes]) -> Needs:
        """What we lack for a change, apart from what lies in the folder."""
        sizes = {each.digest: each.size for each in change.upserts if each.kind is Kind.FILE}
        lacking = {
            digest: size
            for digest, size in sizes.items()
            if digest not in there and not self._store.hold(digest)
        }
        folder.require_space(change, sum(lacking.values()))
        self._sizes, self._lacking = sizes, set(lacking)
        return Needs(frozenset(lacking))

    def content(self, run: ContentRun) -> None:
        """Takes a run of a content of the staged transaction.

        Raises:
            InvalidRequest: It belongs to no staged entry, or is not what it claims.
            DiskFull: There is no space for it.
        """
        if self._change is None or len(run.data) > MAX_RUN:
            raise InvalidRequest("take in a content", "nothing is staged, or the run is too long")
        if self._incoming is not None:
            self._go_on(self._incoming, run)
        elif run.digest == self._skipping:
            self._skipping = None if run.last else run.digest
        else:
            self._begin(run)

    def commit(self, expected: bytes) -> Committed:
        """Makes the staged transaction visible.

        Raises:
            InvalidRequest: Nothing is staged, or a content is incomplete.
            SyncFailed: A content is missing, or the tree would not be the one expected.
            DiskFull: There is no space.
        """
        folder, opening = self._opened(), self._said()
        if self._change is None or self._incoming is not None or self._skipping is not None:
            raise InvalidRequest("commit the changes", "nothing is staged, or not all of it came")
        if self._lacking:
            raise SyncFailed("commit the changes", "not all contents have arrived")
        change = self._change
        self._reset()
        if self._adopting:
            agreed, owner = opening.adopt, opening.owner
            done = folder.adopt(change, expected, is_agreed=agreed, owner=owner)
            self._settle()
        else:
            done = folder.commit(change, expected)
        return self._noted(folder, done)

    def _settle(self) -> None:
        assert self._found is not None
        self._adopting = False
        self._found.settle()

    def _noted(self, folder: Folder, done: Committed) -> Committed:
        """The answer to the first commit also says what the opening would have said."""
        if not self._is_new or self._found is None:
            return done
        self._is_new = False
        links = folder.apply_links(self._said().links)
        return replace(done, problems=(*self._found.notes, *done.problems, *links))

    def close(self) -> None:
        """Leaves no trace of what was not committed, except contents that came in whole."""
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None

    def _opened(self) -> Folder:
        if self._found is None:
            raise InvalidRequest("sync the workspace", "the stream has not opened one")
        return self._found.folder

    def _said(self) -> Opening:
        assert self._opening is not None
        return self._opening

    def _begin(self, run: ContentRun) -> None:
        """Takes the first run of a content."""
        if self._sizes.get(run.digest) != run.size:
            raise InvalidRequest("take in a content", "no staged entry has that digest and size")
        if run.digest not in self._lacking:
            self._skipping = None if run.last else run.digest
        elif run.last and run.size <= FREE_SIZE:
            self._take_whole(run)
        else:
            self._incoming = self._store.receive(run.digest, run.size, run.encoding)
            self._go_on(self._incoming, run)

    def _take_whole(self, run: ContentRun) -> None:
        """Takes a small content that came in one run, as most do."""
        try:
            data = decoded(run.encoding, run.size, run.data)
        except BombRefused as error:
            raise InvalidRequest("take in a content", str(error)) from error
        if len(data) != run.size:
            raise InvalidRequest("take in a content", "it has not the size it claims")
        self._store.put(data, run.digest)
        self._lacking.discard(run.digest)

    def _go_on(self, incoming: Incoming, run: ContentRun) -> None:
        """Takes a run of a content that comes in several."""
        if incoming.digest != run.digest:
            raise InvalidRequest("take in a content", "its runs are not contiguous")
        incoming.feed(run.data)
        if run.last:
            incoming.finish()
            self._incoming = None
            self._lacking.discard(run.digest)

    def _reset(self) -> None:
        self.close()
        self._upserts, self._deletes = [], []
        self._change, self._skipping = None, None
        self._sizes, self._lacking = {}, set()


def _require_path(path: str) -> None:
    if fault := path_fault(path):
        raise InvalidRequest(f"accept the path {path!r}", fault)


def _require_links(links: Mapping[str, str]) -> None:
    """Refuses links that leave the workspace, or that lead somewhere else on each machine."""
    if len(links) > MAX_LINKS:
        raise InvalidRequest("open the workspace", f"more than {MAX_LINKS} links")
    for path, target in links.items():
        if fault := path_fault(path) or outer_target_fault(target):
            raise InvalidRequest(f"accept the link {path!r}", fault)


def _require_valid(entry: Entry) -> None:
    """Refuses an entry that no client of ours would send."""
    _require_path(entry.path)
    if entry.kind is Kind.FILE:
        sound = len(entry.digest) == SIZE and entry.size <= MAX_FILE and entry.mtime_ns >= 0
        sound = sound and not entry.target
    else:
        sound = not entry.digest and not entry.size and not entry.executable
    if not sound:
        raise InvalidRequest(f"accept the entry {entry.path!r}", "its fields do not fit its kind")
    if entry.kind is Kind.SYMLINK and (fault := target_fault(entry.path, entry.target)):
        raise InvalidRequest(f"accept the link {entry.path!r}", fault)
