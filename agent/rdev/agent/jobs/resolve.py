"""Turns what was asked for into what is executed: command line, folder, environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from rdev.protocol.errors import CommandNotFound, InvalidRequest, ScriptNotFound
from rdev.wire.channel import JOB_VARIABLE, SOCKET_VARIABLE
from rdev.wire.files import JobFiles
from rdev.wire.job import CommandKind, JobSpec
from rdev.wire.records import Launch

# They belong to the connection that the agent was started over, or to the agent itself.
_NOT_THE_JOBS = ("SSH_", "RDEV_", "GRPC_")
_NOT_A_JOBS = frozenset({"DISPLAY", "XAUTHORITY", "NOTIFY_SOCKET", "OLDPWD", "_"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all jobs of an agent have in common.

    Attributes:
        environment: The login environment.
        umask: The login's umask.
        hook_directory: Put first on PYTHONPATH unless a job declines; None if there is no hook.
    """

    environment: Mapping[str, str]
    umask: int
    hook_directory: str | None


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to a connection, a terminal's display or an agent."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_NOT_THE_JOBS) and name not in _NOT_A_JOBS
    }


def resolve(
    spec: JobSpec, surroundings: Surroundings, *, job_id: str, files: JobFiles, folder: str
) -> Launch:
    """What to execute for a specification.

    Args:
        spec: What was asked for.
        surroundings: What all jobs have.
        job_id: The job.
        files: Where its files will lie.
        folder: Its workspace's folder, or the user's home.

    Raises:
        InvalidRequest: The directory or the script leaves the folder.
        ScriptNotFound: There is no such script.
        CommandNotFound: There is no Python.
    """
    directory = _inside(folder, spec.directory or ".", "directory")
    environment = _environment(spec, surroundings, job_id=job_id, files=files)
    return Launch(
        id=job_id,
        argv=_argv(spec, folder=folder, directory=directory, environment=environment),
        environment={**environment, "PWD": directory},
        directory=directory,
        umask=surroundings.umask,
        grace=spec.grace,
        timeout=spec.timeout,
    )


def _argv(
    spec: JobSpec, *, folder: str, directory: str, environment: Mapping[str, str]
) -> tuple[str, ...]:
    if spec.kind is CommandKind.PROGRAM:
        return (spec.target, *spec.args)
    python = _python(spec, folder, environment)
    if spec.kind is CommandKind.MODULE:
        return (python, "-m", spec.target, *spec.args)
    script = _inside(folder, spec.target, "script")
    if not os.path.isfile(script):
        raise ScriptNotFound(f"run {spec.target}", "there is no such file in the workspace")
    # Relative, as a person would have typed it there: it is what sys.argv[0] and tracebacks show.
    return (python, os.path.relpath(script, directory), *spec.args)


def _python(spec: JobSpec, folder: str, environment: Mapping[str, str]) -> str:
    if spec.python:
        has_path = "/" in spec.python
        return os.path.normpath(os.path.join(folder, spec.python)) if has_path else spec.python
    own = os.path.join(folder, ".venv", "bin", "python")
    if os.access(own, os.X_OK):
        return own
    found = shutil.which("python3", path=environment.get("PATH", os.defpath))
    if found is None:
        hint = "install Python there, or name one with --python"
        raise CommandNotFound(
            f"run {spec.target}", "the host has no python3 on its PATH", hint=hint
        )
    return found


def _inside(folder: str, path: str, what: str) -> str:
    joined = os.path.normpath(os.path.join(folder, path))
    if os.path.isabs(path) or (
        joined != folder and not joined.startswith(folder.rstrip("/") + "/")
    ):
        raise InvalidRequest(f"use {path!r} as the job's {what}", "it lies outside the workspace")
    return joined


def _environment(
    spec: JobSpec, surroundings: Surroundings, *, job_id: str, files: JobFiles
) -> dict[str, str]:
    # Output shows when it is printed, not when a buffer is full; a job may say otherwise.
    environment = {"PYTHONUNBUFFERED": "1", **scrubbed(surroundings.environment)}
    environment |= spec.environment
    if spec.hook and surroundings.hook_directory is not None:
        paths = [surroundings.hook_directory, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment | {JOB_VARIABLE: job_id, SOCKET_VARIABLE: files.socket}
