"""Where live state lies: in the home, or on a local disk if the home is on a network file system.

    looked at --a place is recorded, or jobs lie in the home--> kept as long as it is in use
        '--nothing is in use: policy and file system decide--> the home
                                  '--> `<base>/rdev-<uid>-<random>`, 0700, recorded in the home
        '--the recorded place has vanished, or is somebody else's--> decided anew

Sockets and FIFOs of a network file system do not reach another process on some of them, locks are
off on some, and logs cross the network twice. `$XDG_RUNTIME_DIR` would be deleted with the person's
last login session. The folder's name is random and it is made by us or not at all, so nobody can
put one in its place beforehand; when it has vanished, another one gets another name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator

from rdev.protocol.errors import ConfigError
from rdev.wire.blocks import private, sync_directory
from rdev.wire.home import ROOT_NAME, Home, check_private, make_private, recorded_local

_log = logging.getLogger(__name__)

# Values of `local_state` beside a folder.
AUTO, OFF = "auto", "off"

# Lasts over a reboot on most machines, and is on a local disk on nearly all.
_BASE = "/var/tmp"  # a folder of a random name is made in it, for us alone

# As mount(8) names them. A FUSE file system may be anything; these go over a network.
_NETWORK = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs"),
        *("beegfs", "panfs", "pvfs2", "orangefs", "glusterfs", "wekafs", "ocfs2", "gfs2", "coda"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.juicefs"),
        *("fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.lizardfs", "fuse.mfs", "fuse.davfs"),
        *("fuse.afs", "fuse.mount_glusterfs", "fuse.beegfs", "fuse.goofys", "fuse.seaweedfs"),
    )
)

# How the kernel writes what would break a line of the mount table: \040 is a space.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def is_network(kind: str) -> bool:
    """True if a file system of that type may be on another machine."""
    return kind in _NETWORK


def file_system(path: str, mounts: bytes) -> str:
    """Type of the file system that a path lies on; empty if the table does not say.

    Args:
        path: Absolute, without symbolic links.
        mounts: What /proc/self/mountinfo says, see proc_pid_mountinfo(5).
    """
    found, longest = "", -1
    wanted = os.fsencode(path)
    for line in mounts.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ", 1)[0]
        if len(fields) < 5 or not kind:
            continue
        point = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        is_above = wanted == point or wanted.startswith(point.rstrip(b"/") + b"/")
        # A later mount on the same folder covers the earlier one.
        if is_above and len(point) >= longest:
            found, longest = kind.decode(errors="replace"), len(point)
    return found


def base_for(policy: str, kind: str) -> str | None:
    """The folder to make ours in; None keeps live state in the home.

    Args:
        policy: `auto`, `off`, or a folder.
        kind: Type of the file system that the home lies on.
    """
    if policy == OFF:
        return None
    if policy == AUTO:
        return _BASE if is_network(kind) else None
    return policy


def settle(home: Home, policy: str) -> None:
    """Sees to it that `home.live` is a folder of ours that live state can lie in.

    Args:
        home: Its folder of this machine exists.
        policy: `auto`, `off`, or a folder.

    Raises:
        ConfigError: The folder of the policy cannot be used.
        UnsafePathError: The place that is recorded is ours and others may enter it.
        OSError: The home cannot be written.
    """
    recorded = recorded_local(home)
    if recorded is not None and is_ours(recorded):
        check_private(recorded)
        if _is_in_use(recorded):
            return
    elif recorded is not None:
        _log.warning("%s has vanished, and with it what live jobs had there", recorded)
    elif _is_in_use(home.host):
        return
    base = base_for(policy, file_system(os.path.realpath(home.host), _mounts()))
    if recorded is not None and base == os.path.dirname(recorded) and is_ours(recorded):
        return
    made = _made(base, is_asked_for=policy != AUTO) if base is not None else None
    _record(home, made, instead_of=recorded)


def is_ours(path: str) -> bool:
    """True if a folder is there and belongs to us; a symbolic link is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


@contextlib.contextmanager
def kept(home: Home) -> Iterator[None]:
    """Keeps cleaners of temporary files from the live folder, as long as the block runs.

    systemd-tmpfiles(8) leaves alone what lies below a folder that somebody has locked.
    """
    if home.live == home.host:
        yield
        return
    descriptor = os.open(home.live, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_in_use(live: str) -> bool:
    """True if jobs lie there, or an agent has it: whoever moved on would not find them."""
    with contextlib.suppress(OSError):
        if os.listdir(os.path.join(live, "jobs")):
            return True
    try:
        lock = os.open(os.path.join(live, "run", "agent.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno != errno.ENOLCK  # a network file system without locks has no agent
    finally:
        os.close(lock)
    return False


def _mounts() -> bytes:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _made(base: str, *, is_asked_for: bool) -> str | None:
    """A new folder of ours in `base`; None if there can be none and nobody asked for it."""
    path = os.path.join(base, f"rdev-{os.geteuid()}-{secrets.token_hex(8)}")
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        cause = f"{base}: {error.strerror}"
        if is_asked_for:
            hint = "set it to a folder on a local disk that you may write to, or to `auto`"
            raise ConfigError("use `local_state`", cause, hint=hint) from error
        _log.warning("live state stays on a network file system, for there is no other: %s", cause)
        return None
    check_private(path)
    return path


def _record(home: Home, made: str | None, *, instead_of: str | None) -> None:
    """Names the folder in the home; of two agents that start at once, the first one's stays."""
    if made is None:
        if instead_of is not None:
            os.unlink(home.local)
        return
    temporary = f"{home.local}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(os.fsencode(made) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        if instead_of is not None:
            os.replace(temporary, home.local)
        else:
            _place(temporary, home.local)
    except FileExistsError:
        os.rmdir(made)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_directory(home.host)


def _place(temporary: str, path: str) -> None:
    """Gives a file its name, unless another has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: two that start at once are bad luck there
        os.replace(temporary, path)


def _say_whose(home: Home) -> None:
    path = os.path.join(home.live, ROOT_NAME)
    if os.path.exists(path):
        return
    with contextlib.suppress(FileExistsError), open(path, "xb", opener=private) as file:
        file.write(os.fsencode(home.root) + b"\n")


def prepare(home: Home, policy: str) -> None:
    """Makes the folders of the home, for us alone, and settles where live state lies.

    Raises:
        ConfigError: The folder of the policy cannot be used.
        UnsafePathError: A folder is not ours alone.
        OSError: One cannot be made.
    """
    for folder in (home.root, os.path.dirname(home.host), home.host):
        make_private(folder)
    settle(home, policy)
    for folder in (home.live, home.run, home.jobs):
        make_private(folder)
    if home.live != home.host:
        make_private(home.ledger)
        _say_whose(home)
