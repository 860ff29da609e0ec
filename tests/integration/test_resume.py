"""Trainings that are interrupted and go on: every bit is as if they had not been."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tests.support.interpreters import ROOT
from tests.support.jobs import jobs_in, tidy
from tests.support.training import EPOCHS, STEPS, Augmented, Training, same
from torch.utils.data import DataLoader

from rdev.loop import Callback, Loop
from rdev.loop.archive import CheckpointError
from rdev.loop.callbacks.checkpoint import Checkpoint
from rdev.loop.checkpoint import save
from rdev.loop.sampler import ShuffleSampler
from rdev.wire.job import JobState

PER_EPOCH = STEPS // EPOCHS


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nobody interrupts, and a folder of its checkpoints of every step."""
    folder = tmp_path_factory.mktemp("whole")
    training = Training(callbacks=[Checkpoint(str(folder), steps=1, keep=None)]).run()
    assert len(training.lines) == STEPS
    training.folder = folder
    return training


def went_on(whole, step, **how):
    """True if a training that goes on from that step ends as the whole one, bit by bit."""
    training = Training(seed=99, **how).run(resume=whole.folder / f"step-{step}.ckpt")
    assert training.lines == whole.lines[step:], f"from step {step}"
    assert training.state.step == STEPS
    assert training.state.epoch == EPOCHS
    return same(training.weights, whole.weights)


def test_a_run_goes_on_from_any_step_bit_by_bit(whole):
    assert all(went_on(whole, step) for step in range(1, STEPS + 1))


def test_workers_load_what_the_process_itself_would(whole):
    before, boundary = PER_EPOCH + 2, PER_EPOCH * 2
    assert all(went_on(whole, step, workers=2) for step in (before, boundary))


@pytest.mark.slow
def test_workers_load_what_the_process_itself_would_from_any_step(whole):
    assert all(went_on(whole, step, workers=2) for step in range(1, STEPS + 1))


def test_a_run_with_workers_goes_on_without_and_the_other_way_round(whole, tmp_path):
    keep = Checkpoint(str(tmp_path), steps=1, keep=None)
    training = Training(workers=2, callbacks=[keep]).run()
    assert training.lines == whole.lines
    assert same(training.weights, whole.weights)
    training.folder = tmp_path
    assert all(went_on(training, step) for step in (1, PER_EPOCH, STEPS - 1))


def test_workers_that_live_on_are_told_the_epoch_and_draw_once_a_run(tmp_path):
    keep = Checkpoint(str(tmp_path), steps=1, epochs=1, keep=None)
    training = Training(workers=2, persistent=True, callbacks=[keep]).run()
    training.folder = tmp_path
    for step in (PER_EPOCH - 1, PER_EPOCH):
        assert went_on(training, step, workers=2, persistent=True)


def test_a_checkpoint_that_is_asked_for_is_of_a_steps_end_or_an_epochs_begin(whole, tmp_path):
    asked = []

    class Ask(Callback):
        def epoch_begin(self, state):
            asked.append(state.control.checkpoint())

        def step_begin(self, state):
            with pytest.raises(CheckpointError, match="a step is being made"):
                save(state)
            if state.step == PER_EPOCH + 2:
                asked.append(state.control.checkpoint())

    for persistent in (False, True):
        folder = tmp_path / str(persistent)
        keep = Checkpoint(str(folder), epochs=99, at_end=False)
        how = {"workers": 2, "persistent": True} if persistent else {}
        training = Training(callbacks=[keep, Ask()], **how).run()
        steps = [request.wait(0).step for request in asked[-4:]]
        assert steps == [0, PER_EPOCH, PER_EPOCH + 2, PER_EPOCH * 2]
        training.folder = folder
        assert all(went_on(training, step, **how) for step in steps)


def shuffled_by_torch():
    return DataLoader(Augmented(), batch_size=16, shuffle=True)


def test_a_loader_that_knows_nothing_of_us_is_read_up_to_where_the_run_was(tmp_path):
    keep = Checkpoint(str(tmp_path), steps=1, keep=None)
    training = Training(loader=shuffled_by_torch(), callbacks=[keep]).run()
    training.folder = tmp_path
    for step in (1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 1, STEPS):
        assert went_on(training, step, loader=shuffled_by_torch())


def test_a_run_that_was_stopped_goes_on_where_it_was(whole, tmp_path):
    class Stop(Callback):
        def step_end(self, state):
            state.stop = state.step == PER_EPOCH + 3

    keep = Checkpoint(str(tmp_path), epochs=1)
    stopped = Training(callbacks=[Stop(), keep]).run()
    assert stopped.state.step == PER_EPOCH + 3
    whole_here = Training(callbacks=[Checkpoint(str(tmp_path))])
    whole_here.run(resume="auto")
    assert stopped.lines + whole_here.lines == whole.lines
    assert same(whole_here.weights, whole.weights)


def test_a_run_that_had_ended_goes_on_with_more_epochs_or_steps(whole, tmp_path):
    for number, limits in enumerate(({"steps": 4}, {"epochs": 2})):
        folder = str(tmp_path / str(number))
        first = Training(callbacks=[Checkpoint(folder)], **limits).run()
        rest = Training(callbacks=[Checkpoint(folder)]).run(resume="auto")
        assert first.lines + rest.lines == whole.lines
        assert same(rest.weights, whole.weights)
        again = Training(callbacks=[Checkpoint(folder)]).run(resume="auto")
        assert again.lines == []
        assert same(again.weights, whole.weights)


def test_another_batch_size_or_seed_is_refused_within_an_epoch(whole):
    data = Augmented()
    for size, seed, cause in ((8, 7, "batch_size 16 then, 8 now"), (16, 8, "seed 7 then, 8 now")):
        loader = DataLoader(data, batch_size=size, sampler=ShuffleSampler(data, seed=seed))
        with pytest.raises(CheckpointError, match=cause):
            Training(loader=loader).run(resume=whole.folder / "step-2.ckpt")


def test_objects_that_are_not_those_of_the_checkpoint_are_refused(whole):
    path = whole.folder / "step-2.ckpt"
    other = Training()
    del other.loop._objects["momentum"]
    with pytest.raises(CheckpointError, match="it has the state of momentum, not here"):
        other.run(resume=path)
    other = Training()
    other.loop._objects["ema"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match="it has no state of ema"):
        other.run(resume=path)
    other = Training()
    other.loop._objects["optimizer"] = torch.optim.SGD(other.model.parameters())
    with pytest.raises(CheckpointError, match=r"optimizer is a torch\.optim\.sgd\.SGD here"):
        other.run(resume=path)
    other = Training()
    other.loop._objects["model"] = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"model does not take its state: Error.* loading"):
        other.run(resume=path)


def killed_and_gone_on(whole, tmp_path, *steps, workers=0):
    """Kills a training outright at each of those steps; another process goes on each time."""
    output = tmp_path / "steps"
    command = [sys.executable, "-m", "tests.support.training", tmp_path / "kept", output]
    command += [str(workers), "--restart"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as keeper:
        for step in steps:
            kill_at(int(keeper.stdout.readline()), output, step)
        assert int(keeper.stdout.readline())
        assert keeper.wait(timeout=60) == 0
    lines = {}
    for line in map(json.loads, output.read_text().splitlines()):
        # A step whose checkpoint was not written yet is made again, the same to the last bit.
        assert lines.setdefault(line[0], line) == line
    assert list(lines.values()) == whole.lines
    assert same(torch.load(f"{output}.weights"), whole.weights)


def kill_at(pid, output, step):
    descriptor = os.pidfd_open(pid)
    try:
        while not output.exists() or f"[{step}, " not in output.read_text():
            ended, _, _ = select.select([descriptor], [], [], 0.001)  # files cannot be waited for
            assert not ended, "it ended by itself"
        os.kill(pid, signal.SIGKILL)
        assert select.select([descriptor], [], [], 30)[0]
    finally:
        os.close(descriptor)


@pytest.mark.slow
def test_a_process_that_is_killed_outright_is_gone_on_by_the_next(whole, tmp_path):
    killed_and_gone_on(whole, tmp_path, random.randrange(1, STEPS - 2))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_process_after_process_is_killed_outright(whole, tmp_path, workers):
    killed_and_gone_on(whole, tmp_path, *range(1, STEPS - 2), workers=workers)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Runs a training of two ranks and returns what each of them has made of it."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.support.ranks", folder]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:

        def run(resume=None, *, epochs=2, second=None, **how):
            hows = [how, {**how, **(second or {})}]
            wanted = {"resume": resume, "epochs": epochs, "hows": hows}
            program.stdin.write(json.dumps(wanted) + "\n")
            program.stdin.flush()
            return json.loads(program.stdout.readline())

        yield run
        program.stdin.close()


def rest_of(whole, step):
    return [[lines[step:], weights] for lines, weights in whole]


@pytest.mark.slow
def test_every_rank_goes_on_with_its_own_numbers_and_from_a_step_that_all_have_kept(
    ranks, tmp_path
):
    folder = str(tmp_path)
    whole = ranks(folder=folder, steps=1, keep=None)
    (first, weights), (second, others) = whole
    assert len(first) == 8
    assert [line[2] for line in first] != [line[2] for line in second]
    assert weights == others
    assert {"step-3.ckpt", "step-3.rank1.ckpt"} <= set(os.listdir(folder))
    for step in (3, 4):
        assert ranks(f"{folder}/step-{step}.ckpt", folder=f"{folder}/other") == rest_of(whole, step)
    # Rank 1 was killed before it had written its part of the latest.
    for step in (8, 7):
        os.unlink(tmp_path / f"step-{step}.rank1.ckpt")
    assert ranks("auto", folder=folder, keep=None) == rest_of(whole, 6)
    with pytest.raises(CheckpointError, match="it is of 2 ranks, and here are 1"):
        Training().run(resume=tmp_path / "step-3.ckpt")


@pytest.mark.slow
def test_ranks_take_rank_0s_minutes_and_what_they_remove_all_have_written(ranks, tmp_path):
    minutes = {"minutes": 1e-9, "second": {"minutes": 1e9}, "at_end": False}
    assert len(ranks(epochs=8, folder=str(tmp_path), **minutes)[0][0]) == 32
    # Of the latest a rank's part may be missing yet, so the one before stays.
    kept = {f"step-{step}{part}.ckpt" for step in (16, 32) for part in ("", ".rank1")}
    assert set(os.listdir(tmp_path)) == kept | {"latest.ckpt"}
    ranks("auto", epochs=12, folder=str(tmp_path), **minutes)
    assert {path.name for path in tmp_path.glob("*rank1*")} == {
        f"step-{step}.rank1.ckpt" for step in (32, 48)
    }


DIES_ONCE = """
    import os, random
    from rdev.loop import Loop
    from rdev.loop.callbacks.checkpoint import Checkpoint

    random.seed(1)
    weights = {"w": 0.0, "history": []}

    def step(state):
        state.weights["w"] += random.random() * state.batch
        state.weights["history"].append(state.step)
        if state.step == 7 and os.environ["RDEV_ATTEMPT"] == "1":
            os._exit(1)

    keep = Checkpoint(FOLDER, steps=2)
    Loop(step, range(1, 6), epochs=2, callbacks=[keep], weights=weights).run(resume="auto")
    print(os.environ["RDEV_ATTEMPT"], weights["w"].hex(), weights["history"])
"""


async def test_the_second_attempt_of_a_job_goes_on_from_the_last_checkpoint(tmp_path):
    random.seed(1)
    expected = 0.0
    for batch in [*range(1, 6)] * 2:
        expected += random.random() * batch
    random.seed()
    code = textwrap.dedent(DIES_ONCE).replace("FOLDER", repr(str(tmp_path / "kept")))
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        environment = {"PYTHONPATH": str(ROOT / "agent")}
        ended = await jobs.end(await jobs.python(code, retries=1, environment=environment))
        printed = await jobs.printed(ended)
        events = Path(jobs.files(ended).events).read_text().splitlines()
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2), printed.stderr
    attempt, weight, history = printed.stdout.decode().split(maxsplit=2)
    assert (attempt, weight) == ("2", expected.hex())
    assert json.loads(history) == list(range(1, 11))
    saved = {
        event["step"]: event["path"]
        for event in map(json.loads, events)
        if event["kind"] == "checkpoint_saved"
    }
    # What was on its way when the first attempt died is lost, and the file is not.
    assert {8, 10} <= saved.keys() <= {2, 4, 6, 8, 10}
    assert saved[8] == str(tmp_path / "kept" / "step-8.ckpt")


def test_what_a_callback_reads_at_an_epochs_end_is_there_after_the_resumption(tmp_path):
    read = []

    class Read(Callback):
        def epoch_end(self, state):
            read.append((state.step, state.loss, state.metrics["accuracy"]))

    def step(state):
        return {"loss": state.step / 2, "accuracy": state.step}

    Loop(step, range(3), callbacks=[Checkpoint(str(tmp_path), steps=1)]).run()
    Loop(step, range(3), callbacks=[Read()]).run(resume=tmp_path / "step-3.ckpt")
    assert read == [(3, 1.5, 3)]
