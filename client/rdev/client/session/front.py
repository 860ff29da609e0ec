"""The command's own half: hands the command line to the session, and stays to pass signals on.

    connect --no session--> start one for the next time, run in process
       |--TAKEN--> GO, wait --EXITED--> exit with its code
       |                 |--KILLED--> die by the same signal
       |                 |--STOPPED--> stop as well; go on, and have the worker go on
       |                 '--HANDED_BACK--> run in process
       '--REFUSED, STALE, or nothing in time--> run in process

Every command pays for what is imported here: nothing but what is built into the interpreter.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enumerations of it, for 2 ms
import _socket
import os
import sys
import time

from rdev.client.session import frames, place

TYPE_CHECKING = False  # known to type checkers by name; typing costs 3 ms
if TYPE_CHECKING:
    from typing import NoReturn

VARIABLE = "RDEV_SESSION"
"""`0` has commands run in process, and starts no session."""

# As in `rdev.wire.channel`. A job's session would end with the job, and commands of other terminals
# with it; and the job's debugger would find a process of ours among the job's own.
_JOB_VARIABLE = "RDEV_JOB_ID"

# What the worker is to hear of as we do. The rest (SIGKILL, SIGSTOP, a fault of ours) it learns
# from what becomes of us.
_PASSED_ON = (
    *(_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGTSTP),
    *(_signal.SIGCONT, _signal.SIGWINCH, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGALRM),
)

# A session that lives takes a command within a millisecond or two; one that was stopped, or that
# a busy machine has swapped out, is not waited for much longer than a start in process takes.
_PATIENCE = 1.0

# A timeout makes the socket non-blocking, as a descriptor that signals are written to has to be. A
# command may last as long as it likes.
_LONG = 1e6

# How long a session that was just started, or that failed to start, is left in peace, in seconds.
_START_AGAIN = 10.0

# SO_PEERCRED gives three numbers of four bytes: process, user and group (unix(7), struct ucred).
_CREDENTIALS = 12

# The longest name of a socket, see `rdev.wire.unix`.
_LONGEST = 103

_MODULE = "rdev.client.session.serve"


class Unavailable(Exception):
    """No session takes the command: it is to be run in process, and nothing was begun."""


class Lost(Exception):
    """Session and worker were gone before the command had ended."""


def run(words: list[str]) -> int | None:
    """Runs a command line by the session.

    Args:
        words: The argument vector, the program's name first.

    Returns:
        Its exit code; None if it is to be run in process.

    Raises:
        Lost: It is not known how it ended.
    """
    if sys.platform != "linux" or os.environ.get(VARIABLE) == "0" or _JOB_VARIABLE in os.environ:
        return None
    if any("/fd/" in word for word in words):  # a shell's `<(...)`: a worker has only three
        return None
    try:
        identity = place.identity()
        request = _request(identity, words)
        connection, session = _connect(identity)
    except (OSError, Unavailable):
        return None
    try:
        return _Command(connection, session).run(frames.compose(request))
    except Unavailable:
        return None
    finally:
        connection.close()


def _request(identity: bytes, words: list[str]) -> frames.Request:
    # Options of the interpreter come with no environment, and a session was started without them.
    if sys.warnoptions or sys._xoptions:  # noqa: SLF001  # it has no other name
        raise Unavailable
    return frames.Request(
        identity,
        _content("/proc/self/status"),
        _content("/proc/self/limits"),
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        is_foreground=_has_terminal(),
        words=[os.fsencode(word) for word in words],
        environment=[b"%b=%b" % item for item in os.environb.items()],
    )


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _has_terminal() -> bool:
    """Whether a person sits at our stdin, and has us in front.

    Raises:
        Unavailable: It is our terminal, and something else is in front. The kernel stops us when we
            read from it, but not a worker, whose terminal it is not.
    """
    if not os.isatty(0):
        return False
    try:
        is_front = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # a terminal, but not the one that our signals come from
        return False
    if not is_front:
        raise Unavailable
    return True


def _connect(identity: bytes) -> tuple[_socket.socket, int]:
    folder, name = place.folder(), place.name_of(identity)
    if not os.path.isabs(folder):
        raise Unavailable
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE)
        if not place.is_private(folder) or not _reach(connection, folder, name):
            start(folder, name)
            raise Unavailable
        return connection, _session_of(connection)
    except BaseException:
        connection.close()
        raise


def _reach(connection: _socket.socket, folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    try:
        if len(os.fsencode(path)) <= _LONGEST:
            connection.connect(path)
            return True
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _session_of(connection: _socket.socket) -> int:
    """Its process id; it must be ours."""
    # What follows may hold secrets. A process of another container's has number 0 here.
    said = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS)
    pid, uid = (int.from_bytes(said[at : at + 4], sys.byteorder) for at in (0, 4))
    if not pid or uid != os.geteuid():
        raise Unavailable
    return pid


def start(folder: str, name: str) -> None:
    """Starts a session for the next command, in the background; unless one was, a moment ago."""
    try:
        age = time.time() - os.stat(os.path.join(folder, f"{name}.lock")).st_mtime
    except OSError:
        age = _START_AGAIN
    if 0 <= age < _START_AGAIN or not _is_writable(folder):
        return
    # No word of `-m` may be found in the current folder (-P). It closes what it inherits.
    words = [sys.executable, "-P", "-m", _MODULE, name]
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        os.posix_spawn(
            sys.executable, words, place.start_environment(), file_actions=nowhere, setsid=True
        )
    except (OSError, NotImplementedError):
        return  # nobody asked for one


def _is_writable(folder: str) -> bool:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    # By sudo, with the home of whoever typed it, we could write, and they could not any more.
    is_ours = os.stat(folder).st_uid == os.geteuid()
    return is_ours and os.access(folder, os.W_OK | os.X_OK)


class _Command:
    """One command that the session's worker runs for us."""

    def __init__(self, connection: _socket.socket, session: int) -> None:
        self._connection = connection
        self._session = session
        self._received = b""
        self._early: list[int] = []
        self._has_begun = False
        self._before: list[tuple[int, object]] = []

    def run(self, request: bytes) -> int:
        """Returns its exit code."""
        self._listen()
        try:
            self._send(request)
            kind, _ = self._answer()
            if kind != frames.TAKEN:
                if kind == frames.STALE:
                    start(place.folder(), place.name_of(place.identity()))
                raise Unavailable
            self._go()
            return self._wait()
        finally:
            self._unlisten()
            if not self._has_begun:
                for number in self._early:  # whoever runs it now has not heard of them
                    os.kill(os.getpid(), number)

    def _wait(self) -> int:
        while True:
            kind, value = self._answer()
            if kind == frames.EXITED:
                return value
            if kind == frames.HANDED_BACK:
                raise Unavailable
            if kind == frames.KILLED:
                self._unlisten()
                _die(value)
            if kind == frames.STOPPED:
                self._stop(value)

    def _send(self, request: bytes) -> None:
        try:
            self._connection.sendall(request)
        except OSError as error:  # it has just ended
            raise Unavailable from error
        # From here on the interpreter itself writes each signal's number to the session.
        _signal.set_wakeup_fd(self._connection.fileno(), warn_on_full_buffer=False)
        for number in self._early:
            self._pass_on(number)

    def _go(self) -> None:
        try:
            here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable from error
        try:
            rights = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2, here))
            control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
            self._connection.sendmsg([frames.GO], control)
        except OSError as error:
            raise Unavailable from error
        finally:
            os.close(here)
        self._has_begun = True
        self._connection.settimeout(_LONG)

    def _answer(self) -> tuple[bytes, int]:
        """The next answer.

        Raises:
            Unavailable: There was none before anything was begun.
            Lost: There is none any more.
        """
        while len(self._received) < frames.ANSWER:
            try:
                more = self._connection.recv(frames.ANSWER - len(self._received))
            except TimeoutError:
                if self._has_begun:
                    continue
                raise Unavailable from None
            except OSError:
                more = b""
            if not more:
                _signal.set_wakeup_fd(-1)
                raise Lost if self._has_begun else Unavailable
            self._received += more
        said, self._received = self._received, b""
        return said[:1], int.from_bytes(said[1:], "big")

    def _listen(self) -> None:
        for number in _PASSED_ON:
            handler = _signal.getsignal(number)
            if handler is not _signal.SIG_IGN:  # as from nohup, or a script's `&`
                self._before.append((number, handler))
                _signal.signal(number, self._heard)

    def _unlisten(self) -> None:
        _signal.set_wakeup_fd(-1)
        for number, handler in self._before:
            _signal.signal(number, handler)
        self._before.clear()

    def _heard(self, number: int, _frame: object) -> None:
        if not self._has_begun:
            self._early.append(number)
            return
        try:  # one that somebody has stopped would not pass it on, and Ctrl-C end nothing
            os.kill(self._session, _signal.SIGCONT)
        except OSError:
            return  # the next answer tells

    def _pass_on(self, number: int) -> None:
        try:
            self._connection.send(bytes((number,)))
        except OSError:
            return  # the next answer tells

    def _stop(self, number: int) -> None:
        """Stops as the worker did, such that the shell sees it; goes on with it."""
        handler = _signal.getsignal(number) if number != _signal.SIGSTOP else None
        if handler is not None:
            _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
        if handler is not None:
            _signal.signal(number, handler)
        # Nobody can stop who has no shell to go on by; then the worker goes on at once.
        self._pass_on(_signal.SIGCONT)


def _die(number: int) -> NoReturn:
    if number not in (_signal.SIGKILL, _signal.SIGSTOP):
        _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
