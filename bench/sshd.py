"""An OpenSSH server of the benchmark's own on loopback, and a mastered client for it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
# bash reads .bashrc for commands over ssh unless it believes itself nested. The peer is measured at
# its best: without what a person's rc files cost.
SetEnv SHLVL=2
"""

_CLIENT = """\
Host bench
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  ControlMaster auto
  ControlPath {folder}/master
  ControlPersist 60
  LogLevel ERROR
"""


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[list[str]]:
    """Runs a server for as long as the block; yields the `ssh` command that reaches `bench`."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not os.access(program, os.X_OK):
        raise SystemExit("sshd is missing: install openssh-server")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    port = _free_port()
    (folder / "sshd_config").write_text(_SERVER.format(port=port, folder=folder))
    (folder / "ssh_config").write_text(
        _CLIENT.format(port=port, folder=folder, user=getpass.getuser())
    )
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    server = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=-3)
    ssh = ["ssh", "-F", str(folder / "ssh_config")]
    try:
        _await_port(port, server)
        subprocess.run([*ssh, "bench", "true"], check=True)
        yield ssh
    finally:
        subprocess.run([*ssh, "-O", "exit", "bench"], capture_output=True, check=False)
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit("sshd did not start")
