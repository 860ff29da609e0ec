"""What all ranks of a job do, asked of the agent: their stacks, and a value in each of them."""

from __future__ import annotations

from dataclasses import dataclass

from rdev.client.connection import UNARY_DEADLINE, Connection, translating
from rdev.client.jobs import Jobs
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc
from rdev.wire.job import Job

# py-spy takes a second for a process with many threads, and its turn on a busy machine.
_STACK_SECONDS = 2 * UNARY_DEADLINE


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One call.

    Attributes:
        path: Source file on the host, or native library.
        line: From 1; 0 if it is not known.
        function: Its name.
    """

    path: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """One thread, its frames innermost first.

    Attributes:
        name: Its name.
        frames: Innermost first.
        is_paused: The debugger holds it.
    """

    name: str
    frames: tuple[StackFrame, ...]
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class ProcessStack:
    """One process of a job.

    Attributes:
        rank: Its rank.
        pid: Its process id.
        title: Its script, or its command line.
        threads: The main one first.
        cause: Why there are none; empty if there are.
        source: Who looked, such as `hook` or `py-spy`.
    """

    rank: int
    pid: int
    title: str
    threads: tuple[ThreadStack, ...] = ()
    cause: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class RankValue:
    """What an expression is in one rank; `cause` says why it has no value."""

    rank: int
    place: str
    value: str
    cause: str = ""


async def stacks(
    connection: Connection, job_id: str, *, rank: int | None = None, native: bool = False
) -> list[ProcessStack]:
    """Where each thread of a job's processes is; nothing is stopped for it.

    Args:
        connection: Where the job is.
        job_id: The job.
        rank: Only this one; None means all.
        native: Frames of native code too, where the host can tell.

    Raises:
        JobNotRunning: It has ended.
        DebuggerUnavailable: Nobody can look.
    """
    request = pb.GetStacksRequest(job_id=job_id, rank=rank, native=native)
    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    with translating(f"look at the stacks of job {job_id}"):
        response = await stub.GetStacks(request, timeout=_STACK_SECONDS)
    return [_process(process) for process in response.processes]


async def compare(
    connection: Connection, job_id: str, expression: str, *, function: str = ""
) -> list[RankValue]:
    """The value of an expression in every rank, in the order of the ranks.

    Args:
        connection: Where the job is.
        job_id: The job.
        expression: In Python.
        function: In the innermost frame of this function; empty takes the held rank's.

    Raises:
        JobNotRunning: It has ended.
        DebuggerUnavailable: Nobody can look.
    """
    request = pb.CompareRanksRequest(job_id=job_id, expression=expression, function=function)
    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    with translating(f"compare the ranks of job {job_id}"):
        response = await stub.CompareRanks(request, timeout=UNARY_DEADLINE)
    return [RankValue(v.rank, v.place, v.value, v.cause) for v in response.values]


class JobReports:
    """See `rdev.client.debug.dialogue.Reports`.

    Args:
        connection: Where the job is.
        job_id: The job.
    """

    def __init__(self, connection: Connection, job_id: str) -> None:
        self._connection = connection
        self._job_id = job_id

    async def job(self) -> Job:
        """The job as it is now."""
        return await Jobs(self._connection).get(self._job_id)

    async def stacks(self) -> list[ProcessStack]:
        """Where each thread of it is."""
        return await stacks(self._connection, self._job_id)

    async def compare(self, expression: str, function: str) -> list[RankValue]:
        """A value in every rank."""
        return await compare(self._connection, self._job_id, expression, function=function)


def _process(process: pb.ProcessStack) -> ProcessStack:
    return ProcessStack(
        process.rank,
        process.pid,
        process.title,
        tuple(_thread(thread) for thread in process.threads),
        process.cause,
        process.source,
    )


def _thread(thread: pb.ThreadStack) -> ThreadStack:
    frames = tuple(StackFrame(f.file, f.line, f.function) for f in thread.frames)
    return ThreadStack(thread.name, frames, thread.paused)
