"""The program of a session: becomes the only one, imports all that commands need, and serves.

    lock --another session has it--> end
      '--> import -> bind -> serve

Whatever is typed meanwhile is run in process.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import pkgutil
import signal
import socket
import sys
from collections.abc import Iterator

from rdev.client.session import place
from rdev.client.session.code import Code
from rdev.client.session.running import running
from rdev.client.session.server import Session

# paramiko takes 15 MB and 60 ms, and only laptops without `ssh` use it. The probe of a host is a
# program of its own.
_LEFT_OUT = frozenset(
    f"rdev.client.{name}"
    for name in (
        *("transport.inprocess", "transport.hostkeys", "transport.credentials"),
        *("transport.jumping", "bootstrap.install", "session.serve"),
    )
)


# Of 40 MB each. A loop over PYTHONHASHSEED would have one for each turn.
_MOST = 6


def main(name: str) -> int:
    """Runs the session of the commands that have this interpreter and these variables.

    Args:
        name: What the command that started us calls it.

    Returns:
        0, or 1 if there cannot be one.
    """
    _let_go()
    folder, identity = place.folder(), place.identity()
    os.umask(0o077)
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if not place.is_private(folder):
        return 1
    os.chdir(folder)  # a socket's address is shorter than a path may be
    lock = _locked(f"{os.path.basename(name)}.lock")
    if lock is None:
        return 0
    if name != place.name_of(identity):  # it came by code, or was started, in some way of its own
        return 1
    if len(running()) > _MOST:
        return 1
    code = Code()  # what is replaced while it is being imported shows at the next command
    _import_all()
    listener = _listening(f"{name}.new")
    os.chdir("/")
    gc.collect()
    gc.freeze()  # what is never looked at by the collector stays shared with the workers
    path = os.path.join(folder, name)
    Session(listener, path, lock, identity=identity, code=code).serve()
    return 0


def _let_go() -> None:
    """Keeps nothing of the command that started us: a pipe of its shell's must end with it."""
    for name in os.listdir("/proc/self/fd"):  # there may be room for a thousand million
        if int(name) > 2:
            with contextlib.suppress(OSError):  # what the list itself was read from
                os.close(int(name))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)


def _locked(path: str) -> int | None:
    """Descriptor of the lock; None if another session has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    os.utime(descriptor)  # commands leave us in peace for a while
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    return descriptor


def _listening(name: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # of one that was killed
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(0)
    before = os.umask(0o177)
    listener.bind(name)
    os.umask(before)
    listener.listen(socket.SOMAXCONN)
    return listener


def _import_all() -> None:
    from rdev.protocol.polling import poll_directly

    poll_directly()
    for name in _modules():
        # One that lacks something is missed when it is needed, and says so then.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from rdev.client.cli.main import VERBS, parser_for

    for verb in VERBS:
        with contextlib.suppress(ImportError):
            parser_for(verb)


def _modules() -> Iterator[str]:
    import rdev.client
    import rdev.protocol
    import rdev.v1
    import rdev.wire

    # What these packages import when they first need it.
    yield from ("asyncio", "concurrent.futures.thread", "encodings.ascii", "encodings.idna")
    yield from ("argparse", "importlib.metadata", "json", "platform", "traceback")
    for package in (rdev.v1, rdev.wire, rdev.protocol, rdev.client):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name not in _LEFT_OUT:
                yield found.name


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
