"""How a job's status follows from what happens to it."""

import signal
from dataclasses import replace

import pytest

from rdev.supervisor import lifecycle
from rdev.wire.events import (
    DEBUG_PAUSED,
    DEBUG_RESUMED,
    HANG_OVER,
    HANG_SUSPECTED,
    LOOP_PAUSED,
    LOOP_RESUMED,
    Event,
)
from rdev.wire.job import Attempt, JobState, Reason, Stream, Usage
from rdev.wire.records import Exit, Launch, Started, Status

LAUNCH = Launch("0123456789ab", ("true",), {}, "/", umask=0o077, grace=0.0, timeout=None)

RUNNING = lifecycle.running(lifecycle.starting(Status()), Started(7, 1, 100.0, 5.0))


def over(status, raw=0, *, is_rank_killed=False, **exit_options):
    ending = Exit(raw, 101.0, **exit_options)
    return lifecycle.ended(status, ending, at=102.0, is_rank_killed=is_rank_killed)


def test_each_step_is_a_revision_and_nothing_new_is_none():
    assert (RUNNING.state, RUNNING.pid, RUNNING.started) == (JobState.RUNNING, 7, 100.0)
    assert RUNNING.revision == 3
    assert lifecycle.running(RUNNING, Started(7, 1, 100.0, 5.0)) is RUNNING
    assert lifecycle.disconnected(RUNNING, 9, at=3.0) is RUNNING


@pytest.mark.parametrize(
    ("raw", "state", "reason", "code", "number"),
    [
        (0, JobState.SUCCEEDED, Reason.EXITED, 0, 0),
        (7 << 8, JobState.FAILED, Reason.EXITED, 7, 0),
        (137 << 8, JobState.FAILED, Reason.EXITED, 137, 0),
        (9, JobState.FAILED, Reason.SIGNALED, 137, 9),
        (11 | 0x80, JobState.FAILED, Reason.SIGNALED, 139, 11),  # with a core dump
    ],
)
def test_a_job_that_ended_by_itself(raw, state, reason, code, number):
    ended = over(RUNNING, raw)
    assert (ended.state, ended.reason) == (state, reason)
    assert (ended.exit_code, ended.signal, ended.ended) == (code, number, 102.0)


@pytest.mark.parametrize("raw", [0, 15, 9, 3 << 8])
def test_a_stopped_job_is_cancelled_however_it_ends(raw):
    stopping = lifecycle.stopping(RUNNING, reason=Reason.STOPPED, kill_at=9.0)
    ended = over(stopping, raw)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)


def test_a_stop_after_the_timeout_does_not_hide_it():
    late = lifecycle.stopping(RUNNING, reason=Reason.TIMEOUT, kill_at=9.0)
    hastened = lifecycle.stopping(late, reason=Reason.STOPPED, kill_at=3.0)
    assert (hastened.stop_reason, hastened.kill_at) == (Reason.TIMEOUT, 3.0)
    assert lifecycle.stopping(hastened, reason=Reason.STOPPED, kill_at=5.0) is hastened
    ended = over(hastened, 15)
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.FAILED, Reason.TIMEOUT, 143)


def test_a_stop_that_is_recorded_stands_whatever_the_state():
    late = lifecycle.stopping(RUNNING, reason=Reason.TIMEOUT, kill_at=9.0)
    early = replace(late, state=JobState.STARTING)
    again = lifecycle.stopping(early, reason=Reason.STOPPED, kill_at=20.0)
    assert (again.stop_reason, again.kill_at) == (Reason.TIMEOUT, 9.0)


def test_a_signal_sent_on_request_is_a_stop_only_if_the_job_died_of_it():
    told = lifecycle.signalled(RUNNING, signal.SIGINT)
    assert over(told, signal.SIGINT).state is JobState.CANCELLED
    assert over(told, signal.SIGSEGV).reason is Reason.SIGNALED
    assert over(told, 0).state is JobState.SUCCEEDED


@pytest.mark.parametrize(("raw", "code"), [(127 << 8, 127), (126 << 8, 126), (9, 126)])
def test_a_job_that_could_not_start(raw, code):
    ended = over(RUNNING, raw, error=2, message="unable to execute x: no such file")
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.START_FAILED)
    assert (ended.exit_code, ended.started) == (code, 0.0)
    assert ended.message == "unable to execute x: no such file"


def test_an_unknown_end_is_lost_and_never_a_success():
    stopping = lifecycle.stopping(RUNNING, reason=Reason.STOPPED, kill_at=9.0)
    for status in (RUNNING, stopping, Status()):
        ended = lifecycle.ended(status, None, at=102.0)
        assert (ended.state, ended.reason) == (JobState.LOST, Reason.KEEPER_LOST)
        assert ended.exit_code is None
        assert ended.message


STARVED = Usage(1.0, 0.5, peak_memory=3_100_000_000)


@pytest.mark.parametrize(
    ("raw", "is_rank_killed", "reason"),
    [
        (9, False, Reason.OUT_OF_MEMORY),
        (137 << 8, False, Reason.OUT_OF_MEMORY),  # a shell speaks of its command
        (1 << 8, True, Reason.OUT_OF_MEMORY),  # torchrun's own, of a rank
        (1 << 8, False, Reason.EXITED),
        (11, False, Reason.SIGNALED),
        (0, True, Reason.EXITED),
    ],
)
def test_want_of_memory_is_the_reason_where_it_can_be(raw, is_rank_killed, reason):
    ended = over(RUNNING, raw, is_rank_killed=is_rank_killed, usage=STARVED, oom_kills=1)
    assert (ended.reason, ended.usage) == (reason, STARVED)
    calm = over(RUNNING, raw, is_rank_killed=is_rank_killed, usage=STARVED)
    assert calm.reason is not Reason.OUT_OF_MEMORY
    if reason is Reason.OUT_OF_MEMORY:
        assert ended.message == (
            "killed by the kernel for want of memory; its largest process held 3.1 GB"
        )
    elif ended.exit_code:
        assert ended.message.startswith("the kernel killed a process for want of memory meanwhile")
    else:
        assert ended.message == ""


def test_a_kill_that_was_asked_for_is_no_want_of_memory():
    told = lifecycle.signalled(RUNNING, signal.SIGKILL)
    assert over(told, 9, oom_kills=1).reason is Reason.STOPPED
    stopping = lifecycle.stopping(RUNNING, reason=Reason.STOPPED, kill_at=9.0)
    assert over(stopping, 9, oom_kills=1).state is JobState.CANCELLED


def test_output_that_cannot_be_kept_is_a_failure_with_a_cause():
    full = lifecycle.stopping(RUNNING, reason=Reason.QUOTA, kill_at=9.0, message="no space")
    ended = over(lifecycle.stopping(full, reason=Reason.STOPPED, kill_at=3.0), 15)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.QUOTA)
    assert ended.message == "no space"


def test_a_failed_attempt_is_followed_by_another_as_often_as_was_asked():
    launch = replace(LAUNCH, retries=1)
    ending, ends = Exit(7 << 8, 101.0), (Stream(0, "stdout", 5),)
    assert lifecycle.is_to_be_repeated(RUNNING, ending, launch)
    again = lifecycle.repeated(RUNNING, ending, ends=ends)
    assert (again.state, again.attempt, again.revision) == (JobState.STARTING, 2, 4)
    assert (again.pid, again.started, again.exit_code) == (0, 0.0, None)
    assert again.attempts == (Attempt(1, Reason.EXITED, 7, started=100.0, ended=101.0, ends=ends),)
    second = lifecycle.running(again, Started(8, 2, 110.0, 15.0, attempt=2))
    assert not lifecycle.is_to_be_repeated(second, ending, launch)
    assert over(second, 7 << 8).attempts == again.attempts


@pytest.mark.parametrize(
    ("before", "ending"),
    [
        (RUNNING, Exit(0, 101.0)),
        (RUNNING, Exit(127 << 8, 101.0, message="unable to execute x")),
        (lifecycle.stopping(RUNNING, reason=Reason.STOPPED, kill_at=9.0), Exit(15, 101.0)),
        (lifecycle.stopping(RUNNING, reason=Reason.TIMEOUT, kill_at=9.0), Exit(15, 101.0)),
        (lifecycle.stopping(RUNNING, reason=Reason.QUOTA, kill_at=9.0), Exit(15, 101.0)),
        (lifecycle.signalled(RUNNING, 2), Exit(2, 101.0)),
    ],
)
def test_what_is_not_tried_again(before, ending):
    assert not lifecycle.is_to_be_repeated(before, ending, replace(LAUNCH, retries=5))


def test_a_stop_of_everything_stays_one():
    first = lifecycle.stopping(RUNNING, reason=Reason.STOPPED, kill_at=9.0)
    wider = lifecycle.stopping(first, reason=Reason.STOPPED, kill_at=9.0, is_all=True)
    assert (first.stop_all, wider.stop_all) == (False, True)
    assert lifecycle.stopping(wider, reason=Reason.STOPPED, kill_at=9.0) is wider


def paused(pid, rank=0):
    fields = {"file": "/w/a.py", "line": 3, "function": "f", "reason": "step"}
    return Event(DEBUG_PAUSED, 2.0, rank=rank, pid=pid, seq=1, fields=fields)


def test_stops_follow_the_debuggers_events():
    both = lifecycle.noted(lifecycle.noted(RUNNING, paused(7)), paused(8, rank=1))
    assert [(stop.pid, stop.rank, stop.line) for stop in both.stops] == [(7, 0, 3), (8, 1, 3)]
    again = lifecycle.noted(both, replace(paused(7), time=3.0))
    assert sorted(stop.pid for stop in again.stops) == [7, 8]
    one = lifecycle.noted(again, Event(DEBUG_RESUMED, 4.0, pid=7, seq=2))
    assert [stop.pid for stop in one.stops] == [8]
    assert lifecycle.disconnected(one, 8, at=5.0).stops == ()
    assert over(one).stops == ()
    assert lifecycle.noted(RUNNING, Event("metric", 1.0)) is RUNNING


def test_a_rank_without_progress_is_shown_and_the_one_that_waits_for_others_rather():
    place = {"file": "/w/train.py", "line": 33, "function": "step", "seconds": 4.2}
    late = Event(HANG_SUSPECTED, 2.0, rank=0, pid=7, seq=1, fields={**place, "waiting": ""})
    waits = Event(HANG_SUSPECTED, 2.0, rank=1, pid=8, seq=1, fields={**place, "waiting": "barrier"})
    first = lifecycle.noted(RUNNING, late)
    assert first.message == "rank 0 makes no progress since 4 s: train.py:33 in step"
    both = lifecycle.noted(first, waits)
    shown = "rank 1 makes no progress since 4 s: train.py:33 in step, waiting in barrier"
    assert both.message == shown
    assert lifecycle.noted(both, late) == both
    over = Event(HANG_OVER, 3.0, rank=0, pid=7, seq=2, fields={"seconds": 9.0})
    assert lifecycle.noted(both, over).message == shown
    assert lifecycle.noted(both, replace(over, rank=1)).message == ""
    full = replace(RUNNING, message="waits for room for its output: no space left on device")
    assert lifecycle.noted(full, waits) == full


def test_time_in_which_the_debugger_holds_a_rank_is_not_the_jobs():
    launch, started = replace(LAUNCH, timeout=10.0), Started(7, 1, 100.0, 5.0)
    assert lifecycle.times_out_at(RUNNING, started, launch) == 15.0
    assert lifecycle.times_out_at(RUNNING, started, LAUNCH) is None
    both = lifecycle.noted(lifecycle.noted(RUNNING, paused(7)), replace(paused(8), time=4.0))
    assert lifecycle.times_out_at(both, started, launch) is None
    one = lifecycle.noted(both, Event(DEBUG_RESUMED, 6.0, pid=7, seq=2))
    assert lifecycle.times_out_at(one, started, launch) is None
    free = lifecycle.disconnected(one, 8, at=8.5)
    assert lifecycle.times_out_at(free, started, launch) == 21.5
    again = lifecycle.noted(lifecycle.noted(free, paused(9)), Event(DEBUG_RESUMED, 3.0, pid=9))
    assert lifecycle.times_out_at(again, started, launch) == 22.5


def loop_paused(pid, at=2.0):
    fields = {"step": 12, "epoch": 1, "phase": "", "reason": "paused by ada@laptop"}
    return Event(LOOP_PAUSED, at, rank=pid - 7, pid=pid, fields=fields)


def test_pauses_follow_the_loops_events_and_the_job_runs_on():
    both = lifecycle.noted(lifecycle.noted(RUNNING, loop_paused(7)), loop_paused(8))
    assert [(p.rank, p.pid, p.step, p.reason) for p in both.pauses] == [
        (0, 7, 12, "paused by ada@laptop"),
        (1, 8, 12, "paused by ada@laptop"),
    ]
    assert both.state is JobState.RUNNING
    assert Status.from_json(both.to_json()) == both
    one = lifecycle.noted(both, Event(LOOP_RESUMED, 4.0, rank=0, pid=7))
    assert [pause.pid for pause in one.pauses] == [8]
    assert lifecycle.disconnected(one, 8, at=5.0).pauses == ()
    assert over(one).pauses == ()


def test_time_in_which_a_training_is_paused_is_not_the_jobs_whether_debugged_meanwhile_or_not():
    launch, started = replace(LAUNCH, timeout=10.0), Started(7, 1, 100.0, 5.0)
    held = lifecycle.noted(RUNNING, loop_paused(7))
    assert lifecycle.times_out_at(held, started, launch) is None
    both = lifecycle.noted(held, replace(paused(7), time=3.0))
    debugged = lifecycle.noted(both, Event(LOOP_RESUMED, 4.0, pid=7))
    assert lifecycle.times_out_at(debugged, started, launch) is None
    free = lifecycle.noted(debugged, Event(DEBUG_RESUMED, 6.5, pid=7))
    assert lifecycle.times_out_at(free, started, launch) == 19.5


def test_no_number_of_held_processes_outgrows_the_record():
    status = RUNNING
    for pid in range(100):
        status = lifecycle.noted(status, paused(pid))
    assert len(status.stops) == 32


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_job_that_was_told_to_end_and_gives_up_is_cancelled_and_not_tried_again(number):
    again = replace(LAUNCH, retries=3)
    told = lifecycle.signalled(RUNNING, number)
    assert over(told, 5 << 8).state is JobState.CANCELLED
    assert over(told, 0).state is JobState.SUCCEEDED, "it may also finish well"
    assert not lifecycle.is_to_be_repeated(told, Exit(5 << 8, 101.0), again)
    other = lifecycle.signalled(RUNNING, signal.SIGUSR1)
    assert over(other, 5 << 8).state is JobState.FAILED
    assert lifecycle.is_to_be_repeated(other, Exit(5 << 8, 101.0), again)


def test_a_job_that_was_stopped_before_it_began_goes_on_stopping():
    stopping = lifecycle.stopping(Status(), reason=Reason.STOPPED, kill_at=9.0)
    assert lifecycle.starting(stopping).state is JobState.STOPPING


def test_what_a_process_says_of_its_stop_can_be_told_on():
    fields = {"file": "train\udce9.py", "line": 10**12, "function": "f"}
    (stop,) = lifecycle.noted(RUNNING, Event(DEBUG_PAUSED, 1.0, fields=fields)).stops
    assert (stop.file, stop.line) == ("train?.py", 0)
