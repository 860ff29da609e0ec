"""A real tmux on a socket of its own, driven by its keys and read off its screen."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import DEADLINE, Rdev
from tests.support.peers import require_peer

# Between two looks at a screen; each look is a process of its own.
_LOOK = 0.05


class Pane:
    """One pane of a tmux, 80 characters wide unless resized."""

    def __init__(self, tmux: Tmux, name: str) -> None:
        self._tmux = tmux
        self.name = name

    def keys(self, *names: str) -> None:
        """Presses keys by tmux's names, such as `Enter`, `C-c`; several letters are typed."""
        self._tmux.do("send-keys", "-t", self.name, *names)

    def type(self, text: str) -> None:
        """Types text as it stands, then Enter."""
        self._tmux.do("send-keys", "-t", self.name, "-l", text)
        self.keys("Enter")

    def screen(self) -> str:
        """What is on the screen now."""
        return self._tmux.do("capture-pane", "-p", "-t", self.name)

    def expect(self, text: str) -> None:
        """Returns once the screen shows `text`."""
        deadline = time.monotonic() + DEADLINE
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"{text!r} never came up:\n{screen}"
            time.sleep(_LOOK)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux.do("resize-window", "-t", self.name, "-x", str(columns), "-y", str(rows))


class Tmux:
    """The server; see `real_tmux`."""

    def __init__(self, rdev: Rdev, name: str) -> None:
        self._program = [require_peer("tmux"), "-f", "/dev/null", "-L", name]
        self._rdev = rdev
        self._panes = 0

    def pane(self, columns: int = 80, rows: int = 24) -> Pane:
        """A window with a plain shell, in the person's folder."""
        self._panes += 1
        name = f"w{self._panes}"
        size = ("-x", str(columns), "-y", str(rows))
        self.do("new-session", "-d", "-s", name, *size, "-c", str(self._rdev.cwd), "sh")
        pane = Pane(self, name)
        pane.type("PS1='$ '; clear; echo up")
        pane.expect("up\n")
        return pane

    def do(self, *words: str) -> str:
        """Runs one command of tmux's; what it prints."""
        done = subprocess.run(
            [*self._program, *words],
            env=self._rdev.environment | {"TERM": "xterm-256color", "SHELL": "/bin/sh"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        return done.stdout


def end_tmux(name: str) -> None:
    """Ends the server of that socket, everything in it, and the socket, which tmux would leave."""
    program = [require_peer("tmux"), "-L", name]
    asked = subprocess.run(
        [*program, "display-message", "-p", "#{socket_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run([*program, "kill-server"], capture_output=True, check=False)
    if asked.returncode == 0:
        Path(asked.stdout.strip()).unlink(missing_ok=True)


@contextmanager
def real_tmux(rdev: Rdev) -> Iterator[Tmux]:
    """A tmux server that ends with the block."""
    name = f"rdev-test-{os.getpid()}-{rdev.home.stat().st_ino}"
    try:
        yield Tmux(rdev, name)
    finally:
        end_tmux(name)
