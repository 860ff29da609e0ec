"""Jobs as people read them."""

from dataclasses import replace

import pytest

from rdev.client.follow import exit_code
from rdev.client.hosts import LOCAL, phrase
from rdev.client.ui.columns import width
from rdev.client.ui.jobs import (
    as_json,
    closing_line,
    duration,
    retry_line,
    spared_line,
    state_words,
    table,
)
from rdev.client.ui.pauses import inside
from rdev.wire.job import (
    Attempt,
    CommandKind,
    DebugStop,
    Gpu,
    Job,
    JobSpec,
    JobState,
    Reason,
    Stream,
    Usage,
    Window,
)

SPEC = JobSpec(CommandKind.SCRIPT, "train.py", ("--lr", "3"), snapshot="9f3c0000aa")

RETRIED = replace(SPEC, retries=2, processes=2)


def job(state=JobState.SUCCEEDED, **fields):
    fields = {"exit_code": 0, "created": 100.0, "started": 101.0, "ended": 105.0, **fields}
    return Job("0123456789ab", "train", fields.pop("spec", SPEC), state, **fields)


def test_a_table_is_aligned_and_says_what_matters():
    heading, row = table([job()], now=160.0).splitlines()
    assert heading.split() == ["ID", "NAME", "STATE", "AGE", "TOOK", "SNAPSHOT", "COMMAND"]
    assert row.split() == [
        "0123456789ab", "train", "SUCCEEDED", "1m00s", "4.0s", "9f3c0000", "train.py", "--lr", "3",
    ]  # fmt: skip
    assert heading.index("COMMAND") == row.index("train.py")


@pytest.mark.parametrize(
    ("fields", "words", "line"),
    [
        ({}, "SUCCEEDED", "succeeded"),
        ({"state": JobState.FAILED, "exit_code": 7}, "FAILED 7", "failed with exit code 7"),
        (
            {"state": JobState.FAILED, "exit_code": 137, "signal": 9},
            "FAILED SIGKILL",
            "was killed by SIGKILL",
        ),
        (
            {"state": JobState.FAILED, "reason": Reason.TIMEOUT, "exit_code": 143, "signal": 15},
            "FAILED timeout",
            "was stopped by its timeout",
        ),
        ({"state": JobState.CANCELLED, "exit_code": 143, "signal": 15}, "CANCELLED", "was stopped"),
        (
            {"state": JobState.LOST, "exit_code": None, "message": "the machine rebooted"},
            "LOST",
            "is lost: the machine rebooted",
        ),
        (
            {
                "state": JobState.FAILED,
                "reason": Reason.OUT_OF_MEMORY,
                "exit_code": 137,
                "signal": 9,
                "usage": Usage(peak_memory=3_100_000_000),
            },
            "FAILED out of memory",
            "was killed by SIGKILL: out of memory after 4.0s, peak memory 3.1 GB",
        ),
        (
            {
                "state": JobState.FAILED,
                "reason": Reason.QUOTA,
                "message": "its output could not be kept: no space left on device",
            },
            "FAILED log full",
            "was stopped: its output could not be kept: no space left on device after 4.0s",
        ),
        (
            {"state": JobState.LOST, "reason": Reason.REBOOTED, "exit_code": None},
            "LOST rebooted",
            "is lost: rebooted",
        ),
        (
            {"state": JobState.FAILED, "exit_code": 1, "attempt": 3, "spec": RETRIED},
            "FAILED 1",
            "failed with exit code 1 after 4.0s, attempt 3 of 3",
        ),
        (
            {"state": JobState.FAILED, "reason": Reason.START_FAILED, "message": "no such file"},
            "FAILED 0",
            "did not start: no such file",
        ),
    ],
)
def test_how_a_job_ended(fields, words, line):
    ended = job(**fields)
    assert state_words(ended) == words
    assert line in closing_line(ended)


def test_a_held_job_says_where():
    stop = DebugStop(0, 7, "/ws/train.py", 42, "step", "breakpoint", 103.0)
    held = job(JobState.RUNNING, exit_code=None, ended=0.0, stops=(stop,), directory="/ws")
    assert state_words(held) == "RUNNING, PAUSED train.py:42"
    assert state_words(held, now=140.0) == "RUNNING, PAUSED train.py:42 for 37s"
    assert as_json(held)["paused"][0]["line"] == 42


def test_a_held_rank_says_how_long_it_stays_so_and_which_ranks_wait_for_it():
    stop = DebugStop(0, 7, "/ws/train.py", 42, "step", "breakpoint", 103.0, until=1003.0)
    held = job(JobState.RUNNING, exit_code=None, ended=0.0, stops=(stop,), directory="/ws", ranks=4)
    words = "RUNNING, rank 0 PAUSED train.py:42 for 37s (14m23s left), ranks 1-3 waiting 37s"
    assert state_words(held, now=140.0) == words
    assert as_json(held)["paused"][0]["until"] == "1970-01-01T00:16:43Z"
    assert "42 for 15m37s (its time is over), " in state_words(held, now=1040.0)


def test_a_stop_that_nobody_attends_waits_for_a_debugger():
    stop = DebugStop(0, 7, "/ws/train.py", 42, "step", "breakpoint", 103.0, 163.0, unattended=True)
    held = job(JobState.RUNNING, exit_code=None, ended=0.0, stops=(stop,), directory="/ws")
    words = "RUNNING, PAUSED train.py:42 for 37s (23s left) waits for a debugger"
    assert state_words(held, now=140.0) == words
    assert as_json(held)["paused"][0]["unattended"] is True


def test_a_file_outside_of_the_jobs_folder_keeps_its_whole_path():
    assert inside("/ws/pkg/train.py", "/ws/") == "pkg/train.py"
    for path in ("/usr/lib/python3/queue.py", "/ws2/train.py"):
        assert inside(path, "/ws") == inside(path, "") == path


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.44, "0.4s"), (12.9, "12s"), (200, "3m20s"), (18120, "5h02m"), (8e5, "9d")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_json_says_null_for_what_is_not_there():
    body = as_json(job(JobState.RUNNING, exit_code=None, ended=0.0))
    assert (body["ended"], body["exit_code"], body["reason"]) == (None, None, None)
    assert body["created"] == "1970-01-01T00:01:40Z"


def test_a_job_that_waits_or_begins_anew_says_so():
    waiting = job(JobState.PENDING, message="waits for 2 GPUs: job old has 0 and 1", started=0.0)
    assert state_words(waiting) == "PENDING, waits for 2 GPUs: job old has 0 and 1"
    again = job(JobState.RUNNING, attempt=2, spec=RETRIED, ended=0.0)
    assert state_words(again) == "RUNNING, attempt 2 of 3"


def test_columns_for_ranks_and_gpus_come_when_there_is_something_to_say():
    gpus = (Gpu(0, "GPU-a"), Gpu(3, "GPU-b"))
    heading, one, other = table([job(ranks=2, gpus=gpus), job()], now=160.0).splitlines()
    assert heading.split()[3:5] == ["RANKS", "GPU"]
    assert one.split()[3:5] == ["2", "0,3"]
    assert other.split()[3:5] == ["-", "-"]


def test_whose_a_job_is_is_shown_where_people_share_a_login():
    def of(owner: str) -> Job:
        return job(spec=replace(job().spec, owner=owner))

    for owners in (["a@x", "a@x"], ["a@x", ""], [""]):
        assert "OWNER" not in table([of(owner) for owner in owners], now=160.0)
    heading, *rows = table([of("a@x"), of("b\x1b[2J@y"), of("")], now=160.0).splitlines()
    assert heading.split()[2] == "OWNER"
    assert rows[0].split()[2] == "a@x"
    assert "\x1b" not in rows[1]
    assert rows[2].split()[2] == "-"
    assert as_json(of("a@x"))["owner"] == "a@x"
    assert as_json(of(""))["owner"] is None


def test_an_attempt_that_failed_is_told_with_the_next_one():
    failed = Attempt(1, Reason.EXITED, exit_code=1)
    killed = Attempt(2, Reason.OUT_OF_MEMORY, exit_code=137, signal=9)
    now = job(JobState.RUNNING, attempt=3, attempts=(failed, killed), spec=RETRIED)
    assert retry_line(now, failed) == "attempt 1 failed with exit code 1; attempt 2 of 3 starts"
    assert retry_line(now, killed) == (
        "attempt 2 was killed by SIGKILL (out of memory); attempt 3 of 3 starts"
    )


def test_what_a_stop_left_alone_is_said_with_a_way_to_end_it():
    assert spared_line(job(), host=LOCAL) == ""
    line = spared_line(job(spared=("tmux: server (71)", "rdev-agent (72)")), host=LOCAL)
    assert line.startswith("left alone: tmux: server (71), rdev-agent (72); ")
    assert "`rdev exec train -- kill 71 72` ends them" in line


def test_a_hint_names_the_host_where_it_must():
    spared = job(spared=("tmux (71)",))
    line = spared_line(spared, host="unix:/a b/agent.sock")
    assert "`rdev exec -H 'unix:/a b/agent.sock' train -- kill 71`" in line
    assert phrase("logs -f", LOCAL, "train") == "rdev logs -f train"
    assert phrase("ps -a", LOCAL) == "rdev ps -a"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"exit_code": 7}, 7),
        ({"exit_code": 143, "reason": Reason.TIMEOUT}, 124),
        ({"exit_code": 1, "reason": Reason.OUT_OF_MEMORY}, 137),
        ({"exit_code": 143, "reason": Reason.QUOTA}, 125),
        ({"exit_code": None, "state": JobState.LOST}, 125),
    ],
)
def test_exit_codes(fields, code):
    assert exit_code(job(**{"state": JobState.FAILED, **fields})) == code


def test_json_has_all_of_it():
    ended = Attempt(1, Reason.EXITED, 1, ends=(Stream(0, "stdout", 9),))
    body = as_json(
        job(
            spec=replace(RETRIED, terminal=Window(30, 90)),
            ranks=2,
            attempt=2,
            attempts=(ended,),
            usage=Usage(1.5, 0.5, 1000),
            gpus=(Gpu(1, "GPU-a", "H100"),),
            spared=("tmux (7)",),
        )
    )
    assert (body["ranks"], body["attempt"], body["spared"]) == (2, 2, ["tmux (7)"])
    assert body["attempts"][0]["ends"] == [{"rank": 0, "stream": "stdout", "size": 9}]
    assert body["usage"] == {"user_seconds": 1.5, "system_seconds": 0.5, "peak_memory": 1000}
    assert body["gpus"] == [{"index": 1, "uuid": "GPU-a", "name": "H100"}]
    assert body["terminal"] == {"rows": 30, "columns": 90}


UNRULY = "a\n\x1b]0;title\x07\tb\x9b2J"
SPELLED = r"a\n\x1b]0;title\x07\tb\x9b2J"


def test_a_jobs_words_end_no_line_of_the_table_and_drive_no_terminal():
    spec = replace(SPEC, target="sh", args=("-c", UNRULY))
    waiting = job(JobState.PENDING, spec=spec, message=UNRULY, started=0.0)
    _, row = table([waiting], now=160.0).splitlines()
    assert row.count(SPELLED) == 2
    assert row.isprintable()


@pytest.mark.parametrize(
    "fields",
    [
        {"state": JobState.FAILED, "reason": Reason.START_FAILED},
        {"state": JobState.FAILED, "reason": Reason.QUOTA},
        {"state": JobState.LOST, "exit_code": None},
    ],
)
def test_a_closing_line_is_one_line_whatever_the_host_says(fields):
    line = closing_line(job(message=UNRULY, **fields))
    assert SPELLED in line
    assert line.isprintable()


def test_a_process_that_was_spared_cannot_drive_the_terminal_with_its_name():
    line = spared_line(job(spared=(f"{UNRULY} (71)", "tmux (5) (72)")), host=LOCAL)
    assert SPELLED in line
    assert line.isprintable()
    assert "-- kill 71 72`" in line


def test_a_login_shell_is_called_by_what_is_executed():
    shell = JobSpec(CommandKind.PROGRAM, "", aside=True)
    shown = job(JobState.RUNNING, spec=shell, argv=("/bin/bash", "-l"))
    assert table([shown], now=160.0).splitlines()[1].endswith("  /bin/bash -l")


def test_wide_letters_leave_the_table_aligned():
    wide = replace(SPEC, target="訓練.py", args=("日本語" * 20,), snapshot="")
    message = "waits for 1 GPU: GPU 0 is held by the job 訓練"
    waiting = job(JobState.PENDING, spec=wide, exit_code=None, ended=0.0, message=message)
    lines = table([job(), waiting], now=160.0).splitlines()
    commands = ("COMMAND", "train.py", "'訓練.py'")  # as a shell wants it
    assert len({width(line[: line.index(w)]) for line, w in zip(lines, commands, strict=True)}) == 1
    assert width(lines[2][lines[2].index("'訓練.py'") :]) <= 48


def test_a_job_that_runs_and_waits_for_room_says_so():
    waiting = job(JobState.RUNNING, exit_code=None, message="waits for room for its output")
    assert state_words(waiting) == "RUNNING, waits for room for its output"
