"""The session's loop: takes commands, forks a worker for each, passes on what happens to either.

    accept -> receive -> fork -> pass signals on, tell how it ended
      '--idle, SIGTERM, unreachable, or other code on disk--> no more; end with the last worker

It has one thread and no gRPC channel, so that a fork of it is as good as a new process. The server
of Mercurial's chg is its model (chgserver.py and commandserver.py there).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from typing import NoReturn

from rdev.client.session import frames
from rdev.client.session.code import Code
from rdev.client.session.command import DESCRIPTORS, Command
from rdev.client.session.standing import Standing, own_standing, standing_of
from rdev.client.session.worker import work
from rdev.wire.unix import peer_uid

# Somebody who goes on after a meal pays 0.3 s once; 50 MB are not kept for somebody who went home.
IDLE = 1800.0

# A request is written at once. Who takes longer was stopped in the middle.
_REQUEST_PATIENCE = 5.0

# Whoever was typed into is gone: the worker was told to hang up, and there is nobody to wait for.
_HANGUP_PATIENCE = 10.0

# Whose folder was removed (a container's home, a test's) has no commands to wait for.
_GLANCE = 30.0

# More than this many commands at a time are run as they always were.
_MOST_WORKERS = 200

# What is read at once of what signals tell.
_READ = 4096


class Session:
    """Serves commands until it is not wanted any more.

    Args:
        listener: Listening at `path` with `.new` behind it, non-blocking.
        path: Where commands look for it.
        lock: Descriptor of the lock that makes it the only one.
        identity: Of the commands that it serves.
        code: What there was before anything was imported.
    """

    def __init__(
        self, listener: socket.socket, path: str, lock: int, *, identity: bytes, code: Code
    ) -> None:
        self._listener: socket.socket | None = listener
        self._path = path
        self._inode = os.stat(f"{path}.new").st_ino
        self._lock = lock
        self._identity = identity
        self._standing = own_standing()
        self._code = code
        self._commands: list[Command] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.settimeout(0)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._idle_since = self._glance = time.monotonic()

    def serve(self) -> None:
        """Returns when it has retired and the last worker has ended."""
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _heard)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        os.rename(f"{self._path}.new", self._path)
        while self._listener is not None or self._commands:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._hear()
                elif key.data in self._commands:  # its worker may have ended at the same moment
                    self._hear_from(key.data)
            self._look_at_clock()

    def _patience(self) -> float:
        now = time.monotonic()
        moments = [command.deadline for command in self._commands if command.deadline is not None]
        return max(0.0, min([*moments, now + _GLANCE]) - now)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        is_idle = not self._commands and now >= self._idle_since + IDLE
        if is_idle or not self._is_reachable():
            self._retire()
        elif now >= self._glance:  # nobody is served by it any more, whether or not anybody comes
            self._glance = now + _GLANCE
            if not self._code.is_current:
                self._retire()
        for command in list(self._commands):
            if command.deadline is None or now < command.deadline:
                continue
            if command.worker:
                command.deadline = None
                os.kill(command.worker, signal.SIGKILL)
            else:
                self._drop(command)

    def _is_reachable(self) -> bool:
        with contextlib.suppress(OSError):
            return os.stat(self._path).st_ino == self._inode
        return False

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone, or we have too many files open
            return
        connection.settimeout(0)
        if peer_uid(connection) != os.geteuid():
            connection.close()
            return
        command = Command(connection, time.monotonic() + _REQUEST_PATIENCE)
        self._commands.append(command)
        self._selector.register(connection, selectors.EVENT_READ, command)
        self._hear_from(command)  # it writes at once

    def _hear_from(self, command: Command) -> None:
        try:
            said = command.receive()
        except BlockingIOError:
            return
        if command.worker:
            self._pass_on(command, said)
        elif not said:
            self._drop(command)
        elif command.task is None:
            command.received += said
            self._read(command)
        else:
            self._begin_on(command, said)

    def _read(self, command: Command) -> None:
        """Takes a command once its request is there."""
        try:
            length = frames.length(bytes(command.received[: len(frames.MAGIC) + 4]))
        except ValueError:
            self._drop(command)
            return
        if length is not None and len(command.received) >= length:
            data = bytes(command.received)
            command.received.clear()
            command.signals = data[length:]
            self._take(command, data[:length])

    def _take(self, command: Command, data: bytes) -> None:
        """Says whether this process can run it as the command itself would."""
        if not self._code.is_current:
            self._retire()
            self._refuse(command, frames.STALE)
            return
        try:
            request = frames.parse(data)
            standing = standing_of(request.status, request.limits, nice=request.nice)
        except ValueError:
            self._refuse(command)
            return
        is_same = (request.identity, standing.shared) == (self._identity, self._standing.shared)
        if not is_same or len(self._commands) > _MOST_WORKERS:
            self._refuse(command)
            return
        command.task = (request, standing)
        command.tell(frames.TAKEN)

    def _refuse(self, command: Command, kind: bytes = frames.REFUSED) -> None:
        command.tell(kind)
        self._drop(command)

    def _begin_on(self, command: Command, said: bytes) -> None:
        """Begins once the command has said that it waits."""
        command.signals += said.replace(frames.GO, b"")
        if command.task is not None and frames.GO in said:
            request, standing = command.task
            command.task = None
            if len(command.descriptors) != DESCRIPTORS:
                self._refuse(command, frames.HANDED_BACK)
                return
            self._idle_since = time.monotonic()
            command.hangup = signal.SIGTERM if signal.SIGHUP in standing.ignored else signal.SIGHUP
            self._begin(command, request, standing)

    def _begin(self, command: Command, request: frames.Request, standing: Standing) -> None:
        session = os.getpid()
        # A signal must not come to a worker that still has our handlers.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            command.worker = os.fork()
            if not command.worker:
                self._work(command, request, standing, session)
        except OSError:  # as many processes as the user may have
            self._refuse(command, frames.HANDED_BACK)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        command.deadline = None
        command.close_descriptors()
        if command.signals:
            self._pass_on(command, command.signals)

    def _work(
        self, command: Command, request: frames.Request, standing: Standing, session: int
    ) -> NoReturn:
        try:
            self._forget(command)
            connection, descriptors = command.connection, command.descriptors
            work(request, standing, descriptors, connection=connection, session=session)
        finally:  # whatever came, as an interrupt at its end may: there is one session, not two
            os._exit(1)

    def _forget(self, kept: Command) -> None:
        """In a worker: lets go of all that is the session's or another command's."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for end in (self._listener, self._wake, self._waker):
            if end is not None:
                end.close()
        if self._lock >= 0:
            os.close(self._lock)
        for command in self._commands:
            if command is not kept:
                command.close()

    def _pass_on(self, command: Command, said: bytes) -> None:
        for number in said:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(command.worker, number)
        if said:
            return
        # Whom it was run for has ended, and has not waited.
        self._selector.unregister(command.connection)
        command.deadline = time.monotonic() + _HANGUP_PATIENCE
        for number in (command.hangup, signal.SIGCONT):
            os.kill(command.worker, number)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            heard = self._wake.recv(_READ)
            if {signal.SIGTERM, signal.SIGINT} & set(heard):
                self._retire()
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            for command in [one for one in self._commands if one.worker == pid]:
                if os.WIFSTOPPED(status):
                    command.tell(frames.STOPPED, os.WSTOPSIG(status))
                    continue
                if os.WIFSIGNALED(status):
                    command.tell(frames.KILLED, os.WTERMSIG(status))
                else:  # it has told it itself, unless it was left without Python's doing
                    command.tell(frames.EXITED, os.WEXITSTATUS(status))
                self._drop(command)

    def _drop(self, command: Command) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(command.connection)
        command.close()
        self._commands.remove(command)
        if command.worker:
            self._idle_since = time.monotonic()

    def _retire(self) -> None:
        """Takes no more commands, and makes room for another session."""
        if self._listener is None:
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            if self._is_reachable():
                os.unlink(self._path)
        os.close(self._lock)
        self._lock = -1


def _heard(_number: int, _frame: object) -> None:
    """Which signal it was is read from the descriptor that the interpreter writes it to."""
