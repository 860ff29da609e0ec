"""A second user of this machine, with an empty home: whom a login over ssh is for.

Tests run as root, to whom no permission is ever denied; a guest is denied all that a person is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DEADLINE = 30.0

# Which every user can run; the interpreter of this venv may lie in a folder of root's alone.
SYSTEM_PYTHON = "/usr/bin/python3"

# Of the tools that edit the passwd file: somebody else is just editing it.
_BUSY = (1, 10)

_numbers = itertools.count()


@dataclass(frozen=True)
class Guest:
    """A system user without a password, whose home is empty.

    Attributes:
        home: In a folder that every user can pass through and nobody else can list.
    """

    name: str
    uid: int
    gid: int
    home: Path

    def run(self, *command: str | Path, **options) -> subprocess.CompletedProcess:
        """Runs a command as this user, in its home and with a login's few variables."""
        environment = {"HOME": str(self.home), "USER": self.name, "PATH": "/usr/bin:/bin"}
        options = {"capture_output": True, "text": True, "cwd": self.home, **options}
        return subprocess.run(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            env=environment | options.pop("env", {}),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            timeout=options.pop("timeout", DEADLINE),
            check=options.pop("check", True),
            **options,
        )

    def write(self, path: str, text: str, *, mode: int = 0o644) -> Path:
        """Writes a file of the home; it and its folders belong to the guest."""
        target = self.home / path
        for folder in reversed([p for p in target.parents if p.is_relative_to(self.home)]):
            if not folder.exists():
                folder.mkdir()
                os.chown(folder, self.uid, self.gid)
        target.write_text(text)
        target.chmod(mode)
        os.chown(target, self.uid, self.gid)
        return target

    def can_read(self, path: Path) -> bool:
        return self.run("test", "-r", path, check=False).returncode == 0

    def venv(self, path: str, *, site: Path | None = None) -> Path:
        """Makes an environment of the system's Python, without pip; returns its folder.

        Args:
            path: In the home.
            site: Folder whose packages it has too, see `torch_site`.
        """
        folder = self.home / path
        self.run(SYSTEM_PYTHON, "-m", "venv", "--without-pip", folder)
        if site is not None:
            (packages,) = folder.glob("lib/python3*/site-packages")
            self.write(str(packages.relative_to(self.home) / "site.pth"), f"{site}\n")
        return folder

    @property
    def processes(self) -> list[int]:
        """Process ids of all that runs as this user, zombies left out."""
        return [
            int(entry) for entry in os.listdir("/proc") if entry.isdigit() and self._runs(entry)
        ]

    def _runs(self, pid: str) -> bool:
        try:
            lines = Path("/proc", pid, "status").read_text().splitlines()
        except OSError:  # it has just ended
            return False
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return str(self.uid) in fields["Uid"].split() and not fields["State"].startswith("Z")

    def end_processes(self) -> None:
        """Kills all that runs as this user; what guards one another comes back and is met again."""
        deadline = time.monotonic() + DEADLINE
        while pids := self.processes:
            for pid in pids:
                _kill(pid)
            assert time.monotonic() < deadline, f"{self.name} still has {self.processes}"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], 1.0)
        finally:
            os.close(handle)


@contextlib.contextmanager
def guest(*, shell: str = "/bin/bash") -> Iterator[Guest]:
    """A user for as long as the block lasts; its processes and its home go with it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a second user")
    folder = Path(tempfile.mkdtemp(prefix="rdev-guest-", dir="/var/tmp"))
    folder.chmod(0o711)
    name = f"rdev{os.getpid()}x{next(_numbers)}"
    home = folder / "home"
    # A `*` for a password lets keys in; the `!` that is the default locks the account to sshd.
    _edit("useradd", "--no-create-home", "-d", str(home), "-p", "*", "-s", shell, name)
    try:
        made = _passwd(name, home)
        home.mkdir(mode=0o700)
        os.chown(home, made.uid, made.gid)
        try:
            yield made
        finally:
            made.end_processes()
    finally:
        _edit("userdel", name)
        shutil.rmtree(folder, ignore_errors=True)


def _passwd(name: str, home: Path) -> Guest:
    import pwd

    entry = pwd.getpwnam(name)
    return Guest(name, entry.pw_uid, entry.pw_gid, home)


def _edit(*command: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        assert done.returncode in _BUSY, (command, done.stderr)
        assert time.monotonic() < deadline, (command, done.stderr)
        time.sleep(0.05)  # the lock of the passwd file cannot be waited on


@contextlib.contextmanager
def torch_site(user: Guest) -> Iterator[Path]:
    """The folder of the packages that these tests run with, torch among them, as `user` can read it.

    It is for a venv of the system's Python, see `Guest.venv`; there is none where that is not of
    the same version.
    """
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    if version.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{SYSTEM_PYTHON} cannot load this environment's torch")
    import torch  # its own folder says where it is; nothing is run with it here

    site = Path(torch.__file__).parent.parent
    if user.can_read(site / "torch" / "__init__.py"):
        yield site
        return
    place = user.home.parent / "site"
    place.mkdir(mode=0o755)
    subprocess.run(["mount", "--bind", "-o", "ro", site, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()
