"""The `known_hosts` files: which keys a host has shown before (sshd(8), SSH_KNOWN_HOSTS FORMAT)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line that speaks of the host.

    Attributes:
        kind: Type of the key, such as `ssh-ed25519`.
        blob: The key.
        place: `FILE:LINE`.
        is_revoked: The key is never to be trusted.
        is_authority: The key signs the certificates of hosts, and is no host's own.
    """

    kind: str
    blob: bytes
    place: str
    is_revoked: bool = False
    is_authority: bool = False

    @property
    def is_own(self) -> bool:
        """Whether a host that shows it is trusted."""
        return not (self.is_revoked or self.is_authority)


def name_of(host: str, port: int) -> str:
    """What a host is called in the files."""
    host = host.lower()  # as ssh looks it up, hashed or not
    return host if port == _SSH_PORT else f"[{host}]:{port}"


def known_keys(files: Iterable[str], name: str) -> list[KnownKey]:
    """All that the files say of a host; what cannot be read or understood says nothing."""
    return [key for file in files for key in _keys_in(file, name)]


def fingerprint(blob: bytes) -> str:
    """A key as people compare it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def write_down(file: str, name: str, *, kind: str, blob: bytes, hashed: bool) -> None:
    """Adds a key to a file.

    Raises:
        OSError: It cannot be written.
    """
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    shown = _hashed(name, secrets.token_bytes(hashlib.sha1().digest_size)) if hashed else name
    line = f"{shown} {kind} {base64.b64encode(blob).decode()}\n"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with open(os.open(file, flags, 0o600), "r+b") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size and os.pread(opened.fileno(), 1, size - 1) != b"\n":
            line = f"\n{line}"
        opened.write(line.encode())


def _keys_in(file: str, name: str) -> Iterator[KnownKey]:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            lines = opened.read().splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        if _matches(words[0], name):
            with contextlib.suppress(binascii.Error):
                blob = base64.b64decode(words[2], validate=True)
                place = f"{file}:{number}"
                yield KnownKey(words[1], blob, place, marker == _REVOKED, marker == _AUTHORITY)


def _matches(patterns: str, name: str) -> bool:
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            found = found or _is_hash_of(pattern, name)
        elif pattern.startswith("!"):
            if fnmatch.fnmatchcase(name, _glob(pattern[1:])):
                return False
        else:
            found = found or fnmatch.fnmatchcase(name.lower(), _glob(pattern.lower()))
    return found


def _glob(pattern: str) -> str:
    # Brackets are a port's here, and no set of characters.
    return pattern.replace("[", "[[]")


def _is_hash_of(pattern: str, name: str) -> bool:
    try:
        salt = base64.b64decode(pattern.split("|")[2])
    except (binascii.Error, IndexError):
        return False
    return hmac.compare_digest(_hashed(name, salt), pattern)


def _hashed(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()  # the format's choice
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))
