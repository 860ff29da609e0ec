"""Real jobs under a real zygote, keepers and supervisors, in a folder of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import select
import struct
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from rdev.agent.jobs.manager import JobManager
from rdev.agent.jobs.resolve import Surroundings
from rdev.agent.logs.follow import follow
from rdev.agent.logs.inotify import Inotify
from rdev.agent.logs.log import Chunk, LogReader, Lost
from rdev.supervisor.processes import all_processes
from rdev.wire.files import JobFiles
from rdev.wire.job import CommandKind, Job, JobSpec, JobState

# Long enough for a loaded two-core machine; no test waits this long when all is well.
DEADLINE = 60.0


@dataclass
class Printed:
    """What a reader saw of a job's output."""

    stdout: bytes = b""
    stderr: bytes = b""
    order: list[tuple[str, bytes]] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


class Jobs:
    """A manager and what tests ask of it."""

    def __init__(self, manager: JobManager, inotify: Inotify) -> None:
        self.manager = manager
        self.inotify = inotify

    async def start(self, *argv: str, **spec) -> Job:
        wanted = JobSpec(CommandKind.PROGRAM, argv[0], argv[1:], **{"grace": 1.0} | spec)
        return await self.manager.create(secrets.token_hex(8), wanted)

    async def python(self, source: str, **spec) -> Job:
        return await self.start(sys.executable, "-c", source, **spec)

    async def reach(self, job: Job, *states: JobState) -> Job:
        async with asyncio.timeout(DEADLINE):
            async for seen in self.manager.watch(job.id):
                if seen.state in states:
                    return seen
        raise AssertionError(f"{job.id} ended without reaching {states}")

    async def end(self, job: Job) -> Job:
        async with asyncio.timeout(DEADLINE):
            async for seen in self.manager.watch(job.id):
                last = seen
        assert last.state.is_final
        return last

    async def run(self, *argv: str, **spec) -> Job:
        return await self.end(await self.start(*argv, **spec))

    def files(self, job: Job) -> JobFiles:
        return self.manager.record(job.id).files

    async def pieces(self, job: Job, offsets=None, *, is_endless: bool = True) -> AsyncIterator:
        files = self.files(job)
        with LogReader(files, offsets or {}) as reader:
            async for batch in follow(
                reader, files, self.inotify, path=files.index, is_endless=is_endless
            ):
                for piece in batch:
                    yield piece

    async def printed(self, job: Job, offsets=None, *, is_endless: bool = True) -> Printed:
        """Follows the output to its end; checks that offsets are without a seam."""
        seen, reached = Printed(), defaultdict(int, {k[1]: v for k, v in (offsets or {}).items()})
        parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        async with asyncio.timeout(DEADLINE):
            async for piece in self.pieces(job, offsets, is_endless=is_endless):
                assert piece.offset == reached[piece.stream]
                if isinstance(piece, Chunk):
                    parts[piece.stream].append(piece.data)
                    seen.order.append((piece.stream, piece.data))
                    reached[piece.stream] += len(piece.data)
                else:
                    seen.lost.append(piece)
                    reached[piece.stream] += piece.length
        seen.stdout, seen.stderr = b"".join(parts["stdout"]), b"".join(parts["stderr"])
        return seen

    async def first_bytes(self, job: Job) -> bytes:
        async with asyncio.timeout(DEADLINE):
            async for piece in self.pieces(job):
                return piece.data
        raise AssertionError(f"{job.id} printed nothing")

    def keeper(self, job: Job) -> int:
        return lock_holder(self.files(job).keeper_lock)

    def supervisor(self, job: Job) -> int:
        return lock_holder(self.files(job).supervisor_lock)


@contextlib.asynccontextmanager
async def jobs_in(folder: Path, **options) -> AsyncIterator[Jobs]:
    """An agent's jobs, as long as the block lasts; live ones go on after it."""
    workspaces = options.pop("workspaces", {})
    if "environment" in options:
        options["surroundings"] = Surroundings(options.pop("environment"), 0o022, None)
    async with (
        Inotify() as inotify,
        JobManager(str(folder), workspaces.get, **options) as manager,
    ):
        yield Jobs(manager, inotify)


@contextlib.asynccontextmanager
async def tidy(folder: Path) -> AsyncIterator[Path]:
    """Stops what a test has left alive in `folder`, and waits for the keepers to go."""
    try:
        yield folder
    finally:
        async with jobs_in(folder) as jobs:
            for job in await jobs.manager.list():
                await jobs.manager.stop(job.id, now=True)
                await jobs.end(job)
            for job in await jobs.manager.list(ended=True):
                await asyncio.to_thread(await_gone, jobs.keeper(job))


def children_named(name: str) -> list[int]:
    """Our own children of that name."""
    children = (process for process in all_processes() if process.parent == os.getpid())
    return [process.pid for process in children if process.name == name]


def lock_holder(path: str) -> int:
    """The process that has locked a file; 0 if none has."""
    layout = struct.Struct("hhqqi4x")
    try:
        with open(path, "rb+") as file:
            asked = layout.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = layout.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except FileNotFoundError:
        return 0
    return 0 if kind == fcntl.F_UNLCK else pid


def await_gone(pid: int) -> None:
    """Returns once that process has ended."""
    if not pid:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], DEADLINE)[0], f"process {pid} did not end"
    finally:
        os.close(handle)
