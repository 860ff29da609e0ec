"""What a job prints, as a pipe gets it and as a terminal shows it."""

import contextlib
import re
from functools import partial

import pytest
from tests.support.relay import relayed
from tests.support.terminal import in_terminal

from rdev.wire.home import Home, machine_id

pytestmark = pytest.mark.shared_agent

SAYS = r"\033]0;title\007\033]52;c;cm0=\007\033[31mred\033[0m\033[6n\377"
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} "


@pytest.fixture
def terminal(rdev):
    return partial(in_terminal, rdev)


def test_a_pipe_gets_every_byte_and_a_terminal_no_titles_nor_questions(rdev, terminal):
    command = ("run", "--quiet", "--", "printf", SAYS + r"\nend\n")
    raw = rdev.run(*command, text=False).stdout
    assert raw == b"\x1b]0;title\x07\x1b]52;c;cm0=\x07\x1b[31mred\x1b[0m\x1b[6n\xff\nend\n"
    for words in (command, ("logs",)):
        with terminal(*words) as shown:
            assert shown.wait() == 0
            assert shown.seen == b"\x1b[31mred\x1b[0m\xff\r\nend\r\n"


def test_a_terminal_shows_the_last_state_of_a_progress_bar_that_is_over(rdev, terminal):
    bar = "for i in range(5000): print(f'\\r{i:4} of 5000', end='')\nprint('\\ndone')"
    rdev.write("train.py", bar)
    assert rdev.run("run", "train.py", text=False).stdout.count(b"\r") == 5000
    with terminal("logs") as shown:
        shown.until(lambda: b"done\r\n" in shown.seen)
        assert shown.seen.count(b"\r") < 60
        assert b"4999 of 5000\r\ndone" in shown.seen


def test_lines_can_begin_with_their_rank_and_their_time(rdev, terminal):
    rdev.run("run", "--", "sh", "-c", "echo one; sleep 0.3; echo two; echo err >&2; printf open")
    done = rdev.run("logs", "--timestamps")
    assert re.fullmatch(f"{STAMP}one\n{STAMP}two\n{STAMP}open", done.stdout)
    assert re.fullmatch(f"{STAMP}err\n", done.stderr)
    stamps = re.findall(STAMP, done.stdout)
    assert stamps[0] < stamps[1]
    assert rdev.run("logs", "--prefix").stdout == "[rank 0] one\n[rank 0] two\n[rank 0] open"
    with terminal("logs", "--prefix", "--stream", "stdout") as shown:
        shown.until(lambda: b"open\r\n" in shown.seen)
        lines = re.sub(rb"\x1b\[\d*[mK]", b"", shown.seen).decode().split("\r\n")
        assert lines == ["[rank 0] one", "[rank 0] two", "[rank 0] open", ""]


@pytest.mark.slow
def test_logs_since_a_time_of_a_stream_and_of_an_attempt(rdev):
    rdev.run("run", "--", "sh", "-c", "echo early; sleep 1.2; echo late; echo err >&2")
    assert rdev.run("logs", "--since", "1h").stdout == "early\nlate\n"
    items = rdev.run("logs", "--json", "--stream", "stdout").stdout.splitlines()
    assert len(items) == 2, "what came at different times comes apart"
    stamps = re.findall(STAMP, rdev.run("logs", "--timestamps", "-n", "1").stdout)
    done = rdev.run("logs", "--since", stamps[0].strip())
    assert (done.stdout, done.stderr) == ("late\n", "err\n")
    done = rdev.run("logs", "--stream", "stderr", "--rank", "0", "--attempt", "1")
    assert (done.stdout, done.stderr) == ("", "err\n")


def test_a_break_brings_nothing_back_that_was_not_asked_for(rdev, tmp_path):
    go = tmp_path / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.05; done"
    script = f"echo old >&2; echo old; sleep 0.3; echo new; {waits}; echo late"
    rdev.run("run", "-d", "--", "sh", "-c", script)
    with rdev.started("logs", "-f") as process:
        assert [process.stdout.readline() for _ in range(2)] == [b"old\n", b"new\n"]
    stamp = re.findall(STAMP, rdev.run("logs", "--timestamps", "-n", "1").stdout)[0].strip()
    with rdev.started("logs", "-f", "--since", stamp) as process:
        assert process.stdout.readline() == b"new\n"
        rdev.kill_agent()
        go.touch()
        assert process.stdout.read() == b"late\n"
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.slow
def test_two_bars_at_once_are_shown_one_below_the_lines(rdev, terminal):
    rdev.write(
        "train.py",
        """
import os, sys, time
rank = os.environ["RANK"]
for step in range(8):
    sys.stdout.write(f"\\rstep {step}")
    sys.stdout.flush()
    time.sleep(0.1)
print(f"\\rrank {rank} is done")
""",
    )
    with terminal("run", "--quiet", "--nproc", "2", "train.py", columns=60) as shown:
        assert shown.wait() == 0
    rows = shown_rows(shown.seen)
    assert sorted(rows[-3:]) == ["", "[rank 0] rank 0 is done", "[rank 1] rank 1 is done"]
    assert re.search(rb"\[rank \d\]\x1b\[m step \d", shown.seen), "progress is seen as it goes"


def shown_rows(data):
    """What a terminal shows in the end, line by line."""
    rows = [""]
    for part in re.findall(rb"\x1b\[\d*[mK]|\r\n|\r|[^\x1b\r\n]+", data):
        if part == b"\r\n":
            rows.append("")
        elif part == b"\r":
            rows[-1] = "\r" + rows[-1].removeprefix("\r")
        elif part == b"\x1b[K":
            rows[-1] = ""
        elif not part.startswith(b"\x1b"):
            text, before = part.decode(), rows[-1]
            if before.startswith("\r"):
                rows[-1] = text + before[1 + len(text) :]
            else:
                rows[-1] = before + text
    return rows


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--since", "yesterday"], 2, "'yesterday' is no time such as 10m"),
        (["--attempt", "2"], 1, "the latest one is attempt 1"),
        (["--rank", "3"], 1, "unable to read rank 3 of the job: it has rank 0"),
        (["--stream", "launcher"], 1, "its outputs are 0.stdout, 0.stderr"),
    ],
)
def test_what_cannot_be_shown_is_said(rdev, flags, code, words):
    rdev.run("run", "--", "true")
    done = rdev.run("logs", *flags)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "code"), [("logs", 69), ("attach", 255)])
def test_a_host_that_stays_away_is_no_end_of_the_job(rdev, tmp_path, verb, code):
    rdev.jobs()  # the agent runs
    home = Home(str(rdev.home / ".rdev"), machine_id())
    rdev.run("run", "-d", "--", "sh", "-c", "echo ready; sleep 300")
    words = ["logs", "-f"] if verb == "logs" else ["attach"]
    with contextlib.ExitStack() as stack:
        with relayed(tmp_path / "forwarded.sock", home.socket) as relay:
            process = stack.enter_context(rdev.started(*words, "-H", relay.host))
            assert process.stdout.readline() == b"ready\n"
        assert process.wait(120) == code
        said = process.stderr.read().decode()
    assert "it has not answered for 60 s" in said
    job = rdev.jobs()[0]
    assert job["state"] == "running"
    assert f"`rdev {' '.join(words)} -H {relay.host} {job['id']}" in said


def test_who_is_far_behind_is_told_and_how_to_see_the_latest(rdev, terminal):
    flood = "yes | head -c 70000000; echo latest; exec sleep 300"
    assert rdev.run("run", "-d", "--name", "flood", "--", "sh", "-c", flood).returncode == 0
    while rdev.jobs()[0]["streams"][0]["size"] < 70_000_007:  # each look is a command
        pass
    with terminal("logs", "-f") as shown:
        shown.expect(
            b"rdev: this is 70.0 MB behind flood; Ctrl-C, then `rdev logs -f -n 100 flood`"
        )
    with terminal("logs", "-f", "-n", "100") as shown:
        shown.expect(b"latest")
        assert b"behind" not in shown.seen
    with terminal("attach") as shown:
        shown.expect(b"latest")
        assert b"behind" not in shown.seen
