"""`python -m rdev.agent.bridge`: what ssh starts to reach the agent; it starts a missing one.

    ssh --stdin--> bridge --> agent.sock     an end of file is passed on; the agent then hangs up
    ssh <-stdout-- bridge <-- agent.sock     the end of the agent's bytes ends the bridge

Two lines on stdout come first: `rdev-bridge at` with the agent's socket, and `rdev-bridge ready`;
or one, `rdev-bridge failed` and an error as JSON. Bytes are moved by the kernel where it can, so a
bridge costs little beside ssh's own work. It ends when ssh hangs up, whatever the agent does.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import sys

from rdev.wire.home import HOME_VARIABLE, Home, UnsafePathError, check_private, this_home
from rdev.wire.unix import connect, peer_uid

TYPE_CHECKING = False  # as the type checker reads it; `typing` costs more than a bridge imports
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

# The first words of the line that says how it went; rc files may have printed anything before.
_READY, _FAILED = b"\nrdev-bridge at %s\nrdev-bridge ready\n", b"\nrdev-bridge failed %s\n"

# As much as a pipe may hold for an ordinary user; more only moves the waiting.
_PIECE = 1 << 20

_STDIN, _STDOUT = 0, 1

# sshd runs a command with less than a login has: an agent started here asks the login's shell.
_AS_LOGIN = ("--login",)


def main(words: list[str]) -> int:
    """Runs a bridge until either side hangs up; returns the exit code.

    Args:
        words: The command line after the verb: nothing, or `--home FOLDER`.
    """
    import fcntl

    if words[:1] == ["--home"] and len(words) == 2:
        os.environ[HOME_VARIABLE] = os.path.expanduser(words[1])
    elif words:
        sys.stderr.write("usage: rdev-agent bridge [--home FOLDER]\n")
        return 2
    for descriptor in (_STDIN, _STDOUT):  # whoever had it before us may have left it otherwise
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    try:
        home = this_home()
        agent = _serving(home) or _started(home)
    except Exception as error:
        if (known := _known(error)) is None:
            raise
        _write(_STDOUT, _FAILED % known.encode())
        return 1
    with contextlib.suppress(OSError):  # ssh has gone: so do we
        _write(_STDOUT, _READY % os.fsencode(home.socket))
        _pump(agent)
    agent.close()
    return 0


def _serving(home: Home) -> _socket.socket | None:
    """A connection to the agent that serves; None if none does, as far as can be seen at once."""
    try:
        if (live := home.live) != home.host:
            check_private(live)  # others may write beside it
        return _ours(connect(home.socket), home)
    except OSError:  # whatever is wrong is said by what would start one
        return None


def _started(home: Home) -> _socket.socket:
    """A connection to the home's agent, which is started if need be."""
    # What starts one costs several times what a bridge to one that serves imports.
    from rdev.protocol.starting import ensure_agent

    ensure_agent(home, options=_AS_LOGIN)
    try:
        found = connect(home.socket)
    except OSError:  # it died between the two
        ensure_agent(home, options=_AS_LOGIN)
        found = connect(home.socket)
    return _ours(found, home)


def _ours(agent: _socket.socket, home: Home) -> _socket.socket:
    if (uid := peer_uid(agent)) != os.geteuid():
        agent.close()
        raise UnsafePathError(f"{home.socket} is served by user {uid}")
    agent.settimeout(None)
    return agent


def _known(error: Exception) -> str | None:
    """What a person can be told of an error, as JSON; None for a defect."""
    from rdev.protocol.errors import RdevError, error_as_json, os_failure

    if isinstance(error, OSError):
        error = os_failure("reach the agent", error)
    return error_as_json(error) if isinstance(error, RdevError) else None


def _pump(agent: _socket.socket) -> None:
    """Moves bytes both ways; returns when the agent hangs up or ssh does."""
    import threading

    ended = threading.Event()
    for work in (
        lambda: _move(_STDIN, agent.fileno(), at_end=lambda: agent.shutdown(_socket.SHUT_WR)),
        lambda: _move(agent.fileno(), _STDOUT, at_end=ended.set),
        lambda: _await_hang_up(ended),
    ):
        threading.Thread(target=work, daemon=True).start()
    ended.wait()


def _await_hang_up(ended: threading.Event) -> None:
    # An end of file on stdin may be half a goodbye; nobody reading stdout any more is a whole one.
    import select

    waiting = select.poll()
    waiting.register(_STDOUT, 0)
    waiting.poll()
    ended.set()


def _move(source: int, target: int, *, at_end: Callable[[], object]) -> None:
    """Moves bytes until the source ends or the target takes no more."""
    reader, writer = os.pipe()
    try:
        with contextlib.suppress(OSError):  # the least size serves as well
            _widen(writer)
        with contextlib.suppress(OSError):
            _splice_all(source, target, reader, writer)
    finally:
        os.close(reader)
        os.close(writer)
        with contextlib.suppress(OSError):
            at_end()


def _widen(pipe: int) -> None:
    import fcntl

    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIECE)


def _splice_all(source: int, target: int, reader: int, writer: int) -> None:
    # One of the two ends of a splice must be a pipe, and sshd gives us sockets.
    while True:
        try:
            count = os.splice(source, writer, _PIECE)
        except OSError as error:
            if not _cannot_splice(error):
                raise
            break
        if count == 0:
            return
        while count:
            count -= os.splice(reader, target, count)
    while data := os.read(source, _PIECE):  # such as a terminal, by hand
        _write(target, data)


def _cannot_splice(error: OSError) -> bool:
    import errno

    return error.errno == errno.EINVAL


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
