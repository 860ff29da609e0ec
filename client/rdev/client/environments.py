"""Environments of one host: which one a job is to have, what there is, and what a job misses."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rdev.client.config import Config
from rdev.client.connection import UNARY_DEADLINE, Connection, responses, translating
from rdev.client.hosts import LOCAL, phrase
from rdev.client.logs import Chunk, Gap, Logs
from rdev.protocol.convert_job import choice_to_proto
from rdev.protocol.errors import ConnectionLost
from rdev.v1 import environment_pb2, environment_pb2_grpc
from rdev.wire.job import CommandKind, EnvironmentChoice, Job, JobState, Reason

# A prelude may take a minute until its outcome is remembered.
_LOOK_DEADLINE = 90.0

_KINDS = {
    environment_pb2.ENVIRONMENT_KIND_SYSTEM: "python",
    environment_pb2.ENVIRONMENT_KIND_VENV: "venv",
    environment_pb2.ENVIRONMENT_KIND_CONDA: "conda",
    environment_pb2.ENVIRONMENT_KIND_MANAGED: "managed",
}

# The end of a traceback, and what `python -m` says, of which `runpy` has two ways.
_MISSING = re.compile(
    r"(?:ModuleNotFoundError: No module named '([A-Za-z_]\w*)'\)?"
    r"|^\S*python\S*: No module named ([A-Za-z_]\w*))\s*$"
)
_LAST_LINES = 12

# So many are named; `rdev env ls` has all.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    """One environment on a host.

    Attributes:
        name: Its name: conda's, or that of the folder.
        kind: `conda`, `venv`, `managed`, or `python` for an interpreter outside of environments.
        prefix: Its folder.
        python: Its interpreter; empty if it has none.
        version: Of that; empty if it cannot be told.
        torch: Version of torch in it; empty if it has none.
    """

    name: str
    kind: str
    prefix: str
    python: str
    version: str = ""
    torch: str = ""

    @property
    def words(self) -> str:
        """As a person calls it: `conda env vision`, `venv .venv`."""
        kind = self.kind if self.kind in ("venv", "python") else f"{self.kind} env"
        return f"{kind} {self.name}"

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {name: value or None for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a job would get.

    Attributes:
        environment: What it would run in; None if the host has no Python at all.
        why: Why that one, in words.
        variables: What activation and prelude set.
        removed: What they take away.
    """

    environment: HostEnvironment | None
    why: str
    variables: dict[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()


class Environments:
    """Finds, shows and makes environments of one host."""

    def __init__(self, connection: Connection) -> None:
        self._stub = environment_pb2_grpc.EnvironmentServiceStub(connection.channel)

    async def list(self, *, workspace_id: str = "", module: str = "") -> list[HostEnvironment]:
        """Those of the host, in the order in which they would be chosen.

        Args:
            workspace_id: Also those in this workspace.
            module: Only those that have this top-level module.
        """
        request = environment_pb2.ListEnvironmentsRequest(workspace_id=workspace_id, module=module)
        with translating("list the environments"):
            response = await self._stub.ListEnvironments(request, timeout=UNARY_DEADLINE)
        return [_from_proto(each) for each in response.environments]

    async def show(self, python: str, choice: EnvironmentChoice, *, workspace_id: str) -> Shown:
        """What a job with this choice would get, and why.

        Raises:
            EnvironmentNotFound: The host does not have what was named.
            EnvironmentFailed: It cannot be activated.
        """
        request = environment_pb2.ShowEnvironmentRequest(
            workspace_id=workspace_id, python=python, env=choice_to_proto(choice)
        )
        with translating("show the environment"):
            response = await self._stub.ShowEnvironment(request, timeout=_LOOK_DEADLINE)
        found = _from_proto(response.environment) if response.HasField("environment") else None
        return Shown(found, response.why, dict(response.variables), tuple(response.removed))

    async def sync(
        self,
        python: str,
        choice: EnvironmentChoice,
        *,
        workspace_id: str,
        tell: Callable[[str], None],
        refresh: bool = False,
    ) -> HostEnvironment | None:
        """Makes what a job with this choice would get, or brings it up to date.

        Args:
            python: The interpreter that was named; may be empty.
            choice: What was asked for beside it.
            workspace_id: The workspace.
            tell: Told what is done.
            refresh: What activation changes is found out again.

        Raises:
            EnvironmentFailed: It cannot be made, or not activated.
            ConnectionLost: The host went away meanwhile; asking again goes on with it.
        """
        request = environment_pb2.SyncEnvironmentRequest(
            workspace_id=workspace_id, python=python, env=choice_to_proto(choice), refresh=refresh
        )
        with translating("make the environment"):
            async for response in responses(self._stub.SyncEnvironment(request)):
                if not response.line:
                    has_one = response.HasField("environment")
                    return _from_proto(response.environment) if has_one else None
                tell(response.line)
        raise ConnectionLost("make the environment", "the host ended the stream")


def wanted(host: str, root: str, settings: Config) -> tuple[str, EnvironmentChoice]:
    """The interpreter and the environment that a job from here shall have on a host.

    Args:
        host: The host.
        root: The workspace's root, here.
        settings: The configuration; flags are already in it.
    """
    choice = replace(settings.env, active=_active_name())
    if host != LOCAL:
        return settings.python, choice
    if settings.python:
        is_path = os.sep in settings.python
        return (os.path.abspath(settings.python) if is_path else settings.python), choice
    if choice.name:
        return "", replace(choice, name=_here(choice.name, root))
    if choice.managed or choice.python:
        return "", choice
    # The environment that the person works in is at hand here.
    return _active_python(root), choice


def _active_name() -> str:
    """Name of the conda environment that is active here; `base` says nothing about a project."""
    name = os.environ.get("CONDA_DEFAULT_ENV", "")
    return "" if name == "base" or "/" in name else name


def _here(name: str, root: str) -> str:
    """On this machine a path is where the person stands, and environments are not synced."""
    if os.sep in name or name.startswith((".", "~")):
        path = os.path.abspath(os.path.expanduser(name))
        return path if os.path.isdir(path) else os.path.join(root, name)
    inside = os.path.join(root, name)
    return inside if os.path.isfile(os.path.join(inside, "pyvenv.cfg")) else name


def _active_python(root: str) -> str:
    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    for prefix in [*([active] if active else []), os.path.join(root, ".venv")]:
        python = os.path.join(prefix, "bin", "python")
        if os.access(python, os.X_OK):
            return python
    return ""


async def missing_module(connection: Connection, job: Job) -> str:
    """One line about the module that an ended job died for want of, and who has it; else empty.

    Only the last lines of its output are looked at.
    """
    is_pythons = job.spec.kind is not CommandKind.PROGRAM and job.interpreter
    if not is_pythons or job.state is not JobState.FAILED or job.reason is not Reason.EXITED:
        return ""
    module = await _missing(connection, job)
    if not module:
        return ""
    environments, workspace = Environments(connection), job.spec.workspace_id
    found = await environments.list(workspace_id=workspace, module=module)
    others = [each for each in found if each.python and each.python != job.interpreter]
    place = f"{job.interpreter} ({job.env})" if job.env else job.interpreter
    if not others:
        ls = phrase("env ls", connection.host)
        return f"{place} has no {module}, and neither has any environment of `{ls}`"
    meant: dict[str, str] = {}
    for each in await environments.list(workspace_id=workspace):
        meant.setdefault(each.name, each.prefix)  # the host takes the first of a name
    ways = [(each, _way_to(each, meant.get(each.name))) for each in others[:_MOST_NAMED]]
    named = ", ".join(f"{each.words} ({way})" for each, way in ways)
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return f"{place} has no {module}; {module} is in: {named}{more}"


async def _missing(connection: Connection, job: Job) -> str:
    streams = ["stdout"] if job.spec.terminal is not None else ["stderr"]
    tail = Logs(connection).tail(job.id, lines=_LAST_LINES, streams=streams, attempt=job.attempt)
    return await module_in(tail)


async def module_in(tail: AsyncGenerator[Chunk | Gap, None]) -> str:
    """The top-level module that a job could not import, by the end of what it printed."""
    ends: dict[int, str] = {}
    async for item in tail:
        if isinstance(item, Chunk):
            ends[item.rank] = ends.get(item.rank, "") + item.data.decode(errors="replace")
    for end in ends.values():
        for line in end.splitlines():
            if match := _MISSING.search(line):
                return match.group(1) or match.group(2)
    return ""


def _way_to(environment: HostEnvironment, meant: str | None) -> str:
    """The option that leads to an environment.

    Args:
        environment: The environment.
        meant: Folder of the environment that the host takes for its name.
    """
    if environment.kind == "python":
        return f"--python {shlex.quote(environment.python)}"
    # `base` is conda's in many places, and what begins so is taken for a path.
    is_named = environment.kind in ("conda", "venv") and environment.name != "base"
    is_named = is_named and meant == environment.prefix and environment.name[:1] not in (".", "~")
    return f"--env {shlex.quote(environment.name if is_named else environment.prefix)}"


def _from_proto(message: environment_pb2.Environment) -> HostEnvironment:
    return HostEnvironment(
        message.name,
        _KINDS.get(message.kind, "environment"),
        message.prefix,
        message.python,
        message.version,
        message.torch,
    )
