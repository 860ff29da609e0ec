"""Processes that rdev did not start: each gets our hook, and a socket that its hook dials.

    unknown --looked at, asked--> entering --its hook dials--> reached --its process ends--> gone
                                     '--not in time, or it may not--> unknown

To the debug manager they are jobs of one process each. A process gets one hook for its life: where
an agent that came before has put it, it is only waited for, at the socket that it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

from rdev.agent.debug.entering import enter
from rdev.agent.debug.preflight import Found, look, refusal, rights
from rdev.hook.enter import FAILED
from rdev.protocol.errors import (
    DebuggerUnavailable,
    JobConflict,
    JobNotFound,
    JobNotRunning,
    PermissionRefused,
    RdevError,
    TimedOut,
)
from rdev.protocol.ids import JOB_ID
from rdev.supervisor.processes import is_alive
from rdev.wire import channel
from rdev.wire.home import boot_id, make_private
from rdev.wire.job import CommandKind, Job, JobSpec, JobState
from rdev.wire.unix import peer_uid, short_socket_path

_log = logging.getLogger(__name__)

# A main thread executes Python at least once a step; one in a long call of C takes its time.
ARRIVAL_SECONDS = 60.0

# A hook whose agent went dials again within its longest back-off.
RETURN_SECONDS = 6.0

# Who reads from a disk sleeps uninterruptibly for milliseconds, or seconds where it is far away.
SLEEP_SECONDS = 5.0

_TICK = 0.02
_READ_BYTES = 1 << 18

# Sources are text; a larger file is none that a person reads.
_MOST_SOURCE = 1 << 20

_SOCKET = "hook.sock"

# So many turns of the event loop after it was accepted a connection is served.
_TURNS = 3


class Jobs(Protocol):
    """What is asked of the jobs: which process is theirs."""

    async def get(self, reference: str) -> Job:
        """The job; JobNotFound if there is none."""
        ...

    async def peers(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The processes that are connected to the job's supervisor, with `role` and `rank`."""
        ...


@dataclass(frozen=True, slots=True)
class Reached:
    """A process with a hook: its job, which stands in for one where it is a stranger."""

    job: Job
    rank: int
    is_stranger: bool


@dataclass(frozen=True, slots=True)
class _Files:
    directory: str


@dataclass(frozen=True, slots=True)
class _Record:
    files: _Files


@dataclass(slots=True)
class _Stranger:
    """One process, and the processes with a hook that it forked."""

    job: Job
    found: Found
    folder: str
    server: asyncio.Server | None = None
    writers: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_asked: bool = False  # a line of ours waits in it for its main thread


class Strangers:
    """Reaches processes, and speaks with their hooks; see `rdev.agent.debug.manager.Jobs`.

    Args:
        folder: Where their sockets lie, one private folder a process.
        jobs: The agent's jobs.
        is_allowed: The owner of the machine allows the hook.
        patience: How long a process may take to execute Python, in seconds.
    """

    def __init__(
        self,
        folder: str,
        jobs: Jobs,
        *,
        is_allowed: bool = True,
        patience: float = ARRIVAL_SECONDS,
    ) -> None:
        self._is_allowed = is_allowed
        self._patience = patience
        self._folder = folder
        self._jobs = jobs
        self._known: dict[str, _Stranger] = {}
        self._serving: set[asyncio.Task[Any]] = set()
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(_sweep, self._folder)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Other folders stay: a hook that lives dials the agent after this one.
        self._forget_ended()
        for stranger in self._known.values():
            _hang_up(stranger)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while self._serving:  # each has been hung up, and has only to see it
            await asyncio.wait(self._serving)

    def knows(self, job_id: str) -> bool:
        """Whether the id is one of a process that was reached."""
        return job_id in self._known

    async def reach(self, pid: int) -> Reached:
        """Puts the hook into a process, unless it has one; again is harmless.

        Args:
            pid: The process.

        Raises:
            DebuggerUnavailable: It cannot be done; the cause says why, the process runs on.
            NotFound: There is no such process.
            PermissionRefused: It belongs to somebody else, or the kernel does not allow it.
            TimedOut: Its main thread has not executed Python.
        """
        self._forget_ended()
        found = await asyncio.to_thread(look, pid)
        if (owned := await self._in_a_job(found)) is not None:
            return owned
        self._require_unforked(found)
        stranger = self._stranger(found)
        async with stranger.lock:
            # Whoever waited for the lock may find that the one before has given it up.
            self._known.setdefault(stranger.job.id, stranger)
            if pid not in stranger.writers:
                await self._admit(stranger)
        return Reached(stranger.job, 0, is_stranger=True)

    def _require_unforked(self, found: Found) -> None:
        """A child inherits the hook, which dials where its parent's does."""
        for stranger in self._known.values():
            if found.pid != stranger.found.pid and found.pid in stranger.writers:
                raise DebuggerUnavailable(
                    f"debug process {found.pid}",
                    f"process {stranger.found.pid} has forked it since the hook came into that one",
                    hint=f"`rdev stack --pid {stranger.found.pid}` shows both",
                )

    async def _admit(self, stranger: _Stranger) -> None:
        if not self._is_allowed:
            self._forget(stranger)
            cause = "the host's /etc/rdev/agent.toml says `hook = false`"
            raise PermissionRefused(
                f"debug process {stranger.found.pid}", cause, hint="ask its owner"
            )
        found = await _awake(stranger.found.pid)
        if (error := refusal(found, await asyncio.to_thread(rights))) is not None:
            self._forget(stranger)
            raise error
        stranger.found = found
        await self._enter(stranger)

    async def source(self, job_id: str, path: str) -> bytes | None:
        """A source file as it is now; None if there is none of a readable size."""
        self._get(job_id, "read a source file")
        return await asyncio.to_thread(_read, path)

    # --- what the debug manager asks

    async def get(self, reference: str) -> Job:
        """What stands in for a job; JobNotFound if the process was never reached."""
        stranger = self._get(reference, "debug a process")
        if is_alive(stranger.found.pid, ticks=stranger.found.ticks):
            return stranger.job
        return replace(stranger.job, state=JobState.LOST)  # only its parent knows how

    async def peers(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The process and those that it forked since, as far as they have a hook."""
        writers = self._get(job_id, "debug a process").writers
        return [{"role": "hook", "rank": 0, "pid": pid} for pid in writers]

    async def command(
        self,
        job_id: str,
        role: str,
        rank: int,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        pid: int | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - callers know how long theirs may take
    ) -> Mapping[str, Any]:
        """Sends a command to the hook of a process and returns its answer.

        Raises:
            JobConflict: It could not do it, or has no hook.
            JobNotRunning: It has ended.
            TimedOut: It did not answer.
        """
        del role, rank  # they have no other
        stranger = self._get(job_id, f"send {name}")
        pid = stranger.found.pid if pid is None else pid
        writer = stranger.writers.get(pid)
        if writer is None:
            raise JobNotRunning(f"send {name}", f"process {pid} has ended")
        number = str(next(self._ids))
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        stranger.answers[number], stranger.asked[number] = answer, pid
        try:
            message = {"type": "command", "id": number, "name": name, "args": dict(args or {})}
            writer.write(channel.encode(message))
            async with asyncio.timeout(timeout):
                result = await answer
        except TimeoutError as error:
            raise TimedOut(f"send {name}", f"process {pid} did not answer") from error
        finally:
            del stranger.answers[number], stranger.asked[number]
        if not result.get("ok"):
            raise JobConflict(f"send {name}", str(result.get("cause", "")))
        return result

    def record(self, job_id: str) -> _Record:
        """The private folder of a process."""
        return _Record(_Files(self._get(job_id, "debug a process").folder))

    async def stop(self, job_id: str) -> Job:
        """Refuses: rdev ends nothing that it did not start."""
        job = self._get(job_id, "end a process").job
        raise JobConflict(f"end {job.name}", "rdev did not start it")

    # --- reaching

    async def _in_a_job(self, found: Found) -> Reached | None:
        if not JOB_ID.fullmatch(found.job_id):
            return None
        with contextlib.suppress(RdevError):  # another home's job, or one that is over
            for peer in await self._jobs.peers(found.job_id):
                if (peer.get("role"), peer.get("pid")) == ("hook", found.pid):
                    job = await self._jobs.get(found.job_id)
                    return Reached(job, int(peer.get("rank") or 0), is_stranger=False)
        return None

    def _stranger(self, found: Found) -> _Stranger:
        job_id = _id_of(found)
        if job_id not in self._known:
            folder = os.path.join(self._folder, f"{found.pid}-{found.ticks}")
            self._known[job_id] = _Stranger(_job_of(found, job_id), found, folder)
        return self._known[job_id]

    def _get(self, job_id: str, action: str) -> _Stranger:
        try:
            return self._known[job_id]
        except KeyError:
            raise JobNotFound(action, "it has ended, or was never reached") from None

    async def _enter(self, stranger: _Stranger) -> None:
        has_folder = await asyncio.to_thread(os.path.isdir, stranger.folder)
        try:
            await self._listen(stranger)
            if not stranger.is_asked and has_folder:
                # By an agent before this one, or by a call that was cut off meanwhile.
                with contextlib.suppress(TimedOut):
                    await self._arrival(stranger, RETURN_SECONDS)
                    return
            if not stranger.is_asked:
                await enter(stranger.found, os.path.join(stranger.folder, _SOCKET))
                # Whoever asks again only waits: Python's queue has 32 places.
                stranger.is_asked = True
            await self._arrival(stranger, self._patience)
        except RdevError:
            if not stranger.writers and not stranger.is_asked and not has_folder:
                self._forget(stranger)
            raise

    async def _listen(self, stranger: _Stranger) -> None:
        if stranger.server is not None:
            return

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(stranger, reader, writer)

        path = os.path.join(stranger.folder, _SOCKET)
        await asyncio.to_thread(_prepare, stranger.folder)
        with short_socket_path(path) as address:
            stranger.server = await asyncio.start_unix_server(serve, path=address)
        os.chmod(path, 0o600)

    async def _arrival(self, stranger: _Stranger, seconds: float) -> None:
        pid = stranger.found.pid
        began = time.monotonic()
        while pid not in stranger.writers:
            waited = time.monotonic() - began
            action = f"debug process {pid}"
            if not is_alive(pid, ticks=stranger.found.ticks):
                raise JobNotRunning(action, "it has ended")
            if cause := await asyncio.to_thread(_failure, stranger.folder):
                self._forget(stranger)
                raise DebuggerUnavailable(action, f"its hook did not start: {cause}")
            if waited > seconds:
                hint = "the hook comes in when that ends; the same command attaches then"
                raise TimedOut(action, f"{_WAITS} for {seconds:.0f} s", hint=hint)
            await asyncio.sleep(_TICK)

    # --- the hooks' connections

    async def _serve(
        self, stranger: _Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pid, lines = 0, channel.LineBuffer()
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            if stranger.server is None:
                return  # it came as all were hung up
            if peer_uid(writer.get_extra_info("socket")) != os.geteuid():
                return
            while data := await reader.read(_READ_BYTES):
                for line in lines.feed(data):
                    message = channel.decode(line)
                    if message.get("type") == "hello":
                        pid = channel.small_number(message.get("pid"))
                    self._take(stranger, message, writer)
        except (OSError, channel.ChannelError) as error:
            _log.info("the hook of process %d: %s", pid, error)
        finally:
            self._serving.discard(task)
            writer.close()
            self._gone(stranger, pid, writer)

    def _take(
        self, stranger: _Stranger, message: Mapping[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        match message.get("type"):
            case "hello":
                stranger.writers[channel.small_number(message.get("pid"))] = writer
                welcome = {"version": channel.VERSION, "job": stranger.job.id, "acknowledged": 0}
                writer.write(channel.encode({"type": "welcome", **welcome}))
            case "event":  # nobody reads a stranger's
                writer.write(channel.encode({"type": "ack", "seq": message.get("seq")}))
            case "result":
                answer = stranger.answers.get(str(message.get("id")))
                if answer is not None and not answer.done():
                    answer.set_result(dict(message))

    def _gone(self, stranger: _Stranger, pid: int, writer: asyncio.StreamWriter) -> None:
        if stranger.writers.get(pid) is not writer:
            return
        del stranger.writers[pid]
        for number, asked in stranger.asked.items():
            answer = stranger.answers[number]
            if asked == pid and not answer.done():
                answer.set_exception(JobNotRunning("ask a process", f"process {pid} has ended"))

    def _forget_ended(self) -> None:
        for stranger in list(self._known.values()):
            if not is_alive(stranger.found.pid, ticks=stranger.found.ticks):
                self._forget(stranger)

    def _forget(self, stranger: _Stranger) -> None:
        self._known.pop(stranger.job.id, None)
        _hang_up(stranger)
        shutil.rmtree(stranger.folder, ignore_errors=True)


async def _awake(pid: int) -> Found:
    """A process as it is now, or when it has read what it reads from a disk at the moment."""
    until = time.monotonic() + SLEEP_SECONDS
    while True:
        found = await asyncio.to_thread(look, pid)
        if found.state != "D" or time.monotonic() > until:
            return found
        await asyncio.sleep(_TICK)


_WAITS = "its main thread executes no Python: it is in one long call of C code"


def _id_of(found: Found) -> str:
    """The same for every agent that meets the process, and for no other process."""
    seed = f"{boot_id()}\n{found.pid}\n{found.ticks}".encode()
    return hashlib.blake2b(seed, digest_size=6).hexdigest()


def _job_of(found: Found, job_id: str) -> Job:
    return Job(
        id=job_id,
        name=f"pid-{found.pid}",
        spec=JobSpec(kind=CommandKind.PROGRAM, target=found.program),
        state=JobState.RUNNING,
        pid=found.pid,
        started=time.time() - 3600.0,  # whoever waits for its hook to arrive has waited
        argv=found.argv,
        directory=found.directory,
        interpreter=found.program,
    )


def _prepare(folder: str) -> None:
    make_private(os.path.dirname(folder))
    make_private(folder)
    for name in (_SOCKET, FAILED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))


def _failure(folder: str) -> str:
    try:
        with open(os.path.join(folder, FAILED), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _read(path: str) -> bytes | None:
    try:
        # A pipe would be waited for until somebody writes to it, and the agent's end with it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            is_source = stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_SOURCE
            return file.read(_MOST_SOURCE) if is_source else None
    except (OSError, ValueError):
        return None


def _sweep(folder: str) -> None:
    """Removes what is left of processes that have ended."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            pid, _, ticks = name.partition("-")
            is_ours = pid.isdigit() and ticks.isdigit()
            if is_ours and not is_alive(int(pid), ticks=int(ticks)):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _hang_up(stranger: _Stranger) -> None:
    if stranger.server is not None:
        stranger.server.close()
        stranger.server = None
    for writer in list(stranger.writers.values()):
        writer.close()
