"""Which process of a rank is attached to, and what py-spy and the hook say of one."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from rdev.agent.debug.holds import set_stops
from rdev.agent.debug.stacks import of_hook, of_py_spy
from rdev.agent.debug.target import BEGIN_SECONDS, Target, choose, target_of
from rdev.client.debug.expecting import going_where_it_waits, rank_that_waits
from rdev.protocol.errors import DebuggerUnavailable
from rdev.wire.job import CommandKind, DebugStart, DebugStop, Job, JobSpec, JobState


def test_the_process_that_trains_is_the_one_whose_children_the_workers_are():
    # A supervisor that was restarted meets the workers first.
    parents = {11: 10, 12: 10, 10: 5, 5: 1}
    assert choose([11, 12, 10], lambda pid: parents.get(pid, 0)) == Target(10)


def test_a_worker_of_a_process_between_is_a_worker_too():
    parents = {12: 11, 11: 10, 10: 1}
    assert choose([12, 10], lambda pid: parents.get(pid, 0)) == Target(10)


def test_several_programs_of_one_rank_are_told():
    parents = {10: 5, 20: 5, 5: 1}
    assert choose([10, 20], lambda pid: parents.get(pid, 0)) == Target(10, (20,))


def test_a_process_that_has_gone_meanwhile_has_no_parent_and_endless_lines_end():
    assert choose([10], lambda _pid: 0) == Target(10)
    assert choose([10], lambda pid: {10: 11, 11: 12, 12: 11}[pid]) == Target(10)


# What py-spy 0.4 prints with `--json --native`, shortened.
SPIED = [
    {
        "pid": 70,
        "thread_id": 140,
        "thread_name": None,
        "os_thread_id": 71,
        "active": False,
        "owns_gil": False,
        "frames": [
            {"name": "poll", "filename": "libc.so.6", "module": "/lib/libc.so.6", "line": 0}
        ],
        "process_info": {"pid": 70, "command_line": "python train.py", "ppid": 1},
    },
    {
        "pid": 70,
        "thread_id": 139,
        "thread_name": "MainThread",
        "os_thread_id": 70,
        "active": True,
        "owns_gil": True,
        "frames": [
            {"name": "step", "filename": "/w/train.py", "module": None, "line": 5},
            {"name": "<module>", "filename": "/w/train.py", "module": None, "line": 9},
        ],
        "process_info": {"pid": 70, "command_line": "python train.py", "ppid": 1},
    },
]


def test_what_py_spy_prints_is_read_with_the_main_thread_first():
    found = of_py_spy(json.dumps(SPIED).encode(), 3, 70)
    assert (found.rank, found.title, found.source) == (3, "python train.py", "py-spy")
    assert [thread.name for thread in found.threads] == ["MainThread", "thread 71"]
    assert [(f.line, f.function) for f in found.threads[0].frames] == [(5, "step"), (9, "<module>")]
    assert found.threads[1].frames[0].file == "libc.so.6"
    for broken in (b"", b"{}", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own, or ours
            of_py_spy(broken, 0, 70)


def test_what_a_hook_answers_is_read():
    answer = {
        "threads": [{"name": "MainThread", "paused": True, "frames": [["/w/train.py", 5, "step"]]}],
        "title": "python train.py",
    }
    found = of_hook(answer, 1, 70)
    assert found.threads[0].is_paused
    assert found.threads[0].frames[0].function == "step"
    assert (found.source, found.cause) == ("hook", "")


async def test_a_worker_that_waits_for_a_debugger_is_the_one_that_is_attached_to():
    stop = DebugStop(0, 11, "/ws/data.py", 4, "load", "breakpoint", 103.0, unattended=True)
    spec = JobSpec(kind=CommandKind.SCRIPT, target="train.py")
    job = Job(id="0" * 12, name="train", spec=spec, state=JobState.RUNNING)

    class Peers:
        async def peers(self, job_id):
            assert job_id == job.id
            return [{"role": "hook", "rank": 0, "pid": pid} for pid in (10, 11)]

    assert await target_of(Peers(), replace(job, stops=(stop,)), 0, "debug") == Target(11)
    attended = replace(stop, unattended=False)
    found = await target_of(Peers(), replace(job, stops=(attended,)), 0, "debug")
    assert found == Target(10, (11,))


class Launched:
    """Two ranks that a launcher starts: each dials when it is looked for the next time."""

    def __init__(self, *, age: float = 0.0):
        spec = JobSpec(kind=CommandKind.SCRIPT, target="train.py", processes=2)
        started = time.time() - age
        self.job = Job("0" * 12, "train", spec, JobState.RUNNING, started=started, ranks=2)
        self.looks = 0

    async def get(self, reference):
        assert reference == self.job.id
        return self.job

    async def peers(self, job_id):
        assert job_id == self.job.id
        self.looks += 1
        return [{"role": "hook", "rank": n, "pid": 10 + n} for n in range(2) if self.looks > n + 1]

    async def command(self, *_words, **_options):
        return {"reached": 0, "counted": True}


async def test_a_rank_that_has_yet_to_begin_is_waited_for_and_said_once():
    jobs, told = Launched(), []
    assert await target_of(jobs, jobs.job, 1, "debug", told.append) == Target(11)
    assert told == ["waiting for rank 1 to begin"]


async def test_ranks_that_have_yet_to_begin_are_told_apart_from_those_that_have_no_hook():
    jobs, stops = Launched(), DebugStart(on_nan=True)
    coming = [(await set_stops(jobs, jobs.job, stops, rank=None)).coming for _ in range(3)]
    assert coming == [(0, 1), (1,), ()]
    jobs = Launched()
    assert (await set_stops(jobs, jobs.job, stops, rank=1)).coming == (1,)
    old = Launched(age=BEGIN_SECONDS + 1.0)
    with pytest.raises(DebuggerUnavailable, match="no process of it has the debug hook"):
        await set_stops(old, old.job, stops, rank=None)
    with pytest.raises(DebuggerUnavailable, match="no process of it has the debug hook"):
        await set_stops(Launched(), jobs.job, DebugStart(), rank=None)  # taken back


def test_whoever_names_no_rank_goes_to_the_lowest_that_waits():
    job = Launched().job
    assert (rank_that_waits(job), going_where_it_waits(job)) == (None, "")
    stops = [
        DebugStop(rank, 10 + rank, "/ws/a.py", 4, "f", "exception", 103.0, unattended=rank > 0)
        for rank in (2, 0, 1)
    ]
    job = replace(job, ranks=3, stops=tuple(stops))
    assert rank_that_waits(job) == 1
    assert going_where_it_waits(job) == "ranks 1, 2 wait for a debugger: going to rank 1"
    job = replace(job, stops=tuple(stops[:2]))
    assert going_where_it_waits(job) == "rank 2 waits for a debugger: going to rank 2"
    assert going_where_it_waits(replace(job, ranks=1)) == ""
