"""One `ssh` process joined to a socket: it reads the socket itself, and its output is moved here.

    near --stdin of ssh--> host     ssh reads the socket: nothing of ours is in the way
    near <--splice-- stdout <--     by a thread: after the bridge's line the kernel moves the bytes

One thread owns the process from its start to its end, so that nothing of it needs the event loop,
which decodes messages meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rdev.client.transport.contract import LONGEST_COMPLAINT
from rdev.client.transport.marker import Preamble
from rdev.protocol.errors import RdevError

# As much as a pipe may hold for an ordinary user.
_PIECE = 1 << 20

# What ssh had to say is a few lines; a host's rc files may print anything.
_LONGEST_COMPLAINT = 64 << 10

# ssh that was asked to end tells its master so and ends; one that hangs is killed.
_END_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went until the bridge was ready.

    Attributes:
        error: What the bridge said instead of being ready.
        code: Exit code of ssh where it ended before a word of the bridge's; None otherwise.
        complaints: What it printed on stderr until then.
        at: Path of the agent's socket there, if the bridge is ready and said it.
    """

    error: RdevError | None = None
    code: int | None = None
    complaints: str = ""
    at: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether bytes pass from now on."""
        return self.error is None and self.code is None


class Stream:
    """The process, its thread, and the socket."""

    def __init__(
        self,
        command: Sequence[str],
        near: socket.socket,
        *,
        environment: dict[str, str],
        own_session: bool,
    ) -> None:
        self._near = near
        near.setblocking(False)  # noqa: FBT003  # as ssh makes it: the two share this state
        self._complaints = nameless_file()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=near.fileno(),
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=environment,
                start_new_session=own_session,
            )
        except BaseException:
            os.close(self._complaints)
            raise
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._on_outcome: Callable[[Outcome], None] = lambda _outcome: None

    def start(self, on_outcome: Callable[[Outcome], None]) -> None:
        """Begins; `on_outcome` is called once, from the thread."""
        self._on_outcome = on_outcome
        self._thread.start()

    def end(self) -> None:
        """Ends the process, from any thread; what is joined to it follows."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self) -> None:
        """Returns when all has ended."""
        self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            outcome = self._begin()
            self._on_outcome(outcome)
            if outcome.is_ready:
                self._pump()
        finally:
            self._finish()

    def _begin(self) -> Outcome:
        preamble = Preamble()
        try:
            while data := os.read(self._output, _PIECE):
                if preamble.feed(data):
                    _send(self._near, preamble.rest)
                    return Outcome(at=preamble.at)
        except RdevError as error:
            return Outcome(error=error)
        except OSError:  # the near side has gone already
            return Outcome(code=0)
        return Outcome(code=self._process.wait(), complaints=self._said())

    def _said(self) -> str:
        return said_in(self._complaints)[:_LONGEST_COMPLAINT].decode(errors="replace")

    def _pump(self) -> None:
        _widen(self._output)
        waiting = select.poll()
        waiting.register(self._output, select.POLLIN)
        waiting.register(self._near, 0)
        with contextlib.suppress(OSError):
            while True:
                ready = dict(waiting.poll())
                # Nobody is at the near end any more, however silent the host is.
                if ready.get(self._near.fileno()):
                    return
                if not _move(self._output, self._near):
                    return

    def _finish(self) -> None:
        self.end()
        # Whoever is at the near end sees the end before it can be seen that this has ended.
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        os.close(self._complaints)
        self._near.close()


def nameless_file() -> int:
    """A descriptor of a file without a name: what is printed there needs nobody to read it.

    A pipe would stay open for as long as a shared connection serves the command, which may be long
    after whoever asked for it has gone. It takes `LONGEST_COMPLAINT` and refuses more.
    """
    if hasattr(os, "memfd_create"):
        import fcntl

        made = os.memfd_create("rdev-ssh", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(made, LONGEST_COMPLAINT)  # takes no memory before something is written
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        return made
    import tempfile  # macOS: a private folder of the user's own, and removed at once

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def said_in(file: int) -> bytes:
    """What was printed into a nameless file so far."""
    # The position is shared with whoever prints, and says how much that was.
    return os.pread(file, min(os.lseek(file, 0, os.SEEK_CUR), LONGEST_COMPLAINT), 0)


def _widen(pipe: int) -> None:
    import fcntl

    # A user may have so many wide pipes and no more, and macOS knows none.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIECE)


def _move(output: int, near: socket.socket) -> bool:
    """Moves what has come; False at its end."""
    if not hasattr(os, "splice"):  # macOS
        data = os.read(output, _PIECE)
        _send(near, data)
        return bool(data)
    while True:
        try:
            return os.splice(output, near.fileno(), _PIECE) > 0
        except BlockingIOError:
            _await_room(near)


def _send(near: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[near.send(view) :]
        except BlockingIOError:
            _await_room(near)


def _await_room(near: socket.socket) -> None:
    waiting = select.poll()
    waiting.register(near, select.POLLOUT)
    waiting.poll()
