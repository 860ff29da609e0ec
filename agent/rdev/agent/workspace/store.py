"""The content store: every content once, named by its digest, whichever workspace it came from.

    <home>/store/objects/ab/cdef...     0400, immutable
    <home>/store/incoming/              contents on their way; leftovers of a crash go after a day

A content becomes visible by one rename, after its digest was checked. It goes into a workspace as
a copy (reflink where the file system can), never as a hard link: a program that writes in place
would corrupt the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection

from blake3 import blake3

from rdev.agent.workspace.room import Room
from rdev.protocol.compression import BombRefused, Decoder
from rdev.protocol.digest import SIZE
from rdev.protocol.errors import (
    DISK_FULL_ERRNOS,
    DiskFull,
    InvalidRequest,
    SyncFailed,
    os_failure,
)
from rdev.protocol.exchange import MAX_FILE, Encoding

# From <linux/fs.h>: share the blocks of another file.
_FICLONE = 0x40049409

# What the file system must keep free beyond the declared sizes: room for directories, the journal
# and the index.
RESERVE = 4 << 20

# A content that nothing refers to is kept this long, in seconds: branches are switched back and
# forth, and a job may be about to pin the snapshot it came with.
GRACE = 24 * 3600.0


def require_space(action: str, demands: Collection[tuple[str, int]]) -> None:
    """Checks declared sizes against free space before the first byte is written.

    Args:
        action: For the error.
        demands: (folder, bytes) pairs; folders on one file system add up.

    Raises:
        DiskFull: One of the file systems has too little.
    """
    totals: dict[int, tuple[str, int]] = {}
    for folder, size in demands:
        device = os.stat(folder).st_dev
        totals[device] = (folder, totals.get(device, ("", 0))[1] + size)
    for folder, size in totals.values():
        free = os.statvfs(folder)
        available = free.f_bavail * free.f_frsize
        if size and size + RESERVE > available:
            cause = f"{size >> 20} MiB are needed and {available >> 20} MiB are free in {folder}"
            raise DiskFull(action, cause)


class Store:
    """The contents of one home; safe to use from any thread."""

    def __init__(
        self,
        folder: str,
        *,
        most: int | None = None,
        pinned: Callable[[], Collection[bytes]] = tuple,
    ) -> None:
        """Opens the store at `folder`, which is made if need be.

        Args:
            folder: Holds it.
            most: Bytes that its contents may take; None is no limit.
            pinned: Gives the digests of those that jobs keep.

        Raises:
            OSError: It cannot be made.
        """
        self.folder = folder
        self._objects = os.path.join(folder, "objects")
        self._incoming = os.path.join(folder, "incoming")
        self._room = None if most is None else Room(self._objects, most=most, pinned=pinned)
        self.prepare()
        # The home may be shared with another machine's agent, whose contents are on their way too,
        # and which tidies as we do.
        for name in os.listdir(self._incoming):
            path = os.path.join(self._incoming, name)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime < time.time() - GRACE:
                    os.unlink(path)

    @property
    def turns(self) -> str:
        """Holds the locks of the workspaces, see `rdev.agent.workspace.turn`."""
        return os.path.join(self.folder, "turns")

    def prepare(self) -> None:
        """Makes the store's folders where they are missing; somebody may have removed them.

        Raises:
            OSError: They cannot be made.
        """
        for path in (self.folder, self._objects, self._incoming):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def path(self, digest: bytes) -> str:
        """Where the content of that digest lies, or would."""
        name = digest.hex()
        return f"{self._objects}/{name[:2]}/{name[2:]}"

    def has(self, digest: bytes) -> bool:
        """True if the content is there."""
        return os.path.exists(self.path(digest))

    def hold(self, digest: bytes) -> bool:
        """True if the content is there; then it stays for `GRACE` at least.

        Whoever is told that it need not be sent counts on it, and the agent of another machine may
        be tidying: it knows nothing of what is under way here.
        """
        path = self.path(digest)
        try:
            # A quarter of the time is long enough for any transaction, and spares most writes.
            if os.stat(path).st_mtime < time.time() - GRACE / 4:
                os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def make_room(self, action: str, incoming: int, *, spared: Collection[bytes]) -> None:
        """Sees to it that so many bytes more are allowed, see `Room.make`.

        Raises:
            LimitExceeded: They are not.
        """
        if self._room is not None:
            self._room.make(action, incoming, spared=spared)

    def receive(self, digest: bytes, size: int, encoding: Encoding) -> Incoming:
        """Begins to take in a content; the caller finishes or aborts it."""
        return Incoming(self, self._temporary(), digest, size, encoding)

    def put(self, data: bytes, digest: bytes) -> None:
        """Takes in a content that is in memory.

        Raises:
            InvalidRequest: It does not have that digest.
            DiskFull, SyncFailed: It could not be written.
        """
        if blake3(data).digest() != digest:
            raise _untrue()
        temporary = self._temporary()
        try:
            descriptor = _create(temporary)
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
            self.admit(temporary, digest)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise os_failure("take in a content", error, otherwise=SyncFailed) from error

    def _temporary(self) -> str:
        return f"{self._incoming}/{secrets.token_hex(16)}"

    def admit(self, temporary: str, digest: bytes) -> None:
        """Makes a checked temporary file the content of that digest."""
        final = self.path(digest)
        try:
            os.rename(temporary, final)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            os.rename(temporary, final)

    def copy_to(self, digest: bytes, size: int, descriptor: int) -> None:
        """Copies a content into a file that is open for writing.

        Raises:
            SyncFailed: The content is gone or damaged; asking for it again mends that.
            OSError: It could not be written.
        """
        path = self.path(digest)
        try:
            source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SyncFailed("stage a file", "its content is no longer in the store") from None
        try:
            if os.fstat(source).st_size != size:
                # A power cut can leave an empty file under a final name.
                os.unlink(path)
                raise SyncFailed("stage a file", "its content in the store was damaged")
            _copy(source, descriptor, size)
        finally:
            os.close(source)

    def collect(self, keep: Callable[[bytes], bool], now: float | None = None) -> int:
        """Removes contents that nobody keeps and that are older than `GRACE`; returns how many."""
        horizon = (time.time() if now is None else now) - GRACE
        removed = 0
        for shard in os.listdir(self._objects):
            for name in os.listdir(os.path.join(self._objects, shard)):
                path = os.path.join(self._objects, shard, name)
                # The agent of another machine may be removing it too.
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(path).st_mtime >= horizon or keep(bytes.fromhex(shard + name)):
                        continue
                    os.unlink(path)
                    removed += 1
        return removed


class Incoming:
    """One content on its way into the store.

    `feed` in order, then `finish`; or `abort`. Not thread-safe.
    """

    def __init__(
        self, store: Store, temporary: str, digest: bytes, size: int, encoding: Encoding
    ) -> None:
        if len(digest) != SIZE or size > MAX_FILE:
            raise InvalidRequest("take in a content", "its digest or its size is out of bounds")
        self.digest = digest
        self.size = size
        self._store = store
        self._temporary = temporary
        self._hasher = blake3()
        try:
            self._descriptor = _create(temporary)
        except OSError as error:
            raise os_failure("take in a content", error, otherwise=SyncFailed) from error
        self._decoder = Decoder(encoding, size, self._write)

    def feed(self, data: bytes) -> None:
        """Takes the next run.

        Raises:
            InvalidRequest: The run is a bomb or too long. The content is aborted.
            DiskFull: There is no space for it. The content is aborted.
        """
        try:
            self._decoder.feed(data)
        except BombRefused as error:
            self.abort()
            raise InvalidRequest("take in a content", str(error)) from error
        except OSError as error:
            self.abort()
            raise os_failure("take in a content", error, otherwise=SyncFailed) from error

    def finish(self) -> None:
        """Checks the digest and makes the content visible.

        Raises:
            InvalidRequest: Size or digest are not what was declared. The content is aborted.
        """
        if self._decoder.given != self.size or self._hasher.digest() != self.digest:
            self.abort()
            raise _untrue()
        os.close(self._descriptor)
        self._descriptor = -1
        try:
            self._store.admit(self._temporary, self.digest)
        except OSError as error:
            self.abort()
            raise os_failure("take in a content", error, otherwise=SyncFailed) from error

    def abort(self) -> None:
        """Leaves no trace of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        _write_all(self._descriptor, data)


def _untrue() -> InvalidRequest:
    return InvalidRequest("take in a content", "it is not what its digest says")


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy(source: int, destination: int, size: int) -> None:
    """Copies by the cheapest means the file systems have."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
        return
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
    copied = 0
    try:
        while copied < size:
            count = os.copy_file_range(source, destination, size - copied)
            if count == 0:
                break
            copied += count
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
    if copied == size:
        return
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(destination, 0, os.SEEK_SET)
    with os.fdopen(os.dup(source), "rb") as reader, os.fdopen(os.dup(destination), "wb") as writer:
        shutil.copyfileobj(reader, writer)


def file_mode(executable: bool) -> int:  # noqa: FBT001 - the one bit a snapshot knows of a mode
    """Mode of a synced file: ours alone, and never setuid."""
    return stat.S_IRUSR | stat.S_IWUSR | (stat.S_IXUSR if executable else 0)
