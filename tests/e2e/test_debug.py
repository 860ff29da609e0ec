"""`rdev debug` on a running, unprepared script, through the real agent and supervisor."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from tests.support.command import DEADLINE
from tests.support.session import sessioned

from rdev.protocol.dap import Framer, encode

pytestmark = pytest.mark.shared_agent

TRAIN = """\
import os
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
    with sessioned(tmp_path_factory.mktemp("debug")) as person:
        person.write("train.py", TRAIN)
        started = person.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield person
        assert finish(person) == "right\n"


def finish(rdev) -> str:
    """Lets the script end; what it printed."""
    [job] = rdev.json("ps")
    [workspace] = (rdev.home / ".rdev" / "workspaces").iterdir()
    (workspace / "stop").touch()
    done = rdev.run("wait", job["id"])
    assert done.returncode == 0, done.stderr
    return rdev.run("logs", job["id"]).stdout


def lines_until(stream, wanted: str) -> list[str]:
    """The lines of a program's output up to one that contains `wanted`."""
    seen: list[str] = []
    for line in iter(stream.readline, ""):
        seen.append(line)
        if wanted in line:
            return seen
    raise AssertionError(f"{wanted!r} never came: {seen}")


def test_a_breakpoint_is_hit_looked_at_and_left_and_the_result_is_right(job):
    done = job.run(
        *("debug", "train.py:8", "--command", "print loss == step * 2"),
        *("--command", "bt", "--command", "locals", "--command", "list", "--command", "n"),
        *("--command", "p 'now ' + str(step)", "--command", "p nonsense", "--command", "dance"),
        *("--command", "step >= 0"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = done.stdout
    assert re.search(r"^attached to train \(pid \d+, Python 3\.\d+\.\d+\)$", out, re.MULTILINE)
    assert "breakpoint 1 at train.py:8\n" in out
    assert "paused at train.py:8 in train()\n" in out
    assert "True\n" in out
    assert "> 0  train.py:8 in train()\n  1  train.py:13 in <module>()\n" in out
    assert re.search(r"^step  = \d+$", out, re.MULTILINE)
    assert "    8->        total += loss\n" in out
    assert "paused at train.py:9 in train()\n" in out
    assert re.search(r"^now |^'now \d+'$", out, re.MULTILINE)
    assert "NameError" in out
    assert "name 'dance' is not defined" in out
    assert out.endswith("detached; the job goes on\n")


def test_an_editor_that_is_ahead_is_told_and_sees_what_the_job_runs(job):
    script = job.cwd / "train.py"
    text = script.read_text()
    script.write_text("# one\n# two\n# three\n" + text)
    job.run("sync")
    done = job.run(
        *("debug", "train.py:11", "--command", "list", "--command", "p step * 2 == loss"),
        *("--command", "b train.py:13", "--command", "b 2", "--command", "b", "--timeout", "20"),
    )
    script.write_text(text)
    assert done.stdout.count("train.py: your editor is 1 edit ahead of job train\n") == 1
    assert "breakpoint 1 at train.py:11 (line 8 of job train)\n" in done.stdout
    assert "paused at train.py:11 in train() (line 8 of job train)\n" in done.stdout
    assert f"   11->{text.splitlines()[7]}\n" in done.stdout
    assert "True\n" in done.stdout
    assert "  2  train.py:13\n" in done.stdout
    assert "line 2 is a comment; line 4 has code\n" in done.stdout


def test_commands_that_change_something_say_so_and_those_that_lack_something_how_they_go(job):
    words = (
        *("tbreak", "compare", "b 9", "disable 2", "enable 2", "cond 2 step < 0", "cond 2"),
        *("display step * 0", "undisplay step * 0", "clear", "clear", "b", "h tbreak"),
    )
    done = job.run("debug", "train.py:8", *(w for word in words for w in ("--command", word)))
    out = done.stdout
    assert "usage: tbreak FILE:LINE|LINE|FUNCTION [if EXPR]\nusage: compare EXPR\n" in out, out
    assert (
        "breakpoint 2 at train.py:9\n"
        "breakpoint 2 at train.py:9 disabled\n"
        "breakpoint 2 at train.py:9 enabled\n"
        "breakpoint 2 at train.py:9 stops if step < 0\n"
        "breakpoint 2 at train.py:9 stops always\n"
        "step * 0 = 0\n"
        "displayed no more: step * 0\n"
        "breakpoint 1 at train.py:8 cleared\n"
        "breakpoint 2 at train.py:9 cleared\n"
        "no breakpoints\n"
        "no breakpoints\n"
        "tbreak FILE:LINE|LINE|FUNCTION [if EXPR]   a breakpoint that goes when it is hit\n"
    ) in out, out


SPARSE = """\
import os
import time

def train():
    step = 0
    while not os.path.exists(f"stop{step}"):
        step += 1

        # a comment
        time.sleep(0.002)

train()
time.sleep(600)
"""


def test_until_goes_down_only_and_on_to_the_next_line_with_code(rdev):
    rdev.write("sparse.py", SPARSE)
    assert rdev.run("run", "-d", "sparse.py").returncode == 0
    words = ("until 3", "until 7", "b", "until 8", "b", "clear 1", "b 10", "until 10")
    done = rdev.run(
        *("debug", "sparse.py:7", *(w for word in (*words, "b") for w in ("--command", word))),
        *("--command", "clear", "--command", "p open(f'stop{step}', 'w').close()"),
        *("--command", "until 12", "--command", "b"),
    )
    out = done.stdout
    assert (
        "line 3 is not below this one, where `until` could go on to\n"
        "line 7 is not below this one, where `until` could go on to\n"
        "  1  sparse.py:7\n"
        "breakpoint 2 at sparse.py:10\n"
        "paused at sparse.py:10 in train()\n"
    ) in out, out
    assert "  3  sparse.py:10\nbreakpoint 3 at sparse.py:10 cleared\n" in out, out
    # Below the function: to its end, as pdb does, and not to a line that may never come again.
    assert "paused at sparse.py:12 in <module>()\n" in out, out
    assert out.endswith("no breakpoints\ndetached; the job goes on\n"), out


def test_what_cannot_be_done_at_a_stop_is_said_and_exit_leaves(job):
    words = ("jump 99", "jump 13", "b torch/optim/sgd.py:1", "import os; os._e", "exit()", "never")
    done = job.run("debug", "train.py:8", *(w for word in words for w in ("--command", word)))
    assert "line 99 is not in train(), and only a line of it can be next" in done.stdout
    assert "line 13 is not in train(), and only a line of it can be next" in done.stdout
    assert (
        "job train has no file torch/optim/sgd.py: check its path in the workspace; a "
        in done.stdout
    )
    assert "AttributeError" in done.stdout
    assert "never" not in done.stdout
    assert done.stdout.endswith("detached; the job goes on\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_end_of_a_lease_is_said_once_to_whoever_pipes_commands_in(job):
    words = ("debug", "train.py:8", "--lease", "1s")
    with job.started(*words, stdin=subprocess.PIPE, text=True) as session:
        lines_until(session.stdout, "paused at train.py:8")
        assert session.wait(DEADLINE) == 0
        said = session.stdout.read()
    assert "the process has ended" not in said
    assert said.count("nothing was asked of the debugger") == 1, said
    assert said.endswith("nothing was asked of the debugger for 1 s; the job goes on\n"), said


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        ("train.py:99", "the file has only 13 lines"),
        ("train.py:3", "line 3 is blank; line 4 has code"),
        ("other.py:3", "job train has no file other.py"),
    ],
)
def test_a_place_that_cannot_be_hit_is_said_at_once(job, place, cause):
    done = job.run("debug", place, "--command", "bt")
    assert done.returncode == 125
    assert done.stdout == ""
    assert f"unable to stop job train at {place}: {cause}\n" in done.stderr


def test_a_line_that_was_written_after_the_start_is_said_at_once(job):
    script = job.cwd / "train.py"
    text = script.read_text()
    script.write_text("import sys\n" + text)
    done = job.run("debug", "train.py:1", "--command", "bt")
    script.write_text(text)
    assert "job train does not have this line: it was written after its start\n" in done.stderr


def test_ps_shows_where_a_job_is_paused_and_ctrl_c_at_the_prompt_leaves_it(job):
    with job.started("debug", "train.py:8", stdin=subprocess.PIPE, text=True) as session:
        lines_until(session.stdout, "paused at train.py:8")
        until(lambda: "PAUSED train.py:8" in job.run("ps").stdout)
        second = job.run("debug", "train.py:8", "--command", "bt")
        assert second.returncode == 125
        assert "is attached to it" in second.stderr
        session.stdin.write("p 'still ' + 'mine'\n")
        session.stdin.flush()
        lines_until(session.stdout, "still mine")
        session.send_signal(signal.SIGINT)
        assert session.wait(DEADLINE) == 0
        assert "detached; the job goes on" in session.stdout.read()
    until(lambda: "PAUSED" not in job.run("ps").stdout)


def until(condition) -> None:
    """Returns once the condition holds; each look is a command of its own."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline


def test_a_laptop_that_dies_at_a_stop_holds_the_job_until_the_lease_ends(job):
    words = ("debug", "train.py:8", "--lease", "3s")
    with job.started(*words, stdin=subprocess.PIPE, text=True) as session:
        lines_until(session.stdout, "paused at train.py:8")
        until(lambda: "PAUSED train.py:8" in job.run("ps").stdout)
        session.kill()
        until(lambda: "PAUSED" not in job.run("ps").stdout)
    until(lambda: job.run("debug", "train.py:8", "--command", "bt").returncode == 0)


def test_an_agent_that_is_killed_at_a_stop_does_not_hold_the_job(job):
    with job.started("debug", "train.py:8", stdin=subprocess.PIPE, text=True) as session:
        lines_until(session.stdout, "paused at train.py:8")
        until(lambda: "PAUSED train.py:8" in job.run("ps").stdout)
        job.kill_agent()
        until(lambda: "PAUSED" not in job.run("ps").stdout)
    done = job.run("debug", "train.py:8", "--command", "bt")
    assert done.returncode == 0, done.stderr


def test_the_end_of_input_leaves_the_job_running(job):
    done = job.run("debug", "train", "train.py:8", input="p step >= 0\n", stdin=None)
    assert done.returncode == 0, done.stderr
    assert "True\n" in done.stdout


def test_a_condition_decides_where_it_stops(job):
    done = job.run("debug", "train.py:8", "--when", "step % 100 == 42", "--command", "p step % 100")
    assert "\n42\n" in done.stdout


def test_options_may_stand_between_the_job_and_the_line(job):
    done = job.run(
        "debug", "train", "--when", "step % 10 == 7", "train.py:8", "--command", "p step % 10"
    )
    assert done.returncode == 0, done.stderr
    assert "\n7\n" in done.stdout


def test_a_condition_that_is_no_expression_is_refused_before_anything_is_attached(rdev):
    done = rdev.run("debug", "train.py:8", "--when", "step ==", "--command", "bt")
    assert done.returncode == 2
    assert "'step ==' is no Python expression" in done.stderr


def test_a_condition_without_a_line_is_refused(rdev):
    done = rdev.run("debug", "--when", "step == 3", "--command", "bt")
    assert done.returncode == 2
    assert "--when needs a FILE:LINE" in done.stderr


def test_without_a_line_it_stops_where_the_program_is(job):
    done = job.run("debug", "--command", "bt")
    assert done.returncode == 0, done.stderr
    assert re.search(r"paused at train\.py:\d+ in train\(\)", done.stdout)


def test_a_line_that_is_not_reached_in_time_is_124(job):
    done = job.run("debug", "train.py:11", "--timeout", "0.5", "--command", "bt")
    assert done.returncode == 124
    assert "train.py:11: it was not reached within 0.5 s" in done.stderr


def test_two_jobs_on_the_command_line_are_a_usage_error(rdev):
    done = rdev.run("debug", "one", "two")
    assert done.returncode == 2
    assert "'two' is not FILE:LINE" in done.stderr


def test_a_program_that_is_no_python_has_no_hook(rdev):
    rdev.run("run", "-d", "--name", "sleeper", "--", "sleep", "60")
    done = rdev.run("debug", "sleeper")
    assert done.returncode == 125
    assert "no Python process of sleep carries the debug hook" in done.stderr
    rdev.run("stop", "sleeper", "--now")


def test_a_job_that_has_ended_cannot_be_debugged(rdev):
    rdev.write("train.py", "print('done')\n")
    assert rdev.run("run", "train.py").returncode == 0
    done = rdev.run("debug", "train.py:1")
    assert done.returncode == 125
    assert "it has ended (succeeded)" in done.stderr


def test_a_job_that_ends_at_the_prompt_ends_the_session_and_that_is_said(rdev):
    rdev.write("train.py", TRAIN)
    assert rdev.run("run", "-d", "train.py").returncode == 0
    with rdev.started("debug", "train.py:8", stdin=subprocess.PIPE, text=True) as session:
        lines_until(session.stdout, "paused at train.py:8")
        assert rdev.run("stop", "train", "--now").returncode == 0
        assert session.wait(DEADLINE) == 0
        assert re.fullmatch(
            r"(?s).*\njob train \(\w+\) was stopped after .*\n", session.stdout.read()
        )


ENDING = """\
import os
import time

while not os.path.exists("go"):
    time.sleep(0.01)
"""


def test_commands_that_a_job_does_not_live_to_see_are_an_error(rdev):
    rdev.write("train.py", ENDING)
    assert rdev.run("run", "-d", "train.py").returncode == 0
    going = ("--command", "p open('go', 'w').close()", "--command", "c")
    done = rdev.run("debug", *going, "--command", "bt")
    assert re.search(r"^job train \(\w+\) succeeded after ", done.stdout, re.MULTILINE)
    assert "the job goes on" not in done.stdout
    assert done.returncode == 125
    assert "unable to execute 'bt': the process has ended" in done.stderr


class Ide:
    """A client of the protocol that knows only what the pasted configuration says."""

    def __init__(self, configuration: dict) -> None:
        where = configuration["connect"]
        self.socket = socket.create_connection((where["host"], where["port"]), timeout=DEADLINE)
        self._framer, self._messages, self._seq = Framer(), [], 0

    def send(self, command: str, **arguments) -> int:
        self._seq += 1
        message = {"seq": self._seq, "type": "request", "command": command}
        self.socket.sendall(encode({**message, "arguments": arguments}))
        return self._seq

    def receive(self, condition) -> dict:
        while True:
            for message in self._messages:
                if condition(message):
                    self._messages.remove(message)
                    return message
            data = self.socket.recv(65536)
            assert data, "the session ended"
            self._messages += self._framer.feed(data)

    def ask(self, command: str, **arguments) -> dict:
        number = self.send(command, **arguments)
        answer = self.receive(lambda m: m.get("request_seq") == number)
        assert answer["success"], answer
        return answer.get("body") or {}

    def event(self, name: str) -> dict:
        return self.receive(lambda m: m.get("event") == name)["body"]


def test_an_ide_works_with_the_paths_of_this_side(job):
    with job.started("debug", "--listen", text=True) as listener:
        lines_until(listener.stdout, "paste into")
        text = ""
        while not text.endswith("\n}\n"):
            text += listener.stdout.readline()
        configuration = json.loads(text)
        ide = Ide(configuration)
        lines_until(listener.stdout, "the IDE has connected")
        second = socket.create_connection(ide.socket.getpeername(), timeout=DEADLINE)
        with ide.socket, second:
            assert second.recv(1) == b"", "a second client is turned away at once"
            capabilities = ide.ask("initialize", adapterID="debugpy", clientID="test")
            assert not capabilities["supportsTerminateRequest"]
            ide.send("attach", **configuration)
            ide.receive(lambda m: m.get("event") == "initialized")
            here = str((job.cwd / "train.py").resolve())
            [placed] = ide.ask("setBreakpoints", source={"path": here}, breakpoints=[{"line": 8}])[
                "breakpoints"
            ]
            assert placed["verified"]
            ide.ask("configurationDone")
            thread = ide.event("stopped")["threadId"]
            [frame, *_] = ide.ask("stackTrace", threadId=thread)["stackFrames"]
            assert (frame["source"]["path"], frame["line"]) == (here, 8)
            ide.ask("terminate")  # the red button
        lines_until(listener.stdout, "the IDE has left")
        listener.send_signal(signal.SIGINT)
        assert listener.wait(DEADLINE) == 0
