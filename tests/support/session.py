"""A session of the command line: a person's commands by it, and what can be seen of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import DEADLINE, Rdev


@dataclass
class Sessioned(Rdev):
    """Runs commands by a session, once there is one.

    Attributes:
        mode: `RDEV_SESSION` of its commands.
    """

    mode: str = "1"

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"RDEV_SESSION": self.mode}

    @property
    def alone(self) -> Rdev:
        """The same person without a session."""
        return Rdev(self.home, self.cwd)

    @property
    def folder(self) -> Path:
        return self.home / "state" / "rdev" / "session"

    @property
    def pids(self) -> list[int]:
        """Of the sessions that take commands."""
        sockets = [path for path in self.folder.glob("*") if path.is_socket() and not path.suffix]
        return [int(Path(f"{path}.lock").read_text()) for path in sockets]

    @property
    def pid(self) -> int:
        (pid,) = self.pids
        return pid

    def start(self, **options) -> int:
        """Returns the process id of a session that takes commands."""
        for lock in self.folder.glob("*.lock"):
            os.utime(lock, (0, 0))  # else it is left in peace for some seconds
        before = set(self.pids)
        self.run("version", **options)
        self.until(lambda: set(self.pids) - before)
        (pid,) = set(self.pids) - before
        return pid

    def until(self, condition: Callable[[], object]) -> None:
        """Returns once something is true that other processes do."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "it has not come true"
            time.sleep(0.01)

    def workers(self) -> list[int]:
        """Process ids of the session's workers."""
        pid = self.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def served(self) -> int:
        """Grows with each worker that has ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[8])  # cminflt, see proc(5)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends the sessions, and returns when they are gone."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(handle, number)
                    assert select.select([handle], [], [], DEADLINE)[0], "it goes on"
                finally:
                    os.close(handle)

    def tidy(self) -> None:
        self.end()
        self.mode = "0"
        super().tidy()


@contextlib.contextmanager
def sessioned(folder: Path) -> Iterator[Sessioned]:
    """A person with an empty home, an empty workspace, and a session."""
    home, cwd = folder / "home", folder / "project"
    home.mkdir(mode=0o700)
    cwd.mkdir()
    (cwd / "rdev.toml").touch()
    person = Sessioned(home, cwd)
    try:
        person.start()
        yield person
    finally:
        person.tidy()
