"""The scan cache: digests of files whose stat has not changed since they were hashed."""

from __future__ import annotations

import contextlib
import json
import os

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
        self._path = ""
        with contextlib.suppress(OSError):
            name = blake3(os.fsencode(root)).hexdigest()[:24]
            self._path = os.path.join(cache_folder(), f"scan-{name}.json")
            self._read()

    def get(self, path: str, status: os.stat_result) -> bytes | None:
        """The digest of the file at `path`, if its stat proves it."""
        known = self._known.get(path)
        return known[1] if known is not None and known[0].proves(status) else None

    def replace(self, known: dict[str, tuple[Stamp, bytes]]) -> None:
        """Takes the result of a scan, and writes it if it says anything new."""
        if known == self._known:
            return
        self._known = known
        rows = {
            path: [
                stamp.size,
                stamp.mtime_ns,
                stamp.ino,
                stamp.ctime_ns,
                stamp.taken_ns,
                digest.hex(),
            ]
            for path, (stamp, digest) in known.items()
        }
        body = {"format": FORMAT, "root": self._root, "files": rows}
        with contextlib.suppress(OSError):
            temporary = f"{self._path}.{os.getpid()}"
            with open(temporary, "w") as file:
                json.dump(body, file, separators=(",", ":"))
            os.replace(temporary, self._path)

    def get_known(self, path: str) -> tuple[Stamp, bytes] | None:
        """What is noted of a path."""
        return self._known.get(path)

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
