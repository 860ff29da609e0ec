"""A command that is connected to the session, from its first byte to its worker's end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field

from rdev.client.session import frames
from rdev.client.session.standing import Standing

# stdin, stdout, stderr and the current folder.
DESCRIPTORS = 4

_READ = 1 << 16


@dataclass(slots=True)
class Command:
    """A command that is connected.

    Attributes:
        connection: To it.
        deadline: When what we wait for should have come; None if a worker has its time.
        received: What it has sent of its request.
        task: What is to be run once it says so; None before and after.
        signals: What the worker is to be sent when there is one.
        descriptors: Which came along.
        worker: Process id of its worker; 0 before there is one.
        hangup: The signal that tells the worker that nobody is there any more.
    """

    connection: socket.socket
    deadline: float | None
    received: bytearray = field(default_factory=bytearray)
    task: tuple[frames.Request, Standing] | None = None
    signals: bytes = b""
    descriptors: list[int] = field(default_factory=list)
    worker: int = 0
    hangup: int = signal.SIGHUP

    def tell(self, kind: bytes, value: int = 0) -> None:
        """Answers, if anybody is there."""
        with contextlib.suppress(OSError):
            self.connection.send(frames.answer(kind, value))

    def receive(self) -> bytes:
        """What has come, descriptors aside; b"" at its end.

        Raises:
            BlockingIOError: Nothing has.
        """
        room = socket.CMSG_SPACE(DESCRIPTORS * 4)
        try:
            said, control, *_ = self.connection.recvmsg(_READ, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise
        except OSError:  # it was killed before it had read all
            return b""
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.descriptors += memoryview(data[: len(data) // 4 * 4]).cast("i").tolist()
        return said

    def close(self) -> None:
        """Lets go of all that came with it."""
        self.connection.close()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Lets go of what only its worker needs."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
