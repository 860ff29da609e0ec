"""Two processes that keep step, as ranks do: what they sample, and what is reduced of it."""

import os
import socket
import subprocess
import sys

from tests.support.interpreters import ROOT
from tests.support.supervisor import Listener

from rdev.client.ui.reducing import Reducer, Reduction
from rdev.wire.events import Event

STEPS = 300

# Each waits for the other at every step, as a collective does; the second is the slower.
RANK = """
import os, socket, sys, time
from rdev.loop import Loop, log

rank, other = int(os.environ["RANK"]), socket.socket(fileno=int(sys.argv[1]))

def step(state):
    time.sleep(0.002 + 0.002 * rank)
    other.sendall(b".")
    assert other.recv(1) == b"."
    if rank == 0 and state.step % 50 == 0:
        log(accuracy=0.5)
    return state.step * 10.0 + rank

Loop(step, range(STEPS)).run()
other.close()
"""


def trained(folder):
    """What two ranks report, as (rank, event) in the order of its time."""
    ends = socket.socketpair()
    listeners, processes = [], []
    try:
        for rank, end in enumerate(ends):
            (folder / str(rank)).mkdir()
            listeners.append(Listener(folder / str(rank)))
            environment = {
                "PYTHONPATH": str(ROOT / "agent"),
                "PATH": os.environ["PATH"],
                "RDEV_JOB_SOCKET": listeners[-1].path,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
            }
            command = [
                sys.executable,
                "-W",
                "error",
                "-c",
                RANK.replace("STEPS", str(STEPS)),
                str(end.fileno()),
            ]
            processes.append(subprocess.Popen(command, env=environment, pass_fds=[end.fileno()]))
        assert [process.wait(60) for process in processes] == [0, 0]
        found = [
            (rank, event) for rank, one in enumerate(listeners) for event in one.events.values()
        ]
        return sorted(found, key=lambda pair: pair[1]["time"])
    finally:
        for one in [*listeners, *ends]:
            (one.stop if isinstance(one, Listener) else one.close)()


def test_ranks_sample_steps_in_common_and_only_those_are_reduced(tmp_path):
    reports = trained(tmp_path)
    samples = [
        {event["step"] for rank, event in reports if rank == wanted and event["kind"] == "metric"}
        for wanted in (0, 1)
    ]
    common = samples[0] & samples[1]
    assert {1, STEPS} <= common
    assert len(common) > 0.5 * max(map(len, samples))
    assert max(map(len, samples)) < 60  # it still samples, and does not report every step

    reducer = Reducer(Reduction.MEAN, ranks=2)
    found = []
    for rank, body in reports:
        fields = {key: body[key] for key in ("step", "epoch", "phase", "values") if key in body}
        if body["kind"] in ("metric", "run_started"):
            event = Event(body["kind"], body["time"], rank=rank, pid=rank, fields=fields)
            found += reducer.add(event)
    found += reducer.finish()
    losses = {one.step: one.values["loss"] for one in found if "loss" in one.values}
    assert losses == {step: step * 10 + 0.5 for step in sorted(common)}
    alone = [one for one in found if "accuracy" in one.values]
    assert alone
    assert all(one.ranks == (0,) for one in alone)
