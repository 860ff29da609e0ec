"""Whether the hook can be put into a process that rdev did not start, and why it cannot."""

from __future__ import annotations

import os
import platform
import re
import signal
from dataclasses import dataclass, field

from rdev.agent.debug.symbols import Mapped, mapped
from rdev.protocol.errors import DebuggerUnavailable, NotFound, PermissionRefused, RdevError
from rdev.supervisor.processes import look_at

OLDEST = (3, 11)
NEWEST = (3, 14)

# From this version on CPython takes a script from outside by itself (PEP 768).
REMOTE_EXEC = (3, 14)

# Registers and calling convention are those of these machines, as `platform.machine` says it.
MACHINES = frozenset({"x86_64", "AMD64"})

_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
_SYS_PTRACE = 1 << 19  # CAP_SYS_PTRACE, see capabilities(7)

_PYTHON = re.compile(r"(?:lib)?python(?P<major>3)\.(?P<minor>\d+)(?P<free>t?)d?(?:\.so.*)?")
# glibc of today and of old, and musl.
_LIBC = ("libc.so.", "libc-", "ld-musl-", "libc.musl-")

_EXTENSION = re.compile(r"\.cpython-3(?P<minor>\d+)(?P<free>t?)-")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of a process.

    Attributes:
        version: Major and minor; () if no name tells.
        file: What of the process is CPython: its program or its libpython.
        is_free_threaded: It has no interpreter lock.
    """

    version: tuple[int, ...]
    file: Mapped
    is_free_threaded: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A process as /proc shows it.

    Attributes:
        pid: Its id.
        ticks: When it started, in clock ticks since boot.
        uid: Whose it is.
        state: One letter, see proc(5).
        tracer: Who traces it; 0 if nobody does.
        ignored: Signals that it ignores, a bit each.
        argv: Its command line.
        directory: Its working folder; empty if that is not known.
        program: Path of its program.
        files: What it has mapped.
        vector: Its auxiliary vector, which no other program has, see getauxval(3).
        interpreter: Its Python; None if it has none.
        is_elsewhere: It sees other files or process ids than the agent.
        job_id: The job that its environment names.
    """

    pid: int
    ticks: int
    uid: int
    state: str = "S"
    tracer: int = 0
    ignored: int = 0
    argv: tuple[str, ...] = ()
    directory: str = ""
    program: str = ""
    files: tuple[Mapped, ...] = field(default=(), repr=False)
    vector: bytes = field(default=b"", repr=False)
    interpreter: Interpreter | None = None
    is_elsewhere: bool = False
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the agent may do.

    Attributes:
        uid: Whose it is.
        may_trace_any: It has CAP_SYS_PTRACE.
        scope: `kernel.yama.ptrace_scope`; 0 where the kernel has none.
        machine: As `platform.machine` says.
        pid: Its process.
    """

    uid: int
    may_trace_any: bool = False
    scope: int = 0
    machine: str = "x86_64"
    pid: int = 0


def refusal(found: Found, rights: Rights) -> RdevError | None:
    """Why the hook cannot be put into a process; None if nothing is known against it."""
    action = f"debug process {found.pid}"
    if found.uid != rights.uid:
        cause = f"it belongs to user {found.uid}, and the agent to user {rights.uid}"
        return PermissionRefused(action, cause, hint="attach as the user whose process it is")
    cause, hint = _unsuitable(found, rights) or _busy(found)
    if cause:
        return DebuggerUnavailable(action, cause, hint=hint)
    is_asked = found.interpreter is not None and found.interpreter.version < REMOTE_EXEC
    if is_asked and rights.machine not in MACHINES:
        cause = f"no process of a Python before 3.14 can be entered on {rights.machine}"
        return DebuggerUnavailable(action, cause, hint=_AS_A_JOB)
    if not rights.may_trace_any and rights.scope:
        return PermissionRefused(
            action,
            f"the kernel does not let it be traced: {_SCOPE} is {rights.scope}",
            hint=_let_trace(rights.scope),
        )
    return None


_AS_A_JOB = "`rdev run` starts it as a job, which can be debugged at any time"


def not_permitted(pid: int) -> RdevError:
    """The error for a trace that the kernel refused though nothing had spoken against it."""
    hint = "a container needs the capability SYS_PTRACE: start it with `--cap-add=SYS_PTRACE`"
    return PermissionRefused(
        f"debug process {pid}", "the kernel does not let it be traced", hint=hint
    )


def _let_trace(scope: int) -> str:
    if scope >= 3:  # the kernel's own number, which a reboot alone takes back
        return _AS_A_JOB
    return "`sudo sysctl kernel.yama.ptrace_scope=0` on the host allows it until the next boot"


def _unsuitable(found: Found, rights: Rights) -> tuple[str, str] | None:
    if found.pid == rights.pid:  # a stop in it would hold the way to every debugger
        return "it is rdev's own agent", "`ps -ef` on the host lists the others"
    if found.is_elsewhere:
        return (
            "it runs in a container, or sees other files than the agent",
            "run rdev inside of it: its agent sees what it sees",
        )
    if found.interpreter is None:
        return "it is no Python process", "`rdev stack` and `ps -ef` on the host show which is"
    version = ".".join(map(str, found.interpreter.version))
    if not version:
        return "nothing tells which Python it has", _AS_A_JOB
    if not OLDEST <= found.interpreter.version <= NEWEST:
        return f"it runs Python {version}", "3.11 to 3.14 can be debugged"
    if found.interpreter.is_free_threaded:
        return f"it runs Python {version} without an interpreter lock", _AS_A_JOB
    for file in (found.interpreter.file, libc_of(found.files)):
        if file is not None and file.is_deleted:  # its functions are elsewhere in the new one
            name = os.path.basename(file.path)
            return f"its {name} was replaced on disk", "it can be debugged after a restart"
    return None


def _busy(found: Found) -> tuple[str, str]:
    if found.tracer:
        return (
            f"process {found.tracer} traces it already, as strace and gdb do",
            "end that one first",
        )
    if found.state == "D":
        return "it is in an uninterruptible sleep, as of a disk or a driver", "try again later"
    if found.state in "tT":
        return "it was stopped by a signal", f"`kill -CONT {found.pid}` lets it go on"
    if found.ignored >> (signal.SIGSEGV - 1) & 1:
        return "it ignores SIGSEGV, by which a call of ours ends", _AS_A_JOB
    return "", ""


def look(pid: int) -> Found:
    """A process; blocks for as long as reading /proc takes.

    Raises:
        NotFound: There is none.
        PermissionRefused: It may not be looked at.
    """
    action = f"debug process {pid}"
    gone = NotFound(action, "there is no such process", hint="`ps -ef` on the host lists them")
    process = look_at(pid)
    if process is None:
        raise gone
    if process.is_dead:
        raise NotFound(action, "it has ended", hint="`ps -ef` on the host lists those that run")
    try:
        status = _status(pid)
        if (group := int(status.get("Tgid", pid))) != pid:
            hint = f"`rdev debug --pid {group}` is the process's"
            raise NotFound(action, f"it is a thread of process {group}", hint=hint)
        uid = int(status.get("Uid", "0 0").split()[1])
        if uid != os.geteuid():
            return Found(pid, process.ticks, uid)
        return _inspected(pid, process.ticks, status)
    except PermissionError as error:
        cause = "it does not let itself be looked at, as a program with a capability"
        raise PermissionRefused(action, cause, hint=_AS_A_JOB) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise gone from error


def rights() -> Rights:
    """What this process may do."""
    try:
        with open(_SCOPE, encoding="ascii") as file:
            scope = int(file.read())
    except (OSError, ValueError):  # a kernel without Yama
        scope = 0
    capabilities = int(_status(os.getpid()).get("CapEff", "0"), 16)
    may_trace_any = bool(capabilities & _SYS_PTRACE)
    return Rights(os.geteuid(), may_trace_any, scope, platform.machine(), os.getpid())


def _inspected(pid: int, ticks: int, status: dict[str, str]) -> Found:
    folder = f"/proc/{pid}"
    with open(f"{folder}/auxv", "rb") as vector_of:  # before the map that it is to vouch for
        vector = vector_of.read()
    with open(f"{folder}/maps", encoding="utf-8", errors="surrogateescape") as file:
        files = tuple(mapped(file.read()))
    program = os.readlink(f"{folder}/exe").removesuffix(" (deleted)")
    return Found(
        pid,
        ticks,
        os.geteuid(),
        state=status.get("State", "S")[:1],
        tracer=int(status.get("TracerPid", "0")),
        ignored=int(status.get("SigIgn", "0"), 16),
        argv=tuple(os.fsdecode(word) for word in _words(f"{folder}/cmdline")),
        directory=os.readlink(f"{folder}/cwd"),
        program=program,
        files=files,
        vector=vector,
        interpreter=interpreter_of(files, program),
        is_elsewhere=any(
            os.readlink(f"{folder}/{name}") != os.readlink(f"/proc/self/{name}")
            for name in ("ns/mnt", "ns/pid", "root")
        ),
        job_id=_variable(_words(f"{folder}/environ"), b"RDEV_JOB_ID"),
    )


def interpreter_of(files: tuple[Mapped, ...], program: str) -> Interpreter | None:
    """The Python of a process, by the names of what it has mapped; None if it has none."""
    own = next((file for file in files if file.path == program), None)
    # Where there is a library, the program of the same name is a shell around it.
    libraries = [file for file in files if os.path.basename(file.path).startswith("libpython")]
    for file in (*libraries, *([own] if own is not None else [])):
        if match := _PYTHON.fullmatch(os.path.basename(file.path)):
            version = int(match["major"]), int(match["minor"])
            return Interpreter(version, file, is_free_threaded=bool(match["free"]))
    if own is None:
        return None
    for file in files:  # a program of another name, with CPython in it
        if match := _EXTENSION.search(os.path.basename(file.path)):
            version = 3, int(match["minor"])
            return Interpreter(version, own, is_free_threaded=bool(match["free"]))
    return Interpreter((), own) if os.path.basename(program).startswith("python") else None


def libc_of(files: tuple[Mapped, ...]) -> Mapped | None:
    """The C library among what a process has mapped; None if it is part of the program."""
    return next((f for f in files if os.path.basename(f.path).startswith(_LIBC)), None)


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}


def _words(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read().rstrip(b"\0").split(b"\0")


def _variable(words: list[bytes], name: bytes) -> str:
    found = [word.partition(b"=")[2] for word in words if word.startswith(name + b"=")]
    return found[-1].decode(errors="replace") if found else ""
