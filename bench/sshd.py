"""An OpenSSH server of the benchmark's own on loopback, and a mastered client for it.

The server is the tests'; the peer is measured at its best, with a connection that is open already.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from tests.support.sshd import Server
from tests.support.sshd import sshd as server

HOST = "bench"

# The same by the same connection; one that is not meant to last has no shortcuts.
BRIDGED = "bridged"

# bash reads .bashrc for commands over ssh unless it believes itself nested: without what a person's
# rc files cost.
_QUIET = "SetEnv SHLVL=2"


@contextlib.contextmanager
def sshd() -> Iterator[Server]:
    """Runs a server for as long as the block; its `ssh` reaches `bench` and `bridged`."""
    with server(lines=[_QUIET]) as serving:
        shared = [f"ControlPath {serving.folder}/master", "LogLevel ERROR"]
        serving.add_host(HOST, *shared, "ControlMaster auto", "ControlPersist 60")
        serving.add_host(BRIDGED, *shared)
        subprocess.run([*serving.ssh, HOST, "true"], check=True)
        yield serving
