"""What a command and its session say to each other on their socket.

    command -> session   request
    session -> command   REFUSED | STALE | TAKEN
    command -> session   GO with four descriptors: stdin, stdout, stderr, current folder
                         and at any time one byte a signal: its number
    session -> command   any number of STOPPED, then EXITED | KILLED | HANDED_BACK

Only what is built into the interpreter is imported: every command pays for it.
"""

from __future__ import annotations

# Bytes that begin a request; another revision of it is another word.
MAGIC = b"rdev-session-1\n"

# The kernel passes 2 MiB of arguments and environment to a program, by default (execve(2)).
MOST = 8 << 20

# Whoever waited too long for TAKEN runs the command itself, and must not find it run twice, nor the
# other end of its pipes kept open by a session that was stopped.
GO = b"\0"

# An answer is one letter and a number of four bytes.
ANSWER = 5

REFUSED = b"R"
"""This session cannot run it as the command itself would; nothing was begun."""
STALE = b"O"
"""The code on disk is no longer what the session has imported; nothing was begun."""
TAKEN = b"T"
"""A worker will run it once it is told to."""
HANDED_BACK = b"H"
"""The worker asks the command to run it itself; nothing was begun."""
STOPPED = b"S"
"""The worker was stopped by this signal."""
EXITED = b"E"
"""The worker's exit code."""
KILLED = b"K"
"""The worker was ended by this signal."""


class Request:
    """A command line, and what there is to know of the process that it was typed into.

    Attributes:
        identity: Which interpreter, release and environment of the interpreter it is.
        status: Its /proc/self/status.
        limits: Its /proc/self/limits.
        nice: Its niceness.
        is_foreground: Whether a person sits at its stdin, and it has that terminal.
        words: Its argument vector.
        environment: Its environment, `K=V` each.
    """

    __slots__ = (
        "environment",
        "identity",
        "is_foreground",
        "limits",
        "nice",
        "status",
        "words",
    )

    def __init__(
        self,
        identity: bytes,
        status: bytes,
        limits: bytes,
        *,
        nice: int,
        is_foreground: bool,
        words: list[bytes],
        environment: list[bytes],
    ) -> None:
        self.identity = identity
        self.status = status
        self.limits = limits
        self.nice = nice
        self.is_foreground = is_foreground
        self.words = words
        self.environment = environment


def compose(request: Request) -> bytes:
    """The bytes of a request; neither words nor variables hold a zero byte."""
    body = b"\0".join(
        [
            request.identity,
            request.status,
            request.limits,
            b"%d" % request.nice,
            b"%d" % request.is_foreground,
            b"%d" % len(request.words),
            *request.words,
            *request.environment,
        ]
    )
    return MAGIC + len(body).to_bytes(4, "big") + body


def length(head: bytes) -> int | None:
    """How long the whole request is that begins so, in bytes; None if more must be seen.

    Raises:
        ValueError: It is no request, or a longer one than there can be.
    """
    if not head.startswith(MAGIC[: len(head)]):
        raise ValueError("it is no request")
    begin = len(MAGIC) + 4
    if len(head) < begin:
        return None
    size = int.from_bytes(head[len(MAGIC) : begin], "big")
    if size > MOST:
        raise ValueError(f"{size} bytes are too many")
    return begin + size


def parse(data: bytes) -> Request:
    """The request of these bytes, a whole one.

    Raises:
        ValueError: It is none.
    """
    begin = len(MAGIC) + 4
    fields = data[begin:].split(b"\0")
    if len(fields) < 6:
        raise ValueError(f"{len(fields)} fields are too few")
    identity, status, limits, nice, is_foreground, count = fields[:6]
    end = 6 + int(count)
    if not 6 < end <= len(fields):
        raise ValueError(f"it has no {int(count)} words")
    return Request(
        identity,
        status,
        limits,
        nice=int(nice),
        is_foreground=is_foreground == b"1",
        words=fields[6:end],
        environment=fields[end:],
    )


def answer(kind: bytes, value: int = 0) -> bytes:
    """The bytes of an answer."""
    return kind + value.to_bytes(ANSWER - 1, "big")
