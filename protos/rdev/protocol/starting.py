"""The agent of this machine, started by whoever needs it first: a client here, or a bridge."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rdev.protocol.errors import AgentBusy, AgentStartFailed, RdevError, error_from_json
from rdev.wire.guard import guard_lock
from rdev.wire.home import HOME_VARIABLE, Home, answers

if TYPE_CHECKING:
    import subprocess

# An agent starts within a second, on a busy machine within some.
_START_DEADLINE = 30.0
_POLL = 0.02

_SERVE = (sys.executable, "-I", "-m", "rdev.agent.main", "serve", "--detach", "--json")


def ensure_agent(home: Home, *, options: Sequence[str] = ()) -> None:
    """Returns once an agent answers at `home`, starting one if there is none.

    When an agent is killed, all its clients and the supervisors of its jobs come here or to the
    like at once: one of them starts another, and the rest wait for that one.

    Args:
        home: The agent's.
        options: More of `rdev-agent serve`, for an agent that is started here.

    Raises:
        AgentStartFailed: None could be started.
        RdevError: What the new agent said itself, such as PermissionRefused.
    """
    deadline = time.monotonic() + _START_DEADLINE
    while not answers(home):
        with _starting(home) as is_ours:
            if is_ours and not answers(home):
                _start(home, options)
                return
        if time.monotonic() > deadline:
            cause = f"somebody has been starting one for {_START_DEADLINE:.0f} s"
            raise AgentStartFailed("start the agent of this machine", cause)
        time.sleep(_POLL)


@contextlib.contextmanager
def _starting(home: Home) -> Iterator[bool]:
    """Whether it is ours to start an agent, which is nobody else's inside the block then."""
    try:
        lock = os.open(guard_lock(home.live), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # the first start makes the folders, or says what is wrong with them
        yield True
        return
    try:
        yield _locks(lock)
    finally:
        os.close(lock)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(home: Home, options: Sequence[str]) -> None:
    import subprocess  # costs a bridge to an agent that serves as much as all else it imports

    started = subprocess.run(
        [*_SERVE, *options],
        env={**os.environ, HOME_VARIABLE: home.root},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode == 0:
        return
    error = _said(started)
    # One that was started by hand, or by whoever could not lock, came first.
    if not (isinstance(error, AgentBusy) and _answers_soon(home)):
        raise error


def _answers_soon(home: Home) -> bool:
    deadline = time.monotonic() + _START_DEADLINE
    while not answers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _said(started: subprocess.CompletedProcess[str]) -> RdevError:
    lines = started.stderr.strip().splitlines() or [f"it exited with {started.returncode}"]
    try:
        return error_from_json(lines[-1])
    except ValueError:
        return AgentStartFailed("start the agent of this machine", lines[-1])
