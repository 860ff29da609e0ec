"""A person in tmux: attach shows scrollback, takes input, resizes, detaches by keys."""

import subprocess

import pytest
from tests.support.command import DEADLINE
from tests.support.tmux import end_tmux, real_tmux

GREETER = """
for n in $(seq 1 200); do echo line $n; done
while read word; do echo "hello $word, $(stty size)"; done
echo over
"""


@pytest.fixture
def tmux(rdev):
    with real_tmux(rdev) as tmux:
        yield tmux


def test_attach_shows_scrollback_takes_input_resizes_and_detaches(rdev, tmux):
    rdev.run("run", "-dt", "--name", "greeter", "--", "sh", "-c", GREETER)
    pane = tmux.pane(80, 24)
    pane.type("before=$(stty -g)")
    pane.type("rdev attach greeter")
    pane.expect("line 200")
    pane.keys("C-b")  # a key like any other here: the job's terminal shows it
    pane.keys("C-u")
    pane.type("ann")
    pane.expect("hello ann, 24 80")
    pane.resize(100, 30)
    pane.type("bob")
    pane.expect("hello bob, 30 100")
    pane.keys("~", "d")
    pane.expect("`rdev attach greeter` returns")
    pane.type('echo code $?; test "$before" = "$(stty -g)" && echo as $((40 + 2))')
    pane.expect("code 0\nas 42")
    rdev.await_state("running")
    pane.type("clear; echo the screen is cle''ar")
    pane.expect("is clear\n")
    pane.type("rdev attach greeter")
    pane.expect("hello bob, 30 100\n")
    pane.keys("C-d")
    pane.expect("over")


def test_the_same_job_attached_from_two_panes(rdev, tmux):
    rdev.run("run", "-dt", "--name", "greeter", "--", "sh", "-c", GREETER)
    left, right = tmux.pane(80, 24), tmux.pane(100, 30)
    for pane in (left, right):
        pane.type("rdev attach greeter")
        pane.expect("line 200")
    left.type("ann")
    for pane in (left, right):
        pane.expect("hello ann, 30 100")
    right.resize(90, 20)
    right.type("bob")
    for pane in (left, right):
        pane.expect("hello bob, 20 90")
    left.keys("~", "d")
    left.expect("returns to it")
    right.type("eve")
    right.expect("hello eve, 20 90")
    right.keys("C-d")
    right.expect("over")


@pytest.mark.slow
def test_a_full_screen_program_is_drawn_again_for_one_who_returns(rdev, tmux):
    rdev.write("text.txt", "".join(f"row {number}\n" for number in range(1, 301)))
    pane = tmux.pane(80, 24)
    pane.type("rdev run -t --name reader -- less text.txt")
    pane.expect("row 23\n")
    pane.keys("G")
    pane.expect("row 300")
    pane.keys("Enter", "~", "d")
    pane.expect("returns to it")
    pane.type("clear; echo the screen is cle''ar")
    pane.expect("is clear\n")
    pane.type("rdev attach reader; echo left $((40 + 2))")
    pane.expect("row 300")
    pane.resize(80, 12)
    pane.keys("g")
    pane.expect("row 11\n")
    pane.keys("q")
    pane.expect("left 42")
    assert rdev.jobs() == []


@pytest.mark.slow
def test_a_closed_window_detaches(rdev, tmux):
    pane = tmux.pane()
    pane.type("rdev run -t --name night -- sh -c 'echo ready; exec sleep 60'")
    pane.expect("ready\n")
    tmux.do("kill-session", "-t", pane.name)
    pane = tmux.pane()
    pane.type("rdev attach night")
    pane.expect("ready\n")
    assert [job["state"] for job in rdev.jobs()] == ["running"]


@pytest.fixture
def inner_tmux(rdev):
    name = f"rdev-inner-{rdev.home.stat().st_ino}"
    yield name
    end_tmux(name)


def test_a_tmux_started_in_a_shell_survives_its_stop(rdev, tmux, inner_tmux):
    pane = tmux.pane()
    pane.type("rdev shell")
    pane.type(f"unset TMUX; tmux -f /dev/null -L {inner_tmux} new-session -d -s kept sleep 600")
    pane.type("echo seen $((40 + 2))")
    pane.expect("seen 42")
    done = rdev.run("stop", "shell")
    assert done.returncode == 0, done.stderr
    pane.expect("stopped")
    left = subprocess.run(
        ["tmux", "-L", inner_tmux, "list-sessions"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "kept" in left.stdout, left.stderr
