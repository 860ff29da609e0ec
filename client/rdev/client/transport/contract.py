"""What rdev needs of an ssh connection: run a command there, and join a socket to one.

A bridge says this on its stdout before the bytes of the agent, because rc files may have
printed anything before it:

    rdev-bridge at /home/me/.rdev/..  the agent's socket there; an earlier release's does not say it
    rdev-bridge ready                 from here on stdin and stdout are the agent's socket
    rdev-bridge failed {"reason":..}  an error as JSON, see `rdev.protocol.errors.error_as_json`
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

from rdev.client.transport.shortcut import Shortcut

AT = b"rdev-bridge at "
READY = b"rdev-bridge ready"
FAILED = b"rdev-bridge failed "

# What a command may print in bytes, and complain of: ours print some KiB, and a host that is
# broken, or wishes us ill, shall not fill this machine's memory.
LONGEST_OUTPUT = 16 << 20
LONGEST_COMPLAINT = 4 << 20


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command on the host ended.

    Attributes:
        code: Its exit code; 127 and 126 where the login shell could not start it.
        stdout: What it printed.
        stderr: What it complained of, and what ssh did; the first `LONGEST_COMPLAINT` of it.
    """

    code: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """Access to one host, opened at the first use and kept until `close`.

    Methods may be called side by side from one event loop. A cancelled call ends its command's
    connection; what the command did so far stands. Nothing is ever tried a second time by itself,
    least of all a login: whoever has been refused asks a person first.

    Commands are given to the user's login shell there, which may be bash, csh or fish: callers send
    a script to `sh -s` through `feed`, and keep the command to words without quotes.

    Raises (all methods):
        HostUnreachable: Its name is unknown, nothing answers, or the connection broke.
        LoginRefused: No key or password is taken, or a question could not be asked; every later
            call raises it again at once.
        HostKeyRefused: The host's key is unknown and nobody can be asked, or has changed.
    """

    @property
    def name(self) -> str:
        """The implementation: `openssh` or `paramiko`."""
        ...

    async def login(self) -> None:
        """Sees to it that the host lets us in, asking a person what has to be asked.

        The others do it by themselves; whoever has no time to wait for a person calls it before.
        """
        ...

    async def run(self, command: str, *, feed: bytes = b"", patience: float = 60.0) -> Ran:
        """Runs a command, feeds its stdin, and collects what it prints.

        Args:
            command: Words for the login shell.
            feed: All of its stdin; an end of file follows.
            patience: Seconds until it is given up; questions that a person is asked do not count.

        Raises:
            TimedOut: It took longer, as one does that complains without end.
            HostUnreachable: It printed more than `LONGEST_OUTPUT`.
        """
        ...

    async def join(self, command: str, near: socket.socket) -> str:
        """Joins a connected socket to a bridge there; returns once the bridge said it is ready.

        From then on bytes pass until either side ends, when `near` is closed; this object owns it.
        Both directions block their writer when the other end does not read.

        Returns:
            Path of the agent's socket there; empty if the bridge did not say it.

        Raises:
            CommandNotFound: The login shell found no such command: rdev is not there any more.
            RdevError: What the bridge said itself.
        """
        ...

    async def shortcut(self, agent: str) -> Shortcut | None:
        """Where a socket here would be that leads to an agent without a bridge; None for nowhere.

        Nothing is asked of the host, and hardly anything of ssh.

        Args:
            agent: Names the agent, and its release.
        """
        ...

    def lay(self, shortcut: Shortcut, far: str) -> None:
        """Begins to have a shortcut lead to a socket of the host, for later commands.

        It never raises, and nobody is told if it cannot be; `close` waits for it.

        Args:
            shortcut: As `shortcut` gave it.
            far: The path that `join` returned.
        """
        ...

    async def hang_up(self) -> bool:
        """Ends what `close` leaves open for later commands; True if there was something.

        Other commands that use it break off. What the user has configured for themselves stays.
        """
        ...

    async def close(self) -> None:
        """Ends all that was started here; never raises."""
        ...
