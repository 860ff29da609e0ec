"""Where a session listens, and whom it is for: one name a user, release and interpreter.

    $XDG_STATE_HOME/rdev/session/<name>         its socket, 0600
    $XDG_STATE_HOME/rdev/session/<name>.lock    locked by the session that has the socket

Only what every interpreter has loaded anyway is imported: every command pays for it.
"""

from __future__ import annotations

import os
import stat
import sys

# What the interpreter, its libraries and gRPC read only once, when they are loaded: commands that
# differ in these are no business of one session.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "GRPC_", "MALLOC_", "GLIBC_")

# Those of a container that may share our home, and of which a connection leads out.
_NAMESPACES = ("mnt", "net", "pid", "user")

# A Mersenne prime: what is left of the division is as good as a hash that nobody attacks.
_PRIME = (1 << 89) - 1


def folder() -> str:
    """The folder of sessions' sockets; it may not exist."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "rdev", "session")


def start_environment() -> dict[str, str]:
    """The variables that a session is started with; all else comes with each command."""
    environment = os.environ
    kept = {name: environment[name] for name in environment if name.startswith(_READ_AT_START)}
    for name in ("HOME", "XDG_STATE_HOME"):
        if name in environment:
            kept[name] = environment[name]
    return kept


def identity() -> bytes:
    """What a command and its session have in common.

    Raises:
        OSError: It cannot be told here.
    """
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    said = [f"{name}={value}" for name, value in sorted(start_environment().items())]
    flags = sys.flags
    how = (flags.ignore_environment, flags.no_user_site, flags.no_site, flags.dev_mode)
    root = os.stat("/")  # chroot(2) makes no namespace
    # Where the code lies, and for which interpreter; what it says is compared by the session.
    parts = [sys.version, sys.executable, sys.prefix, repr(how), __file__, os.uname().nodename]
    parts.append(f"{root.st_dev} {root.st_ino}")
    return os.fsencode("\n".join([*parts, *spaces, *said]))


def name_of(identity: bytes) -> str:
    """The name of the session's socket in its folder."""
    return f"{int.from_bytes(identity, 'big') % _PRIME:023x}"


def is_private(path: str) -> bool:
    """Whether that is a folder of ours that nobody else can enter."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    )
