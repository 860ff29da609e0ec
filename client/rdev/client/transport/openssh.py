"""The user's own `ssh`, which knows all of their configuration, their keys and their tokens.

Connections are shared: where the user has configured no sharing that lasts, ssh keeps one of ours
open for ten minutes, so that a login is paid for once. Where a person may have to be asked, a login
comes first, in the foreground; all else runs in sessions of its own, which Ctrl-C does not reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace

from rdev.client.transport.asking import can_ask, tell
from rdev.client.transport.attempts import attempts_at
from rdev.client.transport.contract import LONGEST_COMPLAINT, LONGEST_OUTPUT, Ran
from rdev.client.transport.folders import private_folder
from rdev.client.transport.footing import footing_of
from rdev.client.transport.jumping import jump_command
from rdev.client.transport.settings import DEFAULTS, OPENSSH, Settings
from rdev.client.transport.shortcut import (
    Laying,
    Shortcut,
    can_be_named,
    shortcut_for,
    sweep,
)
from rdev.client.transport.sshconfig import HostConfig, ask_ssh, digest_of
from rdev.client.transport.stream import Outcome, Stream, nameless_file, said_in
from rdev.client.transport.threads import in_thread
from rdev.client.transport.verdict import TRY_AGAIN, endless_output, judge, judge_way
from rdev.protocol.errors import (
    CommandNotFound,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    RdevError,
    TimedOut,
)
from rdev.wire.home import machine_id
from rdev.wire.unix import connect

# ssh's own failures; a command may end with it too, and then does not complain as ssh does.
_FAILED = 255

# What login shells say of a command that is not there: csh does not end with 127.
_NOT_FOUND_CODES = frozenset({126, 127})
_NOT_FOUND = re.compile(r"not found|No such file or directory|No module named", re.IGNORECASE)

# How long a shared connection stays without use: a pause of a person's, not their night.
_PERSIST = 600

# sun_path's 103 usable bytes; ssh binds under a name with a dot and 16 random characters first.
# A slash and 20 digits come before that.
_ROOM = 103 - 17 - 21

_PIECE = 256 << 10

# A bridge may have to start an agent, on a machine that is busy.
_JOIN_PATIENCE = 60.0

# What rdev never wants of a connection, whatever is configured for a person's own: forwards would
# be asked for twice, and an agent that is forwarded could be used by whoever is root there.
_PLAIN = ("-T", "-a", "-x")
_NEVER = {
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "EscapeChar": "none",
    "Tunnel": "no",
    "LogLevel": "INFO",  # without it ssh does not say why it fails
}

_OF_A_JUMP = ("BatchMode", "LogLevel", "ConnectTimeout", "StrictHostKeyChecking")

# A dead link is noticed within this long, by the user's own settings or else by ours.
_NOTICED = 30


class OpenSsh:
    """Access to one host by the `ssh` binary; see `rdev.client.transport.contract.Transport`."""

    name = OPENSSH

    def __init__(
        self,
        host: str,
        settings: Settings = DEFAULTS,
        *,
        asks: Callable[[], bool] = can_ask,
    ) -> None:
        self._host = host
        self._destination = settings.destination or host
        self._settings = settings
        self._can_ask = asks
        self._config: HostConfig | None = None
        self._footing: str | None = None
        self._control = ""
        self._refused: RdevError | None = None
        self._was_in = False
        self._streams: list[Stream] = []
        self._layings: list[Laying] = []
        self._jump_log = ""
        self._attempts = attempts_at(OPENSSH, settings.config, self._destination)

    async def login(self) -> None:
        """See `Transport`."""
        await self._prepare()
        if self._is_shared or not self._shares or not self._can_ask():
            return
        self._admit()
        process = await asyncio.create_subprocess_exec(
            *self._command("-f", "-N", asks=True),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        said, final = "", ""
        try:
            assert process.stderr is not None
            async for words in process.stderr:  # a banner, or what a second factor says
                line = words.decode(errors="replace")
                said += line
                may_retry = TRY_AGAIN in line  # between two questions for a password
                final += "" if may_retry else line
                if may_retry or judge(self._host, final) is None:
                    tell(line)
            code = await process.wait()
        finally:
            await _reap(process)
        self._note(code, said)

    async def run(self, command: str, *, feed: bytes = b"", patience: float = 60.0) -> Ran:
        """See `Transport`."""
        await self._prepare()
        self._admit()
        asks = self._asks()
        complaints = nameless_file()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(command, asks=asks),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                env=_environment(),
                start_new_session=not asks,
            )
            stdout = await self._fed(process, feed, patience=patience)
            stderr = said_in(complaints)
        finally:
            os.close(complaints)
        code = process.returncode or 0
        self._note(code, stderr.decode(errors="replace"))
        return Ran(code if code >= 0 else _FAILED, stdout, stderr)

    async def _fed(
        self, process: asyncio.subprocess.Process, feed: bytes, *, patience: float
    ) -> bytes:
        try:
            async with asyncio.timeout(patience):
                stdout = await _exchanged(process, feed)
        except TimeoutError:
            cause = f"it took longer than {patience:.0f} s"
            raise TimedOut(f"run a command on {self._host}", cause) from None
        finally:
            await _reap(process)
        if len(stdout) > LONGEST_OUTPUT:
            raise endless_output(self._host)
        return stdout

    async def join(self, command: str, near: socket.socket) -> str:
        """See `Transport`."""
        try:
            await self._prepare()
            self._admit()
            asks = self._asks()
            stream = Stream(
                self._command(command, asks=asks),
                near,
                environment=_environment(),
                own_session=not asks,
            )
        except BaseException:
            near.close()
            raise
        self._streams = [s for s in self._streams if s.is_open] + [stream]
        outcome = await self._begun(stream)
        self._judge_outcome(outcome)
        return outcome.at

    async def shortcut(self, agent: str) -> Shortcut | None:
        """See `Transport`."""
        self._stand()
        if not self._footing:
            await self._prepare()
        return shortcut_for(self._footing or "", agent)

    def lay(self, shortcut: Shortcut, far: str) -> None:
        """See `Transport`."""
        if not (self._config and self._shares and self._persists):
            return
        master = self._shared_path
        if can_be_named(master, far, shortcut.path):
            laying = Laying(shortcut, far, master=master, destination=self._destination)
            self._layings.append(laying)

    async def hang_up(self) -> bool:
        """See `Transport`."""
        await self._prepare()
        sweep(self._shared_path)
        if not _exists(self._control):
            return False
        config = ["-F", self._settings.config] if self._settings.config else []
        options = [*config, "-o", f"ControlPath={self._control}", "-O", "exit"]
        process = await asyncio.create_subprocess_exec(
            *("ssh", *options, "--", self._destination),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            code = await process.wait()
        finally:
            await _reap(process)
        with contextlib.suppress(OSError):  # one that was killed leaves its socket
            os.unlink(self._control)
        return code == 0

    async def close(self) -> None:
        """See `Transport`; a shared connection stays for the next command."""
        for stream in self._streams:
            stream.end()
        for stream in self._streams:
            await in_thread(stream.wait, abort=stream.end)
        for laying in self._layings:
            await in_thread(laying.wait, abort=laying.end)
        self._streams, self._layings = [], []
        with contextlib.suppress(OSError):
            os.unlink(self._jump_log)

    async def _begun(self, stream: Stream) -> Outcome:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()

        def settle(found: Outcome) -> None:
            if not outcome.done():
                outcome.set_result(found)

        def on_outcome(found: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, found)

        stream.start(on_outcome)
        try:
            async with asyncio.timeout(_JOIN_PATIENCE):
                return await outcome
        except TimeoutError:
            stream.end()
            cause = f"its bridge was not ready within {_JOIN_PATIENCE:.0f} s"
            error = HostUnreachable(f"reach the agent of {self._host}", cause)
            self._attempts.failed(error)
            raise error from None
        except BaseException:
            stream.end()
            await in_thread(stream.wait, abort=stream.end)
            raise

    def _judge_outcome(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._attempts.succeeded()
            raise outcome.error
        if outcome.code is None:
            self._was_in = True
            self._attempts.succeeded()
            return
        self._note(outcome.code, outcome.complaints)
        error = not_begun(self._host, outcome.code, outcome.complaints)
        if isinstance(error, HostUnreachable):
            self._attempts.failed(error)
        raise error

    def _admit(self) -> None:
        if self._refused is not None:
            raise self._refused
        self._attempts.admit(f"log in to {self._host}")

    def _note(self, code: int, complaints: str) -> None:
        """Raises what ssh complained of, if it was ssh that failed."""
        if code >= 0 and code != _FAILED:
            return
        verdict = judge_way(self._host, self._jump_complaints(), complaints)
        if verdict is None and code < 0:
            cause = f"ssh was ended by signal {-code}"
            raise HostUnreachable(f"stay connected to {self._host}", cause)
        if verdict is None and self._shares and not _answers(self._shared_path):
            # Who shared a connection that broke is told nothing but this code.
            raise HostUnreachable(f"stay connected to {self._host}", "the connection broke")
        if verdict is None:
            return
        if verdict.reached:
            self._attempts.failed(verdict.error)
        if isinstance(verdict.error, LoginRefused | HostKeyRefused):
            self._refused = verdict.error
        raise verdict.error

    def _jumps(self, wanted: dict[str, str]) -> dict[str, str]:
        """The way through the configured jump hosts, which may say why they fail."""
        assert self._config is not None
        jumps = self._config.get("proxyjump")
        if not jumps:
            return {}
        self._jump_log = self._jump_log or f"{self._control}.{secrets.token_hex(8)}"
        own = {key: wanted[key] for key in _OF_A_JUMP if key in wanted}
        command = jump_command(
            jumps, config=self._settings.config, complaints=self._jump_log, options=own
        )
        return {"ProxyJump": "none", "ProxyCommand": command}

    def _jump_complaints(self) -> str:
        with contextlib.suppress(OSError), open(self._jump_log, errors="replace") as file:
            return file.read(LONGEST_COMPLAINT)
        return ""

    def _asks(self) -> bool:
        # Without a shared connection each login asks anew; but who returns after a break may be in
        # the middle of a job's output.
        return not self._shares and not self._was_in and self._can_ask()

    async def _prepare(self) -> None:
        if self._config is None:
            self._stand()  # before ssh reads the files, which may change at any time
            self._config = await ask_ssh(self._settings.config, self._destination)
            self._control = _control_path(self._config)
            # Where files alone do not decide, what ssh makes of them does.
            self._footing = self._footing or digest_of(self._config)

    def _stand(self) -> None:
        if self._footing is None:
            self._footing = footing_of(replace(self._settings, destination=self._destination))

    @property
    def _shares(self) -> bool:
        """Whether connections are shared, by our doing or by the user's."""
        return bool(self._control) or self._users_sharing

    @property
    def _users_sharing(self) -> bool:
        assert self._config is not None
        return _shares_by_itself(self._config)

    @property
    def _persists(self) -> bool:
        # The master of a person's own that does not is in their terminal, where it says what fails.
        assert self._config is not None
        return not self._users_sharing or _lasts(self._config)

    @property
    def _is_shared(self) -> bool:
        """Whether a shared connection seems to be there."""
        return _answers(self._shared_path)

    @property
    def _shared_path(self) -> str:
        assert self._config is not None
        return self._config.get("controlpath") if self._users_sharing else self._control

    def _command(self, *what: str, asks: bool) -> list[str]:
        """The command line: options, the host, and what to do there."""
        assert self._config is not None
        settings = self._settings
        wanted = {**_NEVER, "BatchMode": "no" if asks else "yes"}
        if not 0 < _silence(self._config) <= _NOTICED:
            wanted |= {"ServerAliveInterval": str(settings.alive), "ServerAliveCountMax": "2"}
        if not self._config.number("connecttimeout", 0):
            wanted["ConnectTimeout"] = str(settings.connecting)
        if self._config.is_on("stdinnull", default=False):  # older ones do not know the word
            wanted["StdinNull"] = "no"
        if self._config.get("stricthostkeychecking") in ("false", "no", "off"):
            # A key that changed is refused even so: what may be unknown may not be another's.
            wanted["StrictHostKeyChecking"] = "accept-new"
        if self._control and not self._users_sharing:
            wanted |= {"ControlMaster": "auto", "ControlPath": self._control}
            wanted["ControlPersist"] = str(_PERSIST)
            wanted |= self._jumps(wanted)
        options = [word for key, value in wanted.items() for word in ("-o", f"{key}={value}")]
        config = ["-F", settings.config] if settings.config else []
        flags = [word for word in what if word.startswith("-")]
        command = [word for word in what if not word.startswith("-")]
        return ["ssh", *config, *_PLAIN, *options, *flags, "--", self._destination, *command]


def not_begun(host: str, code: int, complaints: str) -> RdevError:
    """The error for a bridge that ended before it said a word.

    Args:
        host: As the person calls it.
        code: Its exit code.
        complaints: What was printed on stderr.
    """
    action = f"start rdev on {host}"
    lines = complaints.strip().splitlines()
    last = lines[-1].strip() if lines else f"its bridge ended with {code}"
    if code in _NOT_FOUND_CODES or _NOT_FOUND.search(complaints):
        return CommandNotFound(action, last)
    return HostUnreachable(action, last)


def _silence(config: HostConfig) -> int:
    """Seconds after which the user's own settings notice a dead link; 0 for never."""
    alive = config.number("serveraliveinterval", 0)
    return alive * (config.number("serveralivecountmax", 3) + 1)


def _shares_by_itself(config: HostConfig) -> bool:
    """Whether the user has configured sharing that lasts, or has a connection to share open now."""
    path = config.get("controlpath")
    if not path:
        return False
    if _answers(path):
        return True
    makes = config.get("controlmaster", "false").lower() not in ("false", "no")
    return makes and _lasts(config)


def _lasts(config: HostConfig) -> bool:
    return config.get("controlpersist", "no").lower() not in ("no", "false", "0")


def _control_path(config: HostConfig) -> str:
    """Where our shared connection to the host listens; empty if there is no room for it."""
    folder = private_folder(room=_ROOM)
    if not folder:
        return ""
    parts = [config.get(key) for key in ("hostname", "port", "user", "proxyjump", "proxycommand")]
    # As ssh's own %C: who, where and by which way, and this machine, since homes are shared. Its
    # length is known, and so it can be looked at.
    seed = "\n".join([machine_id(), *parts]).encode()
    return os.path.join(folder, hashlib.blake2b(seed, digest_size=10).hexdigest())


def _exists(path: str) -> bool:
    return bool(path) and os.path.exists(path)


def _answers(path: str) -> bool:
    """Whether a shared connection is there: one that was killed, or a reboot, leaves its socket."""
    if not path:
        return False
    try:
        connect(path).close()
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    # A window that asks for a passphrase must not come up out of the blue, from a jump host either.
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


async def _exchanged(process: asyncio.subprocess.Process, feed: bytes) -> bytes:
    """Feeds a command and returns what it prints; one that prints too much is ended."""
    assert process.stdout is not None
    output = bytearray()
    async with asyncio.TaskGroup() as group:
        group.create_task(_fed_to(process, feed))
        while len(output) <= LONGEST_OUTPUT and (data := await process.stdout.read(_PIECE)):
            output += data
        if len(output) > LONGEST_OUTPUT:
            process.kill()
            while await process.stdout.read(_PIECE):  # what was on its way
                pass
    await process.wait()
    return bytes(output)


async def _fed_to(process: asyncio.subprocess.Process, feed: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read it all
        process.stdin.write(feed)
        await process.stdin.drain()
    process.stdin.close()


async def _reap(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
