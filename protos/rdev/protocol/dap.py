"""The Debug Adapter Protocol's framing: messages cut out of a byte stream, and put into one.

A message is `Content-Length: N`, CR LF, CR LF, and N bytes of UTF-8 JSON, as the protocol's "base
protocol" says. Agent and client share this core; neither reads a socket here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# debugpy refuses bodies beyond 16 MiB (JsonIOStream.MAX_BODY_SIZE); a longer one is no message.
MAX_BODY = 0xFFFFFF

# Two header fields are all that the protocol allows for; more than this is no header.
MAX_HEADER = 4096

# What is answered to a request for a stop that has ended meanwhile.
TOO_LATE = "too late: the stop is over"

# Begins the line that tells, after a session, that an expression which does not return holds it.
STILL_IN = "the job is still in "

Message = dict[str, Any]


class DapError(ValueError):
    """The peer sent something that is not the Debug Adapter Protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message with its header."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def sequence(message: Message, key: str) -> int:
    """The number under `seq` or `request_seq`; -1, which is nobody's, where it is no number."""
    value = message.get(key)
    return value if isinstance(value, int) else -1


class Framer:
    """Cuts a byte stream into messages, however the bytes arrive."""

    __slots__ = ("_need", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._need: int | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Adds bytes and returns the messages they complete, in order.

        Raises:
            DapError: A header has no valid length, or a body is not a JSON object. The stream
                cannot be used any further.
        """
        self._pending += data
        messages = []
        while (body := self._next_body()) is not None:
            messages.append(_parse(body))
        return messages

    def _next_body(self) -> bytes | None:
        if self._need is None:
            end = self._pending.find(b"\r\n\r\n")
            if max(end, 0 if end >= 0 else len(self._pending)) > MAX_HEADER:
                raise DapError("a header is longer than 4 KiB")
            if end < 0:
                return None
            self._need = _length(bytes(self._pending[:end]))
            del self._pending[: end + 4]
        if len(self._pending) < self._need:
            return None
        body = bytes(self._pending[: self._need])
        del self._pending[: self._need]
        self._need = None
        return body


def _length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() != b"content-length":
            continue
        digits = value.strip()
        if digits.isdigit() and len(digits) < 10 and int(digits) <= MAX_BODY:
            return int(digits)
    raise DapError("a header has no valid Content-Length")


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise DapError(f"a body is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise DapError("a body is not a JSON object")
    return message
