"""The scan cache: digests of files whose stat has not changed since they were hashed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection

from blake3 import blake3

from rdev.client.sync.root import cache_folder
from rdev.protocol.stamp import Stamp

FORMAT = 1


class ScanCache:
    """Stamp and digest by path, for one root; it may be lost at any time."""

    def __init__(self, root: str) -> None:
        """Reads the cache of the workspace at `root`, if there is one."""
        self._root = root
        self._known: dict[str, tuple[Stamp, bytes]] = {}
        self._changed = False
        self._path = ""
        with contextlib.suppress(OSError):
            name = blake3(os.fsencode(root)).hexdigest()[:24]
            self._path = os.path.join(cache_folder(), f"scan-{name}.json")
            self._read()

    def get(self, path: str, status: os.stat_result) -> bytes | None:
        """The digest of the file at `path`, if its stat proves it."""
        known = self._known.get(path)
        return known[1] if known is not None and known[0].proves(status) else None

    def note(self, path: str, stamp: Stamp, digest: bytes) -> None:
        """Notes a file that was hashed."""
        self._known[path] = (stamp, digest)
        self._changed = True

    def save(self, present: Collection[str]) -> None:
        """Forgets all but the files present, and writes the cache if it says anything new."""
        gone = self._known.keys() - set(present)
        for path in gone:
            del self._known[path]
        if not gone and not self._changed:
            return
        rows = {path: [*stamp.row(), digest.hex()] for path, (stamp, digest) in self._known.items()}
        body = {"format": FORMAT, "root": self._root, "files": rows}
        with contextlib.suppress(OSError):
            temporary = f"{self._path}.{os.getpid()}"
            with open(temporary, "w") as file:
                file.write(json.dumps(body, separators=(",", ":")))  # many times json.dump's speed
            os.replace(temporary, self._path)
            self._changed = False

    def _read(self) -> None:
        try:
            with open(self._path) as file:
                body = json.load(file)
            if body["format"] != FORMAT or body["root"] != self._root:
                return
            self._known = {
                path: (Stamp(*row[:5]), bytes.fromhex(row[5]))
                for path, row in body["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            self._known = {}
