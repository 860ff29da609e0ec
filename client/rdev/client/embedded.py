"""The embedded agent: an agent on this machine, started by whoever needs it first."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from rdev.protocol.errors import AgentStartFailed
from rdev.wire.home import Home, short_socket_path

# Two clients may start an agent at once; the one whose agent lost the lock waits for the other's.
_WINNER_DEADLINE = 10.0
_WINNER_POLL = 0.02


def ensure_agent(home: Home) -> None:
    """Returns once an agent answers at `home`, starting one if there is none.

    Raises:
        AgentStartFailed: None could be started; the cause is what it said itself.
    """
    if _answers(home):
        return
    started = subprocess.run(
        [sys.executable, "-I", "-m", "rdev.agent.main", "serve", "--detach"],
        env=None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode == 0:
        return
    if "process" in started.stderr and _answers_before(home, time.monotonic() + _WINNER_DEADLINE):
        return
    lines = started.stderr.strip().splitlines() or [f"it exited with {started.returncode}"]
    said = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    raise AgentStartFailed("start the agent of this machine", said[0].removeprefix("error: "))


def _answers_before(home: Home, deadline: float) -> bool:
    while not _answers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(_WINNER_POLL)
    return True


def _answers(home: Home) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            with short_socket_path(home.socket) as path:
                probe.connect(path)
        except OSError:
            return False
    return True
