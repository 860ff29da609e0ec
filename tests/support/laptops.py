"""People's laptops: one that reaches an ssh host, others with an older rdev or without a network."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.sshd import HOST, Server

from rdev.client.bootstrap.wheel import pack


def wheel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests of a run share, so that an index is asked once."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "wheels"
    folder.mkdir(exist_ok=True)
    return folder


_NEW_NETWORK = 0x40000000


@dataclass
class Laptop:
    """Runs `rdev` for somebody whose ssh configuration knows the host `gpu1`.

    Attributes:
        rdev: The person.
        server: Where `gpu1` leads to.
        cache: The cache folder; wheels that are in it need no index.
        command: What is run as `rdev`.
        variables: More of its environment.
    """

    rdev: Rdev
    server: Server
    cache: Path
    command: tuple[str | Path, ...]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {"XDG_CACHE_HOME": str(self.cache), **self.variables}
        return self.rdev.environment | self.server.environment | own

    def run(self, *words: str | Path, timeout: float = DEADLINE) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.command, *words],
            cwd=self.rdev.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen]:
        """Starts a command in a process group of its own, all of which ends with the block."""
        process = subprocess.Popen(
            [*self.command, *words],
            cwd=self.rdev.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.stdout.close()
            process.wait()

    def job(self, *words: str) -> subprocess.CompletedProcess:
        """`rdev run -H gpu1 WORDS`."""
        return self.run("run", "-H", HOST, *words)


def installed_rdev(folder: Path, version: str = "") -> tuple[str | Path, ...]:
    """The command of this rdev, installed in a folder of its own.

    Args:
        folder: Made here.
        version: What it says it is, if not what it is.
    """
    packed = pack()
    version = version or packed.version
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        archive.extractall(folder)
    info = folder / f"rdev-{packed.version}.dist-info"
    about = (info / "METADATA").read_text()
    (info / "METADATA").write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", about))
    info.rename(folder / f"rdev-{version}.dist-info")
    # Without the site module no other rdev is found: this environment's is an editable one.
    paths = [str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    code = f"import sys; sys.path[:0] = {paths}; from rdev.client.cli.main import main; sys.exit(main())"
    return (sys.executable, "-I", "-S", "-c", code)


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """What this thread starts inside has a loopback of its own and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as ours:
        if libc.unshare(_NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if libc.setns(ours.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "setns")
