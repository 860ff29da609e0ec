"""Reading a file's content for the wire, and noticing when it is no longer what was hashed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import zstandard
from blake3 import blake3

from rdev.client.sync.scan import open_file
from rdev.protocol.compression import LEVEL, MAX_RATIO, encoded, runs
from rdev.protocol.exchange import MAX_RUN, ContentRun, Encoding

# Read whole below, streamed above.
SMALL = 1 << 20


class ContentChanged(Exception):
    """The file was changed or removed since it was scanned; it is scanned again."""


def content_runs(root: str, local: str, digest: bytes, size: int) -> Iterator[ContentRun]:
    """The runs that carry a file's content.

    The last run is only yielded if the bytes have the digest that was announced, so that a file
    that changes under the reader is never taken for what it was.

    Args:
        root: The workspace's root.
        local: The file, relative to it.
        digest: What was announced.
        size: Likewise.

    Raises:
        ContentChanged: The file no longer has that content.
    """
    try:
        descriptor = open_file(root, local)
    except OSError as error:
        raise ContentChanged(local) from error
    try:
        if size <= SMALL:
            yield from _small(descriptor, local, digest, size)
        else:
            yield from _large(descriptor, local, digest, size)
    finally:
        os.close(descriptor)


def _small(descriptor: int, local: str, digest: bytes, size: int) -> Iterator[ContentRun]:
    data = bytearray()
    while chunk := os.read(descriptor, size + 1 - len(data)):
        data += chunk
    if len(data) != size or blake3(data).digest() != digest:
        raise ContentChanged(local)
    encoding, packed = encoded(bytes(data))
    pieces = list(runs(packed))
    for number, piece in enumerate(pieces):
        yield ContentRun(digest, size, encoding, piece, number == len(pieces) - 1)


def _large(descriptor: int, local: str, digest: bytes, size: int) -> Iterator[ContentRun]:
    first = os.pread(descriptor, MAX_RUN, 0)
    sample = len(zstandard.ZstdCompressor(level=LEVEL).compress(first))
    # Neither what hardly shrinks nor what shrinks so well that the reader takes it for a bomb.
    plain = sample > len(first) * 0.95 or sample * MAX_RATIO // 2 < len(first)
    encoding = Encoding.IDENTITY if plain else Encoding.ZSTD
    packer = None if plain else zstandard.ZstdCompressor(level=LEVEL).compressobj(size=size)
    hasher, taken, pending = blake3(), 0, bytearray()
    while chunk := os.read(descriptor, min(MAX_RUN, size + 1 - taken)):
        taken += len(chunk)
        hasher.update(chunk)
        if taken > size:
            raise ContentChanged(local)
        pending += chunk if packer is None else packer.compress(chunk)
        while len(pending) > MAX_RUN:
            yield ContentRun(digest, size, encoding, bytes(pending[:MAX_RUN]), last=False)
            del pending[:MAX_RUN]
    if taken != size or hasher.digest() != digest:
        raise ContentChanged(local)
    pending += b"" if packer is None else packer.flush()
    pieces = list(runs(bytes(pending)))
    for number, piece in enumerate(pieces):
        yield ContentRun(digest, size, encoding, piece, number == len(pieces) - 1)
