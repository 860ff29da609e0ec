"""Jobs, logs and events over gRPC, on a socket of the test's own."""

import contextlib
import os
import sys

import grpc
import pytest
from tests.support.jobs import jobs_in, tidy

from rdev.agent.interceptor import ErrorInterceptor
from rdev.agent.services.event import EventService
from rdev.agent.services.job import JobService
from rdev.agent.services.log import LogService
from rdev.protocol.convert_job import job_from_proto, spec_to_proto
from rdev.v1 import (
    event_pb2,
    event_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    log_pb2,
    log_pb2_grpc,
)
from rdev.wire.events import Event
from rdev.wire.job import CommandKind, JobSpec, JobState, Window

REPORTS = """
import json, os, socket
sock = socket.socket(socket.AF_UNIX)
folder = os.open(os.path.dirname(os.environ["RDEV_JOB_SOCKET"]), os.O_RDONLY)
sock.connect(f"/proc/self/fd/{folder}/job.sock")
hello = {"type": "hello", "version": 1, "role": "loop", "rank": 0, "pid": os.getpid()}
events = [{"type": "event", "seq": n, "kind": k, "time": 1.0} for n, k in ((1, "a"), (2, "b"))]
sock.sendall(b"".join(json.dumps(m).encode() + b"\\n" for m in [hello, *events]))
"""


class Stubs:
    def __init__(self, channel):
        self.job = job_pb2_grpc.JobServiceStub(channel)
        self.log = log_pb2_grpc.LogServiceStub(channel)
        self.event = event_pb2_grpc.EventServiceStub(channel)

    async def create(self, *argv, **options):
        spec = spec_to_proto(JobSpec(CommandKind.PROGRAM, argv[0], argv[1:], grace=1.0, **options))
        request = job_pb2.CreateJobRequest(request_id=os.urandom(8).hex(), spec=spec)
        return (await self.job.CreateJob(request)).job

    async def tail(self, job, **options):
        call = self.log.TailLog(log_pb2.TailLogRequest(job_id=job.id, **options))
        return [response async for response in call]


@contextlib.asynccontextmanager
async def serving(folder, monkeypatch):
    """A server and its stubs; the socket's path is relative, as pytest's folders are deep."""
    async with tidy(folder / "jobs"), jobs_in(folder / "jobs") as jobs:
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        job_pb2_grpc.add_JobServiceServicer_to_server(JobService(jobs.manager), server)
        LogService(jobs.manager, jobs.inotify).add_to(server)
        event_pb2_grpc.add_EventServiceServicer_to_server(
            EventService(jobs.manager, jobs.inotify), server
        )
        monkeypatch.chdir(folder)
        server.add_insecure_port("unix:agent.sock")
        await server.start()
        async with grpc.aio.insecure_channel("unix:agent.sock") as channel:
            yield Stubs(channel)
        await server.stop(0)


async def test_a_job_is_created_watched_and_read(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("sh", "-c", "echo one; echo two; exit 3")
        seen = [
            job_from_proto(response.job)
            async for response in stubs.job.WatchJob(job_pb2.WatchJobRequest(job_id=job.id))
        ]
        assert (seen[-1].state, seen[-1].exit_code) == (JobState.FAILED, 3)
        responses = await stubs.tail(job, follow=True)
        assert b"".join(r.chunk.data for r in responses) == b"one\ntwo\n"
        assert responses[-1].WhichOneof("item") == "end"
        cursor = log_pb2.Cursor(rank=0, stream="stdout", offset=4)
        assert [r.chunk.data for r in await stubs.tail(job, cursors=[cursor])] == [b"two\n"]
        assert [r.chunk.data for r in await stubs.tail(job, tail_lines=1)] == [b"two\n"]
        assert await stubs.tail(job, tail_lines=0) == []


async def test_jobs_are_listed_stopped_and_deleted(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("sleep", "600")
        listed = await stubs.job.ListJobs(job_pb2.ListJobsRequest())
        assert [found.id for found in listed.jobs] == [job.id]
        await stubs.job.StopJob(job_pb2.StopJobRequest(job_id=job.id, now=True))
        async for response in stubs.job.WatchJob(job_pb2.WatchJobRequest(job_id=job.id)):
            last = response.job
        assert last.state == job_pb2.JOB_STATE_CANCELLED
        assert not (await stubs.job.ListJobs(job_pb2.ListJobsRequest())).jobs
        assert (await stubs.job.ListJobs(job_pb2.ListJobsRequest(ended=True))).jobs[0].id == job.id
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.job.SignalJob(job_pb2.SignalJobRequest(job_id=job.id, signal=2))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await stubs.job.DeleteJob(job_pb2.DeleteJobRequest(job_id=job.id))
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stubs.job.GetJob(job_pb2.GetJobRequest(job=job.id))
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_list_is_without_environments_and_one_job_is_with_it(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("true", environment={"LONG": "x" * 1000})
        listed = (await stubs.job.ListJobs(job_pb2.ListJobsRequest(ended=True))).jobs[0]
        assert (listed.id, dict(listed.spec.environment)) == (job.id, {})
        found = (await stubs.job.GetJob(job_pb2.GetJobRequest(job=job.id))).job
        assert found.spec.environment["LONG"] == "x" * 1000


async def test_events_of_a_job_that_ends_at_once_are_all_there(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create(sys.executable, "-c", REPORTS)
        request = event_pb2.TailEventsRequest(job_id=job.id, follow=True)
        seen = [response async for response in stubs.event.TailEvents(request)]
        assert [Event.from_json(response.event).kind for response in seen] == ["a", "b"]
        later = event_pb2.TailEventsRequest(job_id=job.id, offset=seen[0].next_offset)
        assert [r.event async for r in stubs.event.TailEvents(later)] == [seen[1].event]
        chosen = event_pb2.TailEventsRequest(job_id=job.id, kinds=["a"])
        assert [r.event async for r in stubs.event.TailEvents(chosen)] == [seen[0].event]
        end = event_pb2.TailEventsRequest(job_id=job.id, from_end=True)
        [told] = [r async for r in stubs.event.TailEvents(end)]
        assert (told.event, told.next_offset) == ("", seen[1].next_offset)


async def test_a_part_of_the_output_is_read_by_time_stream_and_attempt(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        script = "echo early; while [ ! -e go ]; do sleep 0.02; done; echo late; echo err >&2"
        job = await stubs.create("sh", "-c", f"cd {tmp_path}; {script}")
        request = log_pb2.TailLogRequest(job_id=job.id, follow=True, timed=True)
        call, seen = stubs.log.TailLog(request), []
        async for response in call:
            seen.append(response.chunk)
            if seen[-1].data == b"early\n":
                (tmp_path / "go").touch()
        early, late = (chunk for chunk in seen if chunk.stream == "stdout" and chunk.data)
        assert (early.data, late.data) == (b"early\n", b"late\n")
        assert early.time.ToNanoseconds() < late.time.ToNanoseconds()

        async def text(**options):
            found = [r.chunk for r in await stubs.tail(job, **options) if r.chunk.data]
            return b"".join(sorted(chunk.data for chunk in found))

        assert await text(since=late.time) == b"err\nlate\n"
        assert await text(since=late.time, streams=["stdout"]) == b"late\n"
        assert await text(streams=["stderr"], ranks=[0]) == b"err\n"
        assert await text(attempt=1, follow=True) == b"early\nlate\nerr\n"
        for wrong in ({"attempt": 2}, {"ranks": [1]}, {"streams": ["launcher"]}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stubs.tail(job, **wrong)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_followed_tail_says_where_it_begins(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("sh", "-c", "echo one; echo two")
        await stubs.tail(job, follow=True)
        responses = await stubs.tail(job, follow=True, tail_lines=1)
        begins = [(r.chunk.stream, r.chunk.offset) for r in responses if not r.chunk.data][:-1]
        assert begins == [("stdout", 4), ("stderr", 0)]
        assert [r.chunk.data for r in responses if r.chunk.data] == [b"two\n"]
        assert responses[-1].WhichOneof("item") == "end"


def opening(job, writer="0" * 32):
    return job_pb2.WriteInputRequest(open=job_pb2.InputOpen(job_id=job.id, writer_id=writer))


def data(content):
    return job_pb2.WriteInputRequest(data=content)


END = job_pb2.WriteInputRequest(end=job_pb2.InputEnd())


async def test_input_is_written_broken_off_and_gone_on_with(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("cat", stdin=True)
        first = stubs.job.WriteInput()
        await first.write(opening(job))
        assert await first.read() == job_pb2.WriteInputResponse(accepted=0)
        await first.write(data(b"one "))
        assert (await first.read()).accepted == 4
        first.cancel()
        answers = [r async for r in stubs.job.WriteInput(iter([opening(job), data(b"two"), END]))]
        assert [(r.accepted, r.ended) for r in answers] == [(4, False), (7, False), (7, True)]
        responses = await stubs.tail(job, follow=True)
        assert b"".join(r.chunk.data for r in responses) == b"one two"
        answers = [r async for r in stubs.job.WriteInput(iter([opening(job), data(b"late")]))]
        assert [(r.accepted, r.ended) for r in answers] == [(7, True)]


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT),
        ([data(b"x")], grpc.StatusCode.INVALID_ARGUMENT),
        ([None, job_pb2.WriteInputRequest()], grpc.StatusCode.INVALID_ARGUMENT),
        ([None, data(bytes(262_145))], grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_is_no_way_to_write_input(tmp_path, monkeypatch, requests, code):
    async with serving(tmp_path, monkeypatch) as stubs:
        job = await stubs.create("cat", stdin=True)
        messages = [request or opening(job) for request in requests]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stubs.job.WriteInput(iter(messages)):
                pass
        assert refused.value.code() is code


async def test_a_terminal_is_resized_and_what_is_none_is_not(tmp_path, monkeypatch):
    async with serving(tmp_path, monkeypatch) as stubs:
        window = job_pb2.Window(rows=5, columns=6)
        job = await stubs.create("sh", "-c", "read line; stty size", terminal=Window())
        async for response in stubs.job.WatchJob(job_pb2.WatchJobRequest(job_id=job.id)):
            if response.job.state == job_pb2.JOB_STATE_RUNNING:
                break
        await stubs.job.ResizeTerminal(job_pb2.ResizeTerminalRequest(job_id=job.id, window=window))
        async for _ in stubs.job.WriteInput(iter([opening(job), data(b"\r"), END])):
            pass
        responses = await stubs.tail(job, follow=True)
        assert b"".join(r.chunk.data for r in responses) == b"\r\n5 6\r\n"
        plain = await stubs.create("sleep", "60")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.job.ResizeTerminal(
                job_pb2.ResizeTerminalRequest(job_id=plain.id, window=window)
            )
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
