"""zstd on the wire, with guards: a message of a kilobyte must not become ten gigabytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, cast

import zstandard

from rdev.protocol.exchange import MAX_RUN, Encoding

# 3 is where zstd stops getting much smaller and begins to get much slower on source code.
LEVEL = 3

# Memory a frame may ask of its reader. Level 3 uses 2 MiB for a large input.
MAX_WINDOW = 8 << 20

# Decoded bytes for each encoded one, beyond `FREE_SIZE` decoded bytes. Source compresses 3 to 20
# times; what compresses better than this is sent as it is.
MAX_RATIO = 1000
FREE_SIZE = 1 << 20


class BombRefused(ValueError):
    """Encoded content asks for more memory or more output than it may."""


def encoded(data: bytes) -> tuple[Encoding, bytes]:
    """A content in memory as it should travel."""
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
    too_good = len(data) > FREE_SIZE and len(packed) * MAX_RATIO < len(data)
    if too_good or len(packed) >= len(data):
        return Encoding.IDENTITY, data
    return Encoding.ZSTD, packed


def runs(data: bytes) -> Iterator[bytes]:
    """Cuts encoded bytes into messages; one empty run for no bytes."""
    for start in range(0, max(len(data), 1), MAX_RUN):
        yield data[start : start + MAX_RUN]


def decoded(encoding: Encoding, size: int, data: bytes) -> bytes:
    """Decodes a content of at most `FREE_SIZE` bytes that came in one run.

    It takes a third of the time of a `Decoder`, which counts with thousands of small files.

    Raises:
        BombRefused: It is no zstd frame, or claims to be larger than declared.
    """
    if encoding is Encoding.IDENTITY:
        return data
    try:
        # The frame's own claim is what would be allocated.
        if zstandard.frame_content_size(data) > size:
            raise BombRefused(f"the content is larger than the {size} bytes it claims")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BombRefused(f"the zstd frame is refused: {error}") from error


class Decoder:
    """Decodes one content as its runs arrive, into `sink`, never beyond its declared size.

    Memory stays at the window plus one output buffer, whatever the input claims.
    """

    def __init__(self, encoding: Encoding, size: int, sink: Callable[[bytes], object]) -> None:
        self._size = size
        self._sink = sink
        self._taken = 0
        self._given = 0
        self._writer = None
        if encoding is Encoding.ZSTD:
            engine = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            self._writer = engine.stream_writer(cast(IO[bytes], _Sink(self._put)), closefd=False)

    @property
    def given(self) -> int:
        """Decoded bytes so far."""
        return self._given

    def feed(self, data: bytes) -> None:
        """Decodes one run.

        Raises:
            BombRefused: It is larger than declared, decodes too well, or asks for too much memory.
            OSError: The sink could not take it.
        """
        self._taken += len(data)
        if self._writer is None:
            self._put(data)
            return
        try:
            self._writer.write(data)
        except zstandard.ZstdError as error:
            raise BombRefused(f"the zstd frame is refused: {error}") from error

    def _put(self, data: bytes) -> int:
        self._given += len(data)
        if self._given > self._size:
            raise BombRefused(f"the content is larger than the {self._size} bytes it claims")
        if self._writer is not None and self._given > FREE_SIZE + MAX_RATIO * self._taken:
            raise BombRefused(f"the content decodes to over {MAX_RATIO} times its encoded size")
        self._sink(data)
        return len(data)


class _Sink:
    """The file-like face that zstandard writes to."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.write = write
