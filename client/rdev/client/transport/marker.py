"""Finds the line that a bridge says first, behind whatever rc files have printed."""

from __future__ import annotations

from rdev.client.transport.contract import AT, FAILED, READY
from rdev.protocol.errors import RdevError, error_from_json

# A bridge's last words are one line of an error; what is before them may be dropped.
_LONGEST = 64 << 10


class Preamble:
    """What came before the bytes of the agent.

    Attributes:
        rest: Bytes after the line, once it was found: the agent's first.
        at: Path of the agent's socket on the host; empty if the bridge did not say it.
    """

    def __init__(self) -> None:
        self.rest = b""
        self.at = ""
        self._seen = b"\n"

    def feed(self, data: bytes) -> bool:
        """Takes more of what was printed; True once the bridge has said that it is ready.

        Raises:
            RdevError: What the bridge said instead.
        """
        self._seen += data
        if self._failed_at() < self._ready_at():
            raise self._failure()
        if (at := self._seen.find(b"\n" + READY + b"\n")) >= 0:
            self.rest = self._seen[at + len(READY) + 2 :]
            self.at = _said_last(self._seen[:at])
            return True
        self._seen = self._seen[-_LONGEST:]
        return False

    def _ready_at(self) -> int:
        at = self._seen.find(b"\n" + READY + b"\n")
        return len(self._seen) if at < 0 else at

    def _failed_at(self) -> int:
        at = self._seen.find(b"\n" + FAILED)
        # Without its end it is not all there yet.
        return len(self._seen) if at < 0 or b"\n" not in self._seen[at + 1 :] else at

    def _failure(self) -> RdevError:
        line = self._seen[self._failed_at() + 1 :].split(b"\n", 1)[0].removeprefix(FAILED)
        try:
            return error_from_json(line.decode())
        except ValueError:
            return RdevError("reach the agent", line.decode(errors="replace"))


def _said_last(seen: bytes) -> str:
    """The agent's socket, if the line before the last one names it."""
    last = seen.rpartition(b"\n")[2]
    return last.removeprefix(AT).decode(errors="replace") if last.startswith(AT) else ""
