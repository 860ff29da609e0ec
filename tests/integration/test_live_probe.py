"""The live probe in real jobs: scripts nobody prepared, armed through the hook, under a supervisor."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.jobs import DEADLINE, jobs_in, tidy
from tests.support.probed import PLAIN, probed

from rdev.agent.control.manager import ControlManager, Order
from rdev.agent.jobs.resolve import Surroundings
from rdev.hook import PLANT
from rdev.protocol.errors import TimedOut
from rdev.wire.control import Verb

pytest.importorskip("torch")


def printed(lines):
    """Loss and rate by the script's own number of the step."""
    found = [line.split() for line in lines if line[0].isdigit()]
    return {int(number): (float(loss), float(rate)) for number, loss, rate in found}


def weights(lines):
    return [line for line in lines if line.startswith("weights")]


@pytest.mark.slow
async def test_a_running_script_is_watched_held_stepped_and_edited(tmp_path):
    async with probed(tmp_path, PLAIN, "100000") as script:
        answer = await script.arm()
        assert (answer["armed"], answer["kind"]) == (True, "probe")
        assert (await script.of_kind("probe_armed"))["kind"] == "probe_armed"
        begun = await script.step(5)

        paused = await script.ask("pause")
        assert paused["step"] >= begun
        where = await script.loop("where")
        assert (where["stage"], where["kind"], where["step"]) == ("paused", "probe", paused["step"])
        lines = await script.lines()
        own = max(printed(lines))  # the script's own number of the last step that it has printed
        state = (await script.ask("state"))["answer"]
        assert state["step"] == paused["step"]

        await script.ask("step", steps=2)
        paused_again = await script.event(
            lambda event: event["kind"] == "loop_paused" and event["step"] == paused["step"] + 2
        )
        assert max(printed(await script.lines())) == own + 2
        assert paused_again["step"] == paused["step"] + 2

        edited = (await script.ask("set", path="lr", value=1e-6))["answer"]
        assert edited["after"] == pytest.approx(1e-6)
        await script.ask("resume")
        reached = await script.step(paused["step"] + 20)

        await script.ask("pause", when=f"step >= {reached + 20}")
        held = await script.event(
            lambda event: event["kind"] == "loop_paused" and event["step"] >= reached + 20
        )
        assert held["step"] <= reached + 22
        rates = printed(await script.lines())
        later = [rate for number, (_, rate) in rates.items() if number > own + 4]
        assert later
        assert max(later) < 1.01e-6  # the scheduler multiplies it, and keeps it

        assert (await script.disarm())["armed"] is False
        await script.of_kind("probe_disarmed")
        before = max(printed(await script.lines()))
        await script.until(lambda lines: max(printed(lines)) > before + 5)  # it has gone on
        lines = await script.end()

        # The loss that was told for a step is the one that the script printed for it.
        shift = own + 1 - paused["step"] if own + 1 in printed(lines) else 0
        told = {
            event["step"]: event["values"]["loss"]
            for event in script.events("metric")
            if "loss" in event["values"]
        }
        assert len(told) > 2
        own_losses = printed(lines)
        assert {n: own_losses[n + shift][0] for n in told} == pytest.approx(told)


@pytest.mark.slow
async def test_a_script_is_saved_gets_another_loss_and_is_stopped(tmp_path):
    async with probed(tmp_path, PLAIN, "100000") as script:
        await script.arm()
        held = await script.ask("pause")
        state = (await script.ask("state"))["answer"]
        assert set(state["objects"]) == {"model", "optimizer", "scheduler"}
        assert (state["step"], list(state["lr"])) == (held["step"], ["optimizer"])

        path = tmp_path / "now"
        saved = await script.ask("checkpoint", path=str(path))
        assert (saved["step"], saved["answer"]["path"]) == (held["step"], str(path))
        assert path.exists()

        file = script.folder / "train.py"
        file.write_text(file.read_text().replace(".square().mean()", ".square().mean() + 1000.0"))
        reloaded = await script.ask("reload", module="__main__")
        assert reloaded["answer"]["changed"], reloaded
        stepped = await script.ask("step", steps=2)
        assert stepped["step"] == held["step"] + 2
        after = (await script.ask("state"))["answer"]
        assert 1000.0 < after["loss"] < 1100.0
        await script.ask("resume")
        stopped = await script.ask("stop")
        ended = await script.jobs.end(script.job)
        assert ended.exit_code == 0
        lines = await script.lines()
        assert not weights(lines), "what comes after the loop is not done"
        run_ended = await script.of_kind("run_ended")
        assert (run_ended["step"], run_ended["error"]) == (stopped["step"] + 1, None)


@pytest.mark.slow
async def test_who_was_watched_held_and_saved_ends_with_the_weights_of_who_was_not(tmp_path):
    (tmp_path / "alone.py").write_text(PLAIN)
    command = [sys.executable, str(tmp_path / "alone.py"), "1500"]
    alone = await asyncio.to_thread(subprocess.check_output, command, text=True)
    async with probed(tmp_path, PLAIN, "1500") as script:
        for _ in range(50):
            assert (await script.arm())["armed"]
            await script.step(2)
            await script.disarm()
        await script.arm()
        for _ in range(3):
            await script.ask("pause")
            await script.ask("state")
            await script.ask("step", steps=2)
            await script.ask("checkpoint", path=str(tmp_path / "now"))
            await script.ask("resume")
        assert (await script.jobs.end(script.job)).exit_code == 0
        lines = await script.lines()
    assert weights(lines) == weights(alone.splitlines())
    assert printed(lines) == printed(alone.splitlines())
    assert len(printed(lines)) == 1500


TRACKED = """
import time
from rdev.loop import track
for batch in track(range(6000)):
    print("up", flush=True)
    time.sleep(0.01)
"""
REFUSED = {
    "numpy": ("import numpy, time\nprint('up', flush=True)\ntime.sleep(60)", "torch is not loaded"),
    "loop": (TRACKED, "its steps are counted already, by 'track'"),
}


OWN = """
import os
import time

here = os.path.dirname(__file__)
os.mkdir(os.path.join(here, "rdev"))
with open(os.path.join(here, "rdev", "__init__.py"), "w") as file:
    file.write("print('executed', flush=True)\\nloop = 'own'")
print("up", flush=True)
while not os.path.exists(os.path.join(here, "stop")):
    time.sleep(0.01)
import rdev
print(rdev.loop, flush=True)
"""


async def test_a_package_of_the_users_that_is_called_rdev_is_neither_executed_nor_changed(tmp_path):
    async with probed(tmp_path, OWN) as script:
        assert "torch is not loaded" in (await script.arm())["refused"]  # so the probe was loaded
        assert await script.lines() == ["up"]
        assert await script.end() == ["up", "executed", "own"]


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_be_watched_is_refused_plainly(kind, tmp_path):
    source, cause = REFUSED[kind]
    async with probed(tmp_path, source) as script:
        answer = await script.arm()
        assert answer["armed"] is False
        assert cause in answer["refused"]


RANKS = """\
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(0)
rank = dist.get_rank()
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
number = 0
while True:
    number += 1
    optimizer.zero_grad()
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
    with open(f"{__file__}.{rank}", "w") as file:
        file.write(str(number))
    print(number, flush=True)
    time.sleep(0.005 if rank else 0.001)
"""


@pytest.mark.slow
async def test_ranks_that_are_armed_one_after_another_are_held_after_the_same_step(tmp_path):
    around = Surroundings(dict(os.environ), 0o022, PLANT)
    (tmp_path / "train.py").write_text(RANKS)
    async with tidy(tmp_path / "jobs") as place, jobs_in(place, surroundings=around) as jobs:
        job = await jobs.start(sys.executable, str(tmp_path / "train.py"), processes=2)
        await jobs.first_bytes(job)
        control = ControlManager(jobs.manager, jobs.inotify)

        def own(rank):
            """The script's own number of the last step whose end it has seen."""
            return int((tmp_path / f"train.py.{rank}").read_text())

        orders = (
            Order(job.id, "first", Verb.PAUSE),
            Order(job.id, "more", Verb.STEP, {"steps": 3}),
            Order(job.id, "on", Verb.RESUME),
            Order(job.id, "again", Verb.PAUSE),
        )
        for order in orders:
            outcomes = await control.control(order)
            assert [outcome.cause for outcome in outcomes] == ["", ""]
            assert len({outcome.step for outcome in outcomes}) == 1
            if order.verb is not Verb.RESUME:
                assert own(0) == own(1), outcomes
        assert await control.set_probe(job.id, armed=False) == [0, 1]


# A loop of its own, which each rank begins when it is told to.
BEGINS = """
import os, time
import torch
import torch.distributed as dist
from rdev.loop import Loop
dist.init_process_group("gloo")
torch.set_num_threads(1)
rank = dist.get_rank()
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def step(state):
    optimizer.step()
    dist.all_reduce(torch.ones(1))
    time.sleep(0.005)

open(f"{__file__}.ready-{rank}", "w").close()
while not os.path.exists(f"{__file__}.go-{rank}"):
    time.sleep(0.01)
Loop(step, range(10**6)).run()
"""


@pytest.mark.slow
async def test_a_rank_that_has_not_begun_its_own_loop_is_waited_for_also_if_it_is_watched(tmp_path):
    around = Surroundings(dict(os.environ), 0o022, PLANT)
    (tmp_path / "train.py").write_text(BEGINS)
    async with tidy(tmp_path / "jobs") as place, jobs_in(place, surroundings=around) as jobs:
        job = await jobs.start(sys.executable, str(tmp_path / "train.py"), processes=2)
        control = ControlManager(jobs.manager, jobs.inotify)

        async def until(condition):
            async with asyncio.timeout(DEADLINE):
                while not condition():
                    await asyncio.sleep(0.02)

        def probes():
            return Path(jobs.files(job).events).read_text().count('"probe_armed"')

        await until(lambda: all((tmp_path / f"train.py.ready-{rank}").exists() for rank in (0, 1)))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(control.set_probe(job.id, armed=True))
            await until(lambda: probes() == 2)
            (tmp_path / "train.py.go-0").touch()
            async with asyncio.timeout(
                DEADLINE
            ):  # rank 0 has a run of its own now, and rank 1 none
                assert await watching == [0, 1]
        with pytest.raises(TimedOut, match="rank 1 has begun no run"):
            await control.control(Order(job.id, "early", Verb.PAUSE, patience=1.0))
        (tmp_path / "train.py.go-1").touch()
        outcomes = await control.control(Order(job.id, "later", Verb.PAUSE))
        assert [outcome.cause for outcome in outcomes] == ["", ""]
        assert len({outcome.step for outcome in outcomes}) == 1
