"""A real OpenSSH server of a test's own on loopback, and the client's configuration for it.

Each server has a folder with its host key, the key that it lets in, a `known_hosts` that knows it,
an `ssh_config` with a host `gpu1`, and a log in which connections and logins can be counted.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

DEADLINE = 30.0
HOST = "gpu1"

_LISTENING = r"^Server listening "

_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


class Server:
    """One server; the files of its folder may be changed by a test at any time.

    Attributes:
        folder: Passable for every user: sshd reads the authorized keys as whoever logs in.
        config: The client's configuration, for `ssh -F`.
        known_hosts: The client's known hosts.
        key: Private key that is let in.
        log: What the server says.
    """

    def __init__(
        self, folder: Path, *, user: str, lines: Sequence[str], inside: Sequence[str]
    ) -> None:
        self.folder = folder
        self.user = user
        self.port = _free_port()
        self.config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.key = folder / "key"
        self.log = folder / "log"
        self._inside = list(inside)
        self._lines = list(lines)
        self._process: subprocess.Popen | None = None
        self._listener: _Listener | None = None

    def prepare(self) -> None:
        for name in ("host_key", "key"):
            make_key(self.folder / name)
        shutil.copyfile(self.key.with_suffix(".pub"), self.folder / "authorized_keys")
        (self.folder / "authorized_keys").chmod(0o644)
        # The first line of a word counts, as everywhere in OpenSSH.
        given = "".join(f"{line}\n" for line in self._lines)
        text = _SERVER.format(port=self.port, folder=self.folder)
        (self.folder / "sshd_config").write_text(given + text)
        self.config.write_text("")
        self.trust()
        self.add_host(HOST)

    def trust(self) -> None:
        """Writes a `known_hosts` that knows this server's key."""
        public = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def add_host(self, name: str, *lines: str, plain: bool = True) -> None:
        """Adds a host to the client's configuration.

        Args:
            name: What `ssh` calls it.
            lines: Of its entry; they come first, and so they win over those that are given by
                themselves.
            plain: Whether the entry leads to this server with its key.
        """
        own = [
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {self.user}",
            f"IdentityFile {self.key}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
        ]
        entry = [f"Host {name}", *lines, *(own if plain else ())]
        with self.config.open("a") as file:
            print("\n  ".join(entry), file=file)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which `rdev` uses this server's client configuration."""
        return {"RDEV_SSH_CONFIG": str(self.config)}

    @property
    def ssh(self) -> list[str]:
        """The plain `ssh` command that uses it."""
        return ["ssh", "-F", str(self.config)]

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._count(r"^Connection from ")

    @property
    def logins(self) -> int:
        """How many logins were let in so far."""
        return self._count(r"^Accepted \S+ for ")

    @property
    def refusals(self) -> int:
        """How many logins were refused so far."""
        return self._count(r"^Failed (?!none )")

    def _count(self, pattern: str) -> int:
        if not self.log.exists():
            return 0
        return len(re.findall(pattern, self.log.read_text(), re.MULTILINE))

    def _await(self, starts: int) -> None:
        # Its log says so; a connection to see whether it answers would be counted.
        deadline = time.monotonic() + DEADLINE
        while self._count(_LISTENING) < starts:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("sshd did not start")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Process id of the server that listens."""
        return self._process.pid

    def start(self) -> None:
        """Starts it; returns when it answers."""
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [program, "-f", str(self.folder / "sshd_config"), "-E", str(self.log)]
        if self._inside:
            self._listener = _Listener(self.port, [*self._inside, *command, "-i"])
        else:
            starts = self._count(_LISTENING) + 1
            self._process = subprocess.Popen([*command, "-D"], stdin=subprocess.DEVNULL)
            self._await(starts)

    def stop(self) -> None:
        """Ends the server and, as a machine that goes down does, all connections to it."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._process is not None:
            ended = [*children(self._process.pid), self._process.pid]
            for pid in ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self._process.wait()
            self._process = None


def children(pid: int) -> list[int]:
    """Process ids of what a process started, children before parents."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [*children(int(child)), int(child)]
    return found


class _Listener:
    """Accepts connections and starts a server for each: one that lives in other namespaces.

    A socket stays in the network that it was accepted in, so the server can be in one that leads
    nowhere and be reached all the same.
    """

    def __init__(self, port: int, command: list[str]) -> None:
        self._command = command
        self._servers: list[subprocess.Popen] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    server = subprocess.Popen(
                        self._command, stdin=connection, stdout=connection, stderr=-3
                    )
                self._servers.append(server)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for server in self._servers:
            for pid in children(server.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            server.kill()
            server.wait()


# For `inside=`: a network that has nothing but its own loopback.
NO_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@contextlib.contextmanager
def sshd(
    user: str = "", *, lines: Sequence[str] = (), inside: Sequence[str] = ()
) -> Iterator[Server]:
    """Runs a server for as long as the block lasts.

    Args:
        user: Whom `gpu1` logs in as; ourselves if empty.
        lines: Of its configuration; they win over ours.
        inside: Command that each connection's server is put behind, such as `NO_NETWORK`, an
            `ip netns exec NAME` or `unshare --mount sh -c ...`.
    """
    folder = Path(tempfile.mkdtemp(prefix="rdev-sshd-", dir="/var/tmp"))
    folder.chmod(0o711)
    server = Server(folder, user=user or getpass.getuser(), lines=lines, inside=inside)
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def make_key(path: Path, *, passphrase: str = "") -> None:
    """Makes a pair of keys, `path` and `path`.pub."""
    for name in (path, path.with_suffix(".pub")):
        name.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", path],
        check=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
