"""rdev's own wheel, packed from what is installed here."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from rdev.client.bootstrap import release

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


def pack() -> OwnWheel:
    """Packs the wheel; the same files make the same bytes."""
    contents, version = dict(release.contents()), release.version()
    name = release.name_of(version, contents)
    info = f"rdev-{version}.dist-info"
    contents[f"{info}/METADATA"] = _metadata()
    contents[f"{info}/WHEEL"] = _WHEEL.encode()
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return OwnWheel(
        release=name,
        version=version,
        file=f"rdev-{version}-py3-none-any.whl",
        content=packed.getvalue(),
        unpacked=sum(map(len, contents.values())),
    )


def _metadata() -> bytes:
    import importlib.metadata

    return (importlib.metadata.distribution("rdev").read_text("METADATA") or "").encode()


def _record(contents: Mapping[str, bytes], name: str) -> bytes:
    lines = [f"{name},,"]
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}")
    return ("\n".join(sorted(lines)) + "\n").encode()
