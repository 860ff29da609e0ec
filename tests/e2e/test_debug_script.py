"""A script started under the debugger, stacks without a debugger, several ranks at once, IDE files."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from tests.e2e.test_debug import lines_until
from tests.support.command import DEADLINE
from tests.support.editors import at_port

pytestmark = pytest.mark.shared_agent

SCRIPT = """\
import sys

def work(n):
    total = 0
    for i in range(n):
        total += i
        print("item", i)
    return total

print("begin", sys.argv[1:])
print("total", work(4))
"""

RANKS = """\
import os
import time

rank = int(os.environ["RANK"])

def train():
    while not os.path.exists("stop"):
        loss = 1.0 if rank == 0 else float("nan")
        time.sleep(0.01)

train()
"""


def test_a_script_is_started_and_held_where_it_is_asked_and_its_output_is_shown(rdev):
    rdev.write("short.py", SCRIPT)
    done = rdev.run(
        *("debug", "short.py", "short.py:6", "--command", "p i", "--command", "tbreak 8"),
        *("--command", "clear 1", "--command", "", "--command", "c", "--command", "x = total + 1"),
        *("--command", "p 'x is', x", "--command", "a", "--command", "r", "--command", "c"),
        *("--", "--lr", "3"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "begin ['--lr', '3']" in lines
    assert "paused at short.py:6 in work()" in lines
    assert "paused at short.py:8 in work()" in lines
    assert "('x is', 7)" in lines
    assert "n = 4" in lines
    assert "total 6" in lines
    assert re.fullmatch(r"job short \(\w+\) succeeded after .*", lines[-1])


@pytest.mark.slow
def test_without_a_line_a_script_is_held_before_its_first_one(rdev):
    rdev.write("short.py", SCRIPT)
    done = rdev.run("debug", "short.py", "--command", "w", "--command", "b work", "--command", "c")
    assert done.returncode == 0, done.stderr
    assert "paused at short.py:1 in <module>()" in done.stdout
    assert "breakpoint 1 at short.py:4" in done.stdout
    assert "paused at short.py:4 in work()" in done.stdout


def test_words_for_a_script_need_a_script(rdev):
    done = rdev.run("debug", "train", "--", "--lr", "3")
    assert done.returncode == 2
    assert "'train' is no file here" in done.stderr


@pytest.fixture
def ranks(rdev):
    """Two ranks that run until the test is over."""
    rdev.write("two.py", RANKS)
    assert rdev.run("run", "-d", "--nproc", "2", "two.py").returncode == 0
    deadline = time.monotonic() + DEADLINE
    while True:  # torchrun takes its time to start them
        done = rdev.run("stack", "two", "--json")
        if done.returncode == 0 and done.stdout.count('"train"') == 2:
            return rdev
        assert time.monotonic() < deadline, done.stderr


@pytest.mark.slow
def test_all_ranks_are_debugged_in_one_terminal_and_a_value_compared(ranks):
    done = ranks.run(
        *("debug", "two.py:9", "--rank", "all", "--command", "wait", "--command", "ranks"),
        *("--command", "compare loss", "--command", "rank 1", "--command", "p rank * 10"),
    )
    assert done.returncode == 0, done.stderr
    assert "[rank 0] attached to two" in done.stdout
    assert "[rank 1] attached to two" in done.stdout
    assert "; `rank 1` goes there" in done.stdout or "; `rank 0` goes there" in done.stdout
    assert re.search(r"^  rank 0 +1\.0  two\.py:9 in train$", done.stdout, re.MULTILINE)
    assert re.search(r"^! rank 1 +nan  two\.py:9 in train$", done.stdout, re.MULTILINE)
    assert "\n10\n" in done.stdout


@pytest.mark.slow
def test_a_step_of_one_rank_is_waited_for_though_the_other_is_held(ranks):
    words = ("wait", "rank 1", "n", "p rank * 10 + 5")
    done = ranks.run(
        *("debug", "two.py:9", "--rank", "all"), *(w for one in words for w in ("--command", one))
    )
    assert done.returncode == 0, done.stderr
    assert "\n15\n" in done.stdout
    assert "[rank 1] paused at two.py:7 in train" in done.stdout


@pytest.mark.slow
def test_stacks_of_all_ranks_are_shown_and_nothing_is_stopped(ranks):
    done = ranks.run("stack", "two")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"rank 0  pid \d+  .*two\.py\n  MainThread\n    two\.py:\d+ in train\n", done.stdout
    )
    only = json.loads(ranks.run("stack", "two", "--rank", "1", "--json").stdout)
    assert [process["rank"] for process in only] == [1]
    assert only[0]["threads"][0]["frames"][-1]["function"] == "<module>"


@pytest.mark.slow
def test_each_rank_has_a_port_and_an_entry_that_can_be_taken_out_again(ranks):
    launch = ranks.cwd / ".vscode" / "launch.json"
    with ranks.started("debug", "two", "--write", "--rank", "all", text=True) as listener:
        lines_until(listener.stdout, "written to .vscode/launch.json")
        text = "".join(line.partition("//")[0] + "\n" for line in launch.read_text().split("\n"))
        written = json.loads(text)
        names = ["rdev: rank 0 of two", "rdev: rank 1 of two"]
        assert [c["name"] for c in written["configurations"]] == names
        assert written["compounds"][0]["configurations"] == names
        connection, editor = at_port(written["configurations"][1]["connect"]["port"])
        with connection:
            editor.attach(str(ranks.cwd / "two.py"), 9, **written["configurations"][1])
            _, frame = editor.stop()
            asked = editor.ask("evaluate", expression="rank", frameId=frame["id"])
            assert asked["result"] == "1"
            editor.ask("disconnect")
        lines_until(listener.stdout, "[rank 1] the IDE has left")
        listener.send_signal(subprocess.signal.SIGINT)
        assert listener.wait(DEADLINE) == 0
    done = ranks.run("debug", "--write", "--remove")
    assert done.stdout == "taken out of .vscode/launch.json\n"
    assert not launch.parent.exists()
