"""The embedded agent: an agent on this machine, started by whoever needs it first."""

from __future__ import annotations

import subprocess
import sys
import time

from rdev.protocol.errors import AgentBusy, AgentStartFailed, RdevError, error_from_json
from rdev.wire.home import Home, answers

# Two clients may start an agent at once; the one whose agent lost the lock waits for the other's.
_WINNER_DEADLINE = 10.0
_WINNER_POLL = 0.02


def ensure_agent(home: Home) -> None:
    """Returns once an agent answers at `home`, starting one if there is none.

    Raises:
        AgentStartFailed: None could be started.
        RdevError: What the new agent said itself, such as PermissionRefused.
    """
    if answers(home):
        return
    started = subprocess.run(
        [sys.executable, "-I", "-m", "rdev.agent.main", "serve", "--detach", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode == 0:
        return
    error = _said(started)
    if not (isinstance(error, AgentBusy) and _answers_soon(home)):
        raise error


def _answers_soon(home: Home) -> bool:
    deadline = time.monotonic() + _WINNER_DEADLINE
    while not answers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(_WINNER_POLL)
    return True


def _said(started: subprocess.CompletedProcess[str]) -> RdevError:
    lines = started.stderr.strip().splitlines() or [f"it exited with {started.returncode}"]
    try:
        return error_from_json(lines[-1])
    except ValueError:
        return AgentStartFailed("start the agent of this machine", lines[-1])
