"""What a machine is like: a script for its `sh`, and what the script's answer means."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rdev.client.bootstrap.words import has_no_control

_BEGIN = "rdev-probe begin"
_END = "rdev-probe end"

# A version and a digest, see `rdev.client.bootstrap.release`; no path, and nothing half made.
_RELEASE = re.compile(r"[0-9][0-9A-Za-z.+!]*-[0-9a-z]+")

# What a shell that reads `sh`'s language as its own begins its complaints with.
_SHELL = re.compile(r"(?:-|/\S+/)?(?:fish|zsh|csh|tcsh|nu|xonsh|elvish)\b")
_WORD = re.compile(r"[^\W\d_]{2}")

_SCRIPT = os.path.join(os.path.dirname(__file__), "probe.sh")


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that runs there.

    Attributes:
        source: How it was found: wish, path, conda, pyenv, uv or module.
        path: Where.
        version: Such as (3, 11, 2).
        implementation: Such as `cpython`.
        abi: Its ABI flags; `t` without the global lock, `d` for debugging.
        bits: 64 or 32.
        machine: Architecture.
        libc: Such as `glibc 2.36`; empty for any other libc.
        base: The executable itself, no link and in no virtual environment.
        has_pip: Whether it can run pip.
    """

    source: str
    path: str
    version: tuple[int, ...]
    implementation: str
    abi: str
    bits: int
    machine: str
    libc: str
    base: str
    has_pip: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that may hold a release, or would if it were made.

    Attributes:
        path: Absolute.
        free: Bytes that are free there; None where nobody could say.
        kind: Of its file system, such as `ext4` or `nfs4`.
        may_execute: False on a file system that is mounted noexec.
        is_writable: Whether something can be made there.
    """

    path: str
    free: int | None
    kind: str
    may_execute: bool
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """What a machine said of itself.

    Attributes:
        system: `uname -s`.
        machine: `uname -m`.
        kernel: `uname -r`.
        hostname: `uname -n`.
        uid: Who logs in there.
        login: Home directory.
        shell: Login shell.
        libc: `glibc 2.36`, `musl`, or empty if unknown.
        root: The agent's state folder.
        spares: Folders outside the home that may hold a release.
        dist: Where releases lie already; empty if nowhere.
        releases: Those that lie there and run.
        home_id: Id of that folder, see `rdev.client.known.KnownHost`.
        has_user_manager: Whether `systemd --user` answers.
        kills_processes: Whether logind kills what a login leaves behind.
        lingers: Whether it spares this user.
        has_gpu: Whether there is a driver of NVIDIA's.
        sbatch: Path of Slurm's `sbatch`, if any.
        uv: Path of `uv`, if any.
        wished: The Python that was asked for, as it is called there.
        pythons: All that run.
    """

    system: str
    machine: str
    kernel: str
    hostname: str
    uid: int
    login: str
    shell: str
    libc: str
    root: Place
    spares: tuple[Place, ...]
    dist: str
    releases: tuple[str, ...]
    home_id: str
    has_user_manager: bool
    kills_processes: bool
    lingers: bool
    has_gpu: bool
    sbatch: str
    uv: str
    wished: str
    pythons: tuple[Python, ...]


class ProbeUnreadableError(ValueError):
    """The answer is not one of the script, or not all of one."""


def script(*, home: str = "", python: str = "") -> bytes:
    """What to feed to `sh -s` there.

    Args:
        home: The agent's state folder, as a person wishes it; empty for the default.
        python: The Python that a person wishes: a path, a command, a conda prefix, or `uv`.
    """
    with open(_SCRIPT, "rb") as file:
        body = file.read()
    wishes = f"wish_home={shlex.quote(home)}\nwish_python={shlex.quote(python)}\n"
    return wishes.encode() + body


def parse(answer: bytes) -> Probe:
    """Reads what the script printed, whatever rc files printed around it.

    Raises:
        ProbeUnreadableError: It did not run, or not to its end.
    """
    return _probe(_fields(answer.decode(errors="surrogateescape")))


def has_begun(answer: bytes) -> bool:
    """Whether the script was reached at all."""
    return _BEGIN.encode() in answer


def complaint_in(*outputs: bytes) -> str:
    """The line that says best why the script was not reached; empty if nothing was said.

    Args:
        outputs: What was printed, where to look first coming first.
    """
    for output in outputs:
        lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
        lines = [line for line in lines if _WORD.search(line)]
        if lines:
            # fish shows the place below what it says, and we are interested in that it is fish.
            return next((line for line in lines if _SHELL.match(line)), lines[-1])
    return ""


def shell_hint(host: str) -> str:
    """What a person can do whose login runs no `sh`."""
    return (
        f"`ssh {host} sh` must start a shell: an rc file there, such as ~/.bashrc, that starts "
        "another one may do so in terminals alone, in bash by `[[ $- == *i* ]] || return` before it"
    )


def _fields(text: str) -> Mapping[str, Sequence[str]]:
    lines = [line.rstrip("\r") for line in text.split("\n")]
    # An rc file may have printed without a line break at its end.
    starts = [number for number, line in enumerate(lines) if line.endswith(_BEGIN)]
    if not starts:
        raise ProbeUnreadableError("the login shell there does not run `sh`")
    found: dict[str, list[str]] = {}
    for line in lines[starts[-1] + 1 :]:
        if line == _END:
            return found
        key, parted, value = line.partition("=")
        if parted:
            found.setdefault(key, []).append(value)
    raise ProbeUnreadableError("the probe there ended before it was done")


def _probe(fields: Mapping[str, Sequence[str]]) -> Probe:
    def one(key: str) -> str:
        return fields.get(key, ("",))[0]

    roots = [place for line in fields.get("root", ()) if (place := _place(line))]
    if not roots or not _is_number(one("uid")):
        raise ProbeUnreadableError("the probe there said nothing of its user or its home")
    return Probe(
        system=one("system"),
        machine=one("machine"),
        kernel=one("kernel"),
        hostname=one("hostname"),
        uid=int(one("uid")),
        login=one("login"),
        shell=one("shell"),
        libc=one("libc"),
        root=roots[0],
        spares=tuple(place for line in fields.get("spare", ()) if (place := _place(line))),
        dist=one("dist") if has_no_control(one("dist")) else "",
        releases=tuple(name for name in fields.get("release", ()) if _RELEASE.fullmatch(name)),
        home_id=one("home_id"),
        has_user_manager=one("user_manager") == "yes",
        kills_processes=one("kill_user_processes") == "yes",
        lingers=one("linger") == "yes",
        has_gpu=one("gpu") == "yes",
        sbatch=one("sbatch"),
        uv=one("uv"),
        wished=one("wished"),
        pythons=_distinct(fields.get("python", ())),
    )


def _place(line: str) -> Place | None:
    parts = line.split("\t")
    if len(parts) != 5 or not parts[0].startswith("/") or not has_no_control(parts[0]):
        return None
    path, free, kind, may, able = parts
    return Place(
        path=path,
        free=int(free) * 1024 if _is_number(free) else None,
        kind=kind,
        may_execute=may != "noexec",
        is_writable=able == "writable",
    )


def _distinct(lines: Sequence[str]) -> tuple[Python, ...]:
    """Each interpreter once, however many links lead to it; the first name it was found by."""
    found: dict[str, Python] = {}
    for line in lines:
        python = _python(line)
        if python is not None:
            found.setdefault(python.base, python)
    return tuple(found.values())


def _python(line: str) -> Python | None:
    parts = line.split("\t")
    if len(parts) != 10:
        return None
    source, path, version, implementation, abi, bits, machine, libc, base, pip = parts
    numbers = version.split(".")
    if not all(map(_is_number, [*numbers, bits])) or not has_no_control(path + base):
        return None
    return Python(
        source=source,
        path=path,
        version=tuple(map(int, numbers)),
        implementation=implementation,
        abi=abi,
        bits=int(bits),
        machine=machine,
        libc=libc,
        base=base,
        has_pip=bool(pip),
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
