"""`rdev metrics` over a job whose script uses the loop."""

import csv
import json
import os
import signal
import time

import pytest
from tests.support.command import DEADLINE
from tests.support.jobs import lock_holder
from tests.support.terminal import in_terminal

from rdev.wire.files import JobFiles
from rdev.wire.home import Home, machine_id

pytestmark = pytest.mark.shared_agent

SCRIPT = """
from rdev.loop import Loop, log

def step(state):
    yield "critic", 1 / state.step
    yield "generator", {"loss": float("nan"), "norm": 2.0}

Loop(step, range(20), epochs=2).run()
log(accuracy=0.5)
"""


@pytest.fixture
def trained(rdev):
    """A person whose job has trained."""
    rdev.write("train.py", SCRIPT)
    done = rdev.run("run", "train.py")
    assert done.returncode == 0, done.stderr
    return rdev


def test_every_shape_shows_the_same_last_values(trained):
    table = trained.run("metrics")
    rows = {line.split()[0]: line.split()[1:] for line in table.stdout.splitlines()}
    assert table.returncode == 0, table.stderr
    assert rows["critic.loss"][:4] == ["0.025", "0.025", "1", "40"]
    assert rows["generator.norm"][0] == "2"
    assert rows["generator.loss"][0] == "nan"
    assert rows["accuracy"][0] == "0.5"

    lines = [json.loads(line) for line in trained.run("metrics", "--json").stdout.splitlines()]
    critic = [line for line in lines if line.get("phase") == "critic"]
    assert (critic[-1]["step"], critic[-1]["values"]) == (40, {"loss": 0.025})

    values = list(csv.DictReader(trained.run("metrics", "--csv").stdout.splitlines()))
    last = [row for row in values if row["phase"] == "critic"][-1]
    assert (last["step"], last["name"], float(last["value"])) == ("40", "loss", 0.025)

    plots = trained.run("metrics", "--plot").stdout
    assert "critic.loss\n" in plots
    assert "no finite values" in plots


def test_following_prints_a_line_an_event_and_ends_with_the_job(trained):
    followed = trained.run("metrics", "-f")
    assert followed.returncode == 0, followed.stderr
    assert "step 40  epoch 2  critic.loss 0.025" in followed.stdout.splitlines()


def test_a_job_without_metrics_says_how_to_report_some(rdev):
    rdev.write("plain.py", "print('hello')")
    assert rdev.run("run", "plain.py").returncode == 0
    shown = rdev.run("metrics")
    assert (shown.returncode, shown.stdout) == (
        0,
        "no metrics; a script reports them with `rdev.loop`\n",
    )


def test_two_shapes_at_once_are_refused(rdev):
    assert rdev.run("metrics", "--json", "--csv").returncode == 2


def test_filters_leave_out_what_is_not_of_those_steps_or_older(trained):
    rows = list(
        csv.DictReader(trained.run("metrics", "--csv", "--steps", "2:20").stdout.splitlines())
    )
    assert rows
    assert {int(row["step"]) for row in rows} <= set(range(2, 21))
    assert trained.run("metrics", "--steps", "41:").stdout.startswith("no metrics")
    assert trained.run("metrics", "--since", "1h", "--steps", "40").stdout.startswith("METRIC")
    for words, code in ((["--steps", "9:3"], 2), (["--since", "soon"], 2), (["--rank", "-1"], 2)):
        refused = trained.run("metrics", *words)
        assert (refused.returncode, "Traceback" in refused.stderr) == (code, False)


def scalars(folder):
    """(step, value) by tag, as TensorBoard reads a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_a_job_once_however_often_its_folder_is_written(trained):
    for _ in range(2):
        done = trained.run("metrics", "--tensorboard", "board")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "`tensorboard --logdir board` shows them\n"
    seen = scalars(trained.cwd / "board")
    steps = [step for step, _ in seen["critic/loss"]]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, 40)
    # Logged after the loop, it is of another run of the same process.
    assert scalars(trained.cwd / "board" / "run-2") == {"accuracy": [(1, 0.5)]}
    trained.write("taken", "")
    failed = trained.run("metrics", "--tensorboard", "taken")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: unable to ")


LONG = """
import os, sys, time
from rdev.loop import Loop

def step(state):
    time.sleep(0.004)
    state.stop = os.path.exists(sys.argv[1])
    return float(state.step)

Loop(step, range(10**6)).run()
"""


@pytest.mark.own_agent
def test_following_outlives_kills_of_agent_and_supervisor_with_each_sample_once(rdev):
    rdev.write("train.py", LONG)
    assert rdev.run("run", "-d", "train.py", str(rdev.cwd / "stop")).returncode == 0
    with rdev.started("metrics", "-f", "--json") as following:
        seen = [json.loads(following.stdout.readline()) for _ in range(4)]
        rdev.kill_agent()
        seen += [json.loads(following.stdout.readline()) for _ in range(4)]
        os.kill(supervisor_of(rdev), signal.SIGKILL)
        seen += [json.loads(following.stdout.readline()) for _ in range(4)]
        rdev.write("stop", "")
        seen += [json.loads(line) for line in following.stdout]
        assert following.wait(DEADLINE) == 0, following.stderr.read()
    recorded = [json.loads(line) for line in rdev.run("metrics", "--json").stdout.splitlines()]
    assert seen == recorded
    steps = [line["step"] for line in seen]
    assert steps == sorted(set(steps))


def supervisor_of(rdev):
    """Process id of the supervisor of the only job."""
    folder = Home(str(rdev.home / ".rdev"), machine_id()).jobs
    return lock_holder(JobFiles(f"{folder}/{rdev.jobs()[0]['id']}").supervisor_lock)


MANY = """
import os, sys, time
from rdev.loop import Loop

def step(state):
    time.sleep(0.01)
    state.stop = os.path.exists(sys.argv[1])
    return {name: float("nan") if state.step % 7 == 0 else float(state.step) for name in "abcdef"}

Loop(step, range(10**6)).run()
"""


def test_live_plots_of_many_metrics_keep_to_the_screen_and_are_whole_at_the_end(rdev):
    rdev.write("train.py", MANY)
    assert rdev.run("run", "-d", "train.py", str(rdev.cwd / "stop")).returncode == 0
    with in_terminal(rdev, "metrics", "-f", "--plot", rows=20) as shown:
        shown.expect(b"more lines")
        shown.expect(b"not finite")
        shown.expect(b"more lines")
        screens = shown.seen
        rdev.write("stop", "")
        assert shown.wait() == 0
        screens += shown.seen
    *live, final = screens.split(b"\x1b[H")
    assert all(screen.count(b"\n") < 20 for screen in live)
    text = final.decode().removeprefix("\x1b[J")
    assert [line[0] for line in text.splitlines() if "values not finite" in line] == list("abcdef")
    assert "more lines" not in text


@pytest.mark.slow
@pytest.mark.own_agent
def test_following_into_a_tensorboard_folder_outlives_a_kill_of_the_agent(rdev):
    rdev.write("train.py", LONG)
    assert rdev.run("run", "-d", "train.py", str(rdev.cwd / "stop")).returncode == 0
    board = rdev.cwd / "board"

    def until(step):
        deadline = time.monotonic() + DEADLINE
        while (
            max([0, *(s for s, _ in scalars(board).get("loss", []))] if board.exists() else [0])
            < step
        ):
            assert time.monotonic() < deadline
            assert following.poll() is None
            time.sleep(0.05)
        return scalars(board)["loss"][-1][0]

    with rdev.started("metrics", "-f", "--tensorboard", "board") as following:
        reached = until(30)
        rdev.kill_agent()
        until(reached + 50)
        rdev.write("stop", "")
        assert following.wait(DEADLINE) == 0, following.stderr.read()
    seen = scalars(board)["loss"]
    recorded = [
        json.loads(line)["step"] for line in rdev.run("metrics", "--json").stdout.splitlines()
    ]
    assert [step for step, _ in seen] == recorded
    assert len(set(recorded)) == len(recorded)
    assert all(value == step for step, value in seen)


RANKS = """
import os, time
import torch
import torch.distributed as dist
from rdev.loop import Loop, log

dist.init_process_group("gloo")
rank = dist.get_rank()

def step(state):
    time.sleep(0.003 + 0.002 * rank)
    dist.all_reduce(torch.ones(1))
    if rank == 0 and state.step % 50 == 0:
        log(accuracy=0.5)
    return state.step * 10.0 + rank

Loop(step, range(160)).run()
"""


@pytest.mark.slow
def test_of_two_ranks_only_values_of_one_step_are_reduced(rdev):
    pytest.importorskip("torch")
    rdev.write("train.py", RANKS)
    done = rdev.run("run", "--nproc", "2", "-q", "train.py")
    assert done.returncode == 0, done.stderr

    def rows(*words):
        shown = rdev.run("metrics", "--csv", *words)
        assert shown.returncode == 0, shown.stderr
        found = list(csv.DictReader(shown.stdout.splitlines()))
        return [(int(row["step"]), row["rank"], row["name"], float(row["value"])) for row in found]

    for name, offset in (("mean", 0.5), ("min", 0.0), ("max", 1.0)):
        reduced = [row for row in rows("--reduce", name) if row[2] == "loss"]
        assert all(row == (row[0], name, "loss", row[0] * 10 + offset) for row in reduced)
    samples = {rank: {row[0] for row in rows("--rank", rank) if row[2] == "loss"} for rank in "01"}
    common = samples["0"] & samples["1"]
    assert {row[0] for row in reduced} == common
    assert {1, 160} <= common
    assert len(common) > 0.4 * max(map(len, samples.values()))
    assert {row[1] for row in rows()} == {"0", "1"}

    table = rdev.run("metrics").stdout.splitlines()
    labels = [" ".join(line.split()[:3]) for line in table[1:]]
    assert labels[0].startswith("[mean] accuracy 0.5")
    assert labels[1].startswith("[mean] loss 1600.5")
    assert labels[2:] == ["[rank 0] accuracy", "[rank 0] loss", "[rank 1] loss"]
    lines = [
        json.loads(line)
        for line in rdev.run("metrics", "--reduce", "max", "--json").stdout.splitlines()
    ]
    assert {tuple(line["ranks"]) for line in lines} == {(0, 1), (0,)}
    assert rdev.run("metrics", "--tensorboard", "tb").returncode == 0
    assert sorted(path.name for path in (rdev.cwd / "tb").iterdir()) == ["mean", "rank-0", "rank-1"]
    assert scalars(rdev.cwd / "tb" / "mean")["loss"][-1] == (160, 1600.5)
