"""Debug sessions of the agent: at most one per rank, and whatever ends it, a full detach.

opening --hook attached, adapter ready--> open --closed, adapter gone, agent stops--> closing
   '------------------ failure ---------------------------------------------------------'
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from rdev.agent.debug.holds import Told, set_stops
from rdev.agent.debug.process import AdapterProcess
from rdev.agent.debug.proxy import Proxy
from rdev.agent.debug.ranks import Ranks
from rdev.agent.debug.vendor import debugpy_folder
from rdev.protocol.dap import DapError, Framer, encode
from rdev.protocol.errors import (
    DebuggerBusy,
    DebuggerUnavailable,
    JobNotRunning,
    RdevError,
)
from rdev.wire.job import CommandKind, DebugStart, Job, JobState

_log = logging.getLogger(__name__)

# The hook's own bound for an attach is 30 s; whoever waits for it waits a little longer.
COMMAND_SECONDS = 35.0

# A process that has just been started dials within its interpreter's start, 20 to 200 ms; a busy
# machine may take seconds. One that runs for longer without a hook has none.
ARRIVAL_SECONDS = 3.0
ARRIVAL_TICK = 0.05

# A detach waits up to 3 s for pydevd's threads and 1 s for the main thread.
DETACH_SECONDS = 10.0


class _Files(Protocol):
    @property
    def directory(self) -> str: ...


class _Record(Protocol):
    @property
    def files(self) -> _Files: ...


class Jobs(Protocol):
    """What a debug session needs of the jobs; the job manager is one."""

    async def get(self, reference: str) -> Job:
        """The job; JobNotFound if there is none."""
        ...

    def record(self, job_id: str) -> _Record:
        """The job's files; adapters' sockets lie in `debug` below its own directory."""
        ...

    async def peers(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The processes that are connected to the job's supervisor, with `role` and `rank`."""
        ...

    async def command(
        self,
        job_id: str,
        role: str,
        rank: int,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        pid: int | None = None,
        timeout: float = ...,  # noqa: ASYNC109 - callers know how long theirs may take
    ) -> Mapping[str, Any]:
        """Sends a command to the hook or loop of a rank and returns its result.

        Raises an error of rdev's when the process is not connected, refuses, or does not answer.
        """
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

    async def write(self, data: bytes) -> None:
        """Takes bytes of the client's stream.

        Raises:
            DebuggerUnavailable: The bytes are no DAP, or the adapter is gone.
        """
        try:
            for message in self._from_client.feed(data):
                await self._adapter.send(encode(self._proxy.from_client(message)))
        except (DapError, OSError) as error:
            raise DebuggerUnavailable("pass on the client's request", str(error)) from error

    async def read(self) -> bytes:
        """The next bytes for the client; b"" when the session has ended."""
        while data := await self._adapter.receive():
            messages = map(self._proxy.from_adapter, self._from_adapter.feed(data))
            if wanted := b"".join(encode(message) for message in messages if message is not None):
                return wanted
        return b""

    def hang_up(self) -> None:
        """Ends both directions; `read` returns what is left, then b""."""
        self._adapter.hang_up()


class DebugManager:
    """Opens and closes debug sessions.

    Args:
        jobs: Where the jobs are.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._sessions: set[tuple[str, int]] = set()
        self._closing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._ranks = Ranks(jobs, self._group.create_task)

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

    def feed(self, session: DebugSession, data: AsyncIterator[bytes]) -> asyncio.Task[None]:
        """Starts passing a client's bytes to a session; their end hangs up."""
        return self._group.create_task(_feed(session, data))

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
        self._sessions.add(key)
        adapter: AdapterProcess | None = None
        attached: Attached | None = None
        has_joined = False
        try:
            job = await self._running_job(job_id, action)
            folder = debugpy_folder()
            await self._await_hook(job, rank, action=action)
            await self._ranks.join(job_id)
            has_joined = True
            directory = self._jobs.record(job_id).files.directory
            adapter = await AdapterProcess.start(directory, rank, folder)
            attached = await self._attach(job, rank, adapter, action=action)
            yield DebugSession(attached, adapter)
        finally:
            # The caller may be cancelled at any moment; the detach is not.
            closing = self._group.create_task(
                self._close(key, adapter, attached, has_joined=has_joined)
            )
            self._closing[key] = closing
            await asyncio.shield(closing)

    async def set_stops(self, job_id: str, stops: DebugStart, *, rank: int | None) -> Told:
        """Tells a running job when to stop and wait for a debugger; see `holds`."""
        job = await self._running_job(job_id, f"let job {job_id} wait for a debugger")
        return await set_stops(self._jobs, job.id, stops, rank=rank)

    async def _running_job(self, job_id: str, action: str) -> Job:
        job = await self._jobs.get(job_id)
        if job.state is not JobState.RUNNING:
            state = job.state.value
            raise JobNotRunning(
                action, f"it has ended ({state})" if job.state.is_final else f"it is {state}"
            )
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
            result = await self._jobs.command(
                job.id, "hook", rank, "attach", order, timeout=COMMAND_SECONDS
            )
            async with asyncio.timeout(DETACH_SECONDS):
                pid = await adapter.debuggee()
        except TimeoutError as error:
            cause = "the process did not reach the adapter"
            raise DebuggerUnavailable(action, cause) from error
        except JobNotRunning:
            raise
        except RdevError as error:
            raise DebuggerUnavailable(action, error.cause or error.message) from error
        return Attached(
            session_id=secrets.token_hex(6),
            pid=pid,
            python_version=str(result.get("python", "")),
            workspace=job.workspace_folder,
        )

    async def _await_hook(self, job: Job, rank: int, *, action: str) -> None:
        while not await self._has_hook(job, rank):
            if time.time() - job.started > ARRIVAL_SECONDS:
                raise DebuggerUnavailable(action, _why_no_hook(job))
            await asyncio.sleep(ARRIVAL_TICK)

    async def _has_hook(self, job: Job, rank: int) -> bool:
        peers = await self._jobs.peers(job.id)
        return any((peer.get("role"), peer.get("rank")) == ("hook", rank) for peer in peers)

    async def _close(
        self,
        key: tuple[str, int],
        adapter: AdapterProcess | None,
        attached: Attached | None,
        *,
        has_joined: bool,
    ) -> None:
        try:
            if adapter is not None:
                # A job that has ended, or lost its supervisor, has nobody to answer; killing the
                # adapter makes a hook that lives detach by itself.
                with contextlib.suppress(RdevError):
                    await self._jobs.command(
                        key[0],
                        "hook",
                        key[1],
                        "detach",
                        pid=attached.pid if attached is not None else None,
                        timeout=DETACH_SECONDS,
                    )
                await adapter.close()
            if has_joined:
                await self._ranks.leave(key[0])
        except Exception:  # noqa: BLE001 - one session's end must not end the others
            _log.exception("the debug session of rank %d of job %s did not end well", *key[::-1])
        finally:
            self._sessions.remove(key)
            del self._closing[key]


async def _feed(session: DebugSession, data: AsyncIterator[bytes]) -> None:
    # Whatever breaks the client's stream ends its session, and nobody else's.
    try:
        async for chunk in data:
            await session.write(chunk)
    except Exception:  # noqa: BLE001 - grpc raises what it likes when a peer goes
        _log.info("the debug client's stream broke", exc_info=True)
    finally:
        session.hang_up()


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
