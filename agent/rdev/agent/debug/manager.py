"""Debug sessions of the agent: at most one per rank, and whatever ends it, a full detach.

opening --hook attached, adapter ready--> open --closed, adapter gone, agent stops--> closing
   '------------------ failure ---------------------------------------------------------'
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from rdev.agent.debug.process import AdapterProcess
from rdev.agent.debug.proxy import Proxy
from rdev.agent.debug.vendor import debugpy_folder
from rdev.protocol.dap import DapError, Framer, encode
from rdev.protocol.errors import (
    DebuggerBusy,
    DebuggerUnavailable,
    JobNotRunning,
    RdevError,
)
from rdev.wire.job import CommandKind, Job, JobState

# The hook's own bound for an attach is 30 s; whoever waits for it waits a little longer.
COMMAND_SECONDS = 35.0

# A detach waits up to 3 s for pydevd's threads and 1 s for the main thread.
DETACH_SECONDS = 10.0


class Jobs(Protocol):
    """What a debug session needs of the jobs; the job manager is one."""

    async def get(self, job_id: str) -> Job:
        """The job; JobNotFound if there is none."""
        ...

    async def command(
        self, job_id: str, role: str, rank: int, name: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Sends a command to the hook or loop of a rank and returns its result.

        Raises an error of rdev's when the process is not connected or refuses.
        """
        ...

    def directory(self, job_id: str) -> str:
        """The job's directory."""
        ...


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to."""

    session_id: str
    pid: int
    python_version: str
    workspace: str


class DebugSession:
    """One attached rank: bytes of a client's DAP stream in, bytes for the client out."""

    def __init__(self, attached: Attached, adapter: AdapterProcess) -> None:
        self.attached = attached
        self._adapter = adapter
        self._proxy = Proxy(attached.pid)
        self._from_client = Framer()
        self._from_adapter = Framer()
        self._answers: list[bytes] = []

    async def write(self, data: bytes) -> bytes:
        """Takes bytes of the client's stream; returns bytes that answer it at once, often none.

        Raises:
            DebuggerUnavailable: The bytes are no DAP, or the adapter is gone.
        """
        answers = b""
        try:
            for message in self._from_client.feed(data):
                onwards, back = self._proxy.from_client(message)
                answers += b"".join(map(encode, back))
                await self._adapter.send(b"".join(map(encode, onwards)))
        except (DapError, OSError) as error:
            raise DebuggerUnavailable("pass on the client's request", str(error)) from error
        return answers

    async def read(self) -> bytes:
        """The next bytes for the client; b"" when the adapter has ended."""
        while data := await self._adapter.receive():
            messages = self._from_adapter.feed(data)
            rewritten = [m for message in messages for m in self._proxy.from_adapter(message)]
            if rewritten:
                return b"".join(map(encode, rewritten))
        return b""


class DebugManager:
    """Opens and closes debug sessions.

    Args:
        jobs: Where the jobs are.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._sessions: dict[tuple[str, int], asyncio.Event] = {}
        self._closing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The group holds nothing but detaches that are under way; they are waited for.
        await self._group.__aexit__(None, None, None)

    @asynccontextmanager
    async def session(self, job_id: str, rank: int) -> AsyncIterator[DebugSession]:
        """Attaches to a rank for as long as the block runs; leaving it detaches in any case.

        Raises:
            DebuggerBusy: Somebody is attached to that rank.
            DebuggerUnavailable: No debugger can be put into the process; the cause says why.
            FeatureMissing: The agent has no debugpy.
            JobNotRunning: The job has ended.
        """
        key = (job_id, rank)
        action = f"debug rank {rank} of job {job_id}"
        while key in self._closing:
            await asyncio.wait({self._closing[key]})
        if key in self._sessions:
            raise DebuggerBusy(action, "another debugger is attached to it")
        self._sessions[key] = asyncio.Event()
        adapter: AdapterProcess | None = None
        try:
            job = await self._running_job(job_id, action)
            folder = debugpy_folder()
            adapter = await AdapterProcess.start(self._jobs.directory(job_id), rank, folder)
            attached = await self._attach(job, rank, adapter, action=action)
            yield DebugSession(attached, adapter)
        finally:
            # The caller may be cancelled at any moment; the detach must not be.
            closing = self._group.create_task(self._close(key, adapter))
            self._closing[key] = closing
            await asyncio.shield(closing)

    async def _running_job(self, job_id: str, action: str) -> Job:
        job = await self._jobs.get(job_id)
        if job.state is not JobState.RUNNING:
            raise JobNotRunning(action, f"it is {job.state.value}")
        if not job.spec.hook:
            raise DebuggerUnavailable(
                action,
                "it was started without the debug hook",
                hint="start it again without `--no-hook`",
            )
        return job

    async def _attach(
        self, job: Job, rank: int, adapter: AdapterProcess, *, action: str
    ) -> Attached:
        order = {
            "socket": adapter.socket_path,
            "debugpy": adapter.debugpy,
            "server_token": adapter.server_token,
            "client_token": adapter.client_token,
        }
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                result = await self._jobs.command(job.id, "hook", rank, "attach", order)
                pid = await adapter.debuggee()
        except TimeoutError as error:
            cause = f"the process did not answer within {COMMAND_SECONDS:g} s"
            raise DebuggerUnavailable(action, cause) from error
        except RdevError as error:
            raise _unavailable(action, job, error) from error
        return Attached(
            session_id=secrets.token_hex(6),
            pid=pid,
            python_version=str(result.get("python", "")),
            workspace=job.directory,
        )

    async def _close(self, key: tuple[str, int], adapter: AdapterProcess | None) -> None:
        try:
            if adapter is not None:
                # A job that has ended, or lost its supervisor, has nobody to answer; killing the
                # adapter makes a hook that lives detach by itself.
                with contextlib.suppress(RdevError, TimeoutError):
                    async with asyncio.timeout(DETACH_SECONDS):
                        await self._jobs.command(key[0], "hook", key[1], "detach", {})
                await adapter.close()
        finally:
            del self._sessions[key]
            del self._closing[key]


def _unavailable(action: str, job: Job, error: RdevError) -> DebuggerUnavailable:
    cause = error.cause or error.message
    if isinstance(error, DebuggerUnavailable) and type(error) is not DebuggerUnavailable:
        return error
    if "no hook" not in cause and "not connected" not in cause:
        return DebuggerUnavailable(action, cause)
    return DebuggerUnavailable(action, _why_no_hook(job))


def _why_no_hook(job: Job) -> str:
    """Why a process of the job may have no hook, as far as its command line tells."""
    interpreted = job.spec.kind is not CommandKind.PROGRAM or "python" in job.spec.target
    for argument in job.argv[1:]:
        if not argument.startswith("-") or argument in ("-m", "-c"):
            break
        if interpreted and not argument.startswith("--") and set(argument[1:]) & set("IES"):
            return f"it runs without the debug hook: `python {argument}` ignores PYTHONPATH"
    return (
        "no Python process of it carries the debug hook: it is no Python program, its Python is"
        " older than 3.11, or it was started with another PYTHONPATH"
    )
