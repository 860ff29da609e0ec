"""One rank of a distributed job is stopped for longer than any timeout: real gloo, real debugpy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.support.distributed import STEP, TRAIN
from tests.support.hooked import SessionPipe
from tests.support.jobs import DEADLINE, Jobs, jobs_in, tidy

from rdev.agent.debug.manager import DebugManager
from rdev.agent.debug.ranks import Ranks
from rdev.agent.jobs.resolve import Surroundings
from rdev.client.debug.session import Breakpoint, DebugClient, Stopped, debugging
from rdev.hook import PLANT
from rdev.protocol.errors import RdevError
from rdev.wire.job import JobState


@pytest.fixture
async def jobs(tmp_path):
    login = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    async with (
        tidy(tmp_path / "jobs") as folder,
        jobs_in(folder, surroundings=Surroundings(login, 0o022, PLANT)) as jobs,
    ):
        yield jobs


class Training:
    """A distributed job that trains until it is told to stop."""

    def __init__(self, jobs: Jobs, folder: Path) -> None:
        self.jobs = jobs
        self.folder = folder
        self.id = ""

    async def start(self, ranks: int, seconds: float, source: str = TRAIN) -> None:
        script = self.folder / "train.py"
        script.write_text(source)
        arguments = (str(script), str(seconds), str(self.folder))
        self.job = await self.jobs.start(sys.executable, *arguments, processes=ranks)
        self.id = self.job.id

    def tell(self, word: str) -> None:
        (self.folder / word).touch()

    async def told(self, word: str) -> None:
        """Waits until the job has made that file."""
        async with asyncio.timeout(DEADLINE):
            while not (self.folder / word).exists():
                assert not (await self.jobs.manager.get(self.id)).state.is_final, self.printed()
                await asyncio.sleep(0.02)

    def events(self, kind: str) -> list[dict]:
        lines = Path(self.jobs.files(self.job).events).read_bytes().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    async def await_events(self, kind: str, count: int) -> list[dict]:
        async with asyncio.timeout(DEADLINE):
            while len(found := self.events(kind)) < count:
                await asyncio.sleep(0.02)
        return found

    async def waits(self, rank: int) -> None:
        """Returns once a rank waits for others in the step, and not in passing."""
        before = None
        async with asyncio.timeout(DEADLINE):
            while True:
                now = (await everybody(self, "progress"))[rank]
                if now["waiting"] == "all_reduce" and now == before:
                    return
                before = now | {"stuck": 0.0}
                await asyncio.sleep(0.2)

    async def messages(self, condition) -> None:
        """Returns once the job says so of itself."""
        async with asyncio.timeout(DEADLINE):
            async for job in self.jobs.manager.watch(self.id):
                if condition(job.message):
                    return

    def printed(self) -> list[str]:
        lines: list[str] = []
        for path in Path(self.jobs.files(self.job).directory, "logs").glob("*.std[oe][ur][tr]"):
            lines += path.read_text(errors="replace").splitlines()
        return lines

    async def finish(self) -> list[str]:
        """What the ranks printed once they were told to stop."""
        self.tell("stop")
        ended = await self.jobs.end(self.job)
        assert ended.state is JobState.SUCCEEDED, self.printed()
        return sorted(line for line in self.printed() if line.startswith("rank "))


@pytest.fixture
async def training(jobs, tmp_path):
    return Training(jobs, tmp_path)


async def nothing() -> None:
    """What is done first, usually."""


async def lets_in(training: Training) -> None:
    """Lets a training that waits go on."""
    training.tell("back")


@asynccontextmanager
async def stopped(
    training: Training, manager: DebugManager, rank: int, first=nothing
) -> AsyncIterator[DebugClient]:
    """One rank is held at the breakpoint for as long as the block runs."""
    async with (
        manager.session(training.id, rank) as session,
        debugging(SessionPipe(session)) as client,
    ):
        await first()
        [placed] = await client.attach([Breakpoint(str(training.folder / "train.py"), STEP)])
        assert placed.verified
        async with asyncio.timeout(DEADLINE):
            assert isinstance(await client.halted(), Stopped)
        yield client
        await client.detach()


def unharmed(ranks: int) -> list[str]:
    return [f"rank {rank} right True" for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "timeout", "stop"),
    [
        (2, 1.5, 4.0),
        pytest.param(2, 4.0, 12.0, marks=pytest.mark.slow),
        pytest.param(4, 4.0, 12.0, marks=pytest.mark.slow),
    ],
)
async def test_a_stop_of_one_rank_outlasts_every_timeout_and_all_finish(
    training, ranks, timeout, stop
):
    await training.start(ranks, timeout)
    await training.told("trains")
    async with DebugManager(training.jobs.manager) as manager:
        async with stopped(training, manager, ranks - 1):
            await asyncio.sleep(stop)  # the length of the stop is what is tested
        assert await training.finish() == unharmed(ranks)
    armed, disarmed = training.events("debug_armed"), training.events("debug_disarmed")
    assert {event["rank"] for event in armed} == {event["rank"] for event in disarmed}
    assert {event["rank"] for event in armed} == set(range(ranks))
    assert training.events("hang_suspected") == []
    [resumed] = training.events("debug_resumed")
    assert resumed["seconds"] > stop - 1


@pytest.mark.slow
async def test_a_real_hang_is_told_in_the_old_time_and_by_whom_it_is_waited_for(training):
    await training.start(2, 1.5)
    await training.told("trains")
    async with DebugManager(training.jobs.manager) as manager, manager.session(training.id, 0):
        training.tell("hang-0")
        async with asyncio.timeout(1.5 + 8.5):  # a busy machine takes its time, a hang for ever
            while 1 not in (told := {e["rank"]: e for e in training.events("hang_suspected")}):
                await asyncio.sleep(0.05)
        mark = "rank 1 makes no progress since 2 s: train.py:22 in step, waiting in all_reduce"
        await training.messages(lambda message: message == mark)
        training.tell("back")
        await training.messages(lambda message: message == "")
    assert told[1]["waiting"] == "all_reduce"
    assert told[1]["file"] == str(training.folder / "train.py")
    assert told[1]["function"] == "step"
    assert 1.5 <= told[1]["seconds"] < 4.0
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_without_arming_the_same_stop_ends_the_job(training):
    await training.start(2, 1.5)
    await training.told("trains")
    async with DebugManager(training.jobs.manager) as manager:
        with contextlib.suppress(RdevError):
            async with stopped(training, manager, 1, first=partial(everybody, training, "disarm")):
                await training.jobs.end(training.job)
    assert (await training.jobs.end(training.job)).state is JobState.FAILED
    assert any("Timed out waiting 1500ms" in line for line in training.printed())


async def everybody(training: Training, name: str, **args) -> dict[int, dict]:
    """Sends a command to every rank's hook; the answers by rank."""
    manager = training.jobs.manager
    peers = [peer for peer in await manager.peers(training.id) if "train.py" in peer["script"]]
    return {
        peer["rank"]: await manager.command(
            training.id, "hook", peer["rank"], name, args, pid=peer["pid"]
        )
        for peer in peers
    }


@pytest.mark.slow
async def test_nobody_who_renews_means_that_the_process_restores_by_itself(training):
    await training.start(2, 3.0)
    await training.told("trains")
    armed = await everybody(training, "arm", seconds=100.0, renew=0.5)
    assert armed[0]["armed"] == 100.0
    assert (armed[0]["shortest"], armed[0]["longest"]) == (3.0, 4.0)
    assert len(armed[1]["groups"]) == 3
    await training.await_events("debug_disarmed", 2)
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_an_agent_that_comes_after_a_dead_one_takes_over_what_it_armed(training):
    await training.start(2, 3.0)
    await training.told("trains")
    await everybody(training, "arm", seconds=100.0)
    async with DebugManager(training.jobs.manager) as manager:
        async with stopped(training, manager, 0):
            assert (await everybody(training, "arm", seconds=200.0))[1]["shortest"] == 3.0
        assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_a_rank_that_trains_alone_for_a_while_is_waited_for_and_named(training):
    await training.start(2, 30.0)
    await training.told("trains")
    training.tell("hang-1")
    await training.waits(0)
    lines: list[str] = []
    async with ranks_of(training) as ranks:
        joining = asyncio.create_task(ranks.join(training.id, notice=lines.append))
        async with asyncio.timeout(DEADLINE):
            while not lines:
                await asyncio.sleep(0.05)
        assert lines[0].startswith("waiting for a step boundary on rank 1 since")
        assert ranks.lease(training.id, 900.0) == 29.0
        training.tell("back")
        assert (await joining).warnings == ()
        assert ranks.lease(training.id, 900.0) == 900.0
        assert ranks.lease(training.id, 9000.0) == 3600.0
        await ranks.leave(training.id)
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_who_leaves_while_ranks_are_waited_for_leaves_nothing_behind(training):
    await training.start(2, 30.0)
    await training.told("trains")
    training.tell("hang-1")
    await training.waits(0)
    async with ranks_of(training) as ranks:
        joining = asyncio.create_task(ranks.join(training.id))
        await training.await_events("debug_armed", 2)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        await training.await_events("debug_disarmed", 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ranks.join(training.id)
        hurry = await ranks.join(training.id, unsafe=True)
        assert "a collective may be in flight whose timeout is 30 s" in hurry.warnings[0]
        await ranks.leave(training.id)
        training.tell("back")
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_ranks_that_validate_without_collectives_are_not_waited_for(training):
    await training.start(2, 30.0)
    await training.told("trains")
    training.tell("hang-0")
    training.tell("hang-1")
    async with asyncio.timeout(DEADLINE):
        while any((training.folder / f"hang-{rank}").exists() for rank in (0, 1)):
            await asyncio.sleep(0.02)
    async with ranks_of(training) as ranks, asyncio.timeout(40):
        assert (await ranks.join(training.id)).warnings == ()
        training.tell("back")
        await ranks.leave(training.id)
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_groups_that_are_made_after_the_attach_are_armed_too(training):
    training.tell("late")
    await training.start(2, 3.0)
    async with DebugManager(training.jobs.manager) as manager:
        while len(await everybody(training, "progress")) < 2:
            await asyncio.sleep(0.05)
        async with stopped(training, manager, 1, first=partial(lets_in, training)):
            await asyncio.sleep(6.0)  # the length of the stop is what is tested
        assert await training.finish() == unharmed(2)
    assert training.events("debug_disarmed")[-1]["groups"] == 3


@pytest.mark.slow
async def test_two_debuggers_and_the_first_to_leave_disarms_nothing(training):
    await training.start(2, 1.5)
    await training.told("trains")
    async with DebugManager(training.jobs.manager) as manager:
        async with stopped(training, manager, 1):
            async with manager.session(training.id, 0):
                pass
            assert training.events("debug_disarmed") == []
            await asyncio.sleep(4.0)  # the length of the stop is what is tested
        assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_a_rank_that_dies_while_it_is_armed_ends_the_attach_with_the_job(training):
    await training.start(2, 30.0)
    await training.told("trains")
    training.tell("hang-1")
    await training.waits(0)
    [victim] = [p["pid"] for p in await training.jobs.manager.peers(training.id) if p["rank"] == 1]
    async with ranks_of(training) as ranks:
        joining = asyncio.create_task(ranks.join(training.id))
        await training.await_events("debug_armed", 2)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RdevError):
            async with asyncio.timeout(DEADLINE):
                await joining
    assert (await training.jobs.end(training.job)).state is JobState.FAILED


@pytest.mark.slow
async def test_an_expression_in_a_rank_that_runs_and_in_one_that_is_held(training):
    await training.start(2, 30.0)
    await training.told("trains")
    async with DebugManager(training.jobs.manager) as manager, stopped(training, manager, 1):
        await training.waits(0)
        shown = await everybody(training, "evaluate", expression="gradient", function="step")
        for rank in (0, 1):
            assert shown[rank]["place"].endswith(" in step")
            assert shown[rank]["value"].startswith("Tensor (4,) float32 cpu")
        both = await everybody(training, "evaluate", expression="[number + x for x in (0,)][0]")
        assert both[0]["value"] == both[1]["value"]
        with pytest.raises(RdevError, match="NameError: name 'nonsense' is not defined"):
            await everybody(training, "evaluate", expression="nonsense")
        with pytest.raises(RdevError, match="not in dance"):
            await everybody(training, "evaluate", expression="1", function="dance")
        with pytest.raises(RdevError, match="longer than 2 s"):
            await everybody(training, "evaluate", expression="time.sleep(3)")
    assert await training.finish() == unharmed(2)


@asynccontextmanager
async def ranks_of(training: Training) -> AsyncIterator[Ranks]:
    async with asyncio.TaskGroup() as group:
        yield Ranks(training.jobs.manager, group.create_task)


@pytest.mark.slow
async def test_a_breakpoint_that_nobody_attends_goes_on_before_the_others_give_up(training):
    await training.start(2, 3.0)
    await training.told("trains")
    training.tell("break-1")
    [paused] = await training.await_events("debug_paused", 1)
    assert (paused["lease"], paused["unattended"]) == (2.0, True)
    [resumed] = await training.await_events("debug_resumed", 1)
    assert resumed["cause"] == "unattended"
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_who_comes_to_a_rank_that_waits_has_as_long_as_the_others_still_wait(training):
    await training.start(2, 15.0)
    await training.told("trains")
    training.tell("break-1")
    [paused] = await training.await_events("debug_paused", 1)
    await training.waits(0)
    async with ranks_of(training) as ranks:
        arming = await ranks.join(training.id)
        assert "a collective may be in flight whose timeout is 15 s" in arming.warnings[0]
        left = paused["time"] + 14.0 - time.time()
        assert ranks.lease(training.id, 900.0) == pytest.approx(left, abs=0.5)
        await ranks.leave(training.id)
    await training.await_events("debug_resumed", 1)
    assert await training.finish() == unharmed(2)


@pytest.mark.slow
async def test_whoever_steps_at_a_stop_that_others_wait_for_gains_no_time_by_it(training):
    await training.start(2, 20.0)
    await training.told("trains")
    training.tell("break-1")
    [paused] = await training.await_events("debug_paused", 1)
    await training.waits(0)
    async with (
        DebugManager(training.jobs.manager) as manager,
        manager.session(training.id, 1) as session,
        debugging(SessionPipe(session)) as client,
    ):
        await client.attach([])
        async with asyncio.timeout(DEADLINE):
            stop = await client.halted()
            for _ in range(2):
                await client.resume("next", stop.thread)
                stop = await client.halted()
                known = len(training.events("debug_renewed"))
                while len(training.events("debug_renewed")) == known:  # by what is asked for
                    frame, *_ = await client.stack(stop.thread)
                    await client.evaluate("number", frame)
                    await asyncio.sleep(0.1)
            while "lease" not in [event["cause"] for event in training.events("debug_resumed")]:
                await asyncio.sleep(0.05)
        assert time.time() < paused["time"] + 20.0
    assert await training.finish() == unharmed(2)
