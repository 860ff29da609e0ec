"""What decides where ssh leads: the files of its configuration, named by one digest.

What `ssh -G` says of a host follows from the files, the word and who we are, and so it need not be
asked again while the digest is the same. It follows from more where a line runs a command, looks
at the network or asks DNS for the host's name: then there is no digest, and ssh is asked.
"""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import re
import shutil
from collections.abc import Iterator

from rdev.client.transport.settings import Settings
from rdev.wire.home import machine_id

# As in OpenSSH's readconf.c.
_DEEPEST = 16

_SYSTEM = "etc/ssh/ssh_config"
_INCLUDE = re.compile(rb"^\s*include(?:\s*=\s*|\s+)(.*)$", re.IGNORECASE | re.MULTILINE)

# `Match exec` runs something, `Match localnetwork` looks at the addresses of this machine, and a
# name that is made canonical comes from DNS. Found anywhere in a line, it is taken for one.
_DEPENDS = re.compile(
    rb"^\s*(?:match\b.*\b(?:exec|localnetwork)\b|canonicalizehostname\b)",
    re.IGNORECASE | re.MULTILINE,
)

# An included file's name that is made of variables or tokens (OpenSSH 9.9), of somebody's home, or
# that is quoted in more than the plainest way.
_MADE = re.compile(rb"[%$'\\]|~(?!/)|\"[^\"\s]*\s")


def footing_of(settings: Settings) -> str:
    """Digest of all that `ssh -G` reads for a host; empty where more decides than files.

    Args:
        settings: Of the way there, its destination filled in.
    """
    program = shutil.which("ssh")
    if program is None:
        return ""
    found = os.stat(program)
    me = pwd.getpwuid(os.getuid())
    said = hashlib.blake2b(digest_size=16)
    # A home may be shared by laptops, each with connections of its own.
    who = (machine_id(), me.pw_name, me.pw_dir, settings.destination, settings.config)
    which = (program, found.st_mtime_ns, found.st_size)
    said.update(repr((who, which)).encode())
    for content in _files(settings.config, program, me.pw_dir):
        if _DEPENDS.search(content):
            return ""
        for patterns in _INCLUDE.findall(content):
            if _MADE.search(patterns):
                return ""
        said.update(b"%d\n" % len(content))
        said.update(content)
    return said.hexdigest()


def _files(config: str, program: str, home: str) -> Iterator[bytes]:
    if config:
        yield from _read(config, folder=f"{home}/.ssh", home=home, depth=0)
        return
    yield from _read(f"{home}/.ssh/config", folder=f"{home}/.ssh", home=home, depth=0)
    # An ssh that was not put there by the system has its files beside it.
    beside = os.path.dirname(os.path.dirname(program))
    for root in sorted({"/", beside}):
        system = os.path.join(root, _SYSTEM)
        yield from _read(system, folder=os.path.dirname(system), home=home, depth=0)


def _read(path: str, *, folder: str, home: str, depth: int) -> Iterator[bytes]:
    """The file and all that it includes, whatever block the line is in; missing ones are empty."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        content = b""
    yield path.encode(errors="surrogateescape") + b"\0\n" + content
    if depth >= _DEEPEST:
        return
    for patterns in _INCLUDE.findall(content):
        for word in os.fsdecode(patterns).split():
            pattern = word.strip('"')
            pattern = home + pattern[1:] if pattern.startswith("~/") else pattern
            for included in sorted(glob.glob(os.path.join(folder, pattern))):
                yield from _read(included, folder=folder, home=home, depth=depth + 1)
