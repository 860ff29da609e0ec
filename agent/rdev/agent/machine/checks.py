"""Looks at all that a job may stumble over on this machine: one function, one finding.

Each says what was found, whether that will do, and the remedy if it will not. None raises: what
cannot be looked at is a finding too.
"""

from __future__ import annotations

import configparser
import glob
import os
import platform
import pwd
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rdev.agent.environment.found import Environment, Kind
from rdev.agent.jobs.gpus import GpusUnknownError, Nvml
from rdev.protocol.finding import Finding
from rdev.wire.home import Home, check_private
from rdev.wire.unix import MAX_SOCKET_PATH

# The oldest kernel whose system calls the agent relies on: openat2 and pidfd_open came before 5.6.
_OLDEST_KERNEL = (5, 6)

# Logs and snapshots need room; below this a training's output soon meets a full disk. A synced tree
# may have thousands of files, and a managed environment has tens of thousands.
_LEAST_FREE = 1 << 30
_LEAST_FILES = 50_000

# A person knows theirs by name; a shared machine may have hundreds.
_MOST_NAMED = 8

# A synced tree takes one watch a folder on the laptop, a followed log one here; editors beside us
# take many. Distributions gave 8,192 before kernel 5.11.
_LEAST_WATCHES, _LEAST_INSTANCES = 8192, 128

# Times in logs of both machines are read side by side, and `make`-like tools compare file times.
_MOST_SKEW = 2.0

# Workers of a DataLoader hand batches over in shared memory; containers get 64 MiB by default.
_LEAST_SHARED = 1 << 30

# A training with workers and checkpoints opens many files; 1,024 is what logins get at least.
_LEAST_DESCRIPTORS = 1024

# A quota daemon on a dead file server must not hold up the rest.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks are given.

    Attributes:
        home: The agent's home.
        environment: What jobs get, the login's.
        skew: Seconds that the caller's clock is ahead of ours; None if it did not say.
        environments: Finds the environments and interpreters that jobs may run in. It blocks.
        login_fault: Why jobs do not get what a login has; empty if they do.
        is_login_node: Jobs belong on other nodes of this machine's cluster.
    """

    home: Home
    environment: Mapping[str, str]
    skew: float | None = None
    environments: Callable[[], Sequence[Environment]] = tuple
    login_fault: str = ""
    is_login_node: bool = False


def examine(machine: Machine) -> list[Finding]:
    """All findings, in the order in which a person would mend them. Blocks for some seconds."""
    return [_finding(what, check, machine) for what, check in _CHECKS.items()]


@dataclass(frozen=True, slots=True)
class _Said:
    """What one check says; see `Finding`."""

    found: str
    ok: bool = True
    remedy: str = ""


def _finding(what: str, check: Callable[[Machine], _Said], machine: Machine) -> Finding:
    try:
        said = check(machine)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        said = _Said(f"cannot be looked at: {error}", ok=False, remedy="ask whoever runs the host")
    return Finding(what, said.found, ok=said.ok, remedy="" if said.ok else said.remedy)


def _kernel(_machine: Machine) -> _Said:
    release = platform.release()
    parts = release.replace("-", ".").split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    return _Said(
        f"{platform.system()} {release} {platform.machine()}",
        ok=platform.system() == "Linux" and version >= _OLDEST_KERNEL,
        remedy="run the agent on Linux 5.6 or later",
    )


def _home(machine: Machine) -> _Said:
    root = machine.home.root
    try:
        check_private(root)
    except OSError as error:
        remedy = f"chmod 700 {root}, and see that it is yours"
        return _Said(str(error), ok=False, remedy=remedy)
    return _Said(root)


def _free_space(machine: Machine) -> _Said:
    found = os.statvfs(machine.home.root)
    free = found.f_bavail * found.f_frsize
    said = f"{free / 2**30:.1f} GiB"
    has_files = found.f_files == 0 or found.f_favail >= _LEAST_FILES  # some do not count them
    if found.f_files:
        said += f", and inodes for {found.f_favail} files"
    remedy = "free some: `rdev rm --ended` removes ended jobs with their logs; or use --home"
    return _Said(said, ok=free > _LEAST_FREE and has_files, remedy=remedy)


def _quota(_machine: Machine) -> _Said:
    if shutil.which("quota") is None:
        return _Said("no quota tool, so none is known")
    ran = subprocess.run(
        ["quota", "-q", "-w"],  # -q prints only file systems over their limit
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    over = ran.stdout.strip().splitlines()
    remedy = "remove what you do not need there, or put the agent elsewhere with --home"
    return _Said(over[-1].strip() if over else "not exceeded", ok=not over, remedy=remedy)


def _executable(machine: Machine) -> _Said:
    places = {"the agent's home": machine.home.root, "jobs": machine.home.jobs}
    barred = [
        f"{name} ({path})"
        for name, path in places.items()
        if os.path.isdir(path) and os.statvfs(path).f_flag & os.ST_NOEXEC
    ]
    remedy = "compiled extensions cannot be loaded from there: choose another place with --home"
    said = f"mounted noexec: {', '.join(barred)}" if barred else "programs can run from the home"
    return _Said(said, ok=not barred, remedy=remedy)


def _logind(_machine: Machine) -> _Said:
    if not os.path.isdir("/run/systemd/system"):
        return _Said("no systemd, so nothing ends at a logout")
    if not _kills_user_processes():
        return _Said("KillUserProcesses is off: jobs outlive the login")
    if _lingers():
        return _Said("KillUserProcesses is on, but this user lingers: jobs outlive the login")
    user = pwd.getpwuid(os.geteuid()).pw_name
    return _Said(
        "KillUserProcesses is on: systemd ends every process of a user who logs out, jobs too",
        ok=False,
        remedy=f"loginctl enable-linger {user}",
    )


def _kills_user_processes() -> bool:
    # Later files and later lines win, as logind.conf(5) has it; off is what systemd's own is.
    files = ["/etc/systemd/logind.conf", *sorted(glob.glob("/etc/systemd/logind.conf.d/*.conf"))]
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(files, encoding="utf-8")
    said = parser.get("Login", "KillUserProcesses", fallback="no").strip().lower()
    return said in ("1", "yes", "true", "on")


def _lingers() -> bool:
    return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")


def _inotify(_machine: Machine) -> _Said:
    watches = _number("/proc/sys/fs/inotify/max_user_watches")
    instances = _number("/proc/sys/fs/inotify/max_user_instances")
    return _Said(
        f"{watches} watches and {instances} instances a user",
        ok=watches >= _LEAST_WATCHES and instances >= _LEAST_INSTANCES,
        remedy="have fs.inotify.max_user_watches set to 524288 and max_user_instances to 512",
    )


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _clock(machine: Machine) -> _Said:
    if machine.skew is None:
        return _Said(time.strftime("%Y-%m-%d %H:%M:%S %Z"))
    ahead = "behind" if machine.skew > 0 else "ahead of"
    apart = f"{abs(machine.skew):.1f} s {ahead} the caller's"
    is_close = abs(machine.skew) <= _MOST_SKEW
    said = "agrees with the caller's" if is_close else apart
    return _Said(said, ok=is_close, remedy="have both machines' clocks set by NTP")


def _gpu(_machine: Machine) -> _Said:
    nvml = Nvml()
    try:
        devices = nvml.look()
    except GpusUnknownError as error:
        # A machine without a driver is a machine without a GPU, and many are.
        bare = not os.path.exists("/dev/nvidiactl")
        return _Said("none" if bare else error.cause, ok=bare, remedy=error.hint)
    finally:
        nvml.close()
    names = ", ".join(f"{device.gpu.index}: {device.gpu.name}" for device in devices) or "none"
    driver = _driver()
    return _Said(f"{names} (driver {driver})" if driver else names)


def _driver() -> str:
    try:
        with open("/sys/module/nvidia/version", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _shared_memory(_machine: Machine) -> _Said:
    found = os.statvfs("/dev/shm")
    size = found.f_blocks * found.f_frsize
    return _Said(
        f"{size / 2**30:.1f} GiB in /dev/shm",
        ok=size >= _LEAST_SHARED,
        remedy="workers of a DataLoader need more: give the container --shm-size or --ipc=host",
    )


def _descriptors(_machine: Machine) -> _Said:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard} a process at most"
    return _Said(
        shown,
        ok=hard == resource.RLIM_INFINITY or hard >= _LEAST_DESCRIPTORS,
        remedy="have the hard limit of open files (nofile) raised",
    )


def _sockets(machine: Machine) -> _Said:
    length = len(os.fsencode(machine.home.socket))
    if length <= MAX_SOCKET_PATH:
        return _Said(f"{length} bytes of {MAX_SOCKET_PATH}")
    # Ours are reached through a descriptor of their folder, so this is only worth knowing.
    return _Said(f"{length} bytes, reached through a descriptor")


def _python(machine: Machine) -> _Said:
    path = machine.environment.get("PATH", os.defpath)
    found = shutil.which("python3", path=path)
    remedy = "give scripts an interpreter with --python, --env or `[env]` in rdev.toml"
    return _Said(found or "none", ok=found is not None, remedy=remedy)


def _environments(machine: Machine) -> _Said:
    found = machine.environments()
    named = [each for each in found if each.kind is not Kind.SYSTEM]
    shown = [f"{each.words} (torch {each.torch})" if each.torch else each.words for each in named]
    more = len(shown) - _MOST_NAMED
    words = shown[:_MOST_NAMED] + ([f"{more} more"] if more > 0 else [])
    others = len(found) - len(named)
    words += [f"{others} Python{'' if others == 1 else 's'} outside of them"] if others else []
    remedy = "install Python or conda there, or have rdev make an environment: `[env] manage`"
    has_python = any(each.python for each in found)
    return _Said(", ".join(words) or "none", ok=has_python, remedy=remedy)


def _login_node(machine: Machine) -> _Said:
    if not machine.is_login_node:
        return _Said("no: jobs may run here")
    return _Said(
        "yes: Slurm's sbatch is here, and no GPU",
        ok=False,
        remedy="get a compute node with `salloc` and name that as the host; `run` asks first here",
    )


def _login(machine: Machine) -> _Said:
    if not machine.login_fault:
        return _Said("jobs get what it has")
    return _Said(
        f"jobs get the agent's environment, umask and limits instead: {machine.login_fault}",
        ok=False,
        remedy="see that the login's rc files run a command without a terminal, then `rdev up`",
    )


def _debugger(_machine: Machine) -> _Said:
    is_there = find_spec("debugpy") is not None
    remedy = "pip install 'rdev[agent]' into the agent's Python"
    return _Said("found" if is_there else "missing", ok=is_there, remedy=remedy)


_CHECKS: Mapping[str, Callable[[Machine], _Said]] = {
    "kernel": _kernel,
    "agent's home": _home,
    "free space": _free_space,
    "quota": _quota,
    "noexec": _executable,
    "logout": _logind,
    "inotify": _inotify,
    "clock": _clock,
    "GPU": _gpu,
    "login": _login,
    "login node": _login_node,
    "shared memory": _shared_memory,
    "open files": _descriptors,
    "socket path": _sockets,
    "python3 on PATH": _python,
    "environments": _environments,
    "debugpy": _debugger,
}
