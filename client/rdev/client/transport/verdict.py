"""What OpenSSH's complaints mean; it has no other way to say why it ended with 255."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rdev.client.transport.contract import LONGEST_OUTPUT
from rdev.protocol.errors import HostKeyRefused, HostUnreachable, LoginRefused, RdevError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a connection failed.

    Attributes:
        error: For the person.
        reached: Whether a server was asked and may count it.
    """

    error: RdevError
    reached: bool


TRY_AGAIN = "please try again"
"""What ssh says of a password that was wrong, before it asks once more."""

# What ssh says of where it looked: `Offending ED25519 key in /home/ann/.ssh/known_hosts:3`.
_OFFENDING = re.compile(r"^Offending \S+ key in (?P<place>.+:\d+)\r?$", re.MULTILINE)
_CHANGED = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY DETECTED")
_UNKNOWN_KEY = re.compile(
    r"Host key verification failed|No \S+ host key is known for|^Host key .* failed", re.MULTILINE
)
_LOGIN = re.compile(
    r"(?P<cause>Permission denied \([^)\n]*\)|Too many authentication failures"
    r"|[Nn]o more authentication methods[^\n]*|Permission denied, please try again"
    r"|sign_and_send_pubkey: [^\n]*)",
)
_LOGIN_ENDS = re.compile(r"Permission denied \(|Too many auth|o more auth|please try again")

# In the order in which they explain most; the first that is found is told.
_NAME = re.compile(r"Could not resolve hostname (?P<name>\S+?): (?P<cause>[^\n]*)")
_CONNECT = re.compile(r"connect to (?:host \S+|address \S+) port \d+: (?P<cause>[^\n]*)")
_BROKEN = re.compile(
    r"(?P<cause>Connection (?:closed|reset|timed out|to \S+ timed out|refused)[^\n]*"
    r"|Timeout, server \S+ not responding[^\n]*"
    r"|kex_exchange_identification: [^\n]*|ssh_exchange_identification: [^\n]*"
    r"|Shared connection to \S+ closed|Unable to negotiate with [^\n]*"
    r"|Bad configuration option: [^\n]*|[^\n]*: terminating, \d+ bad configuration options"
    r"|Bad owner or permissions on [^\n]*|Can't open user config file [^\n]*"
    r"|mux_client_[a-z_]+: [^\n]*|client_loop: [^\n]*|Received disconnect from [^\n]*"
    r"|Disconnected from [^\n]*|ssh_dispatch_run_fatal: [^\n]*|packet_write_wait: [^\n]*"
    r"|(?:stdio forwarding failed|channel \d+: open failed: [^\n]*)"
    r"|Host is down|[^\n]*: Broken pipe|ssh: [^\n]*)"
)


def judge(host: str, complaints: str) -> Verdict | None:
    """What ssh's stderr says of a connection that failed; None if it does not speak of one.

    Args:
        host: As the person calls it.
        complaints: All of stderr, with what the host's own shell printed there.
    """
    action = f"log in to {host}"
    text = complaints.replace("\r", "")
    if _CHANGED.search(text):
        return Verdict(changed_key(host, _place(text)), reached=True)
    if _LOGIN_ENDS.search(text) and (found := _LOGIN.search(text)):
        return Verdict(_refused(host, found["cause"]), reached=True)
    if _UNKNOWN_KEY.search(text):
        return Verdict(unknown_key(host), reached=True)
    if found := _NAME.search(text):
        hint = "check the name in `-H` and in ~/.ssh/config"
        cause = f"no host is called {found['name']}: {_sentence(found['cause'])}"
        return Verdict(HostUnreachable(action, cause, hint=hint), reached=False)
    if found := _CONNECT.search(text):
        hint = "see that it is on and that its sshd listens: `ssh -v` says more"
        cause = _sentence(found["cause"])
        return Verdict(HostUnreachable(action, cause, hint=hint), reached=False)
    if found := _BROKEN.search(text):
        return Verdict(HostUnreachable(action, _sentence(found["cause"])), reached=True)
    return None


def judge_way(host: str, jump: str, complaints: str) -> Verdict | None:
    """As `judge`, where jump hosts may be why: which host it was that did not let us in is told.

    Args:
        host: As the person calls it.
        jump: What the connections to jump hosts complained of.
        complaints: What the connection through them did.
    """
    verdict = judge(host, jump + complaints)
    if verdict is None or _is_refusal(judge(host, complaints)) or not _is_refusal(verdict):
        return verdict
    error = verdict.error
    cause = f"a jump host before it: {error.cause}"
    return replace(verdict, error=type(error)(error.action, cause, hint=error.hint))


def _is_refusal(verdict: Verdict | None) -> bool:
    return verdict is not None and isinstance(verdict.error, LoginRefused | HostKeyRefused)


def changed_key(host: str, place: str) -> HostKeyRefused:
    """The error for a host that shows another key than the one written down.

    Args:
        host: As the person calls it.
        place: File and line of the key that is known, as `FILE:LINE`; may be empty.
    """
    where = f" than {place} has" if place else " than the one known, or a revoked one"
    hint = "somebody may be listening in; ask the host's owner, and "
    hint += f"only if the key is meant to be new remove that line of {place}" if place else "wait"
    return HostKeyRefused(f"trust {host}", f"it shows another host key{where}", hint=hint)


def unknown_key(host: str, fingerprint: str = "") -> HostKeyRefused:
    """The error for a host whose key nobody has seen, where nobody can be asked."""
    shown = f" ({fingerprint})" if fingerprint else ""
    return HostKeyRefused(
        f"trust {host}",
        f"its host key{shown} is not known, and nobody can be asked here",
        hint=f"run `rdev up {host}` or `ssh {host}` in a terminal once, and compare the key with "
        "what the host's owner says",
    )


def needs_ssh(host: str, place: str) -> HostKeyRefused:
    """The error for a host whose certificate would have to be looked at, which only `ssh` can.

    Args:
        host: As the person calls it.
        place: Where the authority that signs it is written down, as `FILE:LINE`.
    """
    cause = f"by {place} a certificate vouches for it, which only the ssh command can verify"
    hint = (
        f"use `--transport openssh`, or write its own key down by `ssh-keyscan {host}` and compare"
    )
    return HostKeyRefused(f"trust {host}", cause, hint=hint)


def endless_output(host: str) -> HostUnreachable:
    """The error for a command that prints more than it can have to say."""
    cause = f"it printed more than {LONGEST_OUTPUT >> 20} MiB"
    hint = f"see what `ssh {host} true` prints, such as by ~/.bashrc there"
    return HostUnreachable(f"run a command on {host}", cause, hint=hint)


def _refused(host: str, cause: str) -> LoginRefused:
    return LoginRefused(f"log in to {host}", _sentence(cause), hint=login_hint(host))


def login_hint(host: str) -> str:
    """What a person can do who was not let in."""
    return (
        f"run `rdev up {host}` in a terminal, where it can ask, or see that `ssh {host}` works; "
        "it is not tried again by itself"
    )


def _place(text: str) -> str:
    found = _OFFENDING.findall(text)
    return found[-1] if found else ""


def _sentence(cause: str) -> str:
    cause = cause.strip().rstrip(".")
    return cause[:1].lower() + cause[1:]
