"""The job's control socket: JSON lines between the supervisor and whoever dials it.

The supervisor listens on `job.sock` in the job's directory and checks SO_PEERCRED. The agent, and
every hook and loop in the job's Python processes, dial it. One JSON object a line, at most 1 MiB;
unknown keys and unknown types are ignored, so either side may be newer.

    dialer      {"type": "hello", "version": 1, "role": "agent" | "hook" | "loop",
                 "rank": 0, "pid": 12, "python": "3.11.7", "script": "train.py"}
    supervisor  {"type": "welcome", "version": 1, "job": ID, "acknowledged": SEQ}

    loop, hook  {"type": "event", "seq": 1, "kind": ..., "time": ..., ...}   see rdev.wire.events
    supervisor  {"type": "ack", "seq": 1}                                    cumulative

    either      {"type": "command", "id": ID, "name": ..., "args": {...}}
    the other   {"type": "result", "id": ID, "ok": true, ...}  or  {..., "ok": false, "cause": ...}

    supervisor  {"type": "state", ...}    to the agent: full state first, then every change

Commands of the agent to the supervisor: `stop` {now, all}, `signal` {signal}, `input` {} (there is
more input on disk, or its end; a supervisor also looks whenever an agent says hello, so one that is
lost with its connection need not be repeated), `resize` {rows, columns} (the same size again makes
programs redraw; nothing happens without a terminal), `peers` {}, and `route`
{role, rank, name, args}, which the supervisor passes on as command `name` to the hook or loop of
that rank and whose result it returns.
"""

from __future__ import annotations

from rdev.wire import jsons

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = 1

# A line longer than this is no message of ours; the connection is dropped.
MAX_LINE = 1 << 20

# Where a process of the job finds its supervisor, and what marks it as the job's.
SOCKET_VARIABLE = "RDEV_JOB_SOCKET"
JOB_VARIABLE = "RDEV_JOB_ID"

# Which attempt of the job a process belongs to, from 1.
ATTEMPT_VARIABLE = "RDEV_ATTEMPT"


class ChannelError(ValueError):
    """The peer sent something that is not a line of this protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line, newline included.

    Floats that JSON has no word for (NaN, infinities) are written as Python's json reads them back.
    """
    return jsons.dump(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message on one line.

    Raises:
        ChannelError: The line is too long, not JSON, or not an object.
    """
    if len(line) > MAX_LINE:
        raise ChannelError("the line is longer than 1 MiB")
    try:
        message = jsons.load(line)
    except (RecursionError, ValueError) as error:
        raise ChannelError(f"the line is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ChannelError("the line is not a JSON object")
    return message


def whole_number(value: object) -> int:
    """A number in a message; 0 if it is none, as a peer may say anything."""
    return value if isinstance(value, int) else 0


def small_number(value: object) -> int:
    """A whole number in a message that is neither negative nor beyond 31 bits; 0 if it is none."""
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def clean_text(value: object) -> str:
    """Text in a message; half a pair of surrogates, which no encoding has, becomes a `?`."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


class LineBuffer:
    """Cuts a byte stream into lines, however the bytes arrive."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Adds bytes and returns the lines they complete, without newlines.

        Raises:
            ChannelError: A line grew beyond `MAX_LINE` without an end.
        """
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > MAX_LINE:
            raise ChannelError("a line is longer than 1 MiB")
        return lines
