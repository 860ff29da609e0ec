r"""BLAKE3 digests of contents, directories and snapshots, and the encoding they are taken over.

A directory's digest covers the entries directly in it; a snapshot's digest covers the digest of
every directory. One edited file thus costs one directory and one list of directories, however
large the tree. Modification times are no part of either.

    directory = BLAKE3("rdev directory 1\n" + entry...)      sorted by name, as bytes
    entry     = kind:u8 executable:u8 name:u16+bytes (digest:32 | target:u16+bytes | nothing)
    snapshot  = BLAKE3("rdev snapshot 1\n" + (path:u16+bytes digest:32)...)      sorted by path
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from blake3 import blake3

SIZE = 32

# What a reader hashes at a time: large enough for BLAKE3's vector code, small enough to stay
# in the cache.
CHUNK = 1 << 18

_ENTRY = struct.Struct(">BBH")
_LENGTH = struct.Struct(">H")


def content_digest(data: bytes) -> bytes:
    """Digest of a content that is in memory, 32 bytes."""
    return blake3(data).digest()


def descriptor_digest(descriptor: int) -> bytes:
    """Digest of what can be read from an open file, from its present offset to its end.

    Raises:
        OSError: It cannot be read.
    """
    import os

    hasher = blake3()
    while chunk := os.read(descriptor, CHUNK):
        hasher.update(chunk)
    return hasher.digest()


def entry_bytes(kind: int, executable: bool, name: str, payload: bytes) -> bytes:  # noqa: FBT001 - a field of the format
    """Canonical encoding of one entry of a directory."""
    encoded = name.encode()
    return _ENTRY.pack(kind, executable, len(encoded)) + encoded + payload


def target_bytes(target: str) -> bytes:
    """Canonical encoding of a link's target."""
    encoded = target.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def directory_digest(entries: Iterable[bytes]) -> bytes:
    """Digest of one directory, from its encoded entries in order of their names."""
    return blake3(b"rdev directory 1\n" + b"".join(entries)).digest()


def snapshot_digest(directories: Iterable[tuple[str, bytes]]) -> bytes:
    """Digest of a tree, from the paths and digests of its directories in order of path."""
    hasher = blake3(b"rdev snapshot 1\n")
    for path, digest in directories:
        hasher.update(target_bytes(path) + digest)
    return hasher.digest()
