"""Processes on a host that rdev did not start: reached by their id, debugged as a job is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from rdev.client.connection import UNARY_DEADLINE, Connection, translating
from rdev.client.debug.places import Sources
from rdev.client.debug.ranks import ProcessStack, RankValue, compare, stacks
from rdev.client.debug.texts import Texts
from rdev.protocol.convert_job import job_from_proto
from rdev.protocol.errors import JobNotFound, JobNotRunning, RdevError
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc
from rdev.wire.job import Job

# The agent waits a minute for the process, and its tracer may take more than that to give up.
_REACH_SECONDS = 180.0

# A process that executes Python takes the hook within a step.
_PATIENCE = 3.0

# The debugger leaves a moment before the process that ends.
_SETTLE = 3.0
_TICK = 0.05


@dataclass(frozen=True, slots=True)
class Reached:
    """A process with a hook.

    Attributes:
        job: Its job, or what stands in for one.
        rank: Its rank in it.
        is_stranger: rdev did not start it.
    """

    job: Job
    rank: int
    is_stranger: bool


async def reach(connection: Connection, pid: int, tell: Callable[[str], None]) -> Reached:
    """Puts the debug hook into a process of the host, unless it has one.

    Args:
        connection: To the host.
        pid: The process there.
        tell: Shows a line to the person.

    Raises:
        DebuggerUnavailable: It cannot be done; the cause says why, and the process runs on.
        NotFound: There is no such process.
        PermissionRefused: It belongs to somebody else, or the kernel does not allow it.
        TimedOut: Its main thread has not executed Python.
        VersionSkew: The agent is older than that.
    """

    async def be_patient() -> None:
        await asyncio.sleep(_PATIENCE)
        tell(f"process {pid} does not answer yet: its main thread is in a call of C code")

    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    failure: RdevError | None = None
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(be_patient())
        try:
            with translating(f"debug process {pid}"):
                request = pb.ReachProcessRequest(pid=pid)
                response = await stub.ReachProcess(request, timeout=_REACH_SECONDS)
        except RdevError as error:  # a group would wrap it
            failure = error
        finally:
            waiting.cancel()
    if failure is not None:
        raise failure
    return Reached(job_from_proto(response.job), response.rank, response.stranger)


def texts_of_process(connection: Connection, job: Job) -> Texts:
    """The files of a process: as they are on its host now, for nobody knows what it was."""

    async def read(inside: str) -> bytes | None:
        path = os.path.join(job.directory, inside)
        stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
        with translating(f"read {path} of {job.name}"):
            request = pb.ReadSourceRequest(job_id=job.id, path=path)
            response = await stub.ReadSource(request, timeout=UNARY_DEADLINE)
        return response.content if response.HasField("content") else None

    return Texts(Sources("", job.directory), read)


class ProcessReports:
    """See `rdev.client.debug.dialogue.Reports`.

    Args:
        connection: Where the process is.
        job: What stands in for its job.
    """

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self._job = job

    async def job(self) -> Job:
        """The process."""
        return self._job

    async def stacks(self) -> list[ProcessStack]:
        """Where each thread of it is."""
        return await stacks(self._connection, self._job.id)

    async def compare(self, expression: str, function: str) -> list[RankValue]:
        """A value in it."""
        return await compare(self._connection, self._job.id, expression, function=function)


async def has_ended(connection: Connection, job: Job) -> bool:
    """Whether a process is over; one that is about to be is waited for."""
    until = time.monotonic() + _SETTLE
    while time.monotonic() < until:
        try:
            await stacks(connection, job.id)
        except (JobNotRunning, JobNotFound):
            return True
        except RdevError:  # it cannot be told
            return False
        await asyncio.sleep(_TICK)
    return False
