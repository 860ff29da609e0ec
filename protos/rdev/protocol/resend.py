"""Bytes of a stream that outlives its connection: kept until the other end has said it has them.

Both ends of a debug session count what they received. After a break each tells the other how far it
came, and what lies behind that is sent again.
"""

from __future__ import annotations

from collections import deque


class Unacknowledged:
    """The end of a stream of bytes, from what the other end is known to have.

    Attributes:
        begin: Offset in the stream of the first byte that is kept.
        end: Offset of the next byte to be appended.
    """

    __slots__ = ("_pieces", "begin", "end")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.begin = 0
        self.end = 0

    def __len__(self) -> int:
        """How many bytes are kept."""
        return self.end - self.begin

    def append(self, data: bytes) -> None:
        """Adds bytes at the end."""
        if data:
            self._pieces.append(data)
            self.end += len(data)

    def acknowledge(self, received: int) -> None:
        """Forgets what lies before an offset.

        Raises:
            ValueError: The other end cannot have received that much.
        """
        if received > self.end:
            raise ValueError(f"{received} bytes cannot have been received of {self.end}")
        while received > self.begin:
            piece = self._pieces.popleft()
            known = min(len(piece), received - self.begin)
            self.begin += known
            if known < len(piece):
                self._pieces.appendleft(piece[known:])

    def since(self, offset: int, most: int) -> bytes:
        """Bytes from an offset on, at most `most` of them; b"" at the end.

        Raises:
            ValueError: They were forgotten, or are none of the stream's.
        """
        if not self.begin <= offset <= self.end:
            raise ValueError(f"bytes {self.begin} to {self.end} are kept, and not {offset}")
        place = self.begin
        for piece in self._pieces:
            if offset < place + len(piece):
                return piece[offset - place : offset - place + most]
            place += len(piece)
        return b""
