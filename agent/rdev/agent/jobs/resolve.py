"""Turns what was asked for into what is executed: command line, folder, environment."""

from __future__ import annotations

import os
import pwd
import resource
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rdev.protocol.errors import CommandNotFound, InvalidRequest, ScriptNotFound
from rdev.supervisor import shim
from rdev.supervisor.outputs import PER_OUTPUT
from rdev.wire.channel import JOB_VARIABLE, MAX_LINE, SOCKET_VARIABLE
from rdev.wire.files import JobFiles, state_slot
from rdev.wire.job import ONE_PER_GPU, CommandKind, DebugStart, JobSpec
from rdev.wire.records import Launch

# They belong to the connection that the agent was started over, or to the agent itself.
_NOT_THE_JOBS = ("SSH_", "RDEV_", "GRPC_")
_NOT_A_JOBS = frozenset({"DISPLAY", "XAUTHORITY", "OLDPWD", "_"})

# What systemd tells a service, see systemd.exec(5) and sd_notify(3); a job is none of its.
_SERVICES = frozenset(
    (
        *("NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID"),
        *("MAINPID", "WATCHDOG_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY"),
        *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "MANAGERPIDFDID"),
        *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"),
    )
)

# More than one machine has GPUs; its supervisor reads all outputs in one loop.
_MAX_RANKS = 256

# Descriptors that a supervisor takes beside its outputs': its own, then a hook and a loop a rank.
_BESIDE_OUTPUTS = 64
_DIALS = 2

# Nobody means a time that is longer than machines live; clocks and polls bear no endless one.
_LONGEST = 10 * 365 * 86400.0

_PLAIN_SHELL = "/bin/sh"

# What `rdev.hook.waiting` reads in each process of the job.
DEBUG_VARIABLE = "RDEV_JOB_DEBUG"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all jobs of an agent have in common.

    Attributes:
        environment: The login environment.
        umask: The login's umask.
        hook_directory: Put first on PYTHONPATH unless a job declines; None if there is no hook.
        limits: The login's resource limits, see `rdev.wire.records.Launch`; so what follows.
        nice: Its niceness.
        cpus: Its CPUs.
        log_most: Bytes that each output of a job may take; None is no limit.
    """

    environment: Mapping[str, str]
    umask: int
    hook_directory: str | None
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    cpus: tuple[int, ...] = ()
    log_most: int | None = None


class Ground(Protocol):
    """What a job stands on: its Python, and the environment that its own variables are added to."""

    @property
    def interpreter(self) -> str:
        """Runs scripts and modules; empty if there is none."""

    @property
    def words(self) -> str:
        """What it runs in, in words; may be empty."""

    @property
    def lead(self) -> str:
        """Folder of the interpreter where it is not simply the first on the login's PATH."""

    @property
    def variables(self) -> Mapping[str, str]:
        """The login environment with everything activated."""


@dataclass(frozen=True, slots=True)
class LoginGround:
    """The ground of an agent that knows no environments: what the login has by itself."""

    variables: Mapping[str, str]
    interpreter: str
    words: str = ""
    lead: str = ""


def login_ground(spec: JobSpec, surroundings: Surroundings, folder: str) -> LoginGround:
    """What a job stands on by its specification and the login environment alone."""
    variables = scrubbed(surroundings.environment)
    found = shutil.which("python3", path=variables.get("PATH", os.defpath)) or ""
    has_path = "/" in spec.python
    named = os.path.normpath(os.path.join(folder, spec.python)) if has_path else spec.python
    return LoginGround(variables, named or found)


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to a connection, a terminal's display or an agent."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_NOT_THE_JOBS) and name not in _NOT_A_JOBS | _SERVICES
    }


def resolve(
    spec: JobSpec,
    surroundings: Surroundings,
    *,
    job_id: str,
    files: JobFiles,
    folder: str,
    ground: Ground,
) -> Launch:
    """What to execute for a specification.

    Args:
        spec: What was asked for.
        surroundings: What all jobs have.
        job_id: The job.
        files: Where its files will lie.
        folder: Its workspace's folder, or the user's home.
        ground: Its Python and what is activated for it.

    Raises:
        InvalidRequest: The directory or the script leaves the folder, a time is none, or nobody
            can say how many ranks it shall have, or the machine does not bear so many.
        ScriptNotFound: There is no such script.
        CommandNotFound: There is no Python.
    """
    directory = _inside(folder, spec.directory or ".", "directory")
    environment = _environment(spec, surroundings, ground, job_id=job_id, files=files)
    _check_times(spec)
    ranks = ranks_of(spec)
    _check_descriptors(ranks)
    _check_retries(spec, ranks)
    argv = _argv(spec, ground, folder=folder, directory=directory, environment=environment)
    if spec.kind is CommandKind.PROGRAM and not spec.target and ground.lead:
        _lead_to_python(environment, ground.lead, shell=argv[0])
    if spec.processes:
        # A program that is a Python itself has the torch that its script wants.
        is_python = os.path.basename(argv[0]).startswith("python")
        argv = (*_launcher(argv[0] if is_python else _python(spec, ground), ranks), *argv)
    if ranks > 1:
        # What torchrun sets by itself, after a page of warning.
        environment.setdefault("OMP_NUM_THREADS", "1")
    return Launch(
        id=job_id,
        argv=argv,
        environment={**environment, "PWD": directory},
        directory=directory,
        umask=surroundings.umask,
        grace=spec.grace,
        timeout=spec.timeout,
        terminal=spec.terminal,
        stdin=spec.stdin,
        ranks=ranks,
        launcher=spec.processes != 0,
        retries=spec.retries,
        keep_children=spec.keep_children,
        log_full=spec.log_full,
        log_most=surroundings.log_most,
        limits=surroundings.limits,
        nice=surroundings.nice,
        cpus=surroundings.cpus,
    )


def ranks_of(spec: JobSpec) -> int:
    """How many ranks a job has.

    Raises:
        InvalidRequest: The number is out of range or cannot be known, or they want a terminal.
    """
    if not spec.processes:
        return 1
    ranks = spec.processes
    if ranks == ONE_PER_GPU:
        wanted = spec.gpus
        ranks = (wanted.count or len(wanted.devices)) if wanted else 0
        if not ranks:
            hint = "say which with --gpus, or how many processes with --nproc N"
            cause = "it asks for no GPU"
            raise InvalidRequest("start one process for each GPU of the job", cause, hint=hint)
    if not 0 < ranks <= _MAX_RANKS:
        cause, hint = "the number is out of range", f"ask for 1 to {_MAX_RANKS}"
        raise InvalidRequest(f"start {ranks} processes", cause, hint=hint)
    if spec.terminal is not None:
        hint = "leave out -t, or --nproc"
        raise InvalidRequest("start ranks in a terminal", "they would share it", hint=hint)
    return ranks


def _check_times(spec: JobSpec) -> None:
    # Written so that NaN, which is neither less nor more than anything, is refused too.
    if not 0 <= spec.grace <= _LONGEST:
        cause, hint = "it is no time that anybody can wait", "ask for 0 to 10 years, in seconds"
        raise InvalidRequest(f"give the job a grace of {spec.grace} s", cause, hint=hint)
    if spec.timeout is not None and not 0 < spec.timeout <= _LONGEST:
        cause, hint = "it is no time that a job can take", "ask for more than 0, or for no timeout"
        raise InvalidRequest(f"give the job a timeout of {spec.timeout} s", cause, hint=hint)


def _check_descriptors(ranks: int) -> None:
    """One process, the supervisor, holds all outputs; it may have what we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if ranks == 1 or hard == resource.RLIM_INFINITY:
        return
    most = (hard - _BESIDE_OUTPUTS - PER_OUTPUT) // (2 * PER_OUTPUT + _DIALS)
    if ranks > most:
        cause = f"a process may have {hard} descriptors here (`ulimit -Hn`), and they take more"
        hint = f"ask for {max(most, 1)} at most, or have the limit raised"
        raise InvalidRequest(f"start {ranks} processes", cause, hint=hint)


def _check_retries(spec: JobSpec, ranks: int) -> None:
    """A status tells of every attempt and of every output in it, and is one message."""
    outputs = 2 * ranks + 1
    largest = (MAX_LINE - state_slot(retries=0, outputs=0)) // (
        state_slot(retries=1, outputs=outputs) - state_slot(retries=0, outputs=0)
    )
    if not 0 <= spec.retries <= largest:
        cause, hint = "nobody could tell of so many", f"ask for {largest} at most"
        raise InvalidRequest(f"retry the job {spec.retries} times", cause, hint=hint)


def _launcher(python: str, ranks: int) -> tuple[str, ...]:
    """The command line before the ranks' own: torchrun by the job's Python, the shim by ours."""
    options = ("--no-python", "--standalone", "--max-restarts", "0", "--nproc-per-node", str(ranks))
    # Without the dashes argparse takes what follows for abbreviations of options of its own.
    torchrun = (python, "-m", "torch.distributed.run", *options, "--")
    return (*torchrun, sys.executable, "-I", "-S", os.path.abspath(shim.__file__))


def _argv(
    spec: JobSpec,
    ground: Ground,
    *,
    folder: str,
    directory: str,
    environment: Mapping[str, str],
) -> tuple[str, ...]:
    if spec.kind is CommandKind.PROGRAM:
        return (spec.target, *spec.args) if spec.target else (_login_shell(environment), "-l")
    python = _python(spec, ground)
    if spec.kind is CommandKind.MODULE:
        return (python, "-m", spec.target, *spec.args)
    script = _inside(folder, spec.target, "script")
    if not os.path.isfile(script):
        raise ScriptNotFound(f"run {spec.target}", "there is no such file in the workspace")
    # Relative, as a person would have typed it there: it is what sys.argv[0] and tracebacks show.
    return (python, os.path.relpath(script, directory), *spec.args)


def _login_shell(environment: Mapping[str, str]) -> str:
    if environment.get("SHELL"):
        return environment["SHELL"]
    try:
        return pwd.getpwuid(os.geteuid()).pw_shell or _PLAIN_SHELL
    except KeyError:  # a container may run under a uid that has no name
        return _PLAIN_SHELL


def _lead_to_python(environment: dict[str, str], lead: str, *, shell: str) -> None:
    """Makes `python` in a login shell the interpreter that jobs run with.

    Start-up files may set PATH anew, as /etc/profile does on Debian: bash can be told what to do
    before its first prompt, which is after them; sh has no such place.
    """
    path = environment.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != lead:
        environment["PATH"] = os.pathsep.join((lead, path))
    if os.path.basename(shell) == "bash":
        first = f"PATH={shlex.quote(lead)}:$PATH; unset PROMPT_COMMAND"
        before = environment.get("PROMPT_COMMAND", "")
        if before:
            first = f"{first}; export PROMPT_COMMAND={shlex.quote(before)}"
        environment["PROMPT_COMMAND"] = first


def _python(spec: JobSpec, ground: Ground) -> str:
    if ground.interpreter:
        return ground.interpreter
    hint = "install Python there, or name one with --python"
    raise CommandNotFound(f"run {spec.target}", "the host has no python3 on its PATH", hint=hint)


def _inside(folder: str, path: str, what: str) -> str:
    joined = os.path.normpath(os.path.join(folder, path))
    if os.path.isabs(path) or (
        joined != folder and not joined.startswith(folder.rstrip("/") + "/")
    ):
        raise InvalidRequest(f"use {path!r} as the job's {what}", "it lies outside the workspace")
    return joined


def _environment(
    spec: JobSpec, surroundings: Surroundings, ground: Ground, *, job_id: str, files: JobFiles
) -> dict[str, str]:
    # Output shows when it is printed, not when a buffer is full; a job may say otherwise.
    environment = {"PYTHONUNBUFFERED": "1", **ground.variables}
    environment |= spec.environment
    if spec.hook and surroundings.hook_directory is not None and spec.processes:
        environment[shim.PLANT_VARIABLE] = surroundings.hook_directory
    elif spec.hook and surroundings.hook_directory is not None:
        paths = [surroundings.hook_directory, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if spec.hook and (words := _debug_words(spec.debug)):
        environment[DEBUG_VARIABLE] = words
    return environment | {JOB_VARIABLE: job_id, SOCKET_VARIABLE: files.socket}


def _debug_words(stops: DebugStart) -> str:
    """What the hook of a process is to stop at, as `rdev.hook.waiting` reads it."""
    asked = {
        "start": stops.at_start,
        "exception": stops.on_exception,
        "nan": stops.on_nan,
        f"step={stops.step}": stops.step > 0,
    }
    return ",".join(word for word, is_asked in asked.items() if is_asked)
