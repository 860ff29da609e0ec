"""Jobs of one host, as the SDK offers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from rdev.client.connection import UNARY_DEADLINE, Connection, responses, resuming, translating
from rdev.client.identity import owner
from rdev.protocol.convert_job import job_from_proto, spec_to_proto, window_to_proto
from rdev.protocol.errors import ConnectionLost
from rdev.protocol.ids import new_request_id
from rdev.v1 import job_pb2, job_pb2_grpc
from rdev.wire.job import Job, JobSpec, JobState, Window

# What a job's prelude changes may have to be found out first, which takes a minute at most.
_START_DEADLINE = 90.0


class Jobs:
    """Creates, finds, watches and ends jobs.

    Every method raises `RdevError`s of the agent as they are, and `ConnectionLost` when the host
    went away in the middle.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = job_pb2_grpc.JobServiceStub(connection.channel)

    async def create(self, spec: JobSpec, *, request_id: str | None = None) -> Job:
        """Starts a job.

        Args:
            spec: What to run and how; who runs this is the owner if it names none.
            request_id: Repeating one repeats nothing: the first job is returned again.

        Raises:
            JobConflict: A job of that name is alive.
            CommandNotFound: The interpreter does not exist on the host.
            EnvironmentNotFound: The host does not have the environment that was named.
            EnvironmentFailed: It cannot be activated or made; nothing was started.
            DiskFull: The host has no room for the job's record.
        """
        spec = replace(spec, owner=spec.owner or await asyncio.to_thread(owner))
        request = job_pb2.CreateJobRequest(
            request_id=request_id or new_request_id(), spec=spec_to_proto(spec)
        )
        with translating("start the job"):
            response = await self._stub.CreateJob(request, timeout=_START_DEADLINE)
        return job_from_proto(response.job)

    async def check(self, spec: JobSpec) -> None:
        """Returns if the host can have such a job, as far as is known before a sync.

        Raises:
            InvalidRequest: It never can, as with more GPUs than it has.
        """
        if "check-job" not in self._connection.agent.capabilities:
            return
        request = job_pb2.CheckJobRequest(spec=spec_to_proto(spec))
        with translating("start the job"):
            await self._stub.CheckJob(request, timeout=UNARY_DEADLINE)

    async def get(self, reference: str = "", *, workspace_id: str = "") -> Job:
        """The job with this name, id, id prefix or `@-N`; the latest for an empty reference.

        Raises:
            JobNotFound: There is none.
        """
        request = job_pb2.GetJobRequest(job=reference, workspace_id=workspace_id)
        with translating(f"find the job {reference!r}"):
            response = await self._stub.GetJob(request, timeout=UNARY_DEADLINE)
        return job_from_proto(response.job)

    async def list(self, *, workspace_id: str = "", ended: bool = False) -> list[Job]:
        """Jobs, newest first; only live ones unless `ended`."""
        request = job_pb2.ListJobsRequest(workspace_id=workspace_id, ended=ended)
        with translating("list the jobs"):
            response = await self._stub.ListJobs(request, timeout=UNARY_DEADLINE)
        return [job_from_proto(job) for job in response.jobs]

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """Yields the job now and after every change; ends after its final state."""
        revision = 0

        async def open_stream() -> AsyncGenerator[Job, None]:
            request = job_pb2.WatchJobRequest(job_id=job_id, since_revision=revision)
            async for response in responses(self._stub.WatchJob(request)):
                yield job_from_proto(response.job)
            # Only a final state says that the job is over; a stream that just stops says nothing.
            raise ConnectionLost("watch the job", "the host ended the stream")

        async for job in resuming(self._connection, open_stream):
            revision = job.revision
            yield job
            if job.state.is_final:
                return

    async def until_started(self, job_id: str) -> Job:
        """The job once its command was executed, or could not be, or has to wait for a reason."""
        async for job in self.watch(job_id):
            is_waiting = job.state is JobState.PENDING and job.message
            if is_waiting or job.state not in (JobState.PENDING, JobState.STARTING):
                return job
        raise ConnectionLost("start the job", "the host ended the stream")

    async def wait(self, job_id: str) -> Job:
        """The job once it has ended and its logs are drained.

        Raises:
            ConnectionLost: The host is gone; how the job ends is not known.
        """
        async for job in self.watch(job_id):
            if job.state.is_final:
                return job
        raise ConnectionLost("wait for the job", "the host ended the stream")

    async def stop(self, job_id: str, *, now: bool = False, is_all: bool = False) -> Job:
        """Asks for the job's end: TERM, grace, KILL.

        Args:
            job_id: The job.
            now: KILL at once.
            is_all: Spare nothing, no tmux and no agent that was started in it either.
        """
        request = job_pb2.StopJobRequest(job_id=job_id, now=now, all=is_all)
        with translating("stop the job"):
            response = await self._stub.StopJob(request, timeout=UNARY_DEADLINE)
        return job_from_proto(response.job)

    async def signal(self, job_id: str, number: int) -> None:
        """Sends one signal to the job's processes.

        Raises:
            JobNotRunning: It has ended.
        """
        request = job_pb2.SignalJobRequest(job_id=job_id, signal=number)
        with translating("signal the job"):
            await self._stub.SignalJob(request, timeout=UNARY_DEADLINE)

    async def resize(self, job_id: str, window: Window) -> None:
        """Tells the job's terminal its size; the same size again makes programs redraw.

        Raises:
            JobNotRunning: It has ended.
        """
        request = job_pb2.ResizeTerminalRequest(job_id=job_id, window=window_to_proto(window))
        with translating("resize the terminal"):
            await self._stub.ResizeTerminal(request, timeout=UNARY_DEADLINE)

    async def delete(self, job_id: str) -> None:
        """Removes an ended job with its logs.

        Raises:
            JobConflict: It is alive.
        """
        with translating("remove the job"):
            await self._stub.DeleteJob(
                job_pb2.DeleteJobRequest(job_id=job_id), timeout=UNARY_DEADLINE
            )
