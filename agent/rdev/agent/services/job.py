"""JobService: creates, finds, watches and stops jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from rdev.agent.jobs.input import Writer
from rdev.agent.jobs.manager import JobManager
from rdev.agent.services import Context
from rdev.protocol.convert_job import job_to_proto, spec_from_proto, window_from_proto
from rdev.protocol.errors import InvalidRequest, LimitExceeded
from rdev.v1 import job_pb2, job_pb2_grpc
from rdev.wire.job import Job

# What one message of input may hold.
_MAX_DATA = 256 << 10


class JobService(job_pb2_grpc.JobServiceServicer):
    """Serves the jobs of one manager."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def CreateJob(
        self, request: job_pb2.CreateJobRequest, context: Context
    ) -> job_pb2.CreateJobResponse:
        """See job.proto."""
        job = await self._manager.create(request.request_id, spec_from_proto(request.spec))
        return job_pb2.CreateJobResponse(job=job_to_proto(job))

    async def CheckJob(
        self, request: job_pb2.CheckJobRequest, context: Context
    ) -> job_pb2.CheckJobResponse:
        """See job.proto."""
        await self._manager.check(spec_from_proto(request.spec))
        return job_pb2.CheckJobResponse()

    async def GetJob(
        self, request: job_pb2.GetJobRequest, context: Context
    ) -> job_pb2.GetJobResponse:
        """See job.proto."""
        job = await self._manager.get(request.job, request.workspace_id)
        return job_pb2.GetJobResponse(job=job_to_proto(job))

    async def ListJobs(
        self, request: job_pb2.ListJobsRequest, context: Context
    ) -> job_pb2.ListJobsResponse:
        """See job.proto."""
        jobs = await self._manager.list(request.workspace_id, ended=request.ended)
        return job_pb2.ListJobsResponse(jobs=[job_to_proto(_in_short(job)) for job in jobs])

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """See job.proto."""
        async for job in self._manager.watch(request.job_id, request.since_revision):
            yield job_pb2.WatchJobResponse(job=job_to_proto(job))

    async def StopJob(
        self, request: job_pb2.StopJobRequest, context: Context
    ) -> job_pb2.StopJobResponse:
        """See job.proto."""
        job = await self._manager.stop(request.job_id, now=request.now, is_all=request.all)
        return job_pb2.StopJobResponse(job=job_to_proto(job))

    async def SignalJob(
        self, request: job_pb2.SignalJobRequest, context: Context
    ) -> job_pb2.SignalJobResponse:
        """See job.proto."""
        await self._manager.signal(request.job_id, request.signal)
        return job_pb2.SignalJobResponse()

    async def DeleteJob(
        self, request: job_pb2.DeleteJobRequest, context: Context
    ) -> job_pb2.DeleteJobResponse:
        """See job.proto."""
        await self._manager.delete(request.job_id)
        return job_pb2.DeleteJobResponse()

    async def WriteInput(
        self, request_iterator: AsyncIterator[job_pb2.WriteInputRequest], context: Context
    ) -> AsyncIterator[job_pb2.WriteInputResponse]:
        """See job.proto."""
        opening = await anext(aiter(request_iterator), None)
        if opening is None or opening.WhichOneof("item") != "open":
            raise InvalidRequest("write the job's input", "the first message does not open it")
        opened = self._manager.write_input(opening.open.job_id, opening.open.writer_id)
        async with opened as writer:
            yield _accepted(writer)
            if writer.has_ended:
                return
            async for request in request_iterator:
                is_last = await _write(writer, request)
                yield _accepted(writer)
                if is_last or writer.has_ended:
                    return

    async def ResizeTerminal(
        self, request: job_pb2.ResizeTerminalRequest, context: Context
    ) -> job_pb2.ResizeTerminalResponse:
        """See job.proto."""
        await self._manager.resize(request.job_id, window_from_proto(request.window))
        return job_pb2.ResizeTerminalResponse()


async def _write(writer: Writer, request: job_pb2.WriteInputRequest) -> bool:
    """Does what one request asks for; True if it is the last one."""
    match request.WhichOneof("item"):
        case "data":
            if len(request.data) > _MAX_DATA:
                raise LimitExceeded("write the job's input", "a message holds 256 KiB at most")
            await writer.write(request.data)
            return False
        case "end":
            await writer.end()
            return True
        case _:
            raise InvalidRequest("write the job's input", "the message is empty")


def _accepted(writer: Writer) -> job_pb2.WriteInputResponse:
    return job_pb2.WriteInputResponse(accepted=writer.accepted, ended=writer.has_ended)


def _in_short(job: Job) -> Job:
    """Without its environment, which may be long and which no list shows."""
    return replace(job, spec=replace(job.spec, environment={}))
