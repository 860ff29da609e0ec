"""The built-in callbacks on every interpreter that the loop serves, without any library."""

import os
import subprocess

import pytest
from tests.support.interpreters import ROOT, SERVED, interpreters

EVERYTHING = """
import math, os, sys
before = set(sys.modules)
from rdev.loop import Loop
from rdev.loop.callbacks import *
assert not {"torch", "numpy", "multiprocessing"} & (set(sys.modules) - before)

def step(state):
    yield "critic", 1.0 / state.step
    yield "generator", math.nan if state.step == 7 else 2.0

callbacks = [Checkpoint("kept"), Csv("a.csv"), EarlyStop("loss", patience=9), NanGuard("skip"), Norms(),
             ProgressLine(seconds=60.0), SpikeGuard("rollback"), TensorBoard("board"), Throughput()]
state = Loop(step, [[1.0, 2.0]] * 20, epochs=2, callbacks=callbacks).run()
assert state.step == 40
with open("a.csv") as file:
    print(len(file.readlines()), *sorted(os.listdir(".")))
"""


@pytest.mark.parametrize("version", SERVED)
def test_all_of_them_run_on_every_interpreter_the_loop_serves(version, tmp_path):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    done = subprocess.run(
        [python, "-W", "error", "-c", EVERYTHING],
        env={"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout == "83 a.csv board kept nan\n"
    )  # 2 phases a step, 2 ends of epochs, a heading
    told = [line for line in done.stderr.splitlines() if "NanGuard: skip" in line]
    assert len(told) == 1
    assert "step 7: the loss is nan" in told[0]
