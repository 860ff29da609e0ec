"""A socket here that a shared connection leads straight to a host's agent.

    gRPC --> <folder>/s --> ssh's master --> sshd, as the login --> agent.sock

              by a bridge            asked of the master, and tried
    nothing --------------> agent there -----------------------------> s is there
       ^                                   '--> sshd refuses: a note, while this master lives
       '--- the master has gone, or nobody answers: the bridge, and asked anew ---'

Neither an ssh process nor a shell nor a bridge is started for who comes by it, and nothing but the
two processes that encrypt moves the bytes. Its folder lies in one that only we may enter, is named
after all that decides where it leads, and is swept away once its master has gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import threading

from rdev.client.transport.folders import private_folder
from rdev.wire.home import check_private, machine_id, make_private
from rdev.wire.unix import MAX_SOCKET_PATH, connect

# ssh takes these names out of `-L HERE:THERE`, and replaces tokens and variables in them.
_PLAIN = re.compile(r"/[\w/.+@,=-]*")

# Bytes of `/way-<8>-<20>/<8>`, which is what a folder has to have room for.
_ROOM = MAX_SOCKET_PATH - 43

# A master that is there answers at once, and the agent's first bytes take one round trip.
_ASK_PATIENCE = 10.0
_TRY_PATIENCE = 10.0

# Two round trips of a bad link: what has not come by then is not waited for at a command's end.
_END_PATIENCE = 2.0


class Shortcut:
    """The place of a socket that leads to one agent by one way, whether it is there or not.

    Attributes:
        path: Of the socket.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.path = os.path.join(folder, "s")
        self._master = os.path.join(folder, "master")
        self._refused = os.path.join(folder, "refused")

    def is_there(self) -> bool:
        """Whether the socket is there and ours alone; its master may have gone all the same."""
        try:
            check_private(self._folder)
            found = os.lstat(self.path)
        except OSError:
            return False
        return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()

    def remove(self) -> None:
        """Takes the socket away; who came by it goes on."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def is_refused(self, master: str) -> bool:
        """Whether this master's server has refused before."""
        return os.path.exists(self._refused) and _read(self._master) == _mark(master)

    def note_refusal(self) -> None:
        """Has it not be asked for again as long as its master lives."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        _write(self._refused, "")

    def prepare(self, master: str) -> str:
        """Makes the folder and notes whose it is; returns a path for a new socket in it.

        Raises:
            OSError: It cannot be made.
        """
        make_private(self._folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._refused)
        _write(self._master, _mark(master))
        return os.path.join(self._folder, secrets.token_hex(4))


class Laying:
    """A thread that has a master lead a shortcut to a socket of the host."""

    def __init__(self, shortcut: Shortcut, far: str, *, master: str, destination: str) -> None:
        self._shortcut = shortcut
        self._far = far
        self._master = master
        self._destination = destination
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._probe: socket.socket | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Gives it up, from any thread."""
        self._ended.set()
        process, probe = self._process, self._probe
        if process is not None:
            process.kill()
        if probe is not None:
            with contextlib.suppress(OSError):
                probe.shutdown(socket.SHUT_RDWR)

    def wait(self) -> None:
        """Returns when all has ended; what takes too long is given up, and asked for again later.

        A command's own end does not wait for what only a later one profits from.
        """
        self._thread.join(_END_PATIENCE)
        self.end()
        self._thread.join()

    def _work(self) -> None:
        sweep()
        if self._shortcut.is_refused(self._master):
            return
        with contextlib.suppress(OSError):
            near = self._shortcut.prepare(self._master)
            if self._ask("forward", near) and self._leads_on(near):
                os.replace(near, self._shortcut.path)
                return
            if not self._ended.is_set():
                self._shortcut.note_refusal()
                self._ask("cancel", near)
            os.unlink(near)

    def _leads_on(self, near: str) -> bool:
        """Whether an agent speaks at the end: gRPC's server speaks first."""
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=connect(near).detach()) as probe,
        ):
            self._probe = probe
            probe.settimeout(0.0 if self._ended.is_set() else _TRY_PATIENCE)
            return bool(probe.recv(1))
        return False

    def _ask(self, what: str, near: str) -> bool:
        # Without the user's files, whose own forwards would be asked for too.
        process = self._process = subprocess.Popen(
            [
                *("ssh", "-F", "none", "-o", f"ControlPath={self._master}"),
                *("-O", what, "-L", f"{near}:{self._far}", "--", self._destination),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._ended.is_set():
            process.kill()
        try:
            return process.wait(_ASK_PATIENCE) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False


def shortcut_for(footing: str, agent: str) -> Shortcut | None:
    """The shortcut to an agent; None where there is no folder with room for it.

    Args:
        footing: Names all that decides where ssh leads.
        agent: Names the agent and its release.
    """
    folder = private_folder(room=_ROOM)
    if not folder:
        return None
    name = hashlib.blake2b(f"{footing}\n{agent}".encode(), digest_size=10).hexdigest()
    return Shortcut(os.path.join(folder, _ours() + name))


def can_be_named(*paths: str) -> bool:
    """Whether ssh takes the paths as they are."""
    return all(_PLAIN.fullmatch(path) for path in paths)


def sweep(master: str = "") -> None:
    """Removes the shortcuts of masters that have gone.

    Args:
        master: The path of one that is to go with them.
    """
    parent = private_folder(room=_ROOM)
    if not parent:
        return
    for name in os.listdir(parent):
        folder = os.path.join(parent, name)
        with contextlib.suppress(OSError):
            if name.startswith(_ours()):
                its = _read(os.path.join(folder, "master"))
                path = its.partition("\n")[2]
                if path == master or _mark(path) != its or not _answers(path):
                    shutil.rmtree(folder, ignore_errors=True)


def _answers(master: str) -> bool:
    try:
        connect(master).close()
    except OSError:
        return False
    return True


def _ours() -> str:
    # A home may be shared by laptops, each of which knows only its own masters.
    return f"way-{machine_id()[:8]}-"


def _mark(master: str) -> str:
    """Tells one master from a later one at the same path; empty for one that has gone."""
    try:
        found = os.stat(master)
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_ctime_ns}\n{master}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{secrets.token_hex(4)}"
    made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(made, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(temporary, path)
