"""Starting and ending the one agent of a home: the lock, the detached start, the stop.

serve --detach:   parent -> child (own session) -> `ready` or an error line through a pipe
serve --replace:  all is imported and checked -> the agent that serves is asked to end -> its lock
                  is taken as soon as it is free; until that question the old agent serves on
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from rdev.agent.local import AUTO, kept, prepare
from rdev.agent.scope import scoped
from rdev.protocol.errors import (
    AgentBusy,
    AgentStartFailed,
    ConfigError,
    PermissionRefused,
    RdevError,
    TimedOut,
    error_as_json,
    error_from_json,
    os_failure,
)
from rdev.supervisor.processes import is_alive, look_at
from rdev.wire.channel import JOB_VARIABLE, SOCKET_VARIABLE
from rdev.wire.guard import (
    AgentRecord,
    forget_agent,
    guard_lock,
    read_agent,
    record_path,
    write_agent,
)
from rdev.wire.home import (
    HOME_VARIABLE,
    Home,
    HomeUnknownError,
    LinkedPathError,
    UnsafePathError,
    answers,
)

_log = logging.getLogger(__name__)

_READY = "ready"

# An agent ends within its own grace for open calls and work in progress; a busy machine may need a
# little longer.
_STOP_DEADLINE = 10.0

# Whoever asks whether the lock is held has it for an instant; an agent that starts waits that out.
_GLANCE = 0.1
_POLL = 0.002

# Two of these are kept: months of what an agent has to say, and more of it helps nobody.
_LONGEST_LOG = 4 << 20

_NAME_HOME = "RDEV_HOME=/a/folder/of/yours"
_NAME_OTHER = (
    "see that it can be written, or name another folder: RDEV_HOME here, `rdev up HOST --home DIR` "
    "for another host"
)
_NAME_TARGET = (
    "name the folder that it leads to: RDEV_HOME here, `rdev up HOST --home DIR` for another host"
)

# An agent that was started in a job is no process of that job.
_MARKERS = frozenset({JOB_VARIABLE, SOCKET_VARIABLE})


def take_over_process() -> None:
    """Makes this process fit for an agent: what it makes is its user's alone, and it may open much.

    Whoever follows a job of many ranks takes two descriptors for each, and many may follow.
    """
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def locked(home: Home, *, local_state: str = AUTO, replacing: bool = False) -> Iterator[None]:
    """Holds the home's lock, with our process id in it, for as long as the block runs.

    Args:
        home: What to serve.
        local_state: Where live state lies, see `rdev.agent.local`.
        replacing: An agent that holds it is asked to end, and followed at once.

    Raises:
        AgentBusy: Another agent holds it.
        TimedOut: That agent does not end.
        ConfigError: Live state cannot lie there.
        UnsafePathError: A folder of the home is not ours alone.
    """
    prepare(home, local_state)
    with kept(home):
        yield from _locked(home, replacing=replacing)


def _locked(home: Home, *, replacing: bool) -> Iterator[None]:
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if replacing:
            _succeed(descriptor, home)
        elif not _takes(descriptor, fcntl.LOCK_EX, patience=_GLANCE):
            raise AgentBusy("serve this home", f"process {_read_pid(home)} does")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _succeed(descriptor: int, home: Home) -> None:
    """Locks the file; whoever has it is asked to end, and so is who else may take it meanwhile."""
    asked, deadline = 0, time.monotonic() + _STOP_DEADLINE
    while not _takes(descriptor, fcntl.LOCK_EX, patience=_GLANCE):
        pid = _read_pid(home)
        if pid not in (0, asked):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            asked = pid
        if time.monotonic() > deadline:
            raise _does_not_end("replace", pid)


def _takes(descriptor: int, kind: int, *, patience: float) -> bool:
    """Locks an open file; False if others have it for all of that time, in seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        else:
            return True


def options_of(home: Home) -> tuple[str, ...]:
    """The options of the agent that serves, for the one that follows it."""
    record = read_agent(home.live)
    return record.argv[len(_command()) :] if record is not None else ()


def serving_pid(home: Home) -> int | None:
    """Process id of the agent that answers at the home's socket, or None if none does."""
    return _read_pid(home) if answers(home) else None


def holder(home: Home) -> int | None:
    """Process id of the agent that has the home, whether it answers or not; None if none has."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _takes(descriptor, fcntl.LOCK_SH, patience=0):
            return None
    finally:
        os.close(descriptor)
    return _read_pid(home) or None


def call_off(home: Home) -> int | None:
    """Nobody has the home, and nobody shall: no supervisor starts an agent again.

    Returns:
        The agent that a supervisor was just starting, if it has the home now.

    Raises:
        TimedOut: That agent neither serves nor fails.
    """
    record = read_agent(home.live)
    if record is None:
        return None
    descriptor = os.open(guard_lock(home.live), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _takes(descriptor, fcntl.LOCK_EX, patience=_STOP_DEADLINE):
            raise TimedOut("stop the agent", f"one has been starting for {_STOP_DEADLINE:.0f} s")
        pid = holder(home)
        if pid is None:
            forget_agent(home.live, record.pid)
        return pid
    finally:
        os.close(descriptor)


def call_off_others(home: Home) -> None:
    """After the end of an agent: nobody brings back one that was killed before it.

    An agent that ends before it has recorded itself leaves its predecessor's record.

    Raises:
        TimedOut: An agent that a supervisor is just starting neither serves nor fails, or one does
            not end.
    """
    record = read_agent(home.live)
    while record is not None and not is_alive(record.pid, ticks=record.ticks):
        pid = call_off(home)
        if pid is None:
            return
        end(pid)
        record = read_agent(home.live)


def _read_pid(home: Home) -> int:
    with open(home.lock, encoding="ascii") as file:
        return int(file.read() or 0)


def start_detached(home: Home, *, local_state: str = AUTO, options: Sequence[str] = ()) -> int:
    """Starts an agent in a session of its own and returns its process id once it serves.

    Args:
        home: What it is to serve.
        local_state: Where live state lies, see `rdev.agent.local`.
        options: Of `rdev-agent serve`, such as `--replace`: once the new agent has started so far
            that it can serve, it follows the one that does.

    Raises:
        AgentBusy: One serves already.
        AgentStartFailed: It ended before it served; the agent's log says why.
        RdevError: What the new agent itself reported.
    """
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as reports:
        try:
            process = _spawn(home, writer, options, local_state=local_state)
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


def _spawn(
    home: Home, ready_fd: int, options: Sequence[str], *, local_state: str
) -> subprocess.Popen[bytes]:
    prepare(home, local_state)
    environment = {**os.environ, **_at(home)}
    command = scoped([*_command(), *options, "--ready-fd", str(ready_fd)], environment)
    with _open_log(home) as log:
        return subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ready_fd],
            start_new_session=True,
        )


def _command() -> list[str]:
    return [sys.executable, "-I", "-m", "rdev.agent.main", "serve"]


def _at(home: Home) -> dict[str, str]:
    return {HOME_VARIABLE: home.root}


def _open_log(home: Home) -> IO[bytes]:
    with contextlib.suppress(OSError):  # there is none yet, or it grows on
        if os.stat(home.log).st_size > _LONGEST_LOG:
            os.replace(home.log, f"{home.log}.1")
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


def be_guarded(home: Home, *, umask: int, options: Sequence[str] = ()) -> None:
    """Leaves a record by which the supervisors of live jobs start this agent again if it is killed.

    Args:
        home: What this agent serves.
        umask: The umask it was started with.
        options: Of `rdev-agent serve`, for the next one too.
    """
    try:
        write_agent(home.live, _this_agent(home, umask, options))
    except OSError as error:  # a full disk is no reason not to serve
        _log.warning("nobody will start this agent again if it is killed: %s", error)
        with contextlib.suppress(OSError):
            os.unlink(record_path(home.live))


def _this_agent(home: Home, umask: int, options: Sequence[str]) -> AgentRecord:
    process = look_at(os.getpid())
    return AgentRecord(
        pid=os.getpid(),
        ticks=process.ticks if process else 0,
        served=time.monotonic(),
        argv=(*_command(), *options),
        environment={k: v for k, v in os.environ.items() if k not in _MARKERS} | _at(home),
        directory=os.getcwd(),
        umask=umask,
        log=home.log,
    )


def known(error: RdevError | OSError) -> RdevError:
    """The error to tell a person when an agent cannot serve its home."""
    if isinstance(error, RdevError):
        return error
    if isinstance(error, UnsafePathError):
        hint = _NAME_TARGET if isinstance(error, LinkedPathError) else None
        return PermissionRefused("trust the agent's home", str(error), hint=hint)
    if isinstance(error, HomeUnknownError):
        return ConfigError("find the agent's home", str(error), hint=_NAME_HOME)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return PermissionRefused("use the agent's home", cause, hint=_NAME_OTHER)
    return os_failure("use the agent's home", error)


def end(pid: int) -> None:
    """Asks the agent with this process id to end, and waits for that; no job ends with it.

    Raises:
        TimedOut: It does not end.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], _STOP_DEADLINE)[0]:
            raise _does_not_end("stop", pid)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _does_not_end(verb: str, pid: int) -> TimedOut:
    return TimedOut(
        f"{verb} the agent",
        f"process {pid} has this home and did not end in {_STOP_DEADLINE:.0f} s",
        hint=f"`kill -9 {pid}` ends it; jobs go on, and a live one brings a new agent",
    )
