"""Environments that are made from lock files: named by what is in them, made once, then unchanged.

absent --aside, by uv--> whole, under another name --renamed--> there --unused--> removed
                 '-- failed: removed
Two that make the same one at once, on one machine or on two with one home, end with one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from rdev.agent.environment.contents import interpreter
from rdev.agent.environment.lock import PYLOCK, UV_LOCK, Lock
from rdev.agent.environment.places import is_below
from rdev.agent.environment.uv import CACHE, Tell, find_uv, run_uv
from rdev.protocol.errors import DISK_FULL_ERRNOS, EnvironmentFailed, os_failure

_log = logging.getLogger(__name__)

_LINKS = "by-workspace"
_USERS = ".users"
_ASIDE = ".new-"

# A job that was accepted just now is on no disk yet; whoever was making one may have died.
_FRESH = 3600.0
_ABANDONED = 86400.0

# A workspace in which nothing was run for so long may be gone; it costs a minute to make it again.
# What uv has downloaded grows with each version of each package, and it never looks back.
_FORGOTTEN = 60 * 86400.0


class ManagedEnvironments:
    """The environments in one folder.

    Args:
        folder: Holds them; shared by all machines of a home.
        machine: Id of this one: it says there what its jobs run in, which others cannot see.
        in_use: Gives what jobs of this machine run in, by name or by a path within. It blocks.
    """

    def __init__(self, folder: str, *, machine: str, in_use: Callable[[], Iterable[str]]) -> None:
        self.folder = folder
        self._users = os.path.join(folder, _USERS)
        self._own = os.path.join(self._users, machine)
        self._in_use = in_use
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def prefix(self, lock: Lock) -> str:
        """Where the environment of a lock file lies, once it is made."""
        return os.path.join(self.folder, lock.digest)

    async def ready(
        self, lock: Lock, login: Mapping[str, str], *, workspace: str, tell: Tell
    ) -> str:
        """The folder of an environment made from that lock file; it is made if there is none.

        Args:
            lock: The lock file.
            login: The login environment.
            workspace: Names the workspace for the link that leads to its latest environment.
            tell: Told what is done.

        Raises:
            EnvironmentFailed: uv is not to be had, or says why it cannot make it.
            DiskFull: There is no space.
        """
        prefix = self.prefix(lock)
        try:
            async with self._making[lock.digest]:
                if not await asyncio.to_thread(_touched, prefix):
                    await self._make(lock, login, prefix, tell=tell)
            await asyncio.to_thread(self._claim, workspace, lock.digest)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise os_failure("make the environment", error) from error
            cause = f"{error.filename or self.folder}: {error.strerror}"
            raise EnvironmentFailed("make the environment", cause) from error
        return prefix

    async def _make(self, lock: Lock, login: Mapping[str, str], prefix: str, *, tell: Tell) -> None:
        await asyncio.to_thread(os.makedirs, self.folder, mode=0o700, exist_ok=True)
        uv = await find_uv(self.folder, login, tell=tell)
        aside = await asyncio.to_thread(tempfile.mkdtemp, dir=self.folder, prefix=_ASIDE)
        tell(f"making the environment of {lock.file}")
        try:
            for command in commands(uv, lock, aside):
                await run_uv(command, self.folder, login, folder=lock.folder, tell=tell)
            await asyncio.to_thread(_put, aside, prefix)
        finally:
            await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
        await asyncio.to_thread(self.collect)
        if login.get("UV_LINK_MODE") != "symlink":  # else environments are made of what it holds
            await asyncio.to_thread(self.empty_cache)

    def _claim(self, workspace: str, digest: str) -> None:
        """Says that a job of this machine, and the workspace, is about to use it."""
        mine = _words(self._own)
        if digest not in mine:
            self._say([*mine, digest])
        self._link(workspace, digest)

    def _say(self, used: Iterable[str]) -> None:
        os.makedirs(self._users, mode=0o700, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=self._users, prefix=_ASIDE)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(used))
        os.replace(new, self._own)

    def _link(self, workspace: str, digest: str) -> None:
        """Leads from the workspace's name to its environment; editors are told that path once."""
        folder = os.path.join(self.folder, _LINKS)
        path = os.path.join(folder, workspace)
        target = os.path.join(os.pardir, digest)
        with contextlib.suppress(OSError):
            if os.readlink(path) == target:
                os.utime(path, follow_symlinks=False)
                return
        os.makedirs(folder, mode=0o700, exist_ok=True)
        new = tempfile.mktemp(dir=folder, prefix=_ASIDE)  # only we may write there
        os.symlink(target, new)
        os.replace(new, path)

    def collect(self) -> list[str]:
        """Removes environments that nobody uses; returns their names. It blocks.

        Spared is what a job that has not ended runs in, on whatever machine, what is the latest of
        a workspace that was used in the last two months, and what was made or asked for within the
        hour.
        """
        self._say(sorted(set(self._in_use())))
        users = [os.path.join(self._users, name) for name in os.listdir(self._users)]
        said = (path for file in users for path in _words(file))
        used = {os.path.realpath(os.path.join(self.folder, path)) for path in said}
        used |= self._latest()
        removed = []
        for entry in os.scandir(self.folder):
            if entry.name == _LINKS or not entry.is_dir(follow_symlinks=False):
                continue
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            is_aside = entry.name.startswith(_ASIDE)
            if entry.name.startswith(".") and not (is_aside and age > _ABANDONED):
                continue
            path = os.path.realpath(entry.path)
            if age > _FRESH and not any(is_below(place, path) for place in used):
                _remove(entry.path)
                removed.append(entry.name)
        if removed:
            _log.info("removed environments that nobody uses: %s", ", ".join(removed))
        return removed

    def empty_cache(self) -> bool:
        """Removes what uv has kept for two months, all at once; false if it is not time. It blocks.

        What environments have in common with it are hard links or copies, which stay.
        """
        cache = os.path.join(self.folder, CACHE)
        try:
            # uv writes it once, when it makes the cache.
            age = time.time() - os.stat(os.path.join(cache, "CACHEDIR.TAG")).st_mtime
        except OSError:
            return False
        is_busy = any(name.startswith(_ASIDE) for name in os.listdir(self.folder))
        if age <= _FORGOTTEN or is_busy:
            return False
        _remove(cache)
        _log.info("emptied uv's cache, which was made %d days ago", age / 86400)
        return True

    def _latest(self) -> set[str]:
        folder = os.path.join(self.folder, _LINKS)
        found = set()
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN:
                os.unlink(entry.path)
            else:
                found.add(os.path.realpath(entry.path))
        return found


def commands(uv: str, lock: Lock, prefix: str) -> list[list[str]]:
    """What makes an environment of a lock file; see `run_uv`.

    Args:
        uv: The program.
        lock: The lock file.
        prefix: Where it is made; it is renamed later, so that nothing in it may name the place.
    """
    chosen = ["--python", lock.python] if lock.python else []
    make = [uv, "venv", "--quiet", "--relocatable", "--allow-existing", *chosen]
    if lock.file == UV_LOCK:
        # The project itself is used from where it lies: the environment serves all its states.
        options = ["--frozen", "--no-install-workspace"]
        sync = [f"UV_PROJECT_ENVIRONMENT={prefix}", uv, "sync", *options]
        return [[*make, prefix], sync]
    install = [uv, "pip", "sync" if lock.file == PYLOCK else "install", "--python"]
    named = [lock.file] if lock.file == PYLOCK else ["-r", lock.file]
    return [[*make, "--no-project", prefix], [*install, prefix, *named]]


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split("\n")
    except FileNotFoundError:
        return []


def _touched(prefix: str) -> bool:
    """True if the environment is there; from now on it is in use."""
    if not interpreter(prefix):
        return False
    os.utime(prefix)
    return True


def _put(aside: str, prefix: str) -> None:
    try:
        os.rename(aside, prefix)
    except OSError:
        if interpreter(prefix):  # another machine with this home was faster, with the same
            return
        _remove(prefix)  # its Python is gone
        os.rename(aside, prefix)


def _remove(prefix: str) -> None:
    # First out of the way: what is half removed must not look whole.
    doomed = tempfile.mkdtemp(dir=os.path.dirname(prefix), prefix=_ASIDE)
    with contextlib.suppress(FileNotFoundError):
        os.rename(prefix, os.path.join(doomed, "gone"))
    shutil.rmtree(doomed, ignore_errors=True)
