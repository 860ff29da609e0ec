"""A person debugs a live training in a real VS Code, with its keys and its views."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.vscode import window_of

pytestmark = pytest.mark.slow

# Line 8 is the backward pass.
TRAIN = """\
import os
import torch
from torch import nn

def train_step(model, optimizer, images, labels):
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

def train():
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    step = 0
    while not os.path.exists("stop"):
        train_step(model, optimizer, torch.randn(32, 64), torch.randint(0, 10, (32,)))
        step += 1
        try:
            with open("step", "w") as file:
                file.write(f"{step}\\n")
            os.stat("nothing")
        except FileNotFoundError:
            pass

train()
print("right")
"""

# Line 8 is in the loop.
RANKS = """\
import os
import time

def work(rank):
    step = 0
    while not os.path.exists("stop"):
        step += 1
        value = step * rank
        time.sleep(0.005)

work(int(os.environ["RANK"]))
"""


@pytest.fixture
def person(tmp_path):
    """A training that runs, and must end well after all."""
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "project").mkdir()
    person = Rdev(tmp_path / "home", tmp_path / "project")
    try:
        person.write("rdev.toml", "")
        person.write("train.py", TRAIN)
        started = person.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield person
        (workspace(person) / "stop").touch()
        assert person.run("wait", "train").returncode == 0
        assert person.run("logs", "train").stdout == "right\n"
    finally:
        person.tidy()


def workspace(person: Rdev) -> Path:
    [folder] = (person.home / ".rdev" / "workspaces").iterdir()
    return folder


def assert_goes_on(person: Rdev) -> None:
    seen: set[str] = set()
    deadline = time.monotonic() + DEADLINE
    while len(seen) < 3:
        assert time.monotonic() < deadline, "the job stands still"
        if (workspace(person) / "step").exists() and os.stat(workspace(person) / "step").st_size:
            seen.add((workspace(person) / "step").read_text())


def configure(person: Rdev) -> None:
    entry = {"name": "live", "type": "rdev", "request": "attach", "justMyCode": False}
    text = json.dumps({"version": "0.2.0", "configurations": [entry]})
    person.write(".vscode/launch.json", text)


def test_a_live_training_is_stopped_looked_into_stepped_and_left(person, tmp_path):
    configure(person)
    with window_of(person, tmp_path / "vscode") as window:
        window.do("file", "train.py", 8)
        window.do("press", "F9", "F5")
        assert window.stack("8:1").startswith("train_step\n")
        logits = window.variable("logits")
        assert "Tensor (32, 10) float32 cpu grad, min -" in logits
        assert "max " in logits
        assert "Sequential( (0): Linear(" in window.variable("model")
        window.do("click", ".repl-input-wrapper .monaco-editor")
        window.do("type", "logits.argmax(1).shape == labels.shape")
        window.do("press", "Enter")
        assert window.said("True").strip() == "True"
        window.do("file", "train.py", 9)
        window.do("press", "F10")
        window.stack("9:1")
        window.do("press", "Control+Home")
        window.do("type", "# one\n# two\n# three\n")
        window.do("press", "Control+s", "F5")
        assert window.stack("11:1").startswith("train_step\n")
        assert "your editor is 1 edit ahead of job train" in "".join(window.console())
        window.do("command", "Debug: Disconnect")
        window.do("gone", ".debug-toolbar")
        assert_goes_on(person)
        window.do("press", "F5")
        window.stack("11:1")
        window.do("click", ".debug-toolbar .codicon-debug-disconnect")
        window.do("gone", ".debug-toolbar")
        assert_goes_on(person)


def test_pause_logpoints_jumps_and_exceptions_do_what_the_window_offers(person, tmp_path):
    configure(person)
    with window_of(person, tmp_path / "vscode") as window:
        window.do("file", "train.py", 9)
        window.do("command", "Debug: Add Logpoint")
        window.do("see", ".breakpoint-widget .monaco-editor.focused")
        window.do("type", "100% of {labels.shape[0]:>4}")
        window.do("press", "Enter", "F5")
        window.said("100% of   32")
        window.do("command", "Remove All Breakpoints")
        window.do("press", "F6")
        window.do("see", ".codicon-debug-stackframe")  # the place is shown, not only known
        window.do("file", "train.py", 8)
        window.do("press", "F9", "F5")
        window.stack("8:1")
        window.do("file", "train.py", 6)
        window.do("command", "Debug: Jump to Cursor")
        window.stack("6:1")
        window.do("command", "Remove All Breakpoints")
        window.do("click", ".debug-breakpoints .monaco-list-row:has-text('Raised') input")
        window.do("press", "F5")
        shown = window.do("see", ".exception-widget")
        assert "FileNotFoundError" in shown
        assert f'File "{(person.cwd / "train.py").resolve()}", line 23, in train' in shown
        window.do("click", ".debug-toolbar .codicon-debug-disconnect")
        window.do("gone", ".debug-toolbar")
        assert_goes_on(person)


def test_the_written_entries_stop_two_ranks_and_let_them_go(person, tmp_path):
    person.write("ranks.py", RANKS)
    assert person.run("run", "-d", "--nproc", "2", "--name", "pair", "ranks.py").returncode == 0
    words = ("debug", "pair", "--rank", "all", "--listen", "--write")
    with person.started(*words, text=True) as listener:
        while not listener.stdout.readline().startswith("written to .vscode/launch.json"):
            assert listener.poll() is None
        with window_of(person, tmp_path / "vscode") as window:
            window.do("file", "ranks.py", 8)
            window.do("press", "F9")
            window.do("command", "Debug: Select and Start Debugging")
            window.do("click", ".quick-input-list .monaco-list-row", "rdev: all ranks")
            for rank in range(2):
                row = f".debug-call-stack .monaco-list-row:has-text('rdev: rank {rank} of pair')"
                assert "PAUSED" in window.do("see", row, "aused on").upper()
            window.stack("8:1")
            window.do("command", "Debug: Disconnect")
            window.do("command", "Debug: Disconnect")
            window.do("gone", ".debug-toolbar")
    (workspace(person) / "stop").touch()
    assert person.run("wait", "pair").returncode == 0
