"""One workspace's folder: compared with a laptop's tree, then changed one transaction at a time.

    FOREIGN --open--> (nothing is written) --survey--> --adopt--> OURS --open, commit...--> OURS

A folder that a person named and that holds something is FOREIGN until it has our marker. All
methods block and are safe from any thread: a lock of the folder makes clients take turns by
transaction. It is a thread's lock, not a task's, so that a cancelled call cannot free it while its
thread still renames files. Between the agents of several machines a lock on a file does the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from rdev.agent.workspace.adoption import Survey, survey
from rdev.agent.workspace.apply import (
    JOURNAL,
    STAGE,
    Applying,
    Seam,
    apply_change,
    no_seam,
    replay,
)
from rdev.agent.workspace.beneath import Root, best_opener
from rdev.agent.workspace.drift import Held, look
from rdev.agent.workspace.index import Applied, Index
from rdev.agent.workspace.links import apply_links
from rdev.agent.workspace.own import OWN, Marker, hide_from_git, read_marker, write_marker
from rdev.agent.workspace.store import Store, require_space
from rdev.agent.workspace.turn import turn
from rdev.protocol.errors import (
    AdoptionRefused,
    InvalidRequest,
    RdevError,
    SyncFailed,
    os_failure,
)
from rdev.protocol.exchange import MAX_ENTRIES, Committed, Opened
from rdev.protocol.snapshot import Change, Entry, Kind, Problem, Snapshot, TreeFault


class Folder:
    """The folder of one workspace on the host."""

    def __init__(
        self,
        path: str,
        store: Store,
        *,
        marker: Marker,
        is_named: bool = False,
        committed: Callable[[Snapshot], None] = lambda _: None,
        seam: Seam = no_seam,
    ) -> None:
        """Remembers where it is; `open` does the work.

        Args:
            path: The folder; it is made if need be.
            store: Where contents come from.
            marker: Says whose it is.
            is_named: A person named it, so that what it holds may be theirs.
            committed: Told the snapshot whenever laptop and host agree on one.
            seam: Called between the steps of a transaction; tests raise from it.
        """
        self.path = path
        self._store = store
        self._marker = marker
        self._is_named = is_named
        self._committed = committed
        self._seam = seam
        self._lock = threading.Lock()
        self._context: Applying | None = None
        self._held: Held | None = None
        self._late: list[Problem] = []

    def close(self) -> None:
        """Closes the descriptors; the folder may be opened again."""
        with self._lock:
            self._forget()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Has the folder for itself; what the agent of another machine did there is read anew."""
        name = hashlib.blake2b(os.fsencode(self.path), digest_size=16).hexdigest()
        with self._lock, contextlib.ExitStack() as stack:
            try:
                stack.enter_context(turn(self._store.turns, name))
                if self._context is not None and not self._context.index.is_current():
                    self._forget()
            except OSError as error:
                self._forget()
                raise os_failure("open the workspace", error, otherwise=SyncFailed) from error
            yield

    def open(
        self,
        directories: Mapping[str, bytes],
        *,
        links: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> Opened:
        """Compares the folder with a laptop's directory digests, after finishing what was begun.

        A folder that has to be adopted first is left as it is.

        Args:
            directories: Digest of each of the laptop's directories.
            links: Those that are to be there.
            owner: Who syncs; empty if that is not known.

        Raises:
            DiskFull, SyncFailed: The folder cannot be read, or what was begun not finished.
        """
        with self._turn():
            try:
                self._store.prepare()
                if self._is_foreign():
                    return Opened(self.path, tuple(directories), (), adopting=True)
                context = self._opened()
                self._mark(context, owner)
                problems = apply_links(context.root, links or {})
                return replace(self._compare(context, directories), problems=tuple(problems))
            except OSError as error:
                self._forget()
                raise os_failure("open the workspace", error, otherwise=SyncFailed) from error

    def apply_links(self, links: Mapping[str, str]) -> list[Problem]:
        """Makes and removes links after a commit, which may have made room for them.

        Raises:
            DiskFull, SyncFailed: Our record of them could not be written.
        """
        with self._turn():
            try:
                return [] if self._context is None else apply_links(self._context.root, links)
            except OSError as error:
                raise os_failure("make the links", error, otherwise=SyncFailed) from error

    def survey(self, change: Change) -> Survey:
        """Compares a folder that is to be adopted with what a laptop would put there.

        Raises:
            SyncFailed: It cannot be read.
        """
        with self._turn():
            return self._surveyed(change)

    def adopt(
        self, change: Change, expected: bytes, *, is_agreed: bool, owner: str = ""
    ) -> Committed:
        """Makes a foreign folder ours: takes what is the same, and applies the rest.

        Args:
            change: The laptop's whole tree.
            expected: Its digest.
            is_agreed: A person has seen how it compares, and agreed.
            owner: Who syncs.

        Raises:
            AdoptionRefused: Something differs, or everything, and nobody agreed.
            SyncFailed: It became ours meanwhile, or could not be written.
            DiskFull: There is no space for it.
        """
        with self._turn():
            after = _after(Snapshot.of(), change, expected)
            if not self._is_foreign():
                raise _stale()
            found = self._surveyed(change)
            if found.adoption.needs_yes and not is_agreed:
                raise AdoptionRefused(f"adopt {self.path}", found.adoption.words)
            try:
                problems = self._take(found, owner)
            except OSError as error:
                self._forget()
                raise os_failure("adopt the folder", error, otherwise=SyncFailed) from error
            except BaseException:
                self._forget()
                raise
            self._held = Held(after, {}, ())
            self._committed(after)
            return Committed(after.digest, len(found.rest), 0, tuple(problems))

    def _take(self, found: Survey, owner: str) -> list[Problem]:
        """Takes over what is there, puts the rest beside it, and marks the folder last."""
        context = self._opened()
        for applied in found.taken:
            self._keep_content(context.root, applied.entry)
        known = [applied.entry.path for applied in context.index]
        context.index.record(context.index.transaction, found.taken, known)
        problems = self._late
        rest = Change(found.rest)
        problems += apply_change(context, rest) if rest else []
        self._late = []
        self._mark(context, owner)
        return problems

    def _surveyed(self, change: Change) -> Survey:
        try:
            with Root(self.path, best_opener()) as root:
                return survey(root, change.upserts)
        except OSError as error:
            raise os_failure("look at the folder", error, otherwise=SyncFailed) from error

    def _is_foreign(self) -> bool:
        """True if the folder holds something and is not marked as ours."""
        if not self._is_named:
            return False
        marker = read_marker(self.path)
        if marker is not None and marker.id == self._marker.id:
            return False
        try:
            with Root(self.path) as root:
                is_begun = root.status(JOURNAL) is not None
                names = root.names("")
        except FileNotFoundError:
            return False
        if is_begun:
            self._opened()  # An adoption that was agreed on, and interrupted, is finished.
        return bool(names)

    def _mark(self, context: Applying, owner: str) -> None:
        """Notes whose folder it is, and who syncs."""
        found = read_marker(self.path)
        known = found if found is not None and found.id == self._marker.id else self._marker
        wanted = replace(known, owner=owner or known.owner)
        if found != wanted:
            write_marker(context.root, wanted)

    def require_space(self, change: Change, incoming: int) -> None:
        """Checks that a change fits into the folder, and its new contents into the store.

        Args:
            change: What is to be applied.
            incoming: Bytes of the contents that the store lacks.

        Raises:
            DiskFull: They do not.
            LimitExceeded: The site does not allow them.
            SyncFailed: The folder, or the store, was removed; another opening makes it again.
        """
        files = {each.path: each.size for each in change.upserts if each.kind is Kind.FILE}
        demands = [(self._store.folder, incoming), (self.path, sum(files.values()))]
        try:
            require_space("take in the changes", demands)
            spared = {each.digest for each in change.upserts if each.kind is Kind.FILE}
            self._store.make_room("take in the changes", incoming, spared=spared)
        except OSError as error:
            raise os_failure("take in the changes", error, otherwise=SyncFailed) from error

    def commit(self, change: Change, expected: bytes) -> Committed:
        """Applies a change if it leads to the tree the laptop expects.

        Raises:
            SyncFailed: It does not, because another client or the host changed the tree since it
                was compared; or the files could not be written. Nothing is visible of it.
            DiskFull: There is no space for it.
        """
        with self._turn():
            context, held = self._context, self._held
            if context is None or held is None or not self._is_same(context):
                raise _stale()
            after = _after(held.snapshot, change, expected)
            try:
                self._let_go(context, change)
                problems = self._late + apply_change(context, change)
                self._adopt(context, held.drifted, change)
            except BaseException:
                # What was placed is known only after a replay, which the next opening makes.
                self._forget()
                raise
            self._late = []
            self._held = Held(after, {}, ())
            self._committed(after)
            counts = len(change.upserts), len(change.deletes)
            return Committed(after.digest, *counts, tuple(problems))

    def _let_go(self, context: Applying, change: Change) -> None:
        """Contents that are needed no longer are kept for a while from now on: see `Store.hold`."""
        for path in (*(entry.path for entry in change.upserts), *change.deletes):
            applied = context.index.get(path)
            if applied is not None and applied.entry.kind is Kind.FILE:
                self._store.hold(applied.entry.digest)

    def _opened(self) -> Applying:
        if self._context is not None and not self._is_same(self._context):
            self._forget()
        if self._context is None:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            root = Root(self.path, best_opener())
            try:
                root.make_directories(STAGE)
                hide_from_git(root)
                self._context = Applying(root, Index(root), self._store, self._seam)
            except BaseException:
                root.close()
                raise
        self._late += replay(self._context)
        return self._context

    def _is_same(self, context: Applying) -> bool:
        """False if the folder was deleted or replaced under its open descriptor."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        kept = os.fstat(context.root.descriptor)
        has_own = context.root.status(OWN) is not None
        return has_own and (status.st_dev, status.st_ino) == (kept.st_dev, kept.st_ino)

    def _compare(self, context: Applying, directories: Mapping[str, bytes]) -> Opened:
        index = context.index
        held = look(context.root, index)
        with contextlib.suppress(OSError):  # They only spare us reading the files once more.
            index.record(index.transaction, held.restamped, ())
        self._held = held
        ours = held.snapshot.directories
        differing = [path for path, each in ours.items() if directories.get(path) != each.digest]
        differing += [path for path in directories if path not in ours]
        if not differing:
            self._adopt(context, held.drifted, Change())
            self._held = Held(held.snapshot, {}, ())
            self._committed(held.snapshot)
        entries = [
            entry for path in differing if path in ours for entry in ours[path].entries.values()
        ]
        return Opened(self.path, tuple(differing), tuple(entries))

    def _adopt(self, context: Applying, drifted: Mapping[str, Entry | None], to: Change) -> None:
        """Takes as applied what the host changed and the laptop turns out to have as well."""
        touched = {entry.path for entry in to.upserts} | set(to.deletes)
        left = {path: entry for path, entry in drifted.items() if path not in touched}
        if not left:
            return
        put = [Applied(entry, None) for entry in left.values() if entry is not None]
        for applied in put:
            self._keep_content(context.root, applied.entry)
        drop = [path for path, entry in left.items() if entry is None]
        context.index.record(context.index.transaction, put, drop)

    def _keep_content(self, root: Root, entry: Entry) -> None:
        """A job that pins the snapshot must find the content in the store."""
        if entry.kind is not Kind.FILE or self._store.has(entry.digest):
            return
        with contextlib.suppress(OSError, RdevError), root.reading(entry.path) as descriptor:
            self._store.put(_all_of(descriptor), entry.digest)

    def _forget(self) -> None:
        if self._context is not None:
            self._context.root.close()
        self._context, self._held = None, None


def _after(held: Snapshot, change: Change, expected: bytes) -> Snapshot:
    try:
        after = held.changed(change)
    except TreeFault as error:
        raise _stale() from error
    if after.digest != expected:
        raise _stale()
    if len(after) > MAX_ENTRIES:
        raise InvalidRequest("commit the changes", f"the tree has over {MAX_ENTRIES} entries")
    return after


def _stale() -> SyncFailed:
    return SyncFailed("commit the changes", "the workspace on the host changed meanwhile")


def _all_of(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()
