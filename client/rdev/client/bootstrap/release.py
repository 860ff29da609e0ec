"""The name of the release that runs here, and what makes it another one.

Releases are told apart by what is in them: a version and the first digits of a digest over the
installed files, so that a checkout that was changed is another release.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping

import rdev

# Stray files of an editor or a build make no other release.
_SUFFIXES = (".py", ".pyi", ".proto", ".typed", ".sh", ".lock")


def cache_folder() -> str:
    """The laptop's cache folder; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "rdev")


def release_id() -> str:
    """Name of the release that runs here; costs some milliseconds, and less than reading it all."""
    mark = _mark()
    path = os.path.join(cache_folder(), "release.json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(path, encoding="utf-8") as file:
            noted = json.load(file)
        if noted["mark"] == mark:
            return str(noted["release"])
    release = name_of(version(), dict(contents()))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and no more
        _note(path, {"mark": mark, "release": release})
    return release


def is_older(version: str, than: str) -> bool:
    """Whether a version of rdev came before another; endings such as `rc1` are passed over."""
    return _numbers(version) < _numbers(than)


def version_in(release: str) -> str:
    """The version in a release's name."""
    return release.rpartition("-")[0]


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits[:9] or 0))
    return tuple(numbers)


def name_of(version: str, files: Mapping[str, bytes]) -> str:
    """The name of a release with that version and those files, in the order of their names."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"{version}-{digest.hexdigest()[:8]}"


def contents() -> Iterator[tuple[str, bytes]]:
    """Names in the wheel and what is there, in the order of the names."""
    for name, path, _ in _files():
        with open(path, "rb") as file:
            yield name, file.read()


def _files() -> list[tuple[str, str, os.stat_result]]:
    """All files of the portions, however many folders they are installed from."""
    found: list[tuple[str, str, os.stat_result]] = []
    for root in rdev.__path__:
        pending = [("rdev", root)]
        while pending:
            prefix, folder = pending.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = f"{prefix}/{entry.name}"
                    if entry.name.endswith(_SUFFIXES):
                        found.append((name, entry.path, entry.stat()))
                    elif entry.name != "__pycache__" and "." not in entry.name and entry.is_dir():
                        pending.append((name, entry.path))
    return sorted(found, key=lambda item: item[0])


def _mark() -> str:
    """A digest that changes when a file does; nothing is read for it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path, stat in _files():
        digest.update(f"{name}\0{path}\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode())
    # Which version it is stands in the name of a folder beside one of the paths we run from.
    for folder in _site_folders():
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                if name.startswith("rdev-") and name.endswith(".dist-info"):
                    digest.update(f"{folder}/{name}\n".encode())
    return digest.hexdigest()


def _site_folders() -> list[str]:
    return [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]


def version() -> str:
    """The version that runs here."""
    import importlib.metadata  # costs 20 ms

    return importlib.metadata.version("rdev")


def _note(path: str, body: dict[str, str]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(body, file)
    os.replace(temporary, path)
