"""From what a person typed to a running job: check the script, sync, start."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rdev.client.command import Command
from rdev.client.config import Config
from rdev.client.connection import Connection, persisting
from rdev.client.environments import Environments, wanted
from rdev.client.jobs import Jobs
from rdev.client.sync.receipt import Receipt
from rdev.client.sync.root import Workspace
from rdev.client.terminal import terminal_environment
from rdev.client.workspaces import sync_workspace
from rdev.protocol.convert import LOGIN_NODE
from rdev.protocol.errors import (
    ConnectionLost,
    ScriptNotFound,
    ScriptOutsideWorkspace,
    SnapshotNotFound,
    UsageError,
    VersionSkew,
)
from rdev.protocol.ids import JOB_NAME, job_name_from, new_request_id
from rdev.wire.job import (
    ONE_PER_GPU,
    CommandKind,
    DebugStart,
    EnvironmentChoice,
    GpuRequest,
    Job,
    JobSpec,
    LogFull,
    Window,
)


@dataclass(frozen=True, slots=True)
class Launch:
    """A job as a person asked for it.

    Attributes:
        command: What to run.
        settings: The configuration; flags are already in it.
        name: Chosen name, or empty.
        environment: Variables from flags, over those of the configuration.
        hook: Plant the debug hook.
        sync: Bring the host's copy up to date first.
        terminal: Run it in a terminal of that size.
        stdin: It reads what is written as its input.
        processes: Ranks to start by torchrun, see `rdev.wire.job.JobSpec`.
        gpus: GPUs it wants.
        debug: When it stops by itself and waits for a debugger.
    """

    command: Command
    settings: Config
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    hook: bool = True
    sync: bool = True
    terminal: Window | None = None
    stdin: bool = False
    processes: int = 0
    gpus: GpuRequest | None = None
    debug: DebugStart = field(default_factory=DebugStart)


async def launch(
    connection: Connection,
    workspace: Workspace,
    request: Launch,
    *,
    on_synced: Callable[[Receipt], None],
    confirm: Callable[[str], bool] | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> Job:
    """Syncs the workspace and starts the job from the snapshot that this made.

    Args:
        connection: The host to run on.
        workspace: The folder to sync.
        request: What to run.
        on_synced: Told what the sync did, before the job starts.
        confirm: Asks the person; None when there is nobody to ask.
        tell: Told what is done to make the job's environment.

    Raises:
        ScriptNotFound: The script does not exist.
        ScriptOutsideWorkspace: The script would not be synced.
        SyncFailed: The host's copy could not be brought up to date.
        JobConflict: A live job has that name.
        UsageError: The host is not one to run jobs on, and nobody agreed.
    """
    target = script_path(request.command, workspace)
    await _require_consent(connection, confirm)
    try:
        return await _launch(connection, workspace, request, target, on_synced, confirm, tell)
    except SnapshotNotFound:
        # The agent was replaced between the sync and the start, and forgot what it had just seen.
        return await _launch(connection, workspace, request, target, on_synced, confirm, tell)


async def _launch(
    connection: Connection,
    workspace: Workspace,
    request: Launch,
    target: str,
    on_synced: Callable[[Receipt], None],
    confirm: Callable[[str], bool] | None,
    tell: Callable[[str], None],
) -> Job:
    snapshot = ""
    if request.sync:
        if request.gpus is not None or request.processes == ONE_PER_GPU:
            await _check(connection, workspace, request, target)
        receipt = await _sync(connection, workspace, confirm)
        on_synced(receipt)
        snapshot = receipt.snapshot.hex()
    spec = _spec(connection.host, workspace, request, target=target, snapshot=snapshot)
    return await start(connection, spec, tell=tell)


def _require_environments(connection: Connection, spec: JobSpec) -> None:
    """An agent without environments would run the job in another one than is meant."""
    chosen = spec.env.name or spec.env.prelude or spec.env.managed or spec.env.python
    if chosen and "environments" not in connection.agent.capabilities:
        version = connection.agent.version
        cause = f"the agent of {connection.host} runs rdev {version}, which cannot choose one"
        raise VersionSkew("use an environment", cause)


async def _require_consent(connection: Connection, confirm: Callable[[str], bool] | None) -> None:
    """Asks first where a job disturbs all who work there, and finds no GPU."""
    if LOGIN_NODE not in connection.agent.capabilities:
        return
    found = f"{connection.host} is a Slurm login node without a GPU"
    if confirm is not None and await asyncio.to_thread(confirm, f"{found}; run here?"):
        return
    hint = "name a node of an allocation as the host, such as `salloc` gives; --yes runs it there"
    raise UsageError("run the job there", found, hint=hint)


async def _make_environment(
    connection: Connection, spec: JobSpec, tell: Callable[[str], None]
) -> None:
    """Makes it before the job is asked for: uv may take its time, and has something to tell."""
    environments = Environments(connection)
    await persisting(
        connection,
        lambda: environments.sync(spec.python, spec.env, workspace_id=spec.workspace_id, tell=tell),
    )


async def _check(
    connection: Connection, workspace: Workspace, request: Launch, target: str
) -> None:
    # A person does not wait for gigabytes only to hear that the host has no GPU.
    spec = _spec(connection.host, workspace, request, target=target, snapshot="")
    await persisting(connection, lambda: Jobs(connection).check(spec))


async def _sync(
    connection: Connection, workspace: Workspace, confirm: Callable[[str], bool] | None
) -> Receipt:
    try:
        return await persisting(
            connection, lambda: sync_workspace(connection, workspace, confirm=confirm)
        )
    except ConnectionLost as error:
        raise ConnectionLost(error.action, error.cause, hint="nothing was started") from error


async def start(
    connection: Connection, spec: JobSpec, *, tell: Callable[[str], None] = lambda _line: None
) -> Job:
    """Starts one job, though the agent may be replaced meanwhile; ends it if we are interrupted.

    Args:
        connection: The host to run on.
        spec: What to run and how.
        tell: Told what is done to make the job's environment.

    Raises:
        ConnectionLost: The host has been away for a minute; whether the job runs is not known.
        RdevError: See `rdev.client.jobs.Jobs.create`.
    """
    _require_environments(connection, spec)
    if spec.env.managed and not spec.python:
        await _make_environment(connection, spec, tell)
    jobs = Jobs(connection)
    # The request id makes it safe to ask again when the agent dies between asking and answering.
    request_id = new_request_id()
    creating = asyncio.ensure_future(
        persisting(connection, lambda: jobs.create(spec, request_id=request_id))
    )
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        # Ctrl-C just now: the job may run already, and nobody would know of it.
        await jobs.stop((await creating).id)
        raise


def _spec(
    host: str, workspace: Workspace, request: Launch, *, target: str, snapshot: str
) -> JobSpec:
    settings = request.settings
    python, choice = wanted(host, workspace.root, settings)
    return JobSpec(
        kind=request.command.kind,
        target=target,
        args=request.command.args,
        name=request.name,
        python=python,
        env=choice,
        workspace_id=workspace.id,
        snapshot=snapshot,
        directory=_directory(workspace.root),
        environment={
            **_terminal_environment(request.terminal),
            **settings.environment,
            **request.environment,
        },
        timeout=settings.timeout,
        grace=settings.grace,
        hook=request.hook,
        terminal=request.terminal,
        stdin=request.stdin,
        processes=request.processes,
        gpus=request.gpus,
        retries=settings.retries,
        keep_children=settings.keep_children,
        log_full=LogFull(settings.log_full),
        debug=request.debug,
    )


def _terminal_environment(terminal: Window | None) -> dict[str, str]:
    return terminal_environment() if terminal is not None else {}


def beside(
    neighbour: Job | None,
    command: Sequence[str],
    *,
    terminal: Window | None = None,
    stdin: bool = False,
) -> JobSpec:
    """A job that runs `command` as `neighbour` runs, or in the home folder without one."""
    program, *args = command
    spec = neighbour.spec if neighbour is not None else None
    python, choice = _as_it_runs(neighbour) if neighbour is not None else ("", EnvironmentChoice())
    return JobSpec(
        CommandKind.PROGRAM,
        program,
        tuple(args),
        workspace_id=spec.workspace_id if spec else "",
        directory=spec.directory if spec else "",
        environment={**_terminal_environment(terminal), **(spec.environment if spec else {})},
        python=python,
        env=choice,
        hook=spec.hook if spec else False,
        terminal=terminal,
        stdin=stdin,
        aside=True,
    )


def _as_it_runs(job: Job) -> tuple[str, EnvironmentChoice]:
    """The environment that a job has, whatever the same choice would lead to by now."""
    choice = job.spec.env
    if not choice.managed:
        return job.interpreter or job.spec.python, choice
    # Its lock file may have changed; that environment stays for as long as the job runs.
    return "", replace(choice, name=job.env.rpartition(" ")[2], managed=False)


def login_shell(
    host: str,
    workspace: Workspace | None,
    *,
    terminal: Window,
    settings: Config,
    name: str = "",
) -> JobSpec:
    """The user's login shell on the host, in the workspace's folder or in the home folder.

    Args:
        host: Where it opens.
        workspace: Whose folder it opens in.
        terminal: The size of its terminal.
        settings: The configuration; the shell finds what jobs run with.
        name: Chosen name, or empty.
    """
    # Outside of workspaces there is no lock file to make one from.
    python, choice = settings.python, replace(settings.env, managed=False)
    if workspace is not None:
        python, choice = wanted(host, workspace.root, settings)
    return JobSpec(
        CommandKind.PROGRAM,
        "",
        name=name,
        python=python,
        env=choice,
        workspace_id=workspace.id if workspace else "",
        directory=_directory(workspace.root) if workspace else "",
        environment=_terminal_environment(terminal),
        hook=False,
        terminal=terminal,
        aside=True,
    )


def script_path(command: Command, workspace: Workspace) -> str:
    """The command's target as the job knows it: a script's path relative to the workspace root.

    Raises:
        ScriptNotFound: There is no such file.
        ScriptOutsideWorkspace: It lies elsewhere.
    """
    if command.kind is not CommandKind.SCRIPT:
        return command.target
    require_script(command.target)
    relative = os.path.relpath(os.path.realpath(command.target), workspace.root)
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        cause = f"it lies outside the workspace {workspace.root}"
        raise ScriptOutsideWorkspace(f"run {command.target}", cause)
    return relative.replace(os.sep, "/")


def require_script(path: str) -> None:
    """Returns if there is a file at `path`.

    Raises:
        ScriptNotFound: There is none.
    """
    if os.path.isfile(path):
        return
    if os.path.isdir(path):
        raise ScriptNotFound(f"run {path}", "it is a folder")
    hint = f"to run the program, write `rdev run -- {path} ...`" if shutil.which(path) else None
    raise ScriptNotFound(f"run {path}", "there is no such file", hint=hint)


def require_name(name: str, *, forbidden: Container[str]) -> None:
    """Returns if a job may have that name; an empty one lets the agent make one.

    Raises:
        UsageError: It may not.
    """
    action = f"name the job {name!r}"
    if name in forbidden:
        raise UsageError(action, "it is a verb of rdev", hint="choose another name")
    if name and not JOB_NAME.fullmatch(name):
        cause = "a name is lower-case letters, digits and dashes, and begins with a letter"
        raise UsageError(action, cause, hint=f"`--name {job_name_from(name)}` would do")


def require_text(words: Sequence[str], folder: str) -> None:
    """Returns if everything that will travel as text is UTF-8.

    Raises:
        UsageError: A word of the command line, or the folder's name, is not.
    """
    for word in (*words, folder):
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = word.encode(errors="backslashreplace").decode()
            raise UsageError("run", f"{shown} is not UTF-8", hint="rename it, or write it as UTF-8")


def _directory(root: str) -> str:
    # The job runs where the person stands, if that is inside the workspace.
    relative = os.path.relpath(os.getcwd(), root)
    outside = relative == os.pardir or relative.startswith(os.pardir + os.sep)
    return "" if outside or relative == os.curdir else relative.replace(os.sep, "/")


def environment_from(pairs: Sequence[str], file: str | None) -> dict[str, str]:
    """Variables from `-e K=V`, `-e K` (our own value) and an env file; `-e` wins.

    Raises:
        UsageError: A line is not `K=V`, or the file cannot be read.
    """
    lines = [*_file_lines(file), *pairs]
    found: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not key.isidentifier():
            raise UsageError("set the job's environment", f"{line!r} is not of the form K=V")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def _file_lines(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        with open(file, encoding="utf-8") as lines:
            words = [line.strip().removeprefix("export ") for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        hint = "name a file of K=V lines; it is relative to the current folder"
        raise UsageError(f"read the env file {file}", cause, hint=hint) from error
    return [word for word in words if word and not word.startswith("#")]
