"""File access that cannot leave a root: no `..`, no link in any directory of the path.

A path of the wire is split into its directory and its last name. The directory is opened beneath
the root without following a link; the name is then used only with `*at` calls that do not follow
one either. Between the two no other process of another user can swap a directory for a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from typing import Protocol, Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# From <linux/openat2.h>; the number is the same on every architecture since Linux 5.6.
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08


# Directories of a root kept open: the stage, where its files go, that folder's bytecode.
KEPT_OPEN = 8


# What is copied from one file system to another has this name until it is whole.
_CARRIED = ".rdev-carried"


class DirectoryOpener(Protocol):
    """Opens directories beneath a root.

    Safe to call from any thread. The caller closes the descriptor. A directory that is missing is
    FileNotFoundError; a link, a file or anything else in the way, or a path that tries to leave,
    is another OSError. Nothing is created.
    """

    def open_directory(self, root: int, path: str) -> int:
        """Opens the directory at `path`, relative to the open directory `root`; "" is the root."""
        ...


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class KernelOpener:
    """Lets the kernel do the walk with openat2(2): one call, and no window in it."""

    def __init__(self) -> None:
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
        self._how = _OpenHow(_DIRECTORY, 0, resolve)

    def open_directory(self, root: int, path: str) -> int:
        """See `DirectoryOpener`."""
        encoded = ctypes.c_char_p(os.fsencode(path or "."))
        how = ctypes.byref(self._how)
        size = ctypes.c_size_t(ctypes.sizeof(_OpenHow))
        number = ctypes.c_long(_SYS_OPENAT2)
        descriptor = self._syscall(number, ctypes.c_int(root), encoded, how, size)
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return int(descriptor)


class ComponentOpener:
    """Walks the components one by one with O_NOFOLLOW, where the kernel has no openat2."""

    def open_directory(self, root: int, path: str) -> int:
        """See `DirectoryOpener`."""
        if path.startswith("/") or ".." in path.split("/"):
            raise PermissionError(f"{path!r} would leave the root")
        current = os.open(".", _DIRECTORY, dir_fd=root)
        for name in filter(None, path.split("/")):
            try:
                following = os.open(name, _DIRECTORY, dir_fd=current)
            finally:
                os.close(current)
            current = following
        return current


def best_opener() -> DirectoryOpener:
    """The kernel's walk where there is one (some sandboxes forbid it), else ours."""
    try:
        opener = KernelOpener()
        probe = os.open("/", _DIRECTORY)
        try:
            os.close(opener.open_directory(probe, ""))
        finally:
            os.close(probe)
    except (OSError, AttributeError):
        return ComponentOpener()
    return opener


def is_below(path: str, folder: str) -> bool:
    """True if the path is the folder or lies in it, at any depth; "" is the root."""
    return not folder or path == folder or path.startswith(f"{folder}/")


class Root:
    """A folder and the operations on what lies beneath it; one user per instance and time.

    Paths have passed `rdev.protocol.paths.path_fault` or are our own. The directories of the last
    paths are kept open, because a transaction goes back and forth between a few of them.
    """

    def __init__(self, folder: str, opener: DirectoryOpener | None = None) -> None:
        """Opens `folder`.

        Raises:
            OSError: It is no directory, or is itself a link.
        """
        self.folder = folder
        self._opener = opener or best_opener()
        self._root = os.open(folder, _DIRECTORY)
        self._parents: dict[str, int] = {}

    def close(self) -> None:
        """Closes all descriptors."""
        self.forget()
        os.close(self._root)

    def forget(self, path: str = "") -> None:
        """Closes the directories kept open at and below a path that was moved, removed or made."""
        stale = [each for each in self._parents if is_below(each, path)]
        for each in stale:
            os.close(self._parents.pop(each))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """The open folder itself."""
        return self._root

    def at(self, path: str) -> tuple[int, str]:
        """The open directory that holds `path`, and the name in it.

        Raises:
            OSError: The directory is missing or is reached through a link.
        """
        parent, _, name = path.rpartition("/")
        descriptor = self._parents.get(parent)
        if descriptor is None:
            descriptor = self._opener.open_directory(self._root, parent)
            if len(self._parents) >= KEPT_OPEN:
                os.close(self._parents.pop(next(iter(self._parents))))
        else:
            del self._parents[parent]
        self._parents[parent] = descriptor  # The latest used is the last.
        return descriptor, name

    def status(self, path: str) -> os.stat_result | None:
        """lstat; None if nothing is there or a directory of the path is none."""
        try:
            parent, name = self.at(path)
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return None

    def link_target(self, path: str) -> str:
        """Target of the symbolic link at `path`."""
        parent, name = self.at(path)
        return os.readlink(name, dir_fd=parent)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[int]:
        """A descriptor to read the regular file at `path`.

        Raises:
            OSError: It is missing, or not a regular file.
        """
        parent, name = self.at(path)
        # O_NONBLOCK so that a FIFO that took the file's place cannot hold us.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{path!r} is not a regular file")
            yield descriptor
        finally:
            os.close(descriptor)

    def create(self, path: str, mode: int = 0o600) -> int:
        """A descriptor to write a new file; FileExistsError if anything is there."""
        parent, name = self.at(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, mode, dir_fd=parent)

    def make_link(self, target: str, path: str) -> None:
        """A new symbolic link."""
        parent, name = self.at(path)
        os.symlink(target, name, dir_fd=parent)

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        """A new directory; FileExistsError if anything is there."""
        parent, name = self.at(path)
        os.mkdir(name, mode, dir_fd=parent)

    def make_directories(self, path: str, mode: int = 0o700) -> None:
        """The directory and its parents, where they are missing."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            with contextlib.suppress(FileExistsError):
                self.make_directory("/".join(parts[:count]), mode)

    def remove(self, path: str) -> None:
        """Removes a file or link."""
        parent, name = self.at(path)
        os.unlink(name, dir_fd=parent)

    def remove_directory(self, path: str) -> None:
        """Removes an empty directory."""
        parent, name = self.at(path)
        os.rmdir(name, dir_fd=parent)
        self.forget()

    def move(self, source: str, destination: str) -> None:
        """Renames, replacing a file at the destination.

        From or to a file system that is mounted beneath the root, a file or link is copied beside
        the destination first, so that there is never half a file under its name.
        """
        from_parent = os.dup(self.at(source)[0])
        try:
            to_parent, name = self.at(destination)
            source_name = source.rpartition("/")[2]
            try:
                os.rename(source_name, name, src_dir_fd=from_parent, dst_dir_fd=to_parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy_beside(from_parent, source_name, to_parent)
                os.rename(_CARRIED, name, src_dir_fd=to_parent, dst_dir_fd=to_parent)
                os.unlink(source_name, dir_fd=from_parent)
        finally:
            os.close(from_parent)

    def may_change(self, path: str) -> bool:
        """False if a directory lies at `path` in which we may make and remove nothing."""
        try:
            parent, name = self.at(path)
            status = os.stat(name or ".", dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            return False
        except OSError:  # it is not there, or not reached; who puts it there may change it
            return True
        wanted = os.R_OK | os.W_OK | os.X_OK
        is_folder = stat.S_ISDIR(status.st_mode)
        return not is_folder or os.access(name or ".", wanted, dir_fd=parent, effective_ids=True)

    def names(self, path: str) -> list[str]:
        """Names in the directory at `path`; empty if there is none."""
        try:
            descriptor = self._opener.open_directory(self._root, path)
        except OSError:
            return []
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def remove_tree(self, path: str) -> None:
        """Removes one of our own folders with all that is in it, following no link."""
        for name in self.names(path):
            inner = f"{path}/{name}"
            status = self.status(inner)
            if status is not None and stat.S_ISDIR(status.st_mode):
                self.remove_tree(inner)
            elif status is not None:
                self.remove(inner)
        with contextlib.suppress(FileNotFoundError):
            self.remove_directory(path)


def _copy_beside(from_parent: int, name: str, to_parent: int) -> None:
    """Copies a file or link, with mode and time, to where it only needs its name.

    Raises:
        OSError: It is something else, or cannot be copied.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_CARRIED, dir_fd=to_parent)
    status = os.stat(name, dir_fd=from_parent, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=from_parent), _CARRIED, dir_fd=to_parent)
        return
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        open(os.open(name, flags, dir_fd=from_parent), "rb") as source,
        open(os.open(_CARRIED, made, 0o600, dir_fd=to_parent), "wb") as copy,
    ):
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
        os.utime(copy.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
