"""ssh in this process, by paramiko: for a machine without the `ssh` binary, or by choice.

It reads the same configuration, known hosts, keys and agent as `ssh` does, and passes through jump
hosts. One connection carries all commands; threads of its own move the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import paramiko

from rdev.client.transport.asking import ask, can_ask, tell
from rdev.client.transport.attempts import attempts_at
from rdev.client.transport.contract import LONGEST_COMPLAINT, LONGEST_OUTPUT, Ran
from rdev.client.transport.credentials import log_in
from rdev.client.transport.hostkeys import fingerprint, known_keys, name_of, write_down
from rdev.client.transport.jumping import jump_url
from rdev.client.transport.marker import Preamble
from rdev.client.transport.openssh import not_begun
from rdev.client.transport.ownconfig import expand, read_config
from rdev.client.transport.settings import DEFAULTS, PARAMIKO, Settings
from rdev.client.transport.shortcut import Shortcut
from rdev.client.transport.sshconfig import (
    CONFIG_PATIENCE,
    HostConfig,
    config_hangs,
    understood,
    words,
)
from rdev.client.transport.threads import in_thread
from rdev.client.transport.verdict import changed_key, endless_output, needs_ssh, unknown_key
from rdev.protocol.errors import (
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    RdevError,
    TimedOut,
)

# It says on its own what goes wrong, in tracebacks; who calls it is told by exceptions anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_PIECE = 256 << 10

# As much as is on its way at once: a gigabit link at 100 ms holds this much.
_WINDOW = 16 << 20

_JOIN_PATIENCE = 60.0

# A jump host that is reached through itself would never end.
_MOST_JUMPS = 8

_NO_STATUS = 255


class Paramiko:
    """Access to one host by paramiko; see `rdev.client.transport.contract.Transport`."""

    name = PARAMIKO

    def __init__(
        self,
        host: str,
        settings: Settings = DEFAULTS,
        *,
        asks: Callable[[], bool] = can_ask,
    ) -> None:
        self._host = host
        self._settings = settings
        self._can_ask = asks
        self._one = asyncio.Lock()
        self._chain: _Chain | None = None
        self._refused: RdevError | None = None
        self._was_in = False
        self._joints: list[_Joint] = []
        self._attempts = attempts_at(PARAMIKO, settings.config, settings.destination or host)

    async def login(self) -> None:
        """See `Transport`."""
        await self._connected()

    async def run(self, command: str, *, feed: bytes = b"", patience: float = 60.0) -> Ran:
        """See `Transport`."""
        transport = await self._connected()
        running = _Running(transport, self._host)
        try:
            async with asyncio.timeout(patience):
                return await in_thread(lambda: running.run(command, feed), abort=running.close)
        except TimeoutError:
            cause = f"it took longer than {patience:.0f} s"
            raise TimedOut(f"run a command on {self._host}", cause) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._broken(error) from error
        finally:
            running.close()

    async def join(self, command: str, near: socket.socket) -> str:
        """See `Transport`."""
        try:
            transport = await self._connected()
        except BaseException:
            near.close()
            raise
        joint = _Joint(transport, near, self._host)
        self._joints = [j for j in self._joints if j.is_open] + [joint]
        try:
            async with asyncio.timeout(_JOIN_PATIENCE):
                return await in_thread(lambda: joint.begin(command), abort=joint.close)
        except TimeoutError:
            cause = f"its bridge was not ready within {_JOIN_PATIENCE:.0f} s"
            raise HostUnreachable(f"reach the agent of {self._host}", cause) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            joint.close()
            raise self._broken(error) from error
        except BaseException:
            joint.close()
            raise

    async def shortcut(self, agent: str) -> Shortcut | None:  # noqa: ARG002  # nothing is shared
        """See `Transport`."""
        return None

    def lay(self, shortcut: Shortcut, far: str) -> None:
        """See `Transport`."""

    async def hang_up(self) -> bool:
        """See `Transport`; nothing outlives this process."""
        return False

    async def close(self) -> None:
        """See `Transport`."""
        for joint in self._joints:
            joint.close()
        for joint in self._joints:
            await in_thread(joint.wait, abort=joint.close)
        self._joints = []
        if self._chain is not None:
            await in_thread(self._chain.close, abort=_nothing)
            self._chain = None

    async def _connected(self) -> paramiko.Transport:
        async with self._one:
            if self._chain is not None and self._chain.last.is_active():
                return self._chain.last
            if self._refused is not None:
                raise self._refused
            self._attempts.admit(f"log in to {self._host}")
            if self._chain is not None:
                await in_thread(self._chain.close, abort=_nothing)
            chain = self._chain = _Chain(self._settings, self._host, asks=self._asks())
            try:
                await in_thread(chain.open, abort=chain.abort)
            except (LoginRefused, HostKeyRefused) as error:
                self._refused = error
                self._attempts.failed(error)
                raise
            except HostUnreachable as error:
                if chain.reached:
                    self._attempts.failed(error)
                raise
            finally:
                if not chain.is_open:
                    await in_thread(chain.close, abort=_nothing)
                    self._chain = None
            self._attempts.succeeded()
            self._was_in = True
            return chain.last

    def _asks(self) -> bool:
        # Who returns after a break may be in the middle of a job's output.
        return not self._was_in and self._can_ask()

    def _broken(self, error: Exception) -> HostUnreachable:
        cause = str(error) or "the connection broke"
        return HostUnreachable(f"stay connected to {self._host}", cause)


def _nothing() -> None:
    pass


@dataclass
class _Chain:
    """Connections to a host: one, or one through another."""

    settings: Settings
    host: str
    asks: bool
    reached: bool = False
    is_open: bool = False
    aborted: bool = False
    transports: list[paramiko.Transport] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    proxies: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def last(self) -> paramiko.Transport:
        return self.transports[-1]

    def open(self) -> None:
        """Connects and logs in; blocks."""
        self._add(self.settings.destination or self.host, jumps=0)
        threading.Thread(target=self._guard, daemon=True).start()
        self.is_open = True

    def abort(self) -> None:
        """Makes `open` fail soon."""
        self.aborted = True
        for opened in self.sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for transport in self.transports:
            transport.close()

    def close(self) -> None:
        """Ends all, from the host to us."""
        for transport in reversed(self.transports):
            transport.close()
            transport.join(5)
        for opened in self.sockets:
            opened.close()
        for proxy in self.proxies:
            proxy.kill()
            proxy.wait()

    def _add(self, destination: str, *, jumps: int, is_beyond: bool = False) -> None:
        """Connects to one more.

        Args:
            destination: As ssh takes it.
            jumps: How many jump hosts led to the wish for this one.
            is_beyond: It is reached through the last one, whatever its own configuration says, as
                with `ssh -J`.
        """
        config = self._config(destination)
        action = f"log in to {self.host}"
        if jumps > _MOST_JUMPS:
            raise HostUnreachable(action, "its jump hosts lead in a circle")
        hops = [] if is_beyond else config.get("proxyjump").split(",")
        for hop in filter(None, hops):
            self._add(jump_url(hop), jumps=jumps + 1, is_beyond=is_beyond)
            is_beyond = True
        try:
            way = self._way(config, is_beyond=is_beyond)
        except OSError as error:
            hint = "see that it is on and that its sshd listens"
            cause = _sentence(error, config.get("hostname"))
            raise HostUnreachable(action, cause, hint=hint) from error
        except paramiko.SSHException as error:  # a jump host could not go on
            self.reached = True
            raise HostUnreachable(action, str(error)) from error
        self.reached = True
        transport = paramiko.Transport(way, default_window_size=_WINDOW)
        self.transports.append(transport)
        self._negotiate(transport, config, action)
        log_in(transport, self.host, config, ask=self._ask if self.asks else None)

    def _config(self, destination: str) -> HostConfig:
        if shutil.which("ssh") is None:
            return read_config(self.settings.config, destination)
        try:
            done = subprocess.run(
                words(self.settings.config, destination),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=CONFIG_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise config_hangs(self.host) from None
        return understood(self.host, done.returncode, done.stdout, done.stderr)

    def _way(self, config: HostConfig, *, is_beyond: bool) -> socket.socket | paramiko.Channel:
        place = (config.get("hostname"), config.number("port", 22))
        patience = config.number("connecttimeout", self.settings.connecting)
        if is_beyond:
            return self.transports[-1].open_channel(
                "direct-tcpip", place, ("127.0.0.1", 0), timeout=patience
            )
        if command := config.get("proxycommand"):
            ours, theirs = socket.socketpair()
            self.sockets.append(ours)
            with theirs:
                self.proxies.append(
                    subprocess.Popen(
                        ["/bin/sh", "-c", f"exec {expand(command, config)}"],
                        stdin=theirs.fileno(),
                        stdout=theirs.fileno(),
                        start_new_session=True,
                    )
                )
            return ours
        way = socket.create_connection(place, timeout=patience)
        self.sockets.append(way)
        way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return way

    def _negotiate(self, transport: paramiko.Transport, config: HostConfig, action: str) -> None:
        name = config.get("hostkeyalias") or name_of(
            config.get("hostname"), config.number("port", 22)
        )
        files = [expand(f, config) for f in _split(config, "userknownhostsfile")]
        known = known_keys([*files, *_split(config, "globalknownhostsfile")], name)
        kinds = [key.kind for key in known if key.is_own]
        security = transport.get_security_options()
        # A key of a kind that is known comes first, or a host with several would seem unknown.
        security.key_types = sorted(security.key_types, key=lambda kind: not _is_of(kind, kinds))
        try:
            transport.start_client(timeout=max(self.settings.connecting, 1))
            key = transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostUnreachable(action, str(error) or "the server hung up") from error
        blob, kind = key.asbytes(), key.get_name()
        same = [known for known in known if known.blob == blob]
        if revoked := [known for known in same if known.is_revoked]:
            raise changed_key(self.host, revoked[0].place)
        trusted = [known for known in known if known.is_own]
        if any(known in trusted for known in same):
            return
        if authorities := [known for known in known if known.is_authority]:
            raise needs_ssh(self.host, authorities[0].place)
        if others := [known for known in trusted if known.kind == kind] or trusted:
            raise changed_key(self.host, others[0].place)
        self._meet(config, name, kind=kind, blob=blob, files=files)

    def _meet(
        self, config: HostConfig, name: str, *, kind: str, blob: bytes, files: list[str]
    ) -> None:
        """A host that nobody has seen is trusted if the person says so."""
        checking = config.get("stricthostkeychecking", "ask").lower()
        shown = f"{kind} {fingerprint(blob)}"
        if checking not in ("accept-new", "no", "off", "false"):
            if not self.asks or checking in ("yes", "true"):
                raise unknown_key(self.host, shown)
            tell(f"The authenticity of host {name} cannot be established; its key is {shown}.")
            if self._ask("Do you trust it? (yes/no)", echo=True).strip().lower() != "yes":
                raise unknown_key(self.host, shown)
        if files:
            try:
                hashed = config.is_on("hashknownhosts", default=False)
                write_down(files[0], name, kind=kind, blob=blob, hashed=hashed)
            except OSError as error:
                tell(f"{files[0]} cannot be written: {error.strerror}")

    def _ask(self, prompt: str, *, echo: bool) -> str:
        return ask(prompt, echo=echo, is_over=lambda: self.aborted)

    def _guard(self) -> None:
        """Closes the connection once the host has not answered for too long."""
        last, alive = self.last, self.settings.alive
        quiet = threading.Event()
        while last.is_active():
            quiet.wait(alive)
            timer = threading.Timer(2 * alive, self.abort)
            timer.daemon = True
            timer.start()
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                last.global_request("keepalive@openssh.com", wait=True)
            timer.cancel()


def _split(config: HostConfig, keyword: str) -> list[str]:
    return [name for value in config.all(keyword) for name in value.split()]


def _is_of(kind: str, kinds: Sequence[str]) -> bool:
    # A key `ssh-rsa` is used by several signature algorithms.
    return kind in kinds or (kind.startswith("rsa-sha2-") and "ssh-rsa" in kinds)


def _sentence(error: OSError, name: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"no host is called {name}: {(error.strerror or '').lower()}"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    return (error.strerror or str(error)).lower()


class _Running:
    """One command and what it prints."""

    def __init__(self, transport: paramiko.Transport, host: str) -> None:
        self._transport = transport
        self._host = host
        self._channel: paramiko.Channel | None = None
        self._closed = False

    def run(self, command: str, feed: bytes) -> Ran:
        channel = self._channel = self._transport.open_session(window_size=_WINDOW)
        channel.exec_command(command)
        if self._closed:
            channel.close()
        complaints: list[bytes] = []
        helpers = [
            threading.Thread(target=work, daemon=True)
            for work in (lambda: _feed(channel, feed), lambda: _drain(channel, complaints))
        ]
        for helper in helpers:
            helper.start()
        output = bytearray()
        while data := channel.recv(_PIECE):
            output += data
            if len(output) > LONGEST_OUTPUT:
                raise endless_output(self._host)
        code = channel.recv_exit_status()
        channel.close()
        for helper in helpers:
            helper.join()
        if code < 0 and not self._transport.is_active():
            raise EOFError("the connection broke")
        return Ran(code if code >= 0 else _NO_STATUS, bytes(output), b"".join(complaints))

    def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            self._channel.close()


def _feed(channel: paramiko.Channel, feed: bytes) -> None:
    with contextlib.suppress(OSError, paramiko.SSHException):  # it may end before it has read all
        channel.sendall(feed)
        channel.shutdown_write()


def _drain(channel: paramiko.Channel, into: list[bytes]) -> None:
    room = LONGEST_COMPLAINT
    while data := channel.recv_stderr(_PIECE):
        into.append(data[:room])
        room -= len(into[-1])


class _Joint:
    """A bridge's channel and a socket, with a thread for each direction."""

    def __init__(self, transport: paramiko.Transport, near: socket.socket, host: str) -> None:
        self._near = near
        self._host = host
        self._transport = transport
        self._channel: paramiko.Channel | None = None
        self._threads: list[threading.Thread] = []
        self._one = threading.Lock()
        self.is_open = True

    def begin(self, command: str) -> str:
        """Starts the bridge; returns when it is ready and bytes pass, with the agent's path."""
        channel = self._channel = self._transport.open_session(window_size=_WINDOW)
        channel.exec_command(command)
        self._near.settimeout(None)
        preamble = Preamble()
        while data := channel.recv(_PIECE):
            if preamble.feed(data):
                break
        else:
            complaints: list[bytes] = []
            _drain(channel, complaints)
            said = b"".join(complaints).decode(errors="replace")
            raise not_begun(self._host, channel.recv_exit_status(), said)
        self._near.sendall(preamble.rest)
        for work in (self._upward, self._downward):
            thread = threading.Thread(target=work, daemon=True)
            self._threads.append(thread)
            thread.start()
        return preamble.at

    def wait(self) -> None:
        """Returns when all has ended."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Ends both sides, from any thread."""
        with self._one:
            if not self.is_open:
                return
            self.is_open = False
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)
        if self._channel is not None:
            self._channel.close()
        self._near.close()

    def _upward(self) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError, paramiko.SSHException):
            while data := self._near.recv(_PIECE):
                self._channel.sendall(data)
        self.close()

    def _downward(self) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError, paramiko.SSHException):
            while data := self._channel.recv(_PIECE):
                self._near.sendall(data)
                while self._channel.recv_stderr_ready():  # unread, it would fill the window
                    self._channel.recv_stderr(_PIECE)
        self.close()
