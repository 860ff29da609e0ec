"""Logs in to a server with what the user has: keys of their agent, key files, answers of theirs.

    none -> publickey: agent, files -> keyboard-interactive -> password
                 (a server may want several of them, one after another)

Each is offered once. Nothing is asked unless somebody sits at the terminal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import paramiko
from paramiko.agent import AgentSSH

from rdev.client.transport.asking import tell
from rdev.client.transport.ownconfig import expand
from rdev.client.transport.sshconfig import HostConfig
from rdev.client.transport.verdict import login_hint
from rdev.protocol.errors import LoginRefused
from rdev.wire.unix import connect

Key = paramiko.PKey


class Ask(Protocol):
    """Asks the person."""

    def __call__(self, prompt: str, *, echo: bool) -> str:
        """Returns what was typed; it was seen if `echo` is true."""
        ...


def log_in(
    transport: paramiko.Transport, host: str, config: HostConfig, *, ask: Ask | None
) -> None:
    """Logs in.

    Args:
        transport: Connected, with the host's key verified.
        host: As the person calls it.
        config: Its configuration.
        ask: Asks the person, given a prompt and whether to show what is typed; None if nobody may
            be asked.

    Raises:
        LoginRefused: Nothing that there is was taken.
    """
    Login(transport, host, config, ask=ask).run()


class Login:
    """One login."""

    def __init__(
        self, transport: paramiko.Transport, host: str, config: HostConfig, *, ask: Ask | None
    ) -> None:
        self._transport = transport
        self._host = host
        self._config = config
        self._ask = ask
        self._user = config.get("user")
        self._allowed: list[str] = []
        self._open = contextlib.ExitStack()

    def run(self) -> None:
        """See `log_in`."""
        with self._open:
            self._run()

    def _run(self) -> None:
        try:
            if self._takes(lambda: self._transport.auth_none(self._user)):
                return
            if any(self._takes(offer) for offer in self._offers()):
                return
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._refusal(str(error) or "the server hung up") from error
        raise self._refusal(f"permission denied ({','.join(self._allowed)})")

    def _refusal(self, cause: str) -> LoginRefused:
        return LoginRefused(f"log in to {self._host}", cause, hint=login_hint(self._host))

    def _takes(self, offer: Callable[[], list[str]]) -> bool:
        """Whether we are in after an offer; notes what else the server would take."""
        try:
            more = offer()
        except paramiko.BadAuthenticationType as error:
            self._allowed = list(error.allowed_types)
            return False
        except paramiko.AuthenticationException:
            if not self._transport.is_active():
                raise
            return False
        if more:
            self._allowed = list(more)
        return self._transport.is_authenticated()

    def _offers(self) -> Iterator[Callable[[], list[str]]]:
        if "publickey" in self._allowed and self._config.is_on(
            "pubkeyauthentication", default=True
        ):
            for key in self._keys():
                yield partial(self._transport.auth_publickey, self._user, key)
        ask = self._ask
        if ask is None:
            return
        if "keyboard-interactive" in self._allowed:
            yield lambda: self._transport.auth_interactive(self._user, self._answers)
        if "password" in self._allowed:
            password = ask(f"{self._user}@{self._host}'s password:", echo=False)
            yield lambda: self._transport.auth_password(self._user, password, fallback=False)

    def _keys(self) -> Iterator[Key]:
        files = [expand(name, self._config) for name in self._config.all("identityfile")]
        wanted = {blob for name in files if (blob := _public(name))}
        in_agent = _agent_keys(self._config, self._open)
        first = [key for key in in_agent if key.asbytes() in wanted]
        others = [key for key in in_agent if key.asbytes() not in wanted]
        yield from first
        if not self._config.is_on("identitiesonly", default=False):
            yield from others
        seen = {key.asbytes() for key in in_agent}
        for name in files:
            if _public(name) not in seen and (key := self._load(name)):
                yield key

    def _load(self, file: str) -> Key | None:
        if not os.path.isfile(file):
            return None
        try:
            return _key_in(file, None)
        except paramiko.PasswordRequiredException:
            if self._ask is None:
                return None
        passphrase = self._ask(f"Enter passphrase for key '{file}':", echo=False)
        try:
            key = _key_in(file, passphrase)
        except paramiko.PasswordRequiredException:
            key = None
        if key is None:
            tell(f"the passphrase of {file} is another")
        return key

    def _answers(self, title: str, says: str, prompts: list[tuple[str, bool]]) -> list[str]:
        for line in (title, says):
            if line.strip():
                tell(line.strip())
        assert self._ask is not None
        return [self._ask(prompt, echo=echo) for prompt, echo in prompts]


def _key_in(file: str, passphrase: str | None) -> Key | None:
    """The private key in a file, with its certificate if there is one; None if it has none for us.

    Raises:
        PasswordRequiredException: It needs a passphrase.
    """
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key = kind.from_private_key_file(file, password=passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, OSError, ValueError):  # of another kind
            continue
        with contextlib.suppress(paramiko.SSHException, OSError, ValueError):
            key.load_certificate(f"{file}-cert.pub")
        return key
    return None


def _public(file: str) -> bytes | None:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{file}.pub") as opened:
        import base64

        return base64.b64decode(opened.read().split()[1])
    return None


def _agent_keys(config: HostConfig, until: contextlib.ExitStack) -> list[Key]:
    """Keys of the user's ssh agent; none where there is no agent.

    They sign by the connection to it, which ends with `until`.
    """
    path = config.get("identityagent", "SSH_AUTH_SOCK") if _has_agent(config) else ""
    if path == "SSH_AUTH_SOCK":
        path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        return []
    try:
        connection = connect(expand(path, config))
        until.callback(connection.close)
        connection.settimeout(None)
        agent = AgentSSH()
        # It knows no agent but that of the environment by itself.
        agent._connect(connection)  # type: ignore[attr-defined]  # noqa: SLF001  # not in the stubs
        return list(agent.get_keys())
    except (OSError, paramiko.SSHException):
        return []


def _has_agent(config: HostConfig) -> bool:
    return [value.lower() for value in config.values.get("identityagent", ())] != ["none"]
