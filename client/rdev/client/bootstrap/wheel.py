"""rdev's own wheel, packed from what is installed here, and the name of the release it makes.

Releases are told apart by what is in them: a version and the first digits of a digest over the
installed files, so that a checkout that was changed is another release.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import rdev

# Stray files of an editor or a build make no other release.
_SUFFIXES = (".py", ".pyi", ".proto", ".typed", ".sh", ".lock")

# The oldest moment that a zip file can name: the wheel shall depend on its content alone.
_EPOCH = (1980, 1, 1, 0, 0, 0)

_WHEEL = "Wheel-Version: 1.0\nGenerator: rdev\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True, slots=True)
class OwnWheel:
    """The wheel of the rdev that runs here.

    Attributes:
        release: Version and digest, such as `0.1.0-1f3c9a70`.
        version: Of rdev.
        file: The wheel's file name.
        content: The wheel.
        unpacked: Bytes of what is in it.
    """

    release: str
    version: str
    file: str
    content: bytes
    unpacked: int


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
    release = _release(_version(), dict(_contents()))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and no more
        _note(path, {"mark": mark, "release": release})
    return release


def pack() -> OwnWheel:
    """Packs the wheel; the same files make the same bytes."""
    import zipfile  # a warm contact only asks for the release's name

    contents, version = dict(_contents()), _version()
    release = _release(version, contents)
    info = f"rdev-{version}.dist-info"
    contents[f"{info}/METADATA"] = _metadata()
    contents[f"{info}/WHEEL"] = _WHEEL.encode()
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return OwnWheel(
        release=release,
        version=version,
        file=f"rdev-{version}-py3-none-any.whl",
        content=packed.getvalue(),
        unpacked=sum(map(len, contents.values())),
    )


def _release(version: str, contents: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"{version}-{digest.hexdigest()[:8]}"


def _contents() -> Iterator[tuple[str, bytes]]:
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
    import sys

    return [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]


def _version() -> str:
    import importlib.metadata  # costs 20 ms

    return importlib.metadata.version("rdev")


def _metadata() -> bytes:
    import importlib.metadata

    return (importlib.metadata.distribution("rdev").read_text("METADATA") or "").encode()


def _record(contents: dict[str, bytes], name: str) -> bytes:
    lines = [f"{name},,"]
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}")
    return ("\n".join(sorted(lines)) + "\n").encode()


def _note(path: str, body: dict[str, str]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(body, file)
    os.replace(temporary, path)
