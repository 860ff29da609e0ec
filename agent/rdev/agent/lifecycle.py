"""Starting and ending the one agent of a home: the lock, the detached start, the stop.

serve --detach:  parent -> child (own session) -> `ready` or an error line through a pipe
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO

from rdev.protocol.errors import (
    AgentBusy,
    AgentStartFailed,
    PermissionRefused,
    RdevError,
    error_as_json,
    error_from_json,
    os_failure,
)
from rdev.wire.home import Home, UnsafePathError, answers, make_private

_READY = "ready"


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Holds the home's lock, with our process id in it, for as long as the block runs.

    Raises:
        AgentBusy: Another agent holds it.
        UnsafePathError: A folder of the home is not ours alone.
    """
    for folder in (home.root, os.path.dirname(home.host), home.host, home.run, home.jobs):
        make_private(folder)
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentBusy("serve this home", f"process {_read_pid(home)} does") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def serving_pid(home: Home) -> int | None:
    """Process id of the agent that answers at the home's socket, or None if none does."""
    # By the socket and not by the lock: to try the lock would make an agent fail that just starts.
    return _read_pid(home) if answers(home) else None


def _read_pid(home: Home) -> int:
    with open(home.lock, encoding="ascii") as file:
        return int(file.read() or 0)


def start_detached(home: Home) -> int:
    """Starts an agent in a session of its own and returns its process id once it serves.

    Raises:
        AgentBusy: One serves already.
        AgentStartFailed: It ended before it served; the agent's log says why.
        RdevError: What the new agent itself reported.
    """
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as reports:
        try:
            process = _spawn(home, writer)
        finally:
            os.close(writer)
        report = reports.readline()
    if report.strip() == _READY:
        return _disown(process)
    process.wait()
    raise (
        error_from_json(report)
        if report
        else AgentStartFailed(
            "start the agent", f"it ended with status {process.returncode}; see {home.log}"
        )
    )


def _spawn(home: Home, ready_fd: int) -> subprocess.Popen[bytes]:
    for folder in (home.root, os.path.dirname(home.host), home.host):
        make_private(folder)
    command = [sys.executable, "-I", "-m", "rdev.agent.main", "serve", "--ready-fd", str(ready_fd)]
    with _open_log(home) as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "RDEV_HOME": home.root},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ready_fd],
            start_new_session=True,
        )


def _open_log(home: Home) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return open(os.open(home.log, flags, 0o600), "ab")


def _disown(process: subprocess.Popen[bytes]) -> int:
    # The agent outlives us on purpose; without this, Popen warns when it is collected.
    process.returncode = 0
    return process.pid


@contextlib.contextmanager
def reporting(ready_fd: int | None) -> Iterator[Callable[[], None]]:
    """Tells the process that started us how it went, once: that we serve, or why we do not.

    Args:
        ready_fd: Write end of the pipe it reads; None if nobody asked.

    Yields:
        What to call when we serve.
    """
    if ready_fd is None:
        yield lambda: None
        return
    with open(ready_fd, "w", encoding="utf-8", closefd=True) as pipe:

        def on_ready() -> None:
            with contextlib.suppress(BrokenPipeError):
                print(_READY, file=pipe, flush=True)
            pipe.close()

        try:
            yield on_ready
        except (RdevError, OSError) as error:
            if not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    print(error_as_json(known(error)), file=pipe, flush=True)
            raise


def known(error: RdevError | OSError) -> RdevError:
    """The error to tell a person when an agent cannot serve its home."""
    if isinstance(error, RdevError):
        return error
    if isinstance(error, UnsafePathError):
        return PermissionRefused("trust the agent's home", str(error))
    return os_failure("use the agent's home", error)


def terminate(pid: int) -> None:
    """Asks the agent with this process id to end; no job ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
