"""Where an agent keeps its state, and how far a file there is trusted.

One home may be shared by many machines over a network file system, so everything that belongs to a
running machine lies under `hosts/<machine-id>`. Client and agent on one machine both come here to
agree on the place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from dataclasses import dataclass

from rdev.wire.unix import connect

HOME_VARIABLE = "RDEV_HOME"


class UnsafePathError(PermissionError):
    """A file, folder or socket is not ours alone; nothing in it may be trusted."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one agent.

    Attributes:
        root: The state folder, `~/.rdev` or RDEV_HOME.
        machine_id: Id of this machine.
    """

    root: str
    machine_id: str

    @property
    def host(self) -> str:
        """What belongs to this machine alone."""
        return os.path.join(self.root, "hosts", self.machine_id)

    @property
    def run(self) -> str:
        """Holds the agent's socket and lock."""
        return os.path.join(self.host, "run")

    @property
    def socket(self) -> str:
        """The agent's socket."""
        return os.path.join(self.run, "agent.sock")

    @property
    def lock(self) -> str:
        """Locked by the one agent that serves, and holds its process id."""
        return os.path.join(self.run, "agent.lock")

    @property
    def log(self) -> str:
        """What the agent has to say."""
        return os.path.join(self.host, "agent.log")

    @property
    def jobs(self) -> str:
        """One folder a job."""
        return os.path.join(self.host, "jobs")


def this_home() -> Home:
    """The home that this process's environment names."""
    root = os.environ.get(HOME_VARIABLE) or os.path.join(os.path.expanduser("~"), ".rdev")
    return Home(os.path.abspath(root), machine_id())


def machine_id() -> str:
    """Id of this machine, 16 hexadecimal digits.

    Machine id and host name together: containers of one image often share the first, and machines
    of one cluster sometimes do.
    """
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            machine = file.read().strip()
    except OSError:
        machine = ""
    seed = f"{machine}\n{socket.gethostname()}".encode()
    return hashlib.blake2b(seed, digest_size=8).hexdigest()


def boot_id() -> str:
    """Id of the running kernel's boot; empty where the platform has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def make_private(folder: str) -> None:
    """Makes a folder, and its parents, for us alone.

    Raises:
        UnsafePathError: It exists and belongs to somebody else, or others may enter it.
        OSError: It cannot be made.
    """
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    check_private(folder)


def check_private(path: str) -> None:
    """Returns if `path` is ours and nobody else may use it.

    Raises:
        UnsafePathError: Wrong owner, group or other bits, or a symbolic link.
        OSError: It cannot be looked at.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePathError(f"{path} is a symbolic link")
    if found.st_uid != os.geteuid():
        raise UnsafePathError(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise UnsafePathError(f"{path} has mode {mode:04o}; group and others must have none")


def answers(home: Home) -> bool:
    """True if something accepts connections at the home's socket."""
    try:
        connect(home.socket).close()
    except OSError:
        return False
    return True
