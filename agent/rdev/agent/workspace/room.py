"""Keeps the store within what the site allows: what was needed longest ago goes first.

    it fits --> nothing is looked at
    it does not --> the oldest contents that no job keeps are removed until it does
       '--not even then: refused, before the first byte is sent

A content that a workspace has and no job keeps may go too: the workspace has a copy, and should it
be wanted once more the laptop sends it again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from rdev.protocol.errors import LimitExceeded

_HINT = (
    "leave large files out with .rdevignore, or remove ended jobs with `rdev rm`: what they were "
    "started from is kept as long as they are"
)


@dataclass(frozen=True, slots=True, order=True)
class _Content:
    touched: float
    size: int
    digest: bytes
    path: str


class Room:
    """Room in one store; safe from any thread.

    Args:
        objects: Folder of the contents.
        most: Bytes that they may take.
        pinned: Gives the digests of those that jobs keep, on whichever machine.
    """

    def __init__(self, objects: str, *, most: int, pinned: Callable[[], Collection[bytes]]) -> None:
        self._objects = objects
        self._most = most
        self._pinned = pinned
        self._lock = threading.Lock()
        # Other machines remove and add too, so what is there is counted when it matters.
        self._taken: int | None = None

    def make(self, action: str, incoming: int, *, spared: Collection[bytes] = ()) -> None:
        """Sees to it that so many bytes more are within the limit.

        Args:
            action: For the error.
            incoming: Bytes of the contents that are about to come.
            spared: Digests of contents that are about to be used.

        Raises:
            LimitExceeded: They are not.
        """
        with self._lock:
            if self._taken is None or self._taken + incoming > self._most:
                contents = sorted(self._contents())
                self._taken = sum(content.size for content in contents)
                self._free(contents, incoming, spared)
            if self._taken + incoming > self._most:
                raise self._refused(action, incoming)
            self._taken += incoming

    def _free(
        self, contents: Collection[_Content], incoming: int, spared: Collection[bytes]
    ) -> None:
        left = self._taken or 0
        if left + incoming <= self._most:
            return
        kept = {*self._pinned(), *spared}
        removable = [content for content in contents if content.digest not in kept]
        # Nothing is removed in vain.
        if left - sum(content.size for content in removable) + incoming > self._most:
            return
        for content in removable:
            if left + incoming <= self._most:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(content.path)
            left -= content.size
        self._taken = left

    def _contents(self) -> Iterator[_Content]:
        for place, _, names in os.walk(self._objects):
            shard = os.path.basename(place)
            for name in names:
                path = os.path.join(place, name)
                with contextlib.suppress(FileNotFoundError, ValueError):
                    found = os.stat(path)
                    digest = bytes.fromhex(shard + name)
                    yield _Content(found.st_mtime, found.st_size, digest, path)

    def _refused(self, action: str, incoming: int) -> LimitExceeded:
        cause = (
            f"the site lets each user keep {self._most >> 20} MiB of synced files here, jobs keep "
            f"what is there, and {max(incoming >> 20, 1)} MiB more are needed"
        )
        return LimitExceeded(action, cause, hint=_HINT)
