"""A debug session and the calls of its client: they break, and it goes on."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.support.calls import JOB, CallPipe, served
from tests.support.hooked import HookedJob, adapters, hooked_job

from rdev.agent.debug.holds import set_stops
from rdev.agent.debug.manager import DebugManager
from rdev.agent.debug.session import Over
from rdev.agent.services.debug import _feed
from rdev.client.connection import Connection
from rdev.client.debug import expecting
from rdev.client.debug.session import Breakpoint, DebugClient, Inherited, Stopped, debugging
from rdev.protocol.errors import DebuggerBusy, DebuggerUnavailable, DebugSessionLost, InvalidRequest
from rdev.v1 import debug_pb2 as pb
from rdev.v1.debug_pb2_grpc import DebugServiceStub
from rdev.wire.job import DebugStart

# Line 5 is inside the step.
TRAIN = """\
import os, time

def step(number):
    loss = number * 2
    return loss

number = 0
while not os.path.exists("stop"):
    step(number)
    number += 1
    time.sleep(0.002)
print("ended", flush=True)
"""
STEP = 5


class Ground:
    """A job, an agent's part of it, and a client's stub."""

    def __init__(self, job: HookedJob, manager: DebugManager, channel: grpc.aio.Channel) -> None:
        self.job = job
        self.manager = manager
        self.channel = channel
        self.stub = DebugServiceStub(channel)

    def client(self, pipe: CallPipe) -> AbstractAsyncContextManager[DebugClient]:
        """A client on an open pipe."""
        return debugging(pipe, pipe.notices.append)

    async def hit(self, client: DebugClient) -> Stopped:
        await client.attach([Breakpoint(str(self.job.folder / "train.py"), STEP)])
        async with asyncio.timeout(20):
            stop = await client.halted()
        assert isinstance(stop, Stopped)
        return stop


@pytest.fixture
async def ground(tmp_path):
    async with (
        hooked_job(tmp_path, TRAIN) as job,
        DebugManager(job, grace=0.5) as manager,
        served(manager, tmp_path) as channel,
    ):
        yield Ground(job, manager, channel)


async def value(client: DebugClient, expression: str) -> str:
    frame = (await client.stack(1))[0]
    return (await client.evaluate(expression, frame)).value


async def test_after_a_break_the_same_stop_goes_on_where_the_bytes_stopped(ground):
    pipe = CallPipe(ground.stub)
    await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        number = await value(client, "number")
        for _ in range(3):
            pipe.tear()
            # An answer that the client has not read, and a request that it does not know to have
            # come: both are on their way when the call breaks.
            await pipe.open()
            asking = asyncio.create_task(value(client, "number"))
            await asyncio.sleep(0)
            assert await asking == number
        await client.resume("next", 1)
        assert isinstance(await client.halted(), Stopped)
        assert ground.job.count("debug_attached") == 1
        await client.detach()
    assert await ground.job.end() == "ended\n"


def inherited(opened: pb.DebugOpened) -> Inherited:
    taken = opened.taken_over
    return Inherited(taken.first_sequence, tuple(taken.files), is_held=taken.held)


async def test_a_new_client_goes_on_at_the_stop_of_one_that_is_gone(ground):
    terms = {"owner": "ada@laptop", "takes_over": True}
    file = str(ground.job.folder / "train.py")
    former = CallPipe(ground.stub)
    await former.open(**terms, client_pid=4711)
    async with ground.client(former) as client:
        stop = await ground.hit(client)
        number = await value(client, "number")
        with pytest.raises(DebuggerBusy, match=r"@laptop \(process 4711 there\) is attached") as no:
            await CallPipe(ground.stub).open(**terms)
        assert "`kill -HUP 4711` there" in no.value.hint
        former.tear()
        pipe = CallPipe(ground.stub)
        opened = await pipe.open(**terms, lease=Duration(seconds=500))
        assert (list(opened.taken_over.files), opened.taken_over.held) == ([file], True)
        with pytest.raises(DebugSessionLost, match="ada@laptop has taken it over since"):
            await former.open(**terms)
        async with debugging(pipe, inherited=inherited(opened)) as second:
            [placed] = await second.attach([Breakpoint(file, STEP - 1)])
            assert placed.verified
            async with asyncio.timeout(20):
                assert await second.halted() == stop
                assert await value(second, "number") == number
                await ground.job.event("debug_renewed")
                assert ground.job.events[-1]["lease"] == 500.0
                # The other one's breakpoint is gone: its line is passed by.
                for _ in range(2):
                    await second.resume("continue", stop.thread)
                    assert isinstance(await second.halted(), Stopped)
                    frame = (await second.stack(stop.thread))[0]
                    assert frame.line == STEP - 1
                assert int(await value(second, "number")) == int(number) + 2
            assert ground.job.count("debug_attached") == 1
            await second.detach()
    assert await ground.job.end() == "ended\n"


async def test_the_end_of_a_call_that_was_replaced_is_not_the_sessions(ground):
    pipe = CallPipe(ground.stub)
    opened = await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        session = ground.manager.find(opened.session_id, JOB, 0)
        former, current = session.join(session.received), session.join(session.received)

        async def ends(*last: pb.AttachDebuggerRequest):
            for request in last:
                yield request

        await _feed(session, former, ends())
        await _feed(session, former, ends(pb.AttachDebuggerRequest(close=pb.DebugClose())))
        assert session.over is None
        await _feed(session, current, ends())
        assert session.over is Over.LEFT
    assert await ground.job.end() == "ended\n"


async def test_a_rank_that_does_not_know_what_is_waited_for_is_named_with_the_cause(ground):
    job = replace(await ground.job.get(JOB), ranks=2)
    stops = DebugStart(on_exception=True)
    told = await set_stops(ground.job, job, stops, rank=None, token="a")
    assert (set(told.steps), dict(told.silent)) == ({0}, {1: "no process of it has the debug hook"})
    lines: list[str] = []
    expecting.tell_silent(pb.SetStopsResponse(silent=told.silent), lines.append)
    assert lines == ["rank 1 is not told yet: no process of it has the debug hook"]
    with pytest.raises(DebuggerUnavailable, match="no process of it has the debug hook"):
        await set_stops(ground.job, job, stops, rank=1, token="a")
    assert await ground.job.end() == "ended\n"


async def test_what_is_waited_for_is_asked_again_and_again_so_that_nobody_waits_for_the_dead(
    ground, monkeypatch
):
    monkeypatch.setattr(expecting, "_AGAIN_SECONDS", 0.01)
    connection, job = cast("Connection", ground), await ground.job.get(JOB)
    wanted = expecting.Expected(DebugStart(on_nan=True))
    async with expecting.asked_again(connection, job, wanted, "a"), asyncio.timeout(20):
        while len(ground.job.orders) < 3:
            await asyncio.sleep(0.01)
    assert {(order["token"], order["nan"]) for order in ground.job.orders} == {("a", True)}
    assert all(60 < order["kept"] < 600 for order in ground.job.orders)
    assert await ground.job.end() == "ended\n"


async def test_what_is_asked_after_the_lease_is_told_why_it_is_too_late(ground):
    pipe = CallPipe(ground.stub)
    await pipe.open(lease=Duration(seconds=1))
    async with ground.client(pipe) as client:
        await ground.hit(client)
        await ground.job.event("debug_resumed")
        with pytest.raises(DebuggerUnavailable, match="nothing was asked of the debugger for 1 s"):
            await client.resume("next", 1)
    assert await ground.job.end() == "ended\n"


async def test_a_client_that_was_killed_before_it_had_attached_is_replaced(ground):
    terms = {"owner": "ada@laptop", "takes_over": True}
    former = CallPipe(ground.stub)
    await former.open(**terms)
    former.tear()
    pipe = CallPipe(ground.stub)
    assert not (await pipe.open(**terms)).HasField("taken_over")
    async with ground.client(pipe) as client:
        await ground.hit(client)
        await client.detach()
    assert await ground.job.end() == "ended\n"


async def test_what_was_not_received_is_sent_again_to_the_byte(ground):
    pipe = CallPipe(ground.stub)
    pipe.acknowledges = False
    await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        total = pipe.received
        pipe.tear()
        for received in (total // 2, total - 1, total):
            again = CallPipe(ground.stub)
            again.received = received
            await again.open(session_id=pipe.opened.session_id)
            while again.received < total:
                await again.receive()
            assert again.stream == pipe.stream[received:]
            again.tear()
        with pytest.raises(DebugSessionLost, match="cannot have been received"):
            await CallPipe(ground.stub).open(
                session_id=pipe.opened.session_id, received=total + 10_000_000
            )
        await pipe.open()
        await client.detach()
    await ground.job.end()


@pytest.mark.parametrize("way", ["close", "half-close"])
async def test_who_leaves_is_detached_at_once(ground, way):
    pipe = CallPipe(ground.stub)
    await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        begun = time.monotonic()
        if way == "close":
            await pipe.write(close=pb.DebugClose())
        else:
            await pipe.call.done_writing()
        resumed = await ground.job.event("debug_resumed")
        assert resumed["cause"] == "detached"
        async with asyncio.timeout(40):
            await client.over()
        assert time.monotonic() - begun < 20.0  # and not after its grace
    assert adapters() == []
    assert await ground.job.end() == "ended\n"


async def test_who_does_not_return_to_a_running_job_loses_the_session_and_is_told(ground):
    pipe = CallPipe(ground.stub)
    await pipe.open()
    async with ground.client(pipe) as client:
        await client.attach([])
        pipe.tear()
        await ground.job.event("debug_detached")  # after the grace of half a second
        await pipe.open()
        async with asyncio.timeout(40):
            await client.over()
        assert adapters() == []
        assert any("nobody returned to it; the job goes on" in line for line in pipe.notices)
    with pytest.raises(DebugSessionLost, match="the agent was restarted"):
        await CallPipe(ground.stub).open(session_id="0" * 32)
    await ground.job.end()


async def test_a_stop_waits_for_its_client_longer_than_the_grace_until_its_lease_ends(ground):
    pipe = CallPipe(ground.stub)
    await pipe.open(lease=Duration(seconds=2))
    async with ground.client(pipe) as client:
        await ground.hit(client)
        began = time.monotonic()
        pipe.tear()
        resumed = await ground.job.event("debug_resumed")
        assert resumed["cause"] == "lease"
        assert 1.0 < time.monotonic() - began < 10.0
        await pipe.open()
        async with asyncio.timeout(40):
            await client.over()
        assert any("nothing was asked of the debugger for 2 s" in line for line in pipe.notices)
    await ground.job.end()


@pytest.mark.slow
async def test_what_the_client_asks_renews_the_lease_and_its_silence_is_warned_of(ground):
    pipe = CallPipe(ground.stub)
    opened = await pipe.open(lease=Duration(seconds=2))
    assert (opened.lease.seconds, opened.grace.ToMilliseconds()) == (2, 500)
    async with ground.client(pipe) as client:
        await ground.hit(client)
        began = time.monotonic()
        while time.monotonic() - began < 3.0:
            await value(client, "number")
            await asyncio.sleep(0.1)
        assert ground.job.count("debug_resumed") == 0
        assert ground.job.count("debug_renewed") <= 8, "no more than one each quarter of a lease"
        async with asyncio.timeout(40):
            ended = await client.over()
        assert ended.cause.startswith("nothing was asked of the debugger for ")
        assert (await ground.job.event("debug_resumed"))["cause"] == "lease"
    told = [line for line in pipe.notices if "by itself" in line or "nothing was asked" in line]
    assert "goes on by itself in" in told[0]
    assert "nothing was asked of the debugger for 2 s" in told[1]
    assert await ground.job.end() == "ended\n"


async def test_a_second_client_is_refused_at_once_with_the_name_of_the_first(ground):
    first, second = CallPipe(ground.stub), CallPipe(ground.stub)
    await first.open(owner="ada@laptop")
    async with ground.client(first) as client:
        await ground.hit(client)
        began = time.monotonic()
        with pytest.raises(DebuggerBusy, match=r"ada@laptop is attached to it, since [0-9]+ s"):
            await second.open(owner="bob@desk")
        assert time.monotonic() - began < 0.25
        first.tear()
        await asyncio.sleep(0.1)  # the agent hears of it
        with pytest.raises(
            DebuggerBusy, match=r"lost the connection [0-9]+ s ago; it is kept until its"
        ):
            await second.open(owner="bob@desk")
        # Whoever lost it may begin anew, as after a crash of the laptop.
        await second.open(owner="ada@laptop")
        assert (await ground.job.event("debug_resumed"))["cause"] == "detached"
        async with ground.client(second) as anew:
            await ground.hit(anew)
            await anew.detach()
    await ground.job.end()


@pytest.mark.slow
async def test_a_client_that_does_not_read_holds_up_its_debugger_and_no_more(ground):
    pipe = CallPipe(ground.stub)
    pipe.acknowledges = False
    await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        frame = (await client.stack(1))[0]
        asked = {"frameId": frame.id, "context": "clipboard"}
        answers = [
            asyncio.create_task(
                client.request("evaluate", {**asked, "expression": f"'{letter}' * 3_000_000"})
            )
            for letter in "abcd"
        ]
        _, waiting = await asyncio.wait(answers, timeout=2.0)
        assert waiting, "what is kept for a client has a bound"
        assert 4 << 20 <= pipe.received < 8 << 20
        pipe.acknowledges = True
        await pipe.acknowledge()
        await asyncio.wait(answers)
        assert [len(answer.result()["result"]) for answer in answers] == [3_000_002] * 4
        await client.detach()
    await ground.job.end()


async def test_there_is_no_such_rank(ground):
    with pytest.raises(InvalidRequest, match="it has only rank 0"):
        await CallPipe(ground.stub).open(rank=4)


async def test_no_disk_for_the_adapters_log_is_told(ground):
    (ground.job.folder / "debug").write_text("in the way")
    with pytest.raises(DebuggerUnavailable, match="unable to start the debug adapter: "):
        await CallPipe(ground.stub).open()
    (ground.job.folder / "debug").unlink()
    pipe = CallPipe(ground.stub)
    await pipe.open()  # nothing is left of the failure
    pipe.tear()
    await ground.job.end()


async def test_stacks_and_values_are_told_of_a_held_and_of_a_running_process(ground):
    asked = pb.GetStacksRequest(job_id=JOB)
    running = (await ground.stub.GetStacks(asked)).processes
    assert [p.source for p in running] == ["hook"]
    assert "train.py" in running[0].title
    assert running[0].threads[0].name == "MainThread"
    assert not running[0].threads[0].paused
    compared = pb.CompareRanksRequest(job_id=JOB, expression="loss == number * 2", function="step")
    pipe = CallPipe(ground.stub)
    await pipe.open()
    async with ground.client(pipe) as client:
        await ground.hit(client)
        [held] = (await ground.stub.GetStacks(asked)).processes
        assert held.threads[0].paused
        frame = held.threads[0].frames[0]
        assert (frame.function, frame.line) == ("step", STEP)
        assert frame.file == str(ground.job.folder / "train.py")
        [value] = (await ground.stub.CompareRanks(compared)).values
        assert (value.rank, value.value, value.cause) == (0, "True", "")
        assert value.place.endswith(f"train.py:{STEP} in step")
        compared.expression = "no_such_name"
        [value] = (await ground.stub.CompareRanks(compared)).values
        assert "NameError" in value.cause
        await client.detach()
    await ground.job.end()


@pytest.mark.slow
async def test_native_frames_that_cannot_be_had_are_said_beside_those_that_can(ground):
    if shutil.which("py-spy"):
        pytest.skip("py-spy is here")
    asked = pb.GetStacksRequest(job_id=JOB, native=True)
    [told] = (await ground.stub.GetStacks(asked)).processes
    assert told.threads[0].name == "MainThread"
    assert told.title.endswith("(no native frames: py-spy is not on the host)")
    await ground.job.end()


# It keeps the interpreter's lock for as long as `stop` is not there: no thread of Python's runs.
BUSY = """\
import ctypes, os, time
while not os.path.exists("go"):
    time.sleep(0.01)
open("busy", "w").close()
ctypes.PyDLL(None).usleep(6_000_000)
while not os.path.exists("stop"):
    time.sleep(0.01)
"""


@pytest.mark.slow
async def test_who_waits_for_a_process_that_is_busy_in_c_is_told_so(tmp_path):
    async with (
        hooked_job(tmp_path, BUSY) as job,
        DebugManager(job) as manager,
        served(manager, tmp_path) as channel,
    ):
        (tmp_path / "go").touch()
        async with asyncio.timeout(20):
            while not (tmp_path / "busy").exists():
                await asyncio.sleep(0.01)
        stub = DebugServiceStub(channel)
        [told] = (await stub.GetStacks(pb.GetStacksRequest(job_id=JOB))).processes
        assert told.cause.startswith("it does not answer, as in a long call of C code; ")
        pipe = CallPipe(stub)
        await pipe.open()  # once it is through
        assert pipe.notices[0] == (
            "the process does not answer yet: it is busy in C code, or its machine is"
        )
        pipe.tear()
        await job.end()
