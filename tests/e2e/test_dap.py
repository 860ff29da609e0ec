"""`rdev dap` as an editor's debug adapter, on a running, unprepared script."""

from __future__ import annotations

import re
import subprocess
import time

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.editors import of_process

TRAIN = """\
import os
import threading
import time

def train():
    total = step = 0
    while not os.path.exists("stop"):
        loss = step * 2
        total += loss
        step += 1
        time.sleep(0.002)
    return total == step * (step - 1)

print("right" if train() else "wrong")
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A training that all tests of this module debug, and that must come out right after all."""
    folder = tmp_path_factory.mktemp("dap")
    (folder / "home").mkdir(mode=0o700)
    (folder / "project").mkdir()
    (folder / "project" / "rdev.toml").touch()
    person = Rdev(folder / "home", folder / "project")
    try:
        person.write("train.py", TRAIN)
        started = person.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield person
        [workspace] = (person.home / ".rdev" / "workspaces").iterdir()
        (workspace / "stop").touch()
        assert person.run("wait", "train").returncode == 0
        assert person.run("logs", "train").stdout == "right\n"
    finally:
        person.tidy()


@pytest.fixture
def script(job):
    """The script here, as the job has it before and after each test."""
    path = (job.cwd / "train.py").resolve()
    yield path
    path.write_text(TRAIN)


def test_three_lines_put_in_above_and_the_stop_is_on_the_right_line_with_a_warning(job, script):
    script.write_text("# one\n# two\n# three\n" + TRAIN)
    with job.started("dap", "train", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        old = [{"localRoot": str(job.cwd), "remoteRoot": "/somewhere/else"}]
        placed, absent = editor.attach(str(script), 12, 2, pathMappings=old)
        assert (placed["verified"], placed["line"]) == (True, 12)
        assert not absent["verified"]
        assert absent["message"].startswith("job train does not have this line")
        assert editor.notices() == ["train.py: your editor is 1 edit ahead of job train\n"]
        thread, frame = editor.stop()
        assert (frame["source"]["path"], frame["line"]) == (str(script), 12)
        value = editor.ask(
            "evaluate",
            expression="loss == step * 2, total == step * (step - 1)",
            frameId=frame["id"],
        )
        assert value["result"] == "(True, True)", "line 9 of the snapshot is about to run"
        editor.ask("next", threadId=thread)
        thread, frame = editor.stop()
        assert frame["line"] == 13
        # What debugpy can do was told before it was asked.
        assert [m["body"] for m in editor.seen if m.get("event") == "capabilities"] == []
        editor.ask("disconnect")
        editor.end()
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == b""


def test_a_logpoint_speaks_and_one_that_raises_says_so_once(job, script):
    with job.started("dap", "train", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        editor.attach(str(script))
        places = [
            {"line": 9, "logMessage": "100% of {step} is {loss:06.1f}"},
            {"line": 10, "logMessage": "{no_such_name}"},
        ]
        editor.ask("setBreakpoints", source={"path": str(script)}, breakpoints=places)
        for _ in range(3):
            said = editor.receive(lambda m: m.get("body", {}).get("category") == "stdout")
            [step, loss] = re.fullmatch(
                r"100% of (\d+) is (\d{4}\.0)\n", said["body"]["output"]
            ).groups()
            assert float(loss) == 2 * int(step)
        editor.ask("disconnect")
        editor.end()
        assert process.wait(DEADLINE) == 0
    [notice] = editor.notices()
    assert notice.startswith("the logpoint's message (train.py in train) is not said while it ")
    assert notice.endswith("raises NameError: name 'no_such_name' is not defined\n")


def test_a_script_that_is_gone_here_is_shown_as_the_job_has_it_and_can_be_stopped_in(job, script):
    script.unlink()
    with job.started("dap", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        editor.attach(str(script), job="train", rank=0)
        editor.ask("pause", threadId=1)
        _, frame = editor.stop()
        while "train.py" not in frame["source"]["name"]:
            frame = editor.ask("stackTrace", threadId=1)["stackFrames"][1]
        source = frame["source"]
        assert source["name"] == "train.py (job train)"
        body = editor.ask("source", source=source, sourceReference=source["sourceReference"])
        assert body["content"] == TRAIN
        [placed] = editor.ask("setBreakpoints", source=source, breakpoints=[{"line": 8}])[
            "breakpoints"
        ]
        assert placed["verified"]
        editor.ask("continue", threadId=1)
        _, frame = editor.stop()
        assert (frame["line"], frame["source"]["sourceReference"]) == (8, source["sourceReference"])
        editor.ask("disconnect")
        assert process.wait(DEADLINE) == 0


@pytest.mark.slow
def test_a_client_that_counts_from_zero_sees_the_same_lines(job, script):
    with job.started("dap", "train", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        counting = {"linesStartAt1": False, "columnsStartAt1": False, "pathFormat": "uri"}
        [placed] = editor.attach(script.as_uri(), 8, initialize=counting)
        assert (placed["verified"], placed["line"]) == (True, 8)
        _, frame = editor.stop()
        assert (frame["source"]["path"], frame["line"], frame["column"]) == (script.as_uri(), 8, 0)
        process.stdin.close()  # the editor has crashed
        assert process.wait(DEADLINE) == 0
    until_not_paused(job)


def until_not_paused(job) -> None:
    deadline = time.monotonic() + DEADLINE
    while "PAUSED" in job.run("ps").stdout:
        assert time.monotonic() < deadline


def test_what_goes_wrong_is_the_answer_to_attach_and_nothing_else_is_printed(job):
    with job.started("dap", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        assert not editor.response("threads")["success"]
        editor.ask("initialize", adapterID="rdev")
        assert "rdev run" in editor.response("launch", program="x.py")["message"]
        refused = editor.response("attach", job="no-such-job")
        assert not refused["success"]
        assert "unable to find the job 'no-such-job'" in refused["message"]
        assert refused["body"]["error"]["showUser"]
        editor.event("terminated")
        editor.end()
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == b""


def test_an_editor_that_leaves_before_it_attached_is_let_go(job):
    with job.started("dap", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        editor.ask("initialize", adapterID="rdev")
        editor.ask("disconnect")
        assert process.wait(DEADLINE) == 0
