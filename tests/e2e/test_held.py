"""A training that is held by `rdev ctl`: what is seen of it, what is killed around it, and why."""

import json
import os
import re
import select
import signal
import time

import pytest
from tests.support.command import DEADLINE
from tests.support.jobs import lock_holder

from rdev.wire.files import JobFiles
from rdev.wire.home import Home, machine_id

PLAIN = """
import time
from rdev.loop import Loop

def step(state):
    time.sleep(0.005)
    return 1.0

Loop(step, range(100_000)).run()
"""


def step_of(rdev, *words):
    done = rdev.run("ctl", *words)
    assert done.returncode == 0, done.stderr
    return int(re.search(r"after step (\d+)", done.stdout)[1])


def line_of(stream, words):
    """The next line with these words in it."""
    until, text = time.monotonic() + DEADLINE, b""
    while words not in text.decode():
        assert select.select([stream], [], [], max(0.0, until - time.monotonic()))[0], text
        text = (
            os.read(stream.fileno(), 65536) if b"\n" in text else text + os.read(stream.fileno(), 1)
        )
    return text.decode()


def kill(rdev, which):
    if which == "agent":
        rdev.kill_agent()
        return
    home = Home(rdev.home / ".rdev", machine_id())
    files = JobFiles(os.path.join(home.jobs, rdev.jobs(ended=True)[0]["id"]))
    if pid := lock_holder(files.supervisor_lock):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_who_looks_or_follows_is_told_by_whom_it_is_held_also_after_kills(rdev):
    rdev.write("train.py", PLAIN)
    assert rdev.run("run", "-q", "-d", "train.py").returncode == 0
    with rdev.started("logs", "-f") as following:
        step = step_of(rdev, "pause")
        told = line_of(following.stderr, "lets it go on")
        assert f"train is paused after step {step} (rdev ctl, " in told
        assert "`rdev ctl train resume`" in told
        for killed in ("supervisor", "agent"):
            kill(rdev, killed)
            assert f"RUNNING, PAUSED after step {step} (rdev ctl, " in rdev.run("ps").stdout
        (held,) = rdev.jobs()[0]["held"]
        assert (held["rank"], held["step"]) == (0, step)
        step_of(rdev, "resume")
        assert "train goes on after " in line_of(following.stderr, "goes on after")
    assert "PAUSED" not in rdev.run("ps").stdout
    step_of(rdev, "stop")
    asked = [json.loads(x) for x in rdev.run("events", "--kind", "controlled").stdout.splitlines()]
    assert [event["verb"] for event in asked] == ["pause", "resume", "stop"]
    assert all("@" in event["by"] for event in asked)


# Every loss of every rank is printed, so that a disturbed run can be held against another.
SEEDED = """
import sys, time
import torch
import torch.distributed as dist
from rdev.loop import Loop, ShuffleSampler

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
data = torch.randn(64, 4)

def step(state):
    loss = (state.model(state.batch) - torch.rand(4, 1)).square().mean()
    state.optimizer.zero_grad()
    loss.backward()
    for parameter in state.model.parameters():
        dist.all_reduce(parameter.grad)
    state.optimizer.step()
    print(state.step, repr(loss.item()), flush=True)
    time.sleep(0.01)
    return loss

loader = torch.utils.data.DataLoader(data, batch_size=4, sampler=ShuffleSampler(data))
Loop(step, loader, steps=int(sys.argv[1]), epochs=10**6, model=model, optimizer=optimizer).run()
"""


def started(rdev, steps):
    assert rdev.run("run", "-q", "-d", "--nproc", "2", "train.py", str(steps)).returncode == 0
    return rdev.jobs()[0]["id"]


def disturbed(rdev):
    """Holds a run and kills what is around it, in training and at pauses, until it is stopped."""
    job = started(rdev, 10**6)
    step = step_of(rdev, "pause")
    for which in ("agent", "supervisor"):
        kill(rdev, which)
        assert step_of(rdev, "step", "3") == step + 3
        kill(rdev, which)
        assert step_of(rdev, "resume") == step + 3
        kill(rdev, which)
        step = step_of(rdev, "pause")
    kill(rdev, "agent")
    kill(rdev, "supervisor")
    step_of(rdev, "resume")
    return job, step_of(rdev, "stop")


def printed(rdev, job):
    """By rank, the loss of each step as the script has printed it."""
    losses = {}
    for rank in (0, 1):
        assert rdev.run("wait", job).returncode == 0
        lines = rdev.run("logs", job, "--rank", str(rank)).stdout.splitlines()
        losses[rank] = [(int(step), float(loss)) for step, loss in map(str.split, lines)]
    return losses


@pytest.mark.slow
def test_two_ranks_that_are_held_and_whose_keepers_are_killed_make_the_very_same_steps(rdev):
    rdev.write("train.py", SEEDED)
    job, last = disturbed(rdev)
    losses = printed(rdev, job)
    assert losses == printed(rdev, started(rdev, last))
    told = {0: [], 1: []}
    for line in rdev.run("metrics", job, "--json").stdout.splitlines():
        sample = json.loads(line)
        told[sample["rank"]].append((sample["step"], sample["values"]["loss"]))
    for rank in (0, 1):
        assert [step for step, _ in losses[rank]] == list(range(1, last + 1))
        steps = [step for step, _ in told[rank]]
        assert steps == sorted(set(steps)), "each sample once, in order"
        assert {1, last} <= set(steps)
        known = dict(losses[rank])
        assert all(loss == pytest.approx(known[step], rel=1e-6) for step, loss in told[rank])


WORKER = """
import os, time
import torch
import torch.distributed as dist
from rdev.loop import Loop

class Images(torch.utils.data.Dataset):
    def __init__(self, rank):
        self.rank = rank

    def __len__(self):
        return 100_000

    def __getitem__(self, index):
        while self.rank == 1 and os.path.exists("stuck"):
            time.sleep(0.01)
        return torch.ones(2)

def step(state):
    dist.all_reduce(state.batch.sum())
    time.sleep(0.01)

if __name__ == "__main__":
    dist.init_process_group("gloo")
    loader = torch.utils.data.DataLoader(Images(dist.get_rank()), batch_size=4, num_workers=1)
    Loop(step, loader).run()
"""


@pytest.mark.slow
def test_of_a_rank_whose_loader_is_stuck_why_names_the_workers_line(rdev):
    rdev.write("train.py", WORKER)
    assert rdev.run("run", "-q", "-d", "--nproc", "2", "train.py").returncode == 0
    step_of(rdev, "state")
    (next((rdev.home / ".rdev" / "workspaces").iterdir()) / "stuck").touch()
    words = r"rank 1 waits for its next batch after step \d+ for \d+ s, its worker in Images\.__getitem__, train\.py:(\d+); rank 0 waits for it in all_reduce"
    until = time.monotonic() + DEADLINE
    while True:
        began = time.monotonic()
        why = rdev.run("ctl", "why").stdout
        took = time.monotonic() - began
        if found := re.match(words, why):
            break
        assert time.monotonic() < until, why
    assert "os.path.exists" in WORKER.splitlines()[int(found[1]) - 1] or "sleep" in WORKER.splitlines()[int(found[1]) - 1]  # fmt: skip
    assert took < 10  # as measured: at most 2.8 s
    rdev.run("stop", "--now")


@pytest.mark.slow
def test_of_what_is_stopped_or_keeps_the_interpreter_why_says_so(rdev):
    rdev.write(
        "train.py",
        "import os, re, time\n"
        'while not os.path.exists("go"): time.sleep(0.01)\n'
        're.match("(a+)+$", "a" * 60 + "b")\n',
    )
    assert rdev.run("run", "-q", "-d", "train.py").returncode == 0
    until = time.monotonic() + DEADLINE
    # A hook of which nobody has heard yet would never get the interpreter to say that it is there.
    while "has no hook" in (why := rdev.run("ctl", "why").stdout):
        assert time.monotonic() < until, why
    (next((rdev.home / ".rdev" / "workspaces").iterdir()) / "go").touch()
    while True:
        began = time.monotonic()
        why = rdev.run("ctl", "why").stdout
        took = time.monotonic() - began
        if why.startswith("it does not answer: a long call of C code"):
            break
        assert time.monotonic() < until, why
    assert took < 10  # as measured: at most 2.8 s
    pid = rdev.jobs()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert rdev.run("ctl", "why").stdout.startswith("it is stopped, as by SIGSTOP")
    os.kill(pid, signal.SIGCONT)
    rdev.run("stop", "--now")
