"""Where an agent keeps its state, and how far a file there is trusted.

    <home>/dist, workspaces, store, envs     shared by all machines that have this home
    <home>/hosts/<machine-id>/               what belongs to one machine and has to last
    <home>/hosts/<machine-id>/local          names the folder for what is live, if that is another
    <live>/run, jobs, strangers, agent.log   sockets, FIFOs, locks and logs
    <live>/home                              names the home, if it lies elsewhere

One home may be shared by many machines over a network file system, where sockets, FIFOs and locks
are of no use: what is live lies on a local disk then, see `rdev.agent.local`, which makes that
folder when an agent first starts. Everywhere else `live` is the machine's folder in the home.
Client, agent and supervisors of one machine all come here to agree on the place.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import stat

from rdev.wire.unix import connect

HOME_VARIABLE = "RDEV_HOME"

# In a folder on a local disk: names the home that it belongs to.
ROOT_NAME = "home"

try:
    from _blake2 import blake2b as _blake2b  # as hashlib has it, without OpenSSL
except ImportError:  # another Python than CPython
    from hashlib import blake2b as _blake2b

# A path is at most 4096 bytes long, see limits.h.
_MAX_PATH = 4096


class HomeUnknownError(OSError):
    """Nothing says where this user's home is."""


class UnsafePathError(PermissionError):
    """A file, folder or socket is not ours alone; nothing in it may be trusted."""


class LinkedPathError(UnsafePathError):
    """A folder is a link, so that somebody else may decide where it leads."""


class Home:
    """The folders of one agent.

    Where what is live lies is looked up anew each time: an agent that starts may have moved it.

    Attributes:
        root: The state folder, `~/.rdev` or RDEV_HOME.
        machine_id: Id of this machine.
    """

    # No dataclass: what makes one costs a bridge to an agent more than all else that it imports.
    __slots__ = ("machine_id", "root")

    def __init__(self, root: str, machine_id: str) -> None:
        self.root = root
        self.machine_id = machine_id

    def __repr__(self) -> str:
        return f"Home({self.root!r}, {self.machine_id!r})"

    root: str
    machine_id: str

    @property
    def host(self) -> str:
        """What belongs to this machine alone, and lasts as long as the home."""
        return os.path.join(self.root, "hosts", self.machine_id)

    @property
    def local(self) -> str:
        """Names the folder for what is live, where that is not `host`."""
        return os.path.join(self.host, "local")

    @property
    def live(self) -> str:
        """Holds what processes of this machine share as long as they live."""
        return recorded_local(self) or self.host

    @property
    def login(self) -> str:
        """What jobs get of the login, as it was captured last."""
        return os.path.join(self.host, "login.json")

    @property
    def ledger(self) -> str:
        """Names the jobs that live in a folder that may vanish."""
        return os.path.join(self.host, "live-jobs")

    @property
    def run(self) -> str:
        """Holds the agent's socket and lock."""
        return os.path.join(self.live, "run")

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
        return os.path.join(self.live, "agent.log")

    @property
    def jobs(self) -> str:
        """One folder a job."""
        return os.path.join(self.live, "jobs")

    @property
    def strangers(self) -> str:
        """One folder a process that rdev did not start and that was debugged."""
        return os.path.join(self.live, "strangers")


def this_home() -> Home:
    """The home that this process's environment names.

    Raises:
        HomeUnknownError: It names none, and the user has no home directory.
    """
    root = os.environ.get(HOME_VARIABLE)
    if not root:
        user = os.path.expanduser("~")
        if not os.path.isabs(user):  # HOME is not set, and the user id has no name here
            cause = f"user {os.geteuid()} has no home directory; set RDEV_HOME to a folder"
            raise HomeUnknownError(cause)
        root = os.path.join(user, ".rdev")
    return Home(os.path.abspath(os.path.expanduser(root)), machine_id())


def root_of(live: str) -> str:
    """The state folder that a folder for what is live belongs to, without links.

    One on a local disk says so in a file; any other one is `<root>/hosts/<machine-id>`.
    """
    path = os.path.realpath(live)
    try:
        with open(os.path.join(path, ROOT_NAME), "rb") as file:
            root = os.fsdecode(file.read(_MAX_PATH).rstrip(b"\n"))
    except OSError:
        root = ""
    return os.path.realpath(root) if root else os.path.dirname(os.path.dirname(path))


def recorded_local(home: Home) -> str | None:
    """The folder on a local disk that an agent of this machine has chosen; None if none has.

    It may be gone by now, and whoever uses it has to check whose it is.
    """
    try:
        with open(home.local, "rb") as file:
            path = os.fsdecode(file.read(_MAX_PATH).rstrip(b"\n"))
    except OSError:
        return None
    return path if os.path.isabs(path) else None


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
    seed = f"{machine}\n{_socket.gethostname()}".encode()
    return _blake2b(seed, digest_size=8).hexdigest()


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
        raise LinkedPathError(f"{path} is a symbolic link")
    if found.st_uid != os.geteuid():
        raise UnsafePathError(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise UnsafePathError(f"{path} has mode {mode:04o}; group and others must have none")


def answers(home: Home) -> bool:
    """True if something accepts connections at the home's socket, in a folder of ours."""
    try:
        live = home.live
        if live != home.host:
            check_private(live)  # others may write beside it
        connect(os.path.join(live, "run", "agent.sock")).close()
    except OSError:
        return False
    return True
